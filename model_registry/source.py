"""A trained model as it is given to us: what it is, and its digest. Nothing in it is loaded.

Formats are told by their first bytes and by names, because Keras goes by the suffix and says
"file not found" of a file that is something else.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_registry.errors import InvalidInputError
from model_registry.keras_archive import CONFIG, check_keras_archive
from model_registry.servable import PayloadFile, Source, SourceFormat, Variant

_CHUNK = 1 << 20
_MAX_DEPTH = 32  # a SavedModel has two levels; its assets rarely more
_ZIP = b"PK\x03\x04"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SUFFIXES: dict[SourceFormat, tuple[str, ...]] = {"keras": (".keras",), "h5": (".h5", ".hdf5")}
_SAVE_AGAIN = "save the model with Keras: model.save('NAME.keras')"

# What people give instead of a model, told by how it begins.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to", "fetch the file: git lfs pull"),
    (b"PK\x05\x06", "an empty zip file", _SAVE_AGAIN),
    (b"\x80", "a Python pickle, which runs code when it is loaded and is never loaded here", _SAVE_AGAIN),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"BZh", "a bzip2 file", "unpack it first"),
    (b"\xfd7zXZ", "an xz file", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first"),
    (b"\x93NUMPY", "a NumPy array", _SAVE_AGAIN),
    (b"\x08", "an ONNX or another protobuf file", "give the Keras model that it was made from"),
)


def inspect_source(path: Path) -> SourceFormat:
    """Tells what a trained model is, by magic bytes and names alone.

    Args:
        path: A .keras file, an .h5 file or a SavedModel directory.

    Returns:
        `keras`, `h5` or `saved_model`. An `h5` may still hold weights only, and a SavedModel lack its
        variables: whoever loads it finds out.

    Raises:
        InvalidInputError: If it is none of these, is damaged, or has a suffix that Keras would misread.
    """
    with _readable(path):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            _check_saved_model(path)
            return "saved_model"
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(f"{path} is neither a file nor a directory", hint="give a .keras or .h5 file")
        if not status.st_size:
            raise InvalidInputError(
                f"{path} is empty: expected a Keras model, found 0 bytes",
                hint="copy or save the model again: the upload or the training ended early",
            )
        with path.open("rb") as file:
            head = file.read(512)
        if head.startswith(_ZIP):
            check_keras_archive(path)
            return _with_its_suffix(path, "keras", "a Keras 3 model (a zip file)")
        if head.startswith(_HDF5):
            return _with_its_suffix(path, "h5", "an HDF5 file")
    kind, hint = _name_other(head, path)
    raise InvalidInputError(f"{path} is no Keras model: expected a .keras or an HDF5 file, found {kind}", hint=hint)


def digest_source(path: Path) -> tuple[str, int]:
    """Digest and size of a file, or of a directory's files.

    A directory's digest is that of `Variant.digest`: over the sorted lines `sha256  path`. The path itself
    may be a symbolic link, because the operator gave it; links inside a directory are refused.

    Returns:
        The SHA-256 in lower-case hexadecimal, and the size in bytes.

    Raises:
        InvalidInputError: If it cannot be read, or a directory holds anything but files and directories.
    """
    with _readable(path):
        if not path.is_dir():
            file = _digest_file(path, path.name)
            return file.sha256, file.bytes
        tree = Variant("source", tuple(_digest_tree(path)))
        if not tree.files:
            raise InvalidInputError(f"{path} is an empty directory: expected a SavedModel")
        return tree.digest, tree.bytes


def describe_source(path: Path, *, uri: str | None = None, revision: str | None = None) -> Source:
    """What the manifest says of a trained model.

    Args:
        path: Where it lies now.
        uri: Where it came from, if that was elsewhere.
        revision: What the store said of it before it was read (model_registry.revision).

    Raises:
        InvalidInputError: As `inspect_source` and `digest_source` do.
    """
    kind = inspect_source(path)
    sha256, size = digest_source(path)
    return Source(uri or str(path.absolute()), kind, sha256, size, revision)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InvalidInputError(
            f"there is no model at {path}", hint="name a .keras or .h5 file, or a SavedModel directory"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        if isinstance(error, InvalidInputError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InvalidInputError(f"the model at {path} cannot be read: {reason}") from None


def _with_its_suffix(path: Path, kind: SourceFormat, what: str) -> SourceFormat:
    suffixes = _SUFFIXES[kind]
    if not path.name.endswith(suffixes):
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise InvalidInputError(
            f"{path} is {what} with {found}: expected {' or '.join(suffixes)}, because Keras goes by the suffix",
            hint=f"rename it to {path.stem or path.name}{suffixes[0]}",
        )
    return kind


def _name_other(head: bytes, path: Path) -> tuple[str, str]:
    if path.name == "saved_model.pb":
        return "a SavedModel's graph alone", f"give its directory, {path.parent}"
    if len(head) > 265 and head[257:262] == b"ustar":
        return "a tar archive", "unpack it first"
    for magic, kind, hint in _OTHERS:
        if head.startswith(magic):
            return kind, hint
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON, which is a model's architecture without weights at best", _SAVE_AGAIN
    try:
        # The last character may be cut in two by the 512 bytes read.
        text = head.decode("utf-8", "strict" if len(head) < 512 else "ignore")
    except UnicodeDecodeError:
        return f"a file that begins with {head[:8].hex(' ')}", _SAVE_AGAIN
    if text.isprintable() or all(character.isprintable() or character.isspace() for character in text):
        return f"text: {text.split(chr(10))[0][:40]!r}", _SAVE_AGAIN
    return f"a file that begins with {head[:8].hex(' ')}", _SAVE_AGAIN


def _check_saved_model(path: Path) -> None:
    names = sorted(entry.name for entry in path.iterdir())
    if "saved_model.pb" in names:
        return
    hint = "give the directory that holds saved_model.pb"
    versions = [name for name in names if (path / name / "saved_model.pb").is_file()]
    if versions:
        found, hint = f"it one level below, in {', '.join(versions[:5])}", f"give {path / versions[-1]}"
    elif CONFIG in names:
        found, hint = "a Keras model saved with zipped=False", "save it as one file: model.save('NAME.keras')"
    elif "checkpoint" in names or any(name.endswith(".index") for name in names):
        found, hint = "a checkpoint, which holds weights without a model", _SAVE_AGAIN
    elif "saved_model.pbtxt" in names:
        found = "saved_model.pbtxt, the text form, which is not accepted"
    elif any(name.endswith((".h5", ".hdf5", ".keras")) for name in names):
        models = [name for name in names if name.endswith((".h5", ".hdf5", ".keras"))]
        found, hint = f"the files {', '.join(models[:5])}", f"give one of them, such as {path / models[0]}"
    else:
        found = ", ".join(repr(name[:40]) for name in names[:5]) or "an empty directory"
    raise InvalidInputError(f"{path} is no SavedModel: expected saved_model.pb in it, found {found}", hint=hint)


def _digest_tree(path: Path) -> Iterator[PayloadFile]:
    # Through descriptors, so that a directory swapped for a link meanwhile is not followed.
    top = os.path.realpath(path)
    for folder, directories, files, descriptor in os.fwalk(top, onerror=_reraise):
        inside = Path(folder).relative_to(top)
        if len(inside.parts) > _MAX_DEPTH:
            raise InvalidInputError(f"{path} is nested more than {_MAX_DEPTH} levels deep")
        for name in sorted(directories + files):
            shown = (inside / name).as_posix()
            if not name.isprintable():
                raise InvalidInputError(f"{path} holds a file with an unprintable name: {shown!r}")
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                raise InvalidInputError(
                    f"{path} holds a symbolic link, {shown!r}: expected files and directories alone",
                    hint="copy the model with its links resolved: cp -rL",
                )
            if not stat.S_ISDIR(mode):
                yield _digest_file(Path(name), shown, descriptor)


def _digest_file(path: Path, shown: str, directory: int | None = None) -> PayloadFile:
    # Not blocking, so that a pipe in a file's place is refused and not waited for.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if directory is None else os.O_NOFOLLOW)
    digest, size = hashlib.sha256(), 0
    with open(os.open(path, flags, dir_fd=directory), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidInputError(f"{shown!r} is neither a file nor a directory")
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return PayloadFile(shown, size, digest.hexdigest())


def _reraise(error: OSError) -> None:
    raise error
