"""`slipway rollout` as people run it, killed, stopped and contradicted, against a real Prometheus."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_registry.errors import ConflictError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.state import Origin, State
from model_registry.storage import open_store
from model_registry.traffic import Traffic
from tests.support.command import SLIPWAY, Outcome, scratch_of, slipway
from tests.support.drafts import make_draft, make_payload
from tests.support.fixtures_prometheus import StartPrometheus
from tests.support.followed_pages import Answers, FollowedPages
from tests.support.metrics_page import MetricsPages
from tests.support.prometheus_server import PrometheusServer

ANN = Origin("ann@build-7")
PLAN = ("--steps", "50", "--bake", "2s")
_WITHIN = 60.0
_NUMBERS = itertools.count(1)


class Site:
    """A registry with three versions of a model, 1 of them stable, whose pages a Prometheus scrapes."""

    def __init__(self, folder: Path, model: str, url: str, fleet: Callable[[Registry], FollowedPages]) -> None:
        self.folder, self.model, self.url = folder, model, url
        self.registry = Registry(open_store(str(folder / "registry")))
        for number in (1, 2, 3):
            payload = make_payload(folder.with_name("payload"))
            self.registry.publish(make_draft(model, identity=f"a{number}"), {"native": payload})
        self.registry.promote(model, 1, "stable", origin=ANN)
        self.fleet = fleet(self.registry)
        self.started: list[subprocess.Popen[str]] = []

    @property
    def state(self) -> State:
        return self.registry.state(self.model)

    @property
    def traffic(self) -> Traffic | None:
        return self.state.traffic

    @property
    def actions(self) -> list[str]:
        return [record.transition.action for record in reversed(self.registry.history(self.model))]

    def call(self, *arguments: str) -> Outcome:
        """Runs `slipway rollout` to its end."""
        return slipway("rollout", *arguments, "--prometheus", self.url, folder=self.folder)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts it."""
        process = subprocess.Popen(
            [SLIPWAY, "rollout", *arguments, "--prometheus", self.url],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(scratch_of(self.folder))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start(f"{self.model}:2", *(arguments or PLAN))

    def until(self, reached: Callable[[State], Any], process: subprocess.Popen[str] | None = None) -> State:
        """Waits until the state is as it should be."""
        deadline = time.monotonic() + _WITHIN
        while not reached(state := self.state):
            assert process is None or process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, state.traffic
            time.sleep(0.02)
        return state

    def until_phase(self, phase: str, process: subprocess.Popen[str] | None = None, *, step: int = 0) -> None:
        def reached(state: State) -> bool:
            traffic = state.traffic
            return traffic is not None and (traffic.phase, traffic.step) == (phase, step) and not traffic.paused

        self.until(reached, process)

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str]) -> Outcome:
    """What became of a command."""
    stdout, stderr = process.communicate(timeout=_WITHIN)
    return Outcome(process.returncode, stdout, stderr)


@pytest.fixture
def site(tmp_path: Path, pages: MetricsPages, prometheus: PrometheusServer) -> Iterator[Site]:
    yield from _site(tmp_path, pages, prometheus, f"model-{next(_NUMBERS)}")


def _site(tmp_path: Path, pages: MetricsPages, prometheus: PrometheusServer, model: str) -> Iterator[Site]:
    folder = tmp_path / "work"
    folder.mkdir()
    site = Site(folder, model, prometheus.url, lambda registry: FollowedPages(pages, registry, model))
    try:
        with site.fleet:
            yield site
    finally:
        site.end()


