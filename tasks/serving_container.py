"""A candidate in a container of TensorFlow Serving: started, watched until it is AVAILABLE, and always removed.

- The image gets what TensorFlow Serving's own image wants: MODEL_NAME, MODEL_BASE_PATH, and flags as arguments.
- The candidate is mounted read-only; both ports are published on loopback alone.
- No capability, no way to new ones, a root that cannot be written, a limit of memory: the image and the candidate are
  somebody else's.
- It is not cut off from the network: engines publish no port of a network that is (docs/adr/0014).
- The container goes with the block, whatever ends it. One whose process was killed, or that could not be removed, is
  swept by a later run.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from model_registry.errors import InvalidInputError, StorageError
from model_registry.serving import batching
from model_registry.serving.server_status import ServerStatus
from tasks.docker_engine import EXPIRES, LABELS, OWNER, failures, owner, reason, remove, sweep
from tasks.model_process.log_tail import printable

VERSION = 1

# TensorFlow Serving holds the weights, and for a moment the file they came from; its largest batch comes on top.
_LEAST_MEMORY = 8 << 30
_TIMES_ITS_SIZE = 4

_GRPC, _REST = 8500, 8501
_LOOK = 0.2  # seconds
_SPARE = 120.0  # seconds from the end of the time limit to the moment when nobody can be using it any more
_LOG_LINES = 25
_LINE = 300  # characters
_LOG_BYTES = "16m"
# saved_model_warmup_util.cc
_WARMED = re.compile(rb"Number of warmup records read: (\d+)")
_LOG_LAG = 5.0  # seconds that the engine may take to have what the server said


class ServingContainer:
    """A running container.

    Attributes:
        grpc: HOST:PORT of its gRPC.
        rest: URL of its REST API.
    """

    grpc: str
    rest: str

    def __init__(
        self, client: Any, image: str, model: str, candidate: Path, *, accelerated: bool, limit: float
    ) -> None:
        """Starts nothing yet.

        Args:
            client: The engine's.
            image: What is run.
            model: Its name.
            candidate: The SavedModel's directory, which the engine must see under the same path.
            accelerated: Whether it has engines of a GPU.
            limit: Seconds that all may take.
        """
        self._client = client
        self._image = image
        self._model = model
        self._candidate = candidate
        self._accelerated = accelerated
        self._limit = limit
        # Known before the engine is asked: what it made for a request that was cut off is found by it.
        self._name = f"slipway-{uuid.uuid4().hex}"

    def __enter__(self) -> ServingContainer:
        """Starts it.

        Raises:
            InvalidInputError: If the engine refuses.
        """
        sweep(self._client)
        try:
            self._client.containers.create(**self._settings())
            self._client.api.start(self._name)
            ports = self._inspect()["NetworkSettings"]["Ports"] or {}
        except failures() as error:
            remove(self._client, self._name)
            raise InvalidInputError(
                f"the Docker engine did not start {self._image}: {reason(error)}", hint=self._hint(str(error))
            ) from None
        except BaseException:
            remove(self._client, self._name)
            raise
        self.grpc, self.rest = _address(ports, _GRPC), f"http://{_address(ports, _REST)}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove(self._client, self._name)

    def wait(self, deadline: float) -> str:
        """Waits until the candidate is AVAILABLE.

        Args:
            deadline: By time.monotonic.

        Returns:
            Why it will not be; empty when it is.

        Raises:
            InvalidInputError: If the engine does not answer any more.
        """
        server = ServerStatus(self.rest)
        state = "nothing"
        while True:
            if problem := self.end():
                return problem
            try:
                for found in server.versions(self._model):
                    if found.state == "AVAILABLE":
                        return ""
                    if found.state == "END" and found.error:
                        return printable(f"the server could not load it: {found.error}")
                    state = found.state
            except StorageError:
                pass  # it does not listen yet
            if time.monotonic() > deadline:
                return f"not AVAILABLE within {self._limit:g} s, the server told {state} of it"
            time.sleep(_LOOK)

    def end(self) -> str:
        """How the container ended; empty while it runs.

        Raises:
            InvalidInputError: If the engine does not answer any more.
        """
        try:
            state = self._inspect()["State"]
        except failures() as error:
            raise InvalidInputError(
                f"the Docker engine lost the container of {self._model}: {reason(error)}",
                hint="see the engine's log; then package the model again",
            ) from None
        if state.get("OOMKilled"):
            return f"the server was killed: it took more than its {self._memory >> 20:,} MiB of memory"
        if state.get("Running") or state.get("Status") == "created":
            return ""
        said = f": {state['Error']}" if state.get("Error") else ""
        return printable(f"the server ended with status {state.get('ExitCode')}{said}")

    def warmup_records(self) -> int | None:
        """How many warm-up records the server says that it read; None if it says nothing."""
        deadline = time.monotonic() + _LOG_LAG
        while True:
            if found := _WARMED.findall(self._log()):
                return int(found[-1])
            if time.monotonic() > deadline:
                return None
            time.sleep(_LOOK)

    def log_tail(self) -> str:
        """The last lines that the server wrote, as they may be shown."""
        lines = self._log(_LOG_LINES).decode(errors="replace").rstrip("\n").split("\n")
        return "\n".join(printable(line.rstrip("\r"))[:_LINE] for line in lines) or "(empty)"

    @property
    def _memory(self) -> int:
        size = sum(file.stat().st_size for file in self._candidate.rglob("*") if file.is_file())
        return max(_LEAST_MEMORY, _TIMES_ITS_SIZE * size)

    def _settings(self) -> dict[str, Any]:
        from docker.types import DeviceRequest, LogConfig, Mount

        target = f"/models/{self._model}/{VERSION}"
        # HOME is where CUDA keeps what it compiled, and the log must have its information lines.
        environment = {"MODEL_NAME": self._model, "MODEL_BASE_PATH": "/models", "HOME": "/tmp"}  # noqa: S108
        environment["TF_CPP_MIN_LOG_LEVEL"] = "0"
        settings: dict[str, Any] = {}
        if self._accelerated:
            kept = {
                name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER") if name in os.environ
            }
            # Or an engine that cannot be used would be passed over in silence.
            environment |= {"TF_TRT_ALLOW_ENGINE_NATIVE_SEGMENT_EXECUTION": "False", **kept}
            settings["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
        if user := self._user():
            settings["user"] = user
        return {
            "image": self._image,
            "name": self._name,
            "command": self._flags(),
            "environment": environment,
            # ~/.docker/config.json may hold proxies, with their credentials, for containers that are to be trusted.
            "use_config_proxy": False,
            "mounts": [Mount(target, str(self._candidate.resolve()), type="bind", read_only=True)],
            "ports": {f"{port}/tcp": ("127.0.0.1", None) for port in (_GRPC, _REST)},
            "labels": {**LABELS, OWNER: owner(), EXPIRES: str(int(time.time() + self._limit + _SPARE))},
            "mem_limit": self._memory,
            "memswap_limit": self._memory,
            "pids_limit": 4096,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "read_only": True,
            "tmpfs": {"/tmp": "size=256m"},  # noqa: S108
            # Whatever the engine's own is: this one can be read again, and does not fill the disk.
            "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": _LOG_BYTES, "max-file": "1"}),
            "network_mode": "bridge",
            **settings,
        }

    def _flags(self) -> list[str]:
        # A load that fails, fails again; the server would be at it for five minutes.
        flags = ["--max_num_load_retries=0"]
        if (self._candidate / batching.FILE).is_file():  # as the fleet runs it: what is wrong in there fails the load
            flags += ["--enable_batching=true", "--enable_per_model_batching_parameters=true"]
        return flags

    def _user(self) -> str | None:
        """Ours, who can read the candidate. To a rootless engine, that is root."""
        rootless = any("rootless" in option for option in self._client.info().get("SecurityOptions") or ())
        return None if rootless else f"{os.getuid()}:{os.getgid()}"

    def _inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.api.inspect_container(self._name)
        return found

    def _log(self, tail: int | str = "all") -> bytes:
        try:
            return bytes(self._client.api.logs(self._name, stdout=True, stderr=True, tail=tail))
        except failures():
            return b""

    def _hint(self, words: str) -> str:
        if "bind source path" in words:
            return (
                f"the engine must see {self._candidate} under the same path: run Slipway on the engine's machine, or "
                "share the registry's directory, or TMPDIR, with it"
            )
        if "device driver" in words or "nvidia" in words:
            return "install the NVIDIA Container Toolkit on the engine's machine: the variant needs its GPU"
        return "see the engine's log; `slipway doctor` tells which engine that is"


def _address(ports: dict[str, Any], port: int) -> str:
    """Where a port is published; one of a container that has ended already is nowhere."""
    bound = ports.get(f"{port}/tcp")
    return f"127.0.0.1:{bound[0]['HostPort']}" if bound else "127.0.0.1:9"
