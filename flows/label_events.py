"""`slipway.label.moved`: the event by which other flows learn that a label names another version.

A flow run emits it always. The command line does where Prefect is installed and its API is configured, by
PREFECT_API_URL or a profile, and asks for no more than that. An event that cannot be emitted is warned of; the move
stands, and `slipway history` tells of it all the same.

The resource is `slipway.model.NAME`. Triggers match on its labels `slipway.model`, `slipway.label` and
`slipway.action`, and on `slipway.version`, which an event of a label that was taken away lacks. The payload has

    {"registry", "model", "label", "from_version", "to_version", "revision", "action", "who", "reason"}
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABEL_MOVED = "slipway.label.moved"

logger = logging.getLogger("slipway")


@dataclass(frozen=True)
class LabelEvent:
    """An event as Prefect takes it.

    Attributes:
        resource: The labels of what it is about.
        payload: What moved.
    """

    resource: dict[str, str]
    payload: dict[str, Any]

    @classmethod
    def of(cls, change: Mapping[str, Any]) -> LabelEvent | None:
        """The event of a change; None if it moved no label.

        Args:
            change: As flows.changes tells it.
        """
        if not change["changed"] or change["label"] is None:
            return None
        resource = {
            "prefect.resource.id": f"slipway.model.{change['model']}",
            "prefect.resource.name": change["model"],
            "slipway.model": change["model"],
            "slipway.label": change["label"],
            "slipway.action": change["action"],
        }
        if change["to"] is not None:
            resource["slipway.version"] = str(change["to"])
        payload = {
            "registry": change["registry"],
            "model": change["model"],
            "label": change["label"],
            "from_version": change["from"],
            "to_version": change["to"],
            "revision": change["revision"],
            "action": change["action"],
            "who": change["who"],
            "reason": change["why"],
        }
        return cls(resource, payload)


def emit_label_moved(change: Mapping[str, Any]) -> None:
    """Emits the event of a change from a flow run; Prefect adds which run it was. Warns if it cannot.

    Args:
        change: As flows.changes tells it; one that moved no label is no event.
    """
    event = LabelEvent.of(change)
    if event is None:
        return
    from prefect.events import emit_event

    try:
        emitted = emit_event(LABEL_MOVED, event.resource, payload=event.payload)
    except Exception as error:  # noqa: BLE001 - whatever Prefect raises, the label was moved
        _warn(f"{type(error).__name__}: {error}")
        return
    if emitted is None:
        _warn("Prefect took no event")


def tell_prefect(change: Mapping[str, Any]) -> None:
    """Emits the event of a change from the command line, where there is somebody to tell. Warns if it cannot.

    Args:
        change: As flows.changes tells it; one that moved no label is no event.
    """
    event = LabelEvent.of(change)
    if event is None:
        return
    try:  # also around the import, which reads the settings and refuses those that are wrong
        if not _may_be_configured():
            return
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        from prefect.settings import PREFECT_API_URL

        url = PREFECT_API_URL.value()
        if not url:
            return
        from flows.event_sending import send_event

        if problem := send_event(LABEL_MOVED, event.resource, event.payload):
            _warn(f"{url}: {problem}")
    except Exception as error:  # noqa: BLE001 - likewise
        _warn(f"{type(error).__name__}: {error}")


def _may_be_configured() -> bool:
    """Whether it is worth the seconds to import Prefect, and ask it."""
    if importlib.util.find_spec("prefect") is None:
        return False
    if "PREFECT_API_URL" in os.environ:
        return bool(os.environ["PREFECT_API_URL"])
    try:
        home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
        profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
        return "PREFECT_API_URL" in profiles.read_text(encoding="utf-8", errors="replace")
    except (OSError, RuntimeError):  # RuntimeError: nobody's home
        return False


def _warn(reason: str) -> None:
    first = (reason.strip().splitlines() or ["no message"])[0][:300]
    logger.warning("the label was moved; Prefect was not told: %s", first)
