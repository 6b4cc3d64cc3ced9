"""Envoy, its agent, and the network that both are in. Pure."""

from __future__ import annotations

import io
from textwrap import indent

from ruamel.yaml import YAML

from model_registry.serving.compose.agents import ONCE_THEN_ON, health, mounts
from model_registry.serving.compose.deployment import AGENT_IMAGE, REGISTRY, Deployment
from model_registry.serving.compose.writing import CONFINED, asking, config, listed, quoted
from model_registry.serving.gateway.envoy_bootstrap import HEALTH_PATH, bootstrap
from model_registry.serving.gateway.envoy_resources import CLUSTERS_FILE, ROUTES_FILE

ENVOY_IMAGE = "envoyproxy/envoy:v1.40.0"  # the version that the gateway is tested with
AGENT_PORT = 8503

_ROUTES = "/var/lib/slipway"
_FLEET = "/etc/slipway/fleet.yaml"
_ENVOY = "/etc/envoy/slipway.json"
_EVERYBODY = "0.0.0.0"  # noqa: S104 - of the container

# Envoy ends at once where a file of these is missing.
_ONCE_THERE_ARE_ROUTES = 'until [ -e "$0" ] && [ -e "$1" ]; do sleep 1; done; shift; exec envoy "$@"'


def services(deployment: Deployment) -> str:
    """The three services."""
    ports = deployment.fleet_file().gateway
    routes = f"{_ROUTES}/{ROUTES_FILE}"
    told = ["gateway", _ROUTES, f"--fleet={_FLEET}", f"--listen=0.0.0.0:{AGENT_PORT}"]
    registry = f"--registry={deployment.registry if deployment.remote else REGISTRY}"
    waiting = [_ONCE_THERE_ARE_ROUTES, f"{_ROUTES}/{CLUSTERS_FILE}", routes]
    return f"""\
  # The network of the gateway. Envoy's admin answers on the loopback address only, which the agent shares with it here,
  # and which is there for as long as this is, whichever of the two is started anew.
  gateway:
    image: {quoted(deployment.agent_image)}
    entrypoint: [sleep, infinity]
    init: true
    restart: unless-stopped
    ports:  # for this machine only; whom else they are opened to is for you to say
      - "127.0.0.1:{ports.rest}:{ports.rest}"  # REST, as a server's own
      - "127.0.0.1:{ports.grpc}:{ports.grpc}"  # gRPC
      - "127.0.0.1:{AGENT_PORT}:{AGENT_PORT}"  # what the agent says: /status
    deploy:
      resources:
        limits: {{memory: 16m}}
{indent(CONFINED, "    ")}
  # Shares requests between the fleets.
  envoy:
    image: {ENVOY_IMAGE}
    user: "10001:10001"  # the agent's, whose files it reads
    network_mode: "service:gateway"
    restart: unless-stopped
    depends_on:
      gateway: {{condition: service_started}}
    entrypoint: ["/bin/bash", "-c", {", ".join(map(quoted, waiting))}]
    command: ["--config-path", {quoted(_ENVOY)}, "--disable-hot-restart"]
    configs:
      - {{source: envoy, target: {_ENVOY}}}
    volumes:
      - type: volume
        source: routes
        target: {_ROUTES}
        read_only: true
        volume: {{nocopy: true}}
    healthcheck:
      test: ["CMD", "bash", "-c", {quoted(asking(ports.rest, HEALTH_PATH))}]
      interval: 10s
      timeout: 6s
      start_period: 1m
    deploy:
      resources:
        limits: {{memory: 1536m}}  # from 95 % of 1 GiB on it refuses requests
{indent(CONFINED, "    ")}
  # Tells Envoy which share of the requests goes to which version.
  gateway-agent:
    <<: *agent
    network_mode: "service:gateway"
    restart: unless-stopped
    depends_on:
      gateway: {{condition: service_started}}
    entrypoint: ["/bin/sh", "-c", {quoted(ONCE_THEN_ON)}, {quoted(routes)}]
    command:
{listed([*told, registry])}
    configs:
      - {{source: fleet, target: {_FLEET}}}
    volumes:
{indent(mounts(deployment, f"routes:{_ROUTES}"), "    ")}{health(AGENT_PORT)}
"""


def files(deployment: Deployment) -> str:
    """What the two are started with."""
    file = deployment.fleet_file()
    started = bootstrap(file, directory=_ROUTES, listen=_EVERYBODY, metrics=_EVERYBODY)
    written = io.StringIO()
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(file.model_dump(mode="json", exclude_defaults=True), written)
    return config("fleet", written.getvalue()) + config("envoy", started)


BUILD = f"docker build -f deploy/sync-agent.Dockerfile -t {AGENT_IMAGE} ."
