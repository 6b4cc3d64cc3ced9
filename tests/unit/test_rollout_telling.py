"""What people read of a rollout: options, sentences, history, and how it ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from flows.changes import change_document, change_sentence
from flows.cli_rollout import rollout
from flows.label_events import LabelEvent
from flows.printing import print_history
from flows.rollout_options import PROMETHEUS, duration, pairs, percents, plan_of, watched
from flows.rollout_printing import failure, print_rollout
from flows.rollout_sentences import in_time, rollout_under_way
from model_registry import rollout_transitions as rollouts
from model_registry import transitions
from model_registry.errors import ConflictError, NotFoundError, RejectedError, SlipwayError
from model_registry.evidence import Evidence
from model_registry.rollout.recollection import standing
from model_registry.rollout.report import RolloutReport, in_short
from model_registry.state import Origin, Record, State, Transition
from model_registry.traffic import Margins, Plan

WORSE = Evidence("error_rate", 0.051, 0.001, 0.031, 0.002, 0.01, 812, 15_300, "worse")
FINE = Evidence("p99", 21.0, 20.0, 24.0, 19.0, 0.5, 812, 15_300, "not worse")
CHECK = Evidence("up", 0.0, None, None, None, 0.0, 812, 15_300, "worse")
REPORT = RolloutReport("digits", 3, 1, "worse", "worse: error rate", "", 0, None, "", 9, (), (WORSE, FINE, CHECK))


class Told:
    """A model's state with all that led to it."""

    def __init__(self) -> None:
        self.state = State()
        self.history: list[Record] = []

    def make(self, transition: Transition | None, why: str = "", evidence: tuple[Evidence, ...] = ()) -> str:
        """Makes a transition; the sentence for it."""
        assert transition is not None
        revision = self.state.revision + 1
        origin = Origin("ann@build-7", why, None, evidence)
        record = Record(revision, transition, origin, "2030-01-01T00:00:00+00:00", f"w{revision}")
        self.state = transitions.apply(self.state, record, model="digits")
        self.history.insert(0, record)
        return change_sentence(change_document("/registry", "digits", record))

    @property
    def traffic(self) -> Any:
        return self.state.traffic


@pytest.fixture
def told() -> Told:
    told = Told()
    told.make(transitions.promote(told.state, "digits", 1, "stable"))
    told.make(transitions.promote(told.state, "digits", 2, "canary"))
    return told


def begin(told: Told) -> str:
    return told.make(rollouts.begin(told.state, "digits", 3, plan=Plan(steps=(5, 25), bake=600)), "faster")


def test_a_rollout_is_told_in_sentences(told: Told) -> None:
    assert begin(told) == "rollout of digits:3 begins: 5, 25 % of the requests, 10m each (revision 3)"
    assert told.make(rollouts.shift(told.traffic, 0)) == "digits: 5 % of the requests to digits:3 (revision 4)"
    sentence = told.make(rollouts.bake(told.traffic, since=10.0))
    assert sentence == "digits: 5 % of the requests to digits:3 in force, judged from now on (revision 5)"
    assert rollout_under_way("digits", told.traffic) == (
        "rollout of digits:3 under way: baking with 5 % of the requests (step 1 of 2)"
    )
    sentence = told.make(rollouts.pause(told.state, "digits", "no data"))
    assert sentence == "rollout of digits:3 paused with 5 % of the requests: no data (revision 6)"
    assert rollout_under_way("digits", told.traffic).endswith("(step 1 of 2), paused: no data")
    sentence = told.make(rollouts.resume(told.state, "digits"))
    assert sentence == "rollout of digits:3 taken up, shifting with 5 % of the requests (revision 7)"
    told.make(rollouts.bake(told.traffic, since=20.0))
    told.make(rollouts.shift(told.traffic, 1))
    told.make(rollouts.bake(told.traffic, since=30.0))
    sentence = told.make(rollouts.accept(told.traffic), "not worse", (FINE,))
    assert sentence == "digits@stable: digits:1 -> digits:3, found not worse (revision 11)"
    sentence = told.make(rollouts.withdraw(told.traffic, "promoted"))
    assert sentence == "rollout of digits:3: stable has it, no more requests to canary (revision 12)"
    sentence = told.make(rollouts.finish(told.traffic))
    assert sentence == "rollout of digits:3 is over, digits@canary names nothing (revision 13)"


