"""`slipway history`: who moved which label or retired which version, when and why."""

from __future__ import annotations

import click

from flows.changes import transition_document
from flows.command import json_option, print_json, registry_option, reporting_errors


@click.command()
@click.argument("model")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many transitions to show at most."
)
@click.option("--label", help="Only where this label was moved.")
@registry_option
@json_option
def history(model: str, limit: int, label: str | None, registry: str | None, as_json: bool) -> None:
    """Show who changed MODEL's labels, when and why.

    Newest first, with what was retired, and the flow run where one did it.
    """
    from model_registry.paths import Reference, check_label
    from model_registry.registry import Registry

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        if label is None:
            records = opened.history(model, limit + 1)
        else:
            check_label(label)
            records = [record for record in opened.history(model) if record.transition.label == label]
        if not records and not opened.committed(model):
            raise opened.no_such_version(Reference(model), None)
        shown = records[:limit]
        if as_json:
            transitions = [transition_document(record) for record in shown]
            print_json({"registry": opened.store.uri, "model": model, "transitions": transitions})
            return
        if not shown:
            name = f"{model}@{label}" if label else f"a label of {model}"
            click.echo(f"nobody ever moved {name}; `slipway promote` does", err=True)
            return
        from flows.printing import print_history

        print_history(shown)
        if len(records) > limit:
            click.echo(f"the newest {limit}; --limit shows more", err=True)
