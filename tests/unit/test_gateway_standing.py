"""How each model stands at a gateway: what is wanted, what is in force, and whether it lags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.registry import Registry
from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.envoy_admin import EnvoyLook
from model_registry.serving.gateway.gateway_metrics import GatewayMetrics
from model_registry.serving.gateway.gateway_report import GatewayReport
from model_registry.serving.gateway.registry_states import RegistryStates
from model_registry.serving.gateway.routing import RoutingTable, routing_table
from model_registry.serving.gateway.standing import Readiness, standing
from model_registry.serving.gateway.wanted import Wanted
from model_registry.state import Origin, State
from model_registry.storage.memory import MemoryStore
from tests.support.drafts import make_draft, make_payload

ANN = Origin("ann@build-7")


def fleet(**fields: object) -> FleetFile:
    servers = {label: {"servers": [{"host": label}], **fields} for label in ("stable", "canary")}
    return FleetFile.model_validate({"fleets": servers})


FLEET = fleet()
SHADOW = FleetFile.model_validate({"fleets": {"shadow": {"servers": [{"host": "shadow"}]}}})


def state(revision: int, **labels: int) -> State:
    return State(revision=revision, labels=labels)


def table(states: Mapping[str, State]) -> RoutingTable:
    return routing_table(states, FLEET)


def test_how_a_model_stands_is_wanted_by_the_registry_and_in_force_in_envoy() -> None:
    states = {"digits": state(3, stable=1, canary=2), "faces": state(4)}
    envoy = EnvoyLook(reachable=True, live=True, in_force={"digits": (5, 2), "old": (0, 9)})
    unread = {"birds": "its state cannot be read"}
    found = standing(states, table(states), envoy, unread=unread, waiting={"digits": "it waits"})

    assert (found["digits"].stable, found["digits"].canary) == (1, 2)
    assert found["digits"].problem == "it waits"
    assert (found["digits"].weight, found["digits"].revision, found["digits"].wanted_revision) == (5, 2, 3)
    assert (found["old"].stable, found["old"].revision) == (None, 9)
    assert found["birds"].problem == "its state cannot be read"
    assert "faces" not in found


def test_a_new_model_takes_no_gateway_out_and_one_that_was_routed_does() -> None:
    both = table({"digits": state(1, stable=1), "faces": state(1, stable=1)})
    one = EnvoyLook(reachable=True, live=True, in_force={"digits": (0, 1)})
    two = EnvoyLook(reachable=True, live=True, in_force={"digits": (0, 1), "faces": (0, 1)})

    first = Readiness(None)
    assert not first.see(both, EnvoyLook())
    assert not first.see(both, one)  # the very first time all that are wanted
    assert first.see(both, two)
    assert not first.see(both, one)
    assert first.see(table({"digits": state(1, stable=1)}), one)  # faces is not to be routed any more

    later = Readiness(["digits"])
    assert later.see(both, one)
    assert not later.see(both, EnvoyLook(reachable=True, live=False, in_force=two.in_force))
    assert not Readiness([]).see(RoutingTable(), EnvoyLook(reachable=True, live=True))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """One with digits:1, which no label names, and faces:1, which is stable."""
    registry = Registry(MemoryStore())
    for model in ("digits", "faces"):
        registry.publish(make_draft(model), {"native": make_payload(tmp_path / model)})
    registry.promote("faces", 1, "stable", origin=ANN)
    return registry


def empty() -> Wanted:
    """What is known where a directory is empty."""
    return Wanted(None, None, uri="memory:", directory=Path("/srv/gateway"))


def lag_of_digits(
    registry: Registry, file: FleetFile, in_force: Mapping[str, tuple[int, int]], wanted: Wanted | None = None
) -> float | None:
    """Seconds, an hour after an agent with an empty directory began; None where it knows nothing of digits."""
    wanted = wanted or empty()
    wanted.take(RegistryStates(registry, file).look(wanted.known))
    models = standing(
        wanted.states,
        routing_table(wanted.states, file),
        EnvoyLook(reachable=True, live=True, in_force=in_force),
        unread=wanted.unread,
        waiting={},
    )
    report = GatewayReport("g", "memory:", "/srv/gateway", "http://127.0.0.1:9901", envoy_reachable=True, models=models)
    now = [0.0]
    metrics = GatewayMetrics(clock=lambda: now[0])
    metrics.observe(report)
    now[0] = 3600
    said = metrics.render(report).decode().splitlines()
    return next((float(line.split()[-1]) for line in said if line.startswith(f'{LAG}{{model="digits"}}')), None)


LAG = "slipway_gateway_lag_seconds"


def test_a_model_that_is_to_have_no_route_and_has_none_does_not_lag(registry: Registry) -> None:
    assert lag_of_digits(registry, FLEET, {}) is None
    assert lag_of_digits(registry, fleet(models=["digits", "faces"]), {}) == 0  # the file names it: its problem is told

    registry.promote("digits", 1, "shadow", origin=ANN)

    assert lag_of_digits(registry, FLEET, {}) == 0
    assert lag_of_digits(registry, FLEET, {"digits": (0, 1)}) == 3600


def test_a_model_that_no_fleet_is_to_serve_the_stable_version_of_does_not_lag(registry: Registry) -> None:
    registry.promote("digits", 1, "stable", origin=ANN)
    others = fleet(models=["faces"]).model_copy(update={"fleets": fleet(models=["faces"]).fleets | SHADOW.fleets})

    assert lag_of_digits(registry, others, {}) == 0
    assert lag_of_digits(registry, others, {"digits": (0, 1)}) == 3600


def test_a_model_that_is_to_have_a_route_and_cannot_have_one_lags(registry: Registry) -> None:
    registry.promote("digits", 1, "stable", origin=ANN)

    assert lag_of_digits(registry, FLEET, {"digits": (0, 1)}) == 0
    for file in (FLEET, fleet(servers=[])):
        assert lag_of_digits(registry, file, {}) == 3600


@pytest.mark.parametrize("label", ["stable", "shadow"])
def test_a_model_whose_state_cannot_be_read_lags(registry: Registry, label: str) -> None:
    registry.promote("digits", 1, label, origin=ANN)
    known = empty()
    lag_of_digits(registry, FLEET, {}, known)
    found = registry.store.get(paths.state("digits"))
    registry.store.put_if_match(paths.state("digits"), b"{}", found.etag)

    assert lag_of_digits(registry, FLEET, {}) == lag_of_digits(registry, FLEET, {}, known) == 3600
