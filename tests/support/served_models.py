"""models.config as a test writes it, and what a server answers for the models in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.support.model_server_processes import RunningServer


def model_entry(
    name: str, base_path: Path, versions: Iterable[int] = (), labels: Mapping[str, int] | None = None
) -> str:
    """A model of a ModelServerConfig; without versions, of the policy that is the server's own."""
    asked = "".join(f" versions: {version}" for version in versions)
    policy = f"model_version_policy {{ specific {{{asked} }} }}" if asked else ""
    named = "".join(
        f' version_labels {{ key: "{label}" value: {version} }}' for label, version in (labels or {}).items()
    )
    return f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {policy}{named} }}'


def write_config(file: Path, *entries: str) -> Path:
    """Replaces the file in one rename, as whoever feeds a server that polls it must."""
    staged = file.with_name(f".{file.name}.tmp")
    staged.write_text(f"model_config_list {{ {' '.join(entries)} }}\n")
    staged.replace(file)
    return file


def answered_version(server: RunningServer, model: str, label: str | None = None) -> int | str:
    """The version that answers a request, or the server's error."""
    path = f"/v1/models/{model}" + (f"/labels/{label}" if label else "")
    status, answer = server.post(f"{path}:predict", {"inputs": [[1.0, 1.0]]})
    return int(answer["outputs"]["version"][0]) if status == 200 else str(answer["error"])
