"""Converting on this machine, as a rehearsal: the real rewrite, no engine; and what is said where nobody can."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import psutil
import pytest

from flows.cli import main
from model_registry.errors import ConversionError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.servable import NATIVE, TENSORRT_FP16
from model_registry.spec import PackageSpec
from model_registry.variants import REHEARSAL
from tasks.conversion import Candidate, convert
from tests.support.command import Outcome, assert_no_process_in, scratch_of
from tests.support.prefect_processes import PrefectServer

pytestmark = pytest.mark.xdist_group("prefect-workers")

NOBODY = (
    "this machine has no GPU that TensorFlow may use, "
    "and no Prefect API is configured that could name a worker with one"
)


@pytest.fixture
def folder(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with models in it; no process may be left there afterwards."""
    folder = tmp_path / "work"
    shutil.copytree(models, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield folder
    assert_no_process_in(tmp_path)
    assert sorted(scratch_of(folder).iterdir()) == []


@pytest.fixture
def rehearsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_CONVERSION", "rehearsal")


def called(server: PrefectServer, *arguments: str) -> Outcome:
    """Calls the command in this process, beside the server that is running; nothing tells it of workers."""
    with server.connected():
        result = click.testing.CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def failed_checks(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(check["variant"], check["check"]) for check in document["checks"] if not check["passed"]}


def test_what_must_be_converted_where_nobody_can_fails_before_any_work(
    folder: Path, prefect_server: PrefectServer
) -> None:
    before = sorted(folder.rglob("*"))
    (folder / "package.yaml").write_text("model: deep\nsource: deep.keras\nvariants: {tensorrt-fp16: {}}\n")

    for arguments in (["deep.keras", "--variant", TENSORRT_FP16], ["--spec", "package.yaml"]):
        outcome = called(prefect_server, "package", *arguments)

        assert (outcome.code, outcome.error["class"]) == (1, "ConversionError")
        asked = "tensorrt-fp16 was asked for and cannot be converted, nothing was done"
        assert outcome.error["message"] == f"{asked}: {NOBODY}"
        assert "PREFECT_API_URL" in outcome.error["hint"]
    (folder / "package.yaml").unlink()
    assert sorted(folder.rglob("*")) == before


def test_the_default_set_is_native_where_nobody_can_convert_and_a_rehearsal_is_never_taken_for_it(
    folder: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = called(prefect_server, "package", "deep.keras").document

    assert (first["version"], list(first["variants"]), first["missing"]) == (1, [NATIVE], {TENSORRT_FP16: NOBODY})
    assert "convert" not in [stage["stage"] for stage in first["stages"]]
    registry = Registry.open(str(folder / "registry"))
    assert registry.get(Reference("deep")).missing == {TENSORRT_FP16: NOBODY}

    monkeypatch.setenv("SLIPWAY_CONVERSION", "rehearsal")
    second = called(prefect_server, "package", "deep.keras", "--variant", TENSORRT_FP16).document

    assert (second["version"], second["reused"], list(second["variants"])) == (2, False, [NATIVE, REHEARSAL])
    assert second["variants"][REHEARSAL]["rehearsal"] and second["variants"][REHEARSAL]["accelerator"] is None
    assert [stage["stage"] for stage in second["stages"]][-3:] == ["estimate", "convert", "publish"]
    assert second["missing"] == {}
    checks = {(check["variant"], check["check"]) for check in second["checks"]}
    assert {(REHEARSAL, "engines"), (REHEARSAL, "coverage"), (REHEARSAL, "parity/serving_default/y")} <= checks
    assert {(NATIVE, "parity/serving_default/y"), (TENSORRT_FP16, "fp16 estimate overflow")} <= checks
    assert registry.verify(registry.get(Reference("deep", version=2))) == []
    assert not (folder / "registry" / "staging").exists()
    again = called(prefect_server, "package", "deep.keras").document
    assert (again["version"], again["reused"]) == (2, True)

    monkeypatch.delenv("SLIPWAY_CONVERSION")
    plain = called(prefect_server, "package", "deep.keras").document
    assert (plain["version"], plain["reused"], plain["missing"]) == (1, True, {TENSORRT_FP16: NOBODY})

    monkeypatch.setenv("SLIPWAY_CONVERSION", "rehearsal")
    converted = called(prefect_server, "convert", "deep:1", "--label", "stable").document
    once_more = called(prefect_server, "convert", "deep:1").document

    assert (converted["version"], list(converted["variants"])) == (3, [NATIVE, REHEARSAL])
    assert converted["variants"][NATIVE]["digest"] == first["variants"][NATIVE]["digest"]
    compared = [check for check in converted["checks"] if check["check"] == "parity/serving_default/y"]
    assert ["native variant's own answers" in check["detail"] for check in compared] == [False, True]
    assert (once_more["version"], once_more["reused"]) == (3, True)
    assert registry.state("deep").labels == {"stable": 3}
    third = registry.get(Reference("deep", version=3))
    assert third.source == registry.get(Reference("deep", version=1)).source
    assert PackageSpec.parse(third.spec).variants.tensorrt_fp16 is not None


@pytest.mark.usefixtures("rehearsing")
def test_a_conversion_that_fails_a_check_is_left_out_where_it_was_welcome_and_rejects_where_it_was_asked_for(
    folder: Path, prefect_server: PrefectServer
) -> None:
    welcome = called(prefect_server, "package", "tiny.keras").document  # one layer is too little for an engine

    assert (welcome["version"], list(welcome["variants"]), failed_checks(welcome)) == (1, [NATIVE], set())
    assert "the conversion was rejected: tensorrt-fp16: fp16 estimate engines" in welcome["missing"][TENSORRT_FP16]
    again = called(prefect_server, "package", "tiny.keras").document
    assert (again["version"], again["reused"], again["missing"]) == (1, True, welcome["missing"])

    asked = called(prefect_server, "package", "tiny.keras", "--variant", NATIVE, "--variant", TENSORRT_FP16)

    assert (asked.code, asked.document["error"]["class"]) == (3, "RejectedError")
    assert "tensorrt-fp16: fp16 estimate engines" in asked.document["error"]["message"]
    assert (TENSORRT_FP16, "fp16 estimate engines") in failed_checks(asked.document)
    assert {check["variant"] for check in asked.document["checks"]} == {NATIVE, TENSORRT_FP16}
    assert [version.version for version in Registry.open(str(folder / "registry")).versions("tiny")] == [1]


# What may become of the child.


def candidate(folder: Path, **timeouts: float) -> Candidate:
    (folder / "cases").mkdir()
    spec = PackageSpec.parse({"model": "m", "timeouts": timeouts})
    return Candidate("m", folder / "saved_model", folder / "cases", (), 1, 1, 1, spec, None)


def send_to_converter(number: signal.Signals) -> None:
    """Waits until this process has a child that converts, and sends it a signal."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process().children(recursive=True):
            try:
                command = child.cmdline()
            except psutil.Error:
                continue
            if "tasks.model_process" in command and "convert" in command:
                child.send_signal(number)
                return
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "hint"), [(signal.SIGABRT, "native code"), (signal.SIGSEGV, "native code"), (signal.SIGKILL, "memory")]
)
def test_a_converter_that_crashes_is_an_error_with_its_log(
    folder: Path, tmp_path: Path, number: signal.Signals, hint: str
) -> None:
    sending = threading.Thread(target=send_to_converter, args=(number,))
    sending.start()
    with pytest.raises(ConversionError) as caught:
        convert(candidate(folder), tmp_path / "conversion", rehearsal=True)
    sending.join()

    assert f"the convert process was killed by {number.name} while it should rewrite" in caught.value.message
    assert "last lines of its log:" in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_conversion_that_takes_too_long_is_ended(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"did not rewrite within 0\.\d+ s, and was ended"):
        convert(candidate(folder, convert=0.5), tmp_path / "conversion", rehearsal=True)
