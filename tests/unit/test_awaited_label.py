"""Where a server stands on its way to what a label was moved to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from model_registry.serving.sync.awaited_label import AwaitedLabel, follows, given_up, standing
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport

AWAITED = AwaitedLabel("digits", "stable", 3, revision=7)
MOVING = ModelReport(revision=7, wanted={"stable": 3}, serving={"stable": 2})
THERE = ModelReport(revision=7, wanted={"stable": 3}, serving={"stable": 3})


def report(model: ModelReport | None, **changes: Any) -> AgentReport:
    models = {} if model is None else {"digits": model}
    there = AgentReport("agent-1", "/r", "/srv", "http://127.0.0.1:8501", server_reachable=True, models=models)
    return replace(there, **changes)


def having(*versions: VersionReport, **changes: Any) -> ModelReport:
    return replace(MOVING, versions=versions, **changes)


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (report(None), "waiting", "has not read revision 7 of the registry yet"),
        (report(replace(THERE, revision=6)), "waiting", "has not read revision 7 of the registry yet"),
        (report(None, registry_problem="timed out"), "waiting", "cannot read the registry: timed out"),
        (report(ModelReport(problem="no state")), "waiting", "cannot read the registry: no state"),
        (report(THERE), "serving", "answers stable with digits:3"),
        (report(replace(THERE, revision=9)), "serving", "answers stable with digits:3"),
        (report(THERE, server_reachable=False), "waiting", "its server at http://127.0.0.1:8501 does not answer"),
        (report(replace(THERE, wanted={"stable": 4})), "moved", "is told that digits@stable names digits:4"),
        (report(replace(THERE, wanted={})), "moved", "is told that digits@stable names nothing"),
        (report(MOVING), "waiting", "digits:3 WAITING"),
        (report(MOVING, disk_problem="full"), "waiting", "cannot keep up /srv: full"),
        (report(THERE, disk_problem="full"), "serving", "answers stable with digits:3"),
        (
            report(replace(THERE, versions=(VersionReport(3, "AVAILABLE", why="is another", differs=True),))),
            "failed",
            "digits:3 is another",
        ),
        (report(having(VersionReport(3, "DOWNLOADING"))), "waiting", "digits:3 DOWNLOADING"),
        (report(having(VersionReport(3, "WAITING", why="disk full"))), "waiting", "digits:3 WAITING: disk full"),
        (
            report(having(VersionReport(3, "AVAILABLE"))),
            "waiting",
            "digits:3 AVAILABLE, stable still answers with digits:2",
        ),
        (report(having(VersionReport(3, "AVAILABLE"), serving={})), "waiting", "digits:3 AVAILABLE, stable follows"),
        (
            report(having(VersionReport(3, "FAILED", why="bad bytes"))),
            "waiting",
            "digits:3 FAILED, and is tried again: bad bytes",
        ),
        (
            report(having(VersionReport(3, "FAILED", why="no op", gave_up=True))),
            "failed",
            "digits:3 FAILED: no op",
        ),
        (
            report(having(VersionReport(3, "FAILED", why="it went away", gave_up=True)), server_reachable=False),
            "failed",
            "digits:3 FAILED: it went away",
        ),
        (report(having(VersionReport(2, "FAILED", why="no op", gave_up=True))), "waiting", "digits:3 WAITING"),
    ],
)
def test_a_report_tells_where_the_server_stands(seen: AgentReport, state: str, words: str) -> None:
    found = standing(seen, AWAITED)

    assert (found.state, found.words) == (state, words)


def test_a_load_is_given_up_as_long_as_a_label_names_the_version() -> None:
    failed = VersionReport(3, "FAILED", why="no op", gave_up=True)

    assert given_up(report(having(failed)), "digits", 3) == failed
    assert given_up(report(having(failed, wanted={"stable": 2})), "digits", 3) is None
    assert given_up(report(having(replace(failed, gave_up=False))), "digits", 3) is None
    assert given_up(report(None), "digits", 3) is None


@pytest.mark.parametrize(
    ("models", "labels", "expected"),
    [
        ((), (), True),
        (("digits",), ("canary", "stable"), True),
        (("faces",), (), False),
        ((), ("canary",), False),
    ],
)
def test_an_agent_follows_what_it_names_or_everything(
    models: tuple[str, ...], labels: tuple[str, ...], expected: bool
) -> None:
    assert follows(report(None, follows_models=models, follows_labels=labels), "digits", "stable") is expected
