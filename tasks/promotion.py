"""Let a label name a version."""

from __future__ import annotations

from model_registry.registry import Registry
from model_registry.state import Origin, Record
from model_registry.transitions import Expected
from tasks.following import follow
from tasks.stage import stage


def promote(
    registry: Registry, model: str, version: int, label: str, expect: Expected, origin: Origin
) -> Record | None:
    """Lets a label name a committed version.

    Returns:
        The record of the transition; None if the label names the version already.

    Raises:
        NotFoundError: If there is no such version.
        ConflictError: If the label names another version than expected, or a rule forbids it.
        StorageError: If the store fails.
    """
    return registry.promote(model, version, label, origin=origin, expect=expect)


promote_task = stage(promote, "promote")
follow_task = stage(follow, "label")
