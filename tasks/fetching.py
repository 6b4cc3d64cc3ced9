"""Bringing a trained model or its samples to this machine's disk, where a process without a network can read it."""

from __future__ import annotations

from pathlib import Path

from model_registry.errors import InvalidInputError, NotFoundError
from model_registry.paths import check_key
from model_registry.revision import revision_of, revision_of_objects, revision_of_path
from model_registry.storage import open_store


def fetch(location: str, destination: Path) -> Path:
    """Makes a file or directory readable locally.

    Args:
        location: A path, which is returned as it is, or an s3:// URI of an object or of a prefix
            that holds a SavedModel.
        destination: A directory to download into; is made when needed.

    Returns:
        The path to read, which ends in the location's own name.

    Raises:
        NotFoundError: If there is no such object or prefix.
        InvalidInputError: If it was changed while it was downloaded.
        StorageError: If the store fails.
    """
    require_reachable(location)
    return fetch_source(location, destination)[0]


def require_reachable(location: str) -> None:
    """Asks the store whether it answers at all; a download asks an endpoint that does not answer for minutes.

    Args:
        location: A path, of which nothing is asked, or an s3:// URI.

    Raises:
        StorageError: If it does not answer, or does not let us read.
    """
    if location.startswith("s3://"):
        open_store(location.rstrip("/").rpartition("/")[0]).check(writing=False)


def fetch_source(location: str, destination: Path) -> tuple[Path, str | None]:
    """As `fetch`, from a store that `require_reachable` found so, with the revision of what was fetched.

    What is downloaded has the revision (model_registry.revision): it is asked for before and after. Of a path it is
    what was there before anybody read it; whoever reads it has to see for himself that it stayed as it was.

    Raises:
        NotFoundError: As `fetch` does.
        InvalidInputError: Likewise.
        StorageError: Likewise.
    """
    if not location.startswith("s3://"):
        return Path(location), revision_of_path(Path(location))
    folder, _, name = location.rstrip("/").rpartition("/")
    store = open_store(folder)
    target = destination / name
    try:
        before = revision_of_objects(location, [("", store.head(name))])
        store.download(name, target)
    except NotFoundError:
        before, keys = revision_of(location), [item.key for item in store.list(f"{name}/")]
        if not keys:
            raise NotFoundError(
                f"{location} is not there: neither an object nor a prefix with objects below it",
                hint="list what is there with: aws s3 ls",
            ) from None
        for key in keys:
            if key.endswith("/"):  # consoles leave such objects for folders
                continue
            store.download(check_key(key), destination / key)
    if revision_of(location) != before:
        raise InvalidInputError(
            f"{location} changed while it was downloaded",
            hint="write each training into a folder of its own, its package.yaml last",
        )
    return target, before
