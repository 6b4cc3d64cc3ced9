"""Publishing and reading over a network that fails: a version is there whole or not at all, and never wrong."""

from __future__ import annotations

import hashlib
import os
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest

from model_registry import paths
from model_registry.errors import SlipwayError, StorageError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.servable import NATIVE, ServableVersion
from model_registry.storage import ObjectStore, open_store
from model_registry.verification import contradictions
from tasks.prediction import verified_files
from tests.support.drafts import CONTENT, make_draft, make_payload
from tests.support.fault_proxy import (
    Answer,
    Ask,
    Fault,
    FaultProxy,
    Request,
    answer_error,
    cut_before,
    flip_answer,
    flip_request,
    lose_answer,
    run_fault_proxy,
    truncate_answer,
)
from tests.support.s3_server import S3Server

When = Callable[[str, str], bool]

ALWAYS = 10_000
WEIGHTS = "variables/variables.data-00000-of-00001"
# Of a payload that is downloaded in two ranges.
LARGE = {**CONTENT, WEIGHTS: os.urandom(9 << 20)}
_LEASE = 2.0
_STALL = 3.0  # seconds


@dataclass(frozen=True)
class Bench:
    """A registry behind a proxy, and the same without it.

    Attributes:
        registry: What is tried.
        direct: What tells how things stand.
        proxy: Where faults come from. All tests share it.
        model: The test's own.
        scratch: Where payloads and downloads may lie.
    """

    registry: Registry
    direct: Registry
    proxy: FaultProxy
    model: str
    scratch: Path

    @property
    def failed(self) -> list[str]:
        """The requests for this model that met a fault."""
        return [request for request in self.proxy.failed if self.model in request]

    def inject(
        self,
        fault: Fault,
        when: When = lambda method, target: True,
        *,
        times: int = 1,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """Lets requests for this model fail from now on."""
        ours: When = lambda method, target: self.model in target and when(method, target)  # noqa: E731
        self.proxy.inject(fault, ours, times=times, then=then)

    def publish(
        self, registry: Registry, run: str, content: dict[str, bytes] = CONTENT
    ) -> tuple[ServableVersion, bool]:
        payload = make_payload(self.scratch / run, content)
        return registry.publish(make_draft(self.model, run=run), {NATIVE: payload})

    def listed(self) -> list[ServableVersion]:
        """What is committed, each of which is whole."""
        versions = self.direct.versions(self.model)
        for version in versions:
            assert self.direct.verify(version) == []
        assert contradictions(self.direct, self.model) == []
        return versions

    def publish_again(self) -> None:
        """Whatever happened, the next one gets the version, and makes no second one."""
        before = self.listed()
        version, reused = self.publish(self.direct, "again")
        assert reused == bool(before)
        assert self.listed() == [version]
        if before:
            assert before == [version]
        assert self.direct.get(Reference(self.model)) == version


@dataclass(frozen=True)
class Network:
    """A bucket as it is reached through a proxy, and without one."""

    through: ObjectStore
    direct: ObjectStore
    proxy: FaultProxy


@pytest.fixture(scope="module")
def network(s3_server: S3Server) -> Iterator[Network]:
    """Stores for all tests, each of which has a model of its own: making a client takes longer than a test."""
    with pytest.MonkeyPatch.context() as patched, run_fault_proxy(s3_server.endpoint) as proxy:
        for name, value in s3_server.environ().items():
            patched.setenv(name, value)
        bucket = f"test-{uuid.uuid4().hex[:16]}"
        boto3.session.Session().client("s3").create_bucket(Bucket=bucket)
        direct, through = (open_store(f"s3://{bucket}/registry-under-test") for _ in range(2))
        assert [*direct.list("")] == []  # which makes its client, before the endpoint is another
        patched.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert [*through.list("")] == []
        yield Network(through, direct, proxy)


@pytest.fixture
def bench(network: Network, tmp_path: Path) -> Bench:
    registry, direct = (Registry(store, lease=_LEASE) for store in (network.through, network.direct))
    return Bench(registry, direct, network.proxy, f"model-{uuid.uuid4().hex}", tmp_path)


# As the ends of their keys.
OBJECTS = {
    "reservation": "/reservations/1.json",
    "claim": "/sources/a1.json",
    "weights": f"/1/{WEIGHTS}",
    "saved_model.pb": "/1/saved_model.pb",
    "manifest": "/versions/1.json",
}
FAULTS: dict[str, Fault] = {
    "cut before": cut_before,
    "answer lost": lose_answer,
    "500": answer_error(500, "InternalError"),
    "503": answer_error(503, "SlowDown"),
    "bit flipped": flip_request,
}
EXPIRED = answer_error(403, "ExpiredToken")


def writing(end: str) -> When:
    return lambda method, target: method == "PUT" and target.partition("?")[0].endswith(end)


@pytest.mark.parametrize("written", OBJECTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_publish_survives_a_single_fault(bench: Bench, fault: str, written: str) -> None:
    bench.inject(FAULTS[fault], writing(OBJECTS[written]))

    version, reused = bench.publish(bench.registry, "first")

    assert len(bench.failed) == 1
    assert (version.version, reused) == (1, False)
    assert bench.listed() == [version]
    bench.publish_again()


@pytest.mark.parametrize("prefix", ["/reservations/", "/native/1/"])
def test_a_publish_survives_a_listing_that_breaks_off(bench: Bench, prefix: str) -> None:
    asked = prefix.replace("/", "%2F")
    bench.inject(truncate_answer, lambda method, target: method == "GET" and asked in target)

    version, _ = bench.publish(bench.registry, "first")

    assert len(bench.failed) == 1
    assert bench.listed() == [version]
    bench.publish_again()


@pytest.mark.parametrize("written", OBJECTS)
@pytest.mark.parametrize("fault", ["refused", "bit flipped"])
def test_a_publish_that_fails_leaves_no_version_and_the_next_one_succeeds(
    bench: Bench, fault: str, written: str
) -> None:
    lasting = EXPIRED if fault == "refused" else flip_request
    # Of the manifest's key the tombstone too: nothing can be tidied up.
    bench.inject(lasting, writing(OBJECTS[written]), times=ALWAYS)

    with pytest.raises(SlipwayError):
        bench.publish(bench.registry, "first")

    assert bench.failed
    assert bench.listed() == []
    bench.publish_again()


@pytest.mark.parametrize("written", OBJECTS)
def test_a_publish_that_is_cut_off_once_a_write_went_through_leaves_all_or_nothing(bench: Bench, written: str) -> None:
    bench.inject(lose_answer, writing(OBJECTS[written]), then=lambda: bench.inject(EXPIRED, times=ALWAYS))

    with pytest.raises(StorageError) as caught:
        bench.publish(bench.registry, "first")

    listed = bench.listed()
    assert len(listed) == (written == "manifest")
    assert ("cannot be told" in caught.value.message) == bool(listed)
    bench.publish_again()


def flip_range(start: int, *, times: int) -> tuple[Fault, list[str]]:
    """Turns over a bit of the answers that bring a file from one byte on, or of the whole of it.

    Returns:
        The fault, and a line for each such answer.
    """
    answers: list[str] = []

    def flip(request: Request, ask: Ask) -> Answer:
        ranged = next((value for name, value in request.headers if name.lower() == "range"), "bytes=0-")
        if not ranged.startswith(f"bytes={start}-"):
            return ask(request)
        answers.append(ranged)
        return flip_answer(request, ask) if len(answers) <= times else ask(request)

    return flip, answers


def reading(version: ServableVersion, path: str) -> When:
    key = paths.payload(version.model, NATIVE, version.version) + path
    return lambda method, target: method == "GET" and target.partition("?")[0].endswith(key)


# Which file, and where the answer begins that is damaged: the small one, and both ranges of the large one.
_DAMAGED = pytest.mark.parametrize(("path", "start"), [("saved_model.pb", 0), (WEIGHTS, 0), (WEIGHTS, 8 << 20)])


@_DAMAGED
@pytest.mark.parametrize("times", [1, ALWAYS])
def test_files_that_are_damaged_on_their_way_are_refused_or_brought_again(
    bench: Bench, times: int, path: str, start: int
) -> None:
    version, _ = bench.publish(bench.direct, "first", LARGE)
    fault, answers = flip_range(start, times=times)
    bench.inject(fault, reading(version, path), times=ALWAYS)
    destination = bench.scratch / "there"

    if times == ALWAYS:
        with pytest.raises(StorageError):
            verified_files(bench.registry.store, version, version.variants[0], destination)
    else:
        with suppress(StorageError):
            verified_files(bench.registry.store, version, version.variants[0], destination)
            assert digests(destination) == {file.path: file.sha256 for file in version.variants[0].files}
    assert answers


@pytest.mark.parametrize("path", ["saved_model.pb", WEIGHTS])
@pytest.mark.parametrize("times", [1, ALWAYS])
def test_a_verification_notices_what_is_damaged_on_its_way_or_reads_it_again(
    bench: Bench, times: int, path: str
) -> None:
    version, _ = bench.publish(bench.direct, "first", LARGE)
    fault, answers = flip_range(0, times=times)
    bench.inject(fault, reading(version, path), times=ALWAYS)

    try:
        noticed = [problem.path for problem in bench.registry.verify(version)]
    except StorageError:
        noticed = [path]

    assert noticed == [path] or (noticed == [] and len(answers) > times)
    assert answers
    assert bench.direct.verify(version) == []


def digests(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass
class Line:
    """A network that carries everything, and stops for a while when so many bytes have come from the server.

    Attributes:
        endpoint: The line's URL.
        remaining: Bytes until it stops; None while it is not to.
        stalls: How often it did.
        carried: Bytes that came from the server.
    """

    endpoint: str
    remaining: int | None = None
    stalls: int = 0
    carried: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def carry(self, size: int) -> None:
        with self.lock:
            self.carried += size
            if self.remaining is None:
                return
            self.remaining -= size
            if self.remaining > 0:
                return
            self.remaining = None
            self.stalls += 1
        time.sleep(_STALL)  # what is tried is that the other side waits


@contextmanager
def run_line(endpoint: str) -> Iterator[Line]:
    url = urlsplit(endpoint)

    class Carrier(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((url.hostname, url.port)) as server:
                asking = threading.Thread(target=carry, args=(self.request, server, lambda size: None))
                asking.start()
                carry(server, self.request, line.carry)
                asking.join()

    def carry(source: socket.socket, target: socket.socket, tell: Callable[[int], None]) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                tell(len(data))
                target.sendall(data)
        for end in (source, target):  # both directions end with the first one
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Carrier) as server:
        line = Line(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield line
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("after", [4 << 20, 9_000_000], ids=["first range", "second range"])
def test_a_download_that_stalls_in_the_middle_is_waited_for(
    bench: Bench, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    version, _ = bench.publish(bench.direct, "first", LARGE)
    for name, value in s3_server.environ().items():
        monkeypatch.setenv(name, value)
    with run_line(s3_server.endpoint) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.endpoint)
        store = open_store(bench.direct.store.uri)
        line.remaining = after

        directory = verified_files(store, version, version.variants[0], bench.scratch / "there")

        assert line.stalls == 1
        size = version.variants[0].bytes
        assert size < line.carried < size + 100_000, "it was waited for, and not brought again"
    assert digests(directory) == {file.path: file.sha256 for file in version.variants[0].files}
