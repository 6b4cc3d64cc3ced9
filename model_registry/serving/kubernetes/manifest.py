"""One object of Kubernetes with what is to be said about it, and how all of them are written. Pure."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString, SingleQuotedScalarString

_WIDTH = 118

# kubectl reads YAML 1.1 (https://yaml.org/type/), whose words, numbers and dates are more than those of 1.2 that are
# quoted anyway: `on`, `y`, `012`, `1_000`, `1:30`. What only looks like a number is quoted too.
_NO_STRING_IN_1_1 = re.compile(
    r"y|n|yes|no|on|off|true|false|null|~|=|<<|[-+]?\.(inf|nan)|[-+.]*[0-9][0-9a-fox_:.+ tz-]*", re.IGNORECASE
)


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
        yaml.dump(_unmistakable(manifest.content), written)
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


def _unmistakable(value: Any) -> Any:
    """With the files inside as people write them, line by line, and strings that nobody takes for something else."""
    if isinstance(value, dict):
        return {_unmistakable(key): _unmistakable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unmistakable(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if "\n" in value:
        return LiteralScalarString(value)
    return SingleQuotedScalarString(value) if _NO_STRING_IN_1_1.fullmatch(value) else value
