"""`slipway predict`: an answer from a published SavedModel, without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from flows.command import json_option, registry_option, reporting_errors
from model_registry.servable import NATIVE


@click.command()
@click.argument("reference", metavar="MODEL[:VERSION|@LABEL]")
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    help='.npz, or .json as {"instances": [...]} or {"inputs": {...}}. Default: the version\'s first warm-up record.',
)
@click.option("--signature", metavar="NAME", help="Which signature answers. Default: serving_default.")
@click.option("--variant", default=NATIVE, show_default=True, help="Which variant answers.")
@registry_option
@json_option
def predict(
    reference: str, inputs: Path | None, signature: str | None, variant: str, registry: str | None, as_json: bool
) -> None:
    """Ask a published version, as TensorFlow Serving would run it, in a process of its own."""
    from model_registry.paths import Reference
    from model_registry.registry import Registry
    from tasks.prediction import predict as answer

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        version = opened.get(Reference.parse(reference))
        prediction = answer(opened.store, version, signature=signature, inputs=inputs, variant=variant)
        name = prediction.signature.name
        if prediction.recorded:
            rows = "1 row" if prediction.rows == 1 else f"{prediction.rows} rows"
            click.echo(f"no --inputs: asked with the version's first warm-up record of {name}, {rows}", err=True)

        # They need numpy, which the answer has brought along.
        from flows.answers import answer_lines, rest_value

        if as_json:
            document = {
                "model": version.model,
                "version": version.version,
                "signature": name,
                "outputs": {key: rest_value(array) for key, array in prediction.outputs.items()},
            }
            # Answers are long lists: a line each number would bury them.
            sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        else:
            click.echo(f"{version.model}:{version.version} {name}")
            for line in answer_lines(prediction.outputs):
                click.echo(line)
