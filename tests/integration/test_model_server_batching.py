"""What a model server refuses with batching on, and what it tells of itself, as TensorFlow Serving 2.17 does.

SLIPWAY_TF_SERVING=/path/to/tensorflow_model_server runs these rules against the real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fixtures_model_server import StartServer
from tests.support.model_server_processes import RunningServer
from tests.support.served_models import answered_version, model_entry, write_config
from tests.support.tiny_models import TinyModels

pytestmark = pytest.mark.xdist_group("model_server")
AT_ONCE = {"max_num_load_retries": 0}
METRICS = "/monitoring/prometheus/metrics"
UP_TO_4 = "max_batch_size { value: 4 } batch_timeout_micros { value: 0 } allowed_batch_sizes: [ 1, 4 ]"
UP_TO_2 = "max_batch_size { value: 2 } allowed_batch_sizes: 2"


@pytest.fixture
def base_path(tmp_path: Path, tiny_models: TinyModels) -> Path:
    path = tmp_path / "models" / "digits"
    tiny_models.write(path, 1)
    return path


def _file(directory: Path, name: str, text: str) -> Path:
    file = directory / name
    file.write_text(text)
    return file


def _rows(server: RunningServer, size: int, version: int = 1) -> tuple[int, str]:
    path = f"/v1/models/digits/versions/{version}:predict"
    status, answer = server.post(path, {"instances": [[1.0, 1.0]] * size})
    return status, str(answer)


def test_a_request_above_the_largest_batch_is_refused(
    model_server: StartServer, base_path: Path, tmp_path: Path
) -> None:
    parameters = _file(tmp_path, "batching.pbtxt", UP_TO_4)
    server = model_server(
        model_name="digits", model_base_path=base_path, enable_batching=True, batching_parameters_file=parameters
    )

    assert _rows(server, 4)[0] == 200
    assert _rows(server, 3)[0] == 200
    status, message = _rows(server, 5)
    assert (status, "larger than maximum input batch size" in message) == (400, True)


def test_the_last_allowed_size_must_be_the_largest_batch_or_the_load_fails(
    model_server: StartServer, base_path: Path, tmp_path: Path
) -> None:
    parameters = _file(tmp_path, "batching.pbtxt", UP_TO_4.replace("1, 4", "1, 3"))

    server = model_server(
        wait=False,
        model_name="digits",
        model_base_path=base_path,
        enable_batching=True,
        batching_parameters_file=parameters,
        **AT_ONCE,
    )

    assert server.wait_end() == 255
    assert "Last entry in allowed_batch_sizes must match max_batch_size" in server.log_text


def test_an_unknown_batching_parameter_ends_the_process(
    model_server: StartServer, base_path: Path, tmp_path: Path
) -> None:
    parameters = _file(tmp_path, "batching.pbtxt", "max_batch { value: 4 }")

    server = model_server(
        wait=False,
        model_name="digits",
        model_base_path=base_path,
        enable_batching=True,
        batching_parameters_file=parameters,
    )

    assert server.wait_end() == 255


def test_a_versions_own_parameters_are_used_where_the_flag_asks_for_them(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path, tmp_path: Path
) -> None:
    _file(base_path / "1", "batching_params.pbtxt", UP_TO_2)
    tiny_models.write(base_path, 2)
    server = model_server(
        write_config(tmp_path / "models.config", model_entry("digits", base_path, [1, 2])),
        enable_batching=True,
        batching_parameters_file=_file(tmp_path, "batching.pbtxt", UP_TO_4),
        enable_per_model_batching_parameters=True,
    )

    assert [_rows(server, size)[0] for size in (2, 3)] == [200, 400]
    # Read from its source, not measured: a version without a file of its own is not batched at all.
    assert _rows(server, 5, version=2)[0] == 200


def test_a_versions_own_parameters_are_left_alone_without_the_flag(
    model_server: StartServer, base_path: Path, tmp_path: Path
) -> None:
    _file(base_path / "1", "batching_params.pbtxt", UP_TO_2)
    parameters = _file(tmp_path, "batching.pbtxt", UP_TO_4)
    server = model_server(
        model_name="digits", model_base_path=base_path, enable_batching=True, batching_parameters_file=parameters
    )

    assert [_rows(server, size)[0] for size in (4, 5)] == [200, 400]


def test_an_unknown_flag_ends_the_process(model_server: StartServer, base_path: Path) -> None:
    # Read from its source, not measured.
    server = model_server(wait=False, model_base_path=base_path, model_config_poll_seconds=1)

    assert server.wait_end() == 255


def test_metrics_need_a_file_that_asks_for_them(model_server: StartServer, base_path: Path) -> None:
    server = model_server(model_name="digits", model_base_path=base_path)

    assert server.get(METRICS)[0] == 404


def test_metrics_begin_with_a_colon_count_microseconds_and_tell_no_version(
    model_server: StartServer, base_path: Path, tmp_path: Path
) -> None:
    monitoring = _file(tmp_path, "monitoring.config", f'prometheus_config {{ enable: true path: "{METRICS}" }}')
    server = model_server(model_name="digits", model_base_path=base_path, monitoring_config_file=monitoring)
    assert answered_version(server, "digits") == 1
    server.post("/v1/models/digits:predict", {"inputs": "no numbers"})

    status, text = server.get(METRICS)

    assert status == 200
    lines = text.splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert ':tensorflow:serving:request_count{model_name="digits",status="OK"} 1' in lines
    assert "# TYPE :tensorflow:serving:request_latency histogram" in lines
    buckets = [line for line in lines if line.startswith(":tensorflow:serving:request_latency_bucket{")]
    assert buckets and all('model_name="digits",API="predict",entrypoint="REST",le="' in line for line in buckets)
    (total,) = (line for line in lines if line.startswith(":tensorflow:serving:request_latency_sum{"))
    assert float(total.rsplit(" ", 1)[1]) > 10, "a request that takes less than 10 us is none: these are not micros"
    assert "version" not in text
