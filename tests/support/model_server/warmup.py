"""Replays a version's warm-up records before it becomes AVAILABLE; one that fails, fails the load."""

from __future__ import annotations

import time
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from tests.support.model_server.errors import ServingError
from tests.support.model_server.servable import Servable
from tests.support.model_server.server_log import log

_SOURCE = "servables/tensorflow/saved_model_warmup_util.cc"
_MAX_RECORDS = 1000


def warm_up(servable: Servable, directory: Path) -> None:
    """Reads the file, if there is one, and asks what each record asks. Its model's name does not matter.

    Raises:
        ServingError: If a record cannot be read, or its request fails.
    """
    path = directory / "assets.extra/tf_serving_warmup_requests"
    if not path.exists():
        log("I", _SOURCE, f"No warmup data file found at {path}")
        return
    begun = time.monotonic()
    count = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(path)):
            _replay(servable, record)
            count += 1
            if count > _MAX_RECORDS:
                message = f"Number of warmup records exceeeds the maximum ({_MAX_RECORDS}) at {path}"
                raise ServingError("INVALID_ARGUMENT", message)
    except tf.errors.DataLossError as error:
        message = f"{error.message}. Please verify your warmup data is in TFRecord format."
        raise ServingError("DATA_LOSS", message) from None
    micros = int((time.monotonic() - begun) * 1e6)
    log(
        "I",
        _SOURCE,
        f"Finished reading warmup data for model at {path}. Number of warmup records read: {count}. "
        f"Elapsed time (microseconds): {micros}.",
    )


def _replay(servable: Servable, record: bytes) -> None:
    try:
        message = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError:
        raise ServingError("INVALID_ARGUMENT", "Failed to parse warmup record: not a PredictionLog") from None
    kind = message.WhichOneof("log_type")
    if kind == "predict_log":
        servable.predict(message.predict_log.request)
    elif kind == "classify_log":
        servable.classify(message.classify_log.request)
    elif kind == "regress_log":
        servable.regress(message.regress_log.request)
    elif kind is not None:
        raise ServingError("UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}")
