"""What a sync agent tells of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_registry.errors import FormatError
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport
from tests.support.watched_agents import REPORT


def test_a_report_survives_its_document() -> None:
    assert AgentReport.from_json(REPORT.to_json(), url="http://a/status") == REPORT


def test_a_report_of_an_agent_that_does_not_tell_what_it_follows_is_read() -> None:
    document = REPORT.to_json().replace(b'"follows_models"', b'"x"').replace(b'"follows_labels"', b'"y"')

    assert AgentReport.from_json(document, url="u").follows_models == ()


def test_a_report_of_a_newer_release_is_refused() -> None:
    document = REPORT.to_json().replace(b'"schema_version": 1', b'"schema_version": 2')

    with pytest.raises(FormatError, match="has schema version 2"):
        AgentReport.from_json(document, url="http://a/status")


def test_the_obstacles_of_a_settled_agent_are_none() -> None:
    settled = replace(REPORT, models={"digits": ModelReport(1, {"stable": 2}, {"stable": 2})})

    assert (settled.settled, settled.obstacles()) == (True, ())


def test_everything_that_stands_in_the_way_is_told() -> None:
    broken = replace(
        REPORT,
        server_reachable=False,
        registry_problem="403",
        disk_problem="full",
        models={**REPORT.models, "new": ModelReport(problem="no state", disk_problem="busy", wanted={"stable": 1})},
    )

    assert broken.obstacles() == (
        "the registry cannot be read: 403",
        "the directory cannot be kept up: full",
        "the server at http://127.0.0.1:8501 does not answer",
        "digits@canary answers with 3, wanted is 4",
        "digits:4 failed: Op type not registered",
        "new: no state",
        "new: busy",
        "new@stable answers with nothing, wanted is 1",
    )
    assert not broken.settled


def test_other_bytes_than_the_registrys_are_not_what_it_wants() -> None:
    there = ModelReport(
        1, {"stable": 2}, {"stable": 2}, (VersionReport(2, "AVAILABLE", why="is another", differs=True),)
    )
    report = replace(REPORT, models={"digits": there})

    assert not report.settled
    assert report.obstacles() == ("digits:2 is another",)


def test_what_was_not_read_yet_is_told() -> None:
    assert replace(REPORT, registry_age=None, models={}).obstacles() == ("the registry has not been read yet",)
