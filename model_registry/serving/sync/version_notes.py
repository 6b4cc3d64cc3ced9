"""The notes of which variant lies under a version's number, so that a restart verifies it without the registry."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from model_registry.documents import SCHEMA_VERSION, read
from model_registry.errors import FormatError, InvalidInputError
from model_registry.paths import check_key, check_model_name
from model_registry.servable import Variant
from model_registry.serving.owned_directory import OwnedDirectory

NOTES = ".slipway/versions"

_VERSION = re.compile(r"([1-9][0-9]{0,17})\.json")


@dataclass(frozen=True)
class _Note:
    """Of one version."""

    variant: Variant
    schema_version: int = field(default=SCHEMA_VERSION)


_NOTE = TypeAdapter(_Note)


class VersionNotes:
    """Of one serving directory. Methods raise StorageError where the disk fails, or a symbolic link is met."""

    def __init__(self, place: OwnedDirectory, versions: str) -> None:
        """Reads nothing yet.

        Args:
            place: The directory.
            versions: The directory in it where the versions lie, by model.
        """
        self._place = place
        self._where = versions
        self._known: dict[tuple[str, int], Variant] = {}

    def numbers(self, model: str) -> list[int]:
        """The versions of a model that there are notes of."""
        found = map(_VERSION.fullmatch, self._place.children(f"{NOTES}/{model}"))
        return sorted(int(number[1]) for number in found if number)

    def read(self, model: str, version: int) -> Variant | None:
        """The variant that a version's note tells of; None where there is no note, or nobody's."""
        if found := self._known.get((model, version)):
            return found
        with suppress(FormatError, InvalidInputError):  # then what lies there is nobody's
            name = f"{NOTES}/{check_model_name(model)}/{version}.json"
            linked = (self._place.root / name).is_symlink()  # whoever made it: it was none of us
            data = None if linked else self._place.read(name)
            if data is None:
                return None
            variant = read(_NOTE, data, key=str(self._place.root / name), what="a note of slipway sync").variant
            for file in variant.files:
                check_key(f"{self._where}/{model}/{version}/{file.path}")
            self._known[model, version] = variant
            return variant
        return None

    def write(self, model: str, version: int, variant: Variant) -> None:
        """Notes which variant lies under a version's number, or will in a moment."""
        folder = f"{NOTES}/{check_model_name(model)}"
        self._place.make(folder)
        self._place.replace(f"{folder}/{version}.json", _NOTE.dump_json(_Note(variant), indent=2) + b"\n")
        self._known[model, version] = variant

    def remove(self, model: str, version: int) -> None:
        """Removes a version's note."""
        self._place.remove(f"{NOTES}/{model}/{version}.json")
        self._known.pop((model, version), None)
