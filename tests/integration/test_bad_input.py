"""Bad input ends in a sentence that names it, the right exit code, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click.testing
import numpy as np
import psutil
import pytest

from flows.cli import main
from model_registry.errors import StorageError
from tasks.package_request import PackageRequest
from tasks.packaging_run import packaging_run
from tests.support.command import Outcome, assert_no_process_in, scratch_of, slipway, tree
from tests.support.fixtures_s3 import Bucket
from tests.support.ports import free_port
from tests.support.prefect_processes import PrefectServer

UNREACHABLE_WITHIN = 30.0
CUSTOM = "source: custom.keras\ncustom_objects: [harbour_layers]\n"


@pytest.fixture
def folder(tmp_path: Path, models: Path) -> Iterator[Path]:
    """Where the command runs: a folder with models, which must be as it was afterwards, whatever happens."""
    folder = tmp_path / "work"
    shutil.copytree(models, folder)
    yield folder
    assert_no_process_in(tmp_path)
    assert sorted(scratch_of(folder).iterdir()) == []


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    before = tree(folder)
    yield
    assert tree(folder) == before


def assert_refused(outcome: Outcome, words: str, kind: str = "InvalidInputError", code: int = 1) -> None:
    """The words are regular expressions, one a line: all must be found in message or hint."""
    assert outcome.stdout, outcome.stderr
    error = outcome.error
    assert (outcome.code, error["class"]) == (code, kind), error
    for pattern in words.strip().splitlines():
        assert re.search(pattern.strip(), f"{error['message']}\n{error['hint']}"), f"{pattern} in {error}"
    assert "Traceback" not in outcome.stderr
    assert "Traceback" not in outcome.stdout


# The source: how it is made of the folder's files, and what is said of it.


def truncated(folder: Path) -> None:
    data = (folder / "tiny.keras").read_bytes()
    (folder / "bad.keras").write_bytes(data[: len(data) * 2 // 3])


def some_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "bad.keras", "w") as archive:
        archive.writestr("holiday.txt", "sea")


def climbing(folder: Path) -> None:
    shutil.copy(folder / "tiny.keras", folder / "bad.keras")
    with zipfile.ZipFile(folder / "bad.keras", "a") as archive:
        archive.writestr("../../climbed.txt", "out")


def empty_directory(folder: Path) -> None:
    (folder / "bad.keras").mkdir()


SOURCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing file": (lambda _: None, r"there is no model at .*bad\.keras"),
    "an empty file": (lambda folder: (folder / "bad.keras").touch(), r"bad\.keras is empty"),
    "a truncated .keras": (truncated, r"bad\.keras is a zip file cut short"),
    "a zip that is no model": (some_zip, r"bad\.keras is no Keras model.*holiday\.txt"),
    "a pickle renamed": (
        lambda folder: (folder / "bad.keras").write_bytes(pickle.dumps({"weights": [1, 2]})),
        r"bad\.keras is no Keras model.*pickle, which runs code",
    ),
    "an archive that climbs out": (climbing, r"\.\./\.\./climbed\.txt.*leads out of the archive"),
    "a directory that is no SavedModel": (empty_directory, r"bad\.keras is no SavedModel"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_that_is_no_model_is_refused(folder: Path, kind: str) -> None:
    make, words = SOURCES[kind]
    make(folder)

    with unchanged(folder):
        outcome = slipway("package", "bad.keras", "--json", folder=folder)

    assert_refused(outcome, words)


SPECS = {
    "an unknown key": ("model: a\nbatchsizes: [1]\n", r"package\.yaml: line 2, batchsizes.*did you mean 'batch_sizes'"),
    "a wrong dtype": (
        "model: a\nsignatures: {serving_default: {inputs: {x: {dtype: flaot32}}}}\n",
        r"signatures\.serving_default\.inputs\.x.*flaot32.*did you mean 'float32'",
    ),
    "a batch size of 0": ("model: a\nbatch_sizes: [0, 8]\n", r"batch_sizes.*1 or more.*found the number 0"),
    "no source": ("model: a\n", r"package\.yaml names no `source`"),
    "no model": ("source: tiny.keras\n", r"model"),
    "custom objects without a grant": (f"model: a\n{CUSTOM}", "custom_objects.*grant\n--trust"),
    "code without a grant": (
        "model: a\nsource: brings_code.keras\nunsafe_deserialization: true\n",
        "unsafe_deserialization.*grant\n--trust",
    ),
    "a model's name with a slash": ("model: a/b\nsource: tiny.keras\n", r"'a/b'.*expected 1 to 128 letters"),
    "samples that are not there": (
        "model: a\nsource: tiny.keras\nsamples: none.npz\n",
        r"samples: there is no file at .*none\.npz",
    ),
    "no YAML": ("model: [a\n", r"package\.yaml.*not valid YAML"),
}


@pytest.mark.parametrize("kind", SPECS)
def test_a_spec_that_is_wrong_is_refused(folder: Path, kind: str) -> None:
    text, words = SPECS[kind]
    (folder / "package.yaml").write_text(text)

    with unchanged(folder):
        outcome = slipway("package", "--spec", "package.yaml", "--json", folder=folder)

    assert_refused(outcome, words)


NAMES = {"a slash": "a/b", "dots": "..", "spaces": "my model", "300 characters": "m" * 300, "nothing": ""}


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_that_no_model_may_bear_is_refused(folder: Path, kind: str) -> None:
    with unchanged(folder):
        outcome = slipway("package", "tiny.keras", "--name", NAMES[kind], "--json", folder=folder)

    assert_refused(outcome, f"model name {re.escape(repr(NAMES[kind][:57]))[:-1]}\nexpected 1 to 128 letters\n--name")


def test_a_custom_module_that_is_not_there_is_refused(folder: Path) -> None:
    (folder / "package.yaml").write_text("model: a\nsource: custom.keras\ncustom_objects: [nowhere_to_be_found]\n")

    with unchanged(folder):
        outcome = slipway("package", "--spec", "package.yaml", "--trust", "--json", folder=folder)

    assert_refused(outcome, "no module 'nowhere_to_be_found'")


def test_without_json_the_error_stands_on_stderr_and_stdout_stays_empty(folder: Path) -> None:
    with unchanged(folder):
        outcome = slipway("package", "none.keras", folder=folder)

    assert (outcome.code, outcome.stdout) == (1, "")
    assert re.fullmatch(r"error: there is no model at .*none\.keras\nhint:  name a .keras.*\n", outcome.stderr)


# What only loading and tracing the model can tell. In this process, beside one server for all.


@dataclass(frozen=True)
class Wrong:
    """A packaging that fails while the model is worked on."""

    words: str
    source: str = "tiny.keras"
    spec: str = ""
    samples: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] | None = None
    trust: bool = False


def zeros(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.zeros(shape, np.float32)


LOADED = {
    "weights only": Wrong(r"weights\.h5 holds weights only", source="weights.h5"),
    "a Lambda layer": Wrong(
        "brings_code.keras brings code of its own.*Lambda\nunsafe_deserialization: true.*--trust",
        source="brings_code.keras",
    ),
    "an input that the model lacks": Wrong(
        r"signatures\.serving_default.*'?nope'?", spec="signatures: {serving_default: {inputs: {image: nope}}}\n"
    ),
    "an output that the model lacks": Wrong(
        r"signatures\.serving_default.*'?nope'?", spec="signatures: {serving_default: {outputs: {scores: nope}}}\n"
    ),
    "samples of the wrong shape": Wrong(r"samples.*\bx\b", samples={"x": zeros(20, 5)}),
    "samples without a needed input": Wrong(r"samples.*\bx\b.*\bother\b", samples={"other": zeros(20, 4)}),
}


@pytest.mark.xdist_group("prefect")
@pytest.mark.parametrize("kind", LOADED)
def test_what_the_model_does_not_allow_is_refused(
    folder: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    wrong = LOADED[kind]
    samples = ""
    if wrong.samples is not None:
        np.savez(folder / "given.npz", **wrong.samples)  # type: ignore[arg-type]
        samples = "samples: given.npz\n"
    (folder / "package.yaml").write_text(f"model: wrong\nsource: {wrong.source}\n{samples}{wrong.spec}")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "environ", os.environ.copy())

    with unchanged(folder), prefect_server.connected():
        result = click.testing.CliRunner().invoke(main, ["package", "--spec", "package.yaml", "--json"])

    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert_refused(Outcome(result.exit_code, result.stdout, ""), wrong.words)


@pytest.mark.xdist_group("prefect")
def test_a_failure_inside_the_flow_prints_no_traceback(folder: Path, prefect_server: PrefectServer) -> None:
    with unchanged(folder):
        outcome = slipway("package", "custom.keras", folder=folder, environ=prefect_server.environ())

    assert (outcome.code, outcome.stdout) == (1, "")
    assert re.search(r"^error: custom\.keras uses 'Gate', which is no.*Keras", outcome.stderr, re.M), outcome.stderr
    assert re.search(r"^hint: .*custom_objects: .*--trust", outcome.stderr, re.M), outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "prefect" not in outcome.stderr.lower()


def test_a_prefect_server_that_is_away_is_named(folder: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"

    with unchanged(folder):
        outcome = slipway(
            "package", "tiny.keras", "--json", folder=folder, environ={**os.environ, "PREFECT_API_URL": url}
        )

    assert_refused(outcome, f"the Prefect server at {url} failed\nPREFECT_API_URL", kind="SlipwayError")


# The registry.


@pytest.mark.parametrize("url", ["s3://", "ftp://there/models", "https://there/models"])
def test_a_registry_that_is_no_place_is_refused(folder: Path, url: str) -> None:
    with unchanged(folder):
        outcome = slipway("package", "tiny.keras", "--registry", url, "--json", folder=folder)

    assert_refused(outcome, re.escape(url))


def test_a_registry_that_is_a_file_is_refused(folder: Path) -> None:
    with unchanged(folder):
        outcome = slipway("package", "tiny.keras", "--registry", "tiny.h5", "--json", folder=folder)

    assert_refused(outcome, "tiny.h5.*it is a file, expected a directory", kind="StorageError")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and root ignores modes")


def mounted(what: str, registry: Path) -> list[str]:
    """A command that runs another with a mount of its own at the registry."""
    return ["unshare", "--mount", "sh", "-ec", f'{what} "$0"; shift 0; exec "$@"', str(registry)]


@needs_root
def test_a_registry_that_is_read_only_is_refused(folder: Path) -> None:
    registry = folder / "registry"
    registry.mkdir()

    with unchanged(folder):
        outcome = slipway(
            *("package", "tiny.keras", "--json"),
            folder=folder,
            wrapper=mounted('mount --bind "$0" "$0"; mount -o remount,bind,ro', registry),
        )

    assert_refused(outcome, "registry.*mounted read-only\nname another registry", kind="StorageError")


@needs_root
def test_a_registry_that_is_full_is_refused(folder: Path) -> None:
    registry = folder / "registry"
    registry.mkdir()
    fill = 'mount -t tmpfs -o size=256k tmpfs "$0"; dd if=/dev/zero of="$0/other" bs=4k 2>/dev/null || test -d'

    with unchanged(folder):
        outcome = slipway(*("package", "tiny.keras", "--json"), folder=folder, wrapper=mounted(fill, registry))

    assert_refused(outcome, "registry.*no space is left\nfree some space", kind="StorageError")


@needs_root
@pytest.mark.xdist_group("prefect")
def test_a_registry_that_becomes_full_on_the_way_is_an_error_that_says_so(
    folder: Path, prefect_server: PrefectServer
) -> None:
    registry = folder / "registry"
    registry.mkdir()
    listing = folder.parent / "left"
    script = f'mount -t tmpfs -o size=24k tmpfs "$0"; r=$0; "$@" || c=$?; find "$r" -mindepth 1 >{listing}; exit $c'

    with unchanged(folder):
        outcome = slipway(
            *("package", "tiny.keras", "--json"),
            folder=folder,
            environ=prefect_server.environ(),
            wrapper=["unshare", "--mount", "sh", "-c", script, str(registry)],
        )

    assert_refused(outcome, "(?i)no space left\nfree some space", kind=outcome.error["class"])
    assert listing.read_text() == ""


def test_a_bucket_that_does_not_exist_is_named(folder: Path, s3_bucket: Bucket) -> None:
    with unchanged(folder):
        outcome = slipway("package", "tiny.keras", "--registry", f"s3://no-{s3_bucket.name}", "--json", folder=folder)

    assert_refused(outcome, f"no-{s3_bucket.name}: the bucket does not exist", kind="StorageError")


def test_no_process_is_started_for_a_registry_that_cannot_be_used(folder: Path, s3_bucket: Bucket) -> None:
    request = PackageRequest(str(folder / "tiny.keras"), registry=f"s3://no-{s3_bucket.name}")
    before = set(psutil.Process().children())

    with packaging_run(request) as run:
        with pytest.raises(StorageError, match="the bucket does not exist"):
            run.begin()

        assert set(psutil.Process().children()) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "the secret key is wrong|access is denied\nAWS_SECRET_ACCESS_KEY|the key needs"),
        ("AWS_ACCESS_KEY_ID", "the access key is not known|access is denied\nAWS_ACCESS_KEY_ID|the key needs"),
    ],
)
def test_wrong_keys_are_told_apart_from_a_missing_bucket(
    folder: Path, s3_bucket: Bucket, name: str, words: str
) -> None:
    environ = {**os.environ, **s3_bucket.environ(), name: "WRONGWRONGWRONGWRONG"}

    with unchanged(folder):
        outcome = slipway(
            "package", "tiny.keras", "--registry", s3_bucket.url, "--json", folder=folder, environ=environ
        )

    assert_refused(outcome, words, kind="StorageError")
    assert "WRONGWRONG" not in outcome.stdout


def test_no_keys_at_all_are_asked_for(folder: Path) -> None:
    environ = {**os.environ, "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}

    with unchanged(folder):
        outcome = slipway("package", "tiny.keras", "--registry", "s3://b", "--json", folder=folder, environ=environ)

    assert_refused(outcome, "no credentials were found\nAWS_ACCESS_KEY_ID", kind="StorageError")


def test_an_object_that_is_not_there_is_named(folder: Path, s3_bucket: Bucket) -> None:
    with unchanged(folder):
        outcome = slipway("package", f"s3://{s3_bucket.name}/none.keras", "--json", folder=folder)

    assert_refused(outcome, f"s3://{s3_bucket.name}/none.keras is not there", kind="NotFoundError")


@contextlib.contextmanager
def nobody_listens() -> Iterator[int]:
    yield free_port()


@contextlib.contextmanager
def nobody_answers() -> Iterator[int]:
    """Connections are made by the kernel, and nobody takes them."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield int(listener.getsockname()[1])


