"""Asks a SavedModel its first warm-up record with another number of rows: `python -m tests.gpu.ask SAVED_MODEL ROWS`.

Prints one JSON document: the rows that were answered and whether all values are finite, or the error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tasks.model_process import serving, warmup_log


def ask(saved_model: Path, rows: int) -> dict[str, object]:
    """Answers in this process, through a Session."""
    name, feed = warmup_log.feed(next(warmup_log.read_log(saved_model / warmup_log.WARMUP_FILE)))
    batch = {key: np.concatenate([array[:1]] * rows) for key, array in feed.items()}
    with serving.loaded(saved_model) as (session, definitions):
        try:
            answers = serving.answer(session, definitions[name], batch)
        except Exception as error:  # noqa: BLE001 - which one an engine raises is what is asked for
            return {"error": f"{type(error).__name__}: {error}"[:2_000]}
    return {
        "rows": sorted({len(array) for array in answers.values()}),
        "finite": all(bool(np.isfinite(array).all()) for array in answers.values()),
    }


if __name__ == "__main__":
    print(json.dumps(ask(Path(sys.argv[1]), int(sys.argv[2]))))
