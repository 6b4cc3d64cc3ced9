"""What every command shares: the registry option, `--json`, progress on stderr, and errors for people.

Data goes to stdout; progress, logs and errors go to stderr. With `--json` stdout gets one document,
on failure `{"error": {"class", "message", "hint"}}`. The exit code is the error's own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import FrameType
from typing import Any, TypeVar

import click

from flows.transfer_progress import showing_transfers
from model_registry.errors import RejectedError, SlipwayError

Command = TypeVar("Command", bound=Callable[..., Any])


def registry_option(command: Command) -> Command:
    """Adds `--registry`; the command gets `registry: str | None`."""
    return click.option(
        "--registry",
        metavar="URL",
        help="A path or s3://bucket/prefix. Default: $SLIPWAY_REGISTRY, else ./registry.",
    )(command)


def json_option(command: Command) -> Command:
    """Adds `--json`; the command gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else.")(
        command
    )


def print_json(document: Any) -> None:
    """Prints the command's one document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")


def error_document(error: SlipwayError) -> dict[str, str | None]:
    """An error as `--json` prints it."""
    return {"class": type(error).__name__, "message": error.message, "hint": error.hint}


@contextlib.contextmanager
def reporting_errors(as_json: bool) -> Iterator[None]:
    """Turns an expected failure into a message and its exit code, never a traceback; shows how far things are.

    A signal that asks for the end unwinds the command like Ctrl-C does, so that whatever it began is ended.
    """
    show_progress(quiet=as_json)
    try:
        with _unwinding(), showing_transfers(quiet=as_json):
            yield
    except SlipwayError as error:
        checks = [asdict(check) for check in error.blessing.checks] if isinstance(error, RejectedError) else []
        if as_json:
            failure = error_document(error)
            print_json({"error": failure, "checks": checks} if checks else {"error": failure})
        else:
            if checks:
                from flows.printing import print_checks

                print_checks(checks)
            click.echo(f"{click.style('error:', fg='red', bold=True)} {_lines(error.message)}", err=True)
            if error.hint:
                click.echo(f"{click.style('hint:', fg='yellow')}  {_lines(error.hint)}", err=True)
        raise click.exceptions.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        raise click.exceptions.Exit(128 + signal.SIGINT) from None
    except _AskedToEnd as asked:
        click.echo(f"ended by {asked.signal.name}", err=True)
        raise click.exceptions.Exit(128 + asked.signal) from None
    except BrokenPipeError:  # `slipway list | head`
        sys.stderr.close()
        raise click.exceptions.Exit(1) from None


def _lines(message: str) -> str:
    """A message, which may quote what somebody else wrote, with nothing in it that could steer a terminal."""
    from flows.tables import printable

    return "\n".join(printable(line) for line in message.split("\n"))


class _AskedToEnd(BaseException):
    """Not an Exception, for the same reason as KeyboardInterrupt: nothing on the way may take it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def _unwinding() -> Iterator[None]:
    def ask(number: int, _frame: FrameType | None) -> None:
        raise _AskedToEnd(number)

    # One that is ignored stays ignored: nohup asks for that.
    asking = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in asking:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number in asking:
            signal.signal(number, signal.SIG_DFL)


def show_progress(*, quiet: bool) -> None:
    """Sends what the pipeline logs to stderr, a plain line each."""
    logger = logging.getLogger("slipway")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]  # of a command called before in this process, the stream is closed by now
