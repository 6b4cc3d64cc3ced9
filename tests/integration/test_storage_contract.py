"""What every store does alike: memory, a local directory, and S3 over HTTP."""

from __future__ import annotations

import errno
import hashlib
import inspect
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3.exceptions
import botocore.exceptions
import pytest
import s3transfer.exceptions

from model_registry.errors import ConflictError, InvalidInputError, NotFoundError, StorageError
from model_registry.payload import payload_files
from model_registry.servable import PayloadFile
from model_registry.storage import ObjectStore, open_store
from model_registry.storage.durable import translated
from model_registry.storage.s3_client import BACKEND_ERRORS
from model_registry.storage.s3_errors import translate
from tests.support.fixtures_s3 import Bucket
from tests.support.ports import free_port

_BIG = 20 << 20  # three parts


def write_tree(directory: Path, files: dict[str, bytes]) -> tuple[PayloadFile, ...]:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return payload_files(directory)


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_a_document_is_read_as_it_was_written(store: ObjectStore) -> None:
    etag = store.put_new("registry/a/1.json", b"one")

    found = store.get("registry/a/1.json")

    assert (found.data, found.etag) == (b"one", etag)
    assert 0 <= found.age < 60
    assert store.head("registry/a/1.json").size == 3


@pytest.mark.parametrize("read", ["get", "head", "digest"])
def test_what_is_not_there_is_not_found(store: ObjectStore, read: str) -> None:
    store.put_new("registry/a", b"")

    for key in ("registry/none", "registry", "nothing/at/all"):
        with pytest.raises(NotFoundError, match=key):
            getattr(store, read)(key)


def test_creating_refuses_a_key_that_is_taken(store: ObjectStore) -> None:
    store.put_new("registry/a", b"first")

    with pytest.raises(ConflictError):
        store.put_new("registry/a", b"second")

    assert store.get("registry/a").data == b"first"


def test_a_swap_needs_the_etag_of_what_is_there(store: ObjectStore) -> None:
    first = store.put_new("registry/a", b"first")
    second = store.put_if_match("registry/a", b"second", first)

    with pytest.raises(ConflictError):
        store.put_if_match("registry/a", b"third", first)
    assert store.get("registry/a").data == b"second"

    store.put_if_match("registry/a", b"third", second)
    assert store.get("registry/a").data == b"third"


def test_a_swap_refuses_a_document_that_is_gone(store: ObjectStore) -> None:
    etag = store.put_new("registry/a", b"first")
    store.delete(["registry/a"])

    with pytest.raises(ConflictError):
        store.put_if_match("registry/a", b"second", etag)

    assert keys(store) == []


def test_one_of_many_threads_creates(store: ObjectStore) -> None:
    _race(store, store.put_new)


def test_one_of_many_threads_swaps(store: ObjectStore) -> None:
    etags = {f"race/{number}": store.put_new(f"race/{number}", b"nobody") for number in range(10)}
    _race(store, lambda key, own: store.put_if_match(key, own, etags[key]))


def _race(store: ObjectStore, write: Callable[[str, bytes], str]) -> None:
    threads = 8
    barrier = threading.Barrier(threads)

    def compete(own: int) -> list[bool]:
        won = []
        for number in range(10):
            barrier.wait(30)
            won.append(_wins(lambda number=number: write(f"race/{number}", f"{own}".encode())))
        return won

    with ThreadPoolExecutor(threads) as pool:
        outcomes = list(pool.map(compete, range(threads)))
    _assert_one_winner(store, outcomes)


def _wins(write: Callable[[], object]) -> bool:
    try:
        write()
    except ConflictError:
        return False
    return True


def _assert_one_winner(store: ObjectStore, outcomes: list[list[bool]]) -> None:
    for number, round_ in enumerate(zip(*outcomes, strict=True)):
        assert sum(round_) == 1
        assert store.get(f"race/{number}").data == str(round_.index(True)).encode()


