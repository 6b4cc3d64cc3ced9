"""`make gpu-check`: runs what needs a GPU and TensorRT, and writes docs/gpu.md.

A machine that cannot convert is refused with what it lacks. The page is written only when every test passed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from model_registry.errors import ConversionError
from model_registry.servable import Accelerator
from tasks.model_process import nvidia_driver
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import PREFLIGHT

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gpu.md"

_HEAD = """# On a GPU

Written by `make gpu-check` when all its tests had passed; do not edit. It packages each model with
`slipway package --variant tensorrt-fp16` and a local registry, on one machine.

- Run: {date}, {name}, compute capability {compute_capability}, driver {driver}, CUDA {cuda}, TensorRT {tensorrt}.
- The weights are random. Parity is that of the engines' answers with the Keras model's, in processes where no engine
  may fall back to its native segment.
- Speed: both SavedModels in TensorFlow Sessions, asked in turn; server, network and batching take no part.

"""

Model = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Runs what needs a GPU and TensorRT, and writes docs/gpu.md.")
    parser.add_argument("--driver-only", action="store_true", help="only look whether there is a driver at all")
    if parser.parse_args(arguments).driver_only:
        return _refused("there is no NVIDIA driver", failure) if (failure := nvidia_driver.failure()) else 0
    with tempfile.TemporaryDirectory(prefix="slipway-gpu-check-") as directory:
        work = Path(directory)
        try:
            with ModelProcess(PREFLIGHT, work / PREFLIGHT, failure=ConversionError) as process:
                accelerator, _ = process.result("preflight", Accelerator, 300)
        except ConversionError as error:
            return _refused(error.message, error.hint or "")
        figures = work / "figures"
        command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-n", "0", "-v"]
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        code = subprocess.run(
            [*command, f"--gpus={chosen}", f"--gpu-figures={figures}"], cwd=ROOT, check=False
        ).returncode
        if code:
            print("docs/gpu.md stays as it was: not every test passed", file=sys.stderr)
            return code
        models = [json.loads(line) for line in figures.read_text().splitlines()]
    PAGE.write_text(page(accelerator, models, datetime.now(timezone.utc).date().isoformat()))
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def page(accelerator: Accelerator, models: Sequence[Model], date: str) -> str:
    """The page; pure.

    Args:
        accelerator: What everything ran on.
        models: A name and the converted variant's checks of each.
        date: When, in ISO 8601.
    """
    head = _HEAD.format(
        date=date,
        name=accelerator.name,
        compute_capability=accelerator.compute_capability,
        driver=accelerator.driver,
        cuda=accelerator.cuda,
        tensorrt=accelerator.tensorrt,
    )
    return (
        head
        + _table(
            "Times as fast as native",
            ("model", "signature", "batch", "speed-up", "detail"),
            [row for model in models for row in _speed_ups(model)],
        )
        + "\n"
        + _table(
            "What TF-TRT took, and how well it answers",
            ("model", "engines", "coverage", "largest absolute error", "largest relative error", "same first class"),
            [_quality(model) for model in models],
        )
    )


def _speed_ups(model: Model) -> list[tuple[str, ...]]:
    rows = []
    for check in model["checks"]:
        if check["check"].startswith("speed-up/"):
            signature, size = check["check"].removeprefix("speed-up/").rsplit("/", 1)
            rows.append((model["model"], signature, size, f"{check['measured']:.2f}", check["detail"]))
    return rows


def _quality(model: Model) -> tuple[str, ...]:
    measured = {check["check"]: check["measured"] for check in model["checks"]}
    errors = [value for name, value in measured.items() if name.startswith("parity/") and isinstance(value, dict)]
    absolute, relative = (
        max((error[kind] for error in errors), default=None) for kind in ("max_absolute_error", "max_relative_error")
    )
    agreement = min((value for name, value in measured.items() if name.startswith("top1/")), default=None)
    return (
        model["model"],
        str(measured["engines"]),
        f"{measured['coverage']:.1%}",
        _shown(absolute, ".1e"),
        _shown(relative, ".1e"),
        _shown(agreement, ".1%"),
    )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (columns, ["---"] * len(columns), *rows)
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _refused(what: str, more: str) -> int:
    print(f"make gpu-check needs a machine that can convert: {what}\n{more}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
