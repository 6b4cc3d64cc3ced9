"""What is asked of an agent before a label moves that its server is to follow: can it get there at all?"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

from flows.tables import printable
from model_registry.errors import InvalidInputError, SlipwayError
from model_registry.serving.http_url import is_loopback
from model_registry.serving.sync.awaited_label import follows, given_up
from model_registry.serving.sync.sync_report import AgentReport

logger = logging.getLogger("slipway")


def require_following(report: AgentReport, url: str, registry: str, model: str, label: str) -> None:
    """Holds an agent to the registry and the label that it is to follow.

    Warns where it cannot be told whether two paths are one registry.

    Args:
        report: What it tells of itself.
        url: Where it was asked.
        registry: The URI of the registry in which the label moves.
        model: Whose label.
        label: Which.

    Raises:
        InvalidInputError: If it follows another registry, or not this label.
    """
    leave_out = f"nothing was moved; leave --agent {url} out, or name another agent"
    same = same_registry(report.registry, registry, here=is_loopback(urlsplit(url).hostname or ""))
    if same is False:
        raise InvalidInputError(
            f"the agent at {url} follows another registry: expected {registry}, found {report.registry}", hint=leave_out
        )
    if same is None:
        logger.warning(
            "the agent at %s follows the registry at %s; if that is not %s, it never gets there",
            *map(printable, (url, report.registry, registry)),
        )
    if not follows(report, model, label):
        models = ", ".join(report.follows_models) or "every model"
        labels = ", ".join(report.follows_labels) or "every label"
        raise InvalidInputError(
            f"the agent at {url} does not follow {model}@{label}: it follows {labels} of {models}", hint=leave_out
        )


def require_not_given_up(report: AgentReport, url: str, model: str, version: int) -> None:
    """Refuses a version that the agent's server could not load.

    Raises:
        SlipwayError: With the server's words.
    """
    if failed := given_up(report, model, version):
        raise SlipwayError(
            f"{model}:{version} could not be loaded beside the agent at {url}: {printable(failed.why)}",
            hint="nothing was moved; mend it and repeat the command with --retry",
        )


def same_registry(theirs: str, ours: str, *, here: bool) -> bool | None:
    """Whether two URIs name one registry; None where that cannot be told from here.

    A path means something else on another machine, and in a container on this one.

    Args:
        theirs: The agent's.
        ours: The one that was opened here.
        here: Whether the agent was asked at a loopback address.
    """
    if theirs == ours:
        return True
    if "://" in theirs or "://" in ours:
        return False
    try:
        if not Path(theirs).is_absolute():
            return None
        return os.path.samefile(theirs, ours) or (False if here else None)  # noqa: PTH121 - both may be links
    except (OSError, ValueError):
        return None
