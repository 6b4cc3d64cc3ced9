"""Tries a candidate in TensorFlow Serving itself, as the spec's `server` has it: loaded, warmed up, asked.

The checks of a Session (tasks.validation) stand before; these tell what only a server knows: that it takes the warm-up
file, that both its APIs answer what the trained model answers, how long a client waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from model_registry.errors import InvalidInputError, SlipwayError
from model_registry.servable import Check, Signature
from model_registry.spec import PackageSpec
from model_registry.spec_server import DOCKER, NO_SERVER, serving_image
from model_registry.variants import REHEARSAL
from tasks.docker_engine import docker_engine, require_image
from tasks.model_process.client import ModelProcess
from tasks.model_process.log_tail import printable
from tasks.model_process.messages import REPLAY, Tolerance, ValidatedCandidate
from tasks.model_process.replay_messages import LoadedByServer, ReplayPlan
from tasks.model_process.speed import RECORDED
from tasks.running_server import RunningServer, require_running_server, reserved
from tasks.serving_container import VERSION, ServingContainer

_NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}
_GRACE = 30.0  # seconds for the process to start and to tell, beyond what the server gets


@dataclass(frozen=True)
class Subject:
    """A candidate that was validated.

    Attributes:
        model: Its name.
        directory: The SavedModel.
        cases: The requests beyond its warm-up records, and the answers to all of them.
        answers: How many those are.
        records: How many warm-up records it has.
        signatures: What it answers.
        tolerance: The parity it is held to.
        variant: Whose checks they are.
        accelerated: Whether it has engines of a GPU.
    """

    model: str
    directory: Path
    cases: Path
    answers: int
    records: int
    signatures: tuple[Signature, ...]
    tolerance: Tolerance
    variant: str
    accelerated: bool = False


def is_asked_for(spec: PackageSpec) -> bool:
    """Whether a candidate is tried in a server at all."""
    return spec.server != NO_SERVER


def require_server(spec: PackageSpec, *, accelerated: bool = False) -> None:
    """Makes sure, before any long work, that what the check takes can be had; an image that is missing is pulled.

    Args:
        spec: The spec in force.
        accelerated: Whether the candidate will have engines of a GPU.

    Raises:
        InvalidInputError: If there is no engine, no image or no such server.
    """
    if spec.server == DOCKER:
        with docker_engine() as client:
            require_image(client, serving_image(spec.image, accelerated=accelerated))
    elif is_asked_for(spec):
        require_running_server(spec.server)


def check_in_server(
    subject: Subject, spec: PackageSpec, workspace: Path, *, failure: type[SlipwayError] = InvalidInputError
) -> tuple[tuple[Check, ...], float]:
    """Makes every check of a candidate in a server.

    Args:
        subject: The candidate.
        spec: The spec in force: `server`, `image`, and `timeouts.validate`, which loading and asking share.
        workspace: An existing directory for what the check needs.
        failure: What is raised for whatever keeps the check from being made.

    Returns:
        The checks, and the seconds they took.

    Raises:
        SlipwayError: As the caller named it, if there is no engine, no image, no such server, or it is lost.
    """
    started = time.monotonic()
    if not is_asked_for(spec):
        return (), 0.0
    if subject.variant == REHEARSAL:
        return (Check("server", REHEARSAL, "not run", RECORDED, True, "a rehearsal: no server loads it"),), 0.0
    try:
        checking = _in_container if spec.server == DOCKER else _in_running_server
        with ModelProcess(REPLAY, workspace / REPLAY, failure=failure, settings=_NO_GPU) as process:
            checks = checking(subject, spec, workspace, process)
    except InvalidInputError as error:
        if failure is InvalidInputError:
            raise
        raise failure(error.message, hint=error.hint) from None
    return checks, time.monotonic() - started


def _in_container(subject: Subject, spec: PackageSpec, workspace: Path, process: ModelProcess) -> tuple[Check, ...]:
    del workspace
    limit = spec.timeouts.validation
    image = serving_image(spec.image, accelerated=subject.accelerated)
    with docker_engine() as client:
        require_image(client, image)
        container = ServingContainer(
            client, image, subject.model, subject.directory, accelerated=subject.accelerated, limit=limit
        )
        started = time.monotonic()
        with container:
            problem = container.wait(started + limit)
            checks = [_load(subject, time.monotonic() - started, limit, problem, image)]
            if checks[0].passed:
                checks.append(_warmed_up(subject, container.warmup_records()))
                left = started + limit - time.monotonic()
                plan = _plan(subject, VERSION, left, container.grpc, rest=container.rest)
                with _with_its_end(container):
                    checks += _replayed(process, plan)
            if all(check.passed for check in checks):
                return tuple(checks)
            return _with_log(checks, container)


def _in_running_server(
    subject: Subject, spec: PackageSpec, workspace: Path, process: ModelProcess
) -> tuple[Check, ...]:
    limit = spec.timeouts.validation
    require_running_server(spec.server)
    with (
        reserved(spec.server, limit),
        RunningServer(spec.server, subject.model, subject.directory, workspace) as server,
    ):
        plan = _plan(subject, server.version, limit, server.grpc, base_path=str(server.base_path))
        process.tell(plan)
        loaded, _ = process.result("load", LoadedByServer, limit + _GRACE)
        where = f"the server at {spec.server}, by ReloadConfig; its log and its REST port are not known here"
        check = _load(subject, loaded.seconds, limit, printable(loaded.problem), where)
        return (check, *_replayed(process, plan, told=True)) if check.passed else (check,)


def _plan(
    subject: Subject,
    version: int,
    seconds: float,
    grpc: str,
    *,
    rest: str | None = None,
    base_path: str | None = None,
) -> ReplayPlan:
    return ReplayPlan(
        grpc=grpc,
        rest=rest,
        base_path=base_path,
        model=subject.model,
        version=version,
        candidate=str(subject.directory),
        cases=str(subject.cases),
        answers=subject.answers,
        signatures=subject.signatures,
        tolerance=subject.tolerance,
        variant=subject.variant,
        seconds=max(1.0, seconds),
    )


def _replayed(process: ModelProcess, plan: ReplayPlan, *, told: bool = False) -> tuple[Check, ...]:
    if not told:
        process.tell(plan)
    checks = process.result("replay", ValidatedCandidate, plan.seconds + _GRACE)[0].checks
    return tuple(replace(check, detail=printable(check.detail)) for check in checks)


def _load(subject: Subject, seconds: float, limit: float, problem: str, where: str) -> Check:
    if problem:
        return Check("server/load", subject.variant, "not AVAILABLE", limit, False, problem)
    seconds = round(seconds, 3)
    detail = f"seconds until AVAILABLE, of `timeouts.validate`; {where}"
    return Check("server/load", subject.variant, seconds, limit, seconds <= limit, detail)


def _warmed_up(subject: Subject, read: int | None) -> Check:
    told = "the server's log does not tell" if read is None else read
    detail = "records the server says that it read"
    return Check("server/warm-up records", subject.variant, told, subject.records, read == subject.records, detail)


@contextmanager
def _with_its_end(container: ServingContainer) -> Iterator[None]:
    """Tells of a server that ended while it was asked, which the process that asks cannot know."""
    try:
        yield
    except SlipwayError as error:
        if ended := container.end():
            error.message = f"{error.message}\n{ended}"
        raise


def _with_log(checks: list[Check], container: ServingContainer) -> tuple[Check, ...]:
    """The checks, the first that failed with what the server said last."""
    first = next(index for index, check in enumerate(checks) if not check.passed)
    said = [checks[first].detail, "" if checks[first].check == "server/load" else container.end()]
    detail = "; ".join(filter(None, said))
    checks[first] = replace(checks[first], detail=f"{detail}\nlast lines of the server's log:\n{container.log_tail()}")
    return tuple(checks)
