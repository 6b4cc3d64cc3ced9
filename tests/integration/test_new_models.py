"""Which folders of trained models are new to a registry, and what it costs to know."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import pytest

from model_registry import paths
from model_registry.collection import collect, plan
from model_registry.errors import NotFoundError
from model_registry.provenance import Provenance
from model_registry.registry import Registry
from model_registry.revision import revision_of
from model_registry.servable import Source
from model_registry.state import Origin
from tasks.scan import scan, source_digest
from tasks.scan_rules import FolderOutcome, same_digest
from tests.support.deployments import runs_of, start_run
from tests.support.fixtures_s3 import Bucket
from tests.support.prefect_api import call, ids, until
from tests.support.prefect_processes import PrefectServer
from tests.support.trainers import Trainer, publish_from, refuse_from, sha256

pytestmark = pytest.mark.xdist_group("prefect-workers")


@pytest.fixture
def trainer(s3_bucket: Bucket) -> Trainer:
    return Trainer(s3_bucket)


def verdicts(outcomes: tuple[FolderOutcome, ...] | list[FolderOutcome]) -> dict[str, str]:
    return {outcome.folder: outcome.sentence.split(": ", 1)[1] for outcome in outcomes}


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The requests of every S3 store that is opened meanwhile: the method, and the key or `list PREFIX`."""
    from model_registry.storage import s3

    made: list[str] = []

    def note(request: Any, **_: Any) -> None:
        url = urlsplit(request.url)
        query = parse_qs(url.query)
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        made.append(f"list {query['prefix'][0]}" if "list-type" in query else f"{request.method} {key}")

    connect = s3.connect

    def connect_counted(**options: Any) -> Any:
        client = connect(**options)
        client.meta.events.register("before-send.s3", note)
        return client

    with monkeypatch.context() as patched:
        patched.setattr(s3, "connect", connect_counted)
        yield made


