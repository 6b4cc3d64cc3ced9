"""`slipway verify`: whether what lies in the registry is what was published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from flows.command import error_document, json_option, print_json, registry_option, reporting_errors

if TYPE_CHECKING:
    from model_registry.errors import SlipwayError
    from model_registry.registry import Registry
    from model_registry.servable import ServableVersion
    from model_registry.verification import Problem, Verification

_SHOWN_PROBLEMS = 20


@click.command()
@click.argument("references", metavar="[MODEL[:VERSION|@LABEL]]...", nargs=-1)
@click.option("--all", "all_versions", is_flag=True, help="Every version of each MODEL, or of all models.")
@registry_option
@json_option
def verify(references: tuple[str, ...], all_versions: bool, registry: str | None, as_json: bool) -> None:
    """Hold every file of a version against its manifest.

    All of them are read back. With --all also those of retired versions that are still there, and whether
    a model's labels, history and manifests agree with each other.

    Exit code 1 if a file is missing, or is not what was published, or if documents contradict each other.
    """
    from model_registry.errors import StorageError
    from model_registry.registry import Registry
    from model_registry.verification import contradictions, verify_committed

    if not references and not all_versions:
        raise click.UsageError("expected a version, or --all")
    with reporting_errors(as_json):
        opened = Registry.open(registry)
        contradicting: list[tuple[str, str]] = []
        if all_versions:
            verified: list[Verification] = []
            for model in _models(opened, references):
                verified += _told(verify_committed(opened, model), as_json)
                found = contradictions(opened, model)
                contradicting += [(model, sentence) for sentence in found]
                if not found and not as_json:
                    click.echo(f"{model}: labels, history and manifests agree")
        else:
            verified = _told(_named(opened, references), as_json)
        failure = _failure(verified, contradicting)
        if as_json:
            document: dict[str, Any] = {"versions": [_document(verification) for verification in verified]}
            if all_versions:
                document["contradictions"] = [{"model": model, "message": found} for model, found in contradicting]
            if failure is not None:
                document["error"] = error_document(failure)
            print_json(document)
            if failure is not None:
                raise click.exceptions.Exit(StorageError.exit_code)
        elif failure is not None:
            raise failure
        elif not verified:
            click.echo(f"no version in {opened.store.uri}; `slipway package` publishes one", err=True)


def _named(registry: Registry, references: Sequence[str]) -> Iterator[Verification]:
    from model_registry.paths import Reference
    from model_registry.verification import Verification

    # All of them are looked up first: a misspelt name shall not wait for gigabytes to be hashed.
    for version in [registry.get(Reference.parse(reference)) for reference in references]:
        yield Verification(version.model, version.version, version, tuple(registry.verify(version)))


def _told(verifications: Iterable[Verification], quiet: bool) -> list[Verification]:
    """Tells of each that passed as soon as it is known."""
    told = []
    for verification in verifications:
        told.append(verification)
        if verification.version and verification.passed and not quiet:
            click.echo(f"{verification.model}:{verification.number} verified: {_weight(verification.version)}")
    return told


def _models(registry: Registry, references: Sequence[str]) -> list[str]:
    from model_registry.errors import InvalidInputError
    from model_registry.paths import Reference

    if not references:
        return registry.models()
    models = []
    for reference in map(Reference.parse, references):
        if reference != Reference(reference.model):
            raise InvalidInputError(
                f"--all reads every version: expected a model such as {reference.model!r}, found {str(reference)!r}"
            )
        if not registry.committed(reference.model):
            raise registry.no_such_version(reference, None)
        models.append(reference.model)
    return models


def _weight(version: ServableVersion) -> str:
    from flows.printing import in_bytes

    files = sum(len(variant.files) for variant in version.variants)
    return f"{files} {'file' if files == 1 else 'files'}, {in_bytes(sum(item.bytes for item in version.variants))}"


def _failure(verified: Sequence[Verification], contradicting: Sequence[tuple[str, str]]) -> SlipwayError | None:
    """What to raise for a registry that does not hold what was published.

    A StorageError: the store no longer holds what it was given, and no other version's files are touched by it.
    """
    from flows.tables import printable
    from model_registry.errors import StorageError

    failed = [verification for verification in verified if not verification.passed]
    if not failed and not contradicting:
        return None
    lines, hints = [], []
    for verification in failed:
        problems, error = verification.problems, verification.error
        count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}" if problems else "its manifest"
        lines.append(f"{verification.model}:{verification.number} does not verify: {count}")
        lines += [f"  {_sentence(problem)}" for problem in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > _SHOWN_PROBLEMS:
            lines.append(f"  and {len(problems) - _SHOWN_PROBLEMS} more; --json lists them all")
        if verification.version:
            source = verification.version.source.uri
            hints.append(f"serve another version; restore the files, or package {source} again with --force")
        if error:
            lines.append(f"  {printable(error.message)}")
            hints.append(error.hint or "serve another version")
    for model, sentence in contradicting:
        lines.append(printable(f"the documents of {model} contradict each other: {sentence}"))
        hints.append("somebody else wrote into the registry; restore the documents of the model from a backup")
    return StorageError("\n".join(lines), hint=hints[0])


def _sentence(problem: Problem) -> str:
    from flows.tables import printable

    where = printable(f"{problem.variant}/{problem.path}")
    if problem.kind == "missing":
        return f"{where} is missing: expected {problem.expected}"
    if problem.kind == "extra":
        return f"{where} is not in the manifest: {problem.found}"
    if problem.kind == "size":
        return f"{where} has {problem.found}: expected {problem.expected}"
    return f"{where} has sha256 {problem.found[:12]}: expected {problem.expected[:12]}"


def _document(verification: Verification) -> dict[str, Any]:
    from dataclasses import asdict

    variants = verification.version.variants if verification.version else ()
    document = {
        "model": verification.model,
        "version": verification.number,
        "verified": verification.passed,
        "files": sum(len(variant.files) for variant in variants),
        "bytes": sum(variant.bytes for variant in variants),
        "problems": [asdict(problem) for problem in verification.problems],
    }
    return document | ({"error": error_document(verification.error)} if verification.error else {})
