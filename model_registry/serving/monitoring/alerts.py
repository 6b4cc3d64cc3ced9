"""The file of rules that Prometheus reads: what it computes ahead, and when somebody should look. Pure.

Each alert has a heading of its own name in docs/monitoring.md.
"""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import LiteralScalarString

from model_registry.serving.monitoring import fleet_alerts, request_alerts
from model_registry.serving.monitoring.alert import Alert, Thresholds
from model_registry.serving.monitoring.recording_rules import Recording, recordings

RUNBOOKS = "docs/monitoring.md"

_HEAD = """\
# What Prometheus computes of TensorFlow Serving's, Envoy's and Slipway's metrics, and when it calls somebody.
#
#   promtool check rules slipway-rules.yaml
#
# Written by `slipway render alerts`, whose options are the thresholds. Name it under `rule_files`.
"""


def alerts(thresholds: Thresholds | None = None, *, gateway: bool = True) -> tuple[Alert, ...]:
    """All of them.

    Args:
        thresholds: From where on something is wrong; the defaults where None.
        gateway: Whether there are gateways. Without them nothing is told of versions, nor missed of Envoys.
    """
    limits = thresholds or Thresholds()
    found = [*request_alerts.of_models(limits), *fleet_alerts.of_targets(limits, gateway=gateway)]
    found += fleet_alerts.of_agents(limits)
    if gateway:
        found += [*request_alerts.of_versions(limits), *fleet_alerts.of_gateways(limits)]
    return tuple(found)


def runbook(alert: Alert, runbooks: str = RUNBOOKS) -> str:
    """Where it is told what to do about an alert.

    Args:
        alert: Which.
        runbooks: Where docs/monitoring.md is; headings become anchors there as GitHub and MkDocs make them.
    """
    return f"{runbooks}#{alert.name.lower()}"


def to_text(thresholds: Thresholds | None = None, *, gateway: bool = True, runbooks: str = RUNBOOKS) -> str:
    """The file's content.

    Args:
        thresholds: From where on something is wrong; the defaults where None.
        gateway: Whether there are gateways.
        runbooks: What the alerts link to.
    """
    groups = [
        {"name": "slipway-recordings", "rules": [_recorded(one) for one in recordings(gateway=gateway)]},
        {"name": "slipway-alerts", "rules": [_watched(one, runbooks) for one in alerts(thresholds, gateway=gateway)]},
    ]
    yaml = YAML()
    yaml.width = 4096  # a description is one line: folded, it would hide from whoever searches for it
    yaml.indent(mapping=2, sequence=4, offset=2)
    written = io.StringIO()
    yaml.dump({"groups": groups}, written)
    return _HEAD + written.getvalue()


def _recorded(recording: Recording) -> CommentedMap:
    rule = CommentedMap(record=recording.name, expr=_promql(recording.expression))
    rule.yaml_set_comment_before_after_key("expr", before=recording.says, indent=8)
    return rule


def _watched(alert: Alert, runbooks: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": _promql(alert.expression),
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": f"{alert.means} {alert.do}",
            "runbook_url": runbook(alert, runbooks),
        },
    }


def _promql(expression: str) -> str:
    return LiteralScalarString(expression + "\n") if "\n" in expression else expression