def test_a_scan_reads_no_model_and_asks_little_where_nothing_is_new(
    trainer: Trainer, s3_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(s3_bucket.url)
    folders = [f"run-{number}" for number in range(5)]
    for number, folder in enumerate(folders):
        data = b"model %d" % number
        location = trainer.hand_over(folder, data, "model: digits\nsource: digits.keras")
        source = Source(location, "keras", sha256(data), len(data), revision_of(location))
        if number == 4:
            refuse_from(registry, model="digits", source=source)
        else:
            publish_from(registry, tmp_path, model="digits", source=source, identity=f"a{number}")

    with counting(monkeypatch) as requests:
        found = scan(trainer.trained, Registry.open(s3_bucket.url))

    assert found.new == ()
    assert verdicts(found.known) == {
        "run-0": "seen before, digits:1",
        "run-1": "seen before, digits:2",
        "run-2": "seen before, digits:3",
        "run-3": "seen before, digits:4",
        "run-4": "seen before, digits was refused then",
    }
    prefix = "registry-under-test/registry/digits"
    assert sorted(requests) == sorted(
        [
            "list trained/",  # whether the folder can be read
            "list trained/",
            *(f"GET trained/{folder}/package.yaml" for folder in folders),
            f"list {prefix}/versions/",
            *(f"GET {prefix}/versions/{version}.json" for version in (1, 2, 3, 4)),
            f"list {prefix}/rejected/",
            f"GET {prefix}/rejected/a1.json",
        ]
    )


def test_a_model_that_was_copied_or_written_again_is_told_by_its_digest(
    trainer: Trainer, s3_bucket: Bucket, tmp_path: Path, models: Path
) -> None:
    registry = Registry.open(s3_bucket.url)
    saved = trainer.hand_over("saved", models / "saved_model", "model: tiny\nsource: saved_model")
    file = trainer.hand_over("file", b"one", "model: tiny\nsource: tiny.keras")
    for number, location in enumerate((saved, file)):
        source = Source(location, "keras", source_digest(location), 3, revision_of(location))
        publish_from(registry, tmp_path, model="tiny", source=source, identity=f"a{number}")
    trainer.put("saved/saved_model/variables/more", b"")
    trainer.hand_over("copy", b"one", "model: tiny\nsource: tiny.keras")
    trainer.hand_over("other-name", b"one", "model: other\nsource: tiny.keras")

    found = scan(trainer.trained, registry)

    assert verdicts(found.known) == {"file": "seen before, tiny:2"}
    assert [new.folder for new in found.new] == ["copy", "other-name", "saved"]
    told = [found.seen[new.model].find(same_digest(source_digest(new.source))) for new in found.new]
    assert [seen.version if seen else None for seen in told] == [2, None, None]


def test_a_digest_read_from_s3_is_that_of_the_manifest(trainer: Trainer, models: Path) -> None:
    from model_registry.source import digest_source

    for name in ("tiny.keras", "saved_model"):
        location = trainer.hand_over("a", models / name, f"model: tiny\nsource: {name}")
        assert source_digest(location) == digest_source(models / name)[0]
    with pytest.raises(NotFoundError, match=r"none\.keras is not there"):
        source_digest(f"{trainer.trained}/a/none.keras")


def test_a_model_stays_seen_when_its_version_is_retired_and_collected(tmp_path: Path) -> None:
    registry = Registry.open(str(tmp_path / "registry"))
    digest, revision = "c" * 64, "d" * 64
    source = Source("/trained/digits.keras", "keras", digest, 3, revision)
    publish_from(registry, tmp_path, model="digits", source=source)
    registry.retire("digits", [1], origin=Origin("ann"))

    def seen() -> tuple[int | None, str | None]:
        found = Provenance(registry, "digits").find(same_digest(digest))
        assert found is not None
        return found.version, found.revision

    assert seen() == (1, revision)
    collect(registry, plan(registry, keep=None, grace=0.0), origin=Origin("ann"))
    assert registry.committed("digits") == []
    assert seen() == (1, revision)


def test_a_damaged_document_is_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry.open(str(tmp_path / "registry"))
    publish_from(registry, tmp_path, model="digits", source=Source("/a", "keras", "c" * 64, 3))
    (tmp_path / "registry" / paths.manifest("digits", 2)).write_bytes(b"{}" + b" " * 2000)
    (tmp_path / "registry" / paths.rejections("digits")).mkdir()
    (tmp_path / "registry" / paths.rejection("digits", "a2")).write_bytes(b"[]")

    provenance = Provenance(registry, "digits")

    found = provenance.find(same_digest("c" * 64))
    assert found is not None and found.version == 1
    assert provenance.find(same_digest("e" * 64)) is None
    assert len([record for record in caplog.records if "may be packaged again" in record.getMessage()]) == 2


@pytest.mark.parametrize("on_s3", [True, False], ids=["s3", "local"])
def test_each_folder_that_cannot_be_used_is_one_failure(
    on_s3: bool, trainer: Trainer, s3_bucket: Bucket, tmp_path: Path
) -> None:
    specs = {
        "anchor": "model: &a x\nsource: a.keras",
        "empty": "",
        "good": "model: good\nsource: a.keras",
        "huge": "#" * (1 << 20) + "\nmodel: a",
        "name": "model: ../../etc\nsource: a.keras",
        "nothing": "model: a",
        "trusting": "model: a\nunsafe_deserialization: true\nsource: a.keras",
        "unknown": "model: a\nsorce: a.keras",
        "x\x1b[31m": "model: a\nsource: a.keras",
    }
    outside = {"abroad": "model: a\nsource: ../../a.keras", "root": "model: a\nsource: /etc/passwd"}
    trained = trainer.trained if on_s3 else str(tmp_path / "trained")
    for folder, spec in {**specs, **(outside if on_s3 else {})}.items():
        if on_s3:
            trainer.put(f"{folder}/package.yaml", spec.encode())
        else:
            (tmp_path / "trained" / folder).mkdir(parents=True)
            (tmp_path / "trained" / folder / "package.yaml").write_text(spec)

    found = scan(trained, Registry.open(str(tmp_path / "registry")))

    assert [new.folder for new in found.new] == ["good"]
    told = {outcome.folder: outcome.reason for outcome in found.known}
    assert all(outcome.verdict == "failed" for outcome in found.known)
    expected = {
        "anchor": "anchors and aliases",
        "empty": "is empty",
        "huge": "too large",
        "name": "cannot be used",
        "nothing": "names no `source`",
        "trusting": "expected the operator's grant",
        "unknown": "sorce",
        "x\N{REPLACEMENT CHARACTER}[31m": "cannot be a key",
    } | ({"abroad": "expected a path inside", "root": "expected a path inside"} if on_s3 else {})
    assert sorted(told) == sorted(expected)
    assert [folder for folder, words in expected.items() if words not in told[folder]] == [], told


def test_a_store_that_is_away_and_that_a_spec_chose_is_that_folders_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        for folder, source in (("away", "s3://bucket/a.keras"), ("good", "a.keras")):
            (tmp_path / "trained" / folder).mkdir(parents=True)
            (tmp_path / "trained" / folder / "package.yaml").write_text(f"model: a\nsource: {source}\n")

        found = scan(str(tmp_path / "trained"), Registry.open(str(tmp_path / "registry")))

    assert [new.folder for new in found.new] == ["good"]
    assert [(outcome.folder, outcome.verdict) for outcome in found.known] == [("away", "failed")]


def test_a_local_folder_that_cannot_be_looked_at_is_one_failure_and_a_link_is_followed(tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    for folder in ("good", "not-ready"):
        (trained / folder).mkdir(parents=True)
        (trained / folder / "a.keras").write_bytes(b"a")
    (trained / "good" / "package.yaml").write_text("model: a\nsource: a.keras\n")
    (trained / "latest").symlink_to("good")
    (trained / "dangling").symlink_to("none")
    (trained / "round").symlink_to("round")
    (trained / "a-file").write_bytes(b"")

    found = scan(str(trained), Registry.open(str(tmp_path / "registry")))

    assert [new.folder for new in found.new] == ["good", "latest"]
    assert len({(new.source, new.revision) for new in found.new}) == 1  # the link leads to the same model
    assert {outcome.folder: outcome.verdict for outcome in found.known} == {"dangling": "failed", "round": "failed"}


def test_a_folder_of_folders_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder of trained models"):
        scan(str(tmp_path / "none"), Registry.open(str(tmp_path / "registry")))


# With Prefect.


def test_a_scan_without_what_packages_the_models_says_so_at_once(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from flows.package_new_models import package_new_models

    with prefect_server.connected(), pytest.raises(NotFoundError, match="there is no deployment 'package-model/none'"):
        package_new_models(str(tmp_path), registry=str(tmp_path / "registry"), deployment="package-model/none")


def handed_over_locally(trained: Path, model: str) -> str:
    (trained / "run-1").mkdir(parents=True)
    (trained / "run-1" / "a.keras").write_bytes(b"a")
    (trained / "run-1" / "package.yaml").write_text(f"model: {model}\nsource: a.keras\n")
    return str(trained)


def test_a_packaging_that_is_never_over_is_given_up_and_cancelled(
    prefect_server: PrefectServer, deployments: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    from flows.package_new_models import NewModelsError, package_new_models

    trained = handed_over_locally(tmp_path / "trained", "lost")
    before = ids(prefect_server, "flow_runs")

    # No worker takes it up, which is as good as one that took it and was lost.
    with prefect_server.connected(), pytest.raises(NewModelsError, match="was not over after 1 s") as raised:
        package_new_models(trained, registry=str(tmp_path / "registry"), longest=1)

    (run,) = [run for run in runs_of(prefect_server, deployments["package-model"]) if run["id"] not in before]
    assert run["state"]["type"] in ("CANCELLING", "CANCELLED")
    (row,) = raised.value.report["folders"]
    assert (row["folder"], row["verdict"], row["run"]) == ("run-1", "failed", run["name"])


def test_a_run_whose_worker_was_lost_does_not_keep_its_place_in_the_work_pool(
    prefect_server: PrefectServer, deployments: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import awaited_run

    run = start_run(prefect_server, deployments["package-model"])
    # As a worker leaves it that was switched off.
    call(prefect_server, f"flow_runs/{run}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    monkeypatch.setattr(awaited_run, "GRACE", 0.0)

    with prefect_server.connected(), pytest.raises(awaited_run.UnfinishedRunError, match="was found Running"):
        awaited_run.wait_for_run(UUID(run), longest=0.0, stop=threading.Event())

    assert call(prefect_server, f"flow_runs/{run}")["state"]["type"] == "CRASHED"


def test_a_look_that_is_ended_by_a_signal_ends_and_cancels_what_it_started(
    prefect_server: PrefectServer, deployments: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    script = """
import sys
from flows.package_new_models import package_new_models
package_new_models(sys.argv[1], registry=sys.argv[2])
"""
    trained = handed_over_locally(tmp_path / "trained", "ended")
    before = ids(prefect_server, "flow_runs")

    def started() -> list[dict[str, Any]]:
        return [run for run in runs_of(prefect_server, deployments["package-model"]) if run["id"] not in before]

    looking = subprocess.Popen(
        [sys.executable, "-c", script, trained, str(tmp_path / "registry")], env=prefect_server.environ()
    )
    try:
        until(lambda: bool(started()), "the packaging is started")
        looking.send_signal(signal.SIGTERM)
        assert looking.wait(timeout=120) != 0  # a hang, not a time that it may take
    finally:
        looking.kill()
        looking.wait()

    assert [run["state"]["type"] in ("CANCELLING", "CANCELLED") for run in started()] == [True]
