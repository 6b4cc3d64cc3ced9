"""`slipway sync`: keeps the directory of a TensorFlow Serving as the labels of the registry want it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.agent_process import agent_process, listen_option, name_option, seconds_option
from flows.command import json_option, registry_option
from model_registry.errors import InvalidInputError
from model_registry.paths import check_label, check_model_name
from model_registry.serving.sync.sync_settings import SERVER, SyncSettings

if TYPE_CHECKING:
    from model_registry.serving.sync.sync_report import AgentReport

_DEFAULTS = SyncSettings(Path())
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _size(text: str) -> int:
    """Reads a number of bytes, such as `512M`."""
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)(?:i?B)?", text, re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{text!r} is no size: expected one like 512M or 2G")
    return int(found[1]) * _UNITS[found[2].upper()]


def _named(check: Callable[[str], str]) -> Callable[[str], str]:
    """Reads a name by the registry's own rule."""

    def read(text: str) -> str:
        try:
            return check(text)
        except InvalidInputError as error:
            raise click.BadParameter(error.message) from None

    return read


@click.command()
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "models",
    type=_named(check_model_name),
    metavar="M",
    multiple=True,
    help="Follow this model only; repeat it.",
)
@click.option(
    "--label", "labels", type=_named(check_label), metavar="L", multiple=True, help="Follow this label only; repeat it."
)
@click.option(
    "--variant",
    "variants",
    metavar="V",
    multiple=True,
    help="Bring this variant of a version; given again, the first that a version has. Default: native.",
)
@click.option("--once", is_flag=True, help="End once all is as it should be; without a server, once it may be started.")
@click.option("--server", metavar="URL", help=f"The server's REST interface.  [default: {SERVER}]")
@listen_option("127.0.0.1:8502")
@click.option("--base-path", metavar="P", default="", help="DEST as the server sees it.  [default: DEST]")
@name_option
@seconds_option("--interval", _DEFAULTS.interval, "Seconds from one look at the registry to the next.", least=0.1)
@seconds_option("--settle", _DEFAULTS.settle, "Seconds that the server needs to notice a new models.config.", least=0.1)
@seconds_option("--stagger", _DEFAULTS.stagger, "The longest to wait for this replica's turn to load a version.")
@seconds_option("--drain", _DEFAULTS.drain, "Seconds from the move of a label to the old version's leave.")
@seconds_option("--load-timeout", _DEFAULTS.load_timeout, "Seconds that loading a version may take.", least=1)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=_DEFAULTS.keep,
    show_default=True,
    metavar="N",
    help="Old versions of each model that stay on the disk, for a rollback.",
)
@click.option(
    "--reserve",
    type=_size,
    default="512M",
    show_default=True,
    metavar="SIZE",
    help="What stays free on the disk: a version that would take of it is not brought.",
)
@registry_option
@json_option
def sync(
    destination: Path, once: bool, listen: str, server: str | None, registry: str | None, as_json: bool, **options: Any
) -> None:
    """Bring what the labels name to the TensorFlow Serving that reads DEST, and keep doing so.

    Downloads each version, verifies every byte of it, and writes DEST/models.config, in the order that a running
    server accepts: a label moves once the server says that its new version is AVAILABLE. Start the server with
    --model_config_file=DEST/models.config --model_config_file_poll_wait_seconds=1
    --allow_version_labels_for_unavailable_models=true.

    With --once, before the server starts: it is to start with what it had AVAILABLE before, if every byte of it is
    still right, and the very first time with what the labels name. Exit code 1 if nothing can be served then; with
    --server, if what the labels name is not served in the end. 4 if another agent fills DEST.
    """
    from model_registry.registry import Registry
    from model_registry.serving.agent_server import parse_listen
    from model_registry.serving.sync.settling import is_well, settle
    from model_registry.serving.sync.sync_agent import SyncAgent
    from model_registry.serving.sync.sync_metrics import SyncMetrics

    given = {name: value for name, value in options.items() if value not in ("", ())}
    with agent_process(as_json=as_json) as process:
        settings = SyncSettings(destination, server=server or SERVER, **given)
        address, metrics = parse_listen(listen), SyncMetrics()
        process.agent = agent = SyncAgent(settings, Registry.open(registry), metrics=metrics)

        def work(stop: threading.Event) -> tuple[AgentReport, bool]:
            if server is not None and agent.server_answers():
                report = settle(agent, stop)
                return report, is_well(report)
            return agent.prepare(), True

        if once:
            process.once(work, otherwise="not everything is served as the labels want it")
        else:
            process.follow(agent, metrics, address, following=agent.report().registry)
