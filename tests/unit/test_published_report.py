"""When an agent says that its server is fit for requests, and what it counts of one report after another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_registry.serving.sync.published_report import PublishedReport, is_ready
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport, VersionState

THERE = ModelReport(1, {"stable": 1}, {"stable": 1}, (VersionReport(1, "AVAILABLE"),))
ABSENT = ModelReport(1, {"stable": 1}, {})


def report(**models: ModelReport) -> AgentReport:
    return AgentReport(
        "a", "/r", "/srv", "http://127.0.0.1:8501", server_reachable=True, registry_age=1.0, models=models
    )


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


FAILED = ModelReport(2, {"stable": 2}, {"stable": 1}, (VersionReport(2, "FAILED", why="no memory", gave_up=True),))
LOADING = replace(FAILED, versions=(VersionReport(2, "LOADING"),))


def test_what_is_published_says_whether_the_server_is_ready_once_it_was_looked_at() -> None:
    published = PublishedReport(report(), SyncMetrics(), first=False)
    seen = [published.report.ready]
    for look in (THERE, ABSENT, THERE):
        published.publish(report(digits=look), {"digits": ["stable"]})
        seen.append(published.report.ready)

    assert seen == [None, True, False, True]


def failed_loads(*looks: ModelReport) -> float | None:
    """What the agent has counted after reports of these, from its start on."""
    metrics = SyncMetrics()
    published = PublishedReport(report(), metrics, first=False)
    for look in looks:
        published.publish(report(digits=look), {})
    lines = metrics.render(published.report).decode().splitlines()
    found = [line for line in lines if line.startswith("slipway_sync_failures_total{") and 'kind="load"' in line]
    assert all('model="digits"' in line for line in found)
    return sum(float(line.split()[-1]) for line in found)


def test_a_load_that_fails_is_counted_once_and_once_more_when_it_fails_again() -> None:
    assert failed_loads(LOADING) == 0
    assert failed_loads(LOADING, FAILED, FAILED) == 1
    assert failed_loads(LOADING, FAILED, LOADING, FAILED) == 2


def test_a_failure_that_an_agent_remembers_from_before_its_start_is_no_new_one() -> None:
    assert failed_loads(FAILED, FAILED) == 0
    assert failed_loads(ABSENT, FAILED) == 0, "the registry was not read at the first look"
    assert failed_loads(FAILED, LOADING, FAILED) == 1, "it was tried again"
