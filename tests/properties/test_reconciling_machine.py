"""An agent beside a server, both ended at any moment, while people move labels to versions of which some are bad.

The agent's part is `decide`, carried out as plainly as can be: memory and models.config are bytes, written in that
order. The server is `SimulatedServer`; it polls when it likes, within a second, and takes its time over all else.
After every step of the server what it answers must be right, and in the end it must be what was asked for. A version
may go bad after it was served: then the server dies at each start, until somebody moves the label away from it.

`make soak` runs many more examples.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from model_registry.serving.model_config import ServedModel, from_text, to_text
from model_registry.serving.sync import reconciling
from model_registry.serving.sync.agent_memory import AgentMemory
from model_registry.serving.sync.reconciling import (
    Decision,
    Loading,
    Progress,
    Remembered,
    Seen,
    Settings,
    decide,
    prepare,
)
from model_registry.serving.sync.safe_start import remember
from tests.support.simulated_server import SimulatedServer

_MODELS = ("digits", "faces")
_NAMES = ("canary", "stable")
_VERSIONS = (1, 2, 3, 4)
_STEP = 0.5  # seconds
_POLL = 1.0  # between two looks of the server at its file
_BEGIN = 1.0  # until it begins with what it read there
_LOAD = 3.0  # to load a version
# Well above all that the server needs to notice a file and to begin, also where it waits for a new model.
_SETTINGS = Settings(settle=8.0, drain=3.0, load_timeout=40.0)

_MODEL = st.sampled_from(_MODELS)
_LABEL = st.sampled_from(_NAMES)
_VERSION = st.sampled_from(_VERSIONS)
_OUTCOME = st.sampled_from(["good", "good", "good", "bad", "crash"])
_SHORT = st.sampled_from(["look", "look", "poll", "work", "wait"])
_MOMENT = st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0])


class _KilledError(Exception):
    """The agent ends here."""


@dataclass
class _Agent:
    """What one agent knows for as long as it lives."""

    progress: dict[str, Progress] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    remembered: dict[str, Remembered] = field(default_factory=dict)


class ReconcilingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.memory = AgentMemory().to_json()
        self.text = to_text(())
        self.outcomes: dict[tuple[str, int], str] = {}
        # What each label was to name, one entry for each revision of the model.
        self.history: dict[str, list[dict[str, int]]] = {name: [{}] for name in _MODELS}
        self.here: dict[str, set[int]] = {name: set() for name in _MODELS}
        self.server = SimulatedServer(self._file, lambda name, version: self.outcomes[name, version])
        self.agent = self._new_agent()
        self.stagger = 0.0
        self.keep = 1  # versions of a model that nobody needs and that stay on the disk
        self.down = 0  # seconds
        self.polled = self.now
        self.pending: dict[tuple[str, int], tuple[str, float]] = {}
        self.answered: dict[tuple[str, str], int] = {}  # up to which revision a label was followed
        self.safe = False  # whether an agent saw the server silent, or prepared its file, since it went down
        self.given_up = False  # whether it was silent for so long that nothing unproven may be in the file
        # What labels were moved to while there was no server, as far as anybody could tell. One that comes up by an
        # older file refuses that, and is led there from what it has.
        self.moved: dict[tuple[str, str], int] = {}

    @initialize(
        outcomes=st.lists(_OUTCOME, min_size=len(_MODELS) * len(_VERSIONS), max_size=len(_MODELS) * len(_VERSIONS)),
        stagger=st.sampled_from([0.0, 2.0]),
        first=st.dictionaries(_LABEL, _VERSION),
        prepared=st.booleans(),
        keep=st.sampled_from([0, 1]),
    )
    def begin(self, outcomes: list[str], stagger: float, first: dict[str, int], prepared: bool, keep: int = 1) -> None:
        pairs = [(name, version) for name in _MODELS for version in _VERSIONS]
        self.outcomes = dict(zip(pairs, outcomes, strict=True))
        self.stagger = stagger
        self.keep = keep
        self.history[_MODELS[0]].append(first)
        if prepared:
            self._prepare(outage=False)
        self._go_on(20)

    # People

    @rule(name=_MODEL, label=_LABEL, version=_VERSION)
    def promote(self, name: str, label: str, version: int) -> None:
        self.history[name].append({**self.history[name][-1], label: version})

    @rule(name=_MODEL, label=_LABEL)
    def unlabel(self, name: str, label: str) -> None:
        labels = {key: version for key, version in self.history[name][-1].items() if key != label}
        self.history[name].append(labels)

    @rule(name=_MODEL, label=_LABEL, steps=st.lists(_SHORT, max_size=12))
    def change_ones_mind(self, name: str, label: str, steps: list[str]) -> None:
        """A version is wanted again when it has just left the file, and the server may not have heard of either."""
        version = self.history[name][-1].get(label)
        if version is None:
            return
        self.unlabel(name, label)
        for _ in range(10):
            self._go_on(1)
            if not any(model.name == name and version in model.versions for model in self._file()):
                break
        self.promote(name, label, version)
        for step in steps:
            if step == "look":
                self.look()
            elif step == "poll":
                self.poll()
            elif step == "work":
                self.work(name, version)
            else:
                self._let_pass(_STEP)

    @rule(name=_MODEL, version=_VERSION)
    def mend(self, name: str, version: int) -> None:
        self.outcomes[name, version] = "good"

    @rule(name=_MODEL, version=_VERSION, outcome=st.sampled_from(["bad", "crash"]))
    def spoil(self, name: str, version: int, outcome: str) -> None:
        """Such as by a file that it reads at its start, or for want of memory; it goes on serving until then."""
        self.outcomes[name, version] = outcome

    @rule(name=_MODEL, label=_LABEL, seconds=st.sampled_from([5, 20]))
    def roll_back_a_server_that_dies_at_each_start(self, name: str, label: str, seconds: int) -> None:
        version = self.server.answer(name, label)
        if version is None:
            return
        self.outcomes[name, version] = "crash"
        self.kill_server()
        self._go_on(seconds)
        proven = [
            other for other in self.agent.remembered[name].loaded if other != version and other in self.here[name]
        ]
        self.promote(name, label, proven[0] if proven else version)
        self._go_on(20)

    @rule(name=_MODEL, version=_VERSION)
    def ask_again(self, name: str, version: int) -> None:
        remembered, progress = self.agent.remembered[name], self.agent.progress[name]
        self.agent.remembered[name], self.agent.progress[name] = reconciling.retry(remembered, progress, version)

    # The server

    @rule()
    def poll(self) -> None:
        if self.server.poll():
            self.polled = self.now
        self._judge()

    @rule(name=_MODEL, version=_VERSION)
    def work(self, name: str, version: int) -> None:
        self.server.work(name, version)
        self._judge()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0]))
    def let_pass(self, seconds: float) -> None:
        self._let_pass(seconds)

    @rule()
    def kill_server(self) -> None:
        if self.server.running:
            self.server.kill()
            self.safe = False

    @rule(prepared=st.booleans(), outage=st.booleans())
    def start_server(self, prepared: bool, outage: bool) -> None:
        if self.server.running:
            return
        if prepared:
            self._prepare(outage=outage)
        self._start()

    @rule(seconds=st.sampled_from([3, 10, 30]))
    def go_on(self, seconds: int) -> None:
        """Nothing special happens; a server that died is started again."""
        self._go_on(seconds)

    @rule(name=_MODEL, label=_LABEL, version=_VERSION, seconds=st.sampled_from([1, 2, 5, 10]))
    def promote_and_go_on(self, name: str, label: str, version: int, seconds: int) -> None:
        self.promote(name, label, version)
        self._go_on(seconds)

    # The agent

    @rule()
    def restart_agent(self) -> None:
        self.agent = self._new_agent()

    @rule(
        outage=st.sampled_from([(), (), _MODELS, _MODELS[:1]]),
        blip=st.sampled_from([False] * 7 + [True]),
        slow=st.sampled_from([(), (), (), _MODELS, _MODELS[:1], _MODELS[1:]]),
        arrives=st.booleans(),
        asking=_MOMENT,
        writing=_MOMENT,
        upset=st.sampled_from([False] * 7 + [True]),
        killed=st.sampled_from(["", "", "", "before it remembers", "before it writes", "before it deletes"]),
    )
    def look(
        self,
        outage: tuple[str, ...] = (),
        blip: bool = False,
        slow: tuple[str, ...] = (),
        arrives: bool = True,
        asking: float = 0.0,
        writing: float = 0.0,
        upset: bool = False,
        killed: str = "",
    ) -> None:
        try:
            self._look(outage, blip, slow, arrives, asking, writing, upset, killed)
        except _KilledError:
            self.agent = self._new_agent()

    def _look(
        self,
        outage: tuple[str, ...],
        blip: bool,
        slow: tuple[str, ...],
        arrives: bool,
        asking: float,
        writing: float,
        upset: bool,
        killed: str,
    ) -> None:
        agent = self.agent
        for name, decision in agent.decisions.items():
            self.here[name] |= {*decision.fetch} if arrives else {*()}
        here = {name: frozenset(versions) for name, versions in self.here.items()}
        wanted = {name: None if name in outage else self.history[name][-1] for name in _MODELS}
        revisions = {name: len(self.history[name]) - 1 for name in _MODELS}
        files = {model.name: model for model in self._file()}
        answers = self.server.ready and not blip
        statuses = {name: self.server.status(name) if answers else None for name in _MODELS}
        self._let_pass(asking)
        looked = self.now
        answers = answers and self.server.ready
        in_file = {name: frozenset(files[name].labels if name in files else ()) for name in _MODELS}
        asked = {name: agent.decisions[name].ask if name in agent.decisions else in_file[name] for name in _MODELS}
        unknown = {*slow} if answers else {*_MODELS} if slow else set()
        gone = not answers and not unknown
        told = {
            name: {label: version for label in asked[name] if (version := self.server.answer(name, label))}
            if name not in unknown
            else {}
            for name in _MODELS
        }
        was_down = not self.server.running
        first = AgentMemory.from_json(self.memory, path="agent.json").first
        for name in _MODELS:
            agent.decisions[name] = decide(
                files.get(name),
                agent.remembered[name],
                agent.progress[name],
                Seen(
                    wanted=wanted[name],
                    revision=revisions[name],
                    here=here[name],
                    server=statuses[name] if answers and name not in unknown else None,
                    gone=gone,
                    first=first,
                    answered=told[name],
                    now=self.now,
                    elsewhere=max(
                        (one.loading for other, one in agent.decisions.items() if other != name),
                        default=Loading.NOTHING,
                    ),
                ),
                replace(_SETTINGS, stagger=self.stagger),
                name=name,
                base_path=f"/models/{name}",
            )
            self._judge_decision(files.get(name), agent.decisions[name], lost=wanted[name] is None, gone=gone)
            if name in unknown:
                assert agent.decisions[name].config == files.get(name)
        decisions = agent.decisions
        if upset and self.server.running:
            self.server.kill()
            self.safe = False
            self._start()
        self._let_pass(writing)
        self._die_if(killed == "before it remembers")
        before = AgentMemory.from_json(self.memory, path="agent.json")
        memory = AgentMemory({name: decision.remembered for name, decision in decisions.items()})
        for name, remembered in before.models.items():
            assert memory.models[name].revision >= remembered.revision
        self.memory = memory.to_json()
        self._die_if(killed == "before it writes")
        self._write([decision.config for decision in decisions.values() if decision.config], gone=gone)
        agent.remembered = {name: decision.remembered for name, decision in decisions.items()}
        agent.progress = {name: decision.progress for name, decision in decisions.items()}
        self.safe = self.safe or (gone and was_down and not self.server.running)
        silent = [
            looked - (looked if progress.silent is None else progress.silent) for progress in agent.progress.values()
        ]
        self.given_up = self.given_up or (gone and min(silent) >= _SETTINGS.load_timeout)
        self._die_if(killed == "before it deletes")
        for name, decision in decisions.items():
            unneeded = sorted(self.here[name] - decision.keep)
            for version in unneeded[: max(0, len(unneeded) - self.keep)]:
                assert version not in self.server.has(name)
                self.here[name].discard(version)

    def _die_if(self, now: bool) -> None:
        if now:
            raise _KilledError

    def _prepare(self, *, outage: bool) -> None:
        """`slipway sync --once`; no agent runs meanwhile."""
        memory = AgentMemory.from_json(self.memory, path="agent.json")
        if memory.first and outage:
            return  # it cannot tell anything, and leaves all as it is
        for name in _MODELS:
            if memory.first and not outage:
                self.here[name] |= {*self.history[name][-1].values()}
        remembered = dict(memory.models)
        models = []
        for name in _MODELS:
            before = memory.models.get(name, Remembered())
            wanted = None if outage else self.history[name][-1]
            model = prepare(
                before,
                wanted,
                frozenset(self.here[name]),
                first=memory.first,
                name=name,
                base_path=f"/models/{name}",
            )
            models += [model] if model else []
            if model or name in memory.models:
                left = before.still_wanted(wanted, len(self.history[name]) - 1)
                remembered[name] = remember(left, model.labels if model else {})
        self.memory = AgentMemory(remembered).to_json()
        self._write(models, gone=True)
        self.agent = self._new_agent()
        self.safe = True
        self.given_up = False

    def _write(self, models: list[ServedModel], *, gone: bool) -> None:
        before = {(model.name, label): version for model in self._file() for label, version in model.labels.items()}
        after = {(model.name, label): version for model in models for label, version in model.labels.items()}
        if gone:
            self.moved.update({key: version for key, version in after.items() if before.get(key) != version})
        self.moved = {key: version for key, version in self.moved.items() if after.get(key) == version}
        self.text = to_text(models)

    def _new_agent(self) -> _Agent:
        memory = AgentMemory.from_json(self.memory, path="agent.json")
        return _Agent(
            progress={name: Progress() for name in _MODELS},
            remembered={name: memory.models.get(name, Remembered()) for name in _MODELS},
        )

    def _file(self) -> tuple[ServedModel, ...]:
        return from_text(self.text, path="models.config")

    # Time

    def _go_on(self, seconds: int) -> None:
        for _ in range(seconds):
            self._let_pass(1.0)
            self.look()
            self.down = 0 if self.server.running else self.down + 1
            if self.down > 2:
                self._start()

    def _start(self) -> None:
        memory = AgentMemory.from_json(self.memory, path="agent.json")
        # Nothing was ever AVAILABLE: then what the labels ask for is tried, for a while.
        self.excused = not self.safe or (memory.first and not self.given_up)
        self.server.start()
        self.polled = self.now
        self.pending = {}
        self._judge()

    def _let_pass(self, seconds: float) -> None:
        """The server does in time what it has to."""
        for _ in range(round(seconds / _STEP)):
            self.now += _STEP
            if self.now - self.polled >= _POLL and self.server.poll():
                self.polled = self.now
            self._judge()
            for name in _MODELS:
                for version in _VERSIONS:
                    self._work_in_time(name, version)
            self._judge()

    def _work_in_time(self, name: str, version: int) -> None:
        state = f"{self.server.has(name).get(version, 'END')} {version in self.server.aspired.get(name, ())}"
        since = self.pending.get((name, version), ("", 0.0))
        if since[0] != state:
            self.pending[name, version] = state, self.now
        elif self.now - since[1] >= (_LOAD if state.startswith("LOADING") else _BEGIN):
            self.server.work(name, version)

    # What must hold

    def _judge(self) -> None:
        server = self.server
        for name, label, version in server.rejected:
            assert self.moved.get((name, label)) == version, f"{name}@{label} was to name {version}"
        server.rejected.clear()
        if server.died_of:
            if server.died_starting:
                excused = self.excused or server.died_of in server.loaded
                assert excused, f"started with {server.died_of}, which it never had"
            self.safe = False
            server.died_of = None
        if not server.ready:
            return
        for name in _MODELS:
            for version in server.has(name):
                assert version in self.here[name]
            for label in _NAMES:
                self._judge_answer(name, label, server.answer(name, label))

    def _judge_answer(self, name: str, label: str, version: int | None) -> None:
        """What a label answers with follows the history; it is missing only once it was to be."""
        reached = self.answered.get((name, label))
        if reached is None and version is None:
            return
        for revision in range(reached or 0, len(self.history[name])):
            if self.history[name][revision].get(label) == version:
                self.answered[name, label] = revision
                return
        if version is None and self.given_up and label not in self.agent.remembered[name].labels:
            del self.answered[name, label]  # a very first server came up when it was not waited for any more
            return
        raise AssertionError(f"{name}@{label} answers with {version} after revision {reached}")

    def _judge_decision(self, file: ServedModel | None, decision: Decision, *, lost: bool, gone: bool) -> None:
        before = {} if file is None else dict(file.labels)
        after = {} if decision.config is None else dict(decision.config.labels)
        if lost:
            assert before.keys() <= after.keys() or (gone and not decision.remembered.labels.keys() - after.keys())
        if decision.config:
            assert {*decision.config.versions} <= decision.keep
        assert not {*after.values()} & decision.remembered.failed.keys()

    def teardown(self) -> None:
        """Once nothing new happens, all comes to what was asked for."""
        for _ in range(150):
            self._rescue()
            self._go_on(4)
            if all(self._has_come(name) for name in _MODELS):
                return
            for name in _MODELS:
                for version in self.agent.remembered[name].failed:
                    if self.outcomes[name, version] == "good":
                        self.ask_again(name, version)
        raise AssertionError(f"{self._told()}\n{self.text}\n{self.agent}")

    def _rescue(self) -> None:
        """What people do about a version that was served and went bad: its labels move away from it."""
        labels = {(name, label): version for name in _MODELS for label, version in self.history[name][-1].items()}
        if not self.server.ready:  # it may die of what another version was to replace that it never had
            labels |= {
                (model.name, label): version for model in self._file() for label, version in model.labels.items()
            }
        for (name, label), version in labels.items():
            if (name, version) in self.server.loaded and self.outcomes[name, version] != "good":
                proven = {*self.agent.remembered[name].loaded} & self.here[name]
                good = [other for other in sorted(proven) if self.outcomes[name, other] == "good"]
                if good:
                    self.promote(name, label, good[0])
                else:
                    self.unlabel(name, label)

    def _has_come(self, name: str) -> bool:
        wanted, remembered = self.history[name][-1], self.agent.remembered[name]
        failed = remembered.failed
        served = {label: version for label in _NAMES if (version := self.server.answer(name, label))}
        good = {label: version for label, version in wanted.items() if self.outcomes[name, version] == "good"}
        decision = self.agent.decisions[name]
        return (
            served.keys() <= wanted.keys()
            and good.items() <= served.items()
            and {*failed} == {*wanted.values()} - {*good.values()}
            and {*self.server.has(name)} == {*served.values()}
            and decision.serving == served
            and not decision.ask
            and len(self.here[name] - {*wanted.values(), *served.values(), *remembered.labels.values()}) <= self.keep
        )

    def _told(self) -> str:
        return "\n".join(
            f"{name}: {self.history[name][-1]} {self.server.status(name)} {self.server.labels.get(name)} {self.here}"
            for name in _MODELS
        )


def test_what_is_loaded_beside_a_version_that_crashes_the_server_is_not_taken_for_it() -> None:
    machine = ReconcilingMachine()
    machine.begin(["good"] * 8, stagger=0.0, first={"stable": 1}, prepared=False)
    machine.outcomes["digits", 2] = "crash"
    machine.promote("digits", "stable", 2)
    machine.promote("faces", "stable", 2)

    for _ in range(200):
        machine._go_on(1)
        assert 2 not in machine.agent.remembered["faces"].failed

    assert "the server went away 3 times" in machine.agent.remembered["digits"].failed[2]
    assert machine.server.answer("digits", "stable") == 1
    assert machine.server.answer("faces", "stable") == 2


@pytest.mark.parametrize("agent", [True, False])
def test_a_server_that_dies_at_each_start_comes_up_after_a_rollback(agent: bool) -> None:
    machine = ReconcilingMachine()
    machine.begin(["good"] * 8, stagger=0.0, first={"stable": 1}, prepared=True)
    machine._go_on(60)
    machine.promote_and_go_on("digits", "stable", 2, 60)
    assert machine.server.answer("digits", "stable") == 2
    machine.kill_server()
    machine.spoil("digits", 2, "crash")
    machine._go_on(60)
    assert not machine.server.ready

    machine.promote("digits", "stable", 1)
    if not agent:
        machine.start_server(prepared=True, outage=False)
    machine._go_on(20)

    assert machine.server.answer("digits", "stable") == 1


def _machine(max_examples: int, steps: int, seconds: int) -> type:
    class Machine(ReconcilingMachine):
        pass

    Machine.TestCase.settings = settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    return pytest.mark.timeout(seconds)(Machine.TestCase)


TestReconciling = _machine(100, 40, 300)
TestReconcilingForLong = pytest.mark.soak(_machine(3000, 60, 3600))
