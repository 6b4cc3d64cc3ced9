"""`make demo`: train, package, label, show and ask, with the commands a person would type."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SLIPWAY = Path(sys.executable).with_name("slipway")


def main() -> None:
    """Runs the commands one after the other, each shown as it would be typed."""
    spec = os.path.relpath(HERE / "package.yaml")
    print("Training a small CNN on 1,437 handwritten digits ...", flush=True)
    started = time.monotonic()
    trained = [sys.executable, str(HERE / "train.py")]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", **os.environ}
    accuracy = subprocess.run(trained, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.strip()
    print(f"trained in {time.monotonic() - started:.0f} s; {accuracy}")
    label = "digits@stable"
    for arguments in (
        ["package", "--spec", spec, "--label", "stable"],
        ["list", "digits"],
        ["show", label],
        ["predict", label],
    ):
        print(f"\n$ slipway {' '.join(arguments)}", flush=True)
        completed = subprocess.run([SLIPWAY, *arguments], cwd=ROOT, check=False)
        if completed.returncode:
            sys.exit(completed.returncode)
    print("\nNext, package it again and see that nothing is done twice:\n\n  .venv/bin/slipway package --spec", spec)


if __name__ == "__main__":
    main()
