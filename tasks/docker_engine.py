"""The Docker engine that tries candidates: found, asked for an image, and cleared of what a dead run left there.

It is the one that DOCKER_HOST names, as every Docker tool reads it, and must see this machine's files: a candidate is
mounted, never sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_registry.errors import InvalidInputError
from tasks.model_process.log_tail import printable

LABELS = {"slipway": "server-check"}
OWNER, EXPIRES = "slipway.owner", "slipway.expires"

# The engine answers most calls at once; creating and removing a container takes it seconds on a busy disk.
_ANSWER_WITHIN = 60
_PROBE_WITHIN = 5.0
_TELL_EVERY = 5.0  # seconds, of a pull
_REASON = 400  # characters

log = logging.getLogger("slipway")


def engine_address() -> str:
    """Where Docker's own tools would look for the engine."""
    from docker.constants import DEFAULT_UNIX_SOCKET

    return os.environ.get("DOCKER_HOST") or str(DEFAULT_UNIX_SOCKET).replace("http+unix://", "unix://")


@contextlib.contextmanager
def docker_engine(answer_within: float = _ANSWER_WITHIN) -> Iterator[Any]:
    """A connection to the engine, as a `docker.DockerClient`.

    Args:
        answer_within: Seconds that a single answer may take.

    Raises:
        InvalidInputError: If none answers, or the docker package is not installed.
    """
    try:
        import docker
    except ImportError:
        raise InvalidInputError(
            "a candidate cannot be tried in a container: the docker package is not installed",
            hint="pip install 'slipway[pipeline]'",
        ) from None
    address = engine_address()
    try:
        # First without docker's client: where nobody listens it leaves its socket open.
        if address.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_PROBE_WITHIN)
                probe.connect(address.removeprefix("unix://"))
        client = docker.from_env(timeout=answer_within)
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise _no_engine(address, error) from None
    try:
        yield client
    finally:
        client.close()


def failures() -> tuple[type[Exception], ...]:
    """What a call of the engine can raise."""
    import docker.errors
    import requests.exceptions

    return docker.errors.DockerException, requests.exceptions.RequestException, OSError


def reason(error: Exception) -> str:
    """What the engine says of a failure, in a line that may be shown."""
    words = str(getattr(error, "explanation", None) or error) or type(error).__name__
    return printable(" ".join(words.split())[:_REASON])


def require_image(client: Any, image: str) -> None:
    """Makes sure that an image is there; one that is not is pulled, and the log says so.

    Raises:
        InvalidInputError: If it is neither there nor can be had.
    """
    from docker.errors import ImageNotFound

    try:
        client.images.get(image)
    except ImageNotFound:
        pass
    except failures() as error:
        raise _no_image(image, error) from None
    else:
        return
    log.info("pull     %s is not on this machine yet", image)
    started = time.monotonic()
    try:
        _pull(client, image)
        client.images.get(image)
    except failures() as error:
        raise _no_image(image, error) from None
    log.info("pull     %5.1f s  %s", time.monotonic() - started, image)


def owner() -> str:
    """This process, so that no other can be taken for it: the machine's boot, its process namespace, id and start."""
    return _mark(os.getpid())


def sweep(client: Any) -> None:
    """Removes the containers of runs that are gone: killed, or on a machine that went down. What fails is only told.

    A run elsewhere, on another machine or in another container, is believed until its time is up; and so is this
    process, which may live long after a container that it could not remove.
    """
    try:
        found = client.api.containers(
            all=True, filters={"label": [f"{name}={value}" for name, value in LABELS.items()]}
        )
    except failures() as error:
        log.warning("note     containers of earlier runs could not be looked for: %s", reason(error))
        return
    for container in found:
        labels = container.get("Labels") or {}
        if _is_abandoned(labels.get(OWNER, ""), labels.get(EXPIRES, "")):
            log.info("note     removing container %s, whose run is gone", container["Id"][:12])
            remove(client, container["Id"])


def remove(client: Any, container: str) -> None:
    """Removes a container, running or not; one that is not there is fine, and what fails is only told."""
    from docker.errors import NotFound

    try:
        client.api.remove_container(container, force=True, v=True)
    except NotFound:
        return
    except failures() as error:
        if "already in progress" not in str(error):  # somebody else removes it
            log.warning("note     container %s is left for the next run: %s", container[:12], reason(error))


def _pull(client: Any, image: str) -> None:
    import docker.errors
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(image)
    layers: dict[str, tuple[int, int]] = {}
    told = time.monotonic()
    for event in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
        if "error" in event:
            raise docker.errors.APIError(str(event["error"]))
        progress = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and progress.get("total"):
            layers[str(event.get("id"))] = int(progress.get("current", 0)), int(progress["total"])
        if layers and time.monotonic() - told > _TELL_EVERY:
            told = time.monotonic()
            done, total = (sum(part) >> 20 for part in zip(*layers.values(), strict=True))
            log.info("pull     %s: %d of %d MiB", image, done, total)


def _is_abandoned(owned_by: str, expires: str) -> bool:
    here, _, process = owned_by.rpartition(":")
    pid = process.partition(".")[0]
    ours = owner()
    if here and here == ours.rpartition(":")[0] and pid.isdecimal() and owned_by != ours:
        return _mark(int(pid)) != owned_by
    return not expires.isdecimal() or int(expires) < time.time()


def _mark(pid: int) -> str:
    """`BOOT/NAMESPACE:PID.START`; a start of 0 is nobody's."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:  # no Linux; the time limit alone decides
        return ""
    try:
        # The command's name, in parentheses, may hold anything; the start is the 22nd field (proc_pid_stat(5)).
        start = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        start = "0"
    return f"{boot}/{namespace}:{pid}.{start}"


def _no_engine(address: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"the spec says `server: docker`, and no Docker engine answers at {address}: {reason(error)}",
        hint="start one, set DOCKER_HOST to it, or leave `server` out to package without this check",
    )


def _no_image(image: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"the image {image}, which the candidate is to be tried in, is not here and could not be pulled: "
        f"{reason(error)}",
        hint=f"see what `docker pull {image}` says on the engine's machine, load it there with `docker load`, "
        "or name another with `image`",
    )
