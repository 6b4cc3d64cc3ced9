"""The `slipway` command: parses, calls, prints.

Every import that takes time stands inside the command that needs it: `slipway --help` and
`slipway list` answer at once, without TensorFlow or Prefect.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli_doctor import doctor
from flows.cli_predict import predict
from flows.cli_registry import list_, show, verify
from flows.command import json_option, print_json, registry_option, reporting_errors
from flows.orchestrator import quiet_prefect
from model_registry import __version__

if TYPE_CHECKING:
    from tasks.package_request import PackageRequest


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="slipway")
def main() -> None:
    """From a trained Keras model to a servable that TensorFlow Serving loads.

    A model is named `digits`, `digits:3` or `digits@stable`. S3 is set up by the AWS_* variables
    and files that every AWS tool reads.

    Exit codes: 0 done, 1 error, 2 usage, 3 rejected by a check, 4 somebody else was first.
    """


@main.command()
@click.argument("source", required=False)
@click.option("--spec", type=click.Path(path_type=Path), help="A package.yaml. None is found by guessing.")
@click.option("--name", help="The model's name. Default: the spec's `model`, else the source's file name.")
@click.option("--variant", "variants", multiple=True, help="What must be delivered; may be repeated. Default: native.")
@click.option("--trust", is_flag=True, help="Grant what the spec asks for: custom_objects, unsafe_deserialization.")
@click.option("--force", is_flag=True, help="Package anew even if nothing changed since the last version.")
@click.option("--dry-run", is_flag=True, help="Check the spec, the source and the registry; package nothing.")
@registry_option
@json_option
def package(  # noqa: PLR0913, PLR0917 - an option a parameter is how click has it
    source: str | None,
    spec: Path | None,
    name: str | None,
    variants: tuple[str, ...],
    trust: bool,
    force: bool,
    dry_run: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Load, export, warm up, validate and publish a trained model.

    SOURCE is a .keras or .h5 file or a SavedModel directory, a path or an s3:// URI; it wins over
    the spec's.
    """
    from flows.package_report import reuse_report
    from tasks.package_request import PackageRequest
    from tasks.packaging_run import begun_early

    with reporting_errors(as_json):
        request = PackageRequest(source, spec, name, registry, variants or ("native",), trust, force)
        if dry_run:
            _dry_run(request, as_json)
            return
        with begun_early(request) as run:
            if run.begin().existing is not None:
                report = reuse_report(run).as_json()  # at once: there is nothing that a flow would do
            else:
                with quiet_prefect():
                    from flows.package_model import package_model

                    report = package_model(
                        source=source,
                        spec=spec,
                        name=name,
                        registry=registry,
                        variants=request.variants,
                        trust=trust,
                        force=force,
                    )
        if as_json:
            print_json(report)
        else:
            from flows.printing import print_package_report

            print_package_report(report)


def _dry_run(request: PackageRequest, as_json: bool) -> None:
    """Tells what `package` would do, and does nothing of it."""
    from dataclasses import asdict

    from tasks.lookup import rehearse

    rehearsal = rehearse(request)
    spec, source, existing = rehearsal.loaded.spec, rehearsal.found.described, rehearsal.found.existing
    registry = rehearsal.registry.store.uri
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
                "variants": request.variants,
                "spec": spec.model_dump(mode="json"),
            }
        )
        return
    described = f"{source.uri} ({source.format}, {source.bytes:,} bytes, sha256 {source.sha256[:12]})"
    if existing:
        click.echo(f"would reuse {existing.model}:{existing.version} in {registry}: made from the same {described}")
    else:
        click.echo(f"would package {described} as the next version of {spec.model} in {registry}")
    click.echo("dry run: the model was not loaded, and nothing was published", err=True)


main.add_command(list_)
main.add_command(show)
main.add_command(verify)
main.add_command(predict)
main.add_command(doctor)
