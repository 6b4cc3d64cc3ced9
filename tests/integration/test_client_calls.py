"""What the client makes of a server's moods: over real gRPC, with a server that does what the test says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click.testing
import grpc
import numpy as np
import pytest

from flows.cli import main
from model_registry.errors import FormatError, InvalidInputError, NotFoundError, SlipwayError, StorageError
from model_registry.serving.client import Client, Tls
from model_registry.serving.client_messages import message_class
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.prediction_service import Service, serving

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "the batching queue is full")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "the model does not like it")
ONE = {"x": [1.0]}


def _storage_error(client: Client) -> StorageError:
    with pytest.raises(StorageError) as caught:
        client.predict("digits", ONE)
    return caught.value


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def target(service: Service) -> Iterator[str]:
    with serving(service) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def client(target: str) -> Iterator[Client]:
    with Client(target, timeout=30.0) as client:
        yield client


def test_the_signature_is_fetched_once(client: Client, service: Service) -> None:
    for _ in range(3):
        client.predict("digits", ONE, label="stable")

    assert service.calls == ["GetModelMetadata", "Predict", "Predict", "Predict"]


def test_each_version_and_label_has_its_own_signature(client: Client, service: Service) -> None:
    for _ in range(2):
        for chosen in ({"label": "stable"}, {"label": "canary"}, {"version": 1}, {}):
            client.predict("digits", ONE, **chosen)  # type: ignore[arg-type]

    assert service.calls.count("GetModelMetadata") == 4


def test_a_version_and_a_label_at_once_are_refused(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="found both: 3 and 'stable'"):
        client.predict("digits", ONE, version=3, label="stable")


@pytest.mark.parametrize("label", ["", "\x1b[31m", "\ud800", "Stable"])
def test_what_cannot_be_a_label_is_refused_and_not_answered_by_the_newest(
    client: Client, service: Service, label: str
) -> None:
    with pytest.raises(InvalidInputError, match="cannot be a label"):
        client.predict("digits", ONE, label=label)

    assert service.calls == []


@pytest.mark.parametrize("version", [0, -1, 2**63, "1", 1.0])
def test_what_cannot_be_a_version_is_refused(client: Client, service: Service, version: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected an int from 1"):
        client.predict("digits", ONE, version=version)

    assert service.calls == []


def test_the_last_version_there_can_be_is_asked_for(client: Client) -> None:
    assert client.predict("digits", ONE, version=2**63 - 1).version == 1


def test_a_wrong_input_is_refused_before_it_is_sent(client: Client, service: Service) -> None:
    with pytest.raises(InvalidInputError, match=r"no input 'y'.*expected x float32 \[null\]"):
        client.predict("digits", {"y": [1.0]})

    assert "Predict" not in service.calls


def test_an_answer_from_another_version_drops_the_signature(client: Client, service: Service) -> None:
    client.predict("digits", ONE, label="stable")
    service.version = 2

    assert client.predict("digits", ONE, label="stable").version == 2
    assert client.predict("digits", ONE, label="stable").version == 2
    assert service.calls == ["GetModelMetadata", "Predict", "Predict", "GetModelMetadata", "Predict"]


@pytest.mark.parametrize("given", ["x", "image"])
def test_a_label_that_moved_to_another_signature_is_noticed(client: Client, service: Service, given: str) -> None:
    client.predict("digits", ONE, label="stable")
    service.version, service.input = 2, "image"

    # By the old signature `image` is wrong here, and by the new one `x` at the server: both look anew.
    if given == "image":
        assert client.predict("digits", {"image": [1.0]}, label="stable").version == 2
    else:
        with pytest.raises(InvalidInputError, match=r"no input 'x'.*expected image"):
            client.predict("digits", ONE, label="stable")
        assert service.calls[-2:] == ["Predict", "GetModelMetadata"]


def test_what_the_model_refuses_is_sent_once(client: Client, service: Service) -> None:
    client.predict("digits", ONE)
    service.refusals = [INVALID]

    with pytest.raises(InvalidInputError, match="the model does not like it"):
        client.predict("digits", ONE)

    assert service.calls == ["GetModelMetadata", "Predict", "Predict", "GetModelMetadata"]


def test_a_server_that_is_unavailable_is_asked_again(client: Client, service: Service) -> None:
    service.refusals = [UNAVAILABLE] * 3

    assert client.predict("digits", ONE).outputs["scores"] == b"ok"
    assert service.calls.count("Predict") == 4


def test_it_is_asked_so_often_and_no_more(client: Client, service: Service) -> None:
    service.refusals = [UNAVAILABLE] * 4

    with pytest.raises(StorageError, match="the batching queue is full") as caught:
        client.predict("digits", ONE)

    assert caught.value.transient
    assert service.calls.count("Predict") == 4


def test_without_retries_it_is_asked_once(target: str, service: Service) -> None:
    service.refusals = [UNAVAILABLE]

    with Client(target, retries=0) as client, pytest.raises(StorageError):
        client.predict("digits", ONE)

    assert service.calls.count("Predict") == 1


def test_no_retry_begins_that_the_deadline_would_end(target: str, service: Service) -> None:
    service.refusals = [UNAVAILABLE] * 100

    with Client(target, retries=100) as client, pytest.raises(StorageError, match=r"did not recover within 0\.3 s"):
        client.predict("digits", ONE, timeout=0.3)


@pytest.mark.parametrize(
    ("code", "kind", "transient"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, None),
        (grpc.StatusCode.FAILED_PRECONDITION, InvalidInputError, None),
        (grpc.StatusCode.UNIMPLEMENTED, InvalidInputError, None),
        (grpc.StatusCode.NOT_FOUND, NotFoundError, None),
        (grpc.StatusCode.DEADLINE_EXCEEDED, StorageError, True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, StorageError, True),
        (grpc.StatusCode.ABORTED, StorageError, True),
        (grpc.StatusCode.INTERNAL, StorageError, False),
        (grpc.StatusCode.UNKNOWN, StorageError, False),
        (grpc.StatusCode.PERMISSION_DENIED, StorageError, False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_refusal_is_an_error_of_ours_and_not_repeated(
    client: Client, service: Service, code: grpc.StatusCode, kind: type[SlipwayError], transient: bool | None
) -> None:
    service.refusals = [(code, "because")]

    with pytest.raises(SlipwayError) as caught:
        client.predict("digits", ONE)

    assert type(caught.value) is kind
    assert getattr(caught.value, "transient", None) is transient
    assert service.calls.count("Predict") == 1


def test_a_deadline_ends_a_call_that_gets_no_answer(client: Client, service: Service) -> None:
    client.predict("digits", ONE)
    held = threading.Event()
    service.before_answer = held.wait  # type: ignore[assignment]

    try:
        with pytest.raises(StorageError, match=r"did not answer for digits within 0\.2 s") as caught:
            client.predict("digits", ONE, timeout=0.2)
    finally:
        held.set()

    assert caught.value.transient


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_is_no_time_is_refused(client: Client, timeout: float) -> None:
    with pytest.raises(InvalidInputError, match="expected seconds above 0"):
        client.predict("digits", ONE, timeout=timeout)


def test_a_timeout_longer_than_anybody_waits_is_no_hindrance(client: Client) -> None:
    assert client.predict("digits", ONE, timeout=1e12).version == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_full_batching_queue_is_told_as_overload(target: str, service: Service, code: grpc.StatusCode) -> None:
    service.refusals = [(code, "The batch scheduling queue to which this task was submitted is full")]

    with Client(target, retries=0) as client:
        error = _storage_error(client)

    assert "is overloaded" in error.message
    assert "max_enqueued_batches" in str(error.hint)
    assert error.transient


@pytest.mark.parametrize("way", ["request", "answer"])
def test_a_message_above_the_limit_is_refused_with_what_to_do(target: str, service: Service, way: str) -> None:
    size = 300_000
    service.output = b"a" * (size if way == "answer" else 1)
    given = {"x": [1.0] * (size // 4 if way == "request" else 1)}

    with Client(target, max_message_bytes=200_000) as client:
        with pytest.raises(InvalidInputError, match="larger than max") as caught:
            client.predict("digits", given)
        assert "max_message_bytes" in str(caught.value.hint)
    with Client(target, max_message_bytes=400_000) as client:
        assert client.predict("digits", given).version == 1


def test_messages_far_above_grpcs_own_limit_pass(client: Client, service: Service) -> None:
    service.output = b"a" * (32 << 20)

    answer = client.predict("digits", np.ones(8 << 20, np.float32))

    assert len(answer.outputs["scores"].item()) == 32 << 20


def test_threads_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.predict("digits", ONE).version, range(200)))

    assert answers == [1] * 200


def test_a_client_from_before_a_fork_says_so() -> None:
    code = (
        "import os; from model_registry.serving.client import Client; client = Client('127.0.0.1:8500')\n"
        "child = os.fork()\n"
        "if child: os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "try: client.predict('digits', {'x': [1.0]})\n"
        "except ValueError as error: print(error, flush=True)\n"
        "os._exit(0)"
    )

    # In a process of its own: this one has threads that a fork would leave behind.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "before a fork (make one in each process)" in done.stdout


def test_a_closed_client_says_so(client: Client) -> None:
    client.close()

    with pytest.raises(InvalidInputError, match="this client was closed"):
        client.predict("digits", ONE)


def test_a_client_that_is_closed_during_a_call_says_so(client: Client, service: Service) -> None:
    client.predict("digits", ONE)
    asked, held = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        held.wait()

    service.before_answer = hold
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.predict, "digits", ONE)
        try:
            assert asked.wait(30)
            client.close()
            with pytest.raises(InvalidInputError, match="this client was closed"):
                call.result(30)
        finally:
            held.set()


def test_a_proxy_is_none_of_a_clients_business(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    with Client(target, retries=0) as client:
        assert client.predict("digits", ONE).version == 1


@pytest.mark.parametrize(
    "target",
    [
        "",
        "localhost",
        "http://127.0.0.1:8501",
        "127.0.0.1:",
        ":8500",
        "a b:8500",
        "127.0.0.1:http",
        "localhost:http",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "localhost:99999",
    ],
)
def test_a_target_that_names_no_server_is_refused(target: str) -> None:
    with pytest.raises(InvalidInputError, match="expected HOST:PORT"):
        Client(target)


@pytest.mark.parametrize("target", ["localhost:8500", "[::1]:8500", "unix:/run/server.sock", "dns:///server:8500"])
def test_every_form_of_a_target_that_grpc_knows_is_taken(target: str) -> None:
    Client(target).close()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_message_without_limit_is_not_to_be_had(limit: int) -> None:
    with pytest.raises(InvalidInputError, match="max_message_bytes"):
        Client("127.0.0.1:8500", max_message_bytes=limit)


def test_nothing_that_listens_is_told_at_once_without_retries() -> None:
    with Client(f"127.0.0.1:{free_port()}", retries=0, timeout=60) as client:
        error = _storage_error(client)

    assert "cannot be reached" in error.message
    assert error.transient


def test_an_answer_that_contradicts_itself_is_a_format_error(client: Client, service: Service) -> None:
    service.too_much = True

    with pytest.raises(FormatError, match="2 values, expected 1"):
        client.predict("digits", ONE)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def credentials(authority: Authority) -> grpc.ServerCredentials:
    signed = authority.sign("model-server.test")
    return grpc.ssl_server_credentials([(signed.key, signed.certificate)])


def test_tls_with_the_authority_that_signed(
    service: Service, authority: Authority, credentials: grpc.ServerCredentials, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.certificate)

    with serving(service, credentials=credentials) as port:
        tls = Tls.from_files(ca, server_name="model-server.test")
        with Client(f"127.0.0.1:{port}", tls=tls) as client:
            assert client.predict("digits", ONE).version == 1


def test_predict_speaks_tls(service: Service, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    (tmp_path / "request.json").write_text('{"inputs": {"x": [1.0]}}')
    signed = authority.sign("localhost")
    credentials = grpc.ssl_server_credentials([(signed.key, signed.certificate)])

    with serving(service, credentials=credentials) as port:
        asked = ["predict", "digits@stable", "--server", f"localhost:{port}", "--json"]
        files = ["--inputs", str(tmp_path / "request.json"), "--tls-ca", str(tmp_path / "ca.pem")]
        result = click.testing.CliRunner().invoke(main, asked + files)

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["outputs"] == {"scores": "ok"}


class Odd(Service):
    """A signature without inputs, under a name that a terminal would obey."""

    signature = "\x1b]0;renamed\x07\x1b[2J"

    def metadata(self, _: Any, __: grpc.ServicerContext) -> Any:
        definitions = message_class("SignatureDefMap")()
        definitions.signature_def[self.signature].method_name = "tensorflow/serving/predict"
        response = message_class("GetModelMetadataResponse")()
        response.model_spec.version.value = self.version
        response.metadata["signature_def"].value = definitions.SerializeToString()
        return response

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        assert not request.inputs
        request.inputs[self.input].SetInParent()
        return super().predict(request, context)


def test_predict_asks_a_signature_without_inputs_and_prints_no_name_raw(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"inputs": {}}')

    with serving(Odd()) as port:
        asked = ["predict", "digits", "--server", f"127.0.0.1:{port}", "--inputs", str(tmp_path / "request.json")]
        result = click.testing.CliRunner().invoke(main, asked)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == r"digits:1 \x1b]0;renamed\x07\x1b[2J"


@pytest.mark.parametrize("wrong", ["authority", "name", "no TLS"])
def test_a_server_that_tls_does_not_prove_is_not_asked_again_and_again(
    service: Service, authority: Authority, credentials: grpc.ServerCredentials, wrong: str
) -> None:
    other = Authority().certificate if wrong == "authority" else authority.certificate
    name = "another.test" if wrong == "name" else "model-server.test"

    with serving(service, credentials=None if wrong == "no TLS" else credentials) as port:
        tls = Tls(other, server_name=name)
        with Client(f"127.0.0.1:{port}", tls=tls, retries=1_000_000, timeout=10_000) as client:
            error = _storage_error(client)

    assert "the TLS handshake failed" in error.message
    assert not error.transient
    assert service.calls == []


def test_a_client_in_the_clear_is_told_of_tls(service: Service, credentials: grpc.ServerCredentials) -> None:
    with serving(service, credentials=credentials) as port, Client(f"127.0.0.1:{port}", retries=0) as client:
        assert "asks for TLS" in str(_storage_error(client).hint)


def test_a_server_that_asks_for_the_clients_certificate_gets_it(service: Service, authority: Authority) -> None:
    server, mine = authority.sign("model-server.test"), authority.sign("client.test")
    pair = [(server.key, server.certificate)]
    asking = grpc.ssl_server_credentials(pair, authority.certificate, require_client_auth=True)
    with_it = Tls(authority.certificate, mine.certificate, mine.key, "model-server.test")
    without = Tls(authority.certificate, server_name="model-server.test")

    with serving(service, credentials=asking) as port:
        with Client(f"127.0.0.1:{port}", tls=with_it) as client:
            assert client.predict("digits", ONE).version == 1
        with Client(f"127.0.0.1:{port}", tls=without, retries=0) as client, pytest.raises(StorageError):
            client.predict("digits", ONE)


def test_half_of_a_clients_identity_and_files_that_are_no_pem_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="go together"):
        Tls(private_key=b"-----BEGIN PRIVATE KEY-----")
    with pytest.raises(NotFoundError, match="expected a PEM file"):
        Tls.from_files(tmp_path / "ca.pem")
    (tmp_path / "ca.der").write_bytes(b"\x30\x82")
    with pytest.raises(InvalidInputError, match="no PEM file"):
        Tls.from_files(tmp_path / "ca.der")
    assert "secret" not in repr(Tls(certificate_chain=b"-", private_key=b"secret"))


def test_a_gateway_is_told_which_model_each_call_is_about(client: Client, service: Service) -> None:
    client.predict("digits.v2", ONE, label="stable")

    assert service.metadata_of == {"GetModelMetadata": "digits.v2", "Predict": "digits.v2"}
