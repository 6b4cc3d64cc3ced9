"""What becomes of a packaging when Prefect cannot take its artifacts."""

from __future__ import annotations

import logging

import pytest

import flows.artifacts
from flows.package_report import PackageReport, StageTime
from model_registry.servable import Check


def test_an_outcome_stands_when_prefect_takes_no_artifacts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: object) -> None:
        raise ConnectionError("the server is away")

    monkeypatch.setattr(logging.getLogger("slipway"), "propagate", True)  # Prefect's own set-up turns it off
    monkeypatch.setattr(flows.artifacts, "create_table_artifact", away)
    check = Check("signatures", "native", 1, 1, True)
    report = PackageReport("digits", 3, "blessed", False, "registry", {}, (check,), (StageTime("load", 1.0),), 2.0)

    with caplog.at_level(logging.WARNING, "slipway"):
        assert flows.artifacts.leave_artifacts(report) is report

    assert "ConnectionError: the server is away" in caplog.text
