"""A whole server: its configuration loaded, its two ports open, its polls running."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import grpc

from tests.support.model_server import batching, grpc_services
from tests.support.model_server.errors import ServingError
from tests.support.model_server.flags import Flags
from tests.support.model_server.metrics import Metrics
from tests.support.model_server.parameter_files import MonitoringConfig, read_text
from tests.support.model_server.rest_server import RestServer
from tests.support.model_server.saved_model import SavedModel
from tests.support.model_server.servable import Servable
from tests.support.model_server.server_core import ServerCore, read_config
from tests.support.model_server.server_log import log
from tests.support.model_server.warmup import warm_up

_SOURCE = "model_servers/server.cc"
_METRICS_PATH = "/monitoring/prometheus/metrics"


class ModelServer:
    """One server; a process may hold several, each with ports of its own.

    Args:
        flags: What it is started with.
        host: The address it listens on. The real server listens on all; in a test that is for containers.
    """

    def __init__(self, flags: Flags, *, host: str | None = None) -> None:
        self.flags = flags
        self._host = host or os.environ.get("MODEL_SERVER_HOST", "127.0.0.1")
        self._metrics = Metrics()
        self._batching: Any | None = None
        self._core = ServerCore(flags, self._load)
        self._stopped = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="config_poll", daemon=True)
        self._grpc: grpc.Server | None = None
        self._rest: RestServer | None = None

    def start(self) -> None:
        """Loads the start-up configuration, then opens the ports.

        Raises:
            ServingError: If anything in it cannot be served; the real process ends with 255 then.
        """
        flags = self.flags
        if not flags.model_base_path and not flags.model_config_file:
            message = "Both server_options.model_base_path and server_options.model_config_file are empty!"
            raise ServingError("INVALID_ARGUMENT", message)
        self._batching = batching.server_parameters(flags)
        metrics_path = _metrics_path(flags)
        self._core.start(read_config(flags))
        if flags.model_config_file and flags.model_config_file_poll_wait_seconds > 0:
            self._poller.start()
        try:
            self._grpc = grpc_services.serve(self._core, self._metrics, f"{self._host}:{flags.port}")
            log("I", _SOURCE, f"Running gRPC ModelServer at 0.0.0.0:{flags.port} ...")
            if flags.rest_api_port:
                self._rest = RestServer(self._core, self._metrics, (self._host, flags.rest_api_port), metrics_path)
                log("I", _SOURCE, f"Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ...")
        except (OSError, RuntimeError) as error:
            raise ServingError("INVALID_ARGUMENT", f"Failed to BuildAndStart gRPC server: {error}") from None

    def stop(self) -> None:
        """Closes the ports and unloads everything, as the end of its process would, but for requests under way."""
        self._stopped.set()
        if self._rest is not None:
            self._rest.stop()
        if self._grpc is not None:
            self._grpc.stop(0).wait()
        self._core.stop()
        if self._poller.ident is not None:
            self._poller.join()

    def _load(self, _: str, __: int, directory: Path) -> Servable:
        model = SavedModel(directory)
        try:
            servable = Servable(model, batching.batching_of(self.flags, self._batching, directory))
            if self.flags.enable_model_warmup:
                warm_up(servable, directory)
        except ServingError:
            model.close()
            raise
        return servable

    def _poll(self) -> None:
        while not self._stopped.wait(self.flags.model_config_file_poll_wait_seconds):
            try:
                config = read_config(self.flags)
            except ServingError as error:
                log("E", _SOURCE, f"Failed to read ModelServerConfig file: {error.message}")
                continue
            try:
                self._core.reload(config)
            except ServingError as error:
                log("E", _SOURCE, f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error.message}")


def _metrics_path(flags: Flags) -> str:
    if not flags.monitoring_config_file:
        return ""
    prometheus = read_text(flags.monitoring_config_file, MonitoringConfig()).prometheus_config
    return (prometheus.path or _METRICS_PATH) if prometheus.enable else ""
