"""The sync agent beside a server: what `slipway promote` sets going, and what holds when anything ends or breaks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures_model_server import StartServer
from tests.support.model_server_processes import RunningServer
from tests.support.served_models import answered_version
from tests.support.sync_bench import ORIGIN, SyncBench

pytestmark = pytest.mark.xdist_group("sync")

AT_ONCE = {"max_num_load_retries": 0}


@pytest.fixture
def server(sync_bench: SyncBench, model_server: StartServer) -> RunningServer:
    """A server that was started with what an agent brought before it: the first version of digits."""
    sync_bench.stable()
    sync_bench.prepare()
    return model_server(sync_bench.config_file, **AT_ONCE)


def unloadable(bench: SyncBench, staged: Path) -> Path:
    """A version that no server can load, of the same files and sizes as one that it can."""
    assert bench.tiny
    payload = bench.tiny.write(staged, 2)
    graph = payload / "saved_model.pb"
    graph.write_bytes(b"\xff" * graph.stat().st_size)
    return payload


def test_the_first_start_serves_what_the_labels_ask_for(sync_bench: SyncBench, server: RunningServer) -> None:
    assert sync_bench.config()["digits"].labels == {"stable": 1}
    assert answered_version(server, "digits", label="stable") == 1

    agent = sync_bench.agent(server=server.url)

    agent.serves({"stable": 1})
    assert agent.end() == 0


def test_a_promotion_moves_the_label_and_lets_the_old_version_go(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent("--keep=0", server=server.url)
    agent.serves({"stable": 1})

    sync_bench.stable()

    agent.serves({"stable": 2})
    assert server.states("digits") == {1: "END", 2: "AVAILABLE"}
    assert answered_version(server, "digits", label="stable") == 2
    agent.until(lambda: not sync_bench.directory(1).exists(), "the old version is removed")


def test_a_rollback_serves_the_version_that_was_kept_on_the_disk(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent(server=server.url)
    sync_bench.stable()
    agent.serves({"stable": 2})

    sync_bench.registry.roll_back("digits", "stable", origin=ORIGIN)

    agent.serves({"stable": 1})
    assert answered_version(server, "digits", label="stable") == 1
    assert "digits:1 downloaded" not in agent.log


def test_two_labels_may_swap_their_versions(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent(server=server.url)
    sync_bench.promote(sync_bench.publish(), "canary")
    agent.serves({"stable": 1, "canary": 2})

    sync_bench.promote(2, "stable")
    sync_bench.promote(1, "canary")

    agent.serves({"stable": 2, "canary": 1})
    assert server.states("digits") == {1: "AVAILABLE", 2: "AVAILABLE"}


def test_a_label_that_is_taken_away_leaves_the_server(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent("--keep=0", server=server.url)
    sync_bench.promote(sync_bench.publish(), "canary")
    agent.serves({"stable": 1, "canary": 2})

    sync_bench.registry.unlabel("digits", "canary", origin=ORIGIN)

    agent.serves({"stable": 1})
    assert server.states("digits") == {1: "AVAILABLE", 2: "END"}
    agent.until(lambda: not sync_bench.directory(2).exists(), "its version is removed")


def test_a_model_without_labels_leaves_the_server_and_others_stay(sync_bench: SyncBench, server: RunningServer) -> None:
    sync_bench.stable("faces")
    agent = sync_bench.agent(server=server.url)
    agent.serves({"stable": 1}, "faces")

    sync_bench.registry.unlabel("digits", "stable", origin=ORIGIN)

    agent.until(lambda: "digits" not in sync_bench.config(), "the model leaves models.config")
    agent.until(lambda: not sync_bench.directory(1).exists(), "its version is removed")
    assert answered_version(server, "faces", label="stable") == 1


def test_a_model_that_the_operator_follows_no_more_leaves_with_all_its_files(
    sync_bench: SyncBench, server: RunningServer
) -> None:
    sync_bench.stable("faces")
    first = sync_bench.agent(server=server.url)
    first.serves({"stable": 1})
    first.serves({"stable": 1}, "faces")
    assert first.end() == 0

    agent = sync_bench.agent("--model=faces", server=server.url)

    agent.until(lambda: {*agent.report().models} == {"faces"}, "only the other model is left")
    assert {*sync_bench.config()} == {"faces"}
    assert not sync_bench.directory(1).exists()
    assert answered_version(server, "faces", label="stable") == 1


def test_a_version_that_cannot_be_loaded_stays_out_until_it_is_asked_for(
    sync_bench: SyncBench, server: RunningServer
) -> None:
    agent = sync_bench.agent(server=server.url)
    sync_bench.promote(sync_bench.publish(write=lambda staged: unloadable(sync_bench, staged)))

    failed = agent.fails(2)

    assert failed.gave_up and failed.why, failed
    assert agent.measured("slipway_sync_given_up_version") == {"stable": 2}
    assert sync_bench.config()["digits"].versions == (1,)
    assert answered_version(server, "digits", label="stable") == 1
    assert f"digits:2 failed to load and is not tried again until it is asked for: {failed.why}" in agent.log
    assert sync_bench.tiny
    good = sync_bench.tiny.write(sync_bench.folder, 2)
    (sync_bench.directory(2) / "saved_model.pb").write_bytes((good / "saved_model.pb").read_bytes())

    agent.retry(2)

    agent.serves({"stable": 2})
    assert agent.measured("slipway_sync_given_up_version") == {}
    assert answered_version(server, "digits", label="stable") == 2


def test_a_version_that_failed_is_not_tried_again_by_another_agent(
    sync_bench: SyncBench, server: RunningServer
) -> None:
    agent = sync_bench.agent(server=server.url)
    sync_bench.promote(sync_bench.publish(write=lambda staged: unloadable(sync_bench, staged)))
    agent.fails(2)
    agent.kill()

    again = sync_bench.agent(server=server.url)

    assert again.fails(2).gave_up
    assert again.measured("slipway_sync_given_up_version") == {"stable": 2}
    assert sync_bench.config()["digits"].versions == (1,)


@pytest.mark.parametrize(
    "line",
    [
        "digits@stable is to be digits:2",
        "digits:2 downloaded",
        "digits:2 is to be loaded",
        "digits:2 is AVAILABLE",
        "digits@stable answers with digits:2",
        "digits:1 is to leave",
    ],
)
def test_an_agent_that_is_killed_at_any_moment_is_followed_by_one_that_goes_on(
    sync_bench: SyncBench, server: RunningServer, line: str
) -> None:
    agent = sync_bench.agent(server=server.url)
    agent.serves({"stable": 1})
    sync_bench.stable()
    agent.until(lambda: line in agent.log, line)
    agent.kill()
    assert answered_version(server, "digits", label="stable") in (1, 2)

    sync_bench.agent(server=server.url).serves({"stable": 2})

    assert answered_version(server, "digits", label="stable") == 2
    assert server.states("digits") == {1: "END", 2: "AVAILABLE"}


def test_a_server_that_starts_again_serves_what_it_served(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent(server=server.url)
    sync_bench.stable()
    agent.serves({"stable": 2})
    server.kill()
    agent.until(lambda: not agent.report().server_reachable, "the agent notices")

    server.start().wait_ready()

    agent.serves({"stable": 2})
    assert answered_version(server, "digits", label="stable") == 2


def spoil_the_second_version(bench: SyncBench) -> None:
    """Files of the right sizes that a server dies of at its start; one that runs keeps what it loaded."""
    graph = bench.directory(2) / "saved_model.pb"
    graph.write_bytes(b"\xff" * graph.stat().st_size)


def test_a_rollback_reaches_a_server_that_dies_at_each_start(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent(server=server.url)
    sync_bench.stable()
    agent.serves({"stable": 2})
    server.kill()
    spoil_the_second_version(sync_bench)
    assert server.start().wait_end() != 0
    agent.until(lambda: not agent.report().server_reachable, "the agent notices")
    assert sync_bench.config()["digits"].labels == {"stable": 2}

    sync_bench.registry.roll_back("digits", "stable", origin=ORIGIN)

    agent.until(lambda: sync_bench.config()["digits"].labels == {"stable": 1}, "models.config follows")
    server.start().wait_ready()
    agent.serves({"stable": 1})
    assert answered_version(server, "digits", label="stable") == 1


def test_a_rollback_reaches_it_without_an_agent_too(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent(server=server.url)
    sync_bench.stable()
    agent.serves({"stable": 2})
    assert agent.end() == 0
    server.kill()
    spoil_the_second_version(sync_bench)
    sync_bench.registry.roll_back("digits", "stable", origin=ORIGIN)

    assert sync_bench.once().code == 0

    assert sync_bench.config()["digits"].labels == {"stable": 1}
    server.start().wait_ready()
    assert answered_version(server, "digits", label="stable") == 1


def test_an_agent_is_there_before_its_server(sync_bench: SyncBench, model_server: StartServer) -> None:
    sync_bench.stable()
    ahead = model_server(wait=False, model_config_file=sync_bench.config_file)
    agent = sync_bench.agent(server=ahead.url)
    agent.until(sync_bench.config_file.exists, "models.config is there")
    ahead.kill()
    server = model_server(sync_bench.config_file, rest_api_port=ahead.rest_port, **AT_ONCE)

    agent.serves({"stable": 1})

    assert answered_version(server, "digits", label="stable") == 1


def test_nothing_is_said_while_nothing_happens(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent(server=server.url)
    agent.serves({"stable": 1})
    said = agent.log

    for _ in range(3):
        age = agent.report().registry_age or 0.0
        agent.until(lambda age=age: (now := agent.report().registry_age) is not None and now < age, "it looks again")
    assert agent.log == said


def test_a_file_that_somebody_edits_is_put_back(sync_bench: SyncBench, server: RunningServer) -> None:
    agent = sync_bench.agent(server=server.url)
    agent.serves({"stable": 1})
    text = sync_bench.config_file.read_text()

    sync_bench.config_file.write_text("model_config_list {}")

    agent.until(lambda: sync_bench.config_file.read_text() == text, "it is put back")
    assert "was changed by somebody else, and is put back" in agent.log


def test_a_file_that_is_lost_is_written_as_the_server_was_last_seen(
    sync_bench: SyncBench, server: RunningServer
) -> None:
    first = sync_bench.agent(server=server.url)
    first.serves({"stable": 1})
    first.kill()
    sync_bench.config_file.unlink()
    (sync_bench.folder / "registry").rename(sync_bench.folder / "away")

    agent = sync_bench.agent(server=server.url)

    agent.until(sync_bench.config_file.exists, "it is written")
    assert sync_bench.config()["digits"].labels == {"stable": 1}
    assert answered_version(server, "digits", label="stable") == 1


def test_replicas_serve_the_same_registry_from_directories_of_their_own(
    sync_bench: SyncBench, server: RunningServer, model_server: StartServer
) -> None:
    agent = sync_bench.agent("--name=a", "--stagger=1", server=server.url)
    other = sync_bench.folder / "other"
    second = sync_bench.agent("--name=b", "--stagger=1", destination=other, wait=False)
    second.until((other / "models.config").exists, "the other's models.config is there")
    second.kill()
    beside = model_server(other / "models.config", **AT_ONCE)
    second = sync_bench.agent("--name=b", "--stagger=1", server=beside.url, destination=other)

    sync_bench.stable()

    agent.serves({"stable": 2})
    second.serves({"stable": 2})
    assert answered_version(server, "digits", "stable") == answered_version(beside, "digits", "stable") == 2


@pytest.fixture
def small_disk(sync_bench: SyncBench) -> Iterator[Path]:
    """A file system of 4 MiB at the bench's destination."""
    disk = sync_bench.destination
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        yield disk
    finally:
        sync_bench.close()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_old_versions_that_were_kept_make_room_for_new_ones(
    sync_bench: SyncBench, small_disk: Path, model_server: StartServer
) -> None:
    tiny = sync_bench.tiny

    def large(staged: Path) -> Path:
        assert tiny
        payload = tiny.write(staged, 1)
        (payload / "assets").mkdir(exist_ok=True)
        (payload / "assets" / "filler").write_bytes(os.urandom(1_500_000))
        return payload

    sync_bench.promote(sync_bench.publish(write=large))
    sync_bench.prepare()
    server = model_server(sync_bench.config_file, **AT_ONCE)
    agent = sync_bench.agent("--keep=5", "--reserve=100K", server=server.url)
    sync_bench.promote(sync_bench.publish(write=large))
    agent.serves({"stable": 2})
    assert sync_bench.directory(1).is_dir()

    sync_bench.promote(sync_bench.publish(write=large))

    agent.serves({"stable": 3})
    assert not sync_bench.directory(1).exists()
    sync_bench.promote(sync_bench.publish(write=large), "canary")
    agent.until(lambda: agent.model().serving == {"stable": 3, "canary": 4}, "the canary takes the place of version 2")
    sync_bench.promote(sync_bench.publish(write=large), "next")
    assert "the disk is nearly full: digits:5 takes" in agent.fails(5).why
