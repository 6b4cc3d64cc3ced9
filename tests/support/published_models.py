"""A small SavedModel of the kind Slipway publishes, and a registry that holds it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.servable import (
    NATIVE,
    Blessing,
    Check,
    Method,
    Run,
    ServableVersion,
    Signature,
    Source,
    TensorInfo,
    Variant,
)

WEIGHTS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def signature(name: str, method: Method, inputs: list[TensorInfo], outputs: list[TensorInfo]) -> Signature:
    return Signature(name, method, tuple(inputs), tuple(outputs))


IMAGE = TensorInfo("image", "float32", (None, 4))
SCORES = TensorInfo("probabilities", "float32", (None, 3))
SIGNATURES = (
    signature("serving_default", "predict", [IMAGE], [SCORES]),
    signature(
        "texts",
        "predict",
        [TensorInfo("text", "string", (None,))],
        [TensorInfo("upper", "string", (None,)), TensorInfo("raw", "string", (None,))],
    ),
    signature(
        "classify",
        "classify",
        [TensorInfo("inputs", "string", (None,))],
        [TensorInfo("classes", "string", (None, 3)), TensorInfo("scores", "float32", (None, 3))],
    ),
)


def draft(model: str = "digits", identity: str = "0" * 64, **changes: Any) -> ServableVersion:
    """A manifest to be published."""
    values: dict[str, Any] = {
        "model": model,
        "version": 0,
        "identity": identity,
        "created_at": "",
        "source": Source("/models/digits.keras", "keras", "ab" * 32, 1234),
        "spec": {},
        "signatures": SIGNATURES,
        "batch_sizes": (1, 8),
        "variants": (),
        "blessing": Blessing((Check("parity/serving_default/probabilities", NATIVE, 0.0, 1e-5, True),)),
        "libraries": {"tensorflow": "2.17.1"},
        "run": Run("7e57", "quiet-otter"),
        "write_id": "",
    }
    return ServableVersion(**(values | changes))


def publish(registry: Registry, payload: Path, workspace: Path, **changes: Any) -> ServableVersion:
    """Publishes a copy of a directory: a local registry consumes what it is given."""
    copy = workspace / "payload"
    shutil.copytree(payload, copy)
    changes.setdefault("variants", (Variant(NATIVE, payload_files(copy)),))
    version, _ = registry.publish(draft(**changes), {NATIVE: copy})
    shutil.rmtree(copy, ignore_errors=True)
    return version


def save_model(directory: Path) -> Path:
    """Writes the SavedModel with `SIGNATURES` and a warm-up record of `serving_default`. Imports TensorFlow."""
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from tasks.model_process.warmup_log import WARMUP_FILE, write_log

    module = tf.Module()
    module.weights = tf.Variable(WEIGHTS)
    module.labels = tf.constant([["cat", "dog", "emu"]])

    def scores(image: Any) -> Any:
        return tf.nn.softmax(tf.matmul(image, module.weights))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="image")])
    def serving_default(image: Any) -> Any:
        return {"probabilities": scores(image)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def texts(text: Any) -> Any:
        return {"upper": tf.strings.upper(text, encoding="utf-8"), "raw": tf.strings.join([text, b"\xff\x00"])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(inputs: Any) -> Any:
        parsed = tf.io.parse_example(inputs, {"image": tf.io.FixedLenFeature([4], tf.float32)})
        found = scores(parsed["image"])
        return {"classes": tf.tile(module.labels, [tf.shape(found)[0], 1]), "scores": found}

    module.endpoints = [serving_default, texts, classify]
    functions = {"serving_default": serving_default, "texts": texts, "classify": classify}
    tf.saved_model.save(module, str(directory), signatures=functions)
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = "serving_default"
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(np.array([[0, 9, 0, 0], [9, 0, 0, 0]], np.float32)))
    write_log(directory / WARMUP_FILE, [log])
    return directory
