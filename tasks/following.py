"""Lets a label follow to a version that was just packaged, or found. Needs no Prefect."""

from __future__ import annotations

from model_registry.errors import SlipwayError
from model_registry.registry import Registry
from model_registry.servable import ServableVersion
from model_registry.state import Origin, Record


def follow(registry: Registry, version: ServableVersion, label: str, origin: Origin) -> Record | None:
    """Lets a label name a committed version, unless it ever named a higher one.

    Returns:
        The record of the transition; None if the label names the version already.

    Raises:
        ConflictError: If it did, or another rule forbids it.
        SlipwayError: If the state cannot be read or written. Every message says that the version stays.
    """
    try:
        return registry.follow(version, label, origin=origin)
    except SlipwayError as error:
        error.message = f"{version.model}:{version.version} is committed, but labelling it failed: {error.message}"
        raise
