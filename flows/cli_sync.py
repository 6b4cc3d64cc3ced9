"""`slipway sync`: keeps the directory of a TensorFlow Serving as the labels of the registry want it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows.command import error_document, json_option, print_json, registry_option, reporting_errors
from model_registry.errors import InvalidInputError
from model_registry.paths import check_label, check_model_name
from model_registry.serving.sync_settings import SERVER, SyncSettings

if TYPE_CHECKING:
    from model_registry.serving.sync_agent import SyncAgent
    from model_registry.serving.sync_metrics import SyncMetrics
    from model_registry.serving.sync_report import AgentReport

_GLANCE = 0.25  # seconds within which the end of the work is noticed
_MAY_TAKE = 0.5  # seconds from a signal to the end of the work, and from there to that of the downloads
_DEFAULTS = SyncSettings(Path())
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

_Answer = TypeVar("_Answer")
_Command = TypeVar("_Command", bound=Callable[..., Any])

log = logging.getLogger("slipway")


def _size(text: str) -> int:
    """Reads a number of bytes, such as `512M`."""
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)(?:i?B)?", text, re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{text!r} is no size: expected one like 512M or 2G")
    return int(found[1]) * _UNITS[found[2].upper()]


def _named(check: Callable[[str], str]) -> Callable[[str], str]:
    """Reads a name by the registry's own rule."""

    def read(text: str) -> str:
        try:
            return check(text)
        except InvalidInputError as error:
            raise click.BadParameter(error.message) from None

    return read


def _seconds(name: str, default: float, text: str, *, least: float = 0.0) -> Callable[[_Command], _Command]:
    kind = click.FloatRange(min=least, max=86_400)
    return click.option(name, type=kind, default=default, show_default=True, metavar="S", help=text)


@click.command()
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "models",
    type=_named(check_model_name),
    metavar="M",
    multiple=True,
    help="Follow this model only; repeat it.",
)
@click.option(
    "--label", "labels", type=_named(check_label), metavar="L", multiple=True, help="Follow this label only; repeat it."
)
@click.option(
    "--variant",
    "variants",
    metavar="V",
    multiple=True,
    help="Bring this variant of a version; given again, the first that a version has. Default: native.",
)
@click.option("--once", is_flag=True, help="End once all is as it should be; without a server, once it may be started.")
@click.option("--server", metavar="URL", help=f"The server's REST interface.  [default: {SERVER}]")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8502",
    show_default=True,
    help="Where to answer /healthz, /readyz, /status and /metrics; port 0 takes a free one.",
)
@click.option("--base-path", metavar="P", default="", help="DEST as the server sees it.  [default: DEST]")
@click.option("--name", metavar="N", default="", help="Of this agent among its replicas.  [default: the host's]")
@_seconds("--interval", _DEFAULTS.interval, "Seconds from one look at the registry to the next.", least=0.1)
@_seconds("--settle", _DEFAULTS.settle, "Seconds that the server needs to notice a new models.config.", least=0.1)
@_seconds("--stagger", _DEFAULTS.stagger, "The longest to wait for this replica's turn to load a version.")
@_seconds("--drain", _DEFAULTS.drain, "Seconds from the move of a label to the old version's leave.")
@_seconds("--load-timeout", _DEFAULTS.load_timeout, "Seconds that loading a version may take.", least=1)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=_DEFAULTS.keep,
    show_default=True,
    metavar="N",
    help="Old versions of each model that stay on the disk, for a rollback.",
)
@click.option(
    "--reserve",
    type=_size,
    default="512M",
    show_default=True,
    metavar="SIZE",
    help="What stays free on the disk: a version that would take of it is not brought.",
)
@registry_option
@json_option
def sync(
    destination: Path, once: bool, listen: str, server: str | None, registry: str | None, as_json: bool, **options: Any
) -> None:
    """Bring what the labels name to the TensorFlow Serving that reads DEST, and keep doing so.

    Downloads each version, verifies every byte of it, and writes DEST/models.config, in the order that a running
    server accepts: a label moves once the server says that its new version is AVAILABLE. Start the server with
    --model_config_file=DEST/models.config --model_config_file_poll_wait_seconds=1
    --allow_version_labels_for_unavailable_models=true.

    With --once, before the server starts: it is to start with what it had AVAILABLE before, if every byte of it is
    still right, and the very first time with what the labels name. Exit code 1 if nothing can be served then; with
    --server, if what the labels name is not served in the end. 4 if another agent fills DEST.
    """
    from model_registry.registry import Registry
    from model_registry.serving.agent_server import parse_listen
    from model_registry.serving.sync_agent import SyncAgent
    from model_registry.serving.sync_metrics import SyncMetrics

    given = {name: value for name, value in options.items() if value not in ("", ())}
    agent, code = None, 0
    with _held_signals() as signals:
        try:
            with reporting_errors(as_json):
                settings = SyncSettings(destination, server=server or SERVER, **given)
                address, metrics = parse_listen(listen), SyncMetrics()
                agent = SyncAgent(settings, Registry.open(registry), metrics=metrics)
                if once:
                    _once(agent, signals, asking=server is not None, as_json=as_json)
                else:
                    _follow(agent, metrics, address, signals, as_json=as_json)
        except click.exceptions.Exit as ended:
            code = ended.exit_code
        if agent and not agent.close(timeout=_MAY_TAKE):
            # A read from the store or the server hangs. Wherever it is left, the next agent goes on from there.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    raise click.exceptions.Exit(code)


def _once(agent: SyncAgent, signals: set[signal.Signals], *, asking: bool, as_json: bool) -> None:
    from model_registry.errors import StorageError
    from model_registry.serving.settling import is_well, settle

    def work(stop: threading.Event) -> tuple[AgentReport, bool]:
        if asking and agent.server_answers():
            report = settle(agent, stop)
            return report, is_well(report)
        return agent.prepare(), True

    answer, asked = _until_asked(work, signals)
    if asked or answer is None:
        click.echo(f"ended by {asked.name if asked else 'a signal'}", err=True)
        raise click.exceptions.Exit(128 + (asked or signal.SIGTERM))
    report, well = answer
    if not well:
        error = StorageError("\n".join(["not everything is served as the labels want it", *report.obstacles()]))
        if not as_json:
            raise error
        print_json(_document(report) | {"error": error_document(error)})
        raise click.exceptions.Exit(error.exit_code)
    if as_json:
        print_json(_document(report))


def _follow(
    agent: SyncAgent,
    metrics: SyncMetrics,
    listen: tuple[str, int],
    signals: set[signal.Signals],
    *,
    as_json: bool,
) -> None:
    from model_registry.serving.agent_server import AgentServer

    with AgentServer(listen, agent, metrics) as server:
        log.info("following %s, status at %s/status", agent.report().registry, server.url)
        _, asked = _until_asked(agent.run, signals)
    log.info("ended by %s", asked.name if asked else "itself")
    if as_json:
        print_json(_document(agent.report()))


def _until_asked(
    work: Callable[[threading.Event], _Answer], signals: set[signal.Signals]
) -> tuple[_Answer | None, signal.Signals | None]:
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

    worker = threading.Thread(target=run, name="sync", daemon=True)
    worker.start()
    asked = None
    while worker.is_alive() and not asked:
        asked = signal.sigtimedwait(signals, _GLANCE)
    stop.set()
    worker.join(_MAY_TAKE)
    if failures:
        raise failures[0]
    return next(iter(answers), None), signal.Signals(asked.si_signo) if asked else None


def _document(report: AgentReport) -> dict[str, Any]:
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
