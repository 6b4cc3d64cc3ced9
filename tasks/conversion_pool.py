"""The work pool that converts: found through Prefect's own client, and held to what it takes to start a run now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENT = "convert-model/convert-model"

_DEPLOY = "prefect --no-prompt deploy --all, in a checkout that has prefect.yaml, makes it"
# Where Prefect looks for settings beyond the environment, and what there makes them so.
_SETTINGS_FILES = {"prefect.toml": "", "pyproject.toml": "[tool.prefect", ".env": "PREFECT_"}


@dataclass(frozen=True)
class Pool:
    """A work pool converts.

    Attributes:
        deployment: What is asked to, `flow/deployment`.
        pool: Its work pool.
    """

    deployment: str
    pool: str


@dataclass(frozen=True)
class PoolProblem:
    """Why no work pool can convert now.

    Attributes:
        reason: For a person.
        hint: What to do about it.
    """

    reason: str
    hint: str


class PrefectApiError(Exception):
    """The Prefect API could not be asked; the message says why. Whoever asks makes a sentence of it."""


def api_may_be_configured() -> bool:
    """Whether it is worth the seconds that importing Prefect takes to ask it for its API's URL."""
    if any(name in os.environ for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect")
    with contextlib.suppress(RuntimeError, OSError):
        if (home.expanduser() / "profiles.toml").exists():
            return True
    return any(mark in _text(Path(name)) for name, mark in _SETTINGS_FILES.items() if Path(name).is_file())


def api_url() -> str | None:
    """The URL that Prefect is configured with, by variable, profile or file; None for a temporary server."""
    from prefect.settings import PREFECT_API_URL

    url: str | None = PREFECT_API_URL.value()
    return url


@contextlib.contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """A client of the configured API.

    Raises:
        PrefectApiError: Whatever fails inside the block for reasons of the API's.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException
    from pydantic import ValidationError

    try:
        with get_client(sync_client=True) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL, PrefectException, RuntimeError, ValidationError) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise PrefectApiError(
            f"the Prefect API at {api_url()} failed: {type(error).__name__}: {first[:300]}"
        ) from error


def find_pool(deployment: str = DEPLOYMENT) -> Pool | PoolProblem:
    """The pool of a deployment, if it can start a run now."""
    if api_url() is None:
        return PoolProblem(
            "no Prefect API is configured that could name a worker with one",
            f"set PREFECT_API_URL, and deploy {deployment} to a work pool whose worker has a GPU",
        )
    try:
        with prefect_client() as client:
            return _judged(client, deployment)
    except PrefectApiError as error:
        return PoolProblem(str(error), "check PREFECT_API_URL and that the server runs")


def pool_problem(client: SyncPrefectClient, name: str) -> PoolProblem | None:
    """What keeps a work pool from starting runs now, or None."""
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound

    try:
        pool = client.read_work_pool(name)
        workers: list[Any] = client.read_workers_for_work_pool(name)
    except ObjectNotFound:
        return PoolProblem(f"the work pool {name!r} does not exist", f"prefect work-pool create {name} --type process")
    if pool.is_paused:
        return PoolProblem(f"the work pool {name!r} is paused", f"prefect work-pool resume {name}")
    if pool.is_push_pool or pool.is_managed_pool:  # they start runs without a worker
        return None
    if any(worker.status == WorkerStatus.ONLINE for worker in workers):
        return None
    seen = [worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time]
    last = f": its last one was heard of at {max(seen):%Y-%m-%d %H:%M} UTC" if seen else ", and never had one"
    return PoolProblem(
        f"the work pool {name!r} has no worker that is online{last}",
        f"start one where the GPU is: prefect worker start --pool {name}",
    )


def _judged(client: SyncPrefectClient, name: str) -> Pool | PoolProblem:
    from prefect.exceptions import ObjectNotFound

    try:
        deployment = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return PoolProblem(f"the Prefect API at {api_url()} has no deployment {name}", _DEPLOY)
    pool = deployment.work_pool_name
    if not pool:
        return PoolProblem(f"the deployment {name} belongs to no work pool", _DEPLOY)
    return pool_problem(client, pool) or Pool(name, pool)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
