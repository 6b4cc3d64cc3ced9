"""Downloads of objects; of large ones in ranges, side by side, each straight to its place in the file."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from model_registry.errors import StorageError
from model_registry.payload import CHUNK
from model_registry.servable import PayloadFile

# Eight files at once, as a version's readers take them, stay within the client's pool of 50 connections.
_RANGES_AT_ONCE = 6
# A request costs a round trip; but what arrives in long ranges is hashed late, and starts anew where one breaks off.
_FIRST, _LONGEST = 8 << 20, 16 << 20

_FROM_THE_START = re.compile(r"bytes 0--?[0-9]{1,18}/[0-9]{1,18}")

_Answer = TypeVar("_Answer")
_Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


class _Stream(Protocol):
    def __call__(self, read: Callable[[Any, Mapping[str, Any]], _Answer], /, **request: str) -> _Answer:
        """Calls `read` with a body and what the server says about it, anew for as long as it breaks off."""


@dataclass(frozen=True)
class _Begun:
    """An object whose first bytes are in the file.

    Attributes:
        size: Of the whole object.
        etag: Every other range has to come from the same object.
        arrived: How many bytes are in the file.
        digest: Of those.
    """

    size: int
    etag: str
    arrived: int
    digest: hashlib._Hash


def ranges(start: int, size: int) -> list[range]:
    """Cuts what follows the first bytes of an object of this size."""
    step = min(max(-(-(size - start) // _RANGES_AT_ONCE), _FIRST), _LONGEST)
    return [range(cut, min(cut + step, size)) for cut in range(start, size, step)]


class Download:
    """One object on its way to a file. The first request brings a small one whole, and tells how large another is."""

    def __init__(self, stream: _Stream, progress: _Progress) -> None:
        """Asks for nothing yet.

        Args:
            stream: What asks for the object.
            progress: Called with the object's size; what it yields is called with the number of bytes that
                arrived, a negative one if they have to come anew.
        """
        self._stream = stream
        self._progress = progress
        self._stopped = threading.Event()

    def to(self, destination: Path) -> PayloadFile:
        """Writes the file.

        Raises:
            OSError: If it cannot be written. Nothing is left of it then, nor after any other failure.
        """
        destination.unlink(missing_ok=True)
        destination.touch(exist_ok=False)
        try:
            begun = self._stream(partial(_begun, destination), Range=f"bytes=0-{_FIRST - 1}")
            with self._progress(begun.size) as advance:
                advance(begun.arrived)
                if begun.arrived < begun.size:
                    self._finish(destination, begun, advance)
            return PayloadFile(destination.name, begun.size, begun.digest.hexdigest())
        except BaseException:
            destination.unlink(missing_ok=True)
            raise

    def _finish(self, destination: Path, begun: _Begun, advance: Callable[[int], None]) -> None:
        """Hashes from the file what has arrived while the rest is on its way."""
        with (
            open(destination, "rb", buffering=0) as file,
            closing(self._in_order(destination, begun, advance)) as parts,
        ):
            for part in parts:
                for start in part[::CHUNK]:
                    begun.digest.update(os.pread(file.fileno(), min(CHUNK, part.stop - start), start))

    def _in_order(
        self, destination: Path, begun: _Begun, advance: Callable[[int], None]
    ) -> Generator[range, None, None]:
        """Yields each range once it has arrived, and those before it."""
        parts = ranges(begun.arrived, begun.size)
        with ThreadPoolExecutor(_RANGES_AT_ONCE, thread_name_prefix="download") as pool:
            jobs = [pool.submit(self._bring, part, destination, begun, advance) for part in parts]
            try:
                for part, job in zip(parts, jobs, strict=True):
                    job.result()
                    yield part
            finally:
                self._stopped.set()
                for job in jobs:
                    job.cancel()

    def _bring(self, part: range, destination: Path, begun: _Begun, advance: Callable[[int], None]) -> None:
        span = f"{part.start}-{part.stop - 1}"
        wanted = (begun.etag, len(part), f"bytes {span}/{begun.size}")

        def write(body: Any, found: Mapping[str, Any]) -> None:
            sent = (found["ETag"], found["ContentLength"], found.get("ContentRange"))
            if sent != wanted:
                raise StorageError(
                    f"{destination.name} cannot be downloaded: expected ETag, length and range {wanted}, found {sent}",
                    hint="the object was replaced meanwhile, or the server ignores ranges; try again",
                )
            arrived = 0
            try:
                with open(destination, "r+b", buffering=0) as file:
                    file.seek(part.start)
                    while not self._stopped.is_set() and (chunk := body.read(CHUNK)):
                        file.write(chunk)
                        arrived += len(chunk)
                        advance(len(chunk))
            except BaseException:
                advance(-arrived)
                raise

        self._stream(write, Range=f"bytes={span}")


def _begun(destination: Path, body: Any, found: Mapping[str, Any]) -> _Begun:
    # Of an empty object, or by a server that ignores ranges, the whole is sent, and no range is told.
    length = found["ContentLength"]
    told = found.get("ContentRange", f"bytes 0-{length - 1}/{length}")
    size = int(told.rpartition("/")[2]) if _FROM_THE_START.fullmatch(told) else -1
    if told != f"bytes 0-{length - 1}/{size}":
        raise StorageError(
            f"{destination.name} cannot be downloaded: expected its first {length} bytes, found range {told!r}",
            hint="that is no S3 server's answer; see what stands between here and the store",
        )
    digest, arrived = hashlib.sha256(), 0
    with open(destination, "wb", buffering=0) as file:
        while chunk := body.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            arrived += len(chunk)
    return _Begun(size, found["ETag"], arrived, digest)
