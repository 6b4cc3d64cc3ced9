from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync import reconciling
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
from model_registry.serving.sync.stays import NOT_TAKEN_UP
from model_registry.serving.version_status import SERVER_STATES, ServerState, VersionStatus

_SETTINGS = Settings(settle=5, drain=5, load_timeout=900, stagger=0, strikes=3)
_BAD = VersionStatus(2, "END", "variables are missing")


def _status(**states: ServerState) -> tuple[VersionStatus, ...]:
    """Of `v1="AVAILABLE"` and so on."""
    return tuple(VersionStatus(int(version[1:]), state) for version, state in states.items())


_ONE = _status(v1="AVAILABLE")
_BOTH = _status(v1="AVAILABLE", v2="AVAILABLE")


@dataclass
class _Agent:
    """One that looks, writes, and looks again."""

    config: ServedModel | None = None
    remembered: Remembered = field(default_factory=Remembered)
    progress: Progress = field(default_factory=Progress)
    settings: Settings = _SETTINGS
    now: float = 100.0
    revision: int = 1
    here: frozenset[int] = frozenset({1, 2, 3})
    decision: Decision | None = None

    def look(
        self,
        wanted: Mapping[str, int] | None,
        server: tuple[VersionStatus, ...] | None,
        *,
        answered: Mapping[str, int] | None = None,
        after: float = 1.0,
        elsewhere: Loading = Loading.NOTHING,
        gone: bool = True,
    ) -> Decision:
        self.now += after
        first = not self.remembered.proven
        seen = Seen(
            wanted, self.revision, self.here, server, answered or {}, self.now, elsewhere, gone=gone, first=first
        )
        self.decision = decide(
            self.config, self.remembered, self.progress, seen, self.settings, name="digits", base_path="/models/digits"
        )
        self.config = self.decision.config
        self.remembered, self.progress = self.decision.remembered, self.decision.progress
        return self.decision

    def restart(self) -> None:
        self.progress = Progress()

    @property
    def versions(self) -> tuple[int, ...]:
        return self.config.versions if self.config else ()

    @property
    def labels(self) -> dict[str, int]:
        return dict(self.config.labels) if self.config else {}

    def state(self, version: int) -> tuple[str, str]:
        report = next(one for one in self.decision.versions if one.version == version) if self.decision else None
        return (report.state, report.why) if report else ("", "")


@pytest.fixture
def agent() -> _Agent:
    """One that has served version 1 as stable for long."""
    agent = _Agent(
        config=ServedModel("digits", "/models/digits", (1,), {"stable": 1}),
        remembered=Remembered(1, {"stable": 1}, (1,)),
    )
    agent.look({"stable": 1}, _ONE)
    agent.look({"stable": 1}, _ONE, answered={"stable": 1})
    agent.look({"stable": 1}, _ONE, after=60)
    assert agent.decision and agent.decision.serving == {"stable": 1}
    return agent


# 1 and 2: add, move, drop


