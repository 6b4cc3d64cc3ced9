"""Which requests a candidate is tried with, in which order, and what the trained model answers to them.

First the warm-up records, a signature after the other and each by ascending batch size; then, with a
samples file, the rows that no record held. The trained model and the candidate see the same sequence
from the same initial state, so that a stateful model needs no rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from tasks.model_process.samples import Rows
from tasks.model_process.signatures import TracedSignature, to_model

# In the directory that the model process and the validator share: the requests beyond the warm-up
# records (PredictionLog), and an answer for each record and request (PredictResponse).
REQUESTS = "requests.tfrecord"
ANSWERS = "answers.tfrecord"


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        signature: Which signature it calls.
        start: First row.
        size: Batch size.
    """

    signature: TracedSignature
    start: int
    size: int


def effective_batch_sizes(signatures: Sequence[TracedSignature], asked: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes all signatures take: those asked for, or the single one a model is fixed to.

    Args:
        signatures: All of the candidate.
        asked: Ascending, from the spec.
    """
    fixed = {signature.fixed_batch for signature in signatures} - {None}
    return tuple(sorted(size for size in fixed if size is not None)) or tuple(asked)


def warmup_cases(signatures: Sequence[TracedSignature], batch_sizes: Sequence[int]) -> list[Case]:
    """One case for each signature and batch size; a signature of fixed batch has its own size only."""
    return [
        Case(signature, 0, size)
        for signature in signatures
        for size in ([signature.fixed_batch] if signature.fixed_batch else batch_sizes)
    ]


def sample_cases(signatures: Sequence[TracedSignature], batch_sizes: Sequence[int], rows: Rows) -> list[Case]:
    """The rest of given samples, in batches of the largest size; made-up rows all fit the records."""
    if not rows.given:
        return []
    return [
        Case(signature, start, largest)
        for signature in signatures
        for largest in [signature.fixed_batch or max(batch_sizes)]
        for start in range(largest, rows.count, largest)
    ]


def reference_answers(cases: Sequence[Case], rows: Rows) -> Iterator[predict_pb2.PredictResponse]:
    """What the trained model itself answers, case by case.

    It runs eagerly, which shows Python code that behaves otherwise while it is traced. Where there is no
    such code, in a graph of Keras' own layers, only a signature's first case does; the others run through a
    `tf.function` around the plain model, as in `model.predict`: run eagerly, a functional model keeps every
    activation until the end (1 GB more for ResNet50 at batch 8).
    """
    calls: dict[str, Any] = {}
    for case in cases:
        signature = case.signature
        batch = rows.batch(signature.name, case.start, case.size)
        tensors = {name: tf.constant(array, dtype=signature.inputs[name].spec.dtype) for name, array in batch.items()}
        values = to_model(signature.inputs, tensors)
        results = calls.get(signature.name, signature.endpoint.call)(values)
        if signature.endpoint.fixed_graph and signature.name not in calls:
            specs = [_model_specs(signature)]
            calls[signature.name] = tf.function(signature.endpoint.call, autograph=False, input_signature=specs)
        response = predict_pb2.PredictResponse()
        for public, source in signature.outputs.items():
            array = results[source].numpy()
            if signature.method != "predict":
                array = array.astype(np.float32)
            if signature.method == "regress":
                array = array.reshape(-1)
            response.outputs[public].CopyFrom(tf.make_tensor_proto(array))
        if signature.classes:
            labels = tf.make_tensor_proto([signature.classes] * case.size, tf.string)
            response.outputs[tf.saved_model.CLASSIFY_OUTPUT_CLASSES].CopyFrom(labels)
        yield response


def _model_specs(signature: TracedSignature) -> dict[str, tf.TensorSpec]:
    return {item.source: tf.TensorSpec(item.spec.shape, item.model_dtype) for item in signature.inputs.values()}
