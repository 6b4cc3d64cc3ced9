"""`slipway list` and `show`: what lies in the registry, and what tells one version from another."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click

from flows.command import json_option, print_json, registry_option, reporting_errors

if TYPE_CHECKING:
    from model_registry.registry import Registry
    from model_registry.servable import ServableVersion
    from model_registry.state import State


@click.command("list")
@click.argument("model", required=False)
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many versions to show at most."
)
@registry_option
@json_option
def list_(model: str | None, limit: int, registry: str | None, as_json: bool) -> None:
    """List the models, or the versions of MODEL, newest first."""
    from model_registry.registry import Registry

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        if model is None:
            _list_models(opened, as_json)
        else:
            _list_versions(opened, model, limit, as_json)


@click.command()
@click.argument("references", metavar="MODEL[:VERSION|@LABEL]...", nargs=-1, required=True)
@click.option("--diff", is_flag=True, help="Show what differs between two versions: --diff digits:2 digits@stable")
@registry_option
@json_option
def show(references: tuple[str, ...], diff: bool, registry: str | None, as_json: bool) -> None:
    """Show a version: labels, files, signatures, checks.

    Without number and label it is the newest one.
    """
    from model_registry.paths import Reference
    from model_registry.registry import Registry

    expected = 2 if diff else 1
    if len(references) != expected:
        raise click.UsageError(
            f"expected {'two versions with --diff' if diff else 'one version'}, found {len(references)}"
            + ("" if diff else "; --diff compares two")
        )
    with reporting_errors(as_json):
        parsed = [Reference.parse(reference) for reference in references]
        opened = Registry.open(registry)
        if diff:
            before, after = (opened.get(reference) for reference in parsed)
            _show_differences(before, after, as_json)
            return
        version, state = opened.with_state(parsed[0])
        document = version_document(opened, version, state)
        if as_json:
            print_json(document)
        else:
            from flows.printing import print_version

            print_version(version, document, rollout=_rollout(version.model, state))


def version_document(registry: Registry, version: ServableVersion, state: State) -> dict[str, Any]:
    """A manifest as `--json` prints it: with the verdict, its labels, and each variant's uri, bytes and digest."""
    from model_registry import paths

    document: dict[str, Any] = json.loads(version.to_json())
    for item, variant in zip(document["variants"], version.variants, strict=True):
        item["uri"] = registry.store.uri_of(paths.payload(version.model, variant.name, version.version))
        item["bytes"] = variant.bytes
        item["digest"] = variant.digest
    document["blessing"]["verdict"] = version.blessing.verdict
    document["labels"] = list(state.labels_of(version.version))
    document["retired"] = version.version in state.retired
    document["traffic"] = _traffic(state)
    # With a key it was, or there would be no version to show.
    document["signature_checked"] = registry.verifier is not None
    return document


def _traffic(state: State) -> dict[str, Any] | None:
    from dataclasses import asdict

    return asdict(state.traffic) if state.traffic else None


def _rollout(model: str, state: State) -> str:
    from flows.rollout_sentences import rollout_under_way

    return rollout_under_way(model, state.traffic) if state.traffic else ""


def _show_differences(before: ServableVersion, after: ServableVersion, as_json: bool) -> None:
    from dataclasses import asdict

    from model_registry.comparison import differences

    names = [f"{version.model}:{version.version}" for version in (before, after)]
    found = differences(before, after)
    if as_json:
        print_json({"a": names[0], "b": names[1], "differences": [asdict(difference) for difference in found]})
    elif found:
        from flows.printing import print_differences

        print_differences(found, *names)
    else:
        click.echo(f"no differences between {names[0]} and {names[1]} but number, date and run")


def _list_models(registry: Registry, as_json: bool) -> None:
    models = registry.models()
    if as_json:
        print_json({"registry": registry.store.uri, "models": models})
        return
    if not models:
        click.echo(f"no model in {registry.store.uri}; `slipway package` publishes one", err=True)
    for name in models:
        click.echo(name)


def _list_versions(registry: Registry, model: str, limit: int, as_json: bool) -> None:
    from model_registry.paths import Reference

    state = registry.state(model)
    listing = registry.listing(model, state)
    if not listing:
        raise registry.no_such_version(Reference(model), None)
    now = datetime.now(timezone.utc)
    versions = [
        {
            "version": listed.version,
            "labels": list(listed.labels),
            "retired": listed.retired,
            "committed_at": (now - timedelta(seconds=listed.age)).isoformat(timespec="seconds"),
        }
        for listed in listing[:limit]
    ]
    if as_json:
        document = {"registry": registry.store.uri, "model": model, "versions": versions, "traffic": _traffic(state)}
        print_json(document)
        return
    from flows.printing import print_versions
    from flows.tables import printable

    print_versions(versions, now)
    if state.traffic:
        click.echo(printable(_rollout(model, state)))
    if len(listing) > limit:
        click.echo(f"the newest {limit} of {len(listing)}; --limit shows more", err=True)
