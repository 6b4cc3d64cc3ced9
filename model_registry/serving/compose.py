"""A Docker Compose file for one machine: TensorFlow Serving, and the agent that brings versions to it. Pure.

One file with everything in it: what the server reads beside its models stands in `configs`, inline, which needs Docker
Compose 2.23.1. Secrets are passed through from the environment of whoever runs `docker compose`, and never written.

What the server's flags are set to follows from how it behaves (2.17): its REST port opens when every model of the
start-up configuration is loaded, and a version that cannot be loaded then ends the process; so the agent looks through
what lies there first. Retries of a failed load hold the version in LOADING for minutes; the agent takes it out, and
puts it in again when it is asked to, which is a retry too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent

from model_registry.serving import batching, monitoring

SERVER_IMAGE = "tensorflow/serving:2.17.1"
AGENT_IMAGE = "slipway-sync-agent"

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

_MODELS = "/models"
_REGISTRY = "/registry"
_PUBLIC_KEY = "/etc/slipway/public-key.pem"
_FILES = "/etc/tensorflow-serving"

# The image has bash, and no program that speaks HTTP.
_ASK = (
    "exec 3<>/dev/tcp/127.0.0.1/8501 && "
    f"printf 'GET {monitoring.PATH} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && "
    'read -r -t 5 status <&3 && [[ "$status" == *" 200 "* ]]'
)
_ASK_AGENT = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8502/healthz', timeout=5)"

# Another agent at work there (exit code 4) is as good: `docker compose up` starts this again where all runs already.
_UNLESS_THERE_IS_AN_AGENT = 'slipway "$@" || test $? -eq 4'


@dataclass(frozen=True)
class Deployment:
    """What is deployed.

    Attributes:
        registry: An s3:// URI, or the absolute path of a directory.
        models: Which of its models; all where empty.
        labels: Which labels are followed; all where empty.
        variants: In order of preference; what the agent takes by itself where empty.
        gpu: Whether the server has a GPU.
        batching: Whether it merges requests that wait.
        memory: What the server may use, as Docker writes it: `4g`.
        agent_image: What deploy/sync-agent.Dockerfile was built as.
        public_key: The absolute path of the public keys that manifests are held against; None without.
    """

    registry: str
    models: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    gpu: bool = False
    batching: bool = False
    memory: str = "4g"
    agent_image: str = AGENT_IMAGE
    public_key: str | None = None

    @property
    def remote(self) -> bool:
        """Whether the registry lies in object storage."""
        return self.registry.startswith("s3://")


def to_text(deployment: Deployment) -> str:
    """The file's content."""
    return f"""\
# TensorFlow Serving, and the agent that brings it what the labels of the registry name.
#
#   docker compose up --detach     # needs Docker Compose 2.23.1 or later
#
# Written by `slipway render compose`; it has no secrets in it, and may be edited.
name: slipway-serving

x-agent: &agent
{indent(_agent(deployment), "  ")}
services:
  # Brings what is missing and verifies every byte, before the server looks: a version that cannot be loaded at its
  # start ends it, and every model with it.
  first-sync:
    <<: *agent
    restart: "no"
    # Exit code 4: an agent is at work there already, as when everything runs and is brought up again.
    entrypoint: ["/bin/sh", "-c", {_quoted(_UNLESS_THERE_IS_AN_AGENT)}, "first-sync"]
    command:
{_command(["sync", _MODELS, "--once", *_followed(deployment)])}
  tf-serving:
{indent(_server(deployment), "    ")}
  # Follows the registry. It need not reach the server at its start, nor the registry later on.
  agent:
    <<: *agent
    restart: unless-stopped
    depends_on:
      first-sync: {{condition: service_completed_successfully}}
    command:
{_command(["sync", _MODELS, "--server=http://tf-serving:8501", "--listen=0.0.0.0:8502", *_followed(deployment)])}
    ports:
      - "127.0.0.1:8502:8502"  # `promote --wait --agent http://127.0.0.1:8502`; /metrics for Prometheus
    healthcheck:
      test: ["CMD", "python", "-c", {_quoted(_ASK_AGENT)}]
      interval: 10s
      timeout: 6s
      start_period: 30s
    deploy:
      resources:
        limits: {{memory: 512m}}  # about 100m idle; what is on its way from the store comes on top

volumes:
  models:  # kept when everything is taken down: a server starts again without the registry

configs:
{indent(_configs(deployment), "  ")}"""


