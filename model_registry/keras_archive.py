"""What a .keras file is made of, told by its table of contents. Nothing in it is loaded or unpacked.

Keras 3 (keras/src/saving/saving_lib.py) writes a zip of `config.json`, `metadata.json`, the weights
`model.weights.h5` (or, on request, `model.weights.npz`), and `assets/...` for vocabularies and the like. It
unpacks the whole archive when there are assets, so every name in it matters.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from model_registry.errors import InvalidInputError

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = ("model.weights.h5", "model.weights.npz")

# zipfile reads the table of contents whole, some 60 bytes an entry on disk and 20 times that in memory.
_MAX_CONTENTS_BYTES = 8 << 20
# Keras's own limits for a decompression bomb (saving_lib._reject_zip_extract_bomb).
_BOMB_BYTES = 1 << 28
_BOMB_RATIO = 100

_ENCRYPTED = 0x1 | 0x40 | 0x2000
_BROKEN = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError)


class _CappedFile(io.FileIO):
    """A file that refuses to be read into memory in one huge piece."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_CONTENTS_BYTES:
            raise zipfile.BadZipFile(f"its table of contents says it has {size:,} bytes")
        return super().read(size) or b""


def check_keras_archive(path: Path) -> None:
    """Checks a zip file's table of contents.

    Raises:
        InvalidInputError: If the zip is cut short or broken, is no Keras model, or has members that no
            Keras model has: encrypted, twice there, links, outside of the archive, absurdly large.
        OSError: If it cannot be read.
    """
    try:
        with _CappedFile(path) as file, zipfile.ZipFile(file) as archive:
            size = file.seek(0, io.SEEK_END)
            members = archive.infolist()
    except _BROKEN as error:
        if not zipfile.is_zipfile(path):
            raise InvalidInputError(
                f"{path} is a zip file cut short: its table of contents, at the end, is missing; "
                f"found {path.stat().st_size:,} bytes",
                hint="copy or save the model again: the upload or the training ended early",
            ) from None
        raise InvalidInputError(f"{path} is a broken zip file: {error}", hint="copy or save the model again") from None
    _check_kind(path, {member.filename for member in members})
    for member in members:
        problem = _problem(member, size)
        if problem:
            raise InvalidInputError(
                f"{path}: the member {member.filename[:100]!r} {problem}; Keras writes no such file",
                hint="do not load this file before you know where it comes from; save the model again with model.save",
            )
    counts = Counter(str(PurePosixPath(member.filename)) for member in members)
    name, times = max(counts.items(), key=lambda item: item[1])
    if times > 1:
        raise InvalidInputError(
            f"{path}: the member {name[:100]!r} is there {times} times; Keras writes no such file",
            hint="save the model again with model.save",
        )
    stored = sum(member.compress_size for member in members)
    if stored > size:
        raise InvalidInputError(
            f"{path}: its members overlap: together they say {stored:,} bytes, the file has {size:,}",
            hint="do not load this file before you know where it comes from",
        )


def _check_kind(path: Path, names: set[str]) -> None:
    missing = [name for name in (CONFIG, METADATA) if name not in names]
    if not names.intersection(WEIGHTS):
        missing.append(WEIGHTS[0])
    if not missing:
        return
    if any(PurePosixPath(name).name == "data.pkl" for name in names):
        kind, hint = "a PyTorch file", "give a model saved by Keras: model.save('NAME.keras')"
    elif any(name.endswith(".npy") for name in names):
        kind, hint = "a NumPy .npz file", "samples go under `samples`; the model is saved with model.save('NAME.keras')"
    elif "model.weights.json" in names or any(name.startswith("model.weights_") for name in names):
        kind = "an archive of sharded weights, which Keras does not load as a model"
        hint = "save the model without max_shard_size: model.save('NAME.keras')"
    elif any("/" in name and PurePosixPath(name).name == CONFIG for name in names):
        kind, hint = (
            "a zip of a folder",
            f"{CONFIG} must be at the top of the archive; save with model.save('NAME.keras')",
        )
    else:
        shown = ", ".join(repr(name[:40]) for name in sorted(names)[:5]) or "no members"
        kind, hint = f"a zip file holding {shown}", "save the model with model.save('NAME.keras')"
    raise InvalidInputError(
        f"{path} is no Keras model: expected a zip with {CONFIG}, {METADATA} and {WEIGHTS[0]}, "
        f"found {kind}; missing: {', '.join(missing)}",
        hint=hint,
    )


def _problem(member: zipfile.ZipInfo, archive_bytes: int) -> str | None:
    """What is wrong with one member, or None."""
    name = member.orig_filename  # `filename` has lost what follows a NUL character
    parts = name.replace("\\", "/").removesuffix("/").split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if "\\" in name or any(character < " " or character == "\x7f" for character in name):
        return "has a name with a backslash or control characters"
    if name.startswith("/") or (len(parts[0]) > 1 and parts[0][1] == ":") or ".." in parts:
        return "has a name that leads out of the archive"
    if "" in parts or "." in parts:
        return "has a name with empty parts"
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a directory"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {member.compress_type}"
    if not 0 <= member.header_offset <= archive_bytes - member.compress_size:
        return f"says it has {member.compress_size:,} bytes in a file of {archive_bytes:,}"
    if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
        return f"says it has {member.file_size:,} bytes, stores {member.compress_size:,}"
    if member.file_size > _BOMB_BYTES and member.file_size > _BOMB_RATIO * member.compress_size:
        return f"unpacks to {member.file_size:,} bytes from {member.compress_size:,}: a decompression bomb"
    return None
