"""What an agent makes of a disk, a registry and a server that are not as they should be: a look at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli_sync import sync
from model_registry import paths
from model_registry.registry import Registry
from model_registry.serving.sync import settling
from model_registry.serving.sync.awaited_label import AwaitedLabel, standing
from model_registry.serving.sync.sync_agent import SyncAgent
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.sync.sync_report import AgentReport, ModelReport
from model_registry.serving.sync.sync_settings import SyncSettings
from tests.support.drafts import CONTENT, make_payload
from tests.support.stated_server import StatedServer, run_stated_server
from tests.support.sync_bench import HASTY, ORIGIN, WITHIN, SyncBench

TENSORRT = "tensorrt-fp16-sm80"

only_root_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@dataclass
class Place:
    """An agent in this process, beside a server that has whatever the agent's models.config lists."""

    bench: SyncBench
    server: StatedServer
    agent: SyncAgent

    def until(self, reached: Callable[[AgentReport], bool]) -> AgentReport:
        """Looks until a report is as it should be."""
        deadline = time.monotonic() + WITHIN
        while True:
            self.agent.tick()
            if reached(report := self.agent.report()):
                return report
            assert time.monotonic() < deadline, report
            time.sleep(0.01)

    def serves(self, labels: dict[str, int], model: str = "digits") -> AgentReport:
        """Looks until the server answers so."""
        return self.until(lambda report: report.models.get(model, ModelReport()).serving == labels)

    def fails(self, version: int, model: str = "digits") -> AgentReport:
        """Looks until a version has failed."""

        def failed(report: AgentReport) -> bool:
            found = report.models.get(model, ModelReport()).version(version)
            return found is not None and found.state == "FAILED"

        return self.until(failed)

    def again(self, **options: object) -> Place:
        """The same place with the next agent."""
        deadline = time.monotonic() + WITHIN
        while not self.agent.close():  # a look at the registry may be under way
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.agent = start(self.bench, self.server, **options)
        return self


def start(bench: SyncBench, server: StatedServer, **options: object) -> SyncAgent:
    hasty = {"interval": 0.01, "settle": 0.05, "drain": 0.0, "stagger": 0.0, "reserve": 0, "keep": 0}
    settings = SyncSettings(bench.destination, server=server.url, **hasty | options)  # type: ignore[arg-type]
    return SyncAgent(settings, bench.registry, metrics=SyncMetrics())


@pytest.fixture
def place(sync_bench: SyncBench) -> Iterator[Place]:
    with run_stated_server(sync_bench.config_file) as server:
        found = Place(sync_bench, server, start(sync_bench, server))
        try:
            yield found
        finally:
            found.agent.close()


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    subprocess.run(["mount", *options, str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def damage(bench: SyncBench, version: int, model: str = "digits") -> None:
    """Lets the bytes of a version in the registry be others than were published."""
    store, key = bench.registry.store, paths.payload(model, "native", version) + "saved_model.pb"
    store.put_if_match(key, b"?", store.get(key).etag)


def test_what_is_new_and_cannot_be_served_takes_no_replica_out(place: Place) -> None:
    assert not place.agent.ready()
    place.bench.stable()
    place.serves({"stable": 1})
    assert place.agent.ready()

    damage(place.bench, place.bench.publish())
    place.bench.promote(2, "canary")
    place.fails(2)
    assert place.agent.ready()
    place.server.fails.add(("faces", 1))
    place.bench.stable("faces")
    place.fails(1, "faces")
    assert place.agent.ready()

    place.server.fails.add(("digits", 1))
    place.until(lambda report: not report.models["digits"].serving)
    assert not place.agent.ready()


def test_the_next_agent_knows_at_its_first_look_that_the_server_is_ready(place: Place) -> None:
    place.bench.stable()
    place.serves({"stable": 1})

    agent = place.again().agent
    assert agent.report().ready is None
    agent.tick()  # whose decision the registry has not answered by
    assert agent.report().ready is True


def test_a_label_that_was_read_to_be_gone_does_not_come_back_with_the_next_start(place: Place) -> None:
    place.bench.stable()
    place.bench.promote(1, "canary")
    place.serves({"stable": 1, "canary": 1})
    place.bench.registry.unlabel("digits", "canary", origin=ORIGIN)

    place.again().agent.prepare()
    assert place.bench.config()["digits"].labels == {"stable": 1}

    (place.bench.folder / "registry").rename(place.bench.folder / "away")
    place.again().agent.prepare()
    assert place.bench.config()["digits"].labels == {"stable": 1}


def test_the_next_agent_waits_for_what_was_served_before(place: Place) -> None:
    for model in ("digits", "faces"):
        place.bench.stable(model)
        place.serves({"stable": 1}, model)
    place.server.fails.add(("faces", 1))

    place.again().serves({"stable": 1})

    assert not place.agent.ready()
    place.server.fails.clear()
    place.serves({"stable": 1}, "faces")
    assert place.agent.ready()


@pytest.mark.parametrize("link", ["models/digits", ".slipway/versions/digits"])
def test_a_link_holds_up_its_own_model_alone(place: Place, link: str) -> None:
    for model in ("digits", "faces"):
        place.bench.stable(model)
        place.serves({"stable": 1}, model)
    linked, elsewhere = place.bench.destination / link, place.bench.folder / "elsewhere"
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))

    place.bench.stable()
    place.bench.stable("faces")
    report = place.serves({"stable": 2}, "faces")

    assert "it is a symbolic link, or lies beyond one" in report.models["digits"].disk_problem
    assert not report.models["faces"].disk_problem
    assert "it is a symbolic link" in place.fails(2).models["digits"].versions[-1].why
    place.bench.stable("faces")
    place.again().serves({"stable": 3}, "faces")
    assert sorted(elsewhere.rglob("*")) == before


