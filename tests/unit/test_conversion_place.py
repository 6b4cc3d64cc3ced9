"""Where a conversion runs, and what is said where it runs nowhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from model_registry.errors import InvalidInputError
from tasks.conversion_place import Here, Nowhere, find_place, gpu_in_sight, rehearsing
from tasks.conversion_pool import api_may_be_configured


@pytest.fixture(autouse=True)
def _nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.chdir(tmp_path)


def test_a_rehearsal_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_CONVERSION", "rehearsal")
    assert find_place("/registry") == Here(None)


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("", False), ("rehearsal", True)])
def test_only_the_one_word_makes_a_rehearsal(value: str | None, expected: bool) -> None:
    assert rehearsing({} if value is None else {"SLIPWAY_CONVERSION": value}) is expected


def test_another_word_is_refused_rather_than_taken_for_a_real_conversion() -> None:
    with pytest.raises(InvalidInputError, match="SLIPWAY_CONVERSION is 'rehersal': expected 'rehearsal'"):
        rehearsing({"SLIPWAY_CONVERSION": "rehersal"})


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("nvidia0", None, True),
        ("nvidia0", "0,1", True),
        ("nvidia0", "-1", False),
        ("nvidia0", "", False),
        ("dxg", None, True),
        ("nvidiactl", None, False),
        ("null", None, False),
    ],
)
def test_a_gpu_is_seen_by_its_device_unless_it_is_hidden(
    tmp_path: Path, device: str, visible: str | None, expected: bool
) -> None:
    (tmp_path / device).touch()
    assert gpu_in_sight({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, tmp_path) is expected


def test_without_gpu_and_prefect_it_is_told_at_once_and_prefect_is_not_imported() -> None:
    before = "prefect" in sys.modules
    place = find_place("s3://bucket/registry")
    assert isinstance(place, Nowhere)
    assert "no GPU that TensorFlow may use, and no Prefect API is configured" in place.reason
    assert "set PREFECT_API_URL" in place.hint
    assert ("prefect" in sys.modules) is before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prefect/profiles.toml", 'active = "team"'),
        ("prefect.toml", "[api]"),
        ("pyproject.toml", "[tool.prefect.api]"),
        (".env", "PREFECT_API_URL=http://prefect:4200/api"),
    ],
)
def test_prefect_is_asked_where_a_file_may_name_its_api(tmp_path: Path, name: str, text: str) -> None:
    assert not api_may_be_configured()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert api_may_be_configured()


def test_files_that_say_nothing_of_prefect_are_no_reason_to_import_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["prefect"]\n')
    (tmp_path / ".env").write_text("AWS_REGION=eu-west-1\n")
    assert not api_may_be_configured()
