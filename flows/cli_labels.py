"""`slipway promote`, `rollback`, `unlabel` and `retire`: what a model's labels name, and what none may name again."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows.changes import change_document, change_sentence
from flows.command import json_option, print_json, registry_option, reporting_errors
from flows.label_events import tell_prefect

if TYPE_CHECKING:
    from flows.label_waiting import LabelWait
    from model_registry.registry import Registry
    from model_registry.transitions import Expected

Command = TypeVar("Command", bound=Callable[..., Any])

_VERSION = click.IntRange(min=1)
_NOTHING_CHANGED = "dry run: nothing was changed"
_WAIT_SECONDS = 600.0


class _VersionOrNone(click.IntRange):
    """A version's number, or `none` for a label that names nothing."""

    name = "version or none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Takes what was typed."""
        return value if value == "none" else super().convert(value, param, ctx)


def _change_options(command: Command) -> Command:
    """Adds what every change takes: a reason and a rehearsal."""
    reason = click.option("--reason", default="", metavar="TEXT", help="Why; `slipway history` shows it.")
    dry_run = click.option("--dry-run", is_flag=True, help="Hold it to every rule, and change nothing.")
    return reason(dry_run(registry_option(json_option(command))))


@dataclass(frozen=True)
class _Waiting:
    """What `--wait` was told: the agents' URLs, the seconds they have, and whether failed loads are tried again."""

    agents: tuple[str, ...]
    timeout: float
    retry: bool

    def for_(self, registry: Registry) -> LabelWait:
        """Who waits."""
        from flows.label_waiting import LabelWait

        return LabelWait(registry, self.agents, timeout=self.timeout, retry=self.retry)


def _wait_options(command: Command) -> Command:
    """Adds the options of `--wait`; the command gets `waiting: _Waiting | None`."""

    @click.option("--wait", is_flag=True, help="Return when the server beside each --agent answers with the version.")
    @click.option(
        "--agent",
        "agents",
        multiple=True,
        metavar="URL",
        help="Where a `slipway sync` listens, such as http://127.0.0.1:8502; once for each server.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        help=f"Seconds that --wait waits for all of them. Default: {_WAIT_SECONDS:g}.",
    )
    @click.option("--retry", is_flag=True, help="With --wait: try a load that failed again, once on each server.")
    @functools.wraps(command)
    def waiting(
        *arguments: Any, wait: bool, agents: tuple[str, ...], timeout: float | None, retry: bool, **options: Any
    ) -> Any:
        if wait and not agents:
            raise click.UsageError("--wait needs --agent URL, once for each server to wait for")
        if not wait and (agents or timeout is not None or retry):
            raise click.UsageError("--agent, --timeout and --retry are for --wait")
        if timeout is not None and not math.isfinite(timeout):
            raise click.UsageError(f"--timeout: expected a number of seconds, found {timeout}")
        told = _Waiting(agents, timeout or _WAIT_SECONDS, retry) if wait else None
        return command(*arguments, waiting=told, **options)

    return waiting  # type: ignore[return-value]


@click.command()
@click.argument("reference", metavar="MODEL:VERSION")
@click.argument("label")
@click.option(
    "--expect", type=_VersionOrNone(min=1), metavar="V|none", help="Refuse if LABEL names another version now."
)
@_wait_options
@_change_options
def promote(
    reference: str,
    label: str,
    expect: int | str | None,
    reason: str,
    dry_run: bool,
    registry: str | None,
    as_json: bool,
    waiting: _Waiting | None,
) -> None:
    """Let LABEL name a version.

    It must be committed, not retired, and have every variant of the version LABEL names now.
    Exit code 4 if somebody else moved LABEL first. With --wait, exit code 1 if a server does not
    answer with it in the end; LABEL was moved all the same.
    """
    from model_registry.registry import Registry
    from model_registry.state import Origin, Transition

    with reporting_errors(as_json):
        model, version = numbered(reference)
        opened = Registry.open(registry)
        origin = Origin.here(reason)
        wait = waiting.for_(opened) if waiting else None
        if wait:
            wait.check(model, label, version=version)
        record = opened.promote(model, version, label, origin=origin, expect=_expected(expect), dry_run=dry_run)
        asked = Transition("promote", label, from_version=version, to_version=version)
        _finish(change_document(opened.store.uri, model, record, asked=asked, dry_run=dry_run), as_json, wait)


