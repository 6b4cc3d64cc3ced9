"""What batching refuses. Requests are not merged: that changes no answer, only how long it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.model_server.errors import ServingError
from tests.support.model_server.flags import Flags
from tests.support.model_server.parameter_files import BatchingParameters, read_text
from tests.support.model_server.server_log import log

_MODEL_FILE = "batching_params.pbtxt"
_DEFAULT_MAX_BATCH_SIZE = 1000  # read from its source


@dataclass(frozen=True)
class Batching:
    """The limit of one version.

    Attributes:
        max_batch_size: Rows a request may have; None where large requests are split.
    """

    max_batch_size: int | None

    def check(self, arrays: Iterable[np.ndarray]) -> None:
        """Refuses a request that cannot be part of a batch.

        Raises:
            ServingError: INVALID_ARGUMENT.
        """
        sizes = set()
        for array in arrays:
            if not array.ndim:
                message = "Batching session Run() input tensors must have at least one dimension"
                raise ServingError("INVALID_ARGUMENT", message)
            sizes.add(array.shape[0])
        if len(sizes) > 1:
            message = "Batching session Run() input tensors must have equal 0th-dimension size"
            raise ServingError("INVALID_ARGUMENT", message)
        if self.max_batch_size is not None and sizes and max(sizes) > self.max_batch_size:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"Task size {max(sizes)} is larger than maximum input batch size {self.max_batch_size}",
            )


def server_parameters(flags: Flags) -> Any | None:
    """The parameters of the whole server, None without batching.

    Raises:
        ServingError: If the file cannot be read or is not asked for.
    """
    if not flags.enable_batching:
        if flags.batching_parameters_file:
            raise ServingError(
                "INVALID_ARGUMENT",
                "server_options.batching_parameters_file is set without setting enable_batching to true.",
            )
        return None
    if not flags.batching_parameters_file:
        return BatchingParameters()
    return read_text(flags.batching_parameters_file, BatchingParameters())


def batching_of(flags: Flags, server: Any | None, directory: Path) -> Batching | None:
    """How requests to one version are batched; None for not at all.

    Raises:
        ServingError: If the parameters contradict themselves.
    """
    if server is None:
        return None
    parameters = server
    if flags.enable_per_model_batching_parameters:
        if not (directory / _MODEL_FILE).exists():
            return None
        parameters = read_text(directory / _MODEL_FILE, BatchingParameters())
    log("I", "servables/tensorflow/bundle_factory_util.cc", "Wrapping session to perform batch processing")
    largest = parameters.max_batch_size.value if parameters.HasField("max_batch_size") else _DEFAULT_MAX_BATCH_SIZE
    splits = parameters.enable_large_batch_splitting.value
    executed = parameters.max_execution_batch_size.value if splits else largest
    allowed = list(parameters.allowed_batch_sizes)
    if allowed and allowed[-1] != executed:
        raise ServingError(
            "INVALID_ARGUMENT",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
            f"{allowed[-1]}; expected {executed}",
        )
    return Batching(None if splits else largest)
