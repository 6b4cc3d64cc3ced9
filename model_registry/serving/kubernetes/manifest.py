"""One object of Kubernetes with what is to be said about it, and how all of them are written. Pure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

_WIDTH = 118


@dataclass(frozen=True)
class Manifest:
    """One object.

    Attributes:
        content: Its keys and values.
        says: Why it is as it is, for whoever reads the file; paragraphs are divided by an empty line.
    """

    content: dict[str, Any]
    says: str = ""

    @property
    def name(self) -> str:
        """Which object it is, such as `Deployment/tf-serving-stable`."""
        return f"{self.content['kind']}/{self.content['metadata']['name']}"


def to_text(head: str, manifests: Sequence[Manifest]) -> str:
    """A file of several documents, each below what is said about it.

    Args:
        head: What is said about all of them.
        manifests: In the order in which they are to be made.
    """
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda *_: True  # parts that several objects have in common are written out
    written = io.StringIO()
    written.write(_comment(head))
    for manifest in manifests:
        written.write(f"---\n{_comment(manifest.says)}")
        yaml.dump(_in_blocks(manifest.content), written)
    return written.getvalue()


def _comment(text: str) -> str:
    paragraphs = [
        # What is indented is a command or a table, and stays as it is.
        "\n".join(f"# {line}".rstrip() for line in paragraph.splitlines())
        if paragraph.startswith(" ")
        else fill(paragraph, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        for paragraph in text.split("\n\n")
        if paragraph
    ]
    return "\n#\n".join(paragraphs) + "\n" * bool(paragraphs)


def _in_blocks(value: Any) -> Any:
    """With the files inside as people write them, line by line."""
    if isinstance(value, dict):
        return {key: _in_blocks(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in_blocks(inner) for inner in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value
