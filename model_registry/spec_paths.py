"""What a package.yaml may point at, and how it is found from there.

The operator runs the packaging, so the model and the samples may lie anywhere. A list of labels is copied
into the manifest, for all to read: it must lie in the spec's own folder, or a spec could publish any
file that the operator can read.
"""

from __future__ import annotations

import posixpath
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_registry.errors import InvalidInputError, NotFoundError
from model_registry.paths import check_bucket, check_key
from model_registry.spec_errors import found

if TYPE_CHECKING:
    from model_registry.storage.base import ObjectStore

MAX_LABELS_BYTES = 10_000_000

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_S3_OBJECT = re.compile(r"s3://([^/]+)/[^/].*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class S3Folder:
    """The folder of a package.yaml that lies on S3.

    Attributes:
        store: What lies in the folder.
    """

    store: ObjectStore

    @property
    def uri(self) -> str:
        """Such as `s3://bucket/trained/digits`."""
        return self.store.uri

    def key_of(self, text: str) -> str:
        """Checks a relative path and returns it as a key below the folder.

        Raises:
            InvalidInputError: If it is absolute, leads out of the folder, or is no key.
        """
        key = posixpath.normpath(text)
        if key.startswith(("/", "..", "~")) or key == ".":
            raise InvalidInputError(
                f"expected a path inside {self.uri}, where the package.yaml lies, or an s3:// URI, found {found(text)}",
                hint="a spec on S3 names what lies beside it, or gives the whole URI",
            )
        return check_key(key)

    def read(self, key: str, *, limit: int) -> bytes:
        """What an object below the folder holds: all of it, or only enough to see that it is larger than the limit.

        Args:
            key: Relative to the folder.
            limit: In bytes.

        Raises:
            NotFoundError: If it is not there.
            StorageError: If the store fails.
        """
        size = self.store.head(key).size
        return self.store.get(key).data if size <= limit else bytes(limit + 1)

    def names(self) -> frozenset[str]:
        """What lies in the folder, without slashes.

        Raises:
            StorageError: If the store fails.
        """
        return frozenset(self.store.list_children(""))


# Where a package.yaml lies, and what its relative paths start from.
Folder = Path | S3Folder


def folder_in(context: object) -> Folder | None:
    """The folder that is validated against, if it is one: a spec that is no file has none."""
    return context if isinstance(context, (Path, S3Folder)) else None


def is_unprintable(text: str) -> bool:
    """Whether a text holds control characters, line breaks among them, or halves of characters."""
    return _UNPRINTABLE.search(text) is not None


def is_s3(location: str) -> bool:
    """Whether a location that was checked is an s3:// URI rather than a path."""
    return location.startswith("s3://")


def locate(text: str, directory: Folder | None) -> str:
    """Checks where a model or its samples are said to be.

    Args:
        text: A path or an s3:// URI.
        directory: What a relative path starts from; None leaves it relative.

    Returns:
        The URI, or an absolute path whose last part is as written: Keras goes by a file's suffix, which
        the target of a symbolic link need not have.

    Raises:
        InvalidInputError: If it is neither, or the bucket's name stands for another host.
    """
    if not text or is_unprintable(text):
        raise InvalidInputError(f"expected a path or an s3:// URI, found {found(text)}")
    if _URI.match(text):
        location = _S3_OBJECT.fullmatch(text)
        if location is None:
            raise InvalidInputError(
                f"expected a path or a URI like s3://bucket/path/digits.keras, found {found(text)}",
                hint="download it first, or copy it to an S3 bucket",
            )
        check_bucket(location[1])
        return text
    if directory is None:
        return text
    if isinstance(directory, S3Folder):
        return f"{directory.uri}/{directory.key_of(text)}"
    path = directory / text
    try:
        resolved = path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, before Python 3.13
        raise InvalidInputError(f"the path {text!r} cannot be followed: {error}") from None
    return str(resolved)


def read_labels(text: str, directory: Folder) -> tuple[str, ...]:
    """Reads a list of class labels, one a line.

    Args:
        text: A path relative to the spec's folder and inside it.
        directory: The spec's folder.

    Raises:
        InvalidInputError: If it lies elsewhere, is larger than 10 MB, is not UTF-8, or has an empty line.
        StorageError: If the store of a folder on S3 fails.
    """
    inside = Path(text)
    if not text or is_unprintable(text) or inside.is_absolute() or ".." in inside.parts or _URI.match(text):
        raise InvalidInputError(f"expected a file inside the spec's folder, or a list of labels, found {found(text)}")
    if isinstance(directory, S3Folder):
        return _label_lines(_fetch_labels(text, directory), text)
    try:
        path = (directory / inside).resolve(strict=True)
        if not path.is_relative_to(directory.resolve()):
            raise InvalidInputError(f"{text!r} is a link that leads out of the spec's folder; copy the file into it")
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInputError(f"expected a file of labels, one a line; {text!r} is no regular file")
        with path.open("rb") as file:
            data = file.read(MAX_LABELS_BYTES + 1)
    except (OSError, RuntimeError) as error:
        raise InvalidInputError(f"the labels {text!r} cannot be read: {_reason(error)}") from None
    return _label_lines(data, text)


def _fetch_labels(text: str, folder: S3Folder) -> bytes:
    try:
        return folder.read(folder.key_of(text), limit=MAX_LABELS_BYTES)
    except NotFoundError as error:
        raise InvalidInputError(f"the labels {text!r} cannot be read: {error.message}") from None


def _label_lines(data: bytes, text: str) -> tuple[str, ...]:
    if len(data) > MAX_LABELS_BYTES:
        raise InvalidInputError(f"expected at most 10 MB of labels, found more in {text!r}")
    try:
        # By line feeds alone: str.splitlines would cut a label at a form feed or a Unicode separator.
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{text!r} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or is_unprintable(line):
            raise InvalidInputError(f"expected one label a line in {text!r}, found {line[:40]!r} on line {number}")
    return tuple(lines)


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
