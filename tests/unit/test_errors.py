"""Errors keep what they say on their way through a pickle, as from a Prefect run to whoever asks for its result."""

from __future__ import annotations

import pickle

import pytest

from model_registry.errors import (
    ConflictError,
    ConversionError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    RejectedError,
    SlipwayError,
    StorageError,
)
from model_registry.servable import Blessing, Check

ERRORS = [
    *(
        kind("what was wrong", hint="what to do")
        for kind in (SlipwayError, InvalidInputError, NotFoundError, ConflictError, ConversionError, FormatError)
    ),
    StorageError("away for the moment", transient=True),
    RejectedError("a check failed", blessing=Blessing((Check("parity", "native", 1.0, 0.5, False, "detail"),))),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_a_pickle(error: SlipwayError) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert (str(again), again.args) == (str(error), error.args)
