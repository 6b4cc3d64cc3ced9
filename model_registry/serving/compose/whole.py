"""The file: what is in it, in both of its forms. Pure.

One file with everything in it: what servers read beside their models stands in `configs`, inline, which needs Docker
Compose 2.23.1. Secrets are passed through from the environment of whoever runs `docker compose`, and never written.
"""

from __future__ import annotations

from textwrap import indent

from model_registry.serving.compose import agents, buckets, gateway, servers, watching
from model_registry.serving.compose.deployment import CANARY, MODELS, STABLE, Deployment, agent_of, server_of
from model_registry.serving.compose.writing import listed, quoted


def to_text(deployment: Deployment) -> str:
    """The file's content."""
    return _behind_a_gateway(deployment) if deployment.gateway else _one_server(deployment)


def _one_server(deployment: Deployment) -> str:
    followed = deployment.followed(deployment.labels)
    return f"""\
# TensorFlow Serving, and the agent that brings it what the labels of the registry name.
#
#   docker compose up --detach     # needs Docker Compose 2.23.1 or later
#
# Written by `slipway render compose`; it has no secrets in it, and may be edited.
name: slipway-serving

x-agent: &agent
{indent(agents.shared(deployment, f"models:{MODELS}"), "  ")}
services:
  # Brings what is missing and verifies every byte, before the server looks: a version that cannot be loaded at its
  # start ends it, and every model with it.
  first-sync:
    <<: *agent
    restart: "no"
    # Exit code 4: an agent is at work there already, as when everything runs and is brought up again.
    entrypoint: ["/bin/sh", "-c", {quoted(agents.UNLESS_THERE_IS_AN_AGENT)}, "first-sync"]
    command:
{listed(["sync", MODELS, "--once", *followed])}
  tf-serving:
{indent(servers.server(deployment), "    ")}
  # Follows the registry. It need not reach the server at its start, nor the registry later on.
  agent:
    <<: *agent
    restart: unless-stopped
    depends_on:
      first-sync: {{condition: service_completed_successfully}}
    command:
{listed(["sync", MODELS, "--server=http://tf-serving:8501", "--listen=0.0.0.0:8502", *followed])}
    ports:
      - "127.0.0.1:8502:8502"  # `promote --wait --agent http://127.0.0.1:8502`; /metrics for Prometheus
{agents.health(8502)}

volumes:
  models:  # kept when everything is taken down: a server starts again without the registry

configs:
{indent(servers.files(deployment), "  ")}"""


def _behind_a_gateway(deployment: Deployment) -> str:
    registry, kept = "", ""
    if deployment.remote:
        registry = f"\n{buckets.services(deployment)}"
        kept = "\n  registry:"
    return f"""\
{_head(deployment)}
name: slipway

x-agent: &agent
{indent(agents.shared(deployment), "  ")}
services:
{_fleet(deployment, STABLE, 8502)}
{_fleet(deployment, CANARY, 8512)}
{gateway.services(deployment)}
{watching.services()}{registry}
volumes:  # kept when everything is taken down: a server starts again without the registry
  models-{STABLE}:
  models-{CANARY}:
  routes:
  prometheus:{kept}

configs:
{indent(servers.files(deployment) + gateway.files(deployment) + watching.files(deployment), "  ")}"""


def _head(deployment: Deployment) -> str:
    text = f"""\
# Two fleets of TensorFlow Serving, {STABLE} and {CANARY}, each server with the agent that brings it what its label
# names; an Envoy before them that shares requests as a rollout says; and a Prometheus that watches all of it.
#
#   {gateway.BUILD}
#   docker compose up --detach     # needs Docker Compose 2.23.1 or later
#
# The server of {STABLE} starts once its label names something; that of {CANARY} has nothing until the first rollout.
"""
    if deployment.remote:
        text += f"""\
#
# Without a bucket anywhere, one on this machine is as good to begin with:
#
#   export AWS_ACCESS_KEY_ID=slipway AWS_SECRET_ACCESS_KEY=...     # what they are to be
#   AWS_ENDPOINT_URL=http://registry:9000 docker compose --profile {buckets.PROFILE} up --detach
#   export AWS_ENDPOINT_URL=http://127.0.0.1:9000                  # for `slipway` on this machine, and
#   export SLIPWAY_REGISTRY={deployment.registry}
"""
    return f"{text}#\n# Written by `slipway render compose --gateway`; it has no secrets in it, and may be edited."


def _fleet(deployment: Deployment, fleet: str, port: int) -> str:
    server = server_of(fleet)
    told = ["sync", MODELS, f"--server=http://{server}:8501", "--listen=0.0.0.0:8502", *deployment.followed((fleet,))]
    # A canary may rightly not be there for days: its agent answers all the same, and its server starts with nothing.
    # With stable's REST port opens what clients are to find there.
    says, entry = "Brings what its label names, verifies every byte, and has the server load it.", ""
    if fleet == STABLE:
        says = "Brings what its label names and verifies every byte, before the server starts with it; then follows it."
        entry = (
            f'\n    entrypoint: ["/bin/sh", "-c", {quoted(agents.ONCE_THEN_ON)}, {quoted(f"{MODELS}/models.config")}]'
        )
    return f"""\
  {server}:
{indent(servers.server(deployment, volume=f"models-{fleet}"), "    ")}
  # {says}
  {agent_of(fleet)}:
    <<: *agent
    restart: unless-stopped{entry}
    command:
{listed(told)}
    volumes:
{indent(agents.mounts(deployment, f"models-{fleet}:{MODELS}"), "    ")}    ports:
      - "127.0.0.1:{port}:8502"  # `promote --wait --agent http://127.0.0.1:{port}`
{agents.health(8502)}
"""
