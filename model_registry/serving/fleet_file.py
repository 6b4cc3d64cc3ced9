"""Reads a fleet.yaml: an untrusted file in, a checked description out."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from model_registry import plain_yaml
from model_registry.serving.fleet import FleetFile
from model_registry.spec_errors import invalid_spec

_KIND = plain_yaml.Kind(
    noun="fleet file",
    usual="fleet.yaml",
    option="--fleet",
    required="fleets",
    example="fleets: {stable: {}}",
)


def load_fleet(path: Path) -> FleetFile:
    """Reads a fleet.yaml.

    Raises:
        InvalidInputError: If it cannot be read, is no YAML, or says something impossible; every problem
            is named with its line.
    """
    return parse_fleet(plain_yaml.read(path, _KIND), path.name)


def parse_fleet(data: bytes, name: str) -> FleetFile:
    """Reads what a fleet.yaml holds.

    Args:
        data: Its bytes.
        name: Its name, for messages.

    Raises:
        InvalidInputError: As `load_fleet` does.
    """
    document = plain_yaml.parse(data, name, _KIND)
    try:
        return FleetFile.model_validate(document.content)
    except ValidationError as error:
        schema = FleetFile.model_json_schema()
        raise invalid_spec(error, where=name, schema=schema, line_of=document.line_of) from None
