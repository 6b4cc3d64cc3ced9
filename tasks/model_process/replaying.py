"""Asks a server what it answers: every warm-up record and every case, over gRPC and over REST, and how fast.

The answers are held against those of the model that the candidate was made from, by the rules that the validator has.
No model is loaded here, only protos are read; so this process keeps the network, which the server is behind.

A server in a container is the candidate's alone, and what becomes of it is the candidate's doing. One that somebody
else runs may be stopped, or be told of other models: that fails the run, and says nothing of the candidate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from model_registry.servable import Check, Signature
from tasks.model_process import comparing, exporting, inspecting, warmup_log
from tasks.model_process.cases import ANSWERS, REQUESTS
from tasks.model_process.changed_variables import changed_variables
from tasks.model_process.error_lines import reason
from tasks.model_process.messages import ValidatedCandidate
from tasks.model_process.replay_calls import (
    Answer,
    GrpcCalls,
    OutOfTimeError,
    RestCalls,
    UnansweredError,
    UnavailableError,
    open_channel,
    request_of,
    rows_of,
)
from tasks.model_process.replay_loading import load, lost, require_version
from tasks.model_process.replay_messages import ReplayPlan
from tasks.model_process.speed import RECORDED

# Warm latency is the median of so many requests, or of as many as this time allows.
_MOST_CALLS, _FEWEST_CALLS = 30, 5
_TIMING = 2.0  # seconds a batch size
# As JSON a number takes some ten bytes, and a moment to be written and read: beyond so many, gRPC alone goes on.
_REST_VALUES = 20_000_000


def stages(receive: Callable[[type[Any]], Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage, and one before it where the server is yet to be told of the model."""
    plan: ReplayPlan = receive(ReplayPlan)
    deadline = time.monotonic() + plan.seconds
    if plan.base_path is not None:
        yield "load", lambda: load(plan, deadline)
    yield "replay", lambda: ValidatedCandidate(_Replay(plan, deadline).checks())


@dataclass(frozen=True)
class _Case:
    signature: Signature
    request: Any
    expected: Answer


