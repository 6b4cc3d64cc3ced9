"""Trees that come into a local registry by one rename, whole; those of another file system are copied beside first."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from model_registry.errors import ConflictError, InvalidInputError, StorageError
from model_registry.paths import TEMPORARY
from model_registry.payload import hash_files, open_file, walk_files
from model_registry.servable import PayloadFile
from model_registry.storage.durable import (
    ATTEMPTS,
    copy_durably,
    make_directories,
    prepare_tree,
    remove_directory,
    rename,
    sync_directory,
)


def move_tree(source: Path, target: Path, files: Sequence[PayloadFile]) -> None:
    """Moves a directory that is exactly `files` to where nothing lies.

    Raises:
        ConflictError: If something lies there.
        StorageError: If the directory is not what `files` says.
        OSError: If it cannot be moved.
    """
    _verify(source, files)
    for _ in range(ATTEMPTS):
        make_directories(target.parent)
        try:
            _move(source, target, files)
            break
        except FileNotFoundError:  # the parent, unless the source itself is gone
            if not source.is_dir():
                raise
        except OSError as error:
            # Linux replaces an empty directory and nothing else.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and os.path.lexists(target):
                raise ConflictError(f"something lies at {target} already") from None
            raise
    else:
        raise StorageError(f"{target.parent} keeps vanishing", transient=True)
    sync_directory(target.parent)


def _verify(source: Path, files: Sequence[PayloadFile]) -> None:
    """Refuses a directory that is not exactly `files`: the rename would publish whatever else lies in it."""
    try:
        found = hash_files(source, sorted(walk_files(source)))
    except InvalidInputError as error:
        raise StorageError(error.message, hint=error.hint) from error
    if different := {file.path for file in {*found} ^ {*files}}:
        raise StorageError(f"{source} changed after it was hashed: {', '.join(sorted(different)[:5])}")


def _move(source: Path, target: Path, files: Sequence[PayloadFile]) -> None:
    # Made by tempfile, a directory can be entered by its owner alone, and a server is somebody else.
    mode = stat.S_IMODE(target.parent.stat().st_mode)
    for folder, _, _ in os.walk(source, topdown=False):  # other stores have no empty ones, and deleting leaves them
        remove_directory(Path(folder))
    prepare_tree(source, mode)
    try:
        rename(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    beside = target.with_name(f"{TEMPORARY}{target.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)  # of an earlier attempt that was killed
    try:
        beside.mkdir()  # which no link that somebody put there survives
        for file in files:
            (beside / file.path).parent.mkdir(parents=True, exist_ok=True)
            with open_file(source, file.path) as opened:
                arrived = copy_durably(opened, beside / file.path, file.path)
            if arrived != file:
                raise StorageError(f"{source / file.path} changed while it was copied")
        prepare_tree(beside, mode)
        rename(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
