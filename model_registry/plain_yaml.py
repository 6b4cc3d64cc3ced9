"""Reads YAML that strangers may have written: package.yaml, fleet.yaml.

YAML by YAML 1.2, where `yes` is text and `1e-5` a number. Anchors, aliases and tags are refused: they
add nothing here, and are how a small file becomes a huge document or an object of a chosen class.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from model_registry.errors import InvalidInputError
from model_registry.spec_errors import Location, found

MAX_BYTES = 1 << 20
_MAX_DEPTH = 20  # the deepest key of any of these files is at 6


@dataclass(frozen=True)
class Kind:
    """Which file is read, for messages.

    Attributes:
        noun: What it is: `spec`.
        usual: How it is called: `package.yaml`.
        option: What it is named by on the command line: `--spec`.
        mistaken: Another file that people give by mistake: `the model`; empty for none.
        required: The key that it needs at least: `model`.
        example: What to write into an empty one.
    """

    noun: str
    usual: str
    option: str
    required: str
    example: str
    mistaken: str = ""


@dataclass(frozen=True)
class Document:
    """What a file says.

    Attributes:
        content: Its keys and values.
        line_of: Tells the line of a place, from 1; of the nearest one around it where the place itself is not there.
    """

    content: Mapping[Any, Any]
    line_of: Callable[[Location], int | None]


def read(path: Path, kind: Kind) -> bytes:
    """The bytes of a file, at most one more than `parse` accepts.

    Raises:
        InvalidInputError: If it is no regular file, or cannot be read.
    """
    try:
        # Not blocking, so that a pipe in the file's place is refused and not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInputError(
                    f"the {kind.noun} {str(path)!r} is no regular file", hint=f"name a {kind.usual}"
                )
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InvalidInputError(
            f"the {kind.noun} {str(path)!r} cannot be read: {reason}",
            hint=f"name a {kind.usual} that is there with {kind.option}",
        ) from None


def parse(data: bytes, name: str, kind: Kind) -> Document:
    """Reads a mapping.

    Args:
        data: The file's bytes.
        name: The file's name, for messages.
        kind: Which file it is.

    Raises:
        InvalidInputError: If it is too large, no UTF-8, no YAML, more than YAML's plain part, or no mapping.
    """
    document, line_of = _parse(_text(data, name, kind), name)
    required = f"expected a mapping with at least the key `{kind.required}`"
    if document is None:
        raise InvalidInputError(f"{name} is empty: {required}", hint=f"write `{kind.example}` into it")
    if not isinstance(document, dict):
        raise InvalidInputError(f"{name}: {required}, found {found(document)}")
    return Document(document, line_of)


def _text(data: bytes, name: str, kind: Kind) -> str:
    if len(data) > MAX_BYTES:
        raise InvalidInputError(f"{name} is too large for a {kind.noun}: expected at most 1 MiB, found more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mistaken = f", not {kind.mistaken}" if kind.mistaken else ""
        raise InvalidInputError(
            f"{name} is not a YAML text: expected UTF-8, found the byte {data[error.start]:#04x} at {error.start}",
            hint=f"{kind.option} names the {kind.usual}{mistaken}",
        ) from None


class _PlainComposer(Composer):
    """Refuses what these files have no use for, before anything is built of it."""

    levels = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent) or event.anchor is not None:
            raise ComposerError(None, None, "anchors and aliases (& and *) are not accepted", event.start_mark)
        if event.tag is not None:
            raise ComposerError(None, None, f"tags are not accepted, found {str(event.tag)[:60]!r}", event.start_mark)
        self.levels += 1
        if self.levels > _MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {_MAX_DEPTH} levels deep", event.start_mark)
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node


def _parse(text: str, name: str) -> tuple[object, Callable[[Location], int | None]]:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _PlainComposer
    try:
        root = yaml.compose(text)
        document = None if root is None else yaml.constructor.construct_document(root)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InvalidInputError(f"{name}{line}: not valid YAML: {error.problem or error.context}") from None
    except YAMLError as error:
        raise InvalidInputError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    except Exception as error:  # noqa: BLE001 - ruamel lets escape whatever building a value raises (a date like 2024-99-99)
        raise InvalidInputError(f"{name}: not valid YAML: {type(error).__name__}: {error}") from None
    return document, lambda location: _line(root, location)


def _line(root: Node | None, location: Location) -> int | None:
    """The line of a place, from 1; of the nearest one around it where the place itself is not there."""
    node, line = root, None
    for part in location:
        if isinstance(node, MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