class _Replay:
    """The requests, their expected answers, and the server."""

    def __init__(self, plan: ReplayPlan, deadline: float) -> None:
        self.plan = plan
        self.deadline = deadline
        self.cases = list(_cases(plan))
        self.first: dict[int, float] = {}  # seconds of the first request, by batch size

    def checks(self) -> tuple[Check, ...]:
        """All of them; one that cannot be made has failed, with the reason."""
        plan = self.plan
        if len(self.cases) != plan.answers:
            detail = "requests whose answer the model itself gave"
            return (Check("server/requests", plan.variant, len(self.cases), plan.answers, False, detail),)
        checks: list[Check] = []
        with open_channel(plan.grpc) as channel:
            calls = GrpcCalls(channel)
            checks += self._compare("grpc", partial(self._ask_grpc, calls))
            if plan.rest is not None:
                rest = RestCalls(plan.rest, plan.model, plan.version)
                try:
                    checks += self._compare("rest", partial(self._ask_rest, rest))
                finally:
                    rest.close()
            if all(check.passed for check in checks):
                checks += self._latency(calls)
            if plan.base_path is not None and not all(check.passed for check in checks):
                require_version(plan, channel)
        return tuple(checks)

    def _compare(self, way: str, ask: Callable[[Signature], tuple[list[_Case], list[Answer]]]) -> Iterator[Check]:
        for signature in self.plan.signatures:
            name = f"server/{way}/{signature.name}"
            if way == "rest" and (obstacle := RestCalls.obstacle(signature)):
                yield Check(name, self.plan.variant, "not asked", RECORDED, True, obstacle)
                continue
            try:
                asked, answers = ask(signature)
                yield from self._parity(way, signature, asked, answers)
            except UnansweredError as error:
                yield self._unanswered(name, error)
            except Exception as error:  # noqa: BLE001 - a server may answer anything
                yield Check(name, self.plan.variant, "failed", "answers", False, reason(error))

    def _ask_grpc(self, calls: GrpcCalls, signature: Signature) -> tuple[list[_Case], list[Answer]]:
        asked, answers = self._of(signature), []
        for case in asked:
            began = time.perf_counter()
            response = calls.send(signature, case.request, self._left())
            if signature == self._timed:
                self.first.setdefault(rows_of(case.request), time.perf_counter() - began)
            answers.append(calls.arrays(signature, response))
        return asked, answers

    def _ask_rest(self, calls: RestCalls, signature: Signature) -> tuple[list[_Case], list[Answer]]:
        asked, answers, values = [], list[Answer](), 0
        for case in self._of(signature):
            values += _values(case.request)
            if answers and values > _REST_VALUES:
                break
            asked.append(case)
            answers.append(calls.send(signature, case.request, case.expected, self._left()))
        return asked, answers

    def _parity(self, way: str, signature: Signature, asked: list[_Case], answers: list[Answer]) -> Iterator[Check]:
        plan, all_of_them = self.plan, len(self._of(signature))
        for output in [item.name for item in signature.outputs]:
            found, wanted = [answer[output] for answer in answers], [case.expected[output] for case in asked]
            check = comparing.parity(f"{signature.name}/{output}", plan.variant, found, wanted, plan.tolerance)
            check = replace(check, check=f"server/{way}/{signature.name}/{output}")
            if len(asked) < all_of_them:
                check = _noted(check, f"{len(asked)} of {all_of_them} requests: the others are long in JSON")
            if not check.passed and not isinstance(check.measured, str) and (state := self._state(signature)):
                state = f"not judged: it keeps {state}, and its warm-up has moved that"
                check = replace(_noted(check, state), threshold=RECORDED, passed=True)
            yield check

    def _unanswered(self, name: str, error: UnansweredError) -> Check:
        if isinstance(error, UnavailableError) and self.plan.base_path is not None:
            raise lost(self.plan, str(error))
        detail = self._out_of_time if isinstance(error, OutOfTimeError) else str(error)[:400]
        return Check(name, self.plan.variant, "failed", "answers", False, detail)

    def _latency(self, calls: GrpcCalls) -> Iterator[Check]:
        """Recorded, not judged: when time runs out, what was measured until then."""
        note, times = "", dict[int, list[float]]()
        try:
            for case in self._of(self._timed):
                if (size := rows_of(case.request)) not in times:
                    self._time(calls, case, times.setdefault(size, []))
        except OutOfTimeError:
            note = self._out_of_time
        except UnansweredError as error:
            yield self._unanswered("server/latency", error)
            return
        warm = {size: statistics.median(seconds) for size, seconds in times.items() if seconds}
        fewest = min((len(times[size]) for size in warm), default=0)
        yield _noted(self._recorded("server/latency", warm, f"medians of at least {fewest} requests"), note)
        yield self._recorded("server/latency/first", self.first, "the first request after the warm-up")

    def _recorded(self, check: str, seconds: Mapping[int, float], how: str) -> Check:
        measured = {str(size): round(found * 1e3, 3) for size, found in seconds.items()}
        detail = f"milliseconds by batch size, {self._timed.name} over gRPC, {how}"
        return Check(check, self.plan.variant, measured, RECORDED, True, detail)

    def _time(self, calls: GrpcCalls, case: _Case, seconds: list[float]) -> None:
        """Adds the time of each of several equal requests."""
        end = time.monotonic() + _TIMING
        while len(seconds) < _FEWEST_CALLS or (len(seconds) < _MOST_CALLS and time.monotonic() < end):
            began = time.perf_counter()
            calls.send(case.signature, case.request, self._left())
            seconds.append(time.perf_counter() - began)

    @property
    def _timed(self) -> Signature:
        signatures = self.plan.signatures
        default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        return next((item for item in signatures if item.name == default), signatures[0])

    def _of(self, signature: Signature) -> list[_Case]:
        return [case for case in self.cases if case.signature == signature]

    def _state(self, signature: Signature) -> str:
        """What an answer depends on beside the request."""
        graph = exporting.serve_meta_graph(inspecting.read_saved_model(Path(self.plan.candidate)))
        changed = changed_variables(graph, signature.name)
        return f"state in {len(changed)} variable{'' if len(changed) == 1 else 's'}" if changed else ""

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTimeError(self._out_of_time)
        return left

    @property
    def _out_of_time(self) -> str:
        return (
            f"time ran out: of `timeouts.validate`, which loading shares, {self.plan.seconds:.3g} s were left for this"
        )


def _cases(plan: ReplayPlan) -> Iterator[_Case]:
    signatures = {signature.name: signature for signature in plan.signatures}
    records = warmup_log.read_log(Path(plan.candidate) / warmup_log.WARMUP_FILE)
    others = warmup_log.read_log(Path(plan.cases) / REQUESTS)
    answers = tf.data.TFRecordDataset(str(Path(plan.cases) / ANSWERS)).as_numpy_iterator()
    for record, data in zip([*records, *others], answers, strict=False):
        request = request_of(record, plan.model, plan.version)
        outputs = predict_pb2.PredictResponse.FromString(data).outputs
        expected = {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}
        yield _Case(signatures[request.model_spec.signature_name], request, expected)


def _values(request: Any) -> int:
    """How many values a request has, about."""
    if isinstance(request, predict_pb2.PredictRequest):
        return sum(int(np.prod([dim.size for dim in item.tensor_shape.dim])) for item in request.inputs.values())
    return int(request.ByteSize()) // 4


def _noted(check: Check, note: str) -> Check:
    return replace(check, detail="; ".join(filter(None, (note, check.detail))))
