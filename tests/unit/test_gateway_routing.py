"""From states and fleets to a table: who gets what, and what is said where it cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from model_registry.serving.fleet import Fleet, FleetFile, Gateway, Server
from model_registry.serving.gateway.routing import ModelRoute, RoutingTable, Side, routing_table
from model_registry.state import Past, State
from model_registry.traffic import Plan, Traffic

A, B, C = (Server(host=f"server-{name}") for name in "abc")
TWO = FleetFile(fleets={"stable": Fleet(servers=(A,)), "canary": Fleet(servers=(B,))})
ONE = FleetFile(fleets={"all": Fleet(labels=("stable", "canary"), servers=(A, B))})


def state(revision: int = 7, traffic: Traffic | None = None, **labels: int) -> State:
    return State(revision, labels, {label: Past() for label in labels}, traffic=traffic)


def traffic(weight: int = 5, **changes: Any) -> Traffic:
    begun = Traffic(1, "stable", "canary", 2, 3, None, Plan(), weight, "shifting" if weight else "starting")
    return replace(begun, **changes)


def only(table: RoutingTable) -> ModelRoute:
    (route,) = table.models
    return route


def test_requests_are_shared_by_the_weight_of_the_rollout() -> None:
    table = routing_table({"digits": state(traffic=traffic(5), stable=2, canary=3)}, TWO)

    assert table == RoutingTable((ModelRoute("digits", 7, Side("stable", 2, (A,)), Side("canary", 3, (B,)), weight=5),))
    assert only(table).grpc_weight == 5
    assert table.route("digits") is only(table)
    assert table.route("digit") is None


def test_without_a_rollout_canary_gets_what_asks_for_it_by_name() -> None:
    route = only(routing_table({"digits": state(stable=2, canary=3)}, TWO))

    assert (route.canary, route.weight) == (Side("canary", 3, (B,)), 0)


def test_a_model_that_was_never_tried_has_no_canary() -> None:
    table = routing_table({"digits": state(stable=2)}, TWO)

    assert (only(table).canary, only(table).weight, table.problems) == (None, 0, {})


def test_models_come_by_name_and_those_of_others_do_not() -> None:
    file = FleetFile(fleets={"stable": Fleet(models=("faces", "digits"), servers=(A,))})
    states = {name: state(stable=2) for name in ("faces", "digits", "sounds")}

    table = routing_table({**states, "unlabelled": State()}, file)

    assert [route.model for route in table.models] == ["digits", "faces"]
    assert table.problems == {}


def test_one_fleet_for_both_labels_leaves_grpc_whole() -> None:
    route = only(routing_table({"digits": state(traffic=traffic(25), stable=2, canary=3)}, ONE))

    assert (route.weight, route.shares_grpc, route.grpc_weight) == (25, False, 0)
    assert (route.stable.alone, route.canary and route.canary.alone) == (False, False)
    assert route.stable.servers == (A, B)


def test_one_fleet_whose_model_has_one_label_knows_what_answers() -> None:
    assert only(routing_table({"digits": state(stable=2)}, ONE)).stable.alone


@pytest.mark.parametrize(
    ("beta", "shares"),
    [
        pytest.param(Fleet(labels=("beta",), servers=(C,)), True, id="on servers of its own"),
        pytest.param(Fleet(labels=("beta",), servers=(B,)), False, id="on canary's servers, as another fleet"),
        pytest.param(Fleet(labels=("beta",), servers=(B,), models=("faces",)), True, id="of another model"),
    ],
)
def test_grpc_is_shared_where_servers_follow_one_label_alone(beta: Fleet, shares: bool) -> None:
    file = FleetFile(fleets={**TWO.fleets, "beta": beta})

    route = only(routing_table({"digits": state(traffic=traffic(5), stable=2, canary=3, beta=4)}, file))

    assert (route.shares_grpc, route.grpc_weight) == (shares, 5 if shares else 0)


def test_one_fleet_for_two_versions_says_what_grpc_gets_whatever_the_weight() -> None:
    said = "gRPC is not shared: its servers answer with the highest version they have, and follow the labels canary, st"
    for moving in (None, traffic(0), traffic(25)):
        table = routing_table({"digits": state(traffic=moving, stable=2, canary=3)}, ONE)

        assert table.notices["digits"].startswith(said)
        assert table.problems == {}


@pytest.mark.parametrize(
    ("found", "file"),
    [
        pytest.param(state(traffic=traffic(25), stable=2, canary=3), TWO, id="servers of its own"),
        pytest.param(state(stable=2, canary=2), ONE, id="one version"),
        pytest.param(state(stable=2), ONE, id="one label"),
    ],
)
def test_where_grpc_is_as_rest_is_there_is_nothing_to_notice(found: State, file: FleetFile) -> None:
    assert routing_table({"digits": found}, file).notices == {}


def test_a_canary_whose_servers_are_not_its_own_gets_no_grpc_and_it_is_said() -> None:
    file = FleetFile(fleets={**TWO.fleets, "beta": Fleet(servers=(B,))})

    table = routing_table({"digits": state(traffic=traffic(5), stable=2, canary=3, beta=4)}, file)

    assert table.notices == {
        "digits": "gRPC is not shared: all of it goes to 'stable', since the servers of 'canary' follow other labels, "
        "too"
    }


def test_other_labels_have_the_fleets_that_follow_them() -> None:
    file = FleetFile(fleets={**TWO.fleets, "beta": Fleet(servers=(C,))})

    route = only(routing_table({"digits": state(stable=2, canary=3, beta=4, alpha=1)}, file))

    assert route.others == (Side("beta", 4, (C,)),)
    assert [side.label for side in route.sides] == ["stable", "canary", "beta"]


def test_several_fleets_of_a_label_are_one_side_and_no_server_counts_twice() -> None:
    fleets = {name: Fleet(labels=("stable",), servers=servers) for name, servers in (("x", (A, B)), ("y", (B, C)))}

    assert only(routing_table({"digits": state(stable=2)}, FleetFile(fleets=fleets))).stable.servers == (A, B, C)


@pytest.mark.parametrize(
    ("found", "file", "said"),
    [
        pytest.param(state(canary=3), TWO, "no route: it has no label 'stable', but canary", id="no stable"),
        pytest.param(
            state(stable=2),
            FleetFile(fleets={"canary": Fleet(servers=(B,))}),
            "no route: no fleet serves its label 'stable'",
            id="no fleet",
        ),
        pytest.param(
            state(stable=2),
            FleetFile(fleets={"stable": Fleet()}),
            "fleet.yaml names no servers of stable",
            id="no server",
        ),
    ],
)
def test_a_model_that_cannot_be_routed_says_why(found: State, file: FleetFile, said: str) -> None:
    table = routing_table({"digits": found}, file)

    assert table.models == ()
    assert said in table.problems["digits"]


def test_only_of_a_model_that_the_file_names_a_first_label_is_missed() -> None:
    named = FleetFile(fleets={"stable": Fleet(models=("digits",), servers=(A,))})

    assert routing_table({"digits": State()}, named).problems == {"digits": "it has no label yet: promote a version"}
    assert routing_table({"digits": State()}, TWO).problems == {}
    assert routing_table({"digits": State(revision=4)}, named).problems == {}


def test_without_its_canary_a_model_goes_to_stable_alone() -> None:
    shared = routing_table({"digits": state(traffic=traffic(5), stable=2, canary=3)}, TWO)

    assert only(shared).weight == 5
    assert only(shared.without_canary(["digits"])) == replace(only(shared), weight=0)
    assert shared.without_canary(["faces"]) == shared


def test_a_rollout_without_a_canary_fleet_goes_to_stable_and_says_so() -> None:
    file = FleetFile(fleets={"stable": Fleet(servers=(A,))})

    table = routing_table({"digits": state(traffic=traffic(5), stable=2, canary=3)}, file)

    assert (only(table).canary, only(table).weight) == (None, 0)
    assert table.problems["digits"] == "all of its requests go to 'stable': no fleet serves its label 'canary'"


def test_a_rollout_between_other_labels_is_none_of_this_gateway_s() -> None:
    file = FleetFile(fleets=TWO.fleets, gateway=Gateway(canary="next"))

    table = routing_table({"digits": state(traffic=traffic(5), stable=2, canary=3)}, file)

    assert only(table).weight == 0
    assert (
        "between labels 'stable' and 'canary', and this gateway shares between 'stable' and 'next'"
        in (table.problems["digits"])
    )
