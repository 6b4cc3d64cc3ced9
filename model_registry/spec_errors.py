"""Turns what pydantic says about a package.yaml into what its author can act on. Pure.

Every problem is one line: where it is as people write the path, what was expected, what was found, and
the nearest valid word where a word is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from model_registry.errors import InvalidInputError

Location = tuple[int | str, ...]

_SHOWN = 20
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a mapping",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}
_BOUNDS = {"greater_than": "above {gt:g}", "greater_than_equal": "{ge:g} or more", "less_than_equal": "at most {le:g}"}


def expected(what: str) -> PydanticCustomError:
    """For a validator: the value is not `what`. What was found is added by `invalid_spec`."""
    return PydanticCustomError("expected", "expected {what}", {"what": what})


def refused(message: str) -> PydanticCustomError:
    """For a validator: a message that says everything, what was found included."""
    return PydanticCustomError("refused", "{what}", {"what": message})


def found(value: object) -> str:
    """Shows a value as somebody who writes YAML would name it, in at most about 80 characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_shorten(repr(value))}"
    if isinstance(value, int):
        # Python refuses to print a whole number of more than 4,300 digits.
        return "a huge number" if value.bit_length() > 200 else f"the number {value}"
    if isinstance(value, float):
        return f"the number {value}"
    if isinstance(value, Mapping):
        if not value:
            return "an empty mapping"
        return _shorten("a mapping with " + ", ".join(repr(key) for key in list(value)[:10]), 80)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return f"a list of {len(value)}" if value else "an empty list"
    return f"the {type(value).__name__} {_shorten(str(value))}"


def nearest(word: object, valid: Sequence[str]) -> str:
    """Returns `; did you mean 'x'?` for the valid word closest to a wrong one, else an empty string."""
    close = get_close_matches(word[:100], valid, n=1, cutoff=0.6) if isinstance(word, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def invalid_spec(
    error: ValidationError,
    *,
    where: str,
    schema: Mapping[str, Any],
    line_of: Callable[[Location], int | None] = lambda _location: None,
) -> InvalidInputError:
    """Makes one error of all that pydantic found.

    Args:
        error: What pydantic raised.
        where: The file's name, or what else the values came from.
        schema: JSON schema of the model, for the keys and words that are valid at a place.
        line_of: Tells the line of a place in the file, from 1, or None.

    Returns:
        An error with the first problem in its head and the others on lines below.
    """
    details = sorted(error.errors(include_url=False), key=lambda detail: _reading_order(detail, line_of))
    problems = [_problem(detail, schema, line_of) for detail in details[:_SHOWN]]
    lines = [f"{where}: {problems[0]}", *(f"  {problem}" for problem in problems[1:])]
    if len(details) > _SHOWN:
        lines.append(f"  and {len(details) - _SHOWN} more")
    return InvalidInputError("\n".join(lines))


def _reading_order(detail: ErrorDetails, line_of: Callable[[Location], int | None]) -> tuple[bool, int]:
    # From the top of the file down, and last what is not there: a misspelt key often explains it.
    return detail["type"] == "missing", line_of(_place(detail)) or 0


def _place(detail: ErrorDetails) -> Location:
    # pydantic marks a key that is wrong in itself by a last part of this name.
    return tuple(part for part in detail["loc"] if part != "[key]")


def _problem(detail: ErrorDetails, schema: Mapping[str, Any], line_of: Callable[[Location], int | None]) -> str:
    location = _place(detail)
    missing = detail["type"] == "missing"
    line = line_of(location[:-1] if missing else location)
    at = [f"line {line}"] if line else []
    if location:
        at.append(_path(location))
    return ": ".join([", ".join(at), _verdict(detail, location, schema)]) if at else _verdict(detail, location, schema)


def _verdict(detail: ErrorDetails, location: Location, schema: Mapping[str, Any]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "expected a value, found nothing; this key is required"
    if kind == "extra_forbidden":
        keys = sorted(_at(schema, location[:-1]).get("properties", {}))
        return f"unknown key{nearest(location[-1], keys)}; expected one of {', '.join(keys)}".replace("?;", "?")
    if kind == "invalid_key":
        return f"expected a key that is text, found {found(value)}"
    if kind == "literal_error":
        node = _at(schema, location)
        words = [str(word) for word in node.get("enum", [node.get("const")])]
        return f"expected {_either(words)}, found {found(value)}{nearest(value, words)}"
    if kind == "refused":
        return str(context["what"])
    if kind == "expected":
        return f"expected {context['what']}, found {found(value)}"
    if kind in _BOUNDS:
        return f"expected a number {_BOUNDS[kind].format(**context)}, found {found(value)}"
    if kind == "value_error":
        return str(context["error"])
    if kind in _EXPECTED:
        quote = "; put it in quotes" if kind == "string_type" and _is_plain_scalar(value) else ""
        return f"expected {_EXPECTED[kind]}, found {found(value)}{quote}"
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, found {found(value)}"


def _at(schema: Mapping[str, Any], location: Location) -> Mapping[str, Any]:
    """The part of a JSON schema that speaks of a place; empty where there is none."""

    def resolve(node: Mapping[str, Any]) -> Mapping[str, Any]:
        while True:
            if "$ref" in node:
                node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
            elif "anyOf" in node:  # only ever `X or null`
                node = next(choice for choice in node["anyOf"] if choice.get("type") != "null")
            else:
                return node

    node = resolve(schema)
    for part in location:
        if isinstance(part, int):
            step = node.get("items")
        else:
            step = node.get("properties", {}).get(part, node.get("additionalProperties"))
        if not isinstance(step, Mapping):
            return {}
        node = resolve(step)
    return node


def _path(location: Location) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." * bool(text) + (part if re.fullmatch(r"[\w/-]{1,80}", part) else _shorten(repr(part)))
    return text


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _is_plain_scalar(value: object) -> bool:
    return value is not None and not isinstance(value, Mapping | list | tuple | set)


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
