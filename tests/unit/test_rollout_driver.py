"""A rollout led from its beginning to its end, against a real registry in memory and a fleet in its own time."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from flows.rollout_printing import failure
from model_registry.errors import (
    InvalidInputError,
    RejectedError,
    SlipwayError,
    StorageError,
)
from model_registry.rollout.observation import CheckResult
from model_registry.rollout.reached import Reached, all_gateways
from tests.support.rollout_town import ANN, BOB, PLAN, Town
from tests.support.simulated_fleet import Version


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def test_a_candidate_that_is_not_worse_is_promoted_step_by_step(town: Town) -> None:
    report = town.begin()

    assert (report.outcome, report.weight, report.phase, report.by) == ("promoted", 0, None, "")
    assert town.labels == {"stable": 2}
    step = ["shift", "bake"]
    assert town.actions == ["promote", "begin", *step * 3, "accept", "withdraw", "finish"]
    assert {look.weight for look in report.looks} == {5, 25, 100}
    assert report.evidence == report.looks[-1].evidence
    assert {each.verdict for each in report.evidence} == {"not worse"}


def test_the_transitions_bear_what_they_rest_on(town: Town) -> None:
    town.begin()

    history = town.registry.history("digits")
    judged = [record for record in history if record.origin.evidence]
    assert [record.transition.action for record in reversed(judged)] == ["shift", "shift", "accept"]
    assert all("not worse" in record.origin.why for record in judged)
    assert [record.revision for record in town.told] == sorted(record.revision for record in history[:-1])


def test_each_step_is_judged_for_its_full_time(town: Town) -> None:
    report = town.begin()

    for weight in (5, 25, 100):
        times = [look.time for look in report.looks if look.weight == weight]
        assert times[-1] - times[0] + 6 * 1.5 >= 60
        assert len(times) <= (20 if weight == 5 else 12)


def test_a_candidate_that_only_fails_does_so_for_minutes_however_long_the_bake(town: Town) -> None:
    town.fleet.versions[2] = Version(errors=1.0)
    began = town.fleet.clock()

    report = town.begin(plan=replace(PLAN, bake=24 * 3600.0))

    assert report.outcome == "worse"
    assert report.looks[-1].time - began < 120


@pytest.mark.parametrize("version", [Version(errors=0.05), Version(times=2.0)], ids=["errors", "slow"])
def test_a_candidate_that_is_worse_is_withdrawn(town: Town, version: Version) -> None:
    town.fleet.versions[2] = version

    report = town.begin()

    assert report.outcome == "worse"
    assert town.labels == {"stable": 1}
    assert [each.metric for each in report.evidence if each.verdict == "worse"]
    assert report.why.startswith("worse: ")
    withdraw = town.registry.history("digits", 2)[1]
    assert withdraw.transition.action == "withdraw"
    assert withdraw.origin.evidence == report.evidence


def test_a_canary_that_named_something_before_names_it_again_when_the_candidate_is_worse(town: Town) -> None:
    town.registry.promote("digits", 3, "canary", origin=ANN)
    town.fleet.versions[2] = Version(errors=0.2)

    town.begin()

    assert town.labels == {"stable": 1, "canary": 3}


def test_a_candidate_that_servers_cannot_load_is_withdrawn_with_their_words(town: Town) -> None:
    town.fleet.versions[2] = Version(loads=False)

    report = town.begin()

    assert (report.outcome, report.why, report.evidence) == ("worse", "server-1 gave it up: broken", ())
    assert town.actions == ["promote", "begin", "withdraw", "finish"]


def test_a_candidate_that_gets_worse_at_the_last_step_is_held_against_the_step_before(town: Town) -> None:
    town.until("baking", lambda: town.fleet.versions.update({2: Version(errors=0.1)}), step=2)

    report = town.begin()

    assert report.outcome == "worse"
    assert report.looks[-1].weight == 100
    assert all(each.stable_samples for each in report.evidence)


def test_a_rollout_of_one_step_is_held_against_the_time_before_it(town: Town) -> None:
    town.fleet.sleep(120)

    report = town.begin(plan=replace(PLAN, steps=(100,)))

    assert report.outcome == "promoted"
    assert all(each.stable_samples for each in report.evidence)


def test_a_rollout_that_stops_short_of_all_requests_promotes_from_there(town: Town) -> None:
    assert town.begin(plan=replace(PLAN, steps=(50,))).outcome == "promoted"


# Waiting in vain


def test_servers_that_do_not_follow_pause_it(town: Town) -> None:
    town.fleet.servers_stuck = True

    report = town.begin(timeout=120)

    assert (report.outcome, report.phase, report.weight) == ("paused", "starting", 0)
    assert "server-1 has None" in report.paused
    assert "120 s" in report.paused


def test_a_gateway_that_does_not_follow_pauses_it(town: Town) -> None:
    town.fleet.gateway_stuck = True

    report = town.begin(timeout=120)

    assert (report.outcome, report.phase, report.weight) == ("paused", "shifting", 5)
    assert "gateway-1 has 0 %" in report.paused


def test_servers_of_stable_that_give_up_pause_it_with_the_requests_where_they_are(town: Town) -> None:
    town.until("baking", lambda: town.fleet.versions.update({2: Version(loads=False)}), step=2)

    report = town.begin()

    assert (report.outcome, report.phase, report.weight) == ("paused", "promoting", 100)
    assert "gave it up" in report.paused
    assert town.labels == {"stable": 2, "canary": 2}


def test_a_gateway_that_still_sends_requests_keeps_canary_until_somebody_goes_on(town: Town) -> None:
    town.fleet.versions[2] = Version(errors=0.1)

    def stick() -> None:
        town.fleet.gateway_stuck = True

    town.until("baking", stick)
    report = town.begin(timeout=60)

    error = failure(report)
    assert isinstance(error, RejectedError) and error.exit_code == 3
    assert "digits@canary still keeps digits:2" in error.message and "gateway-1 has 5 %" in error.message
    assert "slipway rollout digits --resume" in (error.hint or "")
    assert [check.check for check in error.blessing.checks if not check.passed] == ["error_rate"]
    state = town.registry.state("digits")
    assert state.labels == {"stable": 1, "canary": 2}
    assert state.traffic and (state.traffic.phase, state.traffic.outcome) == ("leaving", "worse")
    town.fleet.gateway_stuck = False
    report = town.driver().resume()
    assert report.outcome == "worse"
    assert report.why.startswith("worse: error rate")
    assert town.labels == {"stable": 1}


# No data, or too few


def test_prometheus_that_goes_away_pauses_it_and_it_goes_on_by_itself_when_it_is_back(town: Town) -> None:
    town.until("baking", lambda: setattr(town.fleet, "away", True), step=1)
    town.until("baking", lambda: town.fleet.after(60, lambda: setattr(town.fleet, "away", False)), step=1)

    report = town.begin()

    assert report.outcome == "promoted"
    paused = [record for record in town.registry.history("digits") if record.transition.action == "pause"]
    assert len(paused) == 1
    assert "Prometheus does not answer" in paused[0].origin.why
    assert "resume" in town.actions


def test_targets_that_are_scraped_no_more_pause_it_and_it_ends_when_its_patience_does(town: Town) -> None:
    def stop() -> None:
        town.fleet.scraped_until = town.fleet.time

    town.until("baking", stop, step=1)

    report = town.begin(data=100)

    assert (report.outcome, report.phase, report.weight, report.by) == ("paused", "baking", 25, "")
    assert "no new samples of the requests to canary and stable" in report.paused
    state = town.registry.state("digits")
    assert state.traffic and state.traffic.paused == report.paused
    town.fleet.scraped_until = None
    report = town.driver(BOB).resume()
    assert report.outcome == "promoted"
    assert next(look.weight for look in report.looks if look.bake == 2) == 25


def test_a_long_bake_without_data_is_paused_after_minutes(town: Town) -> None:
    town.until("baking", lambda: setattr(town.fleet, "scraped_until", town.fleet.time), then=60)
    began = town.fleet.time

    report = town.begin(plan=replace(PLAN, bake=86_400.0), data=1)

    assert report.outcome == "paused"
    assert town.fleet.time - began < 600


def test_a_short_absence_of_prometheus_at_a_look_of_a_long_bake_pauses_nothing(town: Town) -> None:
    def restart() -> None:
        town.fleet.away = True
        town.fleet.after(16, lambda: setattr(town.fleet, "away", False))

    town.until("baking", restart, then=9 * 360 - 3)

    assert town.begin(plan=replace(PLAN, bake=3600.0)).outcome == "promoted"
    assert "pause" not in town.actions


@pytest.mark.parametrize("asked", ["weights_in_force", "window"])
def test_a_question_that_prometheus_refuses_is_one_without_an_answer(
    town: Town, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Reached:
        raise InvalidInputError("expanding series: the store is gone")

    town.until("baking", lambda: monkeypatch.setattr(town.fleet, asked, refuse), then=5)

    report = town.begin(timeout=60, data=60)

    assert report.outcome == "paused"
    assert "the store is gone" in report.paused


def test_no_data_at_all_pauses_it(town: Town) -> None:
    town.fleet.scraped_until = town.fleet.time

    report = town.begin(data=10)

    assert (report.outcome, report.looks) == ("paused", ())
    assert "no samples of the requests to canary and stable" in report.paused


def test_too_few_requests_pause_it_after_twice_its_time(town: Town) -> None:
    town.fleet.rate = 2

    report = town.begin()

    assert report.outcome == "paused"
    assert "not enough samples after 12" in report.paused
    assert "more requests to the canary would tell" in report.paused
    assert report.evidence and "not worse" not in {report.looks[-1].verdict}


def test_time_in_which_models_were_loading_does_not_count(town: Town) -> None:
    def load() -> None:
        town.fleet.loading = town.fleet.time, town.fleet.time + 40

    town.fleet.rate = 1000
    town.until("baking", load)

    report = town.begin()

    assert report.outcome == "promoted"
    since = next(change.since for change in town.changes if change.since)
    assert 100 <= [look.time for look in report.looks if look.weight == 5][-1] - since < 110


def test_a_bake_in_which_models_were_loading_for_most_of_the_time_is_paused(town: Town) -> None:
    def load() -> None:
        town.fleet.loading = town.fleet.time, town.fleet.time + 1000

    town.until("baking", load)

    report = town.begin()

    assert report.outcome == "paused"
    assert "expected 60 s with samples and no model being loaded, found" in report.paused


# Checks of the operator's own


def test_a_check_that_fails_withdraws_the_candidate(town: Town) -> None:
    town.until("baking", lambda: setattr(town.fleet, "check_result", CheckResult(False, "it is 0", 0.0)), step=1)

    report = town.begin(plan=replace(PLAN, checks=("up == bool 1",)))

    assert report.outcome == "worse"
    assert "check up == bool 1: it is 0" in report.why
    assert report.evidence[-1].metric == "up == bool 1"
    assert town.fleet.asked[-1][1].items() >= {"model": "digits", "version": "2", "baseline": "1"}.items()


def test_a_check_without_an_answer_passes_nothing(town: Town) -> None:
    town.fleet.check_result = CheckResult(None, "no sample", None)

    report = town.begin(plan=replace(PLAN, checks=("absent",)))

    assert (report.outcome, report.weight) == ("paused", 5)
    assert "check absent: no sample" in report.paused


def test_a_check_that_is_no_promql_begins_nothing(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> CheckResult:
        raise InvalidInputError("parse error")

    monkeypatch.setattr(town.fleet, "check", refuse)

    with pytest.raises(InvalidInputError, match="parse error"):
        town.begin(plan=replace(PLAN, checks=("sum(",)))
    assert town.actions == ["promote"]


def test_checks_that_cannot_be_asked_do_not_hide_a_candidate_that_fails(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> CheckResult:
        raise InvalidInputError("many-to-many matching not allowed")

    town.fleet.versions[2] = Version(errors=1.0)
    town.until("baking", lambda: monkeypatch.setattr(town.fleet, "check", refuse), then=0)
    town.fleet.after(3600, lambda: pytest.fail("it never ends"))

    report = town.begin(plan=replace(PLAN, checks=("a / b",)))

    assert report.outcome == "worse"
    assert [(each.metric, each.verdict) for each in report.evidence][-1] == ("a / b", "undecided")
    assert "many-to-many" in report.why


def test_checks_that_cannot_be_asked_pass_nothing_and_nobody_goes_on_by_themselves(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> CheckResult:
        raise InvalidInputError("many-to-many matching not allowed")

    town.until("baking", lambda: monkeypatch.setattr(town.fleet, "check", refuse), then=0)
    town.fleet.after(3600, lambda: pytest.fail("it never ends"))

    report = town.begin(plan=replace(PLAN, checks=("a / b",)))

    assert (report.outcome, report.weight) == ("paused", 5)
    assert "check a / b: many-to-many" in report.paused
    assert "resume" not in town.actions


def no_gateway(weight: int, revision: int) -> Reached:
    return all_gateways({}, weight=weight, revision=revision)


def test_nothing_begins_where_no_gateway_tells_a_weight(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(town.fleet, "weights_in_force", no_gateway)

    with pytest.raises(SlipwayError, match="Prometheus knows no gateway") as caught:
        town.begin()

    assert "slipway-gateway" in (caught.value.hint or "")
    assert town.actions == ["promote"]


def test_a_rollout_whose_gateways_are_gone_is_ended_by_whoever_vouches_for_them(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.until("baking", lambda: monkeypatch.setattr(town.fleet, "weights_in_force", no_gateway))
    town.begin(timeout=30)
    with pytest.raises(SlipwayError, match="knows no gateway") as caught:
        town.driver(timeout=30).abort()
    assert "slipway rollout digits --abort --unseen" in (caught.value.hint or "")

    report = town.driver(BOB).abort(unseen=True)

    assert report.outcome == "aborted"
    assert town.labels == {"stable": 1}
    finish = town.registry.history("digits", 1)[0]
    assert finish.transition.action == "finish"
    assert "bob@laptop vouches" in finish.origin.why and finish.origin.why.endswith(": lunch")


def test_nothing_begins_without_prometheus(town: Town) -> None:
    town.fleet.away = True

    with pytest.raises(StorageError, match="does not answer"):
        town.begin()
    assert town.actions == ["promote"]


# What is said


def test_what_is_waited_for_is_said_once(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    town.fleet.gateway_stuck = True
    with caplog.at_level(logging.INFO, logger="slipway"):
        town.begin(timeout=60)

    said = [message for message in caplog.messages if "gateway-1 has 0 %" in message]
    assert said == ["digits:2  shifting: gateway-1 has 0 % at revision 0"]


def test_each_look_is_a_line(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="slipway"):
        report = town.begin()

    lines = [message for message in caplog.messages if ", look " in message]
    assert len(lines) == len(report.looks)
    assert lines[0].startswith("digits:2  5 %, look 1 of 10: ")
    assert lines[-1].endswith(": not worse")


def test_a_rehearsal_changes_nothing(town: Town) -> None:
    record = town.driver().rehearse(2, PLAN)

    assert record.transition.action == "begin"
    assert town.actions == ["promote"]
