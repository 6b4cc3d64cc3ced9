"""`slipway gc`: retires old versions, and deletes what nobody needs any more."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from flows.command import error_document, json_option, print_json, registry_option, reporting_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_registry.collection import Failure, Plan, Report
    from model_registry.errors import SlipwayError
    from model_registry.garbage import Item

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(text: str) -> float:
    """Reads a duration."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", text)
    if not found:
        raise click.BadParameter(f"{text!r} is no duration: expected one like 90s, 30m, 24h or 7d")
    return float(found[1]) * _UNITS[found[2]]


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="First retire all but the N newest versions of each model, and those that a label names or may be rolled "
    "back to. Default: retire none.",
)
@click.option(
    "--grace",
    type=_seconds,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long ago a version must have been retired, or an abandoned upload last been written to, such as 30m "
    "or 7d. With 0 uploads that are under way fail; what is committed stays safe.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask. Without a terminal nobody is asked.")
@registry_option
@json_option
def gc(
    models: tuple[str, ...],
    keep: int | None,
    grace: float,
    dry_run: bool,
    yes: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Delete what nobody needs any more: of each MODEL, or of the whole registry.

    That is versions that were retired, uploads that were never finished and, for the whole registry, the
    staging directories and temporary files of runs that ended early. What a label names or may be
    rolled back to stays, and so does whatever is younger than --grace: a version that --keep retires
    now is deleted by a later run.

    Exit code 1 if something could not be read or deleted; the rest is done all the same.
    """
    from model_registry.collection import collect, plan
    from model_registry.registry import Registry
    from model_registry.state import Origin

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        planned = plan(opened, models or None, keep=keep, grace=grace)
    asking = bool(planned.items) and not (dry_run or yes) and sys.stdin.isatty() and sys.stderr.isatty()
    if asking:  # where no progress is shown, which would draw over the question
        if not as_json:
            _show(planned)
        click.confirm(f"{_summary(planned.items)} in {opened.store.uri}: go on?", err=True, abort=True)
    with reporting_errors(as_json):
        found = planned if dry_run else collect(opened, planned, origin=Origin.here())
        if as_json:
            print_json(_document(found, dry_run=dry_run, registry=opened.store.uri))
            if found.failures:
                raise click.exceptions.Exit(1)
            return
        if not asking:
            _show(found)
        _tell(found, opened.store.uri, dry_run=dry_run)
        if found.failures:
            raise _failure(found.failures)


def _show(found: Plan | Report) -> None:
    from datetime import datetime, timedelta, timezone

    from flows.printing import age, in_bytes
    from flows.tables import add_row, new_table, print_rich, printable

    if not found.items:
        return
    now = datetime.now(timezone.utc)
    table = new_table("KIND", "NAME", "FILES", "SIZE", "AGE", "WHY")
    for item in found.items:
        size = ("", "") if item.kind == "retire" else (item.files, in_bytes(item.bytes))
        since = age((now - timedelta(seconds=item.age)).isoformat(), now)
        add_row(table, item.kind, printable(item.name), *size, since, printable(item.why))
    print_rich(table)


def _tell(found: Plan | Report, registry: str, *, dry_run: bool) -> None:
    from flows.tables import printable

    for note in found.notes:
        click.echo(f"kept {printable(note.name)}: {printable(note.why)}", err=True)
    if not found.items:
        click.echo(f"no garbage in {registry}", err=True)
    else:
        click.echo(f"{'would be done' if dry_run else 'done'}: {_summary(found.items)}", err=True)
    if dry_run:
        click.echo("dry run: nothing was changed", err=True)


def _summary(items: Sequence[Item]) -> str:
    from flows.printing import in_bytes

    retired = sum(item.kind == "retire" for item in items)
    deleted = [item for item in items if item.kind != "retire"]
    parts = [f"retire {retired} {'version' if retired == 1 else 'versions'}"] if retired else []
    if deleted:
        files = sum(item.files for item in deleted)
        size = in_bytes(sum(item.bytes for item in deleted))
        parts.append(f"delete {files} {'file' if files == 1 else 'files'}, {size}")
    return "; ".join(parts)


def _failure(failures: Sequence[Failure]) -> SlipwayError:
    from flows.tables import printable
    from model_registry.errors import StorageError

    lines = [f"{printable(failure.name)}: {failure.error.message}" for failure in failures]
    hint = next((failure.error.hint for failure in failures if failure.error.hint), None)
    return StorageError("\n".join(["not everything could be collected", *lines]), hint=hint or "run it again later")


def _document(found: Plan | Report, *, dry_run: bool, registry: str) -> dict[str, Any]:
    from dataclasses import asdict

    deleted = [item for item in found.items if item.kind != "retire"]
    document: dict[str, Any] = {
        "dry_run": dry_run,
        "registry": registry,
        "retired": [
            {"model": item.model, "version": item.version, "why": item.why}
            for item in found.items
            if item.kind == "retire"
        ],
        "deleted": [asdict(item) | {"age": round(item.age)} for item in deleted],
        "kept": [asdict(note) for note in found.notes],
        "failed": [{"name": failure.name, **error_document(failure.error)} for failure in found.failures],
        "bytes": sum(item.bytes for item in deleted),
    }
    if found.failures:
        document["error"] = error_document(_failure(found.failures))
    return document
