"""`slipway predict`: an answer from a published SavedModel without a server, or from a running TensorFlow Serving."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.command import json_option, registry_option, reporting_errors
from model_registry.servable import NATIVE

if TYPE_CHECKING:
    from tasks.prediction import Prediction

_TIMEOUT = 10.0


@click.command()
@click.argument("reference", metavar="MODEL[:VERSION|@LABEL]")
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    help='.npz, or .json as {"instances": [...]} or {"inputs": {...}}. Default: the version\'s first warm-up record.',
)
@click.option("--signature", metavar="NAME", help="Which signature answers. Default: serving_default.")
@click.option("--variant", metavar="NAME", help=f"Which variant answers. Default: {NATIVE}.")
@click.option("--server", metavar="HOST:PORT", help="Ask a running TensorFlow Serving, at its gRPC port.")
@click.option(
    "--tls-ca",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="With --server: speak TLS, and trust the certificates in this PEM file.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    help=f"With --server: how long each call may take. Default: {_TIMEOUT:g}.",
)
@registry_option
@json_option
def predict(  # noqa: PLR0913, PLR0917 - an option a parameter is how click has it
    reference: str,
    inputs: Path | None,
    signature: str | None,
    variant: str | None,
    server: str | None,
    tls_ca: Path | None,
    timeout: float | None,
    registry: str | None,
    as_json: bool,
) -> None:
    """Ask a published version, as TensorFlow Serving would run it, in a process of its own.

    With --server a running TensorFlow Serving is asked instead. The registry then takes no part if --inputs is given.
    """
    from model_registry.paths import Reference
    from model_registry.registry import Registry

    if server is None and (tls_ca is not None or timeout is not None):
        raise click.UsageError("--tls-ca and --timeout are for --server")
    if server is not None and variant is not None:
        raise click.UsageError("--variant is not for --server: a server has one variant of a version, its own")
    with reporting_errors(as_json):
        asked = Reference.parse(reference)
        if server is not None:
            from tasks.server_prediction import predict as ask_server

            version, prediction = ask_server(
                server,
                asked,
                lambda: Registry.open(registry),
                signature=signature,
                inputs=inputs,
                tls_ca=tls_ca,
                timeout=timeout or _TIMEOUT,
            )
        else:
            from tasks.prediction import predict as answer

            opened = Registry.open(registry)
            published = opened.get(asked)
            version = published.version
            prediction = answer(opened.store, published, signature=signature, inputs=inputs, variant=variant or NATIVE)
        _print(asked.model, version, prediction, as_json=as_json)


def _print(model: str, version: int, prediction: Prediction, *, as_json: bool) -> None:
    # They need numpy, which the answer has brought along.
    from flows.answers import answer_lines, rest_value
    from flows.tables import printable

    name = prediction.signature.name
    if prediction.recorded:
        rows = "1 row" if prediction.rows == 1 else f"{prediction.rows} rows"
        click.echo(f"no --inputs: asked with the version's first warm-up record of {printable(name)}, {rows}", err=True)
    if as_json:
        document = {
            "model": model,
            "version": version,
            "signature": name,
            "outputs": {key: rest_value(array) for key, array in prediction.outputs.items()},
        }
        # Answers are long lists: a line each number would bury them.
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        click.echo(f"{model}:{version} {printable(name)}")
        for line in answer_lines(prediction.outputs):
            click.echo(line)
