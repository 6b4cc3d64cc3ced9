"""What the S3 store makes of networks and servers that fail: the right content, or an error that says so."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from model_registry.errors import ConflictError, NotFoundError, StorageError
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.servable import PayloadFile
from model_registry.storage import ObjectStore, open_store
from tests.support.fault_proxy import (
    Answer,
    Ask,
    Fault,
    FaultProxy,
    Request,
    answer_error,
    answer_page,
    answer_well_formed_page,
    cut_before,
    flip_answer,
    flip_request,
    lose_answer,
    run_fault_proxy,
    stall,
    truncate_answer,
)
from tests.support.fixtures_s3 import Bucket
from tests.support.garbage import ANN, publish_many

DOCUMENT = "registry/digits/state.json"
PREFIX = "models/digits/native/1/"
OLD, NEW = b'{"revision": 1}', b'{"revision": 2}'
ALWAYS = 10_000


@dataclass(frozen=True)
class Bench:
    """A store behind a proxy, and the same without it.

    Attributes:
        store: What is tried.
        direct: What tells how things stand.
        proxy: Where faults come from.
        files: A payload: one file of three parts, and small ones before and after it.
        source: Where that lies.
        scratch: Where downloads may go.
    """

    store: ObjectStore
    direct: ObjectStore
    proxy: FaultProxy
    files: tuple[PayloadFile, ...]
    source: Path
    scratch: Path

    @property
    def big(self) -> PayloadFile:
        return max(self.files, key=lambda file: file.bytes)

    @property
    def small(self) -> PayloadFile:
        return min(self.files, key=lambda file: file.bytes)


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("payload")
    (directory / "variables").mkdir()
    (directory / "variables" / "variables.data-00000-of-00001").write_bytes(os.urandom(17 << 20))
    (directory / "variables" / "variables.index").write_bytes(os.urandom(3000))
    (directory / "saved_model.pb").write_bytes(os.urandom(5000))
    return directory


@pytest.fixture(scope="session")
def files(payload: Path) -> tuple[PayloadFile, ...]:
    return payload_files(payload)


@pytest.fixture
def bench(
    s3_bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    payload: Path,
    files: tuple[PayloadFile, ...],
    tmp_path: Path,
) -> Iterator[Bench]:
    direct = open_store(s3_bucket.url)
    direct.put_new("registry/other.json", b"{}")  # which makes its client, before the endpoint is another
    with run_fault_proxy(s3_bucket.server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield Bench(open_store(s3_bucket.url), direct, proxy, files, payload, tmp_path)


def put_new(bench: Bench, arm: Callable[[], None]) -> None:
    arm()
    etag = bench.store.put_new(DOCUMENT, NEW)

    found = bench.direct.get(DOCUMENT)
    assert (found.data, found.etag) == (NEW, etag)


def put_if_match(bench: Bench, arm: Callable[[], None]) -> None:
    old = bench.direct.put_new(DOCUMENT, OLD)
    arm()
    etag = bench.store.put_if_match(DOCUMENT, NEW, old)

    found = bench.direct.get(DOCUMENT)
    assert (found.data, found.etag) == (NEW, etag)


def get(bench: Bench, arm: Callable[[], None]) -> None:
    bench.direct.put_new(DOCUMENT, OLD)
    arm()
    assert bench.store.get(DOCUMENT).data == OLD


def listing(bench: Bench, arm: Callable[[], None]) -> None:
    bench.direct.put_new(DOCUMENT, OLD)
    arm()
    assert [(info.key, info.size) for info in bench.store.list("registry/digits/")] == [(DOCUMENT, len(OLD))]


def upload(bench: Bench, arm: Callable[[], None]) -> None:
    arm()
    bench.store.upload_tree(bench.source, PREFIX, bench.files)

    assert [info.key for info in bench.direct.list(PREFIX)] == sorted(f"{PREFIX}{file.path}" for file in bench.files)


def download_big(bench: Bench, arm: Callable[[], None]) -> None:
    _download(bench, bench.big, arm)


def download_small(bench: Bench, arm: Callable[[], None]) -> None:
    _download(bench, bench.small, arm)


def _download(bench: Bench, file: PayloadFile, arm: Callable[[], None]) -> None:
    bench.direct.upload_tree(bench.source, PREFIX, [file])
    arm()
    destination = bench.scratch / "there" / "file"
    arrived = bench.store.download(f"{PREFIX}{file.path}", destination)

    # What is told must be what lies there, right or wrong: who reads it compares it with the manifest.
    assert arrived.sha256 == hashlib.sha256(destination.read_bytes()).hexdigest()
    _require(arrived, file)


def digest_big(bench: Bench, arm: Callable[[], None]) -> None:
    _digest(bench, bench.big, arm)


def digest_small(bench: Bench, arm: Callable[[], None]) -> None:
    _digest(bench, bench.small, arm)


def _digest(bench: Bench, file: PayloadFile, arm: Callable[[], None]) -> None:
    bench.direct.upload_tree(bench.source, PREFIX, [file])
    arm()
    _require(bench.store.digest(f"{PREFIX}{file.path}"), file)


class DamageSeenError(Exception):
    """The digest is not the manifest's, which is how a reader learns of damage."""


