"""PromQL that is put together from names: whatever they hold, they stay names. Pure.

https://prometheus.io/docs/prometheus/latest/querying/basics/#string-literals
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from model_registry.errors import InvalidInputError

# What a check may ask for, and what each may be: nothing that ends a string or a name in any kind of PromQL's quotes.
NAMES = ("model", "version", "baseline", "window")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# `$1` and `${1}` are left alone: label_replace() has them, and a regular expression ends in a bare `$`.
_PLACE = re.compile(r"\$(?:(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\})")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def quoted(text: str) -> str:
    """The text as a string literal.

    Raises:
        InvalidInputError: If it has a surrogate, which no label's value has.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{text!r} is no text that a label can have") from None
    # Go's escapes: control characters by number, so that none is left that could end the line.
    return '"' + "".join(_escaped(character) for character in text) + '"'


def selector(metric: str, labels: Mapping[str, str], **one_of: Iterable[str]) -> str:
    """A selector of an instant vector.

    Args:
        metric: Its name, by which all other characters than of names are refused.
        labels: What each label is.
        one_of: What a label may be instead: any of these.

    Raises:
        InvalidInputError: If the metric or a label has no name that Prometheus has.
    """
    for name in (*labels, *one_of):
        if not _LABEL.fullmatch(name) or name == "__name__":
            raise InvalidInputError(f"{name[:100]!r} is no name of a label: expected letters, digits and '_'")
    if not _LABEL.fullmatch(metric):
        raise InvalidInputError(f"{metric[:100]!r} is no name of a metric: expected letters, digits and '_'")
    matchers = [f"{name}={quoted(value)}" for name, value in labels.items()]
    # Python escapes all that is not alphanumeric, and a backslash before any of those means it itself in RE2 too.
    matchers += [f"{name}=~{quoted('|'.join(map(re.escape, values)))}" for name, values in one_of.items()]
    return f"{metric}{{{','.join(matchers)}}}"


def duration(seconds: float) -> str:
    """A duration, to the millisecond; 1 ms at least, since PromQL has none of 0."""
    return f"{max(1, round(seconds * 1000))}ms"


def filled_in(promql: str, values: Mapping[str, str]) -> str:
    """A check of an operator's own, with `$model`, `$version`, `$baseline` and `$window` (or `${model}`...) filled in.

    Raises:
        InvalidInputError: If it names another, or a value has characters that none of the four has.
    """
    for name, value in values.items():
        if not _NAME.fullmatch(value):
            raise InvalidInputError(f"${name} is {value[:100]!r}: expected letters, digits, '.', '_' and '-'")

    def value_of(place: re.Match[str]) -> str:
        name = place["plain"] or place["braced"]
        if name not in NAMES or name not in values:
            raise InvalidInputError(
                f"the check names ${name}: expected one of {', '.join('$' + known for known in NAMES)}",
                hint=f"it reads: {promql}",
            )
        return values[name]

    return _PLACE.sub(value_of, promql)


def _escaped(character: str) -> str:
    if character in '\\"':
        return "\\" + character
    if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 or character in "\u2028\u2029":
        return f"\\u{ord(character):04x}"
    return character
