"""The export alone, ours against `keras.Model.export`, alternating in one process.

python -m benchmarks.export_alone MODEL.keras ROUNDS
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import keras

from tasks.model_process import exporting, signatures
from tasks.model_process.endpoints import keras_endpoint


def ours(model: keras.Model, directory: Path) -> None:
    """Traces and saves as the pipeline does."""
    signature = signatures.trace("serving_default", None, keras_endpoint(model))
    exporting.export(model, [signature], directory)


def theirs(model: keras.Model, directory: Path) -> None:
    """Keras' own."""
    model.export(directory, verbose=False)


def main() -> None:
    """Prints the median seconds and the bytes of each way as JSON."""
    source, rounds = Path(sys.argv[1]), int(sys.argv[2])
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as work:
        for _ in range(rounds):
            for name, export in (("ours", ours), ("theirs", theirs)):
                model = keras.models.load_model(source, compile=False)  # a fresh one: nothing traced before
                directory = Path(work) / name
                started = time.perf_counter()
                export(model, directory)
                seconds[name].append(time.perf_counter() - started)
                sizes[name] = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
                shutil.rmtree(directory)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    document = {f"{name}_seconds": value for name, value in medians.items()}
    print(json.dumps(document | {f"{name}_bytes": size for name, size in sizes.items()}))


if __name__ == "__main__":
    main()
