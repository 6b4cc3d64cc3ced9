"""Timing on real SavedModels in the process that does it. Which is faster is a GPU's business: here both are native."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from model_registry.errors import ConversionError
from model_registry.servable import Signature, TensorInfo
from tasks.model_process import timing
from tasks.model_process.client import ModelProcess
from tasks.model_process.conversion_messages import Timed, TimePlan
from tasks.model_process.messages import (
    TIME,
)
from tasks.model_process.warmup_log import WARMUP_FILE, write_log

pytestmark = pytest.mark.xdist_group("timing")

VARIANT = "tensorrt-fp16-sm80"
BATCH_SIZES = (1, 3)


class Doubling(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def double(self, x):
        return {"y": 2 * x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])
    def spell(self, word):
        return {"length": tf.strings.length(word)}


def signature(name: str) -> Signature:
    return Signature(
        name, "predict", (TensorInfo("x", "float32", (None, 4)),), (TensorInfo("y", "float32", (None, 4)),)
    )


def record(name: str, feed: dict[str, object]) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "doubling", name
    for key, value in feed.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return log


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> TimePlan:
    folder = tmp_path_factory.mktemp("timing")
    module = Doubling()
    for name in ("native", "converted"):
        tf.saved_model.save(module, folder / name, {"serving_default": module.double, "spell": module.spell})
    records = [record("serving_default", {"x": np.ones((size, 4), np.float32)}) for size in BATCH_SIZES]
    records += [record("spell", {"word": ["boat"] * size}) for size in BATCH_SIZES]
    write_log(folder / "native" / WARMUP_FILE, records)
    return TimePlan(str(folder / "native"), str(folder / "converted"), (signature("serving_default"),), None, VARIANT)


def test_each_converted_signature_is_timed_at_each_batch_size(plan: TimePlan, tmp_path: Path) -> None:
    with ModelProcess(TIME, tmp_path / TIME, failure=ConversionError) as process:
        process.tell(plan)
        checks = process.result("time", Timed, 120)[0].checks

    assert [check.check for check in checks] == ["speed-up/serving_default/1", "speed-up/serving_default/3"]
    assert {check.variant for check in checks} == {VARIANT}
    for check in checks:
        assert isinstance(check.measured, float)
        assert check.measured > 0
        assert (check.threshold, check.passed) == ("recorded", True)
        assert "medians of 7 rounds" in check.detail


def test_a_speed_up_that_nothing_reaches_fails_the_check(plan: TimePlan) -> None:
    checks = timing.measure(replace(plan, min_speedup=1e9)).checks

    assert [check.passed for check in checks] == [False, False]


def test_a_signature_without_a_record_is_an_error(plan: TimePlan) -> None:
    with pytest.raises(ConversionError, match="no warm-up record asks classify"):
        timing.measure(replace(plan, signatures=(*plan.signatures, signature("classify"))))
