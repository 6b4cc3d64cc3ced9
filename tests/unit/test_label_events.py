"""The event of a label that moved, as triggers see it."""

from __future__ import annotations

from typing import Any

import pytest

from flows.changes import change_document
from flows.label_events import LabelEvent
from model_registry.state import Origin, Record, Transition

ORIGIN = Origin("ann@build-7", "faster")


def change(transition: Transition, **options: Any) -> dict[str, Any]:
    return change_document("s3://b/registry", "digits", Record(8, transition, ORIGIN, "2030", "id"), **options)


def test_an_event_tells_what_moved() -> None:
    event = LabelEvent.of(change(Transition("promote", "gpu", from_version=2, to_version=3)))

    assert event is not None
    assert event.resource == {
        "prefect.resource.id": "slipway.model.digits",
        "prefect.resource.name": "digits",
        "slipway.model": "digits",
        "slipway.label": "gpu",
        "slipway.action": "promote",
        "slipway.version": "3",
    }
    assert event.payload == {
        "registry": "s3://b/registry",
        "model": "digits",
        "label": "gpu",
        "from_version": 2,
        "to_version": 3,
        "revision": 8,
        "action": "promote",
        "who": "ann@build-7",
        "reason": "faster",
    }


def test_a_label_that_was_taken_away_names_no_version() -> None:
    event = LabelEvent.of(change(Transition("unlabel", "gpu", from_version=3)))

    assert event is not None
    assert "slipway.version" not in event.resource
    assert (event.payload["from_version"], event.payload["to_version"]) == (3, None)


@pytest.mark.parametrize(
    "unmoved",
    [
        change(Transition("retire", versions=(1,))),
        change(Transition("promote", "gpu", to_version=3), dry_run=True),
        change_document("r", "digits", None, asked=Transition("promote", "gpu", from_version=3, to_version=3)),
    ],
    ids=["retired", "rehearsed", "already so"],
)
def test_what_moved_no_label_is_no_event(unmoved: dict[str, Any]) -> None:
    assert LabelEvent.of(unmoved) is None
