"""Reads a package.yaml: an untrusted file in, a checked spec out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model_registry import plain_yaml
from model_registry.errors import InvalidInputError, NotFoundError
from model_registry.paths import check_model_name
from model_registry.spec import PackageSpec
from model_registry.spec_errors import invalid_spec
from model_registry.spec_paths import Folder, S3Folder, locate
from model_registry.storage import open_store

_KIND = plain_yaml.Kind(
    noun="spec",
    usual="package.yaml",
    option="--spec",
    required="model",
    example="model: NAME",
    mistaken="the model",
)


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
    return LoadedSpec(parse_spec(plain_yaml.read(path, _KIND), path.name, directory), directory)


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
        data = folder.read(name, limit=plain_yaml.MAX_BYTES)
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
    document = plain_yaml.parse(data, name, _KIND)
    try:
        return PackageSpec.model_validate(document.content, context=folder)
    except ValidationError as error:
        schema = PackageSpec.model_json_schema()
        raise invalid_spec(error, where=name, schema=schema, line_of=document.line_of) from None