def test_one_of_many_processes_creates(store_url: str) -> None:
    _assert_one_winner(open_store(store_url), _race_processes(store_url, {}))


def test_one_of_many_processes_swaps(store_url: str) -> None:
    store = open_store(store_url)
    etags = {f"race/{number}": store.put_new(f"race/{number}", b"nobody") for number in range(10)}
    _assert_one_winner(store, _race_processes(store_url, etags))


def _race_processes(url: str, etags: dict[str, str]) -> list[list[bool]]:
    context = multiprocessing.get_context("forkserver")  # which imports once for all of them
    context.set_forkserver_preload([__name__, "model_registry.storage.s3"])
    barrier = context.Barrier(3)
    answers: list[Any] = []
    processes = []
    for own in range(3):
        answer, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_compete_in_a_process, args=(url, dict(os.environ), own, etags, barrier, theirs)
        )
        process.start()
        theirs.close()
        processes.append(process)
        answers.append(answer)
    outcomes = [answer.recv() for answer in answers]
    for process in processes:
        process.join(30)
    return outcomes


def _compete_in_a_process(
    url: str, environ: dict[str, str], own: int, etags: dict[str, str], barrier: Barrier, answer: Any
) -> None:
    os.environ.update(environ)  # it was forked from a process that is older than the server
    store = open_store(url)
    won = []
    data = str(own).encode()
    for number in range(10):
        key = f"race/{number}"
        barrier.wait(60)
        if etags:
            won.append(_wins(lambda key=key: store.put_if_match(key, data, etags[key])))
        else:
            won.append(_wins(lambda key=key: store.put_new(key, data)))
    answer.send(won)


def test_a_listing_is_sorted_and_holds_what_lies_below(store: ObjectStore) -> None:
    for key in ("a/b/2", "a/b-c/1", "a/b/10", "a/b.json", "ab/1", "b"):
        store.put_new(key, key.encode())

    assert keys(store, "a/") == ["a/b-c/1", "a/b.json", "a/b/10", "a/b/2"]
    assert keys(store, "a/b/") == ["a/b/10", "a/b/2"]
    assert keys(store) == ["a/b-c/1", "a/b.json", "a/b/10", "a/b/2", "ab/1", "b"]
    assert keys(store, "none/") == []
    assert keys(store, "b/") == []
    assert [info.size for info in store.list("a/b/")] == [6, 5]


def test_children_are_one_level_below(store: ObjectStore) -> None:
    for key in ("a/b/2", "a/b/c/1", "a/b-c/1", "a/b.json"):
        store.put_new(key, b"")

    assert list(store.list_children("a/")) == ["b", "b-c", "b.json"]
    assert list(store.list_children("")) == ["a"]
    assert list(store.list_children("none/")) == []


def test_a_listing_tells_that_something_else_was_written(store: ObjectStore, tmp_path: Path) -> None:
    data, graph = "variables/variables.data-00000-of-00001", "saved_model.pb"
    tree = write_tree(tmp_path / "tree", {data: b"b" * _BIG, "variables/variables.index": b"i", graph: b"first"})
    store.upload_tree(tmp_path / "tree", "a/", tree)

    def told() -> dict[str, str]:
        found = {info.key: info.etag for info in store.list("a/")}
        assert found == {key: store.head(key).etag for key in found}
        return found

    before = told()
    assert before == told()
    assert all(before.values())
    store.put_if_match(f"a/{graph}", b"other", store.get(f"a/{graph}").etag)
    after = told()
    assert (after[f"a/{data}"] == before[f"a/{data}"], after[f"a/{graph}"] == before[f"a/{graph}"]) == (True, False)


