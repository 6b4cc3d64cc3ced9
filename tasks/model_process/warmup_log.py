"""Warm-up records: what TensorFlow Serving replays before a version becomes AVAILABLE.

The file is a TFRecord of PredictionLog (tensorflow_serving/apis/prediction_log.proto). One record with
a wrong input name, signature or shape, and the server refuses the version; so the records are cut from
rows that were checked against the signatures, and the validator replays the very file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from model_registry.errors import InvalidInputError
from model_registry.spec import MAX_WARMUP_RECORDS
from tasks.model_process.signatures import TracedSignature

WARMUP_FILE = Path("assets.extra/tf_serving_warmup_requests")

Batch = Mapping[str, npt.NDArray[Any]]


def request(model: str, signature: TracedSignature, batch: Batch) -> prediction_log_pb2.PredictionLog:
    """One record: the request a client would send.

    Args:
        model: Name the server will know the model by.
        signature: Which to call.
        batch: Arrays [batch, ...] by public input name.
    """
    log = prediction_log_pb2.PredictionLog()
    if signature.method == "predict":
        message = log.predict_log.request
        for name, array in batch.items():
            dtype = signature.inputs[name].spec.dtype
            message.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype=dtype, shape=array.shape))
    else:
        kind = log.classify_log if signature.method == "classify" else log.regress_log
        message = kind.request
        message.input.example_list.examples.extend(examples(batch))
    message.model_spec.name = model
    message.model_spec.signature_name = signature.name
    return log


def feed(record: prediction_log_pb2.PredictionLog) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    """What a record asks: the signature's name, and the arrays that the server would feed it by input name."""
    request = getattr(record, record.WhichOneof("log_type")).request
    name = request.model_spec.signature_name
    if isinstance(request, predict_pb2.PredictRequest):
        return name, {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
    return name, {tf.saved_model.CLASSIFY_INPUTS: serialized(request.input.example_list.examples)}


def examples(batch: Batch) -> Iterator[tf.train.Example]:
    """A tf.Example for each row of plain features.

    Args:
        batch: Arrays [batch, ...] by feature name: bytes objects, numbers or booleans.
    """
    size = len(next(iter(batch.values())))
    for row in range(size):
        example = tf.train.Example()
        for name, array in sorted(batch.items()):
            feature = example.features.feature[name]
            values = np.ravel(array[row])
            if array.dtype == object:
                feature.bytes_list.value.extend(values)
            elif array.dtype.kind in "biu":
                feature.int64_list.value.extend(values.astype(np.int64))
            else:
                feature.float_list.value.extend(values.astype(np.float32))
        yield example


def serialized(messages: Iterable[tf.train.Example]) -> npt.NDArray[Any]:
    """Messages as the array of bytes objects that a signature over tf.Example is fed."""
    return np.array([message.SerializeToString() for message in messages], dtype=object)


def write_log(path: Path, records: Iterable[prediction_log_pb2.PredictionLog]) -> int:
    """Writes records, the same bytes for the same records, and returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString(deterministic=True))
            count += 1
    return count


def read_log(path: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    """The records of a file, one at a time."""
    for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        yield prediction_log_pb2.PredictionLog.FromString(data)


def check_record_count(signatures: int, batch_sizes: int) -> None:
    """Refuses more warm-up records than a server takes.

    Raises:
        InvalidInputError: If one record for each signature and batch size is too much.
    """
    if signatures * batch_sizes > MAX_WARMUP_RECORDS:
        raise InvalidInputError(
            f"{signatures} signatures at {batch_sizes} batch sizes make {signatures * batch_sizes} warm-up records; "
            f"TensorFlow Serving refuses a version with more than {MAX_WARMUP_RECORDS:,}",
            hint="list fewer batch_sizes",
        )