def test_a_promotion_is_three_writings(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    assert (agent.versions, agent.labels) == ((1, 2), {"stable": 1})

    agent.look({"stable": 2}, _status(v1="AVAILABLE", v2="LOADING"))
    assert (agent.versions, agent.labels) == ((1, 2), {"stable": 1})

    agent.look({"stable": 2}, _BOTH)
    assert (agent.versions, agent.labels) == ((1, 2), {"stable": 2})

    agent.look({"stable": 2}, _BOTH, answered={"stable": 2})
    agent.look({"stable": 2}, _BOTH, after=4.9)
    assert agent.versions == (1, 2)
    agent.look({"stable": 2}, _BOTH, after=0.1)
    assert (agent.versions, agent.labels) == ((2,), {"stable": 2})


def test_nothing_is_written_anew_while_nothing_changes(agent: _Agent) -> None:
    before = agent.config, agent.remembered
    decision = agent.look({"stable": 1}, _ONE, after=3600)
    assert (agent.config, agent.remembered) == before
    assert not decision.ask and not decision.fetch and decision.loading == Loading.NOTHING


def test_an_old_version_is_not_dropped_by_the_move_alone(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    for _ in range(5):
        agent.look({"stable": 2}, _BOTH, answered={}, after=60)
        assert agent.versions == (1, 2)


def test_the_time_until_the_drop_begins_with_the_servers_word(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    agent.look({"stable": 2}, _BOTH, answered={"stable": 1}, after=60)
    agent.look({"stable": 2}, _BOTH, answered={"stable": 2}, after=60)
    assert agent.versions == (1, 2)
    agent.look({"stable": 2}, _BOTH, after=4.9)
    assert agent.versions == (1, 2)
    agent.look({"stable": 2}, _BOTH, after=0.1)
    assert agent.versions == (2,)


def test_the_time_until_the_drop_begins_anew_when_a_label_moves(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    agent.look({"stable": 2}, _BOTH, answered={"stable": 2})
    agent.look({"stable": 2, "canary": 2}, _BOTH, after=4.9)
    agent.look({"stable": 2, "canary": 2}, _BOTH, answered={"stable": 2}, after=60)
    assert agent.versions == (1, 2)
    agent.look({"stable": 2, "canary": 2}, _BOTH, answered={"canary": 2}, after=60)
    assert agent.versions == (1, 2)
    agent.look({"stable": 2, "canary": 2}, _BOTH, after=5)
    assert agent.versions == (2,)


def test_a_restarted_agent_drops_nothing_before_the_server_has_confirmed_to_it(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    agent.restart()
    assert agent.look({"stable": 2}, _BOTH, after=60).ask == {"stable"}
    assert agent.versions == (1, 2)
    agent.look({"stable": 2}, _BOTH, answered={"stable": 2}, after=60)
    assert agent.versions == (1, 2)
    agent.look({"stable": 2}, _BOTH, after=5)
    assert agent.versions == (2,)


def test_an_old_version_stays_until_the_server_has_confirmed_every_label(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2, "canary": 2}, _BOTH)
    assert agent.labels == {"stable": 2, "canary": 2}
    for _ in range(5):
        decision = agent.look({"stable": 2, "canary": 2}, _BOTH, answered={"stable": 1, "canary": 2}, after=60)
        assert agent.versions == (1, 2)
        assert decision.ask == {"stable"}
        assert decision.serving == {"stable": 1, "canary": 2}


def test_a_label_that_stops_answering_is_not_confirmed_any_more(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    decision = agent.look({"stable": 2}, _BOTH, answered={})
    assert decision.serving == {}
    assert decision.ask == {"stable"}


@pytest.mark.parametrize("state", [state for state in SERVER_STATES if state != "AVAILABLE"])
def test_a_label_moves_to_nothing_but_an_available_version(agent: _Agent, state: ServerState) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _status(v1="AVAILABLE", v2=state))
    assert agent.labels == {"stable": 1}


def test_a_label_does_not_move_in_the_writing_that_adds_its_version(agent: _Agent) -> None:
    agent.look({"stable": 2}, _BOTH)  # such as after somebody reconfigured the server over gRPC
    assert (agent.versions, agent.labels) == ((1, 2), {"stable": 1})


def test_a_version_that_is_about_to_leave_is_not_taken_for_one_that_came(agent: _Agent) -> None:
    agent.config = ServedModel("digits", "/models/digits", (1, 2), {"stable": 1})
    agent.look({"stable": 1}, _BOTH, answered={"stable": 1})
    assert agent.versions == (1,)
    agent.look({"stable": 2}, _BOTH)
    assert agent.versions == (1, 2)
    agent.look({"stable": 2}, _BOTH, after=4.9)
    assert agent.labels == {"stable": 1}
    agent.look({"stable": 2}, _BOTH, after=0.1)
    assert agent.labels == {"stable": 2}


def test_a_restarted_agent_does_not_know_what_left_before(agent: _Agent) -> None:
    agent.restart()
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    assert agent.labels == {"stable": 1}
    agent.look({"stable": 2}, _BOTH, after=5)
    assert agent.labels == {"stable": 2}


def test_labels_may_swap_their_versions(agent: _Agent) -> None:
    agent.look({"stable": 1, "canary": 2}, _ONE)
    agent.look({"stable": 1, "canary": 2}, _BOTH)
    assert agent.labels == {"stable": 1, "canary": 2}
    agent.look({"stable": 2, "canary": 1}, _BOTH)
    assert (agent.versions, agent.labels) == ((1, 2), {"stable": 2, "canary": 1})


def test_what_is_not_here_is_fetched_and_the_label_waits(agent: _Agent) -> None:
    decision = agent.look({"stable": 9}, _ONE)
    assert decision.fetch == (9,)
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})
    assert agent.state(9) == ("WAITING", "")


def test_a_rollback_while_the_new_version_is_loaded_needs_one_writing(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 1}, _status(v1="AVAILABLE", v2="LOADING"))
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})
    assert agent.state(2) == ("LEAVING", "")


