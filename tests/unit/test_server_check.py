"""What the check in a server is when there is nothing to check, and whose container is abandoned."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from model_registry.spec import PackageSpec
from model_registry.variants import REHEARSAL
from tasks import docker_engine, server_check
from tasks.model_process.messages import Tolerance
from tasks.server_check import Subject, check_in_server, require_server

SUBJECT = Subject("tiny", Path("nowhere"), Path("nowhere"), 0, 0, (), Tolerance(0, 0), "native")


def test_without_a_server_in_the_spec_nothing_is_looked_for_and_nothing_checked() -> None:
    spec = PackageSpec.default("tiny")
    require_server(spec)
    assert check_in_server(SUBJECT, spec, Path("nowhere")) == ((), 0.0)


def test_a_rehearsal_is_told_as_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody")
    subject = Subject("tiny", Path("nowhere"), Path("nowhere"), 0, 0, (), Tolerance(0, 0), REHEARSAL)
    (check,), _ = check_in_server(subject, PackageSpec.parse({"model": "tiny", "server": "docker"}), Path("nowhere"))
    assert (check.check, check.measured, check.threshold, check.passed) == ("server", "not run", "recorded", True)
    assert "rehearsal" in check.detail


@pytest.mark.parametrize(("seconds", "passed"), [(13.999, True), (14.0, True), (14.023, False)])
def test_a_candidate_that_is_available_too_late_has_not_passed(seconds: float, passed: bool) -> None:
    check = server_check._load(SUBJECT, seconds, 14.0, "", "somewhere")
    assert (check.measured, check.threshold, check.passed) == (seconds, 14.0, passed)
    assert "timeouts.validate" in check.detail


def abandoned(owner: str, expires: float) -> bool:
    return docker_engine._is_abandoned(owner, str(int(expires)))


def test_this_process_keeps_its_containers_until_their_time_is_up() -> None:
    """One that it could not remove would be there as long as the process is."""
    assert not abandoned(docker_engine.owner(), time.time() + 600)
    assert abandoned(docker_engine.owner(), time.time() - 1)


def test_a_container_of_another_process_is_kept_while_that_lives_and_no_longer() -> None:
    process = subprocess.Popen(["sleep", "60"])
    owner = docker_engine._mark(process.pid)
    assert not abandoned(owner, 0)
    process.kill()
    process.wait()
    assert abandoned(owner, time.time() + 600)


def test_a_process_that_was_given_the_id_of_a_dead_one_does_not_own_its_container() -> None:
    place, _, _ = docker_engine.owner().rpartition(":")
    assert abandoned(f"{place}:{os.getpid()}.1", time.time() + 600)


def test_a_container_of_another_machine_is_kept_until_its_time_is_up() -> None:
    assert not abandoned("other-boot/pid:[1]:5.7", time.time() + 600)
    assert abandoned("other-boot/pid:[1]:5.7", time.time() - 1)
    assert docker_engine._is_abandoned("", "no number")
