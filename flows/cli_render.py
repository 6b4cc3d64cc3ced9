"""`slipway render`: prints what TensorFlow Serving reads beside its models, and how to run it with an agent."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli_render_gateway import envoy
from flows.cli_render_kubernetes import kubernetes
from flows.cli_render_monitoring import alerts, grafana, prometheus
from flows.command import json_option, print_json, registry_option, reporting_errors
from model_registry.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from model_registry.registry import Registry
    from model_registry.serving.model_config import ServedModel

_MEMORY = re.compile(r"[1-9][0-9]*[bkmg]", re.IGNORECASE)

_model_option = click.option(
    "--model", "models", metavar="M", multiple=True, help="Of this model only; may be given again."
)
_label_option = click.option(
    "--label", "labels", metavar="L", multiple=True, help="By this label only; may be given again."
)


@click.group()
def render() -> None:
    """Print the files that servers, gateway and monitoring read, or all that runs them on a machine or a cluster."""


@render.command("tf-serving")
@_model_option
@_label_option
@click.option(
    "--base-path",
    metavar="P",
    default="/models",
    show_default=True,
    help="The directory that a sync agent fills, as the server sees it.",
)
@registry_option
@json_option
def tf_serving(
    models: tuple[str, ...], labels: tuple[str, ...], base_path: str, registry: str | None, as_json: bool
) -> None:
    """Print a models.config of what the labels name now.

    To look at, or for a server without an agent: the agent writes its own, in the order that a running server takes.
    """
    from model_registry.registry import Registry
    from model_registry.serving.model_config import to_text

    with reporting_errors(as_json):
        opened = Registry.open(registry)
        served = _labelled(opened, models, labels, base_path.rstrip("/"))
        # Whoever finds it should not take it for the agent's own, nor should the agent.
        content = "# Written by slipway render, of what the labels named then.\n" + to_text(served).partition("\n")[2]
        told = {model.name: {"versions": list(model.versions), "labels": dict(model.labels)} for model in served}
        _print("tf-serving", content, as_json, registry=opened.store.uri, models=told)


@render.command()
@click.argument("reference", metavar="[MODEL[:VERSION|@LABEL]]", required=False)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="How many batches run at once, of all models together. Default: a thread for each CPU of the server.",
)
@registry_option
@json_option
def batching(reference: str | None, threads: int | None, registry: str | None, as_json: bool) -> None:
    """Print the server's batching parameters, or those of one version.

    The server's go to --batching_parameters_file, beside --enable_batching and --enable_per_model_batching_parameters.
    A version has its own already, beside its saved_model.pb.
    """
    from model_registry.serving import batching as parameters

    if reference is None:
        _print("batching", parameters.whole_server(threads=threads), as_json)
        return
    if threads is not None:
        raise click.UsageError("--threads is the whole server's: leave it out, or the version")
    from model_registry.paths import Reference
    from model_registry.registry import Registry

    with reporting_errors(as_json):
        version = Registry.open(registry).get(Reference.parse(reference))
        name = f"{version.model}:{version.version}"
        if obstacle := parameters.obstacle(version.signatures, version.batch_sizes):
            raise InvalidInputError(
                f"no server batches requests to {name}: {obstacle}",
                hint="it is served as it is, each request by itself; a server that batches others leaves it alone",
            )
        content = parameters.per_version(version.batch_sizes)
        _print("batching", content, as_json, model=version.model, version=version.version)


@render.command()
@json_option
def monitoring(as_json: bool) -> None:
    """Print the file for --monitoring_config_file, without which the server has no metrics."""
    from model_registry.serving.monitoring import monitoring_config

    _print("monitoring", monitoring_config.config(), as_json, path=monitoring_config.PATH)


def _memory(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise click.BadParameter(f"expected a number and b, k, m or g, such as 4g, found {value!r}")
    return value


@render.command()
@_model_option
@_label_option
@click.option(
    "--variant", "variants", metavar="V", multiple=True, help="What the agent brings, in order. Default: native."
)
@click.option("--gpu", is_flag=True, help="Run the GPU image, and reserve a GPU.")
@click.option("--batching", is_flag=True, help="Merge requests that wait, each model up to its batch sizes.")
@click.option(
    "--gateway",
    is_flag=True,
    help="Run two servers, of the labels stable and canary, an Envoy before them, and a Prometheus.",
)
@click.option("--memory", default="4g", show_default=True, callback=_memory, help="What the server may use at most.")
@click.option(
    "--image",
    default="slipway-sync-agent",
    show_default=True,
    help="What deploy/sync-agent.Dockerfile was built as.",
)
@registry_option
@json_option
def compose(  # noqa: PLR0913 - an option a parameter is how click has it
    *,
    models: tuple[str, ...],
    labels: tuple[str, ...],
    variants: tuple[str, ...],
    gpu: bool,
    batching: bool,
    gateway: bool,
    memory: str,
    image: str,
    registry: str | None,
    as_json: bool,
) -> None:
    """Print a compose file: TensorFlow Serving, and an agent that follows the labels of the registry.

    Credentials are passed through from the environment of `docker compose`, and are not in the file.
    """
    from model_registry import paths
    from model_registry.registry import Registry
    from model_registry.serving.compose.deployment import Deployment
    from model_registry.serving.compose.whole import to_text
    from model_registry.signing import PUBLIC_KEY_VARIABLE

    if gateway and labels:
        raise click.UsageError("--gateway shares requests between stable and canary: leave it out, or --label")
    with reporting_errors(as_json):
        opened = Registry.open(registry)
        # Where manifests are held against a key here, the agent is not to trust the store either.
        key = str(Path(os.environ[PUBLIC_KEY_VARIABLE]).absolute()) if opened.verifier is not None else None
        deployment = Deployment(
            registry=opened.store.uri,
            models=tuple(map(paths.check_model_name, models)),
            labels=tuple(map(paths.check_label, labels)),
            variants=variants,
            gpu=gpu,
            batching=batching,
            memory=memory,
            agent_image=image,
            public_key=key,
            gateway=gateway,
        )
        if not deployment.remote and not Path(deployment.registry).is_dir():
            raise NotFoundError(
                f"there is no registry at {deployment.registry}",
                hint="name it by --registry; the agent reads it where it lies",
            )
        _print("compose", to_text(deployment), as_json, registry=deployment.registry)


def _labelled(
    registry: Registry, models: tuple[str, ...], labels: tuple[str, ...], base_path: str
) -> list[ServedModel]:
    """The models with a label; one that cannot be read fails the whole: without it, a server would unload it."""
    from model_registry import paths
    from model_registry.paths import Reference
    from model_registry.serving.model_config import ServedModel

    for label in labels:
        paths.check_label(label)
    served = []
    for name in sorted({*map(paths.check_model_name, models)} or registry.models()):
        state = registry.state(name)
        named = {label: version for label, version in state.labels.items() if not labels or label in labels}
        if named:
            served.append(ServedModel(name, f"{base_path}/models/{name}", tuple(sorted({*named.values()})), named))
        elif name in models:
            if not state.revision and not registry.listing(name):
                raise registry.no_such_version(Reference(name), None)
            raise NotFoundError(
                f"{name} has no label {' or '.join(labels)}".rstrip() + f" in {registry.store.uri}",
                hint=f"give it one: slipway promote {name}:VERSION {labels[0] if labels else 'stable'}",
            )
    if not served:
        raise NotFoundError(
            f"no model in {registry.store.uri} has a label {' or '.join(labels)}".rstrip(),
            hint="a server is told what labels name: slipway promote MODEL:VERSION LABEL",
        )
    return served


def _print(what: str, content: str, as_json: bool, **more: Any) -> None:
    if as_json:
        print_json({"what": what, "content": content, **more})
    else:
        sys.stdout.write(content)


render.add_command(prometheus)
render.add_command(alerts)
render.add_command(grafana)
render.add_command(kubernetes)
render.add_command(envoy)