# 3: what could not be read


def test_what_could_not_be_read_removes_nothing(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    for server in (_BOTH, None, _BOTH):
        decision = agent.look(None, server, answered={"stable": 1}, after=600)
        assert 1 in agent.versions and agent.labels == {"stable": 1}
        assert decision.keep == {1, 2, 3}
    assert agent.remembered.labels == {"stable": 1}


def test_a_revision_that_went_back_is_not_followed(agent: _Agent) -> None:
    agent.revision = 9
    agent.look({"stable": 1}, _ONE)
    agent.revision = 8
    agent.look({}, _ONE, after=600)
    assert agent.labels == {"stable": 1}
    assert agent.remembered.revision == 9


def test_a_label_that_is_gone_leaves_at_once_and_its_version_after_it(agent: _Agent) -> None:
    decision = agent.look({}, _ONE)
    assert (agent.versions, agent.labels) == ((1,), {})
    assert decision.ask == {"stable"}
    assert agent.remembered.labels == {}
    agent.look({}, _ONE, answered={"stable": 1}, after=60)
    assert agent.versions == (1,)
    agent.look({}, _ONE)
    agent.look({}, _ONE, after=5)
    assert agent.config is None
    assert agent.look({}, _ONE).keep == {1}  # the server has it still
    assert agent.look({}, _status(v1="END")).keep == {1}  # or may have, by a file that it read before
    assert agent.look({}, _status(v1="END"), after=5).keep == frozenset()


def test_a_restarted_agent_removes_nothing_before_it_knows_what_the_server_has_read(agent: _Agent) -> None:
    agent.restart()
    assert agent.look({"stable": 1}, _ONE).keep == {1, 2, 3}
    assert agent.look({"stable": 1}, _ONE, after=5).keep == {1}


# 4 and 9: a server that goes away


def test_while_the_server_is_silent_the_file_is_what_a_server_may_start_with(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    decision = agent.look({"stable": 2}, None)
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})
    assert agent.remembered.strikes == {2: 1}
    assert decision.serving == {}
    agent.look({"stable": 2}, None, after=60)
    assert agent.remembered.strikes == {2: 1}


def test_a_silent_server_is_told_of_the_labels_as_they_are_in_the_file(agent: _Agent) -> None:
    agent.remembered = replace(agent.remembered, labels={"stable": 2, "canary": 2}, loaded=(1, 2))  # and then ended
    agent.restart()
    agent.look(None, None)
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})


def test_a_silent_server_is_told_of_the_remembered_version_where_the_newer_one_is_not_whole(agent: _Agent) -> None:
    agent.config = ServedModel("digits", "/models/digits", (1, 9), {"stable": 9})
    agent.look({"stable": 9}, None)
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})


def test_a_label_of_a_version_that_is_not_whole_any_more_is_not_in_a_file_to_start_with(agent: _Agent) -> None:
    agent.here = frozenset()
    agent.look({"stable": 1}, None)
    assert agent.config is None


def test_a_version_is_given_up_once_the_server_went_away_over_it_often_enough(agent: _Agent) -> None:
    for _ in range(3):
        agent.look({"stable": 2}, _ONE, after=60)
        assert agent.versions == (1, 2)
        agent.look({"stable": 2}, None)
    agent.look({"stable": 2}, _ONE, after=60)
    assert agent.versions == (1,)
    assert agent.state(2) == ("FAILED", "the server went away 3 times while it was to load this version")
    assert agent.decision and agent.decision.versions[1].gave_up


def test_strikes_are_forgotten_once_the_version_is_available(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, None)
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    assert agent.remembered.strikes == {}


