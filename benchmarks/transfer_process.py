"""A process that has imported and connected, and brings files to a bucket and back when told to.

python -m benchmarks.transfer_process slipway|obstore BUCKET

One JSON document a line on stdin, `[name of a method of Client, directory, prefix]`, is answered by the
seconds it took. Each client lives in an environment of its own, so it is imported where it is chosen.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

_FILES_AT_ONCE = 8  # as tasks.prediction has it


class Client(Protocol):
    """What is compared. Prefixes end in a slash."""

    def upload(self, directory: Path, prefix: str) -> Callable[[], None]:
        """Prepares the upload of a flat directory's files, and returns what does it."""

    def download(self, directory: Path, prefix: str) -> Callable[[], None]:
        """Prepares the download of the objects below a prefix, and returns what does it."""


class Slipway:
    """Our store, used as `publish` and `predict` use it: hashed both ways."""

    def __init__(self, bucket: str) -> None:
        from model_registry.storage import open_store

        self._store = open_store(f"s3://{bucket}")
        self._store.check(writing=False)

    def upload(self, directory: Path, prefix: str) -> Callable[[], None]:
        """One `upload_tree`. A version's manifest has the digests already."""
        from model_registry.payload import hash_files

        files = hash_files(directory, sorted(path.name for path in directory.iterdir()))
        return lambda: self._store.upload_tree(directory, prefix, files)

    def download(self, directory: Path, prefix: str) -> Callable[[], None]:
        """As many `download` side by side as a reader of a version has. The manifest has told the names."""
        keys = [found.key for found in self._store.list(prefix)]
        return lambda: _each(keys, lambda key: self._store.download(key, directory / Path(key).name))


class Obstore:
    """obstore with its own part sizes; a download is its stream, written as it comes."""

    def __init__(self, bucket: str) -> None:
        import obstore  # type: ignore[import-not-found]
        from obstore.store import S3Store  # type: ignore[import-not-found]

        self._obstore = obstore
        self._store = S3Store(bucket, client_options={"allow_http": True})

    def upload(self, directory: Path, prefix: str) -> Callable[[], None]:
        """`obstore.put` of each file."""
        names = sorted(path.name for path in directory.iterdir())
        return lambda: _each(names, lambda name: self._obstore.put(self._store, prefix + name, directory / name))

    def download(self, directory: Path, prefix: str) -> Callable[[], None]:
        """`obstore.get` of each object."""

        def get(key: str) -> None:
            with open(directory / Path(key).name, "wb") as file:
                for chunk in self._obstore.get(self._store, key):
                    file.write(chunk)

        keys = [found["path"] for page in self._obstore.list(self._store, prefix) for found in page]
        return lambda: _each(keys, get)


def _each(names: Sequence[str], transfer: Callable[[str], object]) -> None:
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        list(pool.map(transfer, names))


def main() -> None:
    """Answers until stdin ends."""
    _, name, bucket = sys.argv
    client: Client = Slipway(bucket) if name == "slipway" else Obstore(bucket)
    for line in sys.stdin:
        way, directory, prefix = json.loads(line)
        transfer = getattr(client, way)(Path(directory), prefix)
        started = time.perf_counter()
        transfer()
        print(json.dumps(time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
