"""What a servable version is: frozen values that pass between stages and lie in the manifest.

The manifest is the JSON form of `ServableVersion`. Fields that a newer Slipway added are ignored when it
is read, a newer `schema_version` is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from model_registry.documents import SCHEMA_VERSION, load, validate

NATIVE = "native"
# As people ask for it; what comes of it is named after what it was built for, as `Accelerator.variant` says.
TENSORRT_FP16 = "tensorrt-fp16"

# A tombstone takes at most so many bytes and a manifest always takes more, blanks at its end if need be:
# so a listing tells the versions from the numbers that were given up (docs/adr/0007).
TOMBSTONE_BYTES = 1024

# Of 18 digits, so that a 64-bit integer holds it, in whatever language reads the document.
MAX_VERSION = 10**18 - 1

Version = Annotated[int, Field(gt=0, le=MAX_VERSION)]
Size = Annotated[int, Field(ge=0, lt=2**63)]
SourceFormat = Literal["keras", "h5", "saved_model"]
Method = Literal["predict", "classify", "regress"]
Measure = float | Annotated[int, Field(ge=-(2**63), lt=2**63)] | str | dict[str, float]


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

    @property
    def form(self) -> str:
        """Dtype and shape as a person reads them: `float32 [null, 8, 8, 1]`."""
        if self.shape is None:
            return f"{self.dtype} of unknown rank"
        return f"{self.dtype} [{', '.join('null' if size is None else str(size) for size in self.shape)}]"


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
    bytes: Size
    sha256: str


@dataclass(frozen=True)
class Accelerator:
    """The GPU that engines were built on and for, and the software that built them.

    Engines fit one compute capability and one TensorRT version.

    Attributes:
        name: Of the GPU, such as `NVIDIA A100-SXM4-40GB`.
        compute_capability: Such as `8.0`.
        driver: Version of the NVIDIA driver.
        cuda: Version of CUDA that TensorFlow was built with.
        tensorrt: Version of TensorRT, such as `8.6.1`.
    """

    name: str
    compute_capability: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}\.[0-9]{1,2}$")]
    driver: str
    cuda: str
    tensorrt: str

    @property
    def variant(self) -> str:
        """The name of a variant whose engines fit it: `tensorrt-fp16-sm80`."""
        return f"{TENSORRT_FP16}-sm{self.compute_capability.replace('.', '')}"


@dataclass(frozen=True)
class Variant:
    """One variant of a version.

    Attributes:
        name: `native`, or one named after what its engines fit.
        files: All its files.
        accelerator: What its engines were built on and fit; None where there are none.
    """

    name: str
    files: tuple[PayloadFile, ...]
    accelerator: Accelerator | None = None

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
        revision: What the store said of it before it was read (model_registry.revision); None where it said
            nothing.
    """

    uri: str
    format: SourceFormat
    sha256: str
    bytes: Size
    revision: str | None = None


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
class Seal:
    """The signature over a manifest (model_registry.signing).

    Attributes:
        algorithm: Always `ed25519`.
        key_id: Tells which public key checks it.
        value: The signature, in base64.
    """

    algorithm: str
    key_id: str
    value: str


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
        signature: Over all the rest; None where no key was configured.
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
    signature: Seal | None = None

    def variant(self, name: str) -> Variant | None:
        """The variant of that name, or None."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def to_json(self) -> bytes:
        """The manifest as it is stored."""
        return _ADAPTER.dump_json(self, indent=2).ljust(TOMBSTONE_BYTES) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> ServableVersion:
        """Reads a stored manifest.

        Raises:
            FormatError: If the bytes are no manifest, or one of a newer Slipway.
        """
        return cls.from_document(load(data, key=key, what="a manifest"), key=key)

    @classmethod
    def from_document(cls, document: dict[str, Any], *, key: str) -> ServableVersion:
        """Reads a manifest that is JSON already.

        Args:
            document: As `documents.load` returns it.
            key: Where it was found, for the message.

        Raises:
            FormatError: If a field is missing or wrong.
        """
        return validate(_ADAPTER, document, key=key, what="a manifest")


_ADAPTER = TypeAdapter(ServableVersion)
