"""Whole rollouts under steady load: two fleets, an Envoy, a Prometheus, all agents and the command, each for real."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from tests.support.rollout_bench import BUSY, MODEL, UNHURRIED, RolloutBench
from tests.support.rollout_load import Load

pytestmark = [pytest.mark.xdist_group("rollout"), pytest.mark.timeout(400)]

_SIGMAS = 5


def require_share(found: int, total: int, share: float, what: str) -> None:
    """Fails where so many of so many is no accident of a binomial distribution."""
    spread = _SIGMAS * math.sqrt(total * share * (1 - share))
    assert abs(found - total * share) <= spread, f"{what}: {found} of {total}, expected {share:.0%}"


def require_none_failed(load: Load) -> None:
    """Fails where a request did."""
    assert not load.failures, f"{len(load.failures)} of {len(load.answers)} failed: {load.failures[:3]}"


def require_counted(bench: RolloutBench, load: Load, base: dict[int, int]) -> None:
    """Fails where Envoy has counted other answers of a version than clients got; `base` is what it had before."""
    before = load.counts()
    counted = {version: bench.answered(version) - there for version, there in base.items()}
    after = load.counts()
    for version in base:
        assert before[version] <= counted[version] <= after[version] + load.clients, (version, before, counted, after)


def steps_of(bench: RolloutBench, since: int, looks: list[dict[str, Any]]) -> dict[int, tuple[float, float]]:
    """From when to when each weight was in force for certain, in Unix seconds."""
    began = {
        change.after.weight: change.after.since
        for record in bench.records(since)
        if (change := record.transition.traffic) and record.transition.action == "bake" and change.after
    }
    return {
        weight: (since or 0, max(look["time"] for look in looks if look["weight"] == weight))
        for weight, since in began.items()
    }


def goes_on(bench: RolloutBench, load: Load, *versions: int, requests: int = 200) -> None:
    """Lets so many requests more be asked, and fails if another version answers one of them."""
    since, count = time.time(), len(load.answers)
    bench.until(lambda: len(load.answers) >= count + requests, "the load goes on")
    found = load.between(since, time.time())
    assert found.keys() <= {*versions}, f"expected answers of {versions} alone, found {found}"


def test_an_equal_canary_takes_over_step_by_step_and_no_request_fails(rollout_bench: RolloutBench) -> None:
    bench, before = rollout_bench, rollout_bench.stable()
    candidate, revision = bench.publish(), bench.state.revision
    base = {version: bench.answered(version) for version in (before, candidate)}
    with bench.load(pace=BUSY) as load:
        bake = bench.bake(load, share=0.4)
        leader = bench.lead(candidate, "--steps", "40,70,100", "--bake", bake, *UNHURRIED, "--json")
        for step in range(3):
            bench.until_baking(leader, step)
            require_counted(bench, load, base)
        outcome = leader.end()
        goes_on(bench, load, candidate)

    assert outcome.code == 0, outcome
    require_none_failed(load)
    assert not load.unlike, f"{len(load.unlike)} answers of another version than their header says: {load.unlike[:3]}"
    document = outcome.document
    assert (document["outcome"], document["version"], document["baseline"]) == ("promoted", candidate, before)
    steps = steps_of(bench, revision, document["looks"])
    assert [*steps] == [40, 70, 100]
    for weight, (start, end) in steps.items():
        for api in ("rest", "grpc"):
            found = load.between(start, end, api)
            assert found.keys() <= {before, candidate}
            require_share(found[candidate], found.total(), weight / 100, f"{api} at {weight} %")
    assert bench.state.labels == {"stable": candidate}
    assert bench.state.traffic is None
    bench.agents["stable"].serves({"stable": candidate})
    bench.agents["canary"].serves({})
    assert bench.gateway.agents[-1].model().stable == candidate
    assert [record["action"] for record in bench.history(revision)] == [
        *("begin", "shift", "bake", "shift", "bake", "shift", "bake", "accept", "withdraw", "finish")
    ]


def require_withdrawn(bench: RolloutBench, since: int, *, metric: str, labels: dict[str, int]) -> dict[str, Any]:
    """Fails unless history tells that a canary was worse in a metric, and all is as it was; returns the evidence."""
    assert bench.state.labels == labels
    assert bench.state.traffic is None
    history = bench.history(since)
    assert [record["action"] for record in history][-2:] == ["withdraw", "finish"]
    withdrawn, over = history[-2:]
    assert (withdrawn["traffic"]["weight"], withdrawn["traffic"]["outcome"]) == (0, "worse")
    assert (over["label"], over["to"]) == ("canary", labels.get("canary"))
    assert not [record for record in history if record["label"] == "stable"]
    worse = {each["metric"]: each for each in withdrawn["evidence"] if each["verdict"] == "worse"}
    assert metric in worse, withdrawn
    assert withdrawn["why"].startswith("worse: ")
    bench.gateway.agents[-1].shares(0)
    bench.agents["canary"].serves({label: version for label, version in labels.items() if label == "canary"})
    found: dict[str, Any] = worse[metric]
    return found


def test_a_canary_that_fails_requests_is_withdrawn_and_its_label_goes_back(rollout_bench: RolloutBench) -> None:
    bench, before = rollout_bench, rollout_bench.stable()
    earlier, candidate = bench.publish(), bench.publish(failing_share=0.05)
    bench.label("canary", earlier)
    revision = bench.state.revision
    with bench.load() as load:
        bake = bench.bake(load, share=0.5)
        leader = bench.lead(candidate, "--steps", "50,100", "--bake", bake, *UNHURRIED, "--json")
        bench.until_baking(leader)
        load.pace = BUSY
        outcome = leader.end()
        goes_on(bench, load, before)

    assert outcome.code == 3, outcome
    assert (outcome.document["outcome"], outcome.document["weight"]) == ("worse", 0)
    assert [check["check"] for check in outcome.document["checks"] if not check["passed"]] == ["error_rate"]
    evidence = require_withdrawn(bench, revision, metric="error_rate", labels={"stable": before, "canary": earlier})
    assert 0.01 < evidence["canary"] < 0.15 and evidence["stable"] == 0
    assert 0 < evidence["canary_samples"] <= len(load.answers)
    assert all(answer.refused for answer in load.failures), load.failures[:3]
    counts = load.counts()
    assert counts.keys() == {before, candidate, None}
    require_share(counts[None], counts[None] + counts[candidate], 0.05, "failures of the canary's answers")
    assert candidate not in bench.servers["stable"].states(MODEL)


def test_without_prometheus_nothing_is_passed_and_the_rollout_goes_on_once_it_is_back(
    rollout_bench: RolloutBench,
) -> None:
    bench, before = rollout_bench, rollout_bench.stable()
    candidate, revision = bench.publish(failing_share=0.05), bench.state.revision
    with bench.load() as load:
        # So long does a rollout that is paused for lack of data wait for them, too.
        leader = bench.lead(candidate, "--steps", "60,100", "--bake", "15s", *UNHURRIED, "--json")
        bench.until_baking(leader)
        bench.prometheus.kill()
        paused = bench.until(lambda: bench.traffic.paused and bench.traffic, "it is paused", leader)
        bench.prometheus.start()
        load.pace = BUSY
        outcome = leader.end()
        goes_on(bench, load, before)

    assert (paused.phase, paused.weight) == ("baking", 60)
    assert paused.paused.startswith("no data for ")
    assert outcome.code == 3, outcome
    require_withdrawn(bench, revision, metric="error_rate", labels={"stable": before})
    history = bench.history(revision)
    actions = ["begin", "shift", "bake", "pause", "resume", "bake", "withdraw", "finish"]
    assert [record["action"] for record in history] == actions
    assert history[3]["why"].startswith("no data for ")
    assert all(answer.refused for answer in load.failures), load.failures[:3]


def test_whoever_leads_it_and_the_gateways_agent_may_be_killed(rollout_bench: RolloutBench) -> None:
    bench = rollout_bench
    bench.stable()
    candidate, revision = bench.publish(), bench.state.revision
    with bench.load() as load:
        bake = bench.bake(load, share=0.6)
        leader = bench.lead(candidate, "--steps", "60", "--bake", bake, *UNHURRIED)
        bench.until_baking(leader)
        load.pace = BUSY
        leader.kill()
        bench.gateway.agents[-1].kill()
        since = time.time()
        count = len(load.answers)
        bench.until(lambda: len(load.answers) > count + 500, "the load goes on")
        alone = load.between(since, time.time())
        bench.start_gateway_agent()
        resumed = bench.lead(MODEL, "--resume", "--json")
        outcome = resumed.end()
        goes_on(bench, load, candidate)

    require_share(alone[candidate], alone.total(), 0.6, "nobody leads, and the weight stays")
    assert outcome.code == 0, outcome
    require_none_failed(load)
    assert bench.state.labels == {"stable": candidate}
    assert [record["action"] for record in bench.history(revision)].count("resume") == 1


def test_an_abort_takes_the_requests_back_and_none_fails(rollout_bench: RolloutBench) -> None:
    bench, before = rollout_bench, rollout_bench.stable()
    candidate, revision = bench.publish(), bench.state.revision
    with bench.load() as load:
        leader = bench.lead(candidate, "--steps", "60,100", "--bake", "60s", *UNHURRIED)
        bench.until_baking(leader)
        aborted = bench.lead(MODEL, "--abort", "--reason", "a bad feeling").end()
        goes_on(bench, load, before)
        led = leader.end()

    assert (aborted.code, led.code) == (0, 4), (aborted, led)
    require_none_failed(load)
    assert load.counts()[candidate] > 0
    assert bench.state.labels == {"stable": before}
    withdrawn = next(record for record in bench.history(revision) if record["action"] == "withdraw")
    assert (withdrawn["traffic"]["outcome"], withdrawn["why"]) == ("aborted", "a bad feeling")


def test_a_canary_that_no_server_can_load_gets_no_request(rollout_bench: RolloutBench) -> None:
    bench, before = rollout_bench, rollout_bench.stable()
    candidate, revision = bench.publish(loads=False), bench.state.revision
    with bench.load() as load:
        outcome = bench.lead(candidate, "--steps", "50", "--bake", "60s").end()

    assert outcome.code == 3, outcome
    require_none_failed(load)
    assert load.counts().keys() == {before}
    history = bench.history(revision)
    assert [record["action"] for record in history] == ["begin", "withdraw", "finish"]
    assert "FAILED" in history[1]["why"]
    assert bench.state.labels == {"stable": before}
    told = json.loads(bench.slipway("rollout", MODEL, "--status", "--json").stdout)
    assert told["outcome"] == "worse"


def test_a_canary_that_is_twice_as_slow_is_withdrawn(rollout_bench: RolloutBench) -> None:
    bench = rollout_bench
    # Turns are not all that a request takes: their medians, as Envoy measured them, were 1.8 to 2.0 times apart.
    before, candidate = bench.publish(delay_turns=1000), bench.publish(delay_turns=2500)
    bench.label("stable", before)
    revision = bench.state.revision
    with bench.load(clients=2, pace=100) as load:
        leader = bench.lead(candidate, "--steps", "50,100", "--bake", "15s", "--margin", "p99=100", "--json")
        outcome = leader.end()

    assert outcome.code == 3, outcome
    require_none_failed(load)
    evidence = require_withdrawn(bench, revision, metric="p50", labels={"stable": before})
    assert evidence["canary_bound"] > 1.25 * evidence["stable_bound"]
    assert evidence["canary"] < 3 * evidence["stable"], "a canary so slow is no proof"
