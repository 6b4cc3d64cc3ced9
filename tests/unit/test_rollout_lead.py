"""Holding on to a rollout: others who pause, abort or take it up, flow runs that run again, a registry that fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model_registry import paths
from model_registry import rollout_transitions as transitions
from model_registry.errors import ConflictError, NotFoundError, StorageError
from model_registry.rollout.driver import Driver
from model_registry.rollout.report import RolloutReport
from model_registry.servable import Run
from model_registry.state import Origin
from tests.support.rollout_town import ANN, BOB, PLAN, Town
from tests.support.simulated_fleet import SimulatedFleet, Version


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


# Others


@pytest.mark.parametrize(("phase", "step"), [("starting", 0), ("shifting", 0), ("baking", 1), ("promoting", 2)])
def test_somebody_elses_pause_ends_it_in_good_order(town: Town, phase: str, step: int) -> None:
    town.until(phase, lambda: town.change(lambda state, model: transitions.pause(state, model, "lunch")), step=step)

    report = town.begin()

    assert (report.outcome, report.by, report.why, report.phase) == ("paused", "bob@laptop", "lunch", phase)
    assert town.driver().resume().outcome == "promoted"


def test_somebodys_pause_of_what_paused_itself_stays_when_there_are_data_again(town: Town) -> None:
    def stop() -> None:
        traffic = town.registry.state("digits").traffic
        if not (traffic and traffic.paused):
            town.fleet.after(1, stop)
            return
        town.change(lambda state, model: transitions.pause(state, model, "by bob: stop"))
        town.fleet.away = False

    town.until("baking", lambda: setattr(town.fleet, "away", True), step=1)
    town.fleet.after(1, stop)

    report = town.begin()

    assert (report.outcome, report.by, report.paused) == ("paused", "bob@laptop", "by bob: stop")
    assert "resume" not in town.actions


def test_who_cannot_see_takes_a_rollout_from_nobody(town: Town) -> None:
    blind = SimulatedFleet(town.registry)
    blind.away = True

    def take() -> None:
        with pytest.raises(StorageError, match="does not answer"):
            Driver(town.registry, blind, "digits", origin=BOB, clock=blind.clock, sleep=blind.sleep).resume()

    town.until("baking", take, step=1)

    assert town.begin().outcome == "promoted"
    assert "resume" not in town.actions


def test_looks_do_not_multiply_with_the_runs_that_make_them(town: Town) -> None:
    class Kill(BaseException):
        pass

    def kill() -> None:
        raise Kill

    town.fleet.rate = 1000  # a bake that is taken up takes more requests than the one before
    town.until("baking", kill, then=30)
    with pytest.raises(Kill):
        town.begin()

    report = town.driver().resume()

    assert report.outcome == "promoted"
    assert {look.bake for look in report.looks if look.weight == 5} == {2}
    since = {change.since for change in town.changes if change.since and change.weight == 5}
    assert len(since) == 1


@pytest.mark.parametrize(
    ("phase", "step"),
    [("starting", 0), ("shifting", 0), ("baking", 0), ("baking", 2), ("promoting", 2), ("leaving", 2)],
)
def test_an_abort_by_somebody_else_ends_it_and_they_lead_it_out(town: Town, phase: str, step: int) -> None:
    aborted: list[RolloutReport] = []
    town.until(phase, lambda: town.change(transitions.abort), step=step)

    report = town.begin()
    aborted.append(town.driver(BOB).abort())

    assert (report.outcome, report.by, report.why) == ("aborted", "bob@laptop", "lunch")
    assert aborted[0].outcome == "aborted"
    assert town.labels == {"stable": 1}


def test_a_rollout_that_another_run_took_up_is_fenced_off(town: Town) -> None:
    town.until("baking", lambda: town.change(transitions.resume), step=1)

    with pytest.raises(ConflictError, match=r"fenced off: .* expected epoch 2, found epoch 3.* bob@laptop"):
        town.begin()

    state = town.registry.state("digits")
    assert state.traffic and (state.traffic.epoch, state.traffic.phase) == (3, "baking")


def test_whoever_finds_it_over_is_fenced_off(town: Town) -> None:
    town.until("baking", lambda: town.driver(BOB).resume(), step=1)

    with pytest.raises(ConflictError, match=r"fenced off: .* found it is over; last changed by bob@laptop"):
        town.begin()
    assert town.labels == {"stable": 2}


def test_who_moved_another_label_since_is_not_who_paused_or_aborted_it(town: Town) -> None:
    def end() -> None:
        town.driver(BOB).abort()
        town.registry.promote("digits", 3, "gpu", origin=Origin("carl@desk", "gpus"))

    town.until("baking", end, step=1)

    report = town.begin()

    assert (report.outcome, report.by) == ("aborted", "bob@laptop")


def test_an_abort_that_was_led_out_by_then_is_told_as_such(town: Town) -> None:
    town.until("baking", lambda: town.driver(BOB).abort(), step=1)

    report = town.begin()

    assert (report.outcome, report.by, report.phase, report.weight) == ("aborted", "bob@laptop", None, 0)


def test_who_ends_a_rollout_that_somebody_aborted_a_moment_before_does_not_take_that_end_for_its_own(
    town: Town,
) -> None:
    def race() -> None:
        town.store.before_the_next_write = lambda: town.driver(BOB).abort()

    town.until("leaving", race, step=2, then=0)

    report = town.begin()

    assert (report.outcome, report.by) == ("aborted", "bob@laptop")
    assert town.labels == {"stable": 1}
    assert town.actions.count("finish") == 1


def test_of_two_who_take_it_up_at_once_one_is_fenced_off(town: Town) -> None:
    def race() -> None:
        town.fleet.away = False
        town.store.before_the_next_write = lambda: town.change(transitions.resume, ANN)  # by the same hand

    town.until("baking", lambda: setattr(town.fleet, "away", True), step=1)
    town.until("baking", lambda: town.fleet.after(60, race), step=1)

    with pytest.raises(ConflictError, match=r"fenced off: .* expected epoch 2, found epoch 3"):
        town.begin()
    assert town.actions.count("resume") == 1


def test_an_abort_before_any_request_went_to_canary_waits_for_no_gateway(town: Town) -> None:
    town.fleet.gateway_stuck = town.fleet.servers_stuck = True
    town.begin(timeout=30)

    report = town.driver().abort()

    assert report.outcome == "aborted"
    assert town.labels == {"stable": 1}


def test_a_second_rollout_conflicts_with_one_under_way(town: Town) -> None:
    town.fleet.gateway_stuck = True
    town.begin(timeout=10)

    with pytest.raises(ConflictError, match="a rollout of digits:2 is under way, paused: ") as caught:
        town.begin(3)
    assert "--resume" in (caught.value.hint or "")


def test_labels_of_a_rollout_move_by_it_alone(town: Town) -> None:
    town.fleet.gateway_stuck = True
    town.begin(timeout=10)

    for label in ("stable", "canary"):
        with pytest.raises(ConflictError, match=f"digits@{label} takes part in a rollout"):
            town.registry.promote("digits", 3, label, origin=ANN)
    town.registry.promote("digits", 3, "gpu", origin=ANN)


def test_a_label_that_is_moved_beside_a_rollout_does_not_hold_it_up(town: Town) -> None:
    town.until("baking", lambda: town.registry.promote("digits", 3, "gpu", origin=BOB) and None, step=1)

    assert town.begin().outcome == "promoted"
    assert town.labels == {"stable": 2, "gpu": 3}


def test_there_is_nothing_to_take_up_where_none_is_under_way(town: Town) -> None:
    for lead in (town.driver().resume, town.driver().abort):
        with pytest.raises(NotFoundError, match="no rollout of digits is under way"):
            lead()


# Runs of a flow


def test_a_flow_run_that_runs_again_goes_on_with_its_own_rollout(town: Town) -> None:
    run = Run("7e57", "quiet-otter")
    town.until("baking", lambda: setattr(town.store, "away", True), step=1)
    with pytest.raises(StorageError, match="--resume"):
        town.driver(replace(ANN, run=run), store=20.0).begin(2, PLAN)
    town.store.away = False

    with pytest.raises(ConflictError):
        town.driver(replace(ANN, run=Run("other", "other"))).begin(2, PLAN)
    assert town.driver(replace(ANN, run=run)).begin(2, PLAN).outcome == "promoted"


def test_a_flow_run_that_runs_again_after_its_end_does_not_begin_anew(town: Town) -> None:
    origin = replace(ANN, run=Run("7e57", "quiet-otter"))
    town.fleet.versions[2] = Version(errors=0.5)
    first = town.driver(origin).begin(2, PLAN)
    before = town.actions

    again = town.driver(origin).begin(2, PLAN)

    assert town.actions == before
    assert (again.outcome, again.version, again.why) == ("worse", 2, first.why)
    assert town.driver(replace(ANN, run=Run("other", "other"))).begin(2, PLAN).outcome == "worse"
    assert town.actions.count("begin") == 2
    assert town.driver(origin).begin(3, PLAN).outcome == "promoted"


def test_a_flow_run_that_was_lost_while_it_waited_for_data_goes_on_with_its_own_rollout(town: Town) -> None:
    class Lost(BaseException):
        pass

    def lose() -> None:
        raise Lost

    origin = replace(ANN, run=Run("7e57", "quiet-otter"))
    town.until("baking", lambda: setattr(town.fleet, "away", True), step=1)
    town.until("baking", lambda: town.fleet.after(60, lose), step=1)
    with pytest.raises(Lost):
        town.driver(origin).begin(2, PLAN)
    assert town.actions[-1] == "pause"
    town.fleet.away = False

    with pytest.raises(ConflictError, match="is under way, paused: no data"):
        town.driver(replace(ANN, run=Run("other", "other"))).begin(2, PLAN)
    assert town.driver(origin).begin(2, PLAN).outcome == "promoted"


def test_a_flow_run_that_runs_again_leaves_a_rollout_paused_that_somebody_has_to_look_at(town: Town) -> None:
    origin = replace(ANN, run=Run("7e57", "quiet-otter"))
    town.fleet.gateway_stuck = True
    assert town.driver(origin, timeout=10).begin(2, PLAN).outcome == "paused"

    with pytest.raises(ConflictError, match="is under way, paused: "):
        town.driver(origin).begin(2, PLAN)


# The registry fails


def test_a_store_that_is_away_for_a_while_does_not_end_it(town: Town) -> None:
    town.until("baking", lambda: setattr(town.store, "away", True), step=1)
    town.until("baking", lambda: town.fleet.after(45, lambda: setattr(town.store, "away", False)), step=1)

    assert town.begin().outcome == "promoted"


def test_a_store_that_is_away_for_long_ends_it_as_it_is(town: Town) -> None:
    town.until("baking", lambda: setattr(town.store, "away", True), step=1)

    with pytest.raises(StorageError) as caught:
        town.begin(store=60)

    assert "the store is away, after 6" in caught.value.message
    assert "with 25 % of the requests" in caught.value.message
    assert "slipway rollout digits --resume" in (caught.value.hint or "")
    town.store.away = False
    assert town.driver().resume().outcome == "promoted"


def test_a_registry_that_is_not_mounted_for_a_while_does_not_end_it(town: Town) -> None:
    town.until("baking", lambda: setattr(town.store, "unmounted", True), step=1)
    town.until("baking", lambda: town.fleet.after(45, lambda: setattr(town.store, "unmounted", False)), step=1)

    assert town.begin().outcome == "promoted"


@pytest.mark.parametrize("at_once", [False, True], ids=["for a while", "for a moment"])
def test_a_registry_that_goes_while_a_version_is_looked_up_does_not_end_it(town: Town, at_once: bool) -> None:
    went = []

    def unmount() -> None:
        went.append(town.registry.state("digits").traffic)
        town.store.unmounted = True
        if at_once:
            town.store.before_a_read_of[paths.state("digits")] = mount
        else:
            town.fleet.after(45, mount)

    def mount() -> None:
        town.store.unmounted = False

    # Only a transition that moves a label looks for the version: the one that accepts it.
    town.until("baking", lambda: town.store.before_a_read_of.update({paths.manifest("digits", 2): unmount}), step=2)

    assert town.begin().outcome == "promoted"
    assert [traffic.phase for traffic in went if traffic] == ["baking"]
    assert town.actions.count("accept") == 1


def test_a_candidate_that_somebody_deleted_is_not_waited_for(town: Town) -> None:
    def delete() -> None:
        town.store.delete([paths.manifest("digits", 2)])

    began = town.fleet.time
    town.until("baking", delete, step=2)

    with pytest.raises(NotFoundError, match="digits:2 does not exist"):
        town.begin(store=3600)
    assert town.fleet.time - began < 600


@pytest.mark.parametrize(("phase", "step"), [("baking", 1), ("leaving", 2)])
def test_a_registry_that_is_not_mounted_any_more_ends_it_as_it_is(town: Town, phase: str, step: int) -> None:
    def unmount() -> None:
        if phase == "baking":
            town.store.unmounted = True
        else:  # between the look and the write that follows from it
            town.store.before_the_next_write = lambda: setattr(town.store, "unmounted", True)

    town.until(phase, unmount, step=step, then=0)

    with pytest.raises(
        StorageError, match=r"the state of digits is gone from the registry: expected revision"
    ) as caught:
        town.begin(store=60)
    assert "slipway rollout digits --resume" in (caught.value.hint or "")


def test_a_transition_whose_answer_was_lost_is_made_once(town: Town) -> None:
    town.until("starting", lambda: setattr(town.store, "unheard", 30))

    assert town.begin().outcome == "promoted"
    assert town.actions.count("shift") == 3
    assert town.actions.count("finish") == 1


@pytest.mark.parametrize("phase", ["starting", "shifting", "promoting", "leaving"])
def test_a_store_that_goes_with_a_write_has_made_the_transition_once(town: Town, phase: str) -> None:
    def go() -> None:
        town.store.goes_with_the_next_write = True
        town.fleet.after(30, lambda: setattr(town.store, "away", False))

    town.until(phase, go, step=0 if phase in ("starting", "shifting") else 2)

    assert town.begin().outcome == "promoted"
    assert [town.actions.count(action) for action in ("shift", "accept", "withdraw", "finish")] == [3, 1, 1, 1]
