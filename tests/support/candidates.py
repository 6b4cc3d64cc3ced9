"""Drives the stages of the model process and the validator in this process, on real files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from model_registry.servable import Check
from model_registry.serving import batching
from model_registry.spec import PackageSpec
from tasks.model_process import preparing, validating
from tasks.model_process.messages import (
    AnswersReady,
    ExportedModel,
    LoadedModel,
    PreparePlan,
    ReferenceAnswers,
    ValidatePlan,
    WarmedModel,
)
from tasks.model_process.warmup_log import WARMUP_FILE
from tasks.validation import tolerance
from tests.support import absl_stream  # noqa: F401 - for its effect

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Candidate:
    """What the model process made of a source."""

    plan: PreparePlan
    loaded: LoadedModel
    exported: ExportedModel
    warmed: WarmedModel
    answered: ReferenceAnswers

    @property
    def directory(self) -> Path:
        """The SavedModel."""
        return Path(self.plan.candidate)

    @property
    def log(self) -> bytes:
        """The warm-up file."""
        return (self.directory / WARMUP_FILE).read_bytes()

    def requests(self) -> list[tuple[str, Arrays]]:
        """Signature and inputs of each warm-up record; serialized examples under `inputs`."""
        return [_request(record) for record in tf.data.TFRecordDataset(str(self.directory / WARMUP_FILE))]

    def validation(self) -> ValidatePlan:
        """What the validator would be told."""
        spec = PackageSpec.model_validate(self.plan.spec)
        return ValidatePlan(
            candidate=self.plan.candidate,
            cases=self.plan.cases,
            signatures=self.exported.signatures,
            records=self.warmed.records,
            rows=self.warmed.rows,
            tolerance=tolerance(spec, self.loaded),
            spec=self.plan.spec,
            samples=self.plan.samples,
            variant="native",
            batching=batching.for_version(self.exported.signatures, self.exported.batch_sizes),
        )

    def validate(self, **changes: Any) -> tuple[Check, ...]:
        """The validator's checks; `changes` to its plan."""
        messages = [replace(self.validation(), **changes), AnswersReady(self.answered.cases)]
        ((_, work),) = validating.stages(lambda _kind: messages.pop(0))
        return tuple(work().checks)


def prepare(
    source: Path,
    directory: Path,
    spec: Mapping[str, Any] | None = None,
    *,
    source_format: str = "keras",
    trusted: bool = False,
    code_directory: Path | None = None,
) -> Candidate:
    """Loads, exports, warms up and answers.

    Args:
        source: The trained model.
        directory: An empty directory for the candidate and its cases.
        spec: What the package.yaml says beyond the name, with `samples` as a path.
        source_format: What the source is.
        trusted: The operator's grant.
        code_directory: Where custom objects are.

    Raises:
        InvalidInputError: As the stages do.
    """
    form = PackageSpec.model_validate({"model": "zoo", **(spec or {})})
    cases = directory / "cases"
    cases.mkdir(parents=True)
    plan = PreparePlan(
        source=str(source),
        source_format=source_format,  # type: ignore[arg-type]
        spec=form.model_dump(mode="json"),
        trusted=trusted,
        code_directory=str(code_directory) if code_directory else None,
        samples=form.samples,
        candidate=str(directory / "candidate"),
        cases=str(cases),
    )
    results = [work() for _, work in preparing.stages(lambda _kind: plan)]
    return Candidate(plan, *results)


def answers_of(directory: Path, requests: list[tuple[str, Arrays]]) -> list[Arrays]:
    """What a TF1 Session answers, with the loader that TensorFlow Serving has; one state for all requests."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(directory))
        answers = []
        for signature, feed in requests:
            definition = meta_graph.signature_def[signature]
            fetches = {key: info.name for key, info in definition.outputs.items()}
            answers.append(session.run(fetches, {definition.inputs[key].name: array for key, array in feed.items()}))
        return answers


def _request(record: Any) -> tuple[str, Arrays]:
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    if log.WhichOneof("log_type") == "predict_log":
        request = log.predict_log.request
        feed = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
    else:
        request = (log.classify_log if log.HasField("classify_log") else log.regress_log).request
        examples = [example.SerializeToString() for example in request.input.example_list.examples]
        feed = {"inputs": np.array(examples, dtype=object)}
    return request.model_spec.signature_name, feed