def test_a_version_that_was_available_gets_no_strike(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look(None, _BOTH)
    agent.restart()
    agent.look({"stable": 2}, None)
    assert (agent.versions, agent.remembered.strikes) == ((2,), {})


@pytest.fixture
def moved(agent: _Agent) -> _Agent:
    """One that has moved stable from version 1 to 2 and dropped 1, which still lies on the disk; 3 was never loaded."""
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    agent.look({"stable": 2}, _BOTH, answered={"stable": 2})
    agent.look({"stable": 2}, _BOTH, after=5)
    agent.look({"stable": 2}, _status(v1="END", v2="AVAILABLE"), after=60)
    assert (agent.versions, agent.labels, agent.remembered.loaded) == ((2,), {"stable": 2}, (1, 2))
    return agent


def test_a_rollback_reaches_a_server_that_dies_at_each_start(moved: _Agent) -> None:
    moved.look({"stable": 2}, None, after=60)
    assert moved.labels == {"stable": 2}
    decision = moved.look({"stable": 1}, None)
    assert (moved.versions, moved.labels) == ((1,), {"stable": 1})
    assert moved.remembered.labels == {"stable": 1}
    assert decision.ask == {"stable"}
    assert decision.keep == {1, 2, 3}
    moved.look({"stable": 1}, _ONE, answered={"stable": 1})
    moved.look({"stable": 1}, _ONE, after=60)
    assert (moved.versions, moved.labels) == ((1,), {"stable": 1})


def test_a_rollback_reaches_it_though_the_version_was_just_to_be_loaded(moved: _Agent) -> None:
    moved.look({"stable": 1}, _status(v1="LOADING", v2="AVAILABLE"))
    assert (moved.versions, moved.labels) == ((1, 2), {"stable": 2})
    moved.look({"stable": 1}, None)
    assert (moved.versions, moved.labels, moved.remembered.strikes) == ((1,), {"stable": 1}, {})


def test_a_server_that_is_gone_is_not_told_to_start_with_what_it_never_had(moved: _Agent) -> None:
    moved.look({"stable": 3}, None)
    moved.look({"stable": 3}, None, after=10**6)
    assert (moved.versions, moved.labels) == ((2,), {"stable": 2})


def test_a_server_that_is_gone_is_not_told_to_start_with_what_failed_since(moved: _Agent) -> None:
    moved.remembered = replace(moved.remembered, failed={1: "variables are missing"})
    moved.look({"stable": 1}, None)
    assert moved.labels == {"stable": 2}


def test_a_server_that_is_gone_is_not_told_to_start_with_what_is_not_here(moved: _Agent) -> None:
    moved.here = frozenset({2})
    assert moved.look({"stable": 1}, None).fetch == (1,)
    assert moved.labels == {"stable": 2}


def test_a_rollback_that_cannot_be_read_moves_nothing(moved: _Agent) -> None:
    moved.look({"stable": 1}, None)
    moved.look(None, None)
    assert moved.labels == {"stable": 1}
    moved.revision = 0
    moved.look({"stable": 2}, None)
    assert moved.labels == {"stable": 1}


def test_no_label_is_added_while_the_server_is_gone(moved: _Agent) -> None:
    moved.look({"stable": 2, "canary": 1}, None)
    assert moved.labels == {"stable": 2}


def test_a_server_that_comes_up_by_the_file_before_a_rollback_is_led_from_what_it_has(moved: _Agent) -> None:
    moved.look({"stable": 1}, None)
    by_the_old_file = _status(v2="AVAILABLE")
    moved.look({"stable": 1}, by_the_old_file, answered={"stable": 2})
    assert (moved.versions, moved.labels) == ((1, 2), {"stable": 1})
    assert moved.remembered.labels == {"stable": 2}
    moved.look({"stable": 1}, by_the_old_file, answered={"stable": 2}, after=5)
    assert (moved.versions, moved.labels) == ((1, 2), {"stable": 2})
    moved.look({"stable": 1}, _BOTH, answered={"stable": 2})
    moved.look({"stable": 1}, _BOTH, after=5)
    assert (moved.versions, moved.labels) == ((1, 2), {"stable": 1})
    moved.look({"stable": 1}, _BOTH, answered={"stable": 1})
    moved.look({"stable": 1}, _BOTH, after=5)
    assert (moved.versions, moved.labels) == ((1,), {"stable": 1})


# 4: a server that is slow


def test_nothing_changes_while_nothing_is_known_of_the_server(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _status(v1="AVAILABLE", v2="LOADING"))
    before = agent.config, agent.remembered, agent.progress
    decision = agent.look({"stable": 2}, None, gone=False, after=60)
    assert (agent.config, agent.remembered, agent.progress) == before
    assert agent.versions == (1, 2)
    assert decision.serving == {"stable": 1}
    assert decision.keep == {1, 2, 3}
    assert agent.state(1) == ("AVAILABLE", "the server does not answer")
    assert agent.state(2) == ("LOADING", "the server does not answer")


def test_a_slow_server_is_no_reason_to_give_a_version_up(agent: _Agent) -> None:
    for _ in range(5):
        agent.look({"stable": 2}, _status(v1="AVAILABLE", v2="LOADING"))
        agent.look({"stable": 2}, None, gone=False, after=20)
    agent.look({"stable": 2}, _BOTH)
    assert (agent.labels, agent.remembered.strikes, agent.remembered.failed) == ({"stable": 2}, {}, {})


def test_labels_are_asked_for_again_after_a_look_that_told_nothing(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    assert agent.look({"stable": 2}, None, gone=False).ask == {"stable"}
    assert agent.look({"stable": 2}, _BOTH, answered={"stable": 2}).serving == {"stable": 2}


def test_what_is_wanted_is_fetched_whatever_the_server_says(agent: _Agent) -> None:
    assert agent.look({"stable": 9}, None, gone=False).fetch == (9,)


def test_a_version_with_a_strike_is_loaded_alone(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, None)
    agent.look({"stable": 2}, _ONE, elsewhere=Loading.CANDIDATES)
    assert agent.versions == (1,)
    assert "loaded when nothing else is" in agent.state(2)[1]
    assert agent.look({"stable": 2}, _ONE).loading == Loading.SUSPECT
    agent.look({"stable": 2, "canary": 3}, _ONE)
    assert agent.versions == (1, 2)


def test_nothing_is_added_while_another_model_loads_a_version_alone(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE, elsewhere=Loading.SUSPECT)
    assert agent.versions == (1,)
    assert agent.look({"stable": 2}, _ONE, elsewhere=Loading.CANDIDATES).loading == Loading.CANDIDATES
    assert agent.versions == (1, 2)


# 5: what fails


def test_a_load_that_fails_before_ones_eyes_counts_at_once(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _status(v1="AVAILABLE", v2="LOADING"))
    agent.look({"stable": 2}, (*_ONE, _BAD))
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})
    assert agent.state(2) == ("FAILED", "variables are missing")
    agent.look({"stable": 2}, (*_ONE, _BAD), after=3600)
    assert agent.versions == (1,)


