"""`slipway list`, `show` and `verify`: what lies in the registry, and whether it is what was published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from flows.command import json_option, print_json, registry_option, reporting_errors

if TYPE_CHECKING:
    from model_registry.registry import Problem, Registry
    from model_registry.servable import ServableVersion

_SHOWN_PROBLEMS = 20


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
@click.argument("reference", metavar="MODEL[:VERSION]")
@registry_option
@json_option
def show(reference: str, registry: str | None, as_json: bool) -> None:
    """Show a version: where it lies, what it answers, what was checked. Default: the newest."""
    from model_registry.paths import Reference
    from model_registry.registry import Registry

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        version = opened.get(Reference.parse(reference))
        document = version_document(opened, version)
        if as_json:
            print_json(document)
        else:
            from flows.printing import print_version

            print_version(version, {item["name"]: item["uri"] for item in document["variants"]})


@click.command()
@click.argument("references", metavar="MODEL[:VERSION]...", nargs=-1, required=True)
@registry_option
@json_option
def verify(references: tuple[str, ...], registry: str | None, as_json: bool) -> None:
    """Read every file of a version back and compare it with the manifest.

    Exit code 1 if a file is missing, or is not what was published.
    """
    from model_registry.errors import StorageError
    from model_registry.paths import Reference
    from model_registry.registry import Registry

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        # All of them are looked up first: a misspelt name shall not wait for gigabytes to be hashed.
        versions = [opened.get(Reference.parse(reference)) for reference in references]
        verified: list[tuple[ServableVersion, list[Problem]]] = []
        for version in versions:
            problems = opened.verify(version)
            verified.append((version, problems))
            if not problems and not as_json:
                click.echo(f"{version.model}:{version.version} verified: {_weight(version)}")
        failure = _failure(verified)
        if as_json:
            print_json(_verified_document(verified, failure))
            if failure is not None:
                raise click.exceptions.Exit(StorageError.exit_code)
        elif failure is not None:
            raise failure


def version_document(registry: Registry, version: ServableVersion) -> dict[str, Any]:
    """A manifest as `--json` prints it: with the verdict, and each variant's uri, bytes and digest."""
    from model_registry import paths

    document: dict[str, Any] = json.loads(version.to_json())
    for item, variant in zip(document["variants"], version.variants, strict=True):
        item["uri"] = registry.store.uri_of(paths.payload(version.model, variant.name, version.version))
        item["bytes"] = variant.bytes
        item["digest"] = variant.digest
    document["blessing"]["verdict"] = version.blessing.verdict
    return document


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
    from model_registry.paths import Reference, check_model_name

    versions = registry.versions(check_model_name(model), limit)
    if not versions:
        registry.get(Reference(model))  # says what there is instead
    if as_json:
        documents = [version_document(registry, version) for version in versions]
        print_json({"registry": registry.store.uri, "model": model, "versions": documents})
        return
    from flows.printing import print_versions

    print_versions(versions)
    if len(versions) == limit:
        click.echo(f"the newest {limit}; --limit shows more", err=True)


def _weight(version: ServableVersion) -> str:
    from flows.printing import in_bytes

    files = sum(len(variant.files) for variant in version.variants)
    return f"{files} {'file' if files == 1 else 'files'}, {in_bytes(sum(item.bytes for item in version.variants))}"


def _failure(verified: list[tuple[ServableVersion, list[Problem]]]) -> Exception | None:
    """What to raise for versions that are not what was published.

    A StorageError: the store no longer holds what it was given, and no other version's files are touched by it.
    """
    from model_registry.errors import StorageError

    damaged = [(version, problems) for version, problems in verified if problems]
    if not damaged:
        return None
    lines = []
    for version, problems in damaged:
        count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
        lines.append(f"{version.model}:{version.version} does not verify: {count}")
        lines += [f"  {_sentence(problem)}" for problem in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > _SHOWN_PROBLEMS:
            lines.append(f"  and {len(problems) - _SHOWN_PROBLEMS} more; --json lists them all")
    first = damaged[0][0]
    return StorageError(
        "\n".join(lines),
        hint=f"serve another version; restore the files, or package {first.source.uri} again with --force",
    )


def _sentence(problem: Problem) -> str:
    from flows.printing import printable

    where = printable(f"{problem.variant}/{problem.path}")
    if problem.kind == "missing":
        return f"{where} is missing: expected {problem.expected}"
    if problem.kind == "extra":
        return f"{where} is not in the manifest: {problem.found}"
    if problem.kind == "size":
        return f"{where} has {problem.found}: expected {problem.expected}"
    return f"{where} has sha256 {problem.found[:12]}: expected {problem.expected[:12]}"


def _verified_document(
    verified: list[tuple[ServableVersion, list[Problem]]], failure: Exception | None
) -> dict[str, Any]:
    from dataclasses import asdict

    from model_registry.errors import SlipwayError

    document: dict[str, Any] = {
        "versions": [
            {
                "model": version.model,
                "version": version.version,
                "verified": not problems,
                "files": sum(len(variant.files) for variant in version.variants),
                "bytes": sum(variant.bytes for variant in version.variants),
                "problems": [asdict(problem) for problem in problems],
            }
            for version, problems in verified
        ]
    }
    if isinstance(failure, SlipwayError):
        document["error"] = {"class": type(failure).__name__, "message": failure.message, "hint": failure.hint}
    return document
