"""What the gateway costs: our client asks a server itself, through a bare Envoy, and through the gateway's, in turn.

The bare Envoy is the least that passes gRPC on: one listener, one route, one cluster; no access log, no labels, no
limits. What the gateway's takes more is what `slipway gateway` and `slipway render envoy` put into it.

python -m benchmarks.gateway HOST:PORT ROUNDS DIRECTORY
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measuring
from benchmarks.client import BATCHES, MODEL, SHAPE, answering, our_client, rates
from benchmarks.report import Row
from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.routing import routing_table
from model_registry.state import State
from tests.support.envoy_process import EnvoyProcess, program
from tests.support.ports import free_port

_TYPE = "type.googleapis.com/envoy."
_HTTP2 = {"explicit_http_config": {"http2_protocol_options": {}}}


def measure(environment: Mapping[str, str], rounds: int, directory: Path) -> list[Row]:
    """The rows of the gateway.

    Args:
        environment: What every command gets.
        rounds: How often each way is measured.
        directory: One of its own.
    """
    with answering(environment) as target:
        command = [sys.executable, "-m", "benchmarks.gateway", target, str(rounds), str(directory)]
        found = measuring.last_json(measuring.run(command, environment, directory / "log").output)
    return [
        Row(
            f"gateway at batch {batch}: requests per second over a bare Envoy's",
            found[f"ratio/{batch}"],
            ">=",
            0.9,
            f"requests/s: gateway {found[f'gateway/{batch}']:.0f}, bare Envoy {found[f'bare/{batch}']:.0f}, "
            f"no Envoy {found[f'direct/{batch}']:.0f}",
        )
        for batch in BATCHES
    ]


@contextlib.contextmanager
def _bare_envoy(target: str, directory: Path) -> Iterator[str]:
    """One that passes all on to a server; tells where it takes requests."""
    port = free_port()
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "codec_type": "AUTO",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "server"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"}}
        ],
    }
    cluster = {
        "name": "server",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "server",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(target)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
                **_HTTP2,
            }
        },
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"address": _address(f"127.0.0.1:{port}"), "filter_chains": [chain]}
    config = directory / "bare.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    command = [str(program()), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def _address(target: str) -> dict[str, Any]:
    host, port = target.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _gateway(target: str, directory: Path) -> EnvoyProcess:
    """The gateway's Envoy, with a canary that gets nothing, as most of the time."""
    host, port = target.rsplit(":", 1)
    servers = {"servers": [{"host": host, "rest": int(port), "grpc": int(port)}]}
    file = FleetFile.model_validate({"fleets": {"stable": servers, "canary": servers}})
    states = {MODEL: State(revision=1, labels={"stable": 1})}
    return EnvoyProcess(file, directory, routing_table(states, file))


def main() -> None:
    """Prints the median rates, and the median of the rounds' ratios, as JSON."""
    target, rounds, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    found = {}
    with _bare_envoy(target, directory) as bare, _gateway(target, directory / "gateway") as gateway:
        ways = {name: our_client(at) for name, at in (("direct", target), ("bare", bare), ("gateway", gateway.target))}
        for batch in BATCHES:
            images = np.random.default_rng(0).random((batch, *SHAPE), np.float32)
            answers = [ask(images) for ask in ways.values()]
            assert all(np.array_equal(answers[0], answer) for answer in answers), "the ways must get the same answer"
            measured = [rates(ways, images) for _ in range(rounds)]
            for name in ways:
                found[f"{name}/{batch}"] = statistics.median(of_round[name] for of_round in measured)
            ratios = [of_round["gateway"] / of_round["bare"] for of_round in measured]
            found[f"ratio/{batch}"] = statistics.median(ratios)
            print(f"batch {batch}: {', '.join(f'{ratio:.3f}' for ratio in ratios)}", file=sys.stderr)
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # three channels take their time to say good-bye


if __name__ == "__main__":
    main()
