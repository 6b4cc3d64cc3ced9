"""What Prometheus' HTTP API answers a query with, read as if anybody had written it. Pure.

https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from model_registry.errors import FormatError, InvalidInputError
from model_registry.rollout.samples import Series

# Told of an expression, not of the data it found: releases 2.48 to 2.55 tell it among the warnings.
_NOTE = "PromQL info:"
_HINT = "is it Prometheus that answers there, or a store with its query API?"


@dataclass(frozen=True)
class Sample:
    """One value of an answer.

    Attributes:
        labels: Of its series; `__name__` may be among them. Empty for a scalar.
        value: May be NaN or infinite.
        time: When it was evaluated, in Unix seconds by Prometheus' clock.
    """

    labels: Mapping[str, str]
    value: float
    time: float


_Point = tuple[FiniteFloat, str]


class _Instant(BaseModel):
    metric: dict[str, str]
    value: _Point


class _Ranged(BaseModel):
    metric: dict[str, str]
    values: list[_Point]


class _Scalar(BaseModel):
    kind: Literal["scalar"] = Field(alias="resultType")
    result: _Point


class _Text(BaseModel):
    kind: Literal["string"] = Field(alias="resultType")


class _Vector(BaseModel):
    kind: Literal["vector"] = Field(alias="resultType")
    result: list[_Instant]


class _Matrix(BaseModel):
    kind: Literal["matrix"] = Field(alias="resultType")
    result: list[_Ranged]


class _Success(BaseModel):
    status: Literal["success"]
    data: Annotated[_Scalar | _Text | _Vector | _Matrix, Field(discriminator="kind")]
    warnings: list[str] | None = None
    partial: bool = Field(False, alias="isPartial")  # as VictoriaMetrics says it


class _Refusal(BaseModel):
    status: Literal["error"]
    kind: str = Field(alias="errorType")
    error: str = ""


_SUCCESS, _REFUSAL = TypeAdapter(_Success), TypeAdapter(_Refusal)


@dataclass(frozen=True)
class Answered:
    """An answer of a kind that Prometheus has.

    Attributes:
        missing: Why it is only a part of one, in the words of whoever answered; empty where it is whole.
    """

    missing: str
    _data: _Scalar | _Text | _Vector | _Matrix

    def samples(self, promql: str) -> tuple[Sample, ...]:
        """Those of an instant vector, or a scalar as one without labels.

        Args:
            promql: What was asked, for messages.

        Raises:
            InvalidInputError: If it is a range vector or a string, for which was asked then.
            FormatError: If a value is no number.
        """
        data = self._data
        if isinstance(data, _Scalar):
            return (Sample({}, _number(data.result[1]), data.result[0]),)
        if isinstance(data, _Vector):
            return tuple(Sample(one.metric, _number(one.value[1]), one.value[0]) for one in data.result)
        found = "a string" if isinstance(data, _Text) else "a range of values"
        raise InvalidInputError(f"{promql[:300]!r} is {found}: expected a value for each series, or a number")

    def series(self) -> tuple[Series, ...]:
        """Those of a range vector.

        Raises:
            FormatError: If it is none, or a value is no number.
        """
        if not isinstance(self._data, _Matrix):
            raise FormatError(f"Prometheus answers with a {self._data.kind}: expected a matrix", hint=_HINT)
        return tuple(
            Series(one.metric, tuple((time, _number(value)) for time, value in one.values)) for one in self._data.result
        )


def read(body: bytes, *, url: str) -> Answered:
    """Reads an answer of status 200.

    Args:
        body: Of the answer.
        url: Who answered, for messages.

    Raises:
        FormatError: If it is none of a query; native histograms, which nothing here counts, are none.
    """
    try:
        success = _SUCCESS.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FormatError(
            f"{url} does not answer as Prometheus does: {where or 'document'}: {first['msg']}", hint=_HINT
        ) from None
    warnings = [warning for warning in success.warnings or () if not warning.startswith(_NOTE)]
    missing = "; ".join(warnings) or ("a part is missing" if success.partial else "")
    return Answered(missing, success.data)


def read_refusal(body: bytes) -> tuple[str, str]:
    """The kind of error and its words, by an answer of another status than 200; no kind where it is not Prometheus'.

    The words are whole, however long: whoever shows them takes secrets out first, and cuts them then.
    """
    try:
        refusal = _REFUSAL.validate_json(body)
    except ValidationError:
        return "", body.decode(errors="replace").strip()
    return refusal.kind, refusal.error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FormatError(f"Prometheus answers with the value {text[:100]!r}: expected a number", hint=_HINT) from None