def test_a_listing_has_more_than_one_page(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        expected = sorted(pool.map(_create(store), range(1005)))

    assert keys(store, "many/") == expected
    assert len(list(store.list_children("many/"))) == 1005

    store.delete(expected)
    assert keys(store) == []


def _create(store: ObjectStore) -> Callable[[int], str]:
    def create(number: int) -> str:
        store.put_new(f"many/{number}", b"")
        return f"many/{number}"

    return create


def test_deleting_what_is_gone_does_not_matter(store: ObjectStore) -> None:
    store.put_new("a/b/c", b"")
    store.put_new("a/d", b"")

    store.delete(["a/b/c", "a/b/c", "none", "a/d/e"])

    assert keys(store) == ["a/d"]
    assert list(store.list_children("a/")) == ["d"]


def test_a_copy_replaces(store: ObjectStore) -> None:
    store.put_new("a", b"new")
    store.put_new("dir/b", b"old")

    store.copy("a", "dir/b")
    store.copy("a", "other/c")

    assert store.get("dir/b").data == store.get("other/c").data == b"new"
    with pytest.raises(NotFoundError):
        store.copy("none", "other/d")


@pytest.mark.parametrize(
    "key", ["../out", "a/../../out", "/etc/passwd", "a//b", "", ".", "a/", "a\\b", "a\nb", "a\0b", "\udcff", "k" * 300]
)
def test_no_key_leaves_the_root(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidInputError):
        store.put_new(key, b"")
    with pytest.raises(InvalidInputError):
        store.get(key)
    with pytest.raises(InvalidInputError):
        store.delete([key])
    with pytest.raises(InvalidInputError):
        store.copy("a", key)


@pytest.mark.parametrize("prefix", ["../", "a", "/", "a//"])
def test_no_prefix_leaves_the_root(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(InvalidInputError):
        list(store.list(prefix))
    with pytest.raises(InvalidInputError):
        list(store.list_children(prefix))


def test_a_tree_arrives_whole(store: ObjectStore, tmp_path: Path) -> None:
    content = {
        "saved_model.pb": b"graph",
        "variables/variables.data-00000-of-00001": os.urandom(_BIG),
        "variables/variables.index": b"index",
        "assets/empty": b"",
        "assets/a name with blanks": b"x",
    }
    files = write_tree(tmp_path / "tree", content)

    store.upload_tree(tmp_path / "tree", "models/m/native/1/", files)

    assert keys(store, "models/m/native/1/") == sorted(f"models/m/native/1/{name}" for name in content)
    for file in files:
        key = f"models/m/native/1/{file.path}"
        assert store.digest(key) == PayloadFile(key, file.bytes, file.sha256)
        arrived = store.download(key, tmp_path / "there" / file.path)
        assert (arrived.bytes, arrived.sha256) == (file.bytes, file.sha256)
        assert (tmp_path / "there" / file.path).read_bytes() == content[file.path]


def test_a_tree_refuses_a_prefix_with_something_in_it(store: ObjectStore, tmp_path: Path) -> None:
    files = write_tree(tmp_path / "tree", {"saved_model.pb": b"graph"})
    store.put_new("models/m/native/1/other", b"")

    with pytest.raises(ConflictError):
        store.upload_tree(tmp_path / "tree", "models/m/native/1/", files)

    assert keys(store) == ["models/m/native/1/other"]


@pytest.mark.parametrize("change", ["content", "missing", "link"])
def test_a_tree_that_changed_after_hashing_is_refused(store: ObjectStore, tmp_path: Path, change: str) -> None:
    files = write_tree(tmp_path / "tree", {"saved_model.pb": b"graph", "variables/v": b"123"})
    (tmp_path / "secret").write_bytes(b"123")
    if change == "content":
        (tmp_path / "tree" / "variables" / "v").write_bytes(b"124")
    else:
        (tmp_path / "tree" / "variables" / "v").unlink()
    if change == "link":
        (tmp_path / "tree" / "variables" / "v").symlink_to(tmp_path / "secret")

    with pytest.raises(StorageError):
        store.upload_tree(tmp_path / "tree", "models/m/native/1/", files)

    assert "models/m/native/1/saved_model.pb" not in keys(store)


def test_downloading_what_is_not_there_leaves_no_file(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.download("none", tmp_path / "file")

    assert not (tmp_path / "file").exists()


def test_a_digest_is_of_the_content(store: ObjectStore) -> None:
    store.put_new("a", b"content")

    assert store.digest("a") == PayloadFile("a", 7, hashlib.sha256(b"content").hexdigest())


def test_a_workspace_is_private_and_leaves_nothing_behind(store: ObjectStore) -> None:
    with store.workspace("run-1") as directory:
        assert list(directory.iterdir()) == []
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "sub").mkdir()
        (directory / "sub" / "file").write_bytes(b"")

    assert not directory.exists()
    assert keys(store) == []


def test_a_workspace_is_removed_after_a_failure(store: ObjectStore) -> None:
    with pytest.raises(RuntimeError), store.workspace("run-1") as directory:
        raise RuntimeError

    assert not directory.exists()


def test_a_check_leaves_nothing_behind(store: ObjectStore) -> None:
    store.check()

    assert keys(store) == []


def test_the_uri_of_a_key_continues_the_stores(store_url: str) -> None:
    store = open_store(store_url)

    assert store.uri == store_url
    assert store.uri_of("models/m/") == f"{store_url}/models/m/"


def _fails_to_check(url: str) -> StorageError:
    with pytest.raises(StorageError) as caught:
        open_store(url).check()
    return caught.value


def test_a_check_says_that_the_bucket_does_not_exist(s3_bucket: Bucket) -> None:
    error = _fails_to_check("s3://no-such-bucket-here")

    assert "the bucket does not exist" in error.message
    assert not error.transient


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN", "the access key is not known"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret key is wrong"),
        ("AWS_ACCESS_KEY_ID", None, "no credentials were found"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "the S3 client refuses its settings"),
        ("AWS_PROFILE", "nobody", "no credentials were found"),
    ],
)
def test_a_check_says_what_is_wrong_with_the_settings(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, message: str
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    else:
        monkeypatch.setenv(variable, value)

    error = _fails_to_check(s3_bucket.url)

    assert message in error.message
    assert error.hint
    assert not error.transient


def test_a_check_gives_up_on_an_endpoint_where_nobody_listens(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")

    error = _fails_to_check(s3_bucket.url)

    assert "cannot be reached" in error.message
    assert error.transient


def test_a_check_gives_up_on_an_endpoint_that_never_answers(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        error = _fails_to_check(s3_bucket.url)

    assert "does not answer" in error.message
    assert error.transient


def _exceptions(*modules: ModuleType) -> list[type[Exception]]:
    members = [member for module in modules for _, member in inspect.getmembers(module, inspect.isclass)]
    return [
        member
        for member in members
        if issubclass(member, Exception) and not issubclass(member, Warning) and member.__module__ in _S3_MODULES
    ]


_S3_MODULES = {"botocore.exceptions", "boto3.exceptions", "s3transfer.exceptions"}


@pytest.mark.parametrize("kind", _exceptions(botocore.exceptions, boto3.exceptions, s3transfer.exceptions))
def test_every_exception_of_the_s3_client_becomes_ours(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    if issubclass(kind, botocore.exceptions.ClientError):
        error.response = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}  # type: ignore[attr-defined]

    assert issubclass(kind, BACKEND_ERRORS)
    assert isinstance(translate(error, "s3://bucket/key"), StorageError | InvalidInputError)


@pytest.mark.parametrize(
    ("kind", "transient"),
    [
        (botocore.exceptions.EndpointConnectionError, True),
        (botocore.exceptions.ConnectTimeoutError, True),
        (botocore.exceptions.ReadTimeoutError, True),
        (botocore.exceptions.ConnectionClosedError, True),
        (botocore.exceptions.ProxyConnectionError, True),
        (botocore.exceptions.ResponseStreamingError, True),
        (botocore.exceptions.IncompleteReadError, True),
        (botocore.exceptions.SSLError, False),
        (botocore.exceptions.NoCredentialsError, False),
        (botocore.exceptions.UnauthorizedSSOTokenError, False),
        (botocore.exceptions.InvalidConfigError, False),
    ],
)
def test_an_exception_of_the_s3_client_says_whether_to_try_again(kind: type[Exception], transient: bool) -> None:
    error = translate(kind.__new__(kind), "s3://bucket/key")

    assert isinstance(error, StorageError)
    assert error.transient is transient


@pytest.mark.parametrize(
    ("code", "status", "kind", "transient"),
    [
        ("NoSuchKey", 404, NotFoundError, None),
        ("404", 404, NotFoundError, None),
        ("NoSuchBucket", 404, StorageError, False),
        ("PreconditionFailed", 412, ConflictError, None),
        ("ConditionalRequestConflict", 409, StorageError, True),
        ("SlowDown", 503, StorageError, True),
        ("InternalError", 500, StorageError, True),
        ("Whatever", 502, StorageError, True),
        ("AccessDenied", 403, StorageError, False),
        ("403", 403, StorageError, False),
        ("MissingContentLength", 411, StorageError, False),
        ("EntityTooLarge", 400, StorageError, False),
    ],
)
def test_an_answer_of_the_server_becomes_ours(
    code: str, status: int, kind: type[Exception], transient: bool | None
) -> None:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}

    error = translate(botocore.exceptions.ClientError(response, "Anything"), "s3://bucket/key")

    assert type(error) is kind
    assert getattr(error, "transient", None) is transient


def test_a_check_of_a_fresh_path_leaves_no_directory_behind(tmp_path: Path) -> None:
    open_store(str(tmp_path / "a" / "b")).check()

    assert list(tmp_path.iterdir()) == []


def test_a_workspace_in_a_fresh_path_leaves_no_directory_behind(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "a" / "b")).workspace("run") as directory:
        assert directory == tmp_path / "a" / "b" / "staging" / "run"

    assert list(tmp_path.iterdir()) == []


def test_a_workspace_in_use_is_refused_and_a_forgotten_one_emptied(tmp_path: Path) -> None:
    forgotten = tmp_path / "staging" / "run" / "left"
    forgotten.mkdir(parents=True)
    store = open_store(str(tmp_path))

    with store.workspace("run") as directory:
        assert list(directory.iterdir()) == []
        with pytest.raises(ConflictError, match="in use"), store.workspace("run"):
            pytest.fail("two have one workspace")


@pytest.mark.parametrize("below", ["file", "file/below"])
@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.check(),
        lambda store: store.put_new("a", b""),
        lambda store: list(store.list("")),
        lambda store: store.get("a"),
    ],
    ids=["check", "put_new", "list", "get"],
)
def test_a_root_that_is_a_file_is_refused(tmp_path: Path, below: str, call: Callable[[ObjectStore], object]) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="it is a file, expected a directory"):
        call(open_store(str(tmp_path / below)))


