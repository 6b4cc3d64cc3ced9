"""`slipway sync --once`: what a server may be started with, and a look at one that runs."""

from __future__ import annotations

import shutil

import pytest

from tests.support.fixtures_model_server import StartServer
from tests.support.served_models import answered_version
from tests.support.sync_bench import SyncBench

beside_a_server = pytest.mark.xdist_group("model_server")
AT_ONCE = {"max_num_load_retries": 0}


def test_the_very_first_time_it_brings_what_the_labels_name(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    sync_bench.promote(sync_bench.publish("faces"), "canary", "faces")

    done = sync_bench.once("--json")

    assert done.code == 0
    assert done.stderr == ""
    config = sync_bench.config()
    assert {name: model.labels for name, model in config.items()} == {"digits": {"stable": 1}, "faces": {"canary": 1}}
    assert config["digits"].base_path == str(sync_bench.destination / "models" / "digits")
    models = done.document["models"]
    assert [(one["version"], one["state"], one["variant"]) for one in models["digits"]["versions"]] == [
        (1, "READY", "native")
    ]


def test_the_server_may_see_the_directory_elsewhere(sync_bench: SyncBench) -> None:
    sync_bench.stable()

    assert sync_bench.once("--base-path=/srv/").code == 0

    assert sync_bench.config()["digits"].base_path == "/srv/models/digits"


def test_a_second_time_before_any_server_it_is_the_first_time_still(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    assert sync_bench.once().code == 0
    sync_bench.stable()

    assert sync_bench.once().code == 0

    assert sync_bench.config()["digits"].labels == {"stable": 2}


@pytest.mark.parametrize("published", [False, True])
def test_nothing_to_serve_is_an_error_and_writes_nothing(sync_bench: SyncBench, published: bool) -> None:
    if published:
        sync_bench.publish()

    done = sync_bench.once("--json")

    assert done.code == 1
    assert "nothing can be served: no label names a version" in done.error["message"]
    assert not sync_bench.config_file.exists()


def test_a_version_that_is_damaged_is_left_out_and_the_others_are_served(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    sync_bench.stable("faces")
    payload = sync_bench.folder / "registry" / "models" / "faces" / "native" / "1"
    (payload / "saved_model.pb").write_bytes(b"?")

    done = sync_bench.once()

    assert done.code == 0
    assert "faces:1 is left out: faces:1: saved_model.pb is not what was published" in done.stderr
    assert {*sync_bench.config()} == {"digits"}


def test_another_agent_at_work_is_a_conflict(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    agent = sync_bench.agent()
    agent.has(1)

    done = sync_bench.once()

    assert done.code == 4
    assert f"another agent fills {sync_bench.destination} already" in done.stderr
    second = sync_bench.agent(wait=False)
    assert second.process.wait(60) == 4
    assert agent.process.poll() is None


@beside_a_server
def test_a_server_starts_again_with_what_it_had_available(sync_bench: SyncBench, model_server: StartServer) -> None:
    sync_bench.stable()
    assert sync_bench.once().code == 0
    server = model_server(sync_bench.config_file, **AT_ONCE)
    agent = sync_bench.agent(server=server.url)
    agent.serves({"stable": 1})
    agent.kill()
    server.kill()
    tiny = sync_bench.tiny
    assert tiny
    sync_bench.promote(sync_bench.publish(write=lambda staged: tiny.write_truncated(staged, 2)))
    saved = sync_bench.directory(1) / "saved_model.pb"
    saved.write_bytes(b"\0" * saved.stat().st_size)

    done = sync_bench.once()

    assert done.code == 0
    assert sync_bench.config()["digits"].labels == {"stable": 1}
    assert "digits:1 is not whole here, or another variant, and is brought again" in done.stderr
    server.start().wait_ready()
    assert answered_version(server, "digits", "stable") == 1
    shutil.rmtree(sync_bench.folder / "registry")  # all that is needed lies here
    server.kill()
    assert sync_bench.once().code == 0
    server.start().wait_ready()
    assert answered_version(server, "digits", "stable") == 1


@beside_a_server
def test_beside_a_server_it_ends_when_all_is_served(sync_bench: SyncBench, model_server: StartServer) -> None:
    sync_bench.stable()
    assert sync_bench.once().code == 0
    server = model_server(sync_bench.config_file, **AT_ONCE)
    sync_bench.stable()

    done = sync_bench.once(f"--server={server.url}", "--json")

    assert done.code == 0, done.stdout + done.stderr
    assert done.document["models"]["digits"]["serving"] == {"stable": 2}
    assert answered_version(server, "digits", "stable") == 2
    assert server.states("digits") == {1: "END", 2: "AVAILABLE"}


@beside_a_server
def test_beside_a_server_it_fails_if_a_version_cannot_be_loaded(
    sync_bench: SyncBench, model_server: StartServer
) -> None:
    sync_bench.stable()
    assert sync_bench.once().code == 0
    server = model_server(sync_bench.config_file, **AT_ONCE)
    tiny = sync_bench.tiny
    assert tiny
    sync_bench.promote(sync_bench.publish(write=lambda staged: tiny.write_truncated(staged, 2)))

    done = sync_bench.once(f"--server={server.url}", "--json")

    assert done.code == 1
    assert "digits@stable answers with 1, wanted is 2" in done.document["error"]["message"]
    assert answered_version(server, "digits", "stable") == 1


def test_files_are_for_every_user_whatever_the_umask(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    wrapper = ["sh", "-c", 'umask 077; exec "$@"', "sh"]

    assert sync_bench.once(wrapper=wrapper).code == 0

    found = [sync_bench.destination, *sync_bench.destination.rglob("*")]
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in found if path.name != "lock"}
    expected = {path.name: "0o755" if path.is_dir() else "0o644" for path in found if path.name != "lock"}
    assert modes == expected
