"""A run of a deployment that somebody waits for: no longer than it may take, and not when nobody is left who waits.

A worker that is lost tells nobody, and Prefect shows its run as running for ever. So the wait has an end, and whoever
ends it cancels the run.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.deployments import run_deployment
from prefect.states import Cancelling, Crashed

from model_registry.errors import SlipwayError
from tasks.conversion_pool import PrefectApiError, prefect_client

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

GRACE = 60.0  # seconds in which a worker cancels a run that it is told to
_LOOK = 2.0  # seconds between two looks

logger = logging.getLogger("slipway")


class UnfinishedRunError(SlipwayError):
    """A run was not over when the wait was; it was cancelled.

    Attributes:
        run: Its name.
    """

    def __init__(self, message: str, run: str) -> None:
        super().__init__(message)
        self.run = run


def start_run(deployment: str, parameters: Mapping[str, Any]) -> UUID:
    """Starts a run of a deployment, below the flow run that it is called in.

    Args:
        deployment: As FLOW/DEPLOYMENT.
        parameters: The run's.

    Raises:
        SlipwayError: If it cannot be started.
    """
    try:
        with prefect_client():
            started: Any = run_deployment(deployment, parameters=dict(parameters), timeout=0)
    except PrefectApiError as error:
        raise SlipwayError(f"its run could not be started: {error}") from error
    run: UUID = started.id
    return run


def wait_for_run(run: UUID, *, longest: float, stop: threading.Event) -> FlowRun:
    """Waits until a run is over.

    Args:
        run: Which.
        longest: Seconds that it may take, from now on; what it waits for a worker counts.
        stop: Set by whoever wants no more of it.

    Returns:
        The run, in its final state.

    Raises:
        UnfinishedRunError: If it took longer, or was not wanted any more.
    """
    deadline = time.monotonic() + longest
    found: FlowRun | None = None
    while True:
        with contextlib.suppress(PrefectApiError):  # one that is away is asked again, as long as is waited at all
            found = _read(run)
        if found and _is_over(found):
            return found
        name = found.name if found else str(run)
        if time.monotonic() > deadline:
            shown = found.state.name if found and found.state else "nowhere"
            _end(run, f"it was not over after {longest:g} s", stop)
            raise UnfinishedRunError(
                f"its run was not over after {longest:g} s (`longest`), was found {shown}, and was cancelled: see "
                "whether the work pool has a worker, and whether the one that took it is alive",
                name,
            )
        if stop.wait(_LOOK):
            _set(run, Cancelling(message="the run that waited for it was ended"))
            raise UnfinishedRunError("it was cancelled: the run that looked for new models was ended", name)


def _end(run: UUID, why: str, stop: threading.Event) -> None:
    """Cancels a run; one whose worker does not see to that is lost, and would keep its place in the work pool."""
    _set(run, Cancelling(message=why))
    deadline = time.monotonic() + GRACE
    while True:
        with contextlib.suppress(PrefectApiError):
            if _is_over(_read(run)):
                return
        if time.monotonic() > deadline:
            _set(run, Crashed(message=f"{why}, and its worker did not cancel it"), force=True)
            return
        if stop.wait(_LOOK):
            return


def _is_over(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _read(run: UUID) -> FlowRun:
    with prefect_client() as client:
        return client.read_flow_run(run)


def _set(run: UUID, state: State[Any], *, force: bool = False) -> None:
    try:
        with prefect_client() as client:
            client.set_flow_run_state(run, state, force=force)
    except PrefectApiError as error:
        logger.warning("flow run %s could not be ended: %s", run, error)
