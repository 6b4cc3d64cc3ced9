"""An agent's log has a line for each thing that happens, and none where nothing does."""

from __future__ import annotations

import itertools
from dataclasses import replace

from model_registry.serving.sync.settling import is_moving, is_over, is_well
from model_registry.serving.sync.sync_events import events
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport, VersionState

NOTHING = AgentReport("agent-1", "s3://models/registry", "/srv", "http://127.0.0.1:8501", server_reachable=True)


def report(model: ModelReport) -> AgentReport:
    return replace(NOTHING, models={"digits": model})


def lines(before: ModelReport, after: ModelReport) -> list[str]:
    return [line for _, line in events(report(before), report(after))]


def at(state: VersionState, why: str = "", *, gave_up: bool = False) -> ModelReport:
    """Version 2 on its way to be stable, in the place of 1."""
    versions = (VersionReport(1, "AVAILABLE"), VersionReport(2, state, why=why, gave_up=gave_up))
    return ModelReport(2, {"stable": 2}, {"stable": 1}, versions)


SETTLED = ModelReport(1, {"stable": 1}, {"stable": 1}, (VersionReport(1, "AVAILABLE"),))
MOVED = ModelReport(2, {"stable": 2}, {"stable": 2}, (VersionReport(2, "AVAILABLE"),))


def test_a_promotion_is_told_step_by_step() -> None:
    steps = [SETTLED, at("WAITING"), at("DOWNLOADING"), at("READY"), at("LOADING"), at("AVAILABLE")]
    leaving = ModelReport(2, {"stable": 2}, {"stable": 2}, (VersionReport(1, "LEAVING"), VersionReport(2, "AVAILABLE")))
    steps += [leaving, MOVED]

    said = [lines(before, after) for before, after in itertools.pairwise(steps)]

    assert said == [
        ["digits@stable is to be digits:2, since revision 2"],
        [],  # told by who downloads, with bytes and seconds
        [],
        ["digits:2 is to be loaded by the server"],
        ["digits:2 is AVAILABLE"],
        ["digits:1 is to leave the server", "digits@stable answers with digits:2, before with digits:1"],
        ["digits:1 has left the server"],
    ]


def test_nothing_is_told_where_nothing_happens() -> None:
    for model in (SETTLED, at("LOADING"), at("FAILED", "no graph", gave_up=True), replace(SETTLED, problem="gone")):
        assert lines(model, model) == []


def test_a_load_that_failed_is_told_in_the_servers_words() -> None:
    assert lines(at("LOADING"), at("FAILED", "no graph", gave_up=True)) == [
        "digits:2 failed to load and is not tried again until it is asked for: no graph"
    ]


def test_what_something_waits_for_is_told_once() -> None:
    assert lines(at("LOADING"), at("LOADING", "is it polled?")) == ["digits:2: is it polled?"]
    assert lines(at("LOADING", "is it polled?"), at("LOADING", "is it polled?")) == []


def test_a_problem_is_told_when_it_comes_and_when_it_goes() -> None:
    assert lines(SETTLED, replace(SETTLED, problem="no state")) == ["digits: no state"]
    assert lines(replace(SETTLED, problem="no state"), SETTLED) == ["digits: all is well again"]


def test_a_label_and_a_model_that_go_are_told() -> None:
    assert lines(SETTLED, replace(SETTLED, wanted={}, revision=2)) == ["digits@stable is to go, since revision 2"]
    assert [line for _, line in events(report(SETTLED), NOTHING)] == ["digits is not followed any more"]


def test_an_agent_looks_often_while_anything_is_on_its_way() -> None:
    assert not is_moving(report(SETTLED))
    assert is_moving(report(at("AVAILABLE")))
    assert is_moving(report(replace(SETTLED, versions=(*SETTLED.versions, VersionReport(2, "LEAVING")))))


def test_an_agent_has_time_where_nothing_can_move() -> None:
    given_up = at("FAILED", "no graph", gave_up=True)
    leaving = replace(SETTLED, versions=(*SETTLED.versions, VersionReport(2, "LEAVING")), problem="no state")

    assert not is_moving(report(given_up))
    assert not is_moving(report(leaving))
    assert not is_moving(replace(report(at("LOADING")), disk_problem="full"))
    assert not is_moving(replace(report(replace(SETTLED, wanted={})), registry_problem="403"))
    assert is_moving(report(replace(SETTLED, wanted={})))
    assert is_moving(replace(report(SETTLED), server_reachable=False))


def test_a_directory_that_cannot_be_written_is_told_when_it_comes_and_when_it_goes() -> None:
    full = replace(NOTHING, disk_problem="no space is left")

    assert [line for _, line in events(NOTHING, full)] == ["no space is left"]
    assert [line for _, line in events(full, full)] == []
    assert [line for _, line in events(full, NOTHING)] == ["/srv is kept up again"]


def test_other_bytes_are_over_and_not_well() -> None:
    other = replace(SETTLED, versions=(VersionReport(1, "AVAILABLE", why="lies here as", differs=True),))
    read = replace(report(SETTLED), registry_age=1.0)

    assert is_over(report(other))
    assert not is_moving(report(other))
    assert not is_well(replace(report(other), registry_age=1.0))
    assert is_well(read)
    for change in ({"registry_age": None}, {"registry_problem": "403"}, {"disk_problem": "full"}):
        assert not is_well(replace(read, **change))


def test_all_is_over_when_it_is_served_or_has_failed() -> None:
    assert is_over(NOTHING)
    assert is_over(report(SETTLED))
    assert is_over(report(at("FAILED", "no graph", gave_up=True)))
    assert is_over(report(replace(SETTLED, problem="no state")))
    for model in (at("LOADING"), at("AVAILABLE"), ModelReport(1, {"stable": 1}), replace(SETTLED, wanted={})):
        assert not is_over(report(model))
