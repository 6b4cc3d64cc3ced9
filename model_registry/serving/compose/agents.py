"""The containers that follow the registry. Pure."""

from __future__ import annotations

from model_registry.serving.compose.deployment import AGENT_IMAGE, PUBLIC_KEY, REGISTRY, Deployment
from model_registry.serving.compose.writing import CONFINED, mount, quoted

# What boto3 reads. Named without a value, Compose passes each on where it is set, and leaves it unset elsewhere.
PASSED_THROUGH = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)

# Another agent at work there (exit code 4) is as good: `docker compose up` starts this again where all runs already.
UNLESS_THERE_IS_AN_AGENT = 'slipway "$@" || test $? -eq 4'

# `--once` is for before a server, or Envoy, has started: it is begun once this has made the file.
ONCE_THEN_ON = 'test -e "$0" || until slipway "$@" --once; do sleep 5; done; exec slipway "$@"'


def shared(deployment: Deployment, *volumes: str) -> str:
    """What all agents have in common.

    Args:
        deployment: What is deployed.
        volumes: Those that they all fill, with their places; none where each has its own.
    """
    key = f"  - SLIPWAY_PUBLIC_KEY={PUBLIC_KEY}\n" if deployment.public_key else ""
    environment = f"environment:\n{key}" if key else ""
    if deployment.remote:
        names = "".join(f"  - {name}\n" for name in PASSED_THROUGH)
        environment = (
            "# Passed on from where `docker compose` runs; what lies in ~/.aws is not. An endpoint at localhost would\n"
            "# be the container itself.\n"
            f"environment:\n{names}{key}"
        )
    mounted = mounts(deployment, *volumes)
    mounted = f"volumes:\n{mounted}" if mounted else ""
    return f"""\
image: {quoted(deployment.agent_image)}  # docker build -f deploy/sync-agent.Dockerfile -t {AGENT_IMAGE} .
{environment}{mounted}{CONFINED}"""


def mounts(deployment: Deployment, *volumes: str) -> str:
    """The volumes of one agent: those that it fills, and what every agent reads."""
    text = "".join(f"  - {volume}\n" for volume in volumes)
    if not deployment.remote:
        text += mount(deployment.registry, REGISTRY, "the registry; user 10001 must be able to read it")
    if deployment.public_key:
        text += mount(deployment.public_key, PUBLIC_KEY, "manifests that are not signed with it are refused")
    return text


def health(port: int) -> str:
    """How Docker knows that an agent works."""
    script = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/healthz', timeout=5)"
    return f"""\
    healthcheck:
      test: ["CMD", "python", "-c", {quoted(script)}]
      interval: 10s
      timeout: 6s
      start_period: 30s
    deploy:
      resources:
        limits: {{memory: 512m}}  # about 100m idle; what is on its way from the store comes on top"""
