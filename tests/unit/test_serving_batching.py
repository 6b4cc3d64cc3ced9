"""What TensorFlow Serving is told of batching and monitoring, read by its own messages' parser."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format

from model_registry.servable import Signature, TensorInfo
from model_registry.serving import batching
from model_registry.serving.monitoring import monitoring_config
from tests.support.model_server.parameter_files import BatchingParameters, MonitoringConfig

IMAGE = TensorInfo("image", "float32", (None, 8, 8, 1))
SCORES = TensorInfo("scores", "float32", (None, 10))


def signature(*, inputs: tuple[TensorInfo, ...] = (IMAGE,), outputs: tuple[TensorInfo, ...] = (SCORES,)) -> Signature:
    return Signature("serving_default", "predict", inputs, outputs)


def parsed(text: str) -> Any:
    return text_format.Parse(text, BatchingParameters())


def test_a_version_is_batched_by_its_own_sizes() -> None:
    found = parsed(batching.per_version((1, 8, 32)))

    assert list(found.allowed_batch_sizes) == [1, 8, 32]
    assert found.max_batch_size.value == 32
    assert found.batch_timeout_micros.value == 1_000
    assert found.max_enqueued_batches.value == 100
    assert not found.pad_variable_length_inputs


@pytest.mark.parametrize("sizes", [(1,), (4,), (1, 2), (3, 5, 1000)])
def test_the_last_allowed_size_is_the_most_that_a_batch_holds(sizes: tuple[int, ...]) -> None:
    found = parsed(batching.per_version(sizes))

    assert found.allowed_batch_sizes[-1] == found.max_batch_size.value == sizes[-1]


@pytest.mark.parametrize("sizes", [(), (8, 1), (1, 1, 8), (0, 1)])
def test_sizes_that_no_server_would_take_are_no_parameters(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending batch sizes"):
        batching.per_version(sizes)


def test_the_threads_are_the_whole_servers_and_not_a_versions() -> None:
    version, server = parsed(batching.per_version((1, 8))), parsed(batching.whole_server(threads=6))

    assert {field.name for field, _ in server.ListFields()} == {"num_batch_threads", "thread_pool_name"}
    assert server.num_batch_threads.value == 6
    assert not {field.name for field, _ in version.ListFields()} & {"num_batch_threads", "thread_pool_name"}


def test_a_server_has_a_thread_for_each_cpu_unless_told_otherwise() -> None:
    found = parsed(batching.whole_server())

    assert not found.HasField("num_batch_threads")
    assert found.thread_pool_name.value == "model_server_batch_threads"
    with pytest.raises(ValueError, match="at least 1 thread"):
        batching.whole_server(threads=0)


def test_a_word_that_the_server_does_not_know_would_be_seen_here() -> None:
    with pytest.raises(text_format.ParseError):
        parsed("max_batch_sice { value: 8 }")


def test_a_model_of_any_batch_is_batched() -> None:
    assert batching.obstacle((signature(),), (1, 8)) == ""
    assert batching.for_version((signature(),), (1, 8)) == batching.per_version((1, 8))


def test_a_model_of_one_batch_size_keeps_it() -> None:
    fixed = signature(
        inputs=(TensorInfo("image", "float32", (4, 8, 8, 1)),), outputs=(TensorInfo("scores", "float32", (4, 10)),)
    )

    text = batching.for_version((fixed,), (4,))

    assert text is not None and batching.shown(text) == "4"


@pytest.mark.parametrize(
    ("inputs", "outputs", "problem"),
    [
        ((), (SCORES,), "serving_default has no input"),
        ((TensorInfo("x", "float32", ()),), (SCORES,), "input 'x' of serving_default has no batch dimension"),
        ((TensorInfo("x", "float32", None),), (SCORES,), "input 'x' of serving_default has no rank that is known"),
        ((TensorInfo("x", "float32", (4, 2)),), (SCORES,), "input 'x' of serving_default always has 4 row(s)"),
        ((IMAGE, TensorInfo("x", "float32", ())), (SCORES,), "input 'x' of serving_default has no batch dimension"),
        ((IMAGE,), (TensorInfo("loss", "float32", ()),), "output 'loss' of serving_default has no batch dimension"),
        ((IMAGE,), (TensorInfo("table", "float32", (9, 2)),), "output 'table' of serving_default always has 9 row(s)"),
        (
            (TensorInfo("tokens", "int64", (None, None)),),
            (SCORES,),
            "input 'tokens' of serving_default may differ in shape from one request to the next",
        ),
    ],
)
def test_a_model_whose_requests_cannot_be_merged_is_not_batched(
    inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], problem: str
) -> None:
    wanted = (signature(), signature(inputs=inputs, outputs=outputs))

    assert batching.obstacle(wanted, (1, 8)) == problem
    assert batching.for_version(wanted, (1, 8)) is None


def test_an_output_may_differ_in_shape_beyond_its_rows() -> None:
    assert batching.obstacle((signature(outputs=(TensorInfo("boxes", "float32", (None, None, 4)),)),), (1, 8)) == ""


def test_a_file_is_shown_by_the_sizes_it_allows() -> None:
    assert batching.shown(batching.per_version((1, 8))) == "1, 8"
    assert batching.shown(None) == "no file"
    assert batching.shown("pad_variable_length_inputs: true") == "none"


def test_the_server_tells_prometheus_where_it_is_asked() -> None:
    found = text_format.Parse(monitoring_config.config(), MonitoringConfig())

    assert found.prometheus_config.enable
    assert found.prometheus_config.path == monitoring_config.PATH == "/monitoring/prometheus/metrics"
