"""Reads a package.yaml: an untrusted file in, a checked spec out.

YAML by YAML 1.2, where `yes` is text and `1e-5` a number. Anchors, aliases and tags are refused: they
add nothing here, and are how a small file becomes a huge document or an object of a chosen class.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from model_registry.errors import InvalidInputError, NotFoundError
from model_registry.paths import check_model_name
from model_registry.spec import PackageSpec
from model_registry.spec_errors import Location, found, invalid_spec
from model_registry.spec_paths import Folder, S3Folder, locate
from model_registry.storage import open_store

MAX_BYTES = 1 << 20
_MAX_DEPTH = 20  # the deepest key of a package.yaml is at 6


@dataclass(frozen=True)
class LoadedSpec:
    """A spec and where it was read.

    Attributes:
        spec: The spec; its paths are absolute and its labels read.
        directory: The folder that custom objects are imported from: the spec's, or the working directory; for a
            spec on S3 one that holds nothing, so that only installed modules are found.
    """

    spec: PackageSpec
    directory: Path

    @classmethod
    def without_file(cls, model: str, source: str | None = None) -> LoadedSpec:
        """The default spec of a model that has none; a relative source starts from the working directory.

        Raises:
            InvalidInputError: If the name or the source cannot be used.
        """
        return cls(PackageSpec.default(model), Path.cwd()).overridden(source=source)

    def overridden(self, *, model: str | None = None, source: str | None = None) -> LoadedSpec:
        """The same with what the command line says instead; a relative source starts from the working directory.

        Raises:
            InvalidInputError: If the name or the source cannot be used.
        """
        changes: dict[str, Any] = {}
        if model is not None:
            changes["model"] = check_model_name(model)
        if source is not None:
            try:
                changes["source"] = locate(source, Path.cwd())
            except InvalidInputError as error:
                raise InvalidInputError(f"SOURCE: {error.message}", hint=error.hint) from None
        return replace(self, spec=self.spec.model_copy(update=changes))


def load_spec(path: Path) -> LoadedSpec:
    """Reads a package.yaml and the label files it names.

    Raises:
        InvalidInputError: If it cannot be read, is no YAML, or says something impossible; every problem
            is named with its line.
    """
    directory = path.absolute().parent.resolve()
    return LoadedSpec(parse_spec(_read(path), path.name, directory), directory)


def load_s3_spec(uri: str) -> LoadedSpec:
    """Reads a package.yaml from S3, and the label files it names; its relative paths start from its own folder there.

    Args:
        uri: Such as `s3://bucket/trained/digits/package.yaml`.

    Raises:
        InvalidInputError: As `load_spec` does, if a path leads out of the folder, and if custom objects lie there:
            no code is fetched from a bucket.
        StorageError: If the store fails.
    """
    location = locate(uri, None)
    where, _, name = location.rpartition("/")
    if where == "s3:/" or not name:
        raise InvalidInputError(f"the spec {uri!r} is no URI of an object: expected s3://bucket/path/package.yaml")
    folder = S3Folder(open_store(where))
    folder.store.check(writing=False)  # a read asks an endpoint that does not answer for minutes
    try:
        data = folder.read(name, limit=MAX_BYTES)
    except NotFoundError:
        raise InvalidInputError(
            f"the spec {uri} is not there", hint="name a package.yaml that is there; list with: aws s3 ls"
        ) from None
    spec = parse_spec(data, name, folder)
    if spec.custom_objects:
        beside = folder.names()
        for module in spec.custom_objects:
            top = module.split(".", maxsplit=1)[0]
            if {top, f"{top}.py"} & beside:
                raise InvalidInputError(
                    f"{uri}: `custom_objects` names {module!r}, which lies beside it: no code is fetched from S3",
                    hint="install the module where the model is packaged, or package from a local folder",
                )
    return LoadedSpec(spec, Path(os.devnull))


def parse_spec(data: bytes, name: str, folder: Folder) -> PackageSpec:
    """Reads what a package.yaml holds, and the label files it names.

    Args:
        data: Its bytes.
        name: Its name, for messages.
        folder: Where it lies.

    Raises:
        InvalidInputError: As `load_spec` does.
        StorageError: If the store of a folder on S3 fails.
    """
    document, line_of = _parse(_text(data, name), name)
    if document is None:
        raise InvalidInputError(
            f"{name} is empty: expected a mapping with at least the key `model`", hint="write `model: NAME` into it"
        )
    if not isinstance(document, dict):
        raise InvalidInputError(f"{name}: expected a mapping with at least the key `model`, found {found(document)}")
    try:
        return PackageSpec.model_validate(document, context=folder)
    except ValidationError as error:
        raise invalid_spec(error, where=name, schema=PackageSpec.model_json_schema(), line_of=line_of) from None


def _read(path: Path) -> bytes:
    try:
        # Not blocking, so that a pipe in the file's place is refused and not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInputError(f"the spec {str(path)!r} is no regular file", hint="name a package.yaml")
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InvalidInputError(
            f"the spec {str(path)!r} cannot be read: {reason}", hint="name a package.yaml that is there with --spec"
        ) from None


def _text(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        raise InvalidInputError(f"{name} is too large for a spec: expected at most 1 MiB, found more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{name} is not a YAML text: expected UTF-8, found the byte {data[error.start]:#04x} at {error.start}",
            hint="--spec names the package.yaml, not the model",
        ) from None


class _PlainComposer(Composer):
    """Refuses what a package.yaml has no use for, before anything is built of it."""

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