def test_a_worse_candidate_is_told_with_the_numbers(told: Told) -> None:
    begin(told)
    told.make(rollouts.shift(told.traffic, 0))
    told.make(rollouts.bake(told.traffic, since=10.0))

    sentence = told.make(rollouts.withdraw(told.traffic, "worse"), "worse: long", (WORSE, FINE, CHECK))

    assert sentence == (
        "rollout of digits:3 withdrawn: error rate 5.1 % of 812 requests against 0.1 % of 15,300; check up: 0 "
        "(revision 6)"
    )
    assert told.make(rollouts.finish(told.traffic)).startswith(
        "rollout of digits:3 is over, digits@canary names digits:2"
    )


def test_an_abort_is_told_with_its_reason(told: Told) -> None:
    begin(told)

    sentence = told.make(rollouts.abort(told.state, "digits"), "a bad feeling")

    assert sentence == "rollout of digits:3 aborted: a bad feeling (revision 4)"


def test_a_rehearsal_is_told_as_such(told: Told) -> None:
    transition = rollouts.begin(told.state, "digits", 3, plan=Plan())
    record = Record(3, transition, Origin("ann@build-7"), "2030", "")

    change = change_document("/registry", "digits", record, dry_run=True)

    assert change_sentence(change) == "would roll out digits:3: 5, 25, 100 % of the requests, 10m each"
    assert (change["changed"], change["traffic"]["candidate"], change["evidence"]) == (False, 3, [])


def test_only_labels_that_move_are_events(told: Told) -> None:
    begin(told)
    told.make(rollouts.shift(told.traffic, 0))
    told.make(rollouts.abort(told.state, "digits"))
    told.make(rollouts.finish(told.traffic))

    events = [LabelEvent.of(change_document("/registry", "digits", record)) for record in reversed(told.history)]

    assert [(event.payload["action"], event.payload["to_version"]) for event in events if event] == [
        *(("promote", 1), ("promote", 2), ("begin", 3), ("finish", 2)),
    ]


def test_history_tells_rollouts_in_a_column(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    begin(told)
    told.make(rollouts.shift(told.traffic, 0))
    told.make(rollouts.pause(told.state, "digits", "lunch"), "lunch")
    told.make(rollouts.abort(told.state, "digits"))
    told.make(rollouts.finish(told.traffic))

    print_history(told.history)

    rows = capsys.readouterr().out.splitlines()
    for row, expected in zip(
        reversed(rows[2:7]),
        ["begin, canary: 2 -> 3", "shift 3 at 5 %", "pause 3 at 5 %", "withdraw 3, aborted", "finish, canary: 3 -> 2"],
        strict=True,
    ):
        assert expected in row


# How one stands, and ended


def test_how_a_rollout_stands_is_read_from_the_registry(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    begin(told)
    told.make(rollouts.shift(told.traffic, 0))
    told.make(rollouts.bake(told.traffic, since=10.0))
    told.make(rollouts.shift(told.traffic, 1), "not worse", (FINE,))

    report = standing("digits", told.state, told.history)
    print_rollout(report, told.state)

    assert (report.outcome, report.phase, report.weight, report.evidence) == (None, "shifting", 25, (FINE,))
    assert [(look.weight, look.bake, look.verdict) for look in report.looks] == [(5, 1, "not worse")]
    printed = capsys.readouterr().out
    for expected in ("digits:1 -> digits:3", "shifting, with 25 % of the requests to canary", "5, 25 % for 10m each"):
        assert expected in printed


def test_how_the_last_one_ended_is_read_from_history(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    begin(told)
    told.make(rollouts.shift(told.traffic, 0))
    told.make(rollouts.bake(told.traffic, since=10.0))
    told.make(rollouts.withdraw(told.traffic, "worse"), "worse: error rate", (WORSE,))
    told.make(rollouts.finish(told.traffic))
    told.make(transitions.promote(told.state, "digits", 2, "gpu"))

    report = standing("digits", told.state, told.history)
    print_rollout(report, told.state)

    assert (report.outcome, report.version, report.phase, report.why) == ("worse", 3, None, "worse: error rate")
    assert "at least 3.1 %, with 1.2 % allowed" in capsys.readouterr().out


def test_one_that_begins_while_it_is_asked_about_is_not_told_of_yet(told: Told) -> None:
    before = told.state
    begin(told)

    with pytest.raises(NotFoundError, match="no rollout of digits is under way"):
        standing("digits", before, told.history)


def test_what_ended_before_is_told_of_while_another_one_begins(told: Told) -> None:
    begin(told)
    told.make(rollouts.abort(told.state, "digits"), "a bad feeling")
    told.make(rollouts.finish(told.traffic))
    before = told.state
    begin(told)

    assert standing("digits", before, told.history).outcome == "aborted"


def test_a_model_that_never_had_one_has_none_to_tell_of(told: Told) -> None:
    with pytest.raises(NotFoundError, match="no rollout of digits is under way"):
        standing("digits", told.state, told.history)


def test_a_worse_candidate_is_a_rejection_with_its_numbers_as_checks() -> None:
    error = failure(REPORT)

    assert isinstance(error, RejectedError) and error.exit_code == 3
    assert [(check.check, check.passed) for check in error.blessing.checks] == [
        *(("error_rate", False), ("p99", True), ("up", False)),
    ]
    assert error.blessing.checks[0].measured == {"canary": 0.051, "stable": 0.001}


def test_a_candidate_that_was_never_measured_is_rejected_for_why_it_was_withdrawn() -> None:
    error = failure(replace(REPORT, evidence=(), why="server-1 gave it up"))

    assert isinstance(error, RejectedError)
    assert [(check.check, check.measured, check.passed) for check in error.blessing.checks] == [
        ("load", "server-1 gave it up", False)
    ]


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"outcome": "promoted"}, None, 0),
        ({"outcome": "aborted", "by": "bob@laptop"}, ConflictError, 4),
        ({"outcome": "paused", "by": "bob@laptop"}, ConflictError, 4),
        ({"outcome": "paused"}, SlipwayError, 1),
    ],
)
def test_each_end_has_its_exit_code(changes: dict[str, Any], kind: type[SlipwayError] | None, code: int) -> None:
    error = failure(replace(REPORT, **changes))

    assert (type(error) if error else None) is kind
    assert (error.exit_code if error else 0) == code