def test_a_failure_from_before_does_not_count(agent: _Agent) -> None:
    agent.look({"stable": 2}, (*_ONE, _BAD), after=60)
    agent.look({"stable": 2}, (*_ONE, _BAD), after=4.9)
    assert agent.versions == (1, 2)
    agent.look({"stable": 2}, (*_ONE, _BAD), after=0.1)
    assert agent.versions == (1,)
    assert agent.remembered.failed == {2: "variables are missing"}


def test_a_retry_waits_until_the_server_has_polled_without_the_version(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, (*_ONE, _BAD), after=5)
    assert agent.remembered.failed
    agent.remembered, agent.progress = reconciling.retry(agent.remembered, agent.progress, 2)
    agent.look({"stable": 2}, (*_ONE, _BAD), after=4.9)
    assert agent.versions == (1,)
    assert agent.state(2) == ("READY", "the server must notice first that it was taken out")
    agent.look({"stable": 2}, (*_ONE, _BAD), after=0.1)
    assert agent.versions == (1, 2)


def test_a_failed_version_is_tried_anew_once_it_was_not_wanted_for_a_while(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, (*_ONE, _BAD), after=5)
    agent.look({"stable": 1}, (*_ONE, _BAD))
    assert agent.remembered.failed == {}
    agent.look({"stable": 2}, (*_ONE, _BAD), after=60)
    assert agent.versions == (1, 2)


def test_a_version_that_is_never_loaded_is_given_up(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _status(v1="AVAILABLE", v2="LOADING"), after=899.9)
    assert agent.state(2) == ("LOADING", "")
    agent.look({"stable": 2}, _status(v1="AVAILABLE", v2="LOADING"), after=0.1)
    assert agent.state(2) == ("FAILED", "not loaded within 900 s")
    assert agent.versions == (1,)