def test_an_equal_candidate_is_promoted_and_nothing_comes_between(site: Site) -> None:
    process = site.begin("--steps", "20,100", "--bake", "3s", "--reason", "faster", "--json")
    site.until_phase("baking", process)

    second = site.call(f"{site.model}:3", *PLAN, "--json")
    assert second.code == 4
    assert "--resume" in second.error["hint"]
    for label in ("stable", "canary"):
        with pytest.raises(ConflictError, match="takes part in a rollout"):
            site.registry.promote(site.model, 3, label, origin=ANN)
    newest = site.registry.get(Reference(site.model, version=3))
    with pytest.raises(ConflictError, match="takes part in a rollout"):
        site.registry.follow(newest, "stable", origin=ANN)  # what `package --label stable` does
    listed = slipway("list", site.model, folder=site.folder)
    shown = slipway("show", f"{site.model}:2", folder=site.folder)
    for outcome in (listed, shown):
        assert f"rollout of {site.model}:2 under way: " in outcome.stdout
    status = site.call(site.model, "--status")
    assert f"{site.model}:1 -> {site.model}:2" in status.stdout

    outcome = ended(process)
    assert outcome.code == 0, outcome
    document = outcome.document
    assert (document["outcome"], document["version"], document["baseline"]) == ("promoted", 2, 1)
    assert {look["weight"] for look in document["looks"]} == {20, 100}
    assert [each["verdict"] for each in document["evidence"]] == ["not worse"] * 3
    assert site.state.labels == {"stable": 2}
    history = slipway("history", site.model, folder=site.folder)
    assert "accept, stable: 1 -> 2" in history.stdout
    assert "faster" in history.stdout
    assert "promoted" in site.call(site.model, "--status").stdout
    told = json.loads(slipway("history", site.model, "--json", folder=site.folder).stdout)["transitions"]
    assert told[0]["traffic"] is None
    assert [each["traffic"]["weight"] for each in told if each["action"] == "shift"] == [100, 20]
    assert next(each["evidence"] for each in told if each["action"] == "accept") == document["evidence"]


@pytest.mark.parametrize(
    ("answers", "metric"),
    [(Answers(errors=0.05), "error_rate"), (Answers(milliseconds=(16, 24, 30, 60)), "p50")],
    ids=["errors", "slow"],
)
def test_a_worse_candidate_is_withdrawn(site: Site, answers: Answers, metric: str) -> None:
    site.fleet.versions[2] = answers

    outcome = site.call(f"{site.model}:2", *PLAN, "--json")

    assert outcome.code == 3, outcome
    document = outcome.document
    assert document["error"]["class"] == "RejectedError"
    assert (document["outcome"], document["weight"], document["phase"]) == ("worse", 0, None)
    assert metric in [check["check"] for check in document["checks"] if not check["passed"]]
    assert site.state.labels == {"stable": 1}
    history = slipway("history", site.model, folder=site.folder)
    assert "withdraw 2, worse" in history.stdout


def test_a_candidate_that_does_not_load_is_withdrawn_for_people(site: Site) -> None:
    site.fleet.versions[2] = Answers(loads=False)

    outcome = site.call(f"{site.model}:2", *PLAN)

    assert outcome.code == 3, outcome
    assert "FAILED" in outcome.stdout
    assert f"error: {site.model}:2 was withdrawn: " in outcome.stderr
    assert site.actions[-2:] == ["withdraw", "finish"]


def test_a_check_of_the_operators_own_can_fail_it(site: Site) -> None:
    check = 'slipway_gateway_weight{model="$model"} < bool 10'

    outcome = site.call(f"{site.model}:2", *PLAN, "--check", check)

    assert outcome.code == 3, outcome
    assert f"check {check}" in outcome.stderr


def test_without_data_it_is_paused_and_goes_on_by_itself_when_they_are_back(site: Site) -> None:
    process = site.begin("--steps", "50", "--bake", "3s")
    site.until_phase("baking", process)
    site.fleet.envoy.down = True

    state = site.until(lambda state: state.traffic and state.traffic.paused, process)
    site.fleet.envoy.down = False

    assert state.traffic and (state.traffic.phase, state.traffic.weight) == ("baking", 50)
    assert "samples of the requests to canary and stable" in state.traffic.paused
    outcome = ended(process)
    assert outcome.code == 0, outcome
    assert site.actions.count("resume") == 1


def test_prometheus_that_is_killed_pauses_it_and_resume_goes_on(
    tmp_path: Path, pages: MetricsPages, start_prometheus: StartPrometheus
) -> None:
    prometheus = start_prometheus(pages.config())
    for site in _site(tmp_path, pages, prometheus, "killed"):
        process = site.begin()
        site.until_phase("baking", process)
        prometheus.kill()

        outcome = ended(process)

        assert outcome.code == 1, outcome
        assert "no data for" in outcome.stderr and "--resume" in outcome.stderr
        assert site.traffic and (site.traffic.phase, site.traffic.weight) == ("baking", 50)
        assert site.call(f"{site.model}:3", *PLAN).code == 4
        prometheus.start()
        assert site.call(site.model, "--resume").code == 0
        assert site.state.labels == {"stable": 2}


