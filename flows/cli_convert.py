"""`slipway convert`: TensorRT FP16 for a published version, and what to expect of it before a GPU is paid for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.command import error_document, json_option, print_json, registry_option, reporting_errors
from flows.orchestrator import quiet_prefect

if TYPE_CHECKING:
    from tasks.estimation import Estimate

_SUFFIXES = (".keras", ".h5", ".hdf5")


@click.command()
@click.argument("source", metavar="SOURCE")
@click.option("--dry-run", is_flag=True, help="Estimate on this machine's CPU what FP16 would do; convert nothing.")
@click.option("--spec", type=click.Path(path_type=Path), help="A package.yaml, for the dry run of a model file.")
@click.option("--trust", is_flag=True, help="Grant what the spec asks for: code of the model's, an image, a server.")
@click.option("--label", help="Let this label name the new version, unless it ever named a higher one.")
@click.option("--force", is_flag=True, help="Convert anew even if nothing changed since the last conversion.")
@registry_option
@json_option
def convert(
    source: str,
    dry_run: bool,
    spec: Path | None,
    trust: bool,
    label: str | None,
    force: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Convert a published version with TF-TRT, into a new version that has both variants.

    SOURCE is MODEL:VERSION or MODEL@LABEL; with --dry-run also a .keras or .h5 file or a SavedModel
    directory, a path or an s3:// URI. What exists as a path is taken for one.

    The dry run needs no GPU. It has TF-TRT's own rewrite done, tries the segments in half precision, and
    exits with 3 if what it finds would not pass. Exit code 4 if --label is refused; the version is published all
    the same.
    """
    from model_registry.paths import check_label

    with reporting_errors(as_json):
        is_file = _is_file(source)
        _refuse_what_does_not_apply(source, is_file, dry_run, spec, trust)
        if label is not None:
            check_label(label)
        if dry_run:
            document, estimate = _of_file(source, spec, trust) if is_file else _of_version(source, registry)
            _tell(document, estimate, as_json)
            return
        with quiet_prefect():
            from flows.convert_version import convert_version

            report = convert_version(version=source, registry=registry, force=force, label=label, trust=trust)
        if as_json:
            print_json(report)
        else:
            from flows.printing import print_package_report

            print_package_report(report)


def _is_file(source: str) -> bool:
    """Whether SOURCE is a model file: what lies there is one, and so is what no version could be called."""
    return "/" in source or source.lower().endswith(_SUFFIXES) or Path(source).exists()


def _refuse_what_does_not_apply(source: str, is_file: bool, dry_run: bool, spec: Path | None, trust: bool) -> None:
    from model_registry.errors import InvalidInputError

    if is_file and not dry_run:
        raise InvalidInputError(
            f"{source} is a model file; only a published version can be converted",
            hint=f"slipway package {source} --variant tensorrt-fp16 publishes both variants at once; "
            "--dry-run estimates what would come of it",
        )
    if not is_file and (spec is not None or (trust and dry_run)):
        raise InvalidInputError(
            f"--spec is for a model file, and so is --trust in a dry run; {source} is a version: it has the spec it "
            "was packaged with",
            hint="leave them out, or package the model anew with another spec",
        )


def _of_file(source: str, spec: Path | None, trust: bool) -> tuple[dict[str, Any], Estimate]:
    from tasks.dry_conversion import estimate_source
    from tasks.package_request import PackageRequest

    loaded = PackageRequest(source=source, spec=spec, trust=trust).resolve()
    found = estimate_source(loaded, trust=trust)
    return {"source": loaded.spec.source, "model": loaded.spec.model, "version": None, "registry": None}, found


def _of_version(reference: str, registry: str | None) -> tuple[dict[str, Any], Estimate]:
    from model_registry.paths import Reference
    from model_registry.registry import Registry
    from tasks.dry_conversion import estimate_version

    asked = Reference.parse(reference)
    opened = Registry.open(registry)
    version = opened.get(asked)
    name = f"{version.model}:{version.version}"
    found = estimate_version(opened, version)
    return {"source": name, "model": version.model, "version": version.version, "registry": opened.store.uri}, found


def _tell(document: dict[str, Any], estimate: Estimate, as_json: bool) -> None:
    """Prints an estimate. One that failed ends in the error that says so, after the table of segments."""
    from flows.estimate_printing import print_rewritten, rewritten_document
    from flows.printing import print_checks

    checks = [asdict(check) for check in estimate.checks]
    refusal = estimate.refusal(document["source"])
    if as_json:
        print_json(
            {
                "dry_run": True,
                **document,
                "variant": "tensorrt-fp16",
                "verdict": "rejected" if refusal else "blessed",
                "estimate": rewritten_document(estimate.rewritten),
                "checks": checks,
                "seconds": estimate.seconds,
                **({"error": error_document(refusal)} if refusal else {}),
            }
        )
        if refusal:
            raise click.exceptions.Exit(refusal.exit_code)
        return
    print_rewritten(document["source"], estimate.rewritten)
    if refusal:
        raise refusal  # who reports it prints its checks
    print_checks(checks)
    click.echo("dry run: no engine was built, and nothing was changed", err=True)