@click.command()
@click.argument("model")
@click.argument("label")
@click.option("--expect", type=_VERSION, metavar="V", help="Refuse if LABEL names another version now.")
@_wait_options
@_change_options
def rollback(
    model: str,
    label: str,
    expect: int | None,
    reason: str,
    dry_run: bool,
    registry: str | None,
    as_json: bool,
    waiting: _Waiting | None,
) -> None:
    """Let LABEL name the version it named before.

    One step back in the label's own past. A rollback is a move like any other: recorded, never a deletion.
    An agent that does not answer does not hold it up.
    """
    from model_registry.registry import Registry
    from model_registry.state import Origin

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        origin = Origin.here(reason)
        wait = waiting.for_(opened) if waiting else None
        if wait:
            wait.check(model, label, version=None)
        with _naming_the_nearest(opened, model):
            record = opened.roll_back(model, label, origin=origin, expect=_expected(expect), dry_run=dry_run)
        _finish(change_document(opened.store.uri, model, record, dry_run=dry_run), as_json, wait)


@click.command()
@click.argument("model")
@click.argument("label")
@click.option("--expect", type=_VERSION, metavar="V", help="Refuse if LABEL names another version now.")
@_change_options
def unlabel(
    model: str, label: str, expect: int | None, reason: str, dry_run: bool, registry: str | None, as_json: bool
) -> None:
    """Take LABEL away, with its past; the version stays."""
    from model_registry.registry import Registry
    from model_registry.state import Origin

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        origin = Origin.here(reason)
        with _naming_the_nearest(opened, model):
            record = opened.unlabel(model, label, origin=origin, expect=_expected(expect), dry_run=dry_run)
        _finish(change_document(opened.store.uri, model, record, dry_run=dry_run), as_json)


@click.command()
@click.argument("references", metavar="MODEL:VERSION...", nargs=-1, required=True)
@click.option(
    "--forget", is_flag=True, help="Retire what a label may be rolled back to as well; rollbacks pass over it."
)
@_change_options
def retire(
    references: tuple[str, ...], forget: bool, reason: str, dry_run: bool, registry: str | None, as_json: bool
) -> None:
    """Let no label ever name these versions again.

    A version that a label names is refused. Several versions of a model are retired at once or not at all.
    `slipway gc` deletes them later.
    """
    from model_registry.registry import Registry
    from model_registry.state import Origin, Transition

    with reporting_errors(as_json):
        numbers: dict[str, list[int]] = {}
        for model, version in map(numbered, references):
            numbers.setdefault(model, []).append(version)
        opened = Registry.open(registry)
        origin = Origin.here(reason)
        if len(numbers) > 1:  # what can be refused is, before the first of several models is changed
            for model, versions in numbers.items():
                opened.retire(model, versions, origin=origin, forget=forget, dry_run=True)
        changes = []
        for model, versions in numbers.items():
            record = opened.retire(model, versions, origin=origin, forget=forget, dry_run=dry_run)
            asked = Transition("retire", versions=tuple(sorted({*versions})), forget=forget)
            changes.append(change_document(opened.store.uri, model, record, asked=asked, dry_run=dry_run))
            if not as_json:
                click.echo(change_sentence(changes[-1]))
        if as_json:
            print_json({"registry": opened.store.uri, "dry_run": dry_run, "changes": changes})
        elif dry_run:
            click.echo(_NOTHING_CHANGED, err=True)


@contextlib.contextmanager
def _naming_the_nearest(registry: Registry, model: str) -> Iterator[None]:
    """Says which models there are where a label was not found because its model was not."""
    from model_registry.errors import NotFoundError
    from model_registry.paths import Reference

    try:
        yield
    except NotFoundError:
        if registry.committed(model):
            raise
        raise registry.no_such_version(Reference(model), None) from None


def _expected(expect: int | str | None) -> Expected:
    from model_registry.transitions import Expect

    if expect is None:
        return Expect.ANYTHING
    return None if isinstance(expect, str) else expect


def numbered(reference: str) -> tuple[str, int]:
    """The model and the version's number that a reference names.

    Raises:
        InvalidInputError: If it names no number.
    """
    from model_registry.errors import InvalidInputError
    from model_registry.paths import Reference

    parsed = Reference.parse(reference)
    if parsed.version is None:
        raise InvalidInputError(
            f"{reference!r} names no version: expected MODEL:VERSION", hint=f"see `slipway list {parsed.model}`"
        )
    return parsed.model, parsed.version


def _finish(change: dict[str, Any], as_json: bool, wait: LabelWait | None = None) -> None:
    """Prints what was done, tells Prefect of a label that was moved, if it is there to be told, and waits if asked to.

    What Prefect is told is true from the move on; the JSON document waits for the servers.
    """
    waits = wait is not None and not change["dry_run"]
    if not as_json:
        click.echo(change_sentence(change))
        if change["dry_run"]:
            click.echo(_NOTHING_CHANGED, err=True)
    elif not waits:
        print_json(change if wait is None else {**change, "agents": []})
    tell_prefect(change)
    if wait is not None and waits:
        agents = wait.until_served(change)
        if as_json:
            print_json({**change, "agents": agents})