@pytest.mark.parametrize("server", [_ONE, _status(v1="AVAILABLE", v2="END")])
def test_a_server_that_does_not_poll_is_told_of(agent: _Agent, server: tuple[VersionStatus, ...]) -> None:
    agent.look({"stable": 2}, server)
    agent.look({"stable": 2}, server, after=4.9)
    assert agent.state(2) == ("LOADING", "")
    agent.look({"stable": 2}, server, after=0.1)
    assert agent.state(2) == ("LOADING", NOT_TAKEN_UP)
    agent.look({"stable": 2}, server, after=900)
    assert agent.state(2) == ("FAILED", NOT_TAKEN_UP)


# 6: the very first start


def test_what_never_was_available_leaves_a_server_that_does_not_come_up() -> None:
    agent = _Agent(prepare(None, {"stable": 1}, frozenset({1}), first=True, name="digits", base_path="/models/digits"))
    agent.look({"stable": 1}, None)
    agent.look({"stable": 1}, None, after=899.9)
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})
    agent.look({"stable": 1}, None, after=0.1)
    assert agent.config is None
    agent.look({"stable": 1}, ())
    assert (agent.versions, agent.labels) == ((1,), {})


def test_the_very_first_server_is_told_to_start_with_what_is_wanted_by_now() -> None:
    agent = _Agent(prepare(None, {"stable": 1}, frozenset({1}), first=True, name="digits", base_path="/models/digits"))
    agent.here = frozenset({1})
    agent.look({"stable": 1}, None)
    agent.look({"stable": 2}, None, after=800)
    assert agent.labels == {"stable": 1}
    agent.here = frozenset({1, 2})
    agent.look({"stable": 2}, None)
    assert (agent.versions, agent.labels, agent.remembered.labels) == ((2,), {"stable": 2}, {})
    agent.look({"stable": 2}, None, after=899.9)
    assert agent.labels == {"stable": 2}
    agent.look({"stable": 2}, None, after=0.1)
    assert agent.config is None


def test_a_version_that_was_tried_first_leaves_once_another_is_known_to_be_good() -> None:
    """The first server came up by the file from before the label moved, and died."""
    agent = _Agent(ServedModel("digits", "/models/digits", (1,), {"stable": 1}))
    agent.look({"stable": 2}, None)
    assert agent.labels == {"stable": 2}
    agent.look({"stable": 2}, _ONE, answered={"stable": 1})
    agent.look({"stable": 2}, None)
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})


def test_what_was_available_stays_however_long_the_server_is_away(agent: _Agent) -> None:
    agent.look({"stable": 1}, None)
    agent.look({"stable": 1}, None, after=10**6)
    assert (agent.versions, agent.labels) == ((1,), {"stable": 1})


# 7: a version that the server has lost


