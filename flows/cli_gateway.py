"""`slipway gateway`: keeps the files of an Envoy as the traffic of the registry's models wants them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.agent_process import agent_process, listen_option, name_option, seconds_option
from flows.command import json_option, registry_option
from model_registry.serving.gateway.gateway_settings import DRAIN, INTERVAL

if TYPE_CHECKING:
    from model_registry.serving.gateway.gateway_report import GatewayReport


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--fleet",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="Which fleets of servers there are; read once, at the start.",
)
@click.option(
    "--once", is_flag=True, help="End once the files are written; where Envoy answers, once they are in force."
)
@click.option(
    "--envoy", metavar="URL", help="Envoy's admin interface.  [default: http://127.0.0.1 and the fleet file's port]"
)
@listen_option("127.0.0.1:8503")
@name_option
@seconds_option("--interval", INTERVAL, "Seconds from one look at the registry to the next.", least=0.1)
@seconds_option("--drain", DRAIN, "Seconds that the way to a version stays after the last route to it is gone.")
@registry_option
@json_option
def gateway(
    directory: Path,
    fleet: Path,
    once: bool,
    listen: str,
    envoy: str | None,
    registry: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Tell the Envoy that reads DIR which share of the requests goes to which version, and keep doing so.

    Writes DIR/clusters.json and DIR/routes.json from the labels and the traffic of the models that the servers in
    FILE serve, and asks Envoy which weights are in force. Start Envoy with what `slipway render envoy` prints; it
    ends at once where the files are missing, so run this with --once before.

    The registry is --registry, else what FILE names, else $SLIPWAY_REGISTRY, else ./registry.

    With --once, exit code 1 if the registry cannot be read and nothing was routed before; where Envoy answers, if what
    is wanted is not in force in the end. 4 if another agent fills DIR.
    """
    from model_registry.registry import Registry
    from model_registry.serving.agent_server import parse_listen
    from model_registry.serving.fleet_file import load_fleet
    from model_registry.serving.gateway.gateway_agent import GatewayAgent
    from model_registry.serving.gateway.gateway_metrics import GatewayMetrics
    from model_registry.serving.gateway.gateway_settings import GatewaySettings

    given = {option: value for option, value in options.items() if value != ""}
    with agent_process(as_json=as_json) as process:
        file = load_fleet(fleet)
        settings = GatewaySettings(directory, file, envoy=envoy or "", **given)
        address, metrics = parse_listen(listen), GatewayMetrics()
        process.agent = agent = GatewayAgent(settings, Registry.open(registry or file.registry), metrics=metrics)

        def work(stop: threading.Event) -> tuple[GatewayReport, bool]:
            if agent.envoy_answers():
                report = agent.settle(stop)
                return report, report.well
            return agent.prepare(), True

        if once:
            process.once(work, otherwise="not everything is routed as the registry wants it")
        else:
            process.follow(agent, metrics, address, following=agent.report().registry)