def _require(arrived: PayloadFile, file: PayloadFile) -> None:
    if arrived.sha256 != file.sha256:
        raise DamageSeenError


def assert_whole_or_absent(bench: Bench) -> None:
    """Whatever happened: no object is another than it should be."""
    for file in bench.files:
        try:
            found = bench.direct.digest(f"{PREFIX}{file.path}")
        except NotFoundError:
            continue
        assert (found.bytes, found.sha256) == (file.bytes, file.sha256)
    with suppress(NotFoundError):
        assert bench.direct.get(DOCUMENT).data in (OLD, NEW)


Operation = Callable[[Bench, Callable[[], None]], None]
When = Callable[[str, str], bool]

READING: When = lambda method, target: method == "GET"  # noqa: E731
WRITING: When = lambda method, target: method == "PUT"  # noqa: E731
SMALL: When = lambda method, target: method == "PUT" and "partNumber" not in target  # noqa: E731
PART: When = lambda method, target: method == "PUT" and "partNumber" in target  # noqa: E731
START: When = lambda method, target: method == "POST" and target.endswith("?uploads")  # noqa: E731
FINISH: When = lambda method, target: method == "POST" and "uploadId=" in target  # noqa: E731

REQUESTS: list[tuple[str, Operation, When]] = [
    ("put_new", put_new, WRITING),
    ("put_if_match", put_if_match, WRITING),
    ("get", get, READING),
    ("list", listing, READING),
    ("upload a small file", upload, SMALL),
    ("upload a part", upload, PART),
    ("start an upload", upload, START),
    ("finish an upload", upload, FINISH),
    ("download in parts", download_big, READING),
    ("download", download_small, READING),
    ("digest of parts", digest_big, READING),
    ("digest", digest_small, READING),
]
FAULTS: dict[str, Fault] = {
    "cut before": cut_before,
    "answer lost": lose_answer,
    "500": answer_error(500, "InternalError"),
    "503": answer_error(503, "SlowDown"),
}
EVERY = [
    *((fault, *request) for fault in FAULTS.values() for request in REQUESTS),
    # Answers to a PUT have no body.
    *((truncate_answer, *request) for request in REQUESTS if request[2] in (READING, START, FINISH)),
    *((answer_page, *request) for request in REQUESTS if request[0] in ("list", "start an upload", "finish an upload")),
    *((flip_request, *request) for request in REQUESTS if request[2] in (WRITING, SMALL, PART)),
    (flip_answer, *REQUESTS[2]),
    (flip_answer, *REQUESTS[11]),
]
NAMES = [
    *(f"{fault}-{request[0]}" for fault in FAULTS for request in REQUESTS),
    *(f"{fault.__name__}-{name}" for fault, name, _, _ in EVERY[len(FAULTS) * len(REQUESTS) :]),
]


