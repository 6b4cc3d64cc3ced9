"""Prefect as a command needs it: quiet, patient, and its own failures told like any other."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator

from model_registry.errors import SlipwayError

_SETTINGS = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "slipway",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    # Of the temporary server; Prefect's own 20 are short where the model processes start at the same time.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def prepare_prefect() -> None:
    """Keeps Prefect off the terminal, and its server from calling home; what a person set stays.

    To be called before Prefect is imported, by whatever.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def quiet_prefect() -> Iterator[None]:
    """Runs flows inside: quietly, and with Prefect's own failures told like any other.

    To be entered before Prefect is imported, or after `prepare_prefect`. A temporary server runs inside, unless one
    is configured.

    Raises:
        SlipwayError: If Prefect itself failed, such as for a server that is away.
    """
    prepare_prefect()
    try:
        _start_server()
        with _without_heartbeat():
            yield
    except SlipwayError:
        raise
    except Exception as error:
        if not _is_prefects(error):
            raise
        url = os.environ.get("PREFECT_API_URL")
        where = f"the Prefect server at {url}" if url else "Prefect, or its temporary server,"
        lines = str(error).strip().splitlines() or ["no message"]
        raise SlipwayError(
            f"{where} failed: {type(error).__name__}: {lines[0][:300]}",
            hint="check PREFECT_API_URL and that the server runs; without a profile and PREFECT_API_URL a temporary "
            "server is started, below PREFECT_HOME or ~/.prefect",
        ) from error


def _start_server() -> None:
    """Starts the temporary server, if there is to be one, out of the reach of Ctrl-C.

    A terminal sends Ctrl-C to the whole job. The server would die of it amid its imports, with a traceback;
    this process ends it instead. A blocked signal stays blocked in what is started.

    It is started in a thread of its own, because a signal raises in the main one: between the fork and the
    line that remembers the child nobody would know of it, and it would outlive the command; and amid the import of
    Prefect pydantic may drop what was raised.
    """
    failures: list[Exception] = []
    ended = threading.Event()

    def start() -> None:
        try:
            from prefect.client.orchestration import get_client

            get_client(sync_client=True)
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            failures.append(error)
        finally:
            ended.set()

    # In the caller's context, which may name another server than the environment does.
    context = contextvars.copy_context()
    starting = threading.Thread(target=context.run, args=(start,), name="start the Prefect server", daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        starting.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ended.wait()  # not join(): interrupted, it takes the thread for ended
    except BaseException:
        from prefect.server.api.server import SubprocessASGIServer  # a second and a half, for this alone

        server = SubprocessASGIServer()  # the one that Prefect starts
        while not ended.is_set() and server.server_process is None:
            time.sleep(0.01)
        server.stop()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _without_heartbeat() -> Iterator[None]:
    """Runs flows without the heartbeat that tells a scheduler that a worker's run is alive.

    Whoever waits here sees that, and would wait up to a second longer for its thread to wake up and end.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def _is_prefects(error: Exception) -> bool:
    """Whether no code of ours was on the way from Prefect to the error: only then is it no bug of ours."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return names[-1].split(".")[0] not in ("flows", "tasks", "model_registry") and not any(
        name.startswith(("tasks.", "model_registry.")) for name in names
    )
