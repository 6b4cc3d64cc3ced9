"""What crosses the hand-over of a conversion, and where it lies below `staging/<run>/`.

    request.json    create-only and last of what the requester brings: what is to be converted, and every file of it
    native/...      the native variant
    cases/...       requests beyond its warm-up records, and what the trained model answered
    samples/...     labels, where a quality is asked for
    pulse.json      renewed by the worker as long as it works
    converted/...   the variant
    result.json     create-only and last of what the worker brings: the variant with every file of it, or the error

Both sides read what the other wrote as they would read anybody's: field by field, each file by its digest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from model_registry import paths
from model_registry.documents import SCHEMA_VERSION, read
from model_registry.errors import ConversionError, FormatError, InvalidInputError, SlipwayError
from model_registry.payload import upload_order
from model_registry.servable import Check, PayloadFile, Run, Signature, Variant
from tasks.model_process.log_tail import printable
from tasks.stage_time import StageTime

_MAX_FILES = 10_000
_MAX_TEXT = 4_000  # characters of a message; a log's last lines are among them

Count = Annotated[int, Field(ge=0, lt=2**31)]
Files = Annotated[tuple[PayloadFile, ...], Field(max_length=_MAX_FILES)]


@dataclass(frozen=True)
class Staging:
    """Where one hand-over lies. Keys; prefixes end in a slash.

    Attributes:
        run: Its name.
    """

    run: str

    @property
    def root(self) -> str:
        """Prefix of all."""
        return paths.staging(self.run)

    @property
    def request(self) -> str:
        """Key of the request."""
        return f"{self.root}request.json"

    @property
    def pulse(self) -> str:
        """Key of the worker's pulse."""
        return f"{self.root}pulse.json"

    @property
    def result(self) -> str:
        """Key of the result."""
        return f"{self.root}result.json"

    def files(self, what: str) -> str:
        """Prefix of `native`, `cases`, `samples` or `converted`."""
        return f"{self.root}{what}/"


@dataclass(frozen=True)
class HandoverRequest:
    """What the worker is asked for.

    Attributes:
        model: Its name.
        spec: The normal form of the spec in force.
        signatures: Those of the native variant.
        records: How many warm-up records it has.
        rows: How many of the rows are no repetition.
        answers: How many cases were answered.
        native: Its files.
        cases: The files with requests and answers.
        samples: The .npz file with the labels; none where no quality is asked for.
        asked_by: The run that waits.
        tensorflow: The version it exported with.
        schema_version: Of this document.
    """

    model: str
    spec: dict[str, Any]
    signatures: tuple[Signature, ...]
    records: Count
    rows: Count
    answers: Count
    native: Files
    cases: Files
    samples: Files
    asked_by: Run
    tensorflow: str
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """The document as it is stored."""
        return _REQUEST.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> HandoverRequest:
        """Reads a request.

        Raises:
            FormatError: If it is none, or names a file that could lie elsewhere.
        """
        request = read(_REQUEST, data, key=key, what="a request for a conversion")
        _check_files((*request.native, *request.cases, *request.samples), key)
        return request


@dataclass(frozen=True)
class Pulse:
    """That the worker lives.

    Attributes:
        worker: Its flow run.
        beat: Counts up, so that each is another document.
        write_id: Tells this worker from any other of the same run.
        schema_version: Of this document.
    """

    worker: Run
    write_id: str
    beat: int = 0
    schema_version: int = SCHEMA_VERSION

    def next(self) -> Pulse:
        """The next of the same worker."""
        return replace(self, beat=self.beat + 1)

    def to_json(self) -> bytes:
        """The document as it is stored."""
        return _PULSE.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Pulse:
        """Reads a pulse.

        Raises:
            FormatError: If it is none.
        """
        return read(_PULSE, data, key=key, what="a worker's pulse")


@dataclass(frozen=True)
class ErrorDocument:
    """An error as it crosses. Its class does not: what it tells the caller to do, it told the worker.

    Attributes:
        message: See SlipwayError.
        hint: See SlipwayError.
    """

    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: SlipwayError) -> ErrorDocument:
        """The document of an error."""
        return cls(error.message, error.hint)

    def error(self, where: str) -> ConversionError:
        """The error to raise on this side.

        Args:
            where: Who met with it.
        """
        hint = printable(self.hint[:_MAX_TEXT]) if self.hint else None
        return ConversionError(f"{where}: {printable(self.message[:_MAX_TEXT])}", hint=hint)


@dataclass(frozen=True)
class ConvertedDocument:
    """What was converted.

    Attributes:
        variant: Name, files and accelerator.
        checks: Every check that was made on it.
        stages: What took how long.
    """

    variant: Variant
    checks: tuple[Check, ...]
    stages: tuple[StageTime, ...]


@dataclass(frozen=True)
class HandoverResult:
    """What the worker answers: one of the two.

    Attributes:
        converted: What came of it.
        error: Why nothing did.
        schema_version: Of this document.
    """

    converted: ConvertedDocument | None = None
    error: ErrorDocument | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """The document as it is stored."""
        return _RESULT.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> HandoverResult:
        """Reads a result.

        Raises:
            FormatError: If it is none, or names a file that could lie elsewhere.
        """
        result = read(_RESULT, data, key=key, what="the result of a conversion")
        if (result.converted is None) == (result.error is None):
            raise FormatError(
                f"{key} is not the result of a conversion: expected a variant or an error, found both or none"
            )
        if result.converted:
            _check_files(result.converted.variant.files, key)
        return result


def in_upload_order(files: tuple[PayloadFile, ...]) -> tuple[PayloadFile, ...]:
    """A variant's files in the order in which they are published, whatever order they were told in."""
    by_path = {file.path: file for file in files}
    return tuple(by_path[path] for path in upload_order(by_path))


def _check_files(files: tuple[PayloadFile, ...], key: str) -> None:
    try:
        for file in files:
            paths.check_key(file.path)
    except InvalidInputError as error:
        raise FormatError(f"{key} names a file that is none of a hand-over: {error.message}") from None


_REQUEST = TypeAdapter(HandoverRequest)
_PULSE = TypeAdapter(Pulse)
_RESULT = TypeAdapter(HandoverResult)