def test_a_note_that_somebody_linked_is_written_anew(place: Place) -> None:
    place.bench.stable()
    place.serves({"stable": 1})
    note = place.bench.destination / ".slipway" / "versions" / "digits" / "1.json"
    elsewhere = note.rename(place.bench.folder / "elsewhere")
    note.symlink_to(elsewhere)
    elsewhere.write_text("untouched")

    place.again().until(lambda report: report.settled and "digits" in report.models)
    place.until(lambda _: not note.is_symlink())
    assert elsewhere.read_text() == "untouched"


def test_a_link_that_is_nobodys_holds_up_nothing(place: Place) -> None:
    elsewhere = place.bench.folder / "elsewhere"
    (elsewhere / ".incoming-1-abcd").mkdir(parents=True)
    for link in ("models/evil", ".slipway/versions/evil", "models/No Model"):
        (place.bench.destination / link).symlink_to(elsewhere)
    place.bench.stable()

    assert {*place.again().serves({"stable": 1}).models} == {"digits"}

    assert (elsewhere / ".incoming-1-abcd").is_dir()


@only_root_mounts
def test_what_cannot_be_removed_is_told_and_holds_up_nothing(place: Place) -> None:
    place.bench.stable()
    place.serves({"stable": 1})
    lying = place.bench.directory(1)
    with mounted(lying, "--bind", str(lying)):
        place.bench.stable()
        report = place.until(lambda report: bool(report.models["digits"].disk_problem))
        assert report.models["digits"].serving == {"stable": 2}
        assert report.settled
        assert any(str(lying) in one for one in report.obstacles())
        place.bench.stable("faces")
        place.serves({"stable": 1}, "faces")

    assert not place.until(lambda report: not report.models["digits"].disk_problem).obstacles()
    assert not lying.exists()


@only_root_mounts
def test_what_an_agent_left_and_nobody_can_remove_does_not_stop_the_next(place: Place) -> None:
    place.bench.stable()
    place.serves({"stable": 1})
    left = place.bench.directory(1).with_name(".leaving-9-deadbeef")
    left.mkdir()
    with mounted(left, "--bind", str(left)):
        place.again().serves({"stable": 1})


def test_a_directory_that_cannot_be_written_is_told(place: Place) -> None:
    place.bench.stable()
    place.serves({"stable": 1})
    config = place.bench.config_file
    config.unlink()
    config.mkdir()
    place.bench.stable()

    report = place.until(lambda report: report.models["digits"].revision == 2)

    assert f"{config} cannot be used" in report.disk_problem
    assert any("the directory cannot be kept up" in one for one in report.obstacles())
    assert not report.settled
    stands = standing(report, AwaitedLabel("digits", "stable", 2, 2))
    assert stands.state == "waiting"
    assert stands.words.startswith(f"cannot keep up {place.bench.destination}: {config}")
    assert place.agent.ready()
    config.rmdir()
    assert not place.serves({"stable": 2}).disk_problem


