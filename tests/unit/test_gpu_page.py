"""docs/gpu.md as `make gpu-check` writes it, and that it is not written without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.gpu_check import PAGE, ROOT, page
from model_registry.servable import Accelerator
from tasks.model_process import nvidia_driver

T4 = Accelerator("Tesla T4", "7.5", "535.104.05", "12.3", "8.6.1")


def check(name: str, measured: Any, detail: str = "") -> dict[str, Any]:
    return {
        "check": name,
        "variant": T4.variant,
        "measured": measured,
        "threshold": 0,
        "passed": True,
        "detail": detail,
    }


RESNET50 = {
    "model": "resnet50",
    "checks": [
        check("engines", 1),
        check("coverage", 0.997),
        check("parity/serving_default/a", {"max_absolute_error": 1e-3, "max_relative_error": 0.02}),
        check("parity/serving_default/b", {"max_absolute_error": 5e-4, "max_relative_error": 0.04}),
        check("top1/serving_default/a", 0.995),
        check("speed-up/serving_default/1", 2.345, "native 6 ms, converted 2.6 ms"),
        check("speed-up/serving_default/32", 4.5, "native 90 ms, converted 20 ms"),
    ],
}
# Its answers are no floats, so it has neither errors nor classes.
COUNTER = {
    "model": "counter",
    "checks": [check("engines", 2), check("coverage", 0.5), check("parity/serving_default/n", 0)],
}


def test_the_page_tells_the_machine_the_speed_ups_and_the_errors() -> None:
    text = page(T4, [RESNET50, COUNTER], "2030-01-02")

    assert "2030-01-02, Tesla T4, compute capability 7.5, driver 535.104.05, CUDA 12.3, TensorRT 8.6.1." in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert rows == [
        "| model | signature | batch | speed-up | detail |",
        "| resnet50 | serving_default | 1 | 2.35 | native 6 ms, converted 2.6 ms |",
        "| resnet50 | serving_default | 32 | 4.50 | native 90 ms, converted 20 ms |",
        "| model | engines | coverage | largest absolute error | largest relative error | same first class |",
        "| resnet50 | 1 | 99.7% | 1.0e-03 | 4.0e-02 | 99.5% |",
        "| counter | 2 | 50.0% | - | - | - |",
    ]


@pytest.mark.parametrize("arguments", [[], ["--driver-only"]])
def test_a_machine_without_a_gpu_is_refused_and_the_page_stays(arguments: list[str]) -> None:
    if arguments and not nvidia_driver.failure():
        pytest.skip("this machine has a driver")
    before = PAGE.read_text()

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", *arguments],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("make gpu-check needs a machine that can convert: ")
    assert "Traceback" not in done.stderr
    assert PAGE.read_text() == before