@contextlib.contextmanager
def nobody_connects() -> Iterator[int]:
    """The queue of connections is full, so that the next is not even refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


UNREACHABLE = [
    (nobody_listens, ["tiny.keras", "--registry", "s3://bucket/x"]),
    (nobody_answers, ["tiny.keras", "--registry", "s3://bucket/x"]),
    (nobody_answers, ["s3://bucket/tiny.keras"]),
    (nobody_connects, ["tiny.keras", "--registry", "s3://bucket/x"]),
]


def test_an_endpoint_that_cannot_be_reached_is_given_up_within_half_a_minute(folder: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}

    def package(endpoint: Callable[[], contextlib.AbstractContextManager[int]], places: list[str]) -> Outcome:
        with endpoint() as port:
            environ = {**os.environ, **keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
            return slipway("package", *places, "--json", folder=folder, environ=environ, timeout=UNREACHABLE_WITHIN)

    # Side by side, for nearly all of it is waiting.
    with unchanged(folder), ThreadPoolExecutor(len(UNREACHABLE)) as pool:
        outcomes = list(pool.map(package, *zip(*UNREACHABLE, strict=True)))

    for outcome in outcomes:
        assert_refused(outcome, "endpoint (cannot be reached|does not answer)\nendpoint|ENDPOINT", kind="StorageError")
