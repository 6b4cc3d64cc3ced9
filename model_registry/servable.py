"""What a servable version is: frozen values that pass between stages and lie in the manifest.

The manifest is the JSON form of `ServableVersion`. A registry document is untrusted input, so it is
validated field by field when read; fields that a newer Slipway added are ignored, a newer
`schema_version` is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from model_registry.errors import FormatError

SCHEMA_VERSION = 1
NATIVE = "native"

SourceFormat = Literal["keras", "h5", "saved_model"]
Method = Literal["predict", "classify", "regress"]
Measure = float | int | str | dict[str, float]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    Attributes:
        name: Its public name, the key in the SignatureDef.
        dtype: A TensorFlow dtype name, such as `float32` or `string`.
        shape: One entry a dimension, None where it is free; None for an unknown rank.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One SignatureDef, as a client of TensorFlow Serving sees it."""

    name: str
    method: Method
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class Check:
    """One thing that was measured on a candidate, what it was held against, and the verdict.

    Attributes:
        check: What was checked, such as `parity/serving_default/probabilities`.
        variant: The variant it was measured on.
        measured: What was found.
        threshold: What was asked for.
        passed: Whether the one meets the other.
        detail: One line for a person; empty where the numbers say it all.
    """

    check: str
    variant: str
    measured: Measure
    threshold: Measure
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Blessing:
    """All checks of a candidate."""

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Literal["blessed", "rejected"]:
        """`blessed` when there are checks and none failed."""
        return "blessed" if self.checks and not self.failures else "rejected"

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed, in the order they were made."""
        return tuple(check for check in self.checks if not check.passed)


@dataclass(frozen=True)
class PayloadFile:
    """One file of a variant.

    Attributes:
        path: Relative to the version's directory, `/` between its parts.
        bytes: Its size.
        sha256: Lower-case hexadecimal digest of its content.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Variant:
    """The files of one variant of a version."""

    name: str
    files: tuple[PayloadFile, ...]

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted lines `sha256  path`, as `sha256sum` prints them."""
        lines = sorted(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Source:
    """The trained model that a version was made from.

    Attributes:
        uri: Where it was read: an absolute path or an s3:// URI.
        format: `keras`, `h5` or `saved_model`.
        sha256: Digest of the file, or of the directory's `sha256  path` lines.
        bytes: Its size.
    """

    uri: str
    format: SourceFormat
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Run:
    """Who made a version: a Prefect flow run, or a person's own program.

    Attributes:
        id: The flow run's id, or one made for the occasion.
        name: The flow run's name, or the program's.
        url: Where to look at it, or None.
    """

    id: str
    name: str
    url: str | None = None


@dataclass(frozen=True)
class ServableVersion:
    """One published version of one model: the manifest.

    Attributes:
        model: Its name.
        version: Its number, from 1, never reused.
        identity: Digest of all that went into it (model_registry.identity).
        created_at: When it was committed, ISO 8601 in UTC.
        source: The trained model.
        spec: The package.yaml that was in force, defaults filled in.
        signatures: What it answers.
        batch_sizes: Ascending; warm-up records exist for each.
        variants: What can be loaded; `native` is always among them.
        missing: Why a variant of the default set was not delivered, by its name.
        blessing: Every check that was made.
        libraries: Versions of what made it.
        run: Who made it.
        write_id: Tells this write from any other of the same content.
    """

    model: str
    version: int
    identity: str
    created_at: str
    source: Source
    spec: dict[str, Any]
    signatures: tuple[Signature, ...]
    batch_sizes: tuple[int, ...]
    variants: tuple[Variant, ...]
    blessing: Blessing
    libraries: dict[str, str]
    run: Run
    write_id: str
    missing: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def variant(self, name: str) -> Variant | None:
        """The variant of that name, or None."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def to_json(self) -> bytes:
        """The manifest as it is stored."""
        return _ADAPTER.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> ServableVersion:
        """Reads a manifest.

        Args:
            data: The stored bytes.
            key: Where they were found, for the message.

        Raises:
            FormatError: If they are no manifest, or one of a newer Slipway.
        """
        try:
            document = from_json(data)
            schema = document["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{key} is not a manifest: {error}",
                hint="somebody else wrote into the registry; restore the document from a backup",
            ) from None
        if schema != SCHEMA_VERSION:
            raise FormatError(
                f"{key} has schema version {schema!r}, this Slipway reads {SCHEMA_VERSION}",
                hint="install the Slipway that wrote it, or a newer one",
            )
        try:
            return _ADAPTER.validate_python(document)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise FormatError(f"{key} is not a manifest: {where}: {first['msg']}") from None


_ADAPTER = TypeAdapter(ServableVersion)
