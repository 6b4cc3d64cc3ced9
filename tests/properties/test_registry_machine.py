"""Two writers of one registry, interleaved call by call, against a model of plain dictionaries.

Each publishes, moves labels, leads rollouts, retires and collects garbage without any grace, while answers of the store
are lost and writes land late. After every step what the registry shows must be right.

`make soak` runs many more examples.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model_registry import collection, paths
from model_registry import rollout_transitions as rollouts
from model_registry.errors import ConflictError, NotFoundError, StorageError
from model_registry.paths import Reference
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.servable import PayloadFile, ServableVersion, Variant
from model_registry.state import PAST_STEPS, Origin, Record, State, TrafficChange, Transition
from model_registry.storage.memory import MemoryStore
from model_registry.tombstone import Outcome, Tombstone, read_outcome
from model_registry.traffic import Plan, Traffic
from model_registry.transitions import Expect, Expected
from model_registry.verification import verify
from tests.support.drafts import make_draft, make_payload
from tests.support.stepped_writers import FAULTS, SteppedWriter

_MODEL = "digits"
_OLD = 4  # versions that are there at the beginning
_TENSORRT = "tensorrt-fp16-sm89"

_WRITERS = st.sampled_from(["ann", "bob"])
_LABELS = st.sampled_from(["stable", "stable", "canary"])
_THEIRS = -1  # the version that the operation under way is about: there they meet
_PICKS = st.integers(0, 3) | st.just(_THEIRS)
_CALLS = st.integers(0, 8) | st.just(99)  # to the end, mostly
# Whose writes a fault may befall. A publisher is patient about its manifest, for seconds: other tests see to that.
_EXPOSED = {
    "publish": ("/reservations/", "/sources/"),
    "move": ("/state.json", "/history/"),
    "follow": ("/state.json", "/history/"),
    "gc": ("/state.json", "/history/", "/versions/"),
    "read": (),
}
_EXPECTED = st.sampled_from(["anything", "what it names"]) | _PICKS


_PLAN = Plan(steps=(5, 100), bake=60.0)
_BACK = ("rollback", "withdraw", "finish")


def _next(traffic: Traffic, *, well: bool) -> Transition:
    """What whoever leads a rollout does next."""
    if traffic.phase == "starting":
        return rollouts.shift(traffic, 0, until=100.0)
    if traffic.phase == "shifting":
        return rollouts.bake(traffic, since=200.0)
    if traffic.phase == "baking":
        if not well:
            return rollouts.withdraw(traffic, "worse")
        return rollouts.shift(traffic, 1, until=300.0) if traffic.step == 0 else rollouts.accept(traffic)
    return rollouts.withdraw(traffic, "promoted") if traffic.phase == "promoting" else rollouts.finish(traffic)


@dataclass
class Operation:
    """What a writer was told to do, and what came of it.

    Attributes:
        name: Tells it from any other; transitions have it as their author.
        kind: What it does.
        subject: The identity that is published, or the label that is read.
        version: What a label shall name, or named when a reader began; 0 for anything else.
        result: What it returned.
        error: What it raised.
        over: Whether it is.
        faulted: Whether the store failed meanwhile.
    """

    name: str
    kind: str
    subject: str = ""
    version: int = 0
    result: object = None
    error: BaseException | None = None
    over: bool = False
    faulted: bool = False


class Expectation:
    """What a history leads to, in plain dictionaries."""

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.pasts: dict[str, list[int]] = {}
        self.highest: dict[str, int] = {}
        self.retired: dict[int, int] = {}
        self.ever_retired: set[int] = set()
        self.traffic: Traffic | None = None
        self.epoch = 0

    def make(self, record: Record, *, following: bool) -> None:
        """Makes one transition, and holds it to the rules."""
        transition = record.transition
        label, to = transition.label, transition.to_version
        if transition.traffic:
            self._lead(transition.traffic, transition.action)
        elif self.traffic:
            assert label not in (self.traffic.stable, self.traffic.canary)
        if label is None:
            if not transition.traffic:
                self._end(record)
            return
        assert self.labels.get(label) == transition.from_version
        if to is None:
            assert transition.action in ("unlabel", "finish")
            for members in (self.labels, self.pasts, self.highest):
                del members[label]
            return
        assert to not in self.ever_retired
        assert not following or to > self.highest.get(label, 0)
        past = self.pasts.setdefault(label, [])
        if transition.action in _BACK:
            assert past.pop() == to
        elif transition.from_version is not None:
            past.append(transition.from_version)
            del past[:-PAST_STEPS]
        self.labels[label] = to
        self.highest[label] = max(to, self.highest.get(label, 0))

    def _lead(self, change: TrafficChange, action: str) -> None:
        before, after = change.before, change.after
        assert before == self.traffic  # nobody goes on from what is not there
        self.traffic = after
        if after is None:
            assert before and (action, before.phase, before.weight) == ("finish", "leaving", 0)
            return
        taken = before is None or action == "resume" or after.outcome == "aborted" != before.outcome
        assert after.epoch > self.epoch if taken else after.epoch == self.epoch
        self.epoch = after.epoch
        if before and after.weight > before.weight:
            assert before.phase in ("starting", "baking") and not before.paused

    def _end(self, record: Record) -> None:
        for version in record.transition.versions:
            if record.transition.action == "collect":
                self.retired.pop(version, None)
                continue
            assert version not in self.labels.values()
            assert self.traffic is None or version not in self.traffic.versions()
            self.retired.setdefault(version, record.revision)
            self.ever_retired.add(version)
            for label, past in self.pasts.items():
                assert record.transition.forget or version not in past
                walk = [*(step for step in past if step != version), self.labels[label]]
                past[:] = [step for step, after in pairwise(walk) if step != after]

    def needed(self) -> set[int]:
        leading = self.traffic.versions() if self.traffic else frozenset()
        return {*self.labels.values(), *(version for past in self.pasts.values() for version in past), *leading}


@cache
def _payload() -> tuple[Path, tuple[PayloadFile, ...]]:
    """A SavedModel directory for all; its one file is verified without a pool of threads, which would take longest."""
    directory = make_payload(Path(tempfile.mkdtemp(prefix="slipway-machine-")), {"saved_model.pb": b"graph"})
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory, payload_files(directory)


def _publish(registry: Registry, identity: str, *, tensorrt: bool, force: bool) -> tuple[ServableVersion, bool]:
    directory, files = _payload()
    names = ("native", _TENSORRT) if tensorrt else ("native",)
    draft = make_draft(_MODEL, f"{identity}-{tensorrt}")
    draft = replace(draft, variants=tuple(Variant(name, files) for name in names))
    return registry.publish(draft, dict.fromkeys(names, directory), force=force)


@cache
def _beginning() -> dict[str, bytes]:
    """A store with some versions and two labels, made once."""
    registry = Registry(MemoryStore())
    for number in range(1, _OLD + 1):
        _publish(registry, f"old-{number}", tensorrt=number == _OLD, force=False)
    for label, version in (("stable", 1), ("stable", 2), ("canary", 1), ("stable", 3)):
        registry.promote(_MODEL, version, label, origin=Origin("setup"))
    return {info.key: registry.store.get(info.key).data for info in registry.store.list("")}


class RegistryMachine(RuleBasedStateMachine):
    """Tells two writers what to do, and who goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        for key, data in _beginning().items():
            self.store.put_new(key, data)
        self.writers = {"ann": SteppedWriter(self.store), "bob": SteppedWriter(self.store)}
        self.operations = [
            Operation("before", "publish", result=(outcome, False), over=True)
            for outcome in map(self._outcome, range(1, _OLD + 1))
        ]

    # What can be done

    @rule(writer=_WRITERS, calls=_CALLS, identity=st.sampled_from("abc"), tensorrt=st.booleans(), force=st.booleans())
    def publish(self, writer: str, calls: int, identity: str, tensorrt: bool, force: bool) -> None:
        if any(operation.subject == identity for operation in self.operations if not operation.over):
            return  # one would wait for the other
        self._start(
            writer,
            calls,
            "publish",
            lambda registry, _: _publish(registry, identity, tensorrt=tensorrt, force=force),
            subject=identity,
        )

    @rule(writer=_WRITERS, calls=_CALLS, pick=_PICKS, label=_LABELS, expect=_EXPECTED)
    def promote(self, writer: str, calls: int, pick: int, label: str, expect: str | int) -> None:
        version = self._picked(pick)
        expected: Expected = Expect.ANYTHING
        if isinstance(expect, int):
            expected = self._picked(expect)
        elif expect == "what it names":
            expected = self._state().labels.get(label)
        self._start(
            writer,
            calls,
            "move",
            lambda registry, who: registry.promote(_MODEL, version, label, origin=who, expect=expected),
            version=version,
        )

    @rule(writer=_WRITERS, calls=_CALLS, pick=_PICKS, label=_LABELS)
    def follow(self, writer: str, calls: int, pick: int, label: str) -> None:
        version = self._picked(pick)
        published = replace(make_draft(_MODEL), version=version)
        self._start(
            writer,
            calls,
            "follow",
            lambda registry, who: registry.follow(published, label, origin=who),
            version=version,
        )

    @rule(writer=_WRITERS, calls=_CALLS, label=_LABELS)
    def roll_back(self, writer: str, calls: int, label: str) -> None:
        self._start(writer, calls, "move", lambda registry, who: registry.roll_back(_MODEL, label, origin=who))

    @rule(writer=_WRITERS, calls=_CALLS, label=_LABELS)
    def unlabel(self, writer: str, calls: int, label: str) -> None:
        self._start(writer, calls, "move", lambda registry, who: registry.unlabel(_MODEL, label, origin=who))

    @rule(writer=_WRITERS, calls=_CALLS, picks=st.sets(_PICKS, min_size=1, max_size=2), forget=st.booleans())
    def retire(self, writer: str, calls: int, picks: set[int], forget: bool) -> None:
        versions = {self._picked(pick) for pick in picks}
        self._start(
            writer, calls, "move", lambda registry, who: registry.retire(_MODEL, versions, origin=who, forget=forget)
        )

    @rule(writer=_WRITERS, calls=_CALLS, picks=st.sets(_PICKS, max_size=1), keep=st.none() | st.integers(1, 4))
    def collect_garbage(self, writer: str, calls: int, picks: set[int], keep: int | None) -> None:
        versions = {self._picked(pick) for pick in picks}

        def collect(registry: Registry, who: Origin) -> collection.Report:
            registry.retire(_MODEL, versions, origin=who, forget=True)
            planned = collection.plan(registry, [_MODEL], keep=keep, grace=0)
            return collection.collect(registry, planned, origin=who)

        self._start(writer, calls, "gc", collect)

    @rule(writer=_WRITERS, calls=_CALLS, label=_LABELS)
    def read(self, writer: str, calls: int, label: str) -> None:
        self._start(
            writer,
            calls,
            "read",
            lambda registry, _: registry.get(Reference(_MODEL, label=label)),
            subject=label,
            version=self._state().labels.get(label, 0),
        )

    @rule(writer=_WRITERS, calls=_CALLS, pick=_PICKS)
    def begin_a_rollout(self, writer: str, calls: int, pick: int) -> None:
        version = self._picked(pick)
        decide = partial(rollouts.begin, model=_MODEL, candidate=version, plan=_PLAN)
        self._start(
            writer,
            calls,
            "move",
            lambda registry, who: registry.change_traffic(_MODEL, decide, origin=who),
            version=version,
        )

    @precondition(lambda self: self._state().traffic is not None)
    @rule(writer=_WRITERS, calls=_CALLS, well=st.sampled_from([True, True, True, False]))
    def lead_a_rollout_on(self, writer: str, calls: int, well: bool) -> None:
        traffic = self._state().traffic  # as it is now, which another one may change until that is written
        assert traffic is not None
        transition = _next(traffic, well=well)
        self._start(
            writer,
            calls,
            "move",
            lambda registry, who: registry.change_traffic(_MODEL, lambda _: transition, origin=who),
        )

    @rule(writer=_WRITERS, calls=_CALLS, what=st.sampled_from(["pause", "resume", "abort"]), insist=st.booleans())
    def come_between(self, writer: str, calls: int, what: str, insist: bool) -> None:
        def decide(state: State) -> Transition | None:
            if what == "pause":
                return rollouts.pause(state, _MODEL, "lunch")
            return rollouts.resume(state, _MODEL) if what == "resume" else rollouts.abort(state, _MODEL)

        self._start(
            writer,
            calls,
            "move",
            lambda registry, who: registry.change_traffic(_MODEL, decide, origin=who, insist=insist),
        )

    # How it goes on

    @rule(writer=_WRITERS, calls=st.integers(1, 8))
    def go_on(self, writer: str, calls: int) -> None:
        for _ in range(calls):
            self.writers[writer].step()

    @rule(writer=_WRITERS)
    def finish(self, writer: str) -> None:
        self.writers[writer].finish()

    @rule(
        writer=_WRITERS,
        fault=st.sampled_from(FAULTS),
        times=st.integers(1, 3),
        at=st.sampled_from(["/state.json", "/"]),
    )
    def break_the_next_calls(self, writer: str, fault: str, times: int, at: str) -> None:
        self.writers[writer].faults = [(fault, at)] * times

    @precondition(lambda self: any(writer.late for writer in self.writers.values()))
    @rule(writer=_WRITERS)
    def land(self, writer: str) -> None:
        self.writers[writer].land()

    def teardown(self) -> None:
        for writer in self.writers.values():
            writer.finish()
            writer.land()
        self._check()

    # What must hold

    @invariant()
    def the_registry_is_right(self) -> None:
        self._check()

    def _check(self) -> None:
        state = self._state()
        history = self._history(state)
        expected = Expectation()
        following = {operation.name for operation in self.operations if operation.kind == "follow"}
        for record in history:
            expected.make(record, following=record.origin.who in following)
        assert state.labels == expected.labels
        assert {label: [*past.versions] for label, past in state.pasts.items()} == expected.pasts
        assert {label: past.highest for label, past in state.pasts.items()} == expected.highest
        assert state.retired == expected.retired
        assert state.traffic == expected.traffic
        for version in expected.needed():
            outcome = self._outcome(version)
            assert isinstance(outcome, ServableVersion), f"a label needs {version}, which is {outcome}"
            assert verify(self.store, outcome) == []
        self._check_variants(history)
        self._check_published(expected)
        for operation in self.operations:
            self._check_told(operation, history)

    def _check_variants(self, history: list[Record]) -> None:
        published = {version.version: version for version in self._published()}
        for record in history:
            if record.transition.action in ("withdraw", "finish"):  # back to what was served before
                continue
            before, after = (
                published.get(number or 0) for number in (record.transition.from_version, record.transition.to_version)
            )
            if before and after:
                assert {variant.name for variant in before.variants} <= {variant.name for variant in after.variants}

    def _check_published(self, expected: Expectation) -> None:
        published = self._published()
        assert len({version.version for version in published}) == len(published)
        for version in published:
            outcome = self._outcome(version.version)
            if isinstance(outcome, Tombstone):
                assert version.version in expected.ever_retired
            else:
                assert outcome == version
                assert verify(self.store, version) == []

    def _check_told(self, operation: Operation, history: list[Record]) -> None:
        told = [record for record in history if record.origin.who == operation.name]
        error = operation.error
        if error and not isinstance(error, ConflictError | NotFoundError):
            assert isinstance(error, StorageError) and operation.faulted, f"{operation.name} raised {error!r}"
        if isinstance(operation.result, collection.Report):
            for failure in operation.result.failures:
                assert isinstance(failure.error, StorageError) and operation.faulted, f"gc failed: {failure}"
        if operation.kind == "read" and isinstance(operation.result, ServableVersion):
            moves = {(record.transition.label, record.transition.to_version) for record in history}
            assert (operation.subject, operation.result.version) in moves
        if operation.kind in ("publish", "read"):
            assert told == []
        elif operation.kind == "gc":
            assert len(told) <= 3  # it retired one version, then more, and noted what it deleted
        elif not operation.over:
            assert len(told) <= 1
        elif isinstance(operation.result, Record):
            assert told == [operation.result]
        elif isinstance(error, StorageError) and "cannot be told" in error.message:
            assert len(told) <= 1
        else:  # there was nothing to do, or it was refused, or failed for certain
            assert told == [], f"{error} was reported"

    # The rest

    def _start(
        self,
        writer: str,
        calls: int,
        kind: str,
        work: Callable[[Registry, Origin], object],
        *,
        subject: str = "",
        version: int = 0,
    ) -> None:
        """Begins an operation on an idle writer, and lets it make some calls; if none is idle, one finishes first."""
        if self.writers[writer].busy:
            (writer,) = {*self.writers} - {writer}
        self.writers[writer].finish()
        operation = Operation(f"{writer}-{len(self.operations)}", kind, subject, version)
        self.operations.append(operation)
        stepped = self.writers[writer]
        stepped.exposed = _EXPOSED[kind]
        before = stepped.faulted

        def run() -> None:
            try:
                operation.result = work(Registry(stepped), Origin(operation.name))
            except BaseException as error:  # noqa: BLE001 - judged in the test's own thread
                operation.error = error
            operation.faulted = stepped.faulted > before
            operation.over = True

        stepped.start(run)
        self.go_on(writer, calls)

    def _picked(self, pick: int) -> int:
        """The number of a version that was published, counted from the newest, or that another operation is about."""
        theirs = [operation.version for operation in self.operations if not operation.over and operation.version]
        if pick == _THEIRS and theirs:
            return theirs[-1]
        numbers = sorted((version.version for version in self._published()), reverse=True)
        return numbers[pick % len(numbers)]

    def _published(self) -> list[ServableVersion]:
        results = (operation.result for operation in self.operations)
        return [result[0] for result in results if isinstance(result, tuple) and not result[1]]

    def _state(self) -> State:
        try:
            data = self.store.get(paths.state(_MODEL)).data
        except NotFoundError:
            return State()
        return State.from_json(data, key="state")

    def _history(self, state: State) -> list[Record]:
        last = state.last_transition
        if last is None:
            return []
        keys = [paths.record(_MODEL, number) for number in range(1, last.revision)]
        return [*(Record.from_json(self.store.get(key).data, key=key) for key in keys), last]

    def _outcome(self, version: int) -> Outcome:
        key = paths.manifest(_MODEL, version)
        try:
            return read_outcome(self.store.get(key).data, key=key)
        except NotFoundError:
            return None


def _machine(max_examples: int, steps: int, seconds: int) -> type:
    """A test case of the machine; Hypothesis looks for the shortest failing example for five minutes at most."""

    class Machine(RegistryMachine):
        pass

    Machine.TestCase.settings = settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    return pytest.mark.timeout(seconds)(Machine.TestCase)


TestRegistry = _machine(150, 40, 900)
TestRegistryForLong = pytest.mark.soak(_machine(2000, 60, 3600))
