"""`slipway render kubernetes`: prints the manifests that run a fleet file in a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from flows.command import json_option, print_json, registry_option, reporting_errors


def _image(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Holds an image against the rule that a package.yaml's is held against."""
    from pydantic import TypeAdapter, ValidationError

    from model_registry.spec_server import Image

    if value is not None:
        try:
            TypeAdapter(Image).validate_python(value)
        except ValidationError:
            raise click.BadParameter(f"{value[:100]!r} is no image: expected one such as registry/name:tag") from None
    return value


def _annotations(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if wrong := next((key for key, equals, _ in pairs if not equals), None):
        raise click.BadParameter(f"expected KEY=VALUE, found {wrong[:100]!r}")
    return {key: value for key, _, value in pairs}


def _image_option(name: str, text: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    return click.option(name, metavar="IMAGE", callback=_image, help=text)


@click.command()
@click.option(
    "--fleet",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="A fleet.yaml: which fleets there are, and what each gets.",
)
@click.option("--namespace", metavar="N", default="", help="Of all objects. Default: what kubectl is set to.")
@_image_option("--image-agent", "What deploy/sync-agent.Dockerfile was built as, where the cluster gets it.")
@_image_option("--image-server", "TensorFlow Serving. Default: its own 2.17.1, with CUDA where there are GPUs.")
@_image_option("--image-envoy", "Envoy. Default: the version that the gateway is tested with.")
@click.option(
    "--credentials",
    metavar="SECRET",
    default="",
    help="The name of a Secret that has AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what else the agents need: "
    "AWS_REGION, AWS_ENDPOINT_URL. Never what is in it.",
)
@click.option(
    "--service-account-annotation",
    "annotations",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_annotations,
    help="By which a cloud lends an identity: eks.amazonaws.com/role-arn=ARN. May be given again.",
)
@click.option(
    "--prometheus-namespace",
    "prometheus",
    metavar="N",
    default="monitoring",
    show_default=True,
    help="Whose pods may ask for metrics.",
)
@registry_option
@json_option
def kubernetes(  # noqa: PLR0913 - an option a parameter is how click has it
    *,
    fleet: Path,
    namespace: str,
    image_agent: str | None,
    image_server: str | None,
    image_envoy: str | None,
    credentials: str,
    annotations: dict[str, str],
    prometheus: str,
    registry: str | None,
    as_json: bool,
) -> None:
    """Print the manifests that run a fleet file in Kubernetes, 1.30 or later.

    For each fleet TensorFlow Serving with its agent, and what scales, spreads and guards it; before them the gateway.
    With SLIPWAY_PUBLIC_KEY set, the agents refuse manifests that it did not sign.
    """
    from model_registry.registry import Registry
    from model_registry.serving.fleet_file import load_fleet
    from model_registry.serving.kubernetes import whole
    from model_registry.serving.kubernetes.settings import AGENT_IMAGE, ENVOY_IMAGE, Settings
    from model_registry.signing import PUBLIC_KEY_VARIABLE

    with reporting_errors(as_json):
        file = load_fleet(fleet)
        opened = Registry.open(registry or file.registry)
        key = Path(os.environ[PUBLIC_KEY_VARIABLE]).read_text() if opened.verifier is not None else ""
        settings = Settings(
            registry=opened.store.uri,
            namespace=namespace,
            agent_image=image_agent or AGENT_IMAGE,
            server_image=image_server or "",
            envoy_image=image_envoy or ENVOY_IMAGE,
            credentials=credentials,
            annotations=annotations,
            public_key=key,
            prometheus=prometheus,
        )
        content = whole.render(file, settings)
        if as_json:
            objects = [manifest.name for manifest in whole.manifests(file, settings)]
            print_json({"what": "kubernetes", "content": content, "registry": settings.registry, "objects": objects})
        else:
            sys.stdout.write(content)
