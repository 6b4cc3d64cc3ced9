"""Make before break: which routes are remembered, and whose clusters stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from model_registry.errors import FormatError
from model_registry.serving.fleet import FleetFile, Server
from model_registry.serving.gateway.routing import RoutingTable, routing_table
from model_registry.serving.gateway.turnover import Turnover
from model_registry.serving.gateway.upstream_clusters import clusters_of
from model_registry.state import State

FLEET = FleetFile.model_validate({"fleets": {label: {"servers": [{"host": label}]} for label in ("stable", "canary")}})


def state(revision: int, **labels: int) -> State:
    return State(revision=revision, labels=labels)


def table(states: Mapping[str, State], fleet: FleetFile = FLEET) -> RoutingTable:
    return routing_table(states, fleet)


def over(turnover: Turnover, states: Mapping[str, State], fleet: FleetFile = FLEET) -> Turnover:
    """Lets all routes that are behind go over."""
    wanted = table(states, fleet)
    return turnover.over(wanted, states, turnover.behind(wanted, states))


def kept(turnover: Turnover) -> set[str]:
    return {name for one in turnover.kept for name in clusters_of(one.models)}


def needed(**labels: int) -> set[str]:
    return {*clusters_of(table({"digits": state(1, **labels)}).models)}


def test_the_clusters_of_what_was_routed_stay_until_it_has_drained() -> None:
    before = over(Turnover(), {"digits": state(1, stable=1)})
    after = over(before, {"digits": state(2, stable=2)})

    assert kept(after) == needed(stable=1) | needed(stable=2)
    assert kept(after.drained(["faces"])) == kept(after)
    assert kept(after.drained(["digits"])) == needed(stable=2)


def test_a_weight_that_changes_leaves_nothing_behind() -> None:
    before = over(Turnover(), {"digits": state(1, stable=1, canary=2)})
    after = over(before, {"digits": state(2, stable=1, canary=2)})

    assert after.models["digits"].leaving == ()
    assert after.models["digits"].route and after.models["digits"].route.revision == 2


def test_a_canary_gets_first_requests_where_it_had_none_and_no_more_often() -> None:
    def sharing(revision: int, weight: int, canary: int = 2) -> RoutingTable:
        route = table({"digits": state(revision, stable=1, canary=canary)}).models[0]
        return RoutingTable((replace(route, weight=weight),))

    before = Turnover().over(sharing(1, 0), {"digits": state(1, stable=1, canary=2)}, ["digits"])
    after = before.over(sharing(2, 5), {"digits": state(2, stable=1, canary=2)}, ["digits"])

    assert Turnover().first(sharing(2, 5)) == before.first(sharing(2, 5)) == sharing(2, 5)
    assert after.first(sharing(3, 25, canary=3)) == sharing(3, 25, canary=3)
    for none in (before.first(sharing(2, 0)), after.first(sharing(3, 25)), after.first(sharing(3, 0))):
        assert none == RoutingTable()


def test_labels_that_move_there_and_back_again_are_kept_once() -> None:
    turnover = Turnover()
    for revision in range(1, 40):
        turnover = over(turnover, {"digits": state(revision, stable=1 + revision % 2)})

    assert len(turnover.models["digits"].leaving) == 1
    assert kept(turnover) == needed(stable=1) | needed(stable=2)


def test_labels_that_move_on_and_on_while_nothing_drains_are_bounded() -> None:
    turnover = Turnover()
    for version in range(1, 40):
        turnover = over(turnover, {"digits": state(version, stable=version)})

    assert len(turnover.models["digits"].leaving) == 8
    assert needed(stable=38) | needed(stable=39) <= kept(turnover)
    assert Turnover.from_json(turnover.to_json(), path="p") == turnover


def test_a_model_without_labels_leaves_and_is_forgotten_once_it_has_drained() -> None:
    before = over(Turnover(), {"digits": state(1, stable=1), "faces": state(1, stable=1)})
    after = over(before, {"digits": state(2), "faces": state(1, stable=1)})

    assert [route.model for route in after.table.models] == ["faces"]
    assert needed(stable=1) <= kept(after)
    assert after.behind(table({"digits": state(2), "faces": state(1, stable=1)}), {}) == frozenset()
    assert after.drained(["digits"]).models.keys() == {"faces"}


def test_a_fleet_file_that_changed_is_a_change_too() -> None:
    states = {"digits": state(1, stable=1)}
    before = over(Turnover(), states)
    moved = FleetFile.model_validate({"fleets": {"stable": {"servers": [{"host": "elsewhere"}]}}})

    assert before.behind(table(states), states) == frozenset()
    assert before.behind(table(states, moved), states) == {"digits"}
    route = over(before, states, moved).table.route("digits")
    assert route and route.stable.servers == (Server(host="elsewhere"),)


def test_what_is_remembered_is_read_as_it_was_written() -> None:
    turnover = over(over(Turnover(), {"digits": state(1, stable=1, canary=2)}), {"digits": state(2, stable=2)})

    assert Turnover.from_json(turnover.to_json(), path="p") == turnover
    assert turnover.states == {"digits": state(2, stable=2)}


@pytest.mark.parametrize("data", [b"", b"{}", b'{"schema_version": 1, "models": {"../x": {}}}'])
def test_a_memory_that_somebody_else_wrote_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(FormatError) as refused:
        Turnover.from_json(data, path="/srv/gateway/.slipway/gateway.json")

    assert "remove it" in (refused.value.hint or "")
