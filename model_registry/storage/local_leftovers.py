"""The temporary files and the empty directories that killed writers left below a local registry.

A living writer has one for moments only, so that age tells the two apart. TensorFlow Serving takes a directory
that a killed deletion emptied for a version, and fails to load it. Symbolic links are never
followed: a registry holds none, and one that somebody put there may point anywhere.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from model_registry.errors import InvalidInputError
from model_registry.paths import MODELS, TEMPORARY
from model_registry.storage.base import Leftover
from model_registry.storage.durable import remove_empty
from model_registry.storage.file_clock import FileClock
from model_registry.storage.local_links import refuse_links

_SUFFIX = ".tmp"
_COARSE = 2.0  # seconds between two readings of the clock of a network mount that mean the same moment


def find_leftovers(root: Path, clock: FileClock) -> Iterator[Leftover]:
    """Every one below a root, a directory with all that is in it as one; named by its path below the root."""
    for folder, directories, files in os.walk(root, onerror=_unless_gone):
        names = [name for name in (*directories, *files) if _is_temporary(name)]
        found = [Path(folder, name) for name in sorted(names)]
        if not directories and not files and _may_be_empty(str(Path(folder).relative_to(root))):
            found.append(Path(folder))
        directories[:] = sorted(name for name in directories if not _is_temporary(name))
        for path in found:
            with suppress(FileNotFoundError):
                yield _measured(path, root, clock)


def remove_leftover(root: Path, leftover: Leftover, clock: FileClock) -> None:
    """Removes one, and the directories that are empty then.

    Raises:
        InvalidInputError: If it is named like no leftover.
        StorageError: If it lies beyond a symbolic link.
        OSError: If it cannot be removed.
    """
    parts = leftover.name.split("/")
    temporary = _is_temporary(parts[-1])
    if not (temporary or _may_be_empty(leftover.name)) or any(part in ("", ".", "..") for part in parts):
        raise InvalidInputError(f"{leftover.name!r} is no leftover of a local registry")
    refuse_links(root, leftover.name)
    path = root / leftover.name
    with suppress(FileNotFoundError):
        if _measured(path, root, clock).age < leftover.age - _COARSE:
            return  # somebody writes to it
        if not temporary:
            remove_empty((path,))  # unless somebody put something there meanwhile
        elif stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    remove_empty(parent for parent in path.parents if parent.is_relative_to(root) and parent != root)


def _is_temporary(name: str) -> bool:
    return name.startswith(TEMPORARY) and name.endswith(_SUFFIX)


def _may_be_empty(name: str) -> bool:
    # Elsewhere a process may hold its workspace, or be about to write a document.
    return name.startswith(MODELS)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _measured(path: Path, root: Path, clock: FileClock) -> Leftover:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return Leftover(str(path.relative_to(root)), found.st_size, clock.age(found))
    size, age = 0, clock.age(found)
    for folder, directories, files in os.walk(path, onerror=_unless_gone):
        for name in (*directories, *files):
            with suppress(FileNotFoundError):
                entry = Path(folder, name).lstat()
                size += 0 if stat.S_ISDIR(entry.st_mode) else entry.st_size
                age = min(age, clock.age(entry))
    return Leftover(str(path.relative_to(root)), size, age)
