"""The FP16 estimate: on models that half precision suits, on models that it does not, and beside real half kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.framework import graph_pb2

from model_registry.errors import ConversionError
from model_registry.servable import Check
from tasks.conversion_checks import LARGEST_GRAPH
from tasks.estimation import estimator
from tasks.model_process import estimating, half_run
from tasks.model_process.conversion_messages import EstimatePlan, RewrittenModel
from tasks.model_process.half_precision import LARGEST
from tasks.model_process.inspecting import read_saved_model
from tasks.model_process.messages import (
    Tolerance,
)
from tasks.model_process.warmup_log import WARMUP_FILE
from tests.support import fp16_models
from tests.support.candidates import Candidate, prepare
from tests.support.models import KINDS, randomised

pytestmark = pytest.mark.xdist_group("fp16-estimate")

Estimator = Callable[..., tuple[RewrittenModel, dict[str, Check]]]


def plan_of(candidate: Candidate, **changes: Any) -> EstimatePlan:
    plan = EstimatePlan(
        saved_model=candidate.plan.candidate,
        cases=candidate.plan.cases,
        signatures=candidate.exported.signatures,
        tolerance=Tolerance(1e-2, 1e-2),
        min_coverage=0.5,
        variant="tensorrt-fp16",
    )
    return replace(plan, **changes)


def estimated(plan: EstimatePlan) -> tuple[RewrittenModel, dict[str, Check]]:
    """Both stages, in this process."""
    rewritten, made = [work() for _, work in estimating.stages(lambda _kind: plan)]
    return rewritten, {check.check.removeprefix("fp16 estimate").strip(): check for check in made.checks}


@pytest.fixture
def estimate(tmp_path: Path) -> Estimator:
    """Exports a model, and estimates what came of it. `rows` are its samples."""

    def run(
        model: keras.Model, rows: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **changes: Any
    ) -> tuple[RewrittenModel, dict[str, Check]]:
        model.save(tmp_path / "model.keras")
        asked = {"batch_sizes": [1, 8], **(spec or {})}
        if rows is not None:
            np.savez(tmp_path / "rows.npz", **rows)
            asked["samples"] = str(tmp_path / "rows.npz")
        return estimated(plan_of(prepare(tmp_path / "model.keras", tmp_path / "work", asked), **changes))

    return run


def images(count: int) -> dict[str, Any]:
    return {"image": np.random.default_rng(0).uniform(size=(count, 16, 16, 3)).astype(np.float32)}


def test_a_small_network_passes_with_the_error_that_halves_make(estimate: Estimator) -> None:
    rewritten, checks = estimate(fp16_models.network(), images(120))
    assert rewritten.engines == checks["engines"].measured == 1
    assert checks["coverage"].measured == rewritten.coverage > 0.8
    assert all(check.passed for check in checks.values())
    assert all("an estimate on a CPU, no TensorRT ran" in check.detail for check in checks.values())
    error = checks["/serving_default/scores"].measured
    assert isinstance(error, dict)
    assert 1e-6 < error["max_absolute_error"] < 2e-3  # halves have 11 bits: 2**-12 of each value, and there are a few
    assert checks["top1/serving_default/scores"].measured == 1.0
    assert checks["top1/serving_default/scores"].detail.startswith("120 rows")


def test_the_tolerance_of_the_spec_is_what_the_error_is_held_against(estimate: Estimator) -> None:
    _, checks = estimate(fp16_models.network(), images(8), tolerance=Tolerance(1e-7, 1e-7))
    failed = checks["/serving_default/scores"]
    assert not failed.passed
    assert failed.threshold == {"atol": 1e-7, "rtol": 1e-7}


def test_a_layer_whose_activations_reach_a_million_is_found_and_named(estimate: Estimator) -> None:
    _, checks = estimate(fp16_models.loud_network(), images(8))
    overflow = checks["overflow"]
    assert not overflow.passed
    assert overflow.measured == 8 * 10  # every score is NaN
    assert "/loud_1/" in overflow.detail and "> 65504" in overflow.detail
    reached = float(overflow.detail.split(" reaches ")[1].split(" ")[0])
    assert 5e5 < reached < 5e6
    assert checks["overflow"].detail.count(" reaches ") == 1  # what follows from it is not named
    assert not checks["/serving_default/scores"].passed


def test_an_input_beyond_half_precision_is_named(estimate: Estimator) -> None:
    _, checks = estimate(fp16_models.network(), {"image": images(8)["image"] * 1e6})
    assert not checks["overflow"].passed
    assert "image, given to an engine, reaches 1e+06 > 65504" in checks["overflow"].detail


def test_an_overflow_that_does_no_harm_is_told_and_refuses_nothing(estimate: Estimator) -> None:
    _, checks = estimate(fp16_models.loud_network(head="sigmoid"), images(8))
    overflow = checks["overflow"]
    assert (overflow.measured, overflow.passed) == (0, True)
    assert "/loud_1/" in overflow.detail and "the answers stay finite" in overflow.detail


def test_no_engine_and_too_small_coverage_fail(estimate: Estimator) -> None:
    x = keras.Input((4,), name="x")
    rewritten, checks = estimate(randomised(keras.Model(x, layers.Dense(2, name="y")(x))))
    assert rewritten.engines == 0
    assert (checks["engines"].measured, checks["engines"].passed) == (0, False)
    assert (checks["coverage"].measured, checks["coverage"].passed) == (0.0, False)
    assert set(checks) == {"engines", "coverage", "graph size"}


def test_a_signature_that_stays_native_says_why_and_is_not_estimated(estimate: Estimator) -> None:
    rewritten, checks = estimate(KINDS["text_vectorization"].build())
    (signature,) = rewritten.signatures
    assert "strings" in signature.native and signature.native in checks["engines"].detail
    assert set(checks) == {"engines", "coverage", "graph size"}


def test_a_masked_attention_is_not_taken_for_an_overflow(estimate: Estimator) -> None:
    _, checks = estimate(KINDS["transformer"].build())
    assert all(check.passed for check in checks.values())
    assert "weights beyond 65504, which are clamped: 1" in checks["overflow"].detail  # -1e9, for what is masked


@pytest.mark.parametrize("loudness", [10.0, 1000.0])
def test_an_engine_inside_of_a_loop_is_tried_too_but_what_overflows_there_cannot_be_told(
    tmp_path: Path, loudness: float
) -> None:
    fp16_models.save_loop(tmp_path / "loop", loudness)
    candidate = prepare(tmp_path / "loop", tmp_path / "work", source_format="saved_model")
    rewritten, checks = estimated(plan_of(candidate))
    assert rewritten.engines == 1
    assert [left.op for left in rewritten.signatures[0].left_out].count("Enter") == 1
    fits = loudness**2 < LARGEST
    assert checks["overflow"].passed == checks["/serving_default/y"].passed == fits
    assert ("an engine inside of a loop or behind a branch does not tell where" in checks["overflow"].detail) == (
        not fits
    )
    assert checks["/serving_default/y"].measured["max_absolute_error"] > 0  # type: ignore[index]


def _save_branches(directory: Path, kind: str) -> None:
    """A SavedModel with an engine in each of two branches, or one behind a loop inside of another.

    What is run of them reaches 1e6 in between.
    """
    module = tf.Module()

    def chain(x: Any, loudness: float) -> Any:
        for index in range(4):
            x = tf.tanh(x * (1.1 + index)) + 0.1
            x = tf.sqrt(tf.square(x * loudness) + 0.5) / loudness
        return x

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")], autograph=False)
    def run(x: Any) -> Any:
        def loud() -> Any:
            return chain(x, 1000.0)

        def soft() -> Any:
            return chain(-x, 2.0)

        if kind == "cond":
            return {"y": tf.cond(tf.reduce_sum(x) > 1e6, soft, loud)}
        if kind == "switch_case":
            return {"y": tf.switch_case(tf.cast(tf.reduce_sum(x) > 1e6, tf.int32), [loud, soft])}

        def body(step: Any, state: Any) -> Any:
            inner = tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, tf.math.cumsum(v)), [0, x], **shapes)[1]
            return step + 1, chain(inner, 1000.0)

        shapes: Any = {"shape_invariants": [tf.TensorShape([]), tf.TensorShape([None, 4])]}
        return {"y": tf.while_loop(lambda step, _: step < 2, body, [0, x], **shapes)[1]}

    module.run = run
    tf.saved_model.save(module, str(directory), signatures={"serving_default": run})


@pytest.mark.parametrize("kind", ["cond", "switch_case", "loop_in_a_loop"])
def test_an_engine_in_a_branch_is_tried_if_the_branch_is_taken_but_what_overflows_there_cannot_be_told(
    tmp_path: Path, kind: str
) -> None:
    _save_branches(tmp_path / "branches", kind)
    candidate = prepare(tmp_path / "branches", tmp_path / "work", source_format="saved_model")
    rewritten, checks = estimated(plan_of(candidate, min_coverage=0.0))
    assert rewritten.engines == (1 if kind == "loop_in_a_loop" else 2)
    assert not checks["overflow"].passed
    assert "an engine inside of a loop or behind a branch does not tell where" in checks["overflow"].detail


def test_what_follows_an_inner_loop_is_inside_of_the_outer_one_still() -> None:
    graph = graph_pb2.GraphDef()

    def add(name: str, op: str, *inputs: str, frame: str = "") -> None:
        graph.node.add(name=name, op=op, input=inputs).attr["frame_name"].s = frame.encode()

    add("x", "Placeholder")
    add("outer", "Enter", "x", frame="outer")
    add("inner", "Enter", "outer", frame="inner")
    add("inner_branch", "Switch", "inner", "inner")
    add("inner_exit", "Exit", "inner_branch")
    add("engine", "TRTEngineOp", "inner_exit:0")
    add("outer_exit", "Exit", "engine")
    add("after", "TRTEngineOp", "outer_exit", "^x")
    add("branch", "Switch", "after", "x")
    add("taken", "TRTEngineOp", "branch:1")
    add("both", "Merge", "branch", "taken")
    add("behind", "TRTEngineOp", "both")

    named = {node.name for node in graph.node} - half_run._unfetchable(graph)

    assert named == {"x", "outer_exit", "after"}


def test_each_output_of_each_signature_has_a_check(estimate: Estimator) -> None:
    spec = {"signatures": {"serving_default": {}, "embedding": {"layer": "features"}}}
    rewritten, checks = estimate(fp16_models.network(), images(8), spec)
    assert [signature.name for signature in rewritten.signatures] == ["embedding", "serving_default"]
    assert {"/serving_default/scores", "/embedding/features"} <= set(checks)


def test_no_more_samples_are_run_than_it_takes(estimate: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "_ROWS", 20)
    _, checks = estimate(fp16_models.network(), images(100))
    assert checks["top1/serving_default/scores"].detail.startswith("measured on 24 rows")


def test_a_model_without_a_warm_up_record_is_refused(tmp_path: Path) -> None:
    fp16_models.network().save(tmp_path / "model.keras")
    candidate = prepare(tmp_path / "model.keras", tmp_path / "work")
    (candidate.directory / WARMUP_FILE).unlink()
    with pytest.raises(ConversionError, match="no warm-up record of serving_default"):
        estimated(plan_of(candidate))


def test_weights_that_no_server_would_read_fail_before_anything_is_run(tmp_path: Path) -> None:
    fp16_models.network().save(tmp_path / "model.keras")
    candidate = prepare(tmp_path / "model.keras", tmp_path / "work")
    _, checks = estimated(plan_of(candidate))
    assert checks["graph size"].passed
    assert checks["graph size"].measured == 4 * fp16_models.network().count_params()
    saved_model = read_saved_model(candidate.directory)
    handles = [node for node in saved_model.meta_graphs[0].graph_def.node if node.op == "VarHandleOp"]
    handles[0].attr["shape"].shape.CopyFrom(tf.TensorShape([LARGEST_GRAPH // 4]).as_proto())
    (candidate.directory / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    for file in (candidate.directory / "variables").iterdir():
        file.unlink()  # so nothing can be loaded

    rewritten, checks = estimated(plan_of(candidate))

    assert list(checks) == ["graph size"]
    assert not checks["graph size"].passed
    assert checks["graph size"].threshold == LARGEST_GRAPH <= checks["graph size"].measured  # type: ignore[operator]
    assert "nothing was run" in checks["graph size"].detail
    assert (rewritten.engines, rewritten.coverage) == (0, 0.0)


def test_a_product_that_overflows_before_it_is_scaled_down_is_found(tmp_path: Path) -> None:
    """A scale by one number is a layer of its own, which is given what the product stored."""
    module = tf.Module()
    generator = np.random.default_rng(0)
    module.loud = tf.Variable(np.full((16, 16), 2e4, np.float32))
    module.others = [tf.Variable(generator.normal(size=(16, 16)).astype(np.float32)) for _ in range(4)]

    @tf.function(input_signature=[tf.TensorSpec([None, 16], name="x")], autograph=False)
    def run(x: Any) -> Any:
        x = tf.matmul(tf.sigmoid(x), module.loud) * 1e-6
        for weights in module.others:
            x = tf.tanh(tf.matmul(x, weights))
        return {"y": x}

    tf.saved_model.save(module, str(tmp_path / "scaled"), signatures={"serving_default": run})
    candidate = prepare(tmp_path / "scaled", tmp_path / "work", source_format="saved_model")
    _, checks = estimated(plan_of(candidate))
    assert "MatMul (MatMul) reaches" in checks["overflow"].detail
    assert not all(check.passed for check in checks.values())


def test_what_goes_wrong_in_the_process_is_a_conversion_error(tmp_path: Path) -> None:
    with estimator(tmp_path / "process") as process:
        process.end()
        with pytest.raises(ConversionError, match="estimate process was ended"):
            process.result("rewrite", RewrittenModel, 60)


@pytest.mark.parametrize("build", [fp16_models.dense, fp16_models.network], ids=["dense", "convolutions"])
def test_the_estimate_comes_near_what_real_half_kernels_do(tmp_path: Path, build: Callable[[], keras.Model]) -> None:
    """TensorFlow has half kernels for these ops on a CPU: an independent way to the same error."""
    single = build()
    rows = np.random.default_rng(1).normal(size=(64, *single.input_shape[1:])).astype(np.float32)
    single.save(tmp_path / "model.keras")
    np.savez(tmp_path / "rows.npz", **{single.inputs[0].name: rows})
    spec = {"samples": str(tmp_path / "rows.npz"), "batch_sizes": [64]}
    _, checks = estimated(plan_of(prepare(tmp_path / "model.keras", tmp_path / "work", spec)))
    (check,) = [check for name, check in checks.items() if name.startswith("/")]
    assert isinstance(check.measured, dict)

    keras.config.set_dtype_policy("float16")
    try:
        half = build()
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights([weights.astype(np.float16) for weights in single.get_weights()])
    run = tf.function(half, autograph=False)
    real = run(rows.astype(np.float16), training=False).numpy().astype(np.float32)
    error = float(np.max(np.abs(real - single(rows, training=False).numpy())))
    assert error / 2 < check.measured["max_absolute_error"] < error * 2
