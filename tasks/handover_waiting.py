"""Waiting for a conversion elsewhere: what is looked at, and what is said when nothing will come any more.

Rules:
- The result decides; it is looked for before anything else is believed.
- A flow run that ended without one has failed, crashed or was cancelled, and Prefect knows why.
- A worker that is at work renews its pulse. One whose pulse has stopped is dead, whatever Prefect believes: who is
  killed tells nobody. Ages are the store's.
- A run that was never taken up waits for a worker: for one that is gone in vain, for a busy one as long as a
  conversion may take.
- Who stops waiting, for whatever reason, ends the flow run.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from model_registry.errors import ConversionError, NotFoundError, StorageError
from model_registry.storage import ObjectStore
from tasks.conversion_pool import Pool, PrefectApiError, api_url, pool_problem, prefect_client
from tasks.handover_documents import HandoverResult, Staging

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

log = logging.getLogger("slipway")


@dataclass(frozen=True)
class Patience:
    """How long what is waited for.

    Attributes:
        look: Seconds between two looks.
        pulse: Seconds without a pulse after which a worker is taken for dead.
        nobody: Seconds without any worker in the pool.
        silence: Seconds without an answer of the Prefect API, or of the store.
        grace: Seconds beyond the time limit, for what is brought there and back; the worker itself holds the
            conversion to its limit, and tells of it.
    """

    look: float = 2.0
    pulse: float = 150.0
    nobody: float = 60.0
    silence: float = 300.0
    grace: float = 600.0


PATIENCE = Patience()


class Waiting:
    """A conversion that was asked for.

    Attributes:
        name: Of its flow run, with the page that shows it.
    """

    def __init__(
        self, store: ObjectStore, staging: Staging, pool: Pool, *, timeout: float, trusted: bool = False
    ) -> None:
        """Prepares to wait.

        Args:
            store: Where both sides meet.
            staging: Where in it.
            pool: Who is asked.
            timeout: Seconds that the conversion may take.
            trusted: The operator's grant to the spec, which the worker asks for again.
        """
        self.name = "the conversion"
        self._store = store
        self._staging = staging
        self._pool = pool
        self._timeout = timeout
        self._trusted = trusted
        self._patience = PATIENCE
        self._run: UUID | None = None
        self._ended = False

    def __enter__(self) -> Waiting:
        """Starts the flow run.

        Raises:
            ConversionError: If Prefect does not let it start.
        """
        from prefect.deployments import run_deployment
        from prefect.settings import PREFECT_UI_URL

        parameters: dict[str, Any] = {"registry": self._store.uri, "run": self._staging.run}
        if self._trusted:
            parameters["trust"] = True
        try:
            with prefect_client():
                created: Any = run_deployment(self._pool.deployment, parameters=parameters, timeout=0)
        except PrefectApiError as error:
            raise ConversionError(
                f"the conversion could not be handed over: {error}",
                hint="check PREFECT_API_URL and that the server runs",
            ) from error
        self._run = created.id
        base = PREFECT_UI_URL.value()
        self.name = f"flow run {created.name!r}" + (f" ({base}/runs/flow-run/{created.id})" if base else "")
        log.info("convert  handed over to work pool %r: %s", self._pool.pool, self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._ended:
            self._end()

    def result(self) -> HandoverResult:
        """Waits until there is a result.

        Raises:
            ConversionError: If there will be none; the message says what became of the run.
            FormatError: If what lies there is none.
            StorageError: If the store fails for longer.
        """
        patience = self._patience
        asked = heard = reached = time.monotonic()
        begun: float | None = None  # when the worker was first seen at work
        manned = asked  # when the pool last had a worker
        while True:
            state: State[Any] | None = None
            with contextlib.suppress(PrefectApiError):
                state = self._state()
                heard = time.monotonic()
            try:
                found = self._found()  # after the state: a run that has ended has told before
                pulse = self._pulse_age()
            except StorageError as error:
                # The conversion goes on meanwhile, and would be lost for nothing.
                if not error.transient or time.monotonic() - reached > patience.silence:
                    raise
                time.sleep(patience.look)
                continue
            reached = now = time.monotonic()
            if found is not None:
                return found
            if state is not None and state.is_final():
                raise self._ended_without_result(state)
            if pulse is not None:
                begun = begun or now
                self._check_pulse(pulse, now - begun)
            else:
                manned = self._check_start(now, asked, manned)
            if now - heard > patience.silence:
                raise ConversionError(
                    f"the Prefect API at {api_url()} did not answer for {now - heard:.0f} s, waiting for {self.name}",
                    hint="see whether the server runs; the conversion may still be going on, and comes to nothing",
                )
            time.sleep(patience.look)

    @property
    def _where(self) -> str:
        return f"{self.name} on work pool {self._pool.pool!r}"

    def _found(self) -> HandoverResult | None:
        key = self._staging.result
        try:
            return HandoverResult.from_json(self._store.get(key).data, key=key)
        except NotFoundError:
            return None

    def _pulse_age(self) -> float | None:
        try:
            return self._store.head(self._staging.pulse).age
        except NotFoundError:
            return None

    def _state(self) -> State[Any] | None:
        assert self._run is not None
        with prefect_client() as client:
            return client.read_flow_run(self._run).state

    def _ended_without_result(self, state: State[Any]) -> ConversionError:
        self._ended = True
        said = f": {state.message}" if state.message else ""
        how = {
            "CANCELLED": "was cancelled",
            "CRASHED": f"crashed{said}",
            "FAILED": f"failed{said}",
        }.get(state.type.value, f"ended as {state.name}, and brought nothing back{said}")
        hint = {
            "CANCELLED": "whoever cancelled it knows why; package the model again",
            "CRASHED": "see the worker's log: it could not start the run, or lost it",
        }.get(state.type.value, "see the flow run's log in Prefect")
        return ConversionError(f"{self._where} {how}", hint=hint)

    def _check_pulse(self, age: float, working: float) -> None:
        if age > self._patience.pulse:
            self._lose(f"its worker gave no sign of life for {age:.0f} s")
            raise ConversionError(
                f"the worker of {self._where} died: it gave no sign of life for {age:.0f} s, expected one every few "
                "seconds",
                hint="see the worker's machine: out of memory, shut down, or cut off from the registry; then try again",
            )
        if working > self._timeout + self._patience.grace:
            raise ConversionError(
                f"{self._where} did not convert within {self._timeout:g} s, and was ended",
                hint="raise `timeouts.convert` in the spec, or list fewer batch_sizes: each is built for",
            )

    def _check_start(self, now: float, asked: float, manned: float) -> float:
        """Answers with when the pool last had a worker."""
        try:
            with prefect_client() as client:
                problem = pool_problem(client, self._pool.pool)
        except PrefectApiError:
            return manned
        if problem is None:
            manned = now
        elif now - manned > self._patience.nobody:
            raise ConversionError(f"{self.name} was never started: {problem.reason}", hint=problem.hint)
        if now - asked > self._timeout:
            raise ConversionError(
                f"{self._where} did not start within {self._timeout:g} s: the pool is busy, or its worker takes none",
                hint=f"see what runs there: prefect flow-run ls; or start another worker in pool {self._pool.pool}",
            )
        return manned

    def _end(self) -> None:
        """Cancels the flow run, on the way out: what fails here hides nothing of why we leave."""
        from prefect.states import Cancelling

        self._set(Cancelling(message="the run that asked for this conversion waits no more"), force=False)

    def _lose(self, why: str) -> None:
        """Tells Prefect of a run whose worker is dead: nobody else would, and it would be shown as running."""
        from prefect.states import Crashed

        self._set(Crashed(message=why), force=True)
        self._ended = True

    def _set(self, state: State[Any], *, force: bool) -> None:
        if self._run is None:
            return
        try:
            with prefect_client() as client:
                client.set_flow_run_state(self._run, state, force=force)
        except PrefectApiError as error:
            log.warning("%s could not be ended: %s", self.name, error)
