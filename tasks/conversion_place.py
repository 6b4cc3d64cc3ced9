"""Where a conversion runs: on this machine, on a worker of a Prefect work pool, or nowhere, and why not.

Rules, in this order:
- A rehearsal (SLIPWAY_CONVERSION=rehearsal) needs nothing, and runs here.
- A GPU of this machine converts here, if the pre-flight finds all that TF-TRT needs.
- Else the deployment `convert-model/convert-model` does, where a Prefect API is configured: its work pool must
  be able to start it now, and the registry must lie where its worker can reach it.
- Whatever stands in the way is told, with what to do.

Looking costs a machine nothing that has no GPU and no Prefect API.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model_registry.errors import ConversionError, InvalidInputError
from model_registry.servable import Accelerator
from tasks.conversion_pool import DEPLOYMENT, Pool, PoolProblem, api_may_be_configured, find_pool
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import PREFLIGHT

VARIABLE = "SLIPWAY_CONVERSION"
REHEARSE = "rehearsal"

# TensorFlow's import, and the first touch of a GPU, which may compile kernels.
PREFLIGHT_TIMEOUT = 300.0
# Of NVIDIA's driver on Linux, and of the driver that Windows lends to WSL.
_DEVICES = ("nvidia[0-9]*", "dxg")


@dataclass(frozen=True)
class Here:
    """This machine converts.

    Attributes:
        accelerator: Its GPU; None for a rehearsal.
    """

    accelerator: Accelerator | None


@dataclass(frozen=True)
class Nowhere:
    """Nobody can convert.

    Attributes:
        reason: Why, for a person.
        hint: What to do about it.
    """

    reason: str
    hint: str


Place = Here | Pool | Nowhere


def rehearsing(environ: Mapping[str, str]) -> bool:
    """Whether conversions are rehearsals, by the environment of whoever converts.

    Raises:
        InvalidInputError: If the variable says something else.
    """
    value = environ.get(VARIABLE, "")
    if value not in ("", REHEARSE):
        raise InvalidInputError(
            f"{VARIABLE} is {value[:60]!r}: expected {REHEARSE!r}, or nothing for a real conversion",
            hint=f"unset {VARIABLE} where engines are to be built",
        )
    return bool(value)


def gpu_in_sight(environ: Mapping[str, str], devices: Path = Path("/dev")) -> bool:
    """Whether this machine may have a GPU that we may use: a look at files, which proves nothing."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and (not visible.strip() or visible.strip().startswith("-")):
        return False
    return any(True for pattern in _DEVICES for _ in devices.glob(pattern))


def find_place(registry: str) -> Place:
    """Looks for where a conversion can run.

    Args:
        registry: Its URI: a worker elsewhere must be able to reach it.

    Raises:
        InvalidInputError: If SLIPWAY_CONVERSION is none that we know.
    """
    if rehearsing(os.environ):
        return Here(None)
    here: Here | ConversionError | None = _preflight() if gpu_in_sight(os.environ) else None
    if isinstance(here, Here):
        return here
    there = _pool_for(registry)
    return there if isinstance(there, Pool) else _nowhere(here, there)


def _preflight() -> Here | ConversionError:
    try:
        with (
            tempfile.TemporaryDirectory(prefix="slipway-preflight-") as directory,
            ModelProcess(PREFLIGHT, Path(directory) / PREFLIGHT, failure=ConversionError) as process,
        ):
            return Here(process.result("preflight", Accelerator, PREFLIGHT_TIMEOUT)[0])
    except ConversionError as error:
        return error


def _pool_for(registry: str) -> Pool | PoolProblem:
    if not api_may_be_configured():
        return PoolProblem(
            "no Prefect API is configured that could name a worker with one",
            f"set PREFECT_API_URL, and deploy {DEPLOYMENT} to a work pool whose worker has a GPU",
        )
    found = find_pool()
    if isinstance(found, Pool) and not registry.startswith("s3://"):
        return PoolProblem(
            f"the registry {registry} is a directory of this machine: a registry on a local disk cannot be reached "
            f"by a worker elsewhere, and the one of pool {found.pool!r} would be asked",
            "keep the registry on s3://, or package on the machine that has the GPU",
        )
    return found


def _nowhere(here: ConversionError | None, there: PoolProblem) -> Nowhere:
    """What to tell first: a GPU that is there and does not do is nearer than a pool."""
    if here is None:
        return Nowhere(f"this machine has no GPU that TensorFlow may use, and {there.reason}", there.hint)
    reason = f"this machine's GPU cannot convert: {here.message}; and {there.reason}"
    return Nowhere(reason, here.hint or there.hint)
