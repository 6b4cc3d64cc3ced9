"""What happened between two reports of a gateway's agent, in lines for its log. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from model_registry.serving.gateway.gateway_report import GatewayReport, RoutedReport

_INFO, _WARNING = logging.INFO, logging.WARNING


def events(before: GatewayReport, after: GatewayReport) -> Iterator[tuple[int, str]]:
    """Yields a level and a line for each thing that happened; none where nothing did."""
    if after.disk_problem != before.disk_problem:
        yield (_WARNING, after.disk_problem) if after.disk_problem else (_INFO, f"{after.directory} is kept up again")
    if after.envoy_reachable and not before.envoy_reachable:
        yield _INFO, f"Envoy answers at {after.envoy}"
    elif after.envoy_problem and after.envoy_problem != before.envoy_problem:
        yield _WARNING, f"Envoy at {after.envoy}: {after.envoy_problem}"
    for name, model in sorted(after.models.items()):
        yield from _of_model(name, before.models.get(name, RoutedReport()), model)
    for name in sorted(before.models.keys() - after.models.keys()):
        yield _INFO, f"{name} is not routed any more"


def _of_model(name: str, before: RoutedReport, after: RoutedReport) -> Iterator[tuple[int, str]]:
    if after.problem != before.problem:
        yield (_WARNING, f"{name}: {after.problem}") if after.problem else (_INFO, f"{name}: all is well again")
    if after.notice and after.notice != before.notice:
        yield _WARNING, f"{name}: {after.notice}"
    wanted = (after.stable, after.canary, after.wanted_weight)
    if wanted != (before.stable, before.canary, before.wanted_weight):
        yield _INFO, f"{name}: {_share(name, after)} wanted, since revision {after.wanted_revision}"
    if after.weight is not None and (after.weight, after.revision) != (before.weight, before.revision):
        yield _INFO, f"{name}: {after.weight} % to canary in force, by revision {after.revision}"


def _share(name: str, model: RoutedReport) -> str:
    if model.stable is None:
        return "no route is"
    if model.canary is None or not model.wanted_weight:
        return f"all to {name}:{model.stable} is"
    return f"{model.wanted_weight} % to {name}:{model.canary}, the rest to {name}:{model.stable}, is"