def test_a_look_is_a_line() -> None:
    assert in_short((WORSE, FINE, CHECK)) == (
        "812 / 15,300 requests, error rate 5.1 % / 0.1 %, p99 21 ms / 20 ms, check up failed: worse"
    )
    assert in_short((replace(FINE, canary=None),)).startswith("812 / 15,300 requests, p99 - / 20 ms")


# Options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0.5", 0.5), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("30d", 30 * 86_400)],
)
def test_times_are_typed_as_prometheus_writes_them(text: str, seconds: float) -> None:
    assert duration(None, None, text) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "0", "0s", "-5m", "10 m", "m", "10x", "31d", "1e3", "nan", "inf", "10m5", "٣m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a time up to 30d"):
        duration(None, None, text)  # type: ignore[arg-type]


def test_times_are_told_as_they_are_typed() -> None:
    assert [in_time(seconds) for seconds in (0.5, 90, 600, 3600, 5400, 7200)] == [
        "0.5s",
        "90s",
        "10m",
        "1h",
        "90m",
        "2h",
    ]


def test_steps_are_percents() -> None:
    assert percents(None, None, "5, 25,100") == (5, 25, 100)  # type: ignore[arg-type]
    for text in ("", "5;25", "5,,25", "-5", "5.5", "1000"):
        with pytest.raises(click.BadParameter, match="expected percents"):
            percents(None, None, text)  # type: ignore[arg-type]


def test_how_to_go_on_names_the_prometheus_that_was_asked() -> None:
    usual: dict[str, Any] = {"prometheus": PROMETHEUS, "http_config": None, "within": {}}
    hint = "to go on: slipway rollout digits --resume"

    assert watched(hint, usual) == hint
    other = {**usual, "prometheus": "http://prom:9090", "within": {"namespace": "my prod"}}
    told = watched(hint, other)
    assert told == f"{hint} --prometheus http://prom:9090 --within 'namespace=my prod'"
    assert watched(told, other) == told


def test_to_vouch_for_gateways_is_for_an_abort() -> None:
    outcome = CliRunner().invoke(rollout, ["digits", "--resume", "--unseen"])

    assert outcome.exit_code == 2
    assert "--unseen goes with --abort" in outcome.output


def test_margins_are_pairs() -> None:
    options: dict[str, Any] = {"checks": ("up",), "steps": None, "bake": None}
    margins = pairs(None, None, ("error_rate=0.02", "p50=0.1"))  # type: ignore[arg-type]

    assert plan_of({**options, "margins": margins}) == Plan(margins=Margins(0.02, 0.1, 0.5), checks=("up",))
    with pytest.raises(click.BadParameter, match="expected NAME=VALUE"):
        pairs(None, None, ("p50",))  # type: ignore[arg-type]
    for name, value in (("p95", "0.1"), ("p50", "-1"), ("p50", "a lot")):
        with pytest.raises(click.UsageError, match="expected error_rate, p50, p99 and a share"):
            plan_of({**options, "margins": {name: value}})
