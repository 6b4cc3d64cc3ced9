"""An estimate of what half precision does to a model, on any CPU, without TensorRT.

TF-TRT's own rewrite tells which segments would become engines. Each request is answered twice by the
rewritten graph: with the segments as they are, and with the segments in half precision (`half_precision`). What differs
is held against the tolerances that the engines will be held against.

Rules:
- Every check says that it is an estimate.
- What is too large to be published when it is frozen is not even rewritten: that alone could take all memory.
- Overflow is an answer that is not finite any more. A value inside that overflows and does no harm, as before
  a sigmoid, is told but refuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from model_registry.errors import ConversionError
from model_registry.servable import Check, Signature
from tasks.conversion_checks import LARGEST_GRAPH
from tasks.model_process import comparing, rewriting, warmup_log
from tasks.model_process.cases import REQUESTS
from tasks.model_process.conversion_messages import Estimated, EstimatePlan, RewrittenModel, RewrittenSignature
from tasks.model_process.half_precision import LARGEST
from tasks.model_process.half_run import Overflow, Runs, run_both
from tasks.model_process.messages import (
    Tolerance,
)

Array = comparing.Array

_DISCLAIMER = "an estimate on a CPU, no TensorRT ran"
# After so many rows of a signature no further request is tried: enough for top-1 agreement.
_ROWS = 128
# How many layers a message names.
_NAMED = 3
# Of a GPU's memory; no engine is built here.
_WORKSPACE = 1 << 30


def stages(receive: Callable[[type[EstimatePlan]], EstimatePlan]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The rewrite, then the estimate."""
    estimation = _Estimation(receive(EstimatePlan))
    yield "rewrite", estimation.rewrite
    yield "estimate", estimation.estimate


class _Estimation:
    """What TF-TRT made of the model, and the checks made so far."""

    def __init__(self, plan: EstimatePlan) -> None:
        self.plan = plan
        self.checks: list[Check] = []

    def rewrite(self) -> RewrittenModel:
        plan = self.plan
        sizes = rewriting.frozen_sizes(Path(plan.saved_model), plan.signatures)
        self.size = self._size(sizes)
        if not self.size.passed:
            why = "frozen, the weights of all signatures together are too large for one graph"
            reports = (RewrittenSignature(item.name, why, 0, 0, (), ()) for item in plan.signatures)
            self.rewritten = RewrittenModel(tuple(reports))
            return self.rewritten
        with rewriting.without_gpu():
            self.parts = rewriting.rewrite_all(Path(plan.saved_model), plan.signatures, workspace=_WORKSPACE)
        self.rewritten = RewrittenModel(tuple(part.report for part in self.parts))
        return self.rewritten

    def estimate(self) -> Estimated:
        if not self.size.passed:
            return Estimated((self.size,))
        self._check_rewrite()
        runs = {
            part.signature.name: self._run(part)
            for part in self.parts
            if isinstance(part, rewriting.Rewritten) and part.report.segments
        }
        signatures = [signature for signature in self.plan.signatures if signature.name in runs]
        if signatures:
            self._check_overflow(list(runs.values()))
        for signature in signatures:
            self._compare(signature, runs[signature.name])
        return Estimated((*self.checks, self.size))

    def _size(self, sizes: Mapping[str, int]) -> Check:
        named = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        found = sum(sizes.values())
        fits = found < LARGEST_GRAPH
        detail = "bytes of weights that saved_model.pb would hold, those of each signature anew"
        detail += f" ({named})" if len(sizes) > 1 else ""
        detail += "" if fits else "; nothing was run; serve the native variant, or fewer signatures or weights"
        return Check("fp16 estimate graph size", self.plan.variant, found, LARGEST_GRAPH, fits, _said(detail))

    def _check_rewrite(self) -> None:
        rewritten, least = self.rewritten, self.plan.min_coverage
        self._add("engines", rewritten.engines, 1, rewritten.engines >= 1, _why_none(rewritten.signatures))
        inside = "of the nodes that compute, inside engines"
        self._add("coverage", rewritten.coverage, least, rewritten.coverage >= least, inside)

    def _run(self, part: rewriting.Rewritten) -> Runs:
        requests = self._requests(part.signature.name)
        engines = [segment.name for segment in part.report.segments]
        return run_both(part.graph_def, engines, part.input_tensors, part.output_tensors, requests)

    def _requests(self, name: str) -> list[dict[str, Array]]:
        """The largest warm-up record of a signature, whose rows the smaller ones repeat, and others up to the limit."""
        log = Path(self.plan.saved_model) / warmup_log.WARMUP_FILE
        if not log.is_file() or not (recorded := [feed for asked, feed in _feeds(log) if asked == name]):
            raise ConversionError(
                f"there is no warm-up record of {name}, and so nothing to estimate it with",
                hint="package the model again: every version has a record of each signature",
            )
        chosen = [max(recorded, key=_rows)]
        rows = _rows(chosen[0])
        others = Path(self.plan.cases) / REQUESTS if self.plan.cases else None
        if others is None or not others.is_file():
            return chosen
        for asked, feed in _feeds(others):
            if rows >= _ROWS:
                break
            if asked == name:
                chosen.append(feed)
                rows += _rows(feed)
        return chosen

    def _check_overflow(self, runs: Sequence[Runs]) -> None:
        lost = sum(
            int(np.sum(np.isfinite(exact[name]) & ~np.isfinite(rounded[name])))
            for run in runs
            for exact, rounded in zip(run.single, run.half, strict=True)
            for name in exact
            if exact[name].dtype.kind == "f"
        )
        overflows = list(dict.fromkeys(chain.from_iterable(run.overflows for run in runs)))
        clamped = sum(run.clamped for run in runs)
        said = [_named(overflows, harmless=lost == 0)] if overflows else []
        said += ["an engine inside of a loop or behind a branch does not tell where"] if lost and not overflows else []
        said += [f"weights beyond {LARGEST:.0f}, which are clamped: {clamped}"] if clamped else []
        self._add("overflow", lost, 0, lost == 0, "; ".join(["values of the answers that are not finite", *said]))

    def _compare(self, signature: Signature, runs: Runs) -> None:
        plan = self.plan
        for output in [item.name for item in signature.outputs]:
            name = f"{signature.name}/{output}"
            rounded = [answer[output] for answer in runs.half]
            exact = [answer[output] for answer in runs.single]
            parity = comparing.parity(name, plan.variant, rounded, exact, plan.tolerance)
            self.checks.append(replace(parity, check=f"fp16 estimate/{name}", detail=_said(parity.detail)))
            agreement = _top1(name, plan, rounded, exact)
            if agreement is not None:
                self.checks.append(
                    replace(agreement, check=f"fp16 estimate top1/{name}", detail=_said(agreement.detail))
                )

    def _add(self, name: str, measured: Any, threshold: Any, passed: bool, detail: str) -> None:
        self.checks.append(
            Check(f"fp16 estimate {name}", self.plan.variant, measured, threshold, bool(passed), _said(detail))
        )


