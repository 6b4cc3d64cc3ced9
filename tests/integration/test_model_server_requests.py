"""What a model server answers over gRPC and REST, as TensorFlow Serving 2.17 does; most was read from its source.

SLIPWAY_TF_SERVING=/path/to/tensorflow_model_server runs these rules against the real one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.model_server_launchers import Launcher
from tests.support.model_server_processes import RunningServer, until
from tests.support.served_models import answered_version, model_entry, write_config
from tests.support.tiny_models import TinyModels

pytestmark = pytest.mark.xdist_group("model_server")


@pytest.fixture(scope="module")
def server(
    model_server_launcher: Launcher, tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """Serves 1, which is `stable`, 2 and 3."""
    directory = tmp_path_factory.mktemp("requests")
    for version in (1, 2, 3):
        tiny_models.write(directory / "digits", version)
    flags = {
        "model_config_file": write_config(
            directory / "models.config", model_entry("digits", directory / "digits", [1, 2, 3], {"stable": 1})
        ),
        "allow_version_labels_for_unavailable_models": True,
    }
    with RunningServer(model_server_launcher, directory / "log", flags).start().wait_ready() as running:
        until(lambda: [*running.states("digits").values()] == ["AVAILABLE"] * 3, running, "all are loaded")
        yield running


@pytest.fixture(scope="module")
def stubs(server: RunningServer) -> Iterator[Any]:
    """The services of the server: a function that calls a method by its name."""
    import grpc
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

    with grpc.insecure_channel(server.target) as channel:
        found = (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )

        def call(method: str, request: Any) -> Any:
            stub = next(stub for stub in found if hasattr(stub, method))
            try:
                return getattr(stub, method)(request, timeout=30)
            except grpc.RpcError as error:
                return error.code().name, error.details()

        yield call


def _predict(rows: Any = ((1.0, 2.0),), *, input_name: str = "x", dtype: str = "float32", **spec: Any) -> Any:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.get("name", "digits")
    request.model_spec.signature_name = spec.get("signature", "")
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    request.inputs[input_name].CopyFrom(tf.make_tensor_proto(rows, dtype=tf.as_dtype(dtype)))
    return request


def _post(server: RunningServer, document: Any, under: str = "") -> tuple[int, Any]:
    return server.post(f"/v1/models/digits{under}:predict", document)


def test_without_a_version_the_highest_answers(server: RunningServer, stubs: Any) -> None:
    assert answered_version(server, "digits") == 3
    answer = stubs("Predict", _predict())
    assert (answer.model_spec.version.value, answer.model_spec.name) == (3, "digits")
    assert answer.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize(("spec", "version"), [({"version": 2}, 2), ({"label": "stable"}, 1)])
def test_a_version_or_a_label_is_what_answers(spec: dict[str, Any], version: int, stubs: Any) -> None:
    answer = stubs("Predict", _predict(**spec))

    assert answer.model_spec.version.value == version
    assert list(answer.outputs["version"].int64_val) == [version]
    assert list(answer.outputs["y"].float_val) == [version * 1.0, version * 2.0]
    assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [1, 2]


def test_an_output_filter_selects_outputs(stubs: Any) -> None:
    request = _predict()
    request.output_filter.append("version")

    assert set(stubs("Predict", request).outputs) == {"version"}


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({"name": "letters"}, "NOT_FOUND", "Servable not found for request: Latest(letters)"),
        ({"version": 9}, "NOT_FOUND", "Servable not found for request: Specific(digits, 9)"),
        ({"label": "canary"}, "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
        ({"signature": "serving"}, "FAILED_PRECONDITION", 'Serving signature key "serving" not found.'),
        ({"input_name": "xx"}, "INVALID_ARGUMENT", ""),
        ({"rows": [[1, 2, 3]]}, "INVALID_ARGUMENT", ""),
        ({"dtype": "float64"}, "INVALID_ARGUMENT", ""),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(
    request_: dict[str, Any], code: str, message: str, stubs: Any
) -> None:
    found, details = stubs("Predict", _predict(**request_))

    assert found == code
    assert message in details


def test_rows_are_answered_as_rows_and_columns_as_columns(server: RunningServer) -> None:
    rows = [[1.5, 2.0], [0.1, -4.0]]

    assert _post(server, {"instances": rows}, "/labels/stable") == (
        200,
        {"predictions": [{"y": rows[0], "version": 1}, {"y": rows[1], "version": 1}]},
    )
    assert _post(server, {"instances": [{"x": row} for row in rows]}, "/versions/1") == (
        200,
        {"predictions": [{"y": rows[0], "version": 1}, {"y": rows[1], "version": 1}]},
    )
    assert _post(server, {"inputs": {"x": rows}}, "/versions/1") == (200, {"outputs": {"y": rows, "version": [1, 1]}})
    # One input needs no name, and one output has none.
    assert _post(server, {"inputs": [7], "signature_name": "spin"}) == (200, {"outputs": [7]})
    assert _post(server, {"instances": [7], "signature_name": "spin"}) == (200, {"predictions": [7]})


def test_bytes_go_as_base64_and_come_back_so_under_names_that_end_so(server: RunningServer) -> None:
    encoded = base64.b64encode("fög".encode()).decode()
    raw = base64.b64encode(b"a\xff\x00").decode()

    status, answer = _post(server, {"signature_name": "texts", "inputs": ["a", {"b64": encoded}]})

    assert (status, answer["outputs"]["upper"]) == (200, ["A", "FÖG"])
    assert answer["outputs"]["raw_bytes"][0] == {"b64": raw}


@pytest.mark.parametrize(
    ("under", "document", "status", "message"),
    [
        ("/versions/9", {"inputs": [[1, 2]]}, 404, "Servable not found for request: Specific(digits, 9)"),
        ("/labels/canary", {"inputs": [[1, 2]]}, 400, "Unrecognized servable version label: canary"),
        ("", {"inputs": [[1, 2]], "signature_name": "serving"}, 400, "serving"),
        ("", {"rows": [[1, 2]]}, 400, "Missing 'inputs' or 'instances' key"),
        ("", {"inputs": [["one", "two"]]}, 400, "expected type"),
        ("", {"instances": [{"x": [1, 2]}, {"z": [1, 2]}]}, 400, ""),
        ("", [], 400, ""),
        ("/versions/x", {}, 400, "Malformed request: POST /v1/models/digits/versions/x:predict"),
    ],
)
def test_a_rest_request_that_cannot_be_answered_says_why(
    under: str, document: Any, status: int, message: str, server: RunningServer
) -> None:
    found, answer = _post(server, document, under)

    assert found == status
    assert answer.keys() == {"error"} and message in answer["error"]


def test_status_names_each_version_or_the_one_asked_for(server: RunningServer, stubs: Any) -> None:
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "digits"
    listed = stubs("GetModelStatus", request).model_version_status
    assert [(found.version, found.state) for found in listed] == [(version, 30) for version in (3, 2, 1)]
    request.model_spec.version.value = 2
    assert [found.version for found in stubs("GetModelStatus", request).model_version_status] == [2]
    request.model_spec.version.value = 9
    assert stubs("GetModelStatus", request)[0] == "NOT_FOUND"
    assert server.get("/v1/models/letters")[0] == 404
    assert server.get("/v1/models/digits/versions/9")[0] == 404


def test_metadata_holds_the_signatures(server: RunningServer, stubs: Any) -> None:
    from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name, request.model_spec.version_label = "digits", "stable"
    answer = stubs("GetModelMetadata", request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert answer.model_spec.version.value == 1
    assert {"serving_default", "texts", "spin", "classify", "regress"} <= set(signatures.signature_def)
    assert set(signatures.signature_def["serving_default"].outputs) == {"y", "version"}

    status, text = server.get("/v1/models/digits/metadata")
    assert (status, '"dtype": "DT_FLOAT"' in text) == (200, True)


@pytest.mark.parametrize("method", ["Classify", "Regress"])
def test_examples_are_classified_and_regressed(method: str, stubs: Any) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    kind = classification_pb2.ClassificationRequest if method == "Classify" else regression_pb2.RegressionRequest
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = "digits", method.lower()
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.extend([1.0, 2.0])
    request.input.example_list.examples.append(example)

    answer = stubs(method, request)

    if method == "Classify":
        (row,) = answer.result.classifications
        assert [(item.label, item.score) for item in row.classes] == [("left", 3.0), ("right", 6.0)]
    else:
        assert [item.value for item in answer.result.regressions] == [9.0]
    request.model_spec.signature_name = "serving_default"
    assert stubs(method, request)[0] == "INVALID_ARGUMENT"
