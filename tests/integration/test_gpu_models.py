"""The models that `make gpu-check` converts: their answers must be able to show that engines compute something.

ResNet50 is made the same way as EfficientNetB0 and takes longer, so it is left to `make gpu-check`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model_registry.spec import TensorRTSpec
from tasks.model_process import comparing
from tasks.model_process.messages import Tolerance
from tests.gpu import models

_SETTINGS = TensorRTSpec()


@pytest.mark.parametrize("make", [models.efficientnet_b0, models.transformer])
def test_a_constant_answer_is_far_outside_the_tolerance_of_engines(make: Callable[[], tuple[Any, Any]]) -> None:
    model, rows = make()
    answers = np.asarray(model(rows[:16], training=False))
    tolerance = Tolerance(_SETTINGS.atol, _SETTINGS.rtol)

    assert np.isfinite(answers).all()
    assert not comparing.tells_nothing([answers], Tolerance(3 * tolerance.atol, 3 * tolerance.rtol))
    for constant in (answers[0], answers.mean(axis=0), np.zeros_like(answers[0])):
        found = np.broadcast_to(constant, answers.shape)
        assert not comparing.parity("s/y", "native", [found], [answers], tolerance).passed
