"""The sync agent's image is held against the lock and the project: neither pipeline nor privileges get into it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from model_registry import __version__

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "sync-agent.Dockerfile"
TEXT = FILE.read_text()
HEAVY = {"tensorflow", "keras", "numpy", "prefect", "docker", "grpcio", "tensorflow-serving-api"}


def instructions() -> list[tuple[str, str]]:
    """Instructions in order, lines joined, comments left out."""
    lines = [line for line in TEXT.splitlines() if line and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined]


def last_stage() -> list[tuple[str, str]]:
    """What the image is made of; the stages before it stay behind."""
    found = instructions()
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[last + 1 :]


def installs() -> list[str]:
    return [
        part.strip()
        for name, rest in instructions()
        if name == "RUN"
        for part in rest.split("&&")
        if " install " in part
    ]


def locked(file: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / file).read_text(), re.MULTILINE))


def test_the_lock_that_it_installs_has_nothing_heavy_in_it() -> None:
    into_the_image = [part for part in installs() if "/opt/venv" in part and " -r " in part]

    assert [re.findall(r"-r (\S+)", part) for part in into_the_image] == [["requirements/base.txt"]]
    assert {"boto3", "pydantic", "click", "prometheus-client"} <= locked("base.txt")
    assert not HEAVY & locked("base.txt")


def test_everything_from_the_package_index_is_hashed() -> None:
    from_index = [part for part in installs() if not part.startswith("install") and "--offline" not in part]

    assert len(from_index) == 3
    assert all("--require-hashes" in part for part in from_index)


def test_what_builds_the_project_is_locked_and_stays_behind() -> None:
    (program,) = re.findall(r"sed -n '([^']+)' requirements/pipeline.txt", TEXT)

    taken = subprocess.run(
        ["sed", "-n", program, ROOT / "requirements/pipeline.txt"], capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert re.fullmatch(r"setuptools==[0-9.]+ \\", taken[0])
    assert len(taken) > 1 and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in taken[1:])
    assert [rest for name, rest in last_stage() if name == "COPY"] == ["--from=build /opt/venv /opt/venv"]


def test_everything_it_copies_is_there() -> None:
    sources = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    ours = [source for source in sources if not source.startswith("--from") and not source.startswith("/")]

    assert "pyproject.toml" in ours
    assert [source for source in ours if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("file", ["sync-agent.Dockerfile", "gpu-worker.Dockerfile"])
def test_nothing_that_an_image_copies_is_ignored(file: str) -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "deploy" / file).read_text(), re.MULTILINE)

    assert lines[0] == "*"
    assert {source.split("/")[0] for sources in copied for source in sources.split()} <= sent


def test_it_runs_slipway_as_an_ordinary_user_who_owns_the_models() -> None:
    found = last_stage()
    names = [name for name, _ in found]
    values = dict(found)

    assert values["USER"] == "slipway"
    assert "RUN" not in names[names.index("USER") :]
    assert "--owner=slipway --group=slipway /models" in values["RUN"]
    assert json.loads(values["ENTRYPOINT"]) == ["slipway"]


def test_it_tells_the_version_of_the_project() -> None:
    assert f'org.opencontainers.image.version="{__version__}"' in TEXT


def test_it_names_no_registry_of_packages() -> None:
    assert "://" not in TEXT
