"""Requests over REST in the JSON of TensorFlow Serving's documentation, and its answers read back."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from model_registry.servable import Method, Signature, TensorInfo
from tasks.model_process.replay_calls import RestCalls, UnansweredError, request_of, rows_of
from tasks.model_process.warmup_log import examples
from tests.support import absl_stream  # noqa: F401 - for its effect


class Recorder:
    """A server that keeps what it was asked, and answers what it was told to."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 200, b"", list[tuple[str, Any]]()
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                recorder.asked.append((self.path, document))
                self.send_response(recorder.status)
                self.send_header("Content-Length", str(len(recorder.body)))
                self.end_headers()
                self.wfile.write(recorder.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    recorder.thread.start()
    yield recorder
    recorder.server.shutdown()
    recorder.thread.join()
    recorder.server.server_close()


def signature(method: Method, outputs: dict[str, str], dtype: str = "float32") -> Signature:
    found = tuple(TensorInfo(name, kind, None) for name, kind in outputs.items())
    return Signature("asked", method, (TensorInfo("x", dtype, None),), found)


def ask(recorder: Recorder, asked: Signature, record: Any, answer: str, expected: dict[str, Any]) -> dict[str, Any]:
    recorder.body = answer.encode("utf-8", "surrogateescape")
    calls = RestCalls(f"http://127.0.0.1:{recorder.server.server_port}", "zoo", 7)
    try:
        return calls.send(asked, request_of(record, "zoo", 7), expected, 10)
    finally:
        calls.close()


def predict_record(**arrays: Any) -> Any:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "asked"
    for name, array in arrays.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return log


def example_record(kind: str) -> Any:
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, f"{kind}_log").request
    batch = {"age": np.array([[1.0], [2.0]], np.float32), "name": np.array([b"a\xff", b"b"], dtype=object)}
    request.input.example_list.examples.extend(examples(batch))
    return log


def test_a_single_output_comes_bare_and_keeps_every_value(recorder: Recorder) -> None:
    record = predict_record(x=np.array([[1.0, 0.1]], np.float32))
    expected = {"y": np.array([[0.1, np.nan, np.inf]], np.float32)}

    found = ask(
        recorder, signature("predict", {"y": "float32"}), record, '{"outputs": [[0.1, NaN, Infinity]]}', expected
    )

    np.testing.assert_array_equal(found["y"], expected["y"])
    assert found["y"].dtype == np.float32
    ((path, document),) = recorder.asked
    assert path == "/v1/models/zoo/versions/7:predict"
    assert document["signature_name"] == "asked"
    np.testing.assert_array_equal(np.array(document["inputs"]["x"], np.float32), np.array([[1.0, 0.1]], np.float32))


def test_several_outputs_come_by_name_and_strings_as_text_or_base64(recorder: Recorder) -> None:
    text, raw = "caf\u00e9".encode(), b"\x00\xff"
    answer = json.dumps(
        {
            "outputs": {
                "word": ["caf\u00e9", "\udcff"],
                "raw_bytes": [{"b64": base64.b64encode(raw).decode()}],
                "n": [3],
            }
        },
        ensure_ascii=False,
    )
    expected = {
        "word": np.array([text, b"\xff"], dtype=object),
        "raw_bytes": np.array([raw], dtype=object),
        "n": np.array([3], np.int64),
    }
    asked = signature("predict", {"word": "string", "raw_bytes": "string", "n": "int64"}, "string")

    found = ask(recorder, asked, predict_record(x=[b"\xfe", b"ok"]), answer, expected)

    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    ((_, document),) = recorder.asked
    assert [base64.b64decode(item["b64"]) for item in document["inputs"]["x"]] == [b"\xfe", b"ok"]


def test_examples_are_sent_as_plain_features_and_classes_read_back(recorder: Recorder) -> None:
    answer = '{"results": [[["up", 0.75], ["down", 0.25]], [["up", 0.5], ["down", 0.5]]]}'
    asked = signature("classify", {"classes": "string", "scores": "float32"})

    found = ask(recorder, asked, example_record("classify"), answer, {})

    assert found["scores"].tolist() == [[0.75, 0.25], [0.5, 0.5]]
    assert found["classes"].tolist() == [[b"up", b"down"], [b"up", b"down"]]
    ((path, document),) = recorder.asked
    assert path == "/v1/models/zoo/versions/7:classify"
    first = document["examples"][0]
    assert first["age"] == [1.0]
    assert base64.b64decode(first["name"][0]["b64"]) == b"a\xff"


def test_regressions_are_read_back_as_rows(recorder: Recorder) -> None:
    asked = signature("regress", {"outputs": "float32"})
    found = ask(recorder, asked, example_record("regress"), '{"results": [1.5, 2.0]}', {})
    assert found["outputs"].tolist() == [1.5, 2.0]


def test_an_answer_of_another_type_is_refused(recorder: Recorder) -> None:
    asked, expected = signature("predict", {"n": "int64"}), {"n": np.array([1], np.int64)}
    with pytest.raises(ValueError, match="holds float64, expected int64"):
        ask(recorder, asked, predict_record(x=[1.0]), '{"outputs": [1.5]}', expected)


def test_whole_numbers_are_read_with_every_digit(recorder: Recorder) -> None:
    """Of a list with numbers both above int64's and below numpy makes float64."""
    asked, expected = signature("predict", {"n": "uint64"}), {"n": np.array([2**63 + 1, 1], np.uint64)}
    answer = json.dumps({"outputs": [2**63 + 1, 1]})

    found = ask(recorder, asked, predict_record(x=[1.0]), answer, expected)

    np.testing.assert_array_equal(found["n"], expected["n"])
    assert found["n"].dtype == np.uint64


def test_whole_numbers_that_the_dtype_has_not_are_refused(recorder: Recorder) -> None:
    asked, expected = signature("predict", {"n": "uint8"}), {"n": np.array([44], np.uint8)}
    with pytest.raises(ValueError, match="holds 300 to 300, expected uint8"):
        ask(recorder, asked, predict_record(x=[1.0]), '{"outputs": [300]}', expected)


def test_what_the_server_refuses_is_told_in_its_words(recorder: Recorder) -> None:
    recorder.status = 400
    with pytest.raises(UnansweredError, match=r"status 400: .*no such thing"):
        ask(recorder, signature("predict", {"y": "float32"}), predict_record(x=[1.0]), '{"error": "no such thing"}', {})


def test_a_dtype_without_json_is_not_asked_over_rest() -> None:
    assert RestCalls.obstacle(signature("predict", {"y": "float16"})) == "the REST API has no JSON for float16"
    assert RestCalls.obstacle(signature("predict", {"y": "float32"})) == ""
    assert RestCalls.obstacle(signature("classify", {"scores": "float32"})) == ""


def test_the_batch_size_is_that_of_the_longest_input() -> None:
    assert rows_of(request_of(predict_record(x=np.ones((3, 2)), scale=1.0), "zoo", 1)) == 3
    assert rows_of(request_of(predict_record(scale=1.0), "zoo", 1)) == 1
    assert rows_of(request_of(example_record("classify"), "zoo", 1)) == 2
