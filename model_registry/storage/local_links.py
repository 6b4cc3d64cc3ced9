"""Symbolic links below the root of a local registry. The root itself may be one.

The registry makes none: somebody did, to save space or to use another disk. What lies beyond one may belong to
another version, or to nobody here. So it may be read, but no listing walks into a link, no digest vouches for
what lies behind one, and nothing is written or deleted through one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from model_registry.errors import StorageError
from model_registry.storage.durable import translated


def is_linked(root: Path, name: str) -> bool:
    """Whether a name below a root is a link, or lies beyond one.

    Raises:
        StorageError: If nobody lets us look.
    """
    return _first_link(root, name.split("/")) is not None


def refuse_links(root: Path, name: str) -> None:
    """Refuses a name below a root that would be written or deleted through a link. It may be one itself.

    Raises:
        StorageError: If one of the directories on the way is a link; or nobody lets us look.
    """
    if link := _first_link(root, name.split("/")[:-1]):
        raise StorageError(
            f"{root / name} is left alone: {link} is a symbolic link, and nothing is written or deleted through one",
            hint="replace the link by a copy of what it leads to, or remove it",
        )


def _first_link(root: Path, parts: Iterable[str]) -> Path | None:
    path = root
    with translated(root):
        for part in parts:
            path /= part
            if path.is_symlink():
                return path
    return None
