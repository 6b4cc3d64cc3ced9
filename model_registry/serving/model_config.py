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

from model_registry.errors import FormatError

_HEADER = "# Written by slipway sync, which writes it anew: edit the labels in the registry instead.\n"
_MODEL = re.compile(
    r'  config \{\n    name: (?P<name>"[^\n]*")\n    base_path: (?P<base_path>"[^\n]*")\n    model_platform: "tensorflow"\n'
    r"    model_version_policy \{\n      specific \{\n(?P<versions>(?:        versions: \d{1,18}\n)+)      \}\n    \}\n"
    r"(?P<labels>(?:    version_labels \{ key: \"[^\n]*\" value: \d{1,18} \}\n)*)  \}\n"
)
_VERSION = re.compile(r"versions: (\d+)")
_LABEL = re.compile(r'version_labels \{ key: ("[^\n]*") value: (\d+) \}')


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
        if not self.versions or list(self.versions) != sorted({*self.versions}):
            raise ValueError(f"{self.name}: expected ascending versions, at least one, found {self.versions}")
        if unknown := {*self.labels.values()} - {*self.versions}:
            raise ValueError(f"{self.name}: a label names {min(unknown)}, which is not among {self.versions}")


def to_text(models: Iterable[ServedModel]) -> str:
    """The file's content, the models and labels sorted by name, so that the same set always makes the same bytes."""
    entries = "".join(map(_entry, sorted(models, key=lambda model: model.name)))
    return f"{_HEADER}model_config_list {{\n{entries}}}\n"


def from_text(text: str, *, path: str) -> tuple[ServedModel, ...]:
    """Reads what `to_text` wrote.

    Args:
        text: The file's content.
        path: Where it was found, for the message.

    Raises:
        FormatError: If it is anything else.
    """
    models = tuple(map(_read, _MODEL.finditer(text)))
    try:
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
    return (
        f"  config {{\n    name: {_quoted(model.name)}\n    base_path: {_quoted(model.base_path)}\n"
        f'    model_platform: "tensorflow"\n    model_version_policy {{\n      specific {{\n{versions}      }}\n    }}\n'
        f"{labels}  }}\n"
    )


def _read(found: re.Match[str]) -> ServedModel:
    try:
        return ServedModel(
            name=_unquoted(found["name"]),
            base_path=_unquoted(found["base_path"]),
            versions=tuple(int(version) for version in _VERSION.findall(found["versions"])),
            labels={_unquoted(label): int(version) for label, version in _LABEL.findall(found["labels"])},
        )
    except ValueError:  # the text as a whole is refused then
        return ServedModel("?", "?", (0,))


def _quoted(text: str) -> str:
    r"""A string of the text format: octal escapes of UTF-8 bytes, of which `\"` and `\\` are the readable ones."""
    escaped = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{escaped}"'


def _unquoted(text: str) -> str:
    raw = re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found[1], 8)]), text[1:-1].encode())
    return raw.decode()