def _top1(name: str, plan: EstimatePlan, rounded: list[Array], exact: list[Array]) -> Check | None:
    if any(array.ndim != 2 for array in exact):
        return None
    one, other = np.concatenate(rounded), np.concatenate(exact)
    # Where the two best are closer than what may differ, either counts; NaN is never the best.
    one = np.where(np.isnan(one), -np.inf, one) if one.dtype.kind == "f" else one
    tolerance = Tolerance(plan.tolerance.atol, plan.tolerance.rtol)
    return comparing.top1(name, plan.variant, one, other, tolerance, plan.top1_at_least, plan.top1_min_samples)


def _feeds(log: Path) -> Iterator[tuple[str, dict[str, Array]]]:
    return map(warmup_log.feed, warmup_log.read_log(log))


def _rows(feed: dict[str, Array]) -> int:
    return max((len(array) if array.ndim else 1 for array in feed.values()), default=1)


def _why_none(signatures: Sequence[RewrittenSignature]) -> str:
    reasons = [f"{signature.name}: {signature.native}" for signature in signatures if signature.native]
    return "; ".join([f"segments of {rewriting.MINIMUM_SEGMENT_SIZE} nodes or more that TF-TRT takes", *reasons])


def _named(overflows: Sequence[Overflow], *, harmless: bool) -> str:
    named = ", ".join(f"{item.where} reaches {item.peak:.2g} > {LARGEST:.0f}" for item in overflows[:_NAMED])
    more = f" and {len(overflows) - _NAMED} more" if len(overflows) > _NAMED else ""
    unharmed = ", and the answers stay finite" if harmless else ""
    return f"overflows inside{unharmed}: {named}{more}"


def _said(detail: str) -> str:
    return f"{detail}; {_DISCLAIMER}" if detail else _DISCLAIMER
