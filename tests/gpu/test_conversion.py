"""Real conversions, end to end by the command line. Nothing of this has a meaning without a GPU and TensorRT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.packaged import BATCH_SIZES, ROOT, Packaged

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(5_400), pytest.mark.xdist_group("gpu")]

MODELS = ("resnet50", "efficientnet_b0", "transformer")
GUARD_RAILS = ("engines", "coverage", "graph size", "engines built", "engine assets")

Package = Callable[[str], Packaged]


@pytest.fixture(params=MODELS)
def packaged(request: pytest.FixtureRequest, package: Package) -> Packaged:
    return package(request.param)


def ask(saved_model: Path, rows: int) -> dict[str, Any]:
    """What a process answers in which no engine may fall back to its native segment."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.ask", str(saved_model), str(rows)],
        cwd=ROOT,
        env={**os.environ, "TF_TRT_ALLOW_ENGINE_NATIVE_SEGMENT_EXECUTION": "False"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    # An engine that aborts the process is an answer too.
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-2_000:]}


def test_both_variants_are_published(packaged: Packaged) -> None:
    assert packaged.outcome.code == 0, f"{packaged.outcome.stdout}\n{packaged.outcome.stderr}"
    assert set(packaged.outcome.document["variants"]) == {"native", packaged.accelerator.variant}
    assert packaged.outcome.document["verdict"] == "blessed"


def test_engines_were_built_and_saved(packaged: Packaged, note: Callable[[Packaged], None]) -> None:
    checks = packaged.checks
    note(packaged)

    assert [name for name in GUARD_RAILS if not checks[name]["passed"]] == []
    assert checks["engines"]["measured"] >= 1
    assert checks["engines built"]["measured"] == checks["engines"]["measured"]
    engines = list(packaged.saved_model.rglob("trt-serialized-engine*"))
    assert len(engines) == checks["engine assets"]["measured"]
    assert all(path.stat().st_size for path in engines)


def test_its_answers_were_held_against_the_trained_models(packaged: Packaged) -> None:
    checks = packaged.checks

    for kind in ("parity/", "finite/"):
        assert [check["passed"] for name, check in checks.items() if name.startswith(kind)] == [True]
    remarks = [check["detail"] for name, check in checks.items() if name.startswith("parity/")]
    assert remarks == [""], "engines that answer every row the same would have passed"
    assert checks["signatures"]["passed"]
    assert checks["warm-up replay"]["measured"] == len(BATCH_SIZES)


def test_the_manifest_tells_what_the_engines_fit(packaged: Packaged) -> None:
    (variant,) = [item for item in packaged.manifest["variants"] if item["name"] != "native"]

    assert variant["name"] == packaged.accelerator.variant
    assert variant["accelerator"] == asdict(packaged.accelerator)


@pytest.mark.parametrize("rows", [1, 20, 32])
def test_every_batch_size_within_the_profiles_is_answered_by_engines(packaged: Packaged, rows: int) -> None:
    assert ask(packaged.saved_model, rows) == {"rows": [rows], "finite": True}


def test_a_batch_outside_of_the_profiles_is_an_error_without_the_native_fallback(packaged: Packaged) -> None:
    assert "error" in ask(packaged.saved_model, 2 * BATCH_SIZES[-1])


def test_the_speed_up_is_recorded_for_each_batch_size(package: Package) -> None:
    checks = package("resnet50").checks

    found = [check for name, check in checks.items() if name.startswith("speed-up/serving_default/")]
    assert [check["check"].rsplit("/", 1)[1] for check in found] == [str(size) for size in BATCH_SIZES]
    for check in found:
        assert check["measured"] > 0
        assert check["threshold"] == "recorded"


def test_a_model_that_overflows_in_half_precision_is_refused(package: Package) -> None:
    packaged = package("overflow")

    assert packaged.outcome.code == 3, f"{packaged.outcome.stdout}\n{packaged.outcome.stderr}"
    assert not packaged.registry.joinpath("registry", "overflow", "versions").exists()
