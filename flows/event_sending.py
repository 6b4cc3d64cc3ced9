"""Sends an event to Prefect from the command line, and holds nobody up for longer than a person would wait.

Not even at the end of the process: a resolver that does not answer cannot be interrupted, and the interpreter joins
all threads but the daemons, those of an executor included. So all of it happens in one daemon thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_WITHIN = 5.0  # seconds


def send_event(name: str, resource: dict[str, str], payload: dict[str, Any]) -> str:
    """Sends an event to the configured Prefect API, and waits for a few seconds until it is confirmed.

    Args:
        name: Of the event.
        resource: The labels of what it is about.
        payload: What happened.

    Returns:
        Why it was not sent; empty if it was.
    """
    problems = [f"no answer within {_WITHIN:g} s"]

    def send() -> None:
        try:
            asyncio.run(asyncio.wait_for(_send(name, resource, payload), _WITHIN))
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            return
        except Exception as error:  # noqa: BLE001 - whatever Prefect raises; told by who waits
            problems[:] = [f"{type(error).__name__}: {error}"]
        else:
            problems.clear()

    context = contextvars.copy_context()  # which may name another server than the environment does
    sending = threading.Thread(target=context.run, args=(send,), name="send an event", daemon=True)
    sending.start()
    sending.join(_WITHIN + 1)  # a loop that can notices first, and closes the connection
    return "".join(problems)


async def _send(name: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
    from prefect.events import Event
    from prefect.events.clients import get_events_client

    asyncio.get_running_loop().set_default_executor(_InPlace())  # which resolves names
    # Each event is confirmed, or leaving would not wait until it has arrived.
    async with get_events_client(reconnection_attempts=0, checkpoint_every=1) as client:
        await client.emit(Event(event=name, resource=resource, payload=payload))


class _InPlace(ThreadPoolExecutor):
    """Runs what it is given at once, in the loop's own thread."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Calls the function and returns its result as a future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            future.set_exception(error)
        return future
