"""When an agent says that its server is fit for requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_registry.serving.sync.published_report import is_ready
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport, VersionState

THERE = ModelReport(1, {"stable": 1}, {"stable": 1}, (VersionReport(1, "AVAILABLE"),))
ABSENT = ModelReport(1, {"stable": 1}, {})


def report(**models: ModelReport) -> AgentReport:
    return AgentReport("a", "/r", "/srv", "http://127.0.0.1:8501", (), (), True, 1.0, models=models)


def failing(state: VersionState) -> ModelReport:
    return replace(ABSENT, versions=(VersionReport(1, state),))


def test_a_server_is_ready_with_all_that_it_answered_under_before() -> None:
    before = {"digits": ["stable"]}

    assert is_ready(report(digits=THERE), before, first=False)
    assert is_ready(report(digits=THERE, faces=ABSENT), before, first=False)
    assert is_ready(report(digits=replace(THERE, wanted={"stable": 2, "canary": 3})), before, first=False)
    assert not is_ready(report(digits=ABSENT, faces=THERE), before, first=False)
    assert not is_ready(replace(report(digits=THERE), server_reachable=False), before, first=False)


@pytest.mark.parametrize("first", [True, False])
def test_a_server_that_answers_under_no_label_is_not_ready(first: bool) -> None:
    assert not is_ready(report(), {}, first=first)
    assert not is_ready(report(digits=failing("FAILED")), {}, first=first)


def test_the_very_first_time_all_that_is_wanted_is_waited_for_but_what_fails() -> None:
    for state in ("WAITING", "DOWNLOADING", "LOADING"):
        assert not is_ready(report(digits=THERE, faces=failing(state)), {}, first=True)
    assert is_ready(report(digits=THERE, faces=failing("FAILED")), {}, first=True)
    assert not is_ready(replace(report(digits=THERE), registry_age=None), {}, first=True)
