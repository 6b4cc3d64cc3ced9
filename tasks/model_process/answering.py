"""Writes down what a published SavedModel answers to its own warm-up records.

Where the trained model is not at hand any more, these are what another variant of it is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from model_registry.errors import InvalidInputError
from tasks.model_process import inspecting, serving, warmup_log
from tasks.model_process.cases import ANSWERS, REQUESTS
from tasks.model_process.conversion_messages import AnswerPlan, RecordedAnswers


def stages(receive: Callable[[type[AnswerPlan]], AnswerPlan]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage."""
    plan = receive(AnswerPlan)
    yield "answer", lambda: answer(Path(plan.saved_model), Path(plan.cases))


def answer(saved_model: Path, cases: Path) -> RecordedAnswers:
    """Runs every record through a Session, as the server does; there are no requests beyond them.

    Raises:
        InvalidInputError: If the graph reaches beyond the model, or there is no record.
    """
    if denied := inspecting.denied_ops(inspecting.read_saved_model(saved_model)):
        raise InvalidInputError(
            f"the native variant has ops that reach beyond it: {inspecting.shown(denied)}",
            hint="see who wrote into the registry: no such model is published",
        )
    records = list(warmup_log.read_log(saved_model / warmup_log.WARMUP_FILE))
    if not records:
        raise InvalidInputError("the native variant has no warm-up records to try a conversion with")
    rows = 1
    with (
        serving.loaded(saved_model) as (session, definitions),
        tf.io.TFRecordWriter(str(cases / ANSWERS)) as answers,
    ):
        for record in records:
            name, feed = warmup_log.feed(record)
            rows = max([rows, *(len(array) for array in feed.values() if array.ndim)])
            response = predict_pb2.PredictResponse()
            for output, array in serving.answer(session, definitions[name], feed).items():
                response.outputs[output].CopyFrom(tf.make_tensor_proto(array))
            answers.write(response.SerializeToString(deterministic=True))
    warmup_log.write_log(cases / REQUESTS, ())
    return RecordedAnswers(len(records), rows)
