"""What Envoy is told whenever a model's state changes: the clusters, and the routes to them. Pure.

Envoy watches two files in one directory, and takes up each as it is moved into place. The order matters: clusters
first, then, once `clusters_missing` says that Envoy has them all, the routes that lead to them, and only once those
are in force the clusters file without what no route leads to any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from model_registry.errors import FormatError
from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.envoy_routes import route_configuration
from model_registry.serving.gateway.routing import RoutingTable
from model_registry.serving.gateway.upstream_clusters import NAMESPACE, clusters_of

CLUSTERS_FILE = "clusters.json"
ROUTES_FILE = "routes.json"

# What comes of reading another document as a dump, such as `[]`, `{"configs": [7]}` or 1e999 for a weight.
_NO_DUMP = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def clusters_file(table: RoutingTable, *, file: FleetFile, keep: Sequence[RoutingTable] = ()) -> bytes:
    """What CLUSTERS_FILE says (CDS).

    Args:
        table: What the gateway is to do.
        file: How long a request may take.
        keep: Tables whose clusters must stay, since routes that are in force may lead to them. Where a cluster is of
            several tables, what `table` says of its servers holds, else the last of these.
    """
    clusters = {}
    for one in (*keep, table):
        clusters.update(clusters_of(one.models))
    return _file([clusters[name].resource(file.gateway.timeout) for name in sorted(clusters)])


def routes_file(table: RoutingTable, *, file: FleetFile) -> bytes:
    """What ROUTES_FILE says (RDS): one route configuration, of REST and gRPC, so that both change in one moment.

    Args:
        table: What the gateway is to do.
        file: How long a request may take.
    """
    return _file([route_configuration(table, file)])


def clusters_missing(table: RoutingTable, config_dump: bytes) -> frozenset[str]:
    """The clusters that the table's routes lead to and Envoy does not have yet, or is still warming.

    Args:
        table: What the gateway is to do.
        config_dump: What Envoy's admin answers to `/config_dump?resource=dynamic_active_clusters`.

    Raises:
        FormatError: If that is no such answer.
    """
    try:
        there = {config["cluster"]["name"] for config in _configs(config_dump)}
    except _NO_DUMP as error:
        raise _unreadable(error) from None
    return frozenset(clusters_of(table.models).keys() - there)


def clusters_with_servers(clusters: bytes) -> frozenset[str]:
    """The clusters that Envoy knows the address of a server of, whether or not that is well.

    Args:
        clusters: What Envoy's admin answers to `/clusters?format=json`.

    Raises:
        FormatError: If that is no such answer.
    """
    try:
        found = json.loads(clusters).get("cluster_statuses", [])
        return frozenset(str(cluster["name"]) for cluster in found if cluster.get("host_statuses"))
    except _NO_DUMP as error:
        raise _unreadable(error) from None


def weights_in_force(config_dump: bytes) -> Mapping[str, tuple[int, int]]:
    """The weight of the canary that Envoy shares by, and the revision of the state that it comes from, by model.

    Args:
        config_dump: What Envoy's admin answers to `/config_dump?resource=dynamic_route_configs`.

    Raises:
        FormatError: If that is no such answer.
    """
    try:
        return _weights(config["route_config"] for config in _configs(config_dump))
    except _NO_DUMP as error:
        raise _unreadable(error) from None


def revisions_written(routes: bytes, *, path: str) -> Mapping[str, int]:
    """The revision of the state that each model's routes follow, by model.

    Args:
        routes: What ROUTES_FILE says.
        path: Where that is.

    Raises:
        FormatError: If no agent wrote it.
    """
    try:
        found = _weights(json.loads(routes)["resources"])
    except _NO_DUMP as error:
        raise FormatError(
            f"{path} is not what an agent writes: {type(error).__name__}: {error}",
            hint="remove it: Envoy's routes stay as they are until the registry has been read",
        ) from None
    return {model: revision for model, (_, revision) in found.items()}


def _file(resources: list[dict[str, Any]]) -> bytes:
    # The version is what it says: the same content is the same version, and Envoy shows which it has.
    text = json.dumps(resources, sort_keys=True)
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return (json.dumps({"version_info": version, "resources": resources}, indent=1) + "\n").encode()


def _weights(configurations: Iterable[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for config in configurations:
        for model, facts in config.get("metadata", {}).get("filter_metadata", {}).get(NAMESPACE, {}).items():
            found[model] = (int(facts["weight"]), int(facts["revision"]))
    return found


def _configs(config_dump: bytes) -> Iterator[dict[str, Any]]:
    # An Envoy that has none of a kind leaves `configs` out.
    yield from json.loads(config_dump).get("configs", [])


def _unreadable(error: Exception) -> FormatError:
    return FormatError(
        f"Envoy's admin answered with something else than a dump of its configuration: {type(error).__name__}: {error}",
        hint="is it Envoy's admin address that --envoy names? 9901 unless fleet.yaml says otherwise",
    )
