"""The container of TensorFlow Serving. Pure.

What its flags are set to follows from how it behaves (2.17): its REST port opens when every model of the start-up
configuration is loaded. It takes the machine's number of CPUs for its own, whatever the container's limit is, and is
slowed down by its own threads unless it is told how many it may have.
"""

from __future__ import annotations

import math
from typing import Any

from model_registry.serving import batching
from model_registry.serving.fleet import Fleet
from model_registry.serving.kubernetes.naming import GRPC, GRPC_PORT, REST, REST_PORT
from model_registry.serving.kubernetes.pods import TMP, container, drain
from model_registry.serving.kubernetes.settings import GPU_SERVER_IMAGE, SERVER_IMAGE, Settings
from model_registry.serving.monitoring import monitoring_config

SERVER = "tf-serving"  # the container's name
MODELS = "/models"
_FILES = "/etc/tensorflow-serving"
_MONITORING, _BATCHING = "monitoring.config", "batching.config"

# The agent gives a load up after 15 minutes; until then nobody else is to.
_START = 1_200
_EVERY = 10


def files(fleet: Fleet) -> dict[str, str]:
    """What the server reads beside its models."""
    batched = {_BATCHING: batching.whole_server(threads=_threads(fleet))} if fleet.batching else {}
    return {_MONITORING: monitoring_config.config(), **batched}


def server(fleet: Fleet, settings: Settings, *, timeout: float) -> dict[str, Any]:
    """The container.

    Args:
        fleet: What each server of it gets.
        settings: Its image.
        timeout: Seconds that a request may take.
    """
    asked = {
        "httpGet": {"path": monitoring_config.PATH, "port": REST_PORT},
        "periodSeconds": _EVERY,
        "timeoutSeconds": 10,
    }
    # A request for metrics waits behind predictions: it would end a server for being busy, or leave the others to do
    # its work too. Whether the server answers is what the agent's /readyz tells.
    listens = {"tcpSocket": {"port": REST_PORT}, "periodSeconds": _EVERY, "timeoutSeconds": 10}
    return container(
        SERVER,
        settings.server_image or (GPU_SERVER_IMAGE if fleet.gpu else SERVER_IMAGE),
        cpu=fleet.cpu,
        memory=fleet.memory,
        more_limits={fleet.gpu.resource: 1} if fleet.gpu else {},
        mounts=[
            {"name": "models", "mountPath": MODELS, "readOnly": True},
            {"name": "files", "mountPath": _FILES, "readOnly": True},
        ],
        command=["tensorflow_model_server"],
        args=_flags(fleet),
        env=_environment(fleet),
        ports=[{"name": GRPC_PORT, "containerPort": GRPC}, {"name": REST_PORT, "containerPort": REST}],
        startupProbe={**asked, "failureThreshold": _START // _EVERY},
        livenessProbe={**listens, "failureThreshold": 6},
        readinessProbe={**listens, "failureThreshold": 2},
        lifecycle={"preStop": {"sleep": {"seconds": drain(timeout)}}},
    )


def _flags(fleet: Fleet) -> list[str]:
    threads = _threads(fleet)
    flags = [
        f"--port={GRPC}",
        f"--rest_api_port={REST}",
        f"--model_config_file={MODELS}/models.config",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models=true",
        "--max_num_load_retries=0",
        "--num_load_threads=2",
        f"--tensorflow_intra_op_parallelism={threads}",
        f"--tensorflow_inter_op_parallelism={threads}",
        f"--monitoring_config_file={_FILES}/{_MONITORING}",
    ]
    if fleet.batching:
        flags += [
            "--enable_batching=true",
            "--enable_per_model_batching_parameters=true",
            f"--batching_parameters_file={_FILES}/{_BATCHING}",
        ]
    if fleet.gpu and fleet.gpu.memory_fraction is not None:
        flags.append(f"--per_process_gpu_memory_fraction={fleet.gpu.memory_fraction:g}")
    return flags


def _environment(fleet: Fleet) -> list[dict[str, str]]:
    environment = {"HOME": TMP}  # the user has none in the image
    if fleet.gpu:
        environment["CUDA_CACHE_PATH"] = f"{TMP}/cuda"
        # By itself it grows to a gibibyte and more; whoever fills the volume of 256 MiB is evicted.
        environment["CUDA_CACHE_MAXSIZE"] = str(128 << 20)
        if fleet.gpu.memory_fraction is None:
            # As it needs it. Otherwise all of it at once.
            environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return [{"name": name, "value": value} for name, value in environment.items()]


def _threads(fleet: Fleet) -> int:
    cpus = float(fleet.cpu[:-1]) / 1000 if fleet.cpu.endswith("m") else float(fleet.cpu)
    return max(1, math.ceil(cpus))