def _agent(deployment: Deployment) -> str:
    environment, mounts = "", ""
    if deployment.remote:
        names = "".join(f"  - {name}\n" for name in PASSED_THROUGH)
        environment += (
            "# Passed on from where `docker compose` runs; what lies in ~/.aws is not. An endpoint at localhost would\n"
            "# be the container itself.\n"
            f"environment:\n{names}"
        )
        if deployment.public_key:
            environment += f"  - SLIPWAY_PUBLIC_KEY={_PUBLIC_KEY}\n"
    else:
        mounts += _mount(deployment.registry, _REGISTRY, "the registry; user 10001 must be able to read it")
        if deployment.public_key:
            environment += f"environment:\n  - SLIPWAY_PUBLIC_KEY={_PUBLIC_KEY}\n"
    if deployment.public_key:
        mounts += _mount(deployment.public_key, _PUBLIC_KEY, "manifests that are not signed with it are refused")
    return f"""\
image: {_quoted(deployment.agent_image)}  # docker build -f deploy/sync-agent.Dockerfile -t {AGENT_IMAGE} .
{environment}volumes:
  - models:{_MODELS}
{mounts}{_CONFINED}"""


def _server(deployment: Deployment) -> str:
    image = f"{SERVER_IMAGE}-gpu" if deployment.gpu else SERVER_IMAGE
    growth, devices, batched, common = "", "", "", ""
    if deployment.gpu:
        growth = """\
environment:
  # Takes GPU memory as it needs it. Otherwise all of it at once, which nothing else on that GPU survives.
  TF_FORCE_GPU_ALLOW_GROWTH: "true"
"""
        devices = """
    reservations:
      devices:  # needs the NVIDIA container toolkit
        - driver: nvidia
          count: 1  # or device_ids: ["0"]
          capabilities: [gpu]"""
    if deployment.batching:
        batched = f"""
  # Merges requests that wait, each version up to the sizes in its own batching_params.pbtxt. Without such a file it
  # is not batched; of the common file only the threads count.
  - --enable_batching=true
  - --enable_per_model_batching_parameters=true
  - --batching_parameters_file={_FILES}/batching.config"""
        common = f"\n  - {{source: batching, target: {_FILES}/batching.config}}"
    return f"""\
image: {image}
restart: unless-stopped  # if it ends while it loads a version, the agent takes that one out before the next start
init: true  # or SIGTERM would be ignored, and each stop would take until it is killed
stop_grace_period: 30s
depends_on:
  first-sync: {{condition: service_completed_successfully}}
{growth}entrypoint: [tensorflow_model_server]
command:
  - --port=8500
  - --rest_api_port=8501
  - --model_config_file={_MODELS}/models.config
  # The agent writes that file, and speaks to the server in no other way.
  - --model_config_file_poll_wait_seconds=1
  # A label may stand beside its version in the start-up configuration, when nothing is loaded yet.
  - --allow_version_labels_for_unavailable_models=true
  # A load that fails has failed at once. With the default, 5 more attempts a minute apart, it would be told after
  # five minutes; to have it tried again, ask for it: promote MODEL:VERSION LABEL --wait --agent URL --retry
  - --max_num_load_retries=0
  # With the default, 0, a version that takes long to load holds up those of the other models.
  - --num_load_threads=2
  - --monitoring_config_file={_FILES}/monitoring.config{batched}
configs:
  - {{source: monitoring, target: {_FILES}/monitoring.config}}{common}
volumes:
  - type: volume
    source: models
    target: {_MODELS}
    read_only: true
    volume: {{nocopy: true}}  # the agent's image says whose the directory is
ports:  # for this machine only: whoever reaches them can ask every model
  - "127.0.0.1:8500:8500"  # gRPC
  - "127.0.0.1:8501:8501"  # REST, {monitoring.PATH}
healthcheck:
  # The REST port opens once every model of the start-up configuration is loaded: until then it is starting, which
  # the start period allows for.
  test: ["CMD", "bash", "-c", {_quoted(_ASK)}]
  interval: 10s
  timeout: 6s
  start_period: 10m
deploy:
  resources:
    limits:
      memory: {_quoted(deployment.memory)}  # while a label moves, two versions of its model are loaded{devices}
{_CONFINED}"""


def _configs(deployment: Deployment) -> str:
    text = f"monitoring:\n  content: |\n{indent(monitoring.config(), '    ')}"
    if deployment.batching:
        text += f"batching:\n  content: |\n{indent(batching.whole_server(), '    ')}"
    return text


# Both write below /models at most, and open no port below 1024.
_CONFINED = """\
cap_drop: [ALL]
security_opt: ["no-new-privileges:true"]
logging: {driver: local}  # rotates by itself
"""


def _followed(deployment: Deployment) -> list[str]:
    named = (("--model", deployment.models), ("--label", deployment.labels), ("--variant", deployment.variants))
    options = [f"{option}={value}" for option, values in named for value in values]
    return [f"--registry={deployment.registry if deployment.remote else _REGISTRY}", *options]


def _command(words: Sequence[str]) -> str:
    return "\n".join(f"      - {_quoted(word)}" for word in words)


def _mount(source: str, target: str, what: str) -> str:
    return (
        f"  - type: bind  # {what}\n    source: {_quoted(source)}\n    target: {target}\n    read_only: true\n"
        "    bind: {create_host_path: false}\n"
    )


def _quoted(text: str) -> str:
    """A double-quoted scalar of YAML, as which JSON's strings are read; Compose takes `$$` for a dollar sign."""
    return json.dumps(text).replace("$", "$$")
