"""Drives TF-TRT's rewrite in this process, on packaged models. No engine is built and no TensorRT runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.model_process import exporting, rewriting, wrapping
from tests.support.candidates import Arrays, answers_of

WORKSPACE = 1 << 30


def rewrite(native: Path) -> list[rewriting.Rewritten | rewriting.Native]:
    """All signatures of a SavedModel, as a rehearsal has them."""
    with rewriting.without_gpu():
        return rewriting.rewrite_all(native, exporting.read_signatures(native), workspace=WORKSPACE)


def deconvert(native: Path, directory: Path) -> list[rewriting.Rewritten | rewriting.Native]:
    """Rewrites a SavedModel and writes what comes of it, engines put back."""
    parts = rewrite(native)
    wrapping.save_deconverted(parts, native, directory)
    return parts


def difference(one: Path, other: Path, requests: Sequence[tuple[str, Arrays]]) -> float:
    """How far the answers of two SavedModels lie apart, as `apart` has it.

    Both answer in a TF1 Session, as TensorFlow Serving has it.
    """
    return apart(answers_of(one, list(requests)), answers_of(other, list(requests)))


def apart(ones: Sequence[Arrays], others: Sequence[Arrays]) -> float:
    """How far answers to the same requests lie apart at most, as a share of an output's largest value.

    What is no floating point must be the same.
    """
    most = 0.0
    for mine, theirs in zip(ones, others, strict=True):
        assert sorted(mine) == sorted(theirs)
        for name, wanted in mine.items():
            found = theirs[name]
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), name
            if wanted.dtype.kind == "f" or wanted.dtype.name == "bfloat16":
                wide, narrow = wanted.astype(np.float64), found.astype(np.float64)
                most = max(most, float(np.max(np.abs(wide - narrow)) / np.max(np.abs(wide))))
            else:
                np.testing.assert_array_equal(found, wanted, err_msg=name)
    return most
