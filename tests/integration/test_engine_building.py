"""Which requests engines are built with, and in what order, by the converter's own `build`.

On a graph whose engines are calls of their native segments again: nothing here runs TensorRT or builds an engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.compiler.tensorrt import trt_convert

from model_registry.errors import ConversionError
from tasks.model_process import engine_building, rewriting, wrapping
from tasks.model_process.deconversion import deconverted
from tests.support.candidates import Candidate, prepare
from tests.support.conversions import rewrite

pytestmark = pytest.mark.xdist_group("engine-building")

_WIDTH = 8
_MANY = 4  # rows beyond which the other branch is taken


@pytest.fixture(scope="module")
def branching(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A model with an engine in either branch; only the second warm-up record takes the second."""
    directory = tmp_path_factory.mktemp("branching")
    generator = np.random.default_rng(0)
    module = tf.Module()
    module.weights = [tf.Variable(generator.normal(size=(_WIDTH, _WIDTH)).astype(np.float32) * 0.3) for _ in range(6)]

    def chain(x: Any, weights: list[Any]) -> Any:
        for weight in weights:
            x = tf.nn.tanh(tf.matmul(x, weight) + 0.1)
        return x

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, _WIDTH], name="x")])
    def serve(x: Any) -> Any:
        many = tf.shape(x)[0] > _MANY
        return {"y": tf.cond(many, lambda: chain(x, module.weights), lambda: chain(-x, module.weights[::-1]))}

    tf.saved_model.save(module, str(directory / "source"), signatures={"serving_default": serve})
    return prepare(directory / "source", directory / "work", {"batch_sizes": [1, 8]}, source_format="saved_model")


@pytest.fixture
def part(branching: Candidate) -> rewriting.Rewritten:
    (part,) = wrapping.rewritten(rewrite(branching.directory))
    assert len(part.report.segments) == 2, "or there is nothing that a single request could miss"
    return part


class _Listening:
    """A converted function that notes how many rows it is called with."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.rows: list[int] = []

    def __call__(self, **tensors: Any) -> Any:
        assert all(tf.is_tensor(tensor) for tensor in tensors.values())
        (tensor,) = tensors.values()
        self.rows.append(len(tensor))
        return self.function(**tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


def _without_engines(part: rewriting.Rewritten) -> _Listening:
    converter = part.converter
    converter._converted_graph_def = deconverted(part.graph_def)
    converter._converted_func = _Listening(
        trt_convert._construct_function_from_graph_def(converter._converted_func, converter._converted_graph_def)
    )
    return converter._converted_func


def test_each_request_is_answered_again_once_its_shapes_are_known(
    branching: Candidate, part: rewriting.Rewritten
) -> None:
    """Or an engine in a branch that the first request does not take would never be built."""
    function = _without_engines(part)
    known: list[list[int]] = []

    def feeds() -> Any:
        for feed in engine_building.requests(branching.directory, Path(branching.plan.cases), "serving_default"):
            known.append(list(function.rows))
            yield feed

    engine_building.build(part, feeds())

    assert function.rows == [1, 8]
    assert known == [[], []], "no engine is asked before all shapes are known"


def test_a_later_request_that_cannot_be_answered_is_a_failed_build(part: rewriting.Rewritten) -> None:
    _without_engines(part)
    fits, does_not = np.zeros((1, _WIDTH), np.float32), np.zeros((1, _WIDTH + 1), np.float32)

    with pytest.raises(ConversionError, match="engines of the signature 'serving_default' cannot be built"):
        engine_building.build(part, [{"x": fits}, {"x": does_not}])


def test_an_engine_that_no_request_reached_is_named(part: rewriting.Rewritten) -> None:
    first, second = (segment.name for segment in part.report.segments)

    engine_building.check_reached([part], {first, second})
    with pytest.raises(ConversionError, match=rf"no request reaches {second} of .*: 1 of 2 engines") as caught:
        engine_building.check_reached([part], {first})

    assert "give samples that take this branch" in (caught.value.hint or "")
