"""What `slipway sync` and `slipway gateway` share: an agent works until it is done, or a signal asks for the end."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from flows.command import Command, error_document, print_json, reporting_errors

if TYPE_CHECKING:
    from model_registry.serving.agent_answers import ObservedAgent, RenderedMetrics, Report

_GLANCE = 0.25  # seconds within which the end of the work is noticed
_MAY_TAKE = 0.5  # seconds from a signal to the end of the work, and from there to that of what the agent began

_Answer = TypeVar("_Answer")
_Report = TypeVar("_Report", bound="Report")
_Report_co = TypeVar("_Report_co", bound="Report", covariant=True)

log = logging.getLogger("slipway")


class RunningAgent(Protocol[_Report_co]):
    """An agent, as the process sees it that is there for it alone."""

    def run(self, stop: threading.Event) -> None:
        """Does its work until it is told to stop."""

    def report(self) -> _Report_co:
        """How things stand."""

    def healthy(self) -> bool:
        """Whether it does its work."""

    def ready(self) -> bool:
        """Whether the server beside it is fit for requests."""

    def close(self, timeout: float) -> bool:
        """Ends what it began; tells whether all has ended within so many seconds."""


def seconds_option(name: str, default: float, text: str, *, least: float = 0.0) -> Callable[[Command], Command]:
    """Adds an option that is a number of seconds."""
    kind = click.FloatRange(min=least, max=86_400)
    return click.option(name, type=kind, default=default, show_default=True, metavar="S", help=text)


def listen_option(default: str) -> Callable[[Command], Command]:
    """Adds `--listen`; the command gets `listen: str`."""
    return click.option(
        "--listen",
        metavar="HOST:PORT",
        default=default,
        show_default=True,
        help="Where to answer /healthz, /readyz, /status and /metrics; port 0 takes a free one.",
    )


def name_option(command: Command) -> Command:
    """Adds `--name`; the command gets `name: str`."""
    return click.option(
        "--name", metavar="N", default="", help="Of this agent among its replicas.  [default: the host's]"
    )(command)


class AgentProcess:
    """This process, which is there for one agent."""

    def __init__(self, signals: set[signal.Signals], *, as_json: bool) -> None:
        """Does nothing yet.

        Args:
            signals: Those that ask for the end, held back.
            as_json: Whether the last report is printed.
        """
        self.agent: RunningAgent[Report] | None = None
        self._signals = signals
        self._as_json = as_json

    def follow(
        self,
        agent: RunningAgent[_Report],
        metrics: RenderedMetrics[_Report],
        listen: tuple[str, int],
        *,
        following: str,
    ) -> None:
        """Lets the agent work until a signal asks for the end, and answers for it meanwhile.

        Args:
            agent: Who works.
            metrics: What /metrics tells.
            listen: Where to answer.
            following: The registry, for the log.
        """
        from model_registry.serving.agent_server import AgentServer

        observed: ObservedAgent[_Report] = agent
        with AgentServer(listen, observed, metrics) as server:
            log.info("following %s, status at %s/status", following, server.url)
            _, asked = self._until_asked(agent.run)
        log.info("ended by %s", asked.name if asked else "itself")
        if self._as_json:
            print_json(_document(agent.report()))

    def once(self, work: Callable[[threading.Event], tuple[Report, bool]], *, otherwise: str) -> None:
        """Lets the agent do its work once.

        Args:
            work: Tells how things stand when it is done, and whether that is well.
            otherwise: What is said if it is not.
        """
        from model_registry.errors import StorageError

        answer, asked = self._until_asked(work)
        if asked or answer is None:
            click.echo(f"ended by {asked.name if asked else 'a signal'}", err=True)
            raise click.exceptions.Exit(128 + (asked or signal.SIGTERM))
        report, well = answer
        if not well:
            error = StorageError("\n".join([otherwise, *report.obstacles()]))
            if not self._as_json:
                raise error
            print_json(_document(report) | {"error": error_document(error)})
            raise click.exceptions.Exit(error.exit_code)
        if self._as_json:
            print_json(_document(report))

    def _until_asked(self, work: Callable[[threading.Event], _Answer]) -> tuple[_Answer | None, signal.Signals | None]:
        """Works in a thread of its own until that is done, or a signal asks for the end.

        Returns:
            What came of it, and the signal.
        """
        stop, answers, failures = threading.Event(), list[_Answer](), list[Exception]()

        def run() -> None:
            try:
                answers.append(work(stop))
            except Exception as failure:  # noqa: BLE001 - it is raised again where somebody hears it
                failures.append(failure)

        worker = threading.Thread(target=run, name="agent", daemon=True)
        worker.start()
        asked = None
        while worker.is_alive() and not asked:
            asked = signal.sigtimedwait(self._signals, _GLANCE)
        stop.set()
        worker.join(_MAY_TAKE)
        if failures:
            raise failures[0]
        return next(iter(answers), None), signal.Signals(asked.si_signo) if asked else None


@contextmanager
def agent_process(*, as_json: bool) -> Iterator[AgentProcess]:
    """The process of an agent: ends it, tells what went wrong, and leaves with the exit code.

    Args:
        as_json: Whether there is one document on stdout and nothing else.

    Yields:
        It; whoever makes the agent sets `agent` at once, so that it is closed whatever happens.

    Raises:
        click.exceptions.Exit: In the end, with the code.
    """
    code = 0
    with _held_signals() as signals:
        process = AgentProcess(signals, as_json=as_json)
        try:
            with reporting_errors(as_json):
                yield process
        except click.exceptions.Exit as ended:
            code = ended.exit_code
        if process.agent and not process.agent.close(timeout=_MAY_TAKE):
            # A read from the store or the server hangs. Wherever it is left, the next agent goes on from there.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    raise click.exceptions.Exit(code)


def _document(report: Report) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(report.to_json())
    return document


@contextmanager
def _held_signals() -> Iterator[set[signal.Signals]]:
    """Holds back the signals that ask for the end, in every thread begun inside, so that one place takes them."""
    # One that is ignored stays ignored: nohup asks for that.
    asking = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signals = {number for number in asking if signal.getsignal(number) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield signals
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
