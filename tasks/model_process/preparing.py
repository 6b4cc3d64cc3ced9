"""The model process: load, export, warm up, and answer what the candidate will be asked.

One process for all four, for the model is in its memory: each stage hands paths to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from model_registry.errors import InvalidInputError
from model_registry.serving import batching
from model_registry.spec import DEFAULT_BATCH_SIZES, OutputSpec, PackageSpec, SignatureSpec
from tasks.model_process import cases, exporting, loading, samples, signatures, warmup_log
from tasks.model_process.endpoints import Endpoint, keras_endpoint, saved_model_endpoint
from tasks.model_process.messages import (
    ExportedModel,
    LoadedModel,
    PreparePlan,
    ReferenceAnswers,
    WarmedModel,
)

_DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def stages(receive: Callable[[type[PreparePlan]], PreparePlan]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The stages in their order; each runs before the next is asked for."""
    preparation = _Preparation(receive(PreparePlan))
    yield "load", preparation.load
    yield "export", preparation.export
    yield "warm up", preparation.warm_up
    yield "answer", preparation.answer


class _Preparation:
    """The model and what was made of it so far."""

    def __init__(self, plan: PreparePlan) -> None:
        self.plan = plan
        self.spec = PackageSpec.model_validate(plan.spec)
        self.cases_directory = Path(plan.cases)

    def load(self) -> LoadedModel:
        plan, spec = self.plan, self.spec
        self.model = loading.load(
            Path(plan.source),
            plan.source_format,
            custom_objects=spec.custom_objects if plan.trusted else (),
            code_directory=Path(plan.code_directory) if plan.code_directory and plan.trusted else None,
            unsafe=spec.unsafe_deserialization and plan.trusted,
        )
        variables = getattr(self.model, "variables", ())
        self.variables_loaded = len(variables)
        return LoadedModel(
            kind=type(self.model).__name__ if isinstance(self.model, keras.Model) else "SavedModel",
            parameters=int(sum(np.prod(variable.shape, dtype=np.int64) for variable in variables)),
            precision=loading.precision(self.model),  # type: ignore[arg-type]
        )

    def export(self) -> ExportedModel:
        self.signatures = [
            signatures.trace(name, spec, self._endpoint(name, spec)) for name, spec in self._wanted().items()
        ]
        loading.load_late_weights(self.model, Path(self.plan.source), self.variables_loaded)
        asked = self.spec.batch_sizes or DEFAULT_BATCH_SIZES
        self.batch_sizes = cases.effective_batch_sizes(self.signatures, asked)
        warmup_log.check_record_count(len(self.signatures), len(self.batch_sizes))
        written = exporting.export(self.model, self.signatures, Path(self.plan.candidate))
        notes = []
        if dropped := [str(size) for size in asked if size not in self.batch_sizes]:
            sizes = ", ".join(map(str, self.batch_sizes))
            notes.append(f"the model takes batches of {sizes} only; dropped {', '.join(dropped)}")
        if obstacle := batching.obstacle(written, self.batch_sizes):
            notes.append(f"no server batches requests to it: {obstacle}")
        else:
            (Path(self.plan.candidate) / batching.FILE).write_text(batching.per_version(self.batch_sizes))
        return ExportedModel(written, self.batch_sizes, tuple(notes))

    def warm_up(self) -> WarmedModel:
        if self.plan.samples is not None:
            arrays = samples.read_samples(Path(self.plan.samples))
            self._check_labels(arrays)
            self.rows = samples.rows_from_samples(arrays, self.signatures)
        else:
            self.rows = samples.synthesised_rows(self.model, self.signatures, max(self.batch_sizes))
        self.warmup_cases = cases.warmup_cases(self.signatures, self.batch_sizes)
        self.sample_cases = cases.sample_cases(self.signatures, self.batch_sizes, self.rows)
        records = warmup_log.write_log(
            Path(self.plan.candidate) / warmup_log.WARMUP_FILE, map(self._request, self.warmup_cases)
        )
        warmup_log.write_log(self.cases_directory / cases.REQUESTS, map(self._request, self.sample_cases))
        return WarmedModel(records, self.rows.count, synthesised=not self.rows.given)

    def answer(self) -> ReferenceAnswers:
        answers = cases.reference_answers([*self.warmup_cases, *self.sample_cases], self.rows)
        return ReferenceAnswers(warmup_log.write_log(self.cases_directory / cases.ANSWERS, answers))

    def _wanted(self) -> dict[str, SignatureSpec | None]:
        """The spec's signatures, and the model's own where the spec does not redefine them."""
        own = [_DEFAULT] if isinstance(self.model, keras.Model) else sorted(self.model.signatures)
        asked = self.spec.signatures or {}
        default = asked.get(_DEFAULT)
        if default is not None:
            inherits = {name for name in asked if isinstance(self.model, keras.Model) or name not in own}
            asked = {name: _inherited(spec, default) if name in inherits else spec for name, spec in asked.items()}
        return {**dict.fromkeys(own), **asked}

    def _endpoint(self, name: str, spec: SignatureSpec | None) -> Endpoint:
        if isinstance(self.model, keras.Model):
            default = (self.spec.signatures or {}).get(_DEFAULT)
            declared = [item.inputs for item in (spec, default) if item is not None and item.inputs]
            return keras_endpoint(self.model, layer=spec.layer if spec else None, declared=declared)
        if spec is not None and spec.layer is not None:
            raise InvalidInputError(
                f"signatures.{name}: `layer: {spec.layer}` needs a Keras model; a SavedModel has no layers any more",
                hint="package the .keras file it was made from",
            )
        definitions = exporting.signature_definitions(Path(self.plan.source))
        usable = {key for key in self.model.signatures if exporting.method(definitions[key]) == "predict"}
        if name not in usable and (spec is None or _DEFAULT not in usable):
            problem = (
                "takes serialized tf.Examples, and what is in them the SavedModel does not say"
                if name in definitions
                else f"is not in the SavedModel, and there is no {_DEFAULT} to derive it from"
            )
            raise InvalidInputError(
                f"signatures.{name} {problem}; to call by tensors it has {', '.join(sorted(usable)) or 'none'}",
                hint=f"describe {name} in the spec by its method and outputs; it is then made anew from {_DEFAULT}",
            )
        chosen = name if name in usable else _DEFAULT
        return saved_model_endpoint(self.model.signatures[chosen], definitions[chosen])

    def _check_labels(self, arrays: dict[str, samples.Array]) -> None:
        quality = self.spec.quality
        if quality is not None and quality.labels not in arrays:
            raise InvalidInputError(
                f"samples: no array {quality.labels!r}, which `quality.labels` names; found {', '.join(arrays)}"
            )

    def _request(self, case: cases.Case) -> Any:
        batch = self.rows.batch(case.signature.name, case.start, case.size)
        return warmup_log.request(self.spec.model, case.signature, batch)


def _inherited(spec: SignatureSpec, default: SignatureSpec) -> SignatureSpec:
    """A signature in serving_default's words: its inputs where it lists none, its outputs where it names one."""
    sources = {item.name: item.source for item in default.outputs or ()}
    changes: dict[str, Any] = {"inputs": spec.inputs or default.inputs}
    if spec.scores in sources:
        changes["scores"] = sources[spec.scores]
    if spec.method == "regress" and spec.outputs:
        changes["outputs"] = tuple(
            OutputSpec(item.name, sources.get(item.source, item.source)) for item in spec.outputs
        )
    return spec.model_copy(update=changes)
