"""The flags of `tensorflow_model_server` that Slipway and its tests use, written as it wants them: `--name=value`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields


class UsageError(Exception):
    """A flag the server does not know, or a value of the wrong kind."""


@dataclass(frozen=True)
class Flags:
    """What the server was started with; names and defaults are the binary's."""

    port: int = 8500
    rest_api_port: int = 0
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: int = 0
    model_name: str = "default"
    model_base_path: str = ""
    allow_version_labels_for_unavailable_models: bool = False
    enable_batching: bool = False
    batching_parameters_file: str = ""
    enable_per_model_batching_parameters: bool = False
    enable_model_warmup: bool = True
    monitoring_config_file: str = ""
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 0
    num_unload_threads: int = 0
    file_system_poll_wait_seconds: int = 1
    rest_api_num_threads: int = 16
    tensorflow_session_parallelism: int = 0
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    per_process_gpu_memory_fraction: float = 0.0


_KINDS = {field.name: field.type for field in fields(Flags)}


def parse(arguments: Sequence[str]) -> Flags:
    """Reads a command line.

    Raises:
        UsageError: If there is anything in it that the server does not know.
    """
    values: dict[str, object] = {}
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        # Read from its source: a value that stands apart, `--port 8500`, is an unknown argument to it.
        if not argument.startswith("--") or name not in _KINDS:
            raise UsageError(f"unknown argument: {argument}")
        values[name] = _value(argument, _KINDS[name], value, has_value=bool(equals))
    return Flags(**values)  # type: ignore[arg-type]


def _value(argument: str, kind: object, value: str, *, has_value: bool) -> object:
    if kind == "bool":
        if has_value and value not in ("true", "false"):
            raise UsageError(f"Couldn't interpret value {value} for flag {argument}.")
        return not has_value or value == "true"
    if kind in ("int", "float"):
        try:
            return int(value) if kind == "int" else float(value)
        except ValueError:
            raise UsageError(f"Couldn't interpret value {value} for flag {argument}.") from None
    return value
