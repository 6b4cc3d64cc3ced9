"""What a store says of a trained model without reading it: enough to see that it is the same as before.

A revision is a digest over where the model lies and, of each of its objects, the name, the size and what the store
tells of its content: the ETag on S3; inode, size and times of change on a file system. Two equal revisions are the
same bytes, as far as the store can be believed; after another one the bytes have to be read to know. It is never a
digest of the content, and nothing is verified by it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from model_registry.errors import NotFoundError

if TYPE_CHECKING:
    from model_registry.storage.base import ObjectInfo

_MAX_FILES = 10_000  # a SavedModel has a few; what has more is read instead


def file_mark(status: os.stat_result) -> str:
    """What a file system tells of a file's content: another one after each write or replacement."""
    # st_mtime can be set, as `cp -p` and `rsync -t` do; st_ctime cannot.
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"


def revision_of_objects(location: str, objects: Iterable[tuple[str, ObjectInfo]]) -> str | None:
    """The revision of a model whose objects were listed. Pure.

    Args:
        location: Where it lies, as a manifest names it.
        objects: Each with its path inside the model; that of a single file is empty.

    Returns:
        SHA-256 in lower-case hexadecimal; None where there is no object, or the store told too little of one.
    """
    return _digest(location, ((path, info.size, info.etag) for path, info in objects))


def revision_of_path(path: Path) -> str | None:
    """The revision of a model on this machine's disk, or on one that it mounts; None where none can be told."""
    try:
        return _digest(str(path), _marks(path))
    except OSError:
        return None


def revision_of(location: str) -> str | None:
    """The revision of what lies at a path or an s3:// URI, by one or two requests; None where nothing does.

    Raises:
        StorageError: If the store fails.
    """
    if not location.startswith("s3://"):
        return revision_of_path(Path(location))
    from model_registry.storage import open_store

    folder, _, name = location.rstrip("/").rpartition("/")
    store = open_store(folder)
    try:
        return revision_of_objects(location, [("", store.head(name))])
    except NotFoundError:
        prefix = f"{name}/"
        return revision_of_objects(location, ((info.key[len(prefix) :], info) for info in store.list(prefix)))


def _digest(location: str, marks: Iterable[tuple[str, int, str]]) -> str | None:
    lines: list[str] = []
    for path, size, mark in marks:
        if not mark or len(lines) == _MAX_FILES:
            return None
        lines.append(repr((path, size, mark)))
    if not lines:
        return None
    return hashlib.sha256("\n".join([repr(location.rstrip("/")), *sorted(lines)]).encode()).hexdigest()


def _marks(path: Path) -> Iterator[tuple[str, int, str]]:
    status = path.stat()  # the path itself may be a link: the operator gave it
    if not stat.S_ISDIR(status.st_mode):
        yield "", status.st_size, file_mark(status)
        return
    for folder, _, names in os.walk(path, onerror=_reraise):
        for name in names:
            file = Path(folder) / name
            status = file.lstat()
            yield file.relative_to(path).as_posix(), status.st_size, file_mark(status)


def _reraise(error: OSError) -> None:
    raise error
