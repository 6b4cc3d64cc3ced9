"""`slipway package`: a trained model becomes a version, and a label follows it if one is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from flows.changes import change_document, change_sentence
from flows.command import json_option, print_json, registry_option, reporting_errors
from flows.label_events import tell_prefect
from flows.orchestrator import prepare_prefect, quiet_prefect

if TYPE_CHECKING:
    from model_registry.variants import VariantName
    from tasks.lookup import Rehearsal
    from tasks.package_request import PackageRequest
    from tasks.packaging_run import PackagingRun


@click.command()
@click.argument("source", required=False)
@click.option("--spec", type=click.Path(path_type=Path), help="A package.yaml. None is found by guessing.")
@click.option("--name", help="The model's name. Default: the spec's `model`, else the source's file name.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    help="What must be delivered, native or tensorrt-fp16; may be repeated. Default: what the spec names, else native, "
    "and tensorrt-fp16 where it can be converted.",
)
@click.option("--label", help="Let this label name the version, unless it ever named a higher one.")
@click.option(
    "--trust",
    is_flag=True,
    help="Grant what the spec asks for: custom_objects, unsafe_deserialization, an image, a running server.",
)
@click.option("--force", is_flag=True, help="Package anew even if nothing changed since the last version.")
@click.option("--dry-run", is_flag=True, help="Check the spec, the source and the registry; package nothing.")
@registry_option
@json_option
def package(  # noqa: PLR0913, PLR0917 - an option a parameter is how click has it
    source: str | None,
    spec: Path | None,
    name: str | None,
    variants: tuple[str, ...],
    label: str | None,
    trust: bool,
    force: bool,
    dry_run: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Load, export, warm up, validate, convert and publish a trained model.

    SOURCE is a .keras or .h5 file or a SavedModel directory, a path or an s3:// URI; it wins over
    the spec's.

    Exit code 4 if --label is refused; the version is published all the same.
    """
    from tasks.package_request import PackageRequest
    from tasks.packaging_run import begun_early

    with reporting_errors(as_json):
        request = PackageRequest(source, spec, name, registry, variants, trust, force, label)
        prepare_prefect()
        if dry_run:
            _dry_run(request, as_json)
            return
        with begun_early(request) as run:
            if run.begin().existing is not None:
                report = _reused(run)  # at once: there is nothing that a flow would do
            else:
                with quiet_prefect():
                    from flows.package_model import package_model

                    report = package_model(
                        source=source,
                        spec=spec,
                        name=name,
                        registry=registry,
                        variants=cast("tuple[VariantName, ...]", request.variants),  # which begun_early checked
                        trust=trust,
                        force=force,
                        label=label,
                    )
        if as_json:
            print_json(report)
        else:
            from flows.printing import print_package_report

            print_package_report(report)


def _reused(run: PackagingRun) -> dict[str, Any]:
    from flows.package_report import reuse_report
    from model_registry.state import Origin
    from tasks.following import follow

    report, existing, label = reuse_report(run), run.begin().existing, run.request.label
    if existing and label:
        report = report.labelled(label, follow(run.registry, existing, label, Origin.here()))
        assert report.label is not None
        tell_prefect(report.label)  # as the flow does, had there been one
    return report.as_json()


def _dry_run(request: PackageRequest, as_json: bool) -> None:
    """Tells what `package` would do, and does nothing of it."""
    from dataclasses import asdict

    from tasks.lookup import rehearse

    rehearsal = rehearse(request)
    spec, source, existing = rehearsal.loaded.spec, rehearsal.found.described, rehearsal.found.existing
    registry = rehearsal.registry.store.uri
    label = _label_of(rehearsal, request.label) if request.label else None
    if as_json:
        print_json(
            {
                "dry_run": True,
                "model": spec.model,
                "would": "reuse" if existing else "package",
                "version": existing.version if existing else None,
                "registry": registry,
                "source": asdict(source),
                "identity": rehearsal.found.identity,
                "variants": rehearsal.delivery.variants,
                "missing": rehearsal.delivery.missing,
                "spec": spec.model_dump(mode="json"),
                "label": label,
            }
        )
        return
    described = f"{source.uri} ({source.format}, {source.bytes:,} bytes, sha256 {source.sha256[:12]})"
    if existing:
        click.echo(f"would reuse {existing.model}:{existing.version} in {registry}: made from the same {described}")
    else:
        click.echo(f"would package {described} as the next version of {spec.model} in {registry}")
    click.echo(f"variants: {', '.join(rehearsal.delivery.variants)}")
    for name, reason in rehearsal.delivery.missing.items():
        click.echo(f"{name} would be left out: {reason}")
    if label:
        click.echo(change_sentence(label))
    click.echo("dry run: the model was not loaded, and nothing was published", err=True)


def _label_of(rehearsal: Rehearsal, label: str) -> dict[str, Any]:
    """What would become of a label; the version it would name is null where its number is not known yet."""
    from model_registry.state import Origin, Transition

    registry, model, existing = rehearsal.registry, rehearsal.loaded.spec.model, rehearsal.found.existing
    if existing is None:
        now = registry.state(model).labels.get(label)
        asked = Transition("follow", label, from_version=now)
        return change_document(registry.store.uri, model, None, asked=asked, dry_run=True)
    asked = Transition("follow", label, from_version=existing.version, to_version=existing.version)
    record = registry.follow(existing, label, origin=Origin.here(), dry_run=True)
    return change_document(registry.store.uri, model, record, asked=asked, dry_run=True)