@pytest.mark.parametrize(("fault", "name", "operation", "when"), EVERY, ids=NAMES)
def test_a_single_fault_does_no_harm(bench: Bench, fault: Fault, name: str, operation: Operation, when: When) -> None:
    operation(bench, lambda: bench.proxy.inject(fault, when))

    assert len(bench.proxy.failed) == 1
    assert_whole_or_absent(bench)


@pytest.mark.parametrize("operation", [download_small, download_big, digest_big])
def test_a_bit_that_flips_on_the_way_here_is_noticed(bench: Bench, operation: Operation) -> None:
    with suppress(DamageSeenError, StorageError):  # a part has no checksum, and the file's digest tells
        operation(bench, lambda: bench.proxy.inject(flip_answer, READING))

    assert len(bench.proxy.failed) == 1


@pytest.mark.parametrize(("name", "operation", "when"), REQUESTS, ids=[name for name, _, _ in REQUESTS])
@pytest.mark.parametrize("fault", ["cut before", "500"])
def test_a_lasting_fault_ends_in_an_error_that_says_it_may_pass(
    bench: Bench, fault: str, name: str, operation: Operation, when: When
) -> None:
    with pytest.raises(StorageError) as caught:
        operation(bench, lambda: bench.proxy.inject(FAULTS[fault], when, times=ALWAYS))

    assert caught.value.transient
    assert len(bench.proxy.failed) >= 5
    assert_whole_or_absent(bench)
    if operation is upload:
        assert f"{PREFIX}saved_model.pb" not in [info.key for info in bench.direct.list(PREFIX)]
        assert list(bench.direct.leftovers()) == []
    if operation is put_if_match:
        assert bench.direct.get(DOCUMENT).data == OLD


@pytest.mark.parametrize("operation", [get, digest_small, digest_big])
def test_an_object_that_never_arrives_whole_ends_in_an_error_that_says_it_may_pass(
    bench: Bench, operation: Operation
) -> None:
    with pytest.raises(StorageError) as caught:
        operation(bench, lambda: bench.proxy.inject(truncate_answer, READING, times=ALWAYS))

    assert caught.value.transient


@pytest.mark.parametrize(
    ("operation", "when"),
    [(put_new, WRITING), (put_if_match, WRITING), (upload, SMALL), (upload, PART)],
    ids=["put_new", "put_if_match", "upload a small file", "upload a part"],
)
def test_what_is_damaged_each_time_is_never_stored(bench: Bench, operation: Operation, when: When) -> None:
    with pytest.raises(StorageError, match="damaged") as caught:
        operation(bench, lambda: bench.proxy.inject(flip_request, when, times=ALWAYS))

    assert caught.value.transient
    assert_whole_or_absent(bench)


@pytest.mark.parametrize("operation", [put_new, put_if_match])
def test_a_write_none_of_whose_answers_arrives_is_settled_by_reading_back(bench: Bench, operation: Operation) -> None:
    def arm() -> None:
        bench.proxy.inject(lose_answer, WRITING)
        bench.proxy.inject(cut_before, WRITING, times=ALWAYS)

    operation(bench, arm)


@pytest.mark.parametrize("operation", [put_new, put_if_match])
def test_a_write_in_doubt_that_nobody_can_read_back_is_old_or_new(bench: Bench, operation: Operation) -> None:
    def arm() -> None:
        bench.proxy.inject(lose_answer, WRITING)
        bench.proxy.inject(cut_before, times=ALWAYS)

    with pytest.raises(StorageError) as caught:
        operation(bench, arm)

    assert caught.value.transient
    assert bench.direct.get(DOCUMENT).data == NEW


@pytest.mark.parametrize("operation", [put_new, put_if_match])
def test_a_lost_answer_that_a_refusal_follows_is_settled_by_reading_back(bench: Bench, operation: Operation) -> None:
    def arm() -> None:
        bench.proxy.inject(lose_answer, WRITING)
        bench.proxy.inject(answer_error(403, "ExpiredToken"), WRITING)

    operation(bench, arm)

    assert len(bench.proxy.failed) == 2