def test_a_root_where_the_system_lets_nobody_write_is_refused() -> None:
    with pytest.raises(StorageError, match="/sys/slipway cannot be used"):
        open_store("/sys/slipway").check()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space is left"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "permission is denied"),
        (errno.EROFS, "read-only"),
    ],
)
def test_an_error_of_the_file_system_is_said_in_words(tmp_path: Path, code: int, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught, translated(tmp_path):
        raise OSError(code, os.strerror(code))

    assert not caught.value.transient


def test_a_tree_from_another_file_system_is_copied(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as source:
        files = write_tree(Path(source) / "tree", {"saved_model.pb": b"graph", "variables/v": b"1"})
        store = open_store(str(tmp_path / "registry"))

        store.upload_tree(Path(source) / "tree", "models/m/native/1/", files)

    found = tmp_path / "registry" / "models" / "m" / "native"
    assert [path.name for path in found.iterdir()] == ["1"]
    assert keys(store, "models/m/native/1/") == [
        f"models/m/native/1/{name}" for name in ("saved_model.pb", "variables/v")
    ]


def test_a_tree_is_readable_for_the_server_wherever_it_was_made(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "registry")).workspace("run") as directory:
        files = write_tree(directory, {"saved_model.pb": b"graph"})
        (directory / "saved_model.pb").chmod(0o600)
        open_store(str(tmp_path / "registry")).upload_tree(directory, "models/m/native/1/", files)

    version = tmp_path / "registry" / "models" / "m" / "native" / "1"
    assert version.stat().st_mode == version.parent.stat().st_mode
    assert (version / "saved_model.pb").stat().st_mode & 0o777 == version.parent.stat().st_mode & 0o666


def test_a_tree_with_a_file_nobody_hashed_is_refused(tmp_path: Path) -> None:
    files = write_tree(tmp_path / "tree", {"saved_model.pb": b"graph"})
    (tmp_path / "tree" / "extra").write_bytes(b"")

    with pytest.raises(StorageError, match="extra"):
        open_store(str(tmp_path / "registry")).upload_tree(tmp_path / "tree", "models/m/native/1/", files)


def test_an_empty_directory_is_no_version_to_anybody(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    (tmp_path / "models" / "m" / "native" / "60").mkdir(parents=True)
    store.put_new("models/m/native/7/saved_model.pb", b"")

    assert list(store.list_children("models/m/native/")) == ["7"]

    store.delete(["models/m/native/7/saved_model.pb"])
    assert not (tmp_path / "models" / "m" / "native" / "7").exists()


def test_ages_are_told_by_the_file_systems_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = time.time
    monkeypatch.setattr(time, "time", lambda: here() + 3600)  # this machine's clock is an hour fast
    store = open_store(str(tmp_path))
    etag = store.put_new("registry/a", b"1")
    os.utime(tmp_path / "registry" / "a", (here() - 500, here() - 500))
    store.put_new("registry/b", b"1")

    assert 490 < store.get("registry/a").age < 1000
    assert [490 < info.age < 1000 for info in store.list("registry/")] == [True, False]
    assert store.head("registry/b").age < 60
    assert [path.name for path in tmp_path.iterdir()] == ["registry"]

    store.put_if_match("registry/a", b"2", etag)
    assert open_store(str(tmp_path)).get("registry/a").age < 60


@pytest.mark.parametrize("read", [lambda store: list(store.list("")), lambda store: store.list_children("")])
def test_reading_a_registry_that_does_not_exist_makes_no_directory(
    tmp_path: Path, read: Callable[[ObjectStore], object]
) -> None:
    store = open_store(str(tmp_path / "none"))

    read(store)
    with pytest.raises(NotFoundError):
        store.get("registry/a")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["", "gs://bucket/x", "s3://", "s3:///x", "s3://bucket/../x", "file:///x", "~nobody-here/x"]
)
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        open_store(url)


def test_a_creation_that_nfs_asked_for_twice_has_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    link = os.link

    def link_twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)

    store.put_new("registry/a", b"first")
    with pytest.raises(ConflictError):
        store.put_new("registry/a", b"second")

    assert store.get("registry/a").data == b"first"


def _rename_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def rename_twice(source: Path, target: Path) -> None:
        rename(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_twice)


def test_a_swap_that_nfs_asked_for_twice_has_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    etag = store.put_new("registry/a", b"first")
    _rename_twice(monkeypatch)

    store.put_if_match("registry/a", b"second", etag)

    assert store.get("registry/a").data == b"second"


def test_a_tree_that_nfs_moved_once_when_asked_twice_has_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "registry"))
    files = write_tree(tmp_path / "tree", {"saved_model.pb": b"graph"})
    _rename_twice(monkeypatch)

    store.upload_tree(tmp_path / "tree", "models/m/native/1/", files)

    assert keys(store) == ["models/m/native/1/saved_model.pb"]
