"""The validator: tries a candidate as TensorFlow Serving would, in a process that never saw the model.

It knows the SavedModel, the requests and the trained model's answers, none of the Python behind them. A
check that cannot be made is a check that failed, with the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from model_registry.payload import read_text
from model_registry.servable import Check, Signature
from model_registry.serving import batching
from model_registry.spec import PackageSpec
from tasks.model_process import comparing, inspecting, saved_model_cli, serving, warmup_log
from tasks.model_process.cases import ANSWERS, REQUESTS
from tasks.model_process.error_lines import reason
from tasks.model_process.exporting import read_signatures
from tasks.model_process.messages import AnswersReady, ValidatedCandidate, ValidatePlan
from tasks.model_process.samples import read_samples

Array = comparing.Array
Answer = tuple[str, dict[str, Array]]

_BEFORE_RUNNING = ("saved_model_cli scan", "ops")


def stages(receive: Callable[[type[Any]], Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage: the checks that need no reference answers are made while the model process works those out."""
    validation = _Validation(receive(ValidatePlan))

    def validate() -> ValidatedCandidate:
        validation.inspect()
        validation.replay()
        validation.compare(receive(AnswersReady).cases)
        return ValidatedCandidate(tuple(validation.checks))

    yield "validate", validate


class _Validation:
    """The checks made so far."""

    def __init__(self, plan: ValidatePlan) -> None:
        self.plan = plan
        self.spec = PackageSpec.model_validate(plan.spec)
        self.candidate = Path(plan.candidate)
        self.checks: list[Check] = []
        self.answers: list[Answer] = []
        self.methods = {signature.name: signature.method for signature in plan.signatures}

    def inspect(self) -> None:
        """saved_model_cli show, scan and run; the signatures against those that were exported.

        What is run below only runs if the graph was looked through and reaches nothing beyond the model.
        """
        self._attempt("signatures", self._check_signatures)
        self._attempt("batching", self._check_batching)
        self._attempt("saved_model_cli show", self._check_show)
        self._attempt("saved_model_cli scan", self._check_scan)
        self._attempt("ops", self._check_ops)
        self._attempt_if_harmless("saved_model_cli run", self._check_run)

    def replay(self) -> None:
        """Sends every warm-up record, then the other requests, through a Session, as the server loads it."""
        self._attempt_if_harmless("warm-up replay", self._check_replay)

    def compare(self, announced: int) -> None:
        """Holds the candidate's answers against the trained model's.

        Args:
            announced: How many answers the model process says it gave.
        """
        expected = self._expected()
        if len(expected) != announced:
            self._add("parity", len(expected), announced, False, "reference answers, of those the model process gave")
            return
        if len(expected) != len(self.answers):
            detail = "requests that were answered, of those the model answered"
            self._add("parity", len(self.answers), len(expected), False, detail)
            return
        for signature in self.plan.signatures:
            pairs = [
                (mine, theirs)
                for (name, mine), theirs in zip(self.answers, expected, strict=True)
                if name == signature.name
            ]
            check = f"parity/{signature.name}"
            self._attempt(check, functools.partial(self._compare_signature, signature, pairs))
        if self.spec.quality is not None:
            self._attempt(f"quality/{self.spec.quality.metric}", self._check_quality)

    def _compare_signature(self, signature: Signature, pairs: list[tuple[dict[str, Array], dict[str, Array]]]) -> None:
        variant, tolerance, gate = self.plan.variant, self.plan.tolerance, self.spec.top1_agreement
        for output in [item.name for item in signature.outputs]:
            name = f"{signature.name}/{output}"
            found = [mine[output] for mine, _ in pairs]
            wanted = [theirs[output] for _, theirs in pairs]
            parity = comparing.parity(name, variant, found, wanted, tolerance)
            self.checks.append(parity)
            finite = comparing.finite(name, variant, found)
            self.checks += [finite] if finite else []
            if isinstance(parity.measured, str):  # other shapes: nothing more to compare
                continue
            mine, theirs = self._rows(signature, found), self._rows(signature, wanted)
            agreement = comparing.top1(name, variant, mine, theirs, tolerance, gate.at_least, gate.min_samples)
            self.checks += [agreement] if agreement else []

    def _check_signatures(self) -> None:
        found, wanted = read_signatures(self.candidate), self.plan.signatures
        self._add("signatures", len(found), len(wanted), found == wanted, "as exported" if found == wanted else "")

    def _check_batching(self) -> None:
        """An unknown word in this file, or a wrong one, keeps the version from loading."""
        found, wanted = read_text(self.candidate, batching.FILE, most=batching.MOST_BYTES), self.plan.batching
        detail = "batch sizes a server may form" if found == wanted else f"{batching.FILE} is not as it was to be"
        self._add("batching", batching.shown(found), batching.shown(wanted), found == wanted, detail)

    def _check_show(self) -> None:
        shown = 0
        for signature in self.plan.signatures:
            printed = saved_model_cli.show(self.candidate, signature.name)
            inputs = all(f"inputs['{item.name}']" in printed for item in signature.inputs)
            outputs = all(f"outputs['{item.name}']" in printed for item in signature.outputs)
            shown += inputs and outputs
        wanted = len(self.plan.signatures)
        self._add("saved_model_cli show", shown, wanted, shown == wanted, "signatures shown with their tensors")

    def _check_scan(self) -> None:
        clean, printed = saved_model_cli.scan(self.candidate)
        self._add("saved_model_cli scan", 0 if clean else 1, 0, clean, "" if clean else printed.strip())

    def _check_ops(self) -> None:
        found = inspecting.denied_ops(inspecting.read_saved_model(self.candidate))
        self._add("ops", len(found), 0, not found, inspecting.shown(found))

    def _check_run(self) -> None:
        record = next(warmup_log.read_log(self.candidate / warmup_log.WARMUP_FILE))
        name, feed = warmup_log.feed(record)
        printed = saved_model_cli.run(self.candidate, name, feed)
        outputs = next(signature.outputs for signature in self.plan.signatures if signature.name == name)
        found = sum(f"Result for output key {item.name}:" in printed for item in outputs)
        self._add("saved_model_cli run", found, len(outputs), found == len(outputs), "outputs of the first record")

    def _check_replay(self) -> None:
        records = list(warmup_log.read_log(self.candidate / warmup_log.WARMUP_FILE))
        others = list(warmup_log.read_log(Path(self.plan.cases) / REQUESTS))
        with serving.loaded(self.candidate) as (session, definitions):
            for record in [*records, *others]:
                name, feed = warmup_log.feed(record)
                self.answers.append((name, serving.answer(session, definitions[name], feed)))
        replayed, wanted = len(records), self.plan.records
        self._add("warm-up replay", replayed, wanted, replayed == wanted, "records answered by a Session")

    def _expected(self) -> list[dict[str, Array]]:
        dataset = tf.data.TFRecordDataset(str(Path(self.plan.cases) / ANSWERS))
        responses = map(predict_pb2.PredictResponse.FromString, dataset.as_numpy_iterator())
        return [{key: tf.make_ndarray(value) for key, value in item.outputs.items()} for item in responses]

    def _rows(self, signature: Signature, arrays: list[Array]) -> Array:
        """The answers to the samples, each row once: of the warm-up records only the largest, then the rest."""
        warm = sum(name == signature.name for name, _ in self.answers[: self.plan.records])
        largest = max(range(warm), key=lambda index: len(arrays[index]) if arrays[index].ndim else 0)
        chosen = [arrays[largest], *arrays[warm:]]
        if any(array.ndim == 0 for array in chosen):
            return arrays[largest]
        rows: Array = np.concatenate(chosen)[: self.plan.rows]
        return rows

    def _check_quality(self) -> None:
        quality = self.spec.quality
        assert quality is not None and self.plan.samples is not None
        signature = next((item for item in self.plan.signatures if item.name == quality.signature), None)
        check = f"quality/{quality.metric}"
        limit = quality.at_least if quality.at_least is not None else quality.at_most
        assert limit is not None
        if signature is None:
            self._add(check, "not measured", limit, False, f"no signature {quality.signature!r}")
            return
        arrays = [answer for name, answer in self.answers if name == signature.name]
        outputs = list(arrays[0])
        output = quality.output or (outputs[0] if len(outputs) == 1 else self._class_scores(signature, arrays))
        if output not in outputs:
            detail = f"set quality.output to one of {', '.join(outputs)}"
            self._add(check, "not measured", limit, False, detail)
            return
        labels = read_samples(Path(self.plan.samples))[quality.labels]
        predictions = self._rows(signature, [answer[output] for answer in arrays])
        measured = comparing.quality(quality.metric, predictions, labels)
        passed = measured >= limit if quality.at_least is not None else measured <= limit
        self._add(check, measured, limit, passed, f"{output} on {len(predictions)} rows")

    def _class_scores(self, signature: Signature, arrays: list[dict[str, Array]]) -> str:
        scores = [
            item.name
            for item in signature.outputs
            if comparing.is_class_scores(self._rows(signature, [answer[item.name] for answer in arrays]))
        ]
        return scores[0] if len(scores) == 1 else ""

    def _attempt_if_harmless(self, check: str, make: Callable[[], None]) -> None:
        objections = [item.check for item in self.checks if item.check in _BEFORE_RUNNING and not item.passed]
        if objections:
            self._add(check, "not run", "runs", False, f"not run: {' and '.join(objections)} failed")
        else:
            self._attempt(check, make)

    def _attempt(self, check: str, make: Callable[[], None]) -> None:
        try:
            make()
        except Exception as error:  # noqa: BLE001 - a candidate may fail in any way; each is a failed check
            self._add(check, "failed", "runs", False, reason(error))

    def _add(self, check: str, measured: Any, threshold: Any, passed: bool, detail: str = "") -> None:
        self.checks.append(Check(check, self.plan.variant, measured, threshold, bool(passed), detail))