def test_a_label_goes_back_from_a_version_that_the_server_has_lost(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    assert agent.labels == {"stable": 2}
    lost = _status(v1="AVAILABLE", v2="END")  # it unloads what it began to unload before it read the file
    agent.look({"stable": 2}, lost, answered={"stable": 1})
    agent.look({"stable": 2}, lost, answered={"stable": 1}, after=4.9)
    assert agent.labels == {"stable": 2}
    agent.look({"stable": 2}, lost, answered={"stable": 1}, after=0.1)
    assert (agent.versions, agent.labels) == ((1, 2), {"stable": 1})
    agent.look({"stable": 2}, _BOTH, answered={"stable": 1}, after=5)
    assert agent.labels == {"stable": 2}


def test_a_label_without_any_version_to_answer_with_leaves_until_there_is_one(agent: _Agent) -> None:
    agent.look({"stable": 1}, (), after=60)
    agent.look({"stable": 1}, (), after=5)
    assert (agent.versions, agent.labels) == ((1,), {})
    assert agent.remembered.labels == {"stable": 1}
    agent.look({"stable": 1}, _ONE, after=5)
    assert agent.labels == {"stable": 1}


# 8: what is remembered


def test_a_label_is_remembered_with_the_writing_that_moves_it(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    assert agent.remembered.labels == {"stable": 1}
    agent.look({"stable": 2}, _BOTH)
    assert agent.remembered.labels == {"stable": 2}
    agent.look({"stable": 2}, _BOTH, answered={"stable": 1})  # it has not polled yet
    assert agent.remembered.labels == {"stable": 2}


def test_versions_that_do_not_matter_any_more_are_forgotten(agent: _Agent) -> None:
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _BOTH)
    agent.look({"stable": 2}, _BOTH, answered={"stable": 2})
    assert agent.remembered.loaded == (1, 2)
    agent.look({"stable": 2}, _BOTH, after=5)
    agent.look({"stable": 2}, _status(v1="END", v2="AVAILABLE"))
    assert agent.remembered.loaded == (1, 2)
    agent.here = frozenset({2})
    agent.look({"stable": 2}, _status(v1="END", v2="AVAILABLE"))
    assert agent.remembered.loaded == (2,)


# 11: turns


def test_a_version_waits_for_this_agents_turn(agent: _Agent) -> None:
    agent.settings = replace(_SETTINGS, stagger=3)
    agent.look({"stable": 2}, _ONE)
    agent.look({"stable": 2}, _ONE, after=2.9)
    assert agent.versions == (1,)
    assert agent.state(2) == ("READY", "its turn has not come")
    agent.look({"stable": 2}, _ONE, after=0.1)
    assert agent.versions == (1, 2)


def test_there_are_no_turns_where_nothing_is_served_yet() -> None:
    agent = _Agent(settings=replace(_SETTINGS, stagger=3))
    agent.look({"stable": 2}, ())
    assert (agent.versions, agent.labels) == ((2,), {})


# Before a start


def _prepared(
    remembered: Remembered | None,
    wanted: Mapping[str, int] | None,
    *,
    first: bool = False,
    verified: tuple[int, ...] = (1, 2),
) -> dict[str, int] | None:
    config = prepare(remembered, wanted, frozenset(verified), first=first, name="digits", base_path="/models/digits")
    if config:
        assert config.versions == tuple(sorted({*config.labels.values()}))
    return dict(config.labels) if config else None


def test_a_server_starts_with_what_was_available_and_is_still_whole() -> None:
    remembered = Remembered(labels={"stable": 1, "canary": 2})
    assert _prepared(remembered, {"stable": 3, "canary": 2}, verified=(1, 2, 3)) == {"stable": 1, "canary": 2}
    assert _prepared(remembered, None, verified=(1,)) == {"stable": 1}
    assert _prepared(remembered, {"stable": 3}, verified=(1, 2, 3)) == {"stable": 1}
    assert _prepared(remembered, None, verified=()) is None
    assert _prepared(replace(remembered, failed={1: "bad"}), None) == {"canary": 2}


def test_a_server_starts_with_what_is_wanted_now_among_what_was_available() -> None:
    remembered = Remembered(labels={"stable": 2}, loaded=(1, 2))
    assert _prepared(remembered, {"stable": 1}) == {"stable": 1}
    assert _prepared(remembered, {"stable": 1, "canary": 2}) == {"stable": 1, "canary": 2}
    assert _prepared(remembered, {"stable": 1}, verified=(2,)) == {"stable": 2}
    assert _prepared(replace(remembered, failed={1: "bad"}), {"stable": 1}) == {"stable": 2}
    assert _prepared(remembered, {"canary": 1}) == {"canary": 1}
    assert _prepared(remembered, {}) is None
    assert _prepared(remembered, None) == {"stable": 2}


def test_what_a_server_is_to_start_with_is_remembered_as_far_as_it_was_available() -> None:
    remembered = Remembered(labels={"stable": 2, "canary": 2}, loaded=(1, 2))
    assert remember(remembered, {"stable": 1}).labels == {"stable": 1, "canary": 2}
    assert remember(Remembered(), {"stable": 1}).labels == {}


def test_what_is_not_wanted_any_more_is_forgotten_once_that_was_read() -> None:
    remembered = Remembered(
        revision=4, labels={"stable": 2, "canary": 3}, loaded=(2,), failed={3: "bad", 4: "bad"}, strikes={3: 1, 5: 1}
    )

    assert remembered.still_wanted(None, 0) == remembered
    assert remembered.still_wanted({"stable": 4}, 5) == Remembered(
        revision=5, labels={"stable": 2}, loaded=(2,), failed={4: "bad"}
    )
    assert remembered.still_wanted({}, 3).revision == 4


def test_the_very_first_server_starts_with_what_the_labels_ask_for() -> None:
    assert _prepared(None, {"stable": 1, "canary": 3}, first=True) == {"stable": 1}
    assert _prepared(Remembered(failed={1: "bad"}), {"stable": 1}, first=True) is None
    assert _prepared(None, None, first=True) is None
    assert _prepared(None, {"stable": 1}) is None