def test_it_goes_on_after_a_kill_in_every_phase(site: Site) -> None:
    held = {  # who keeps it from leaving the phase that it is to be killed in, or the next one
        ("starting", 0): "servers",
        ("shifting", 0): "gateway",
        ("baking", 0): "",
        ("shifting", 1): "gateway",
        ("baking", 1): "servers",
        ("promoting", 1): "servers",
        ("leaving", 1): "gateway",
    }
    site.fleet.servers_held = True
    process = site.begin("--steps", "25,50", "--bake", "2s")
    for (phase, step), who in held.items():
        site.fleet.servers_held, site.fleet.gateway_held = who == "servers", who == "gateway"
        site.until_phase(phase, process, step=step)
        process.kill()
        process.communicate()
        process = site.start(site.model, "--resume", "--json")
    site.fleet.gateway_held = False

    outcome = ended(process)

    assert outcome.code == 0, outcome
    assert outcome.document["outcome"] == "promoted"
    assert site.state.labels == {"stable": 2}
    assert [site.actions.count(action) for action in ("begin", "shift", "accept", "withdraw", "finish")] == [
        1,
        2,
        1,
        1,
        1,
    ]


def test_a_run_that_was_stopped_is_fenced_off_by_the_one_that_took_over(site: Site) -> None:
    stale = site.begin("--steps", "50", "--bake", "3s")
    assert stale.stderr
    # Not while it writes: a directory's registry has a lock, which the kernel frees only when its holder ends.
    assert any("judged from now on" in line for line in stale.stderr)
    stale.send_signal(signal.SIGSTOP)
    try:
        fresh = site.call(site.model, "--resume")
    finally:
        stale.send_signal(signal.SIGCONT)

    assert fresh.code == 0, fresh
    outcome = ended(stale)
    assert outcome.code == 4, outcome
    assert "fenced off" in outcome.stderr
    assert site.actions.count("accept") == 1


@pytest.mark.parametrize("phase", ["starting", "baking", "promoting"])
def test_an_abort_ends_it_without_the_candidate(site: Site, phase: str) -> None:
    process = site.begin()
    site.fleet.servers_held = phase == "starting"
    if phase == "promoting":
        site.until_phase("baking", process)
        site.fleet.servers_held = True
    site.until_phase(phase, process)

    outcome = site.call(site.model, "--abort", "--reason", "a bad feeling")

    assert outcome.code == 0, outcome
    assert site.state.labels == {"stable": 1}
    led = ended(process)
    assert led.code == 4, led
    assert "aborted by" in led.stderr or "fenced off" in led.stderr
    assert "withdraw 2, aborted" in slipway("history", site.model, folder=site.folder).stdout


def test_it_is_paused_and_resumed_by_hand(site: Site) -> None:
    process = site.begin()
    site.until_phase("baking", process)

    paused = site.call(site.model, "--pause", "--reason", "lunch")

    assert paused.code == 0, paused
    outcome = ended(process)
    assert outcome.code == 4, outcome
    assert "was paused" in outcome.stderr and "lunch" in outcome.stderr
    assert site.call(site.model, "--pause", "--json").document["paused"].endswith(": lunch")
    assert "lunch" in site.call(site.model, "--status").stdout
    assert site.call(site.model, "--resume").code == 0
    assert site.state.labels == {"stable": 2}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_end_says_how_to_go_on(site: Site, number: signal.Signals) -> None:
    process = site.begin()
    site.until_phase("baking", process)

    process.send_signal(number)

    outcome = ended(process)
    assert outcome.code == 128 + number
    assert f"`slipway rollout {site.model} --resume --prometheus {site.url}` goes on" in outcome.stderr
    assert site.traffic and (site.traffic.weight, site.traffic.paused) == (50, "")


def test_a_rehearsal_changes_nothing(site: Site) -> None:
    outcome = site.call(f"{site.model}:2", *PLAN, "--dry-run")

    assert outcome.code == 0, outcome
    assert outcome.stdout.startswith(f"would roll out {site.model}:2: 50 % of the requests, 2s each")
    assert site.actions == ["promote"]
