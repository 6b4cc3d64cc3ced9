"""The server's `models.config`: which versions of which models it loads, and what its labels name. Pure.

Rules, as TensorFlow Serving 2.17 keeps them:

- A model that is left out is unloaded.
- A label may name a version only once the server has it AVAILABLE. On a reload, one label that does not takes the
  whole file with it, on every poll; so a version is added by one writing and named by a later one.
- The file is applied anew at each poll; whoever reconfigures the server over gRPC is undone by it.

The text is ModelServerConfig's text format (tensorflow_serving/config/model_server_config.proto), written without
TensorFlow. It is read back too, by an agent that was restarted: only in the form that is written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from model_registry.errors import FormatError

_HEADER = "# Written by slipway sync, which writes it anew: edit the labels in the registry instead.\n"
_ENTRY = """\
  config {{
    name: {name}
    base_path: {base_path}
    model_platform: "tensorflow"
    model_version_policy {{
      specific {{
{versions}      }}
    }}
{labels}  }}
"""
_MODEL = re.compile(
    re.escape(_ENTRY.format(name="NAME", base_path="BASE", versions="VERSIONS", labels="LABELS"))
    .replace("NAME", r'(?P<name>"[^\n]*")')
    .replace("BASE", r'(?P<base_path>"[^\n]*")')
    .replace("VERSIONS", r"(?P<versions>(?: *versions: [0-9]{1,18}\n)+)")
    .replace("LABELS", r'(?P<labels>(?: *version_labels \{ key: "[^\n]*" value: [0-9]{1,18} \}\n)*)')
)
_VERSION = re.compile(r"versions: ([0-9]+)")
_LABEL = re.compile(r'version_labels \{ key: ("[^\n]*") value: ([0-9]+) \}')


@dataclass(frozen=True)
class ServedModel:
    """One model as a server is told to serve it.

    Attributes:
        name: Its name.
        base_path: The directory that holds the versions' directories, as the server sees it.
        versions: Which of them are loaded, ascending, at least one.
        labels: The version that each label names, one of `versions` each.
    """

    name: str
    base_path: str
    versions: tuple[int, ...]
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if list(self.versions) != sorted({*self.versions}) or not self.versions or self.versions[0] < 1:
            raise ValueError(f"{self.name}: expected ascending versions from 1, at least one, found {self.versions}")
        if unknown := {*self.labels.values()} - {*self.versions}:
            raise ValueError(f"{self.name}: a label names {min(unknown)}, which is not among {self.versions}")


def to_text(models: Iterable[ServedModel]) -> str:
    """The file's content, the models and labels sorted by name, so that the same set always makes the same bytes."""
    by_name = sorted(models, key=lambda model: model.name)
    if twice := {one.name for one, other in pairwise(by_name) if one.name == other.name}:
        raise ValueError(f"{min(twice)}: expected one entry, found more")
    entries = "".join(map(_entry, by_name))
    return f"{_HEADER}model_config_list {{\n{entries}}}\n"


def from_text(text: str, *, path: str) -> tuple[ServedModel, ...]:
    """Reads what `to_text` wrote.

    Args:
        text: The file's content.
        path: Where it was found, for the message.

    Raises:
        FormatError: If it is anything else.
    """
    try:
        models = tuple(map(_read, _MODEL.finditer(text)))
        if to_text(models) == text:
            return models
    except ValueError as error:
        raise FormatError(f"{path} contradicts itself: {error}", hint=_REMOVE) from None
    raise FormatError(f"{path} is not as slipway sync writes it: somebody else wrote there", hint=_REMOVE)


_REMOVE = "the agent owns this file; remove it, and the agent writes it from what it last saw the server serve"


def _entry(model: ServedModel) -> str:
    versions = "".join(f"        versions: {version}\n" for version in model.versions)
    labels = "".join(
        f"    version_labels {{ key: {_quoted(label)} value: {version} }}\n"
        for label, version in sorted(model.labels.items())
    )
    return _ENTRY.format(name=_quoted(model.name), base_path=_quoted(model.base_path), versions=versions, labels=labels)


def _read(found: re.Match[str]) -> ServedModel:
    return ServedModel(
        name=_unquoted(found["name"]),
        base_path=_unquoted(found["base_path"]),
        versions=tuple(int(version) for version in _VERSION.findall(found["versions"])),
        labels={_unquoted(label): int(version) for label, version in _LABEL.findall(found["labels"])},
    )


def _quoted(text: str) -> str:
    """A string of the text format: UTF-8, and in octal what is not printable ASCII, a quote or a backslash."""
    escaped = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{escaped}"'


def _unquoted(text: str) -> str:
    raw = re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found[1], 8)]), text[1:-1].encode())
    return raw.decode()