@pytest.mark.parametrize("operation", [put_new, put_if_match])
def test_a_lost_answer_that_a_conflict_with_another_and_a_refusal_follow_is_settled_by_reading_back(
    bench: Bench, operation: Operation
) -> None:
    def arm() -> None:
        bench.proxy.inject(lose_answer, WRITING)
        bench.proxy.inject(answer_error(409, "ConditionalRequestConflict"), WRITING)
        bench.proxy.inject(answer_error(403, "ExpiredToken"), WRITING)

    operation(bench, arm)

    assert len(bench.proxy.failed) == 3


@pytest.mark.parametrize("operation", [put_new, put_if_match])
@pytest.mark.parametrize("status", [403, 412])
def test_a_lost_answer_that_refusals_follow_is_no_plain_failure(
    bench: Bench, status: int, operation: Operation
) -> None:
    def arm() -> None:
        bench.proxy.inject(lose_answer, WRITING)
        bench.proxy.inject(answer_error(status, "ExpiredToken" if status == 403 else "PreconditionFailed"), WRITING)
        bench.proxy.inject(answer_error(403, "ExpiredToken"), READING, times=ALWAYS)

    with pytest.raises(StorageError, match=r"may have gone through.*the session token has expired") as caught:
        operation(bench, arm)

    assert caught.value.transient
    assert bench.direct.get(DOCUMENT).data == NEW


def test_a_write_that_is_refused_at_once_failed(bench: Bench) -> None:
    with pytest.raises(StorageError, match="the session token has expired") as caught:
        put_new(bench, lambda: bench.proxy.inject(answer_error(403, "ExpiredToken"), times=ALWAYS))

    assert not caught.value.transient
    assert "may have gone through" not in caught.value.message


def test_a_promotion_whose_answer_was_lost_is_not_told_to_have_failed(bench: Bench, tmp_path: Path) -> None:
    registry = Registry(bench.store)
    publish_many(registry, tmp_path, 1)
    state: When = lambda method, target: method == "PUT" and target.endswith("state.json")  # noqa: E731
    expired = answer_error(403, "ExpiredToken")
    bench.proxy.inject(lose_answer, state, then=lambda: bench.proxy.inject(expired, times=ALWAYS))

    with pytest.raises(StorageError, match="whether digits was changed cannot be told"):
        registry.promote("digits", 1, "stable", origin=ANN)

    assert Registry(bench.direct).state("digits").labels == {"stable": 1}


def test_a_swap_whose_answer_was_lost_and_that_another_swap_followed_is_a_conflict(bench: Bench) -> None:
    etag = bench.direct.put_new(DOCUMENT, OLD)

    def overtake() -> None:
        bench.direct.put_if_match(DOCUMENT, b"theirs", bench.direct.get(DOCUMENT).etag)

    bench.proxy.inject(lose_answer, WRITING, then=overtake)

    with pytest.raises(ConflictError):
        bench.store.put_if_match(DOCUMENT, NEW, etag)

    assert bench.direct.get(DOCUMENT).data == b"theirs"


def test_a_creation_whose_answer_was_lost_and_that_a_swap_followed_is_a_conflict(bench: Bench) -> None:
    def overtake() -> None:
        bench.direct.put_if_match(DOCUMENT, b"theirs", bench.direct.get(DOCUMENT).etag)

    bench.proxy.inject(lose_answer, WRITING, then=overtake)

    with pytest.raises(ConflictError):
        bench.store.put_new(DOCUMENT, NEW)

    assert bench.direct.get(DOCUMENT).data == b"theirs"


def find_leftovers(bench: Bench, arm: Callable[[], None]) -> None:
    arm()
    list(bench.store.leftovers())


def head(bench: Bench, arm: Callable[[], None]) -> None:
    bench.direct.put_new(DOCUMENT, OLD)
    arm()
    bench.store.head(DOCUMENT)


def copy(bench: Bench, arm: Callable[[], None]) -> None:
    bench.direct.put_new(DOCUMENT, OLD)
    arm()
    bench.store.copy(DOCUMENT, "registry/copy.json")


def delete(bench: Bench, arm: Callable[[], None]) -> None:
    bench.direct.put_new(DOCUMENT, OLD)
    arm()
    bench.store.delete([DOCUMENT])


