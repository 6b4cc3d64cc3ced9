"""The zoo's models as they come out of packaging."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras

from tests.support.candidates import Arrays, Candidate, answers_of, prepare
from tests.support.models import CUSTOM_LAYERS, KINDS, Kind


@dataclass(frozen=True)
class Packaged:
    """One of the zoo, as it was saved and as it was packaged."""

    kind: Kind
    model: keras.Model
    file: Path
    candidate: Candidate

    @functools.cached_property
    def answers(self) -> list[Arrays]:
        """What a TF1 Session answers to the warm-up records, asked twice over: the second time with what it kept."""
        return answers_of(self.candidate.directory, self.candidate.requests() * 2)


def package(name: str, directory: Path) -> Packaged:
    """Builds a model, saves it and packages it.

    Args:
        name: Its key in KINDS.
        directory: An empty directory.
    """
    keras.backend.clear_session()  # automatic names count from the beginning
    keras.utils.set_random_seed(0)  # how far rounding reaches depends on the weights
    kind, file = KINDS[name], directory / "zoo.keras"
    with _custom_layers(directory / "code") as code:
        model = kind.build()
        model.save(file)
        candidate = prepare(file, directory / "work", kind.spec, trusted=kind.trusted, code_directory=code)
    return Packaged(kind, model, file, candidate)


@contextmanager
def _custom_layers(directory: Path) -> Iterator[Path]:
    directory.mkdir()
    (directory / "harbour_layers.py").write_text(CUSTOM_LAYERS)
    before = list(sys.path)
    sys.path.insert(0, str(directory))
    try:
        yield directory
    finally:
        sys.path[:] = before
        sys.modules.pop("harbour_layers", None)