def test_a_config_that_is_no_text_is_put_back(place: Place) -> None:
    place.bench.stable()
    place.serves({"stable": 1})
    text = place.bench.config_file.read_bytes()

    place.bench.config_file.write_bytes(b"\xff")
    place.agent.tick()

    assert place.bench.config_file.read_bytes() == text


@only_root_mounts
def test_a_full_disk_is_told_and_what_was_kept_makes_room(sync_bench: SyncBench) -> None:
    disk = sync_bench.destination
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "tmpfs"), run_stated_server(sync_bench.config_file) as server:
        place = Place(sync_bench, server, start(sync_bench, server, keep=1))
        try:
            for version in (1, 2):
                sync_bench.stable()
                place.serves({"stable": version})
            place.until(lambda report: len(report.models["digits"].versions) == 1)
            assert sync_bench.directory(1).is_dir()
            fill(disk)
            sync_bench.promote(2, "canary")

            place.serves({"stable": 2, "canary": 2})  # in the room of the first version

            assert not sync_bench.directory(1).exists()
            fill(disk)
            sync_bench.promote(2, "next")
            report = place.until(lambda report: bool(report.disk_problem))
            assert "no space is left there" in report.disk_problem
            assert report.models["digits"].wanted == {"stable": 2, "canary": 2, "next": 2}
            (disk / "filler").unlink()
            assert not place.serves({"stable": 2, "canary": 2, "next": 2}).disk_problem
        finally:
            place.agent.close()


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_other_bytes_than_the_registry_has_are_not_what_it_wants(place: Place) -> None:
    bench = place.bench
    bench.stable()
    place.serves({"stable": 1})
    (bench.folder / "other").mkdir()
    other = SyncBench(bench.folder / "other", Registry.open(str(bench.folder / "other" / "registry")))
    other.publish_payload(make_payload(other.folder / "payload", CONTENT | {"saved_model.pb": b"OTHER"}))
    other.promote(1)
    other.promote(1, "canary")
    (bench.folder / "registry").rename(bench.folder / "away")
    shutil.move(other.folder / "registry", bench.folder / "registry")

    report = place.serves({"stable": 1, "canary": 1})

    assert not report.settled
    told = report.models["digits"].versions[0]
    assert told.differs
    assert told.why.startswith("lies here as native ")
    assert told.why.endswith("; it is replaced once no label names it")
    assert f"digits:1 {told.why}" in report.obstacles()
    assert standing(report, AwaitedLabel("digits", "stable", 1, 2)).state == "failed"
    bench.stable()
    bench.promote(2, "canary")
    place.serves({"stable": 2, "canary": 2})
    bench.promote(1, "canary")
    assert place.serves({"stable": 2, "canary": 1}).settled
    assert (bench.directory(1) / "saved_model.pb").read_bytes() == b"OTHER"


def test_another_variant_of_the_version_is_told_and_serves_the_label(place: Place) -> None:
    place.bench.promote(place.bench.publish_payload(make_payload(place.bench.folder / "payload"), variant=TENSORRT))
    place.serves({"stable": 1})

    report = place.again(variants=(TENSORRT,)).until(lambda report: report.settled and report.registry_age is not None)

    told = report.models["digits"].versions[0]
    assert (told.state, told.variant, told.differs) == ("AVAILABLE", "native", False)
    assert told.why.startswith("lies here as native ")
    assert f"the registry has {TENSORRT} " in told.why


def once(bench: SyncBench, server: str) -> tuple[int, str]:
    asked = [str(bench.destination), "--once", f"--server={server}", f"--registry={bench.registry.store.uri}", *HASTY]
    done = CliRunner().invoke(sync, asked)
    return done.exit_code, done.output


def test_once_beside_a_server_that_dies_of_the_new_version_fails(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.bench.stable()
    place.serves({"stable": 1})
    place.agent.close()
    place.bench.stable()
    place.server.dies_of = ("digits", 2)
    monkeypatch.setattr(settling, "_PATIENCE", 0.5)

    code, said = once(place.bench, place.server.url)

    assert code == 1
    assert f"the server at {place.server.url} does not answer" in said


def test_once_beside_a_server_ends_though_the_registry_cannot_be_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.bench.stable()
    place.serves({"stable": 1})
    place.agent.close()
    registry = place.bench.folder / "registry"
    registry.rename(place.bench.folder / "away")
    registry.write_text("no directory")
    monkeypatch.setattr(settling, "_PATIENCE", 0.5)

    code, said = once(place.bench, place.server.url)

    assert code == 1
    assert "the registry cannot be read" in said
