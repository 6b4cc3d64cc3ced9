"""What a process that runs a model is given, and what it can reach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.model_process import sandbox

_REACH = """
import sys
for name in ("ns/net", "environ"):
    try:
        open(f"/proc/{sys.argv[1]}/{name}", "rb").read(1)
        print(name, "reached")
    except PermissionError:
        print(name, "refused")
"""


def test_the_environment_holds_nothing_that_could_be_a_secret() -> None:
    inherited = {
        "AWS_SECRET_ACCESS_KEY": "a",
        "TF_VAR_db_password": "b",
        "TF_TOKEN_app_terraform_io": "c",
        "PREFECT_API_KEY": "d",
        "PYTHONPATH": "e",
    }
    given = sandbox.environment(inherited, Path("home"), Path("scratch"))
    assert sorted(given) == ["HOME", "KERAS_BACKEND", "KERAS_HOME", "TF_CPP_MIN_LOG_LEVEL", "TMPDIR"]


def test_the_environment_keeps_how_tensorflow_is_tuned() -> None:
    inherited = {"TF_NUM_INTRAOP_THREADS": "4", "CUDA_VISIBLE_DEVICES": "1", "TF_CPP_MIN_LOG_LEVEL": "0", "HOME": "/h"}
    given = sandbox.environment(inherited, Path("home"), Path("scratch"))
    assert given["TF_NUM_INTRAOP_THREADS"] == "4"
    assert given["CUDA_VISIBLE_DEVICES"] == "1"
    assert given["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert given["HOME"] == "home"


def test_the_environment_keeps_which_gpu_is_meant_and_how_it_is_shared() -> None:
    inherited = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_MPS_LOG_DIRECTORY": "/var/log/mps",
        "CUDA_MPS_PIPE_DIRECTORY": "/run/mps",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    given = sandbox.environment(inherited, Path("home"), Path("scratch"))
    assert {name: given.get(name) for name in inherited} == inherited


def test_a_child_can_join_neither_its_parents_network_nor_read_its_environment() -> None:
    prefix = sandbox.command("this", [])[: -len([sys.executable, "-I", "-m", "this"])]
    if not prefix:
        pytest.skip("this kernel lets nobody make a network namespace here")
    reached = subprocess.run(
        [*prefix, sys.executable, "-I", "-c", _REACH, str(os.getpid())], capture_output=True, text=True, check=True
    )
    assert reached.stdout.split("\n")[:2] == ["ns/net refused", "environ refused"], reached.stderr


def test_only_what_asks_a_server_keeps_the_network() -> None:
    isolated = sandbox.command("tasks.model_process", ["validate", "3"])
    asking = sandbox.command("tasks.model_process", ["replay", "3"], network=True)
    assert asking == [sys.executable, "-I", "-m", "tasks.model_process", "replay", "3"]
    assert ("--net" in isolated) == sandbox.network_is_cut()
