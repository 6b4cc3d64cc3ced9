"""The container of TensorFlow Serving. Pure.

What its flags are set to follows from how it behaves (2.17): its REST port opens when every model of the start-up
configuration is loaded, and a version that cannot be loaded then ends the process; so the agent looks through
what lies there first. Retries of a failed load hold the version in LOADING for minutes; the agent takes it out, and
puts it in again when it is asked to, which is a retry too.
"""

from __future__ import annotations

from model_registry.serving import batching
from model_registry.serving.compose.deployment import MODELS, SERVER_IMAGE, Deployment
from model_registry.serving.compose.writing import CONFINED, asking, config, quoted
from model_registry.serving.monitoring import monitoring_config

_FILES = "/etc/tensorflow-serving"
_CONFIG = f"{MODELS}/models.config"

# The agent has made that file once it has something that a server can start with.
_ONCE_THERE_IS_SOMETHING = 'until [ -e "$0" ]; do sleep 1; done; exec tensorflow_model_server "$@"'

_PORTS = f"""\
ports:  # for this machine only: whoever reaches them can ask every model
  - "127.0.0.1:8500:8500"  # gRPC
  - "127.0.0.1:8501:8501"  # REST, {monitoring_config.PATH}
"""
_FIRST = """\
depends_on:
  first-sync: {condition: service_completed_successfully}
"""


def server(deployment: Deployment, *, volume: str = "models") -> str:
    """The service.

    Args:
        deployment: What is deployed.
        volume: The one that its agent fills.
    """
    alone = not deployment.gateway
    image = f"{SERVER_IMAGE}-gpu" if deployment.gpu else SERVER_IMAGE
    growth, devices, batched, common, fraction = "", "", "", "", ""
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
        if deployment.gateway:
            fraction = """
  # Both fleets have the same GPU, unless `device_ids` below gives each its own.
  - --per_process_gpu_memory_fraction=0.45"""
    if deployment.batching:
        batched = f"""
  # Merges requests that wait, each version up to the sizes in its own batching_params.pbtxt. Without such a file it
  # is not batched; of the common file only the threads count.
  - --enable_batching=true
  - --enable_per_model_batching_parameters=true
  - --batching_parameters_file={_FILES}/batching.config"""
        common = f"\n  - {{source: batching, target: {_FILES}/batching.config}}"
    entry = (
        "entrypoint: [tensorflow_model_server]"
        if alone
        else f'entrypoint: ["/bin/bash", "-c", {quoted(_ONCE_THERE_IS_SOMETHING)}, {quoted(_CONFIG)}]'
    )
    return f"""\
image: {image}
restart: unless-stopped  # if it ends while it loads a version, the agent takes that one out before the next start
init: true  # or SIGTERM would be ignored, and each stop would take until it is killed
stop_grace_period: 30s
{_FIRST if alone else ""}{growth}{entry}
command:
  - --port=8500
  - --rest_api_port=8501
  - --model_config_file={_CONFIG}
  # The agent writes that file, and speaks to the server in no other way.
  - --model_config_file_poll_wait_seconds=1
  # A label may stand beside its version in the start-up configuration, when nothing is loaded yet.
  - --allow_version_labels_for_unavailable_models=true
  # A load that fails has failed at once. With the default, 5 more attempts a minute apart, it would be told after
  # five minutes; to have it tried again, ask for it: promote MODEL:VERSION LABEL --wait --agent URL --retry
  - --max_num_load_retries=0
  # With the default, 0, a version that takes long to load holds up those of the other models.
  - --num_load_threads=2
  - --monitoring_config_file={_FILES}/monitoring.config{fraction}{batched}
configs:
  - {{source: monitoring, target: {_FILES}/monitoring.config}}{common}
volumes:
  - type: volume
    source: {volume}
    target: {MODELS}
    read_only: true
    volume: {{nocopy: true}}  # the agent's image says whose the directory is
{_PORTS if alone else ""}healthcheck:
  # The REST port opens once every model of the start-up configuration is loaded: until then it is starting, which
  # the start period allows for.
  test: ["CMD", "bash", "-c", {quoted(asking(8501, monitoring_config.PATH))}]
  interval: 10s
  timeout: 6s
  start_period: 10m
deploy:
  resources:
    limits:
      memory: {quoted(deployment.memory)}  # while a label moves, two versions of its model are loaded{devices}
{CONFINED}"""


def files(deployment: Deployment) -> str:
    """What the server reads beside its models."""
    text = config("monitoring", monitoring_config.config())
    return text + config("batching", batching.whole_server()) if deployment.batching else text
