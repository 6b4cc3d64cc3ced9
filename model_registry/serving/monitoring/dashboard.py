"""A Grafana dashboard of a fleet, as Grafana imports it. Pure.

Which Prometheus it asks, and of which models, is chosen at its top. Written for the schema of Grafana 10 and 11, which
later ones migrate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from model_registry.serving.monitoring.dashboard_panels import Panel, Row, rows
from model_registry.serving.monitoring.recording_rules import REQUESTS

UID = "slipway-serving"
TITLE = "Slipway: models in service"
SCHEMA = 39

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 24, 8


def to_text(*, gateway: bool = True) -> str:
    """The dashboard's JSON, as Grafana imports it.

    Args:
        gateway: Whether there are gateways.
    """
    document = {
        "uid": UID,
        "title": TITLE,
        "tags": ["slipway", "tensorflow-serving"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "panels": list(_placed(rows(gateway=gateway))),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0},
        {
            "name": "model",
            "label": "Model",
            "type": "query",
            "datasource": _SOURCE,
            # Those with labels, as agents tell, and those that are asked for.
            "query": {
                "query": f'label_values({{__name__=~"slipway_sync_revision|{REQUESTS}"}}, model)',
                "refId": "models",
            },
            "refresh": 2,  # whenever the time range is changed
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        },
    ]


def _placed(shown: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    number, down = 0, 0
    for row in shown:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": down},
        }
        down += 1
        across = 0
        for panel in row.panels:
            if across + panel.width > _WIDTH:
                across, down = 0, down + _HEIGHT
            number += 1
            place = {"h": _HEIGHT, "w": panel.width, "x": across, "y": down}
            yield {"id": number, "gridPos": place, **_drawn(panel)}
            across += panel.width
        down += _HEIGHT


def _drawn(panel: Panel) -> dict[str, Any]:
    table = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "editorMode": "code",
            "expr": query.expression,
            "legendFormat": query.legend,
            "instant": table,
            "range": not table,
            **({"format": "table"} if table else {}),
        }
        for index, query in enumerate(panel.queries)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        defaults["custom"] = {"lineInterpolation": "stepAfter" if panel.steps else "linear", "fillOpacity": 5}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }
