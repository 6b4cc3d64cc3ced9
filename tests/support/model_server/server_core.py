"""The configuration: which models are served, which versions, and what their labels name.

A reload either is refused before anything changes, or applies: first the labels are checked and swapped as one, then
the models are aspired, and then it waits for those models that are new.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tests.support.model_server.aspired_versions_manager import AspiredVersionsManager, Loadable
from tests.support.model_server.errors import ServingError
from tests.support.model_server.flags import Flags
from tests.support.model_server.servable_states import AVAILABLE, ServableStates, did_not_become_available
from tests.support.model_server.server_log import log
from tests.support.model_server.storage_path_source import Monitored, StoragePathSource

_SOURCE = "model_servers/server_core.cc"
_INITIAL_LOAD_THREADS = 4 * (os.cpu_count() or 1)


def read_config(flags: Flags) -> Any:
    """The ModelServerConfig of the file, or the single model of the flags.

    Raises:
        ServingError: If the file cannot be read.
    """
    config = model_server_config_pb2.ModelServerConfig()
    if not flags.model_config_file:
        config.model_config_list.config.add(
            name=flags.model_name, base_path=flags.model_base_path, model_platform="tensorflow"
        )
        return config
    try:
        return text_format.Parse(Path(flags.model_config_file).read_bytes(), config)
    except OSError as error:
        raise ServingError("NOT_FOUND", f"{flags.model_config_file}; {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        message = f"Invalid protobuf file: '{flags.model_config_file}' ({error})"
        raise ServingError("INVALID_ARGUMENT", message) from None


class ServerCore:
    """Models by configuration, servables by request.

    Attributes:
        states: Of every version.
    """

    def __init__(self, flags: Flags, load: Any) -> None:
        self.states = ServableStates()
        self._flags = flags
        self._manager = AspiredVersionsManager(
            load,
            self.states,
            max_num_load_retries=flags.max_num_load_retries,
            load_retry_seconds=flags.load_retry_interval_micros / 1e6,
        )
        self._source = StoragePathSource(self._manager.aspire)
        self._labels: Mapping[str, Mapping[str, int]] = {}
        self._is_configured = False
        self._reloading = threading.Lock()
        self._stopped = threading.Event()
        self._poller = threading.Thread(target=self._poll_for_ever, name="file_system_poll", daemon=True)

    def start(self, config: Any) -> None:
        """Loads the first configuration.

        Raises:
            ServingError: If it is refused, or a version in it cannot be loaded.
        """
        models = _validated(config)
        self._assign_labels(config)
        self._is_configured = config.HasField("model_config_list")
        log("I", _SOURCE, "Adding/updating models." if self._is_configured else "Taking no action for empty config.")
        # Read from its source: the first loads run beside one another, whatever --num_load_threads says.
        self._manager.start(_INITIAL_LOAD_THREADS)
        self._source.update(models)
        self._poller.start()
        # Read from its source: the first version of a model to be AVAILABLE or to fail decides. Here all are waited
        # for and any failure decides, so that nothing rests on how that race ends.
        ended = self.states.wait_for(models, whole=True)
        self._manager.set_load_threads(self._flags.num_load_threads)
        if ended:
            raise did_not_become_available("servable", ended)
        log("I", _SOURCE, "Finished adding/updating models")

    def stop(self) -> None:
        """Unloads everything."""
        self._stopped.set()
        self.states.close()
        self._manager.stop()
        if self._poller.ident is not None:
            self._poller.join()

    def reload(self, config: Any) -> None:
        """Applies another configuration.

        Raises:
            ServingError: If it is refused; or if a new model in it cannot be loaded, which it then still holds.
        """
        with self._reloading:
            if self._is_configured and not config.HasField("model_config_list"):
                raise ServingError("FAILED_PRECONDITION", "Cannot transition to requested config.")
            models = _validated(config)
            self._assign_labels(config)
            self._is_configured = config.HasField("model_config_list")
            log("I", _SOURCE, "Adding/updating models.")
            since = self.states.now()
            new = models.keys() - self._source.names()
            for name in models:
                log("I", _SOURCE, f" (Re-)adding model: {name}")
            self._source.update(models)
            # Read from its source: nothing else is reloaded meanwhile, and a new model without any version on the
            # disk is waited for until it has one.
            if ended := self.states.wait_for(new, since=since):
                raise did_not_become_available("model", ended)
            log("I", _SOURCE, "Finished adding/updating models")

    def servable(self, spec: Any) -> contextlib.AbstractContextManager[tuple[int, Loadable]]:
        """The version that a ModelSpec asks for: by its number, by a label, or else the highest that is ready.

        Raises:
            ServingError: NOT_FOUND for a version that is not served, INVALID_ARGUMENT for an unknown label.
        """
        if not spec.name:
            raise ServingError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            version = self._labels.get(spec.name, {}).get(spec.version_label)
            if version is None:
                raise ServingError("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}")
            return self._manager.servable(spec.name, version)
        return self._manager.servable(spec.name, spec.version.value if choice == "version" else None)

    def _poll_for_ever(self) -> None:
        self._source.poll()
        # Read from its source: at 0 seconds it looks once only.
        while self._flags.file_system_poll_wait_seconds > 0:
            if self._stopped.wait(self._flags.file_system_poll_wait_seconds):
                return
            self._source.poll()

    def _assign_labels(self, config: Any) -> None:
        assigned: dict[str, dict[str, int]] = {}
        for model in config.model_config_list.config:
            states = self.states.of(model.name)
            for label, version in model.version_labels.items():
                moves = self._labels.get(model.name, {}).get(label, version) != version
                must_be_available = moves or not self._flags.allow_version_labels_for_unavailable_models
                is_available = version in states and states[version].name == AVAILABLE
                if must_be_available and not is_available:
                    raise ServingError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference",
                    )
                assigned.setdefault(model.name, {})[label] = version
        self._labels = assigned  # one assignment: a request sees the old labels or the new ones


def _validated(config: Any) -> dict[str, Monitored]:
    models: dict[str, Monitored] = {}
    for model in config.model_config_list.config:
        if model.name in models:
            raise ServingError("INVALID_ARGUMENT", f"Illegal to list model {model.name} multiple times in config list")
        if not Path(model.base_path).is_absolute():
            raise ServingError(
                "INVALID_ARGUMENT",
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}",
            )
        if model.model_platform != "tensorflow":
            raise ServingError(
                "INVALID_ARGUMENT", f"Model {model.name} requests unsupported platform {model.model_platform}"
            )
        models[model.name] = _monitored(model)
    return models


def _monitored(model: Any) -> Monitored:
    policy = model.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    specific: Iterable[int] = policy.specific.versions if choice == "specific" else ()
    latest = None if choice == "all" else max(1, policy.latest.num_versions)
    return Monitored(model.name, model.base_path, tuple(specific), latest)
