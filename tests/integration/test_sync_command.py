"""`slipway sync` as a command: what it needs, what it is told, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.support.command import SLIPWAY, slipway
from tests.support.sync_bench import HASTY, WITHIN, SyncBench

# An entry of None makes a module impossible to find, as it is where it was never installed.
_WITHOUT_PIPELINE = """
import sys
for name in ("tensorflow", "keras", "numpy", "prefect", "grpc", "docker"):
    sys.modules[name] = None
from flows.cli import main
main(sys.argv[1:])
"""


def test_it_needs_no_pipeline(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    program = [sys.executable, "-c", _WITHOUT_PIPELINE, "sync", str(sync_bench.destination), *HASTY]
    process = subprocess.Popen(
        [
            *program,
            "--listen=127.0.0.1:0",
            "--server=http://127.0.0.1:9",
            f"--registry={sync_bench.registry.store.uri}",
        ],
        cwd=sync_bench.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        said = next(line for line in process.stderr if "downloaded" in line or "Error" in line)
    finally:
        process.terminate()
        process.communicate()
    assert said.startswith("digits:1 downloaded")
    assert process.returncode == 0


def test_it_stays_small(sync_bench: SyncBench) -> None:
    for model in ("digits", "faces", "birds"):
        sync_bench.stable(model)
    agent = sync_bench.agent()
    for model in ("digits", "faces", "birds"):
        agent.has(1, name=model)
    for _ in range(3):
        age = agent.report().registry_age or 0.0
        agent.until(lambda age=age: (now := agent.report().registry_age) is not None and now < age, "it looks again")

    assert psutil.Process(agent.process.pid).memory_info().rss < 120e6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_well(sync_bench: SyncBench, number: signal.Signals) -> None:
    sync_bench.stable()
    agent = sync_bench.agent()
    agent.has(1)

    agent.process.send_signal(number)

    assert agent.process.wait(WITHIN) == 0
    assert agent.log.endswith(f"ended by {number.name}\n")
    assert "Traceback" not in agent.log


def test_nohup_is_heard(sync_bench: SyncBench) -> None:
    log = sync_bench.folder / "log"
    command = ["nohup", SLIPWAY, "sync", str(sync_bench.destination), "--listen=127.0.0.1:0", *HASTY]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=sync_bench.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output
        )
    while "status at" not in log.read_text():
        assert process.poll() is None, log.read_text()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)

    assert process.wait(WITHIN) == 0
    assert log.read_text().endswith("ended by SIGTERM\n")


def test_it_prints_one_document_at_its_end(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    process = subprocess.Popen(
        [
            *(SLIPWAY, "sync", str(sync_bench.destination), "--listen=127.0.0.1:0", "--json", *HASTY),
            f"--registry={sync_bench.registry.store.uri}",
        ],
        cwd=sync_bench.folder,
        stdout=subprocess.PIPE,
    )
    try:
        config = sync_bench.directory(1) / "saved_model.pb"
        while not config.exists():
            assert process.poll() is None
    finally:
        process.terminate()
    printed, _ = process.communicate()

    assert json.loads(printed)["models"]["digits"]["wanted"] == {"stable": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model=../up"], "model name '../up'"),
        (["--label=Stable"], "'Stable' cannot be a label"),
        (["--reserve=much"], "'much' is no size"),
        (["--interval=0"], "0.0 is not in the range"),
        (["--keep=-1"], "-1 is not in the range"),
    ],
)
def test_what_cannot_be_is_a_usage_error(tmp_path: Path, options: list[str], said: str) -> None:
    done = slipway("sync", "dest", *options, folder=tmp_path)

    assert done.code == 2
    assert said in done.stderr
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--server=localhost:8501"], "expected http://HOST:PORT"),
        (["--listen=nowhere"], "nowhere"),
        (["--registry=ftp://host/x"], "ftp://host/x"),
    ],
)
def test_an_address_that_is_none_is_told(tmp_path: Path, options: list[str], said: str) -> None:
    done = slipway("sync", "dest", "--json", *options, folder=tmp_path)

    assert done.code == 1
    assert said in done.error["message"]


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

        done = slipway("sync", "dest", f"--listen=127.0.0.1:{port}", folder=tmp_path)

    assert done.code == 1
    assert "choose another port with --listen" in done.stderr


@pytest.mark.parametrize("name", ["models.config", ".slipway/agent.json"])
def test_a_directory_that_is_somebody_elses_is_left_alone(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "dest" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("model_config_list { config { name: 'mine' } }")

    done = slipway("sync", "dest", folder=tmp_path)

    assert done.code == 1
    assert str(theirs) in done.stderr
    assert "remove it" in done.stderr
    assert theirs.read_text() == "model_config_list { config { name: 'mine' } }"


def test_a_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "dest").touch()

    done = slipway("sync", "dest", folder=tmp_path, environ=dict(os.environ))

    assert done.code == 1
    assert "it is a file, expected a directory" in done.stderr
    assert "--registry" not in done.stderr
