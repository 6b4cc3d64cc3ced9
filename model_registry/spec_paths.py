"""What a package.yaml may point at, and how it is found from there.

The operator runs the packaging, so the model and the samples may lie anywhere. A list of labels is copied
into the manifest, for all to read: it must lie in the spec's own folder, or a spec could publish any
file that the operator can read.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from model_registry.errors import InvalidInputError
from model_registry.spec_errors import found

MAX_LABELS_BYTES = 10_000_000

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_S3_OBJECT = re.compile(r"s3://[^/]+/[^/].*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_unprintable(text: str) -> bool:
    """Whether a text holds control characters, line breaks among them, or halves of characters."""
    return _UNPRINTABLE.search(text) is not None


def is_s3(location: str) -> bool:
    """Whether a location that was checked is an s3:// URI rather than a path."""
    return location.startswith("s3://")


def locate(text: str, directory: Path | None) -> str:
    """Checks where a model or its samples are said to be.

    Args:
        text: A path or an s3:// URI.
        directory: What a relative path starts from; None leaves it relative.

    Returns:
        The URI, or an absolute path whose last part is as written: Keras goes by a file's suffix, which
        the target of a symbolic link need not have.

    Raises:
        InvalidInputError: If it is neither.
    """
    if not text or is_unprintable(text):
        raise InvalidInputError(f"expected a path or an s3:// URI, found {found(text)}")
    if _URI.match(text):
        if not _S3_OBJECT.fullmatch(text):
            raise InvalidInputError(
                f"expected a path or a URI like s3://bucket/path/digits.keras, found {found(text)}",
                hint="download it first, or copy it to an S3 bucket",
            )
        return text
    if directory is None:
        return text
    path = directory / text
    try:
        resolved = path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, before Python 3.13
        raise InvalidInputError(f"the path {text!r} cannot be followed: {error}") from None
    return str(resolved)


def read_labels(text: str, directory: Path) -> tuple[str, ...]:
    """Reads a list of class labels, one a line.

    Args:
        text: A path relative to the spec's folder and inside it.
        directory: The spec's folder.

    Raises:
        InvalidInputError: If it lies elsewhere, is larger than 10 MB, is not UTF-8, or has an empty line.
    """
    inside = Path(text)
    if not text or is_unprintable(text) or inside.is_absolute() or ".." in inside.parts or _URI.match(text):
        raise InvalidInputError(f"expected a file inside the spec's folder, or a list of labels, found {found(text)}")
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
