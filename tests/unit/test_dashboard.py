"""The dashboard's JSON: what Grafana needs to draw it."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from model_registry.serving.monitoring import dashboard
from model_registry.serving.monitoring.dashboard_panels import rows
from model_registry.serving.monitoring.recording_rules import recordings


def panels(*, gateway: bool = True) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard.to_text(gateway=gateway))["panels"]
    return found


def test_every_panel_has_a_number_and_a_place_of_its_own() -> None:
    numbers = [panel["id"] for panel in panels()]
    cells = [
        (across, down)
        for panel in panels()
        for place in [panel["gridPos"]]
        for across, down in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]

    assert len(numbers) == len({*numbers})
    assert len(cells) == len({*cells})
    assert all(across < 24 for across, _ in cells)


def test_every_query_asks_the_prometheus_that_was_chosen() -> None:
    document = json.loads(dashboard.to_text())

    for panel in panels():
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert [variable["name"] for variable in document["templating"]["list"]] == ["datasource", "model"]
    assert document["schemaVersion"] == 39


def test_a_panel_reads_what_is_recorded() -> None:
    read = {
        name
        for panel in panels()
        for target in panel.get("targets", ())
        for name in re.findall(r"(?:model|model_status|version):slipway_\w+:\w+", target["expr"])
    }

    assert read
    assert read <= {recording.name for recording in recordings()}


def test_queries_of_a_panel_are_told_apart() -> None:
    for panel in panels():
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(letters) == len({*letters})


@pytest.mark.parametrize("gateway", [True, False])
def test_what_is_asked_for_is_shown(gateway: bool) -> None:
    titles = {panel["title"] for panel in panels(gateway=gateway)}

    assert {
        "Requests",
        "Error rate",
        "Latency",
        "Versions that the fleet serves",
        "Lag",
        "Versions that failed",
    } <= titles
    assert ("Weight of the canary" in titles) == gateway
    assert titles == {row.title for row in rows(gateway=gateway)} | {
        panel.title for row in rows(gateway=gateway) for panel in row.panels
    }


def test_without_gateways_nothing_is_asked_of_them() -> None:
    text = dashboard.to_text(gateway=False)

    assert "slipway_gateway_" not in text
    assert "version:slipway" not in text
