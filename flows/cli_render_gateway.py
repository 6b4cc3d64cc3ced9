"""`slipway render envoy`: prints what an Envoy is started with."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

import click

from flows.command import json_option, print_json, reporting_errors


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise click.BadParameter(f"expected an IP address such as 0.0.0.0, found {value!r}") from None


@click.command()
@click.option(
    "--fleet",
    "fleet",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="A fleet.yaml: its gateway's ports and timeout.",
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    callback=_address,
    help="Where requests are taken. The admin interface stays on the loopback address.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    callback=_address,
    help="Where Prometheus may ask, at the fleet file's port `metrics`, for metrics and nothing else.",
)
@click.option(
    "--directory",
    metavar="DIR",
    default="/etc/slipway/gateway",
    show_default=True,
    help="What `slipway gateway` writes to, as Envoy sees it.",
)
@click.option(
    "--heap",
    metavar="MIB",
    type=click.IntRange(64, 1 << 20),
    default=1024,
    show_default=True,
    help="What Envoy may use of memory, in MiB; near it, it refuses requests.",
)
@json_option
def envoy(fleet: Path, listen: str, metrics: str, directory: str, heap: int, as_json: bool) -> None:
    """Print the configuration that the gateway's Envoy is started with.

    Clusters and routes are not in it: `slipway gateway` writes those, and Envoy ends at once where they are missing.
    """
    from model_registry.errors import InvalidInputError
    from model_registry.serving.fleet_file import load_fleet
    from model_registry.serving.gateway.envoy_bootstrap import bootstrap

    with reporting_errors(as_json):
        file = load_fleet(fleet)
        if not directory.startswith("/"):
            raise InvalidInputError(
                f"the directory is {directory!r}: expected an absolute path", hint="Envoy may be started anywhere"
            )
        content = bootstrap(file, directory=directory, listen=listen, metrics=metrics, heap=heap << 20)
        if as_json:
            gateway = file.gateway
            ports = {"rest": gateway.rest, "grpc": gateway.grpc, "admin": gateway.admin, "metrics": gateway.metrics}
            print_json({"what": "envoy", "content": content, "ports": ports})
        else:
            sys.stdout.write(content)