COPYING: When = lambda method, target: method == "PUT" and target.endswith("copy.json")  # noqa: E731
ANYTHING: When = lambda method, target: True  # noqa: E731


@pytest.mark.parametrize(
    ("name", "operation", "when"),
    [
        *REQUESTS,
        ("head", head, ANYTHING),
        ("list_children", lambda bench, arm: (arm(), list(bench.store.list_children(""))), ANYTHING),
        ("leftovers", find_leftovers, ANYTHING),
        ("copy", copy, COPYING),
        ("delete", delete, ANYTHING),
        ("check", lambda bench, arm: (arm(), bench.store.check(writing=False)), ANYTHING),
    ],
    ids=[*(request[0] for request in REQUESTS), "head", "list_children", "leftovers", "copy", "delete", "check"],
)
def test_a_well_formed_page_is_taken_for_no_answer(bench: Bench, name: str, operation: Operation, when: When) -> None:
    with pytest.raises(StorageError, match="no S3 server answered") as caught:
        operation(bench, lambda: bench.proxy.inject(answer_well_formed_page, when, times=ALWAYS))

    assert caught.value.transient
    assert "proxy" in (caught.value.hint or "")
    assert_whole_or_absent(bench)


def test_a_page_in_place_of_a_document_leaves_no_connection_behind(bench: Bench) -> None:
    bench.direct.put_new(DOCUMENT, OLD)
    bench.proxy.inject(answer_well_formed_page, READING, times=ALWAYS)
    port = urlsplit(bench.proxy.endpoint).port

    with pytest.raises(StorageError, match="no S3 server answered") as caught:
        bench.store.get(DOCUMENT)

    assert caught.tb, "which keeps all that led to it"
    open_ = [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]
    assert not open_


@pytest.mark.parametrize("operation", [put_new, put_if_match])
def test_a_write_that_a_page_answered_on_the_way_back_is_settled_by_reading_back(
    bench: Bench, operation: Operation
) -> None:
    def written(request: Request, ask: Ask) -> Answer:
        ask(request)
        return answer_well_formed_page(request, ask)

    operation(bench, lambda: bench.proxy.inject(written, WRITING))


def test_an_upload_that_is_finished_already_when_it_is_finished_again_has_arrived(bench: Bench) -> None:
    """As MinIO answers; others remember how they answered first."""

    def arm() -> None:
        bench.proxy.inject(lose_answer, FINISH)
        bench.proxy.inject(answer_error(404, "NoSuchUpload"), FINISH)

    upload(bench, arm)

    assert len(bench.proxy.failed) == 2
    assert_whole_or_absent(bench)


def test_an_upload_that_somebody_ended_has_not_arrived(bench: Bench) -> None:
    with pytest.raises(StorageError, match="NoSuchUpload"):
        upload(bench, lambda: bench.proxy.inject(answer_error(404, "NoSuchUpload"), FINISH))

    assert_whole_or_absent(bench)
    assert f"{PREFIX}saved_model.pb" not in [info.key for info in bench.direct.list(PREFIX)]


def test_a_server_that_is_silent_for_half_a_minute_is_waited_for(bench: Bench) -> None:
    # Half a minute for real: the store waits 60 s for an answer, as long as S3 itself may take to finish an upload.
    put_if_match(bench, lambda: bench.proxy.inject(stall(30), WRITING))

    assert len(bench.proxy.failed) == 1


@pytest.mark.parametrize("operation", [put_new, put_if_match, upload, download_big, digest_small])
def test_checksums_that_a_server_refuses_can_be_turned_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, operation: Operation
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    sent: list[str] = []

    def look(request: Request, ask: Ask) -> Answer:
        sent.extend(name.lower() for name, _ in request.headers)
        return ask(request)

    operation(bench, lambda: bench.proxy.inject(look, times=ALWAYS))

    assert "x-amz-content-sha256" in sent
    assert not [name for name in sent if name.startswith(("x-amz-checksum-crc", "x-amz-trailer"))]
    assert_whole_or_absent(bench)
