"""Package every trained model that the registry has not seen: what the schedule runs.

Each is packaged by a run of the deployment `package-model`, so that the work pool spreads the runs and Prefect shows
each of them. This run only looks, starts them and waits.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.artifacts import leave_new_models
from flows.awaited_run import UnfinishedRunError, start_run, wait_for_run
from model_registry.errors import NotFoundError, SlipwayError
from model_registry.provenance import Provenance, Seen
from model_registry.registry import Registry
from model_registry.storage import open_store
from model_registry.variants import VariantName
from tasks.scan import scan_task, source_digest
from tasks.scan_rules import (
    FolderOutcome,
    NewModel,
    became,
    counted,
    failed,
    failure_message,
    packaged,
    run_failed,
    same_digest,
    seen_before,
)
from tasks.stage import stage

logger = logging.getLogger("slipway")
# Under a worker nobody else sets a level, and what became of each folder would be dropped before it reaches Prefect.
logger.setLevel(logger.level or logging.INFO)


class NewModelsError(SlipwayError):
    """Some trained models were not packaged.

    Attributes:
        report: What became of all of them, as the flow returns it where nothing went wrong.
    """

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message, hint="see the flow run of each; a model that was refused is not tried again")
        self.report = report


@dataclass(frozen=True)
class _Order:
    """What each packaging has in common."""

    registry: Registry
    deployment: str
    parameters: dict[str, Any]
    longest: float
    stop: threading.Event


@flow(name="package-new-models", persist_result=False, validate_parameters=True)
def package_new_models(
    trained: str,
    registry: str | None = None,
    variants: tuple[VariantName, ...] = (),
    trust: bool = False,
    label: str | None = None,
    at_once: Annotated[int, Field(ge=1, le=64)] = 2,
    longest: Annotated[int, Field(ge=1, le=7 * 86_400)] = 6 * 3_600,
    deployment: str = "package-model/package-model",
) -> dict[str, Any]:
    """Packages every trained model that the registry has not seen, rejected ones included.

    Args:
        trained: The folder of all folders, s3://bucket/trained or a path. Every direct child folder with a package.yaml
            is a trained model; the trainer writes that file last.
        registry: A path or s3://bucket/prefix; SLIPWAY_REGISTRY or ./registry of this worker when left out.
        variants: What must be delivered of each. Left empty, `native` is, and `tensorrt-fp16` where it can be had.
        trust: Grants what the specs ask for: custom_objects, unsafe_deserialization, an image or a running server.
        label: Lets this label follow to each new version.
        at_once: How many are packaged at the same time.
        longest: How many seconds one packaging may take, the wait for a worker included. One that takes longer, such
            as on a machine that was lost, is cancelled, and tried again at the next look.
        deployment: What packages one, as FLOW/DEPLOYMENT.

    Returns:
        `{"trained", "registry", "folders": [{"folder", "verdict", "model", "version", "reason", "run"}]}`, a verdict
        being `packaged`, `seen before`, `rejected` or `failed`.

    Raises:
        NewModelsError: If any was rejected or failed, after the others were packaged. The message names them.
        NotFoundError: If there is no such folder or deployment.
        SlipwayError: If the folder or the registry cannot be read.
    """
    _require_deployment(deployment)
    opened = Registry.open(registry)
    root = open_store(trained).uri
    found = scan_task(root, opened, trust=trust)
    common = {"registry": opened.store.uri, "variants": list(variants), "trust": trust, "label": label}
    order = _Order(opened, deployment, common, longest, threading.Event())
    outcomes = list(found.known)
    for outcome in outcomes:
        _log(outcome)
    # Of its own, since how many run at once is a parameter of the flow.
    runner: ThreadPoolTaskRunner[FolderOutcome] = ThreadPoolTaskRunner(max_workers=at_once)
    with runner, _stopping(order.stop):
        futures = [
            (new, runner.submit(package_folder_task, {"new": new, "order": order, "seen": found.seen[new.model]}))
            for new in found.new
        ]
        for new, future in futures:
            future.wait()
            outcomes.append(_outcome_of(new, future.state.result(raise_on_failure=False)))
            _log(outcomes[-1])
    outcomes.sort(key=lambda outcome: outcome.folder)
    leave_new_models(root, outcomes)
    report = {"trained": root, "registry": opened.store.uri, "folders": [asdict(outcome) for outcome in outcomes]}
    if message := failure_message(outcomes):
        raise NewModelsError(message, report)
    logger.info("trained models in %s: %s", root, counted(outcomes))
    return report


@contextlib.contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Tells the threads when this run is ended by a signal or fails: the runner joins them, and they cancel theirs."""
    try:
        yield
    finally:
        stop.set()


class _NotPackagedError(SlipwayError):
    """A packaging did not complete; the task that waited for it shows that."""

    def __init__(self, outcome: FolderOutcome) -> None:
        super().__init__(outcome.sentence)
        self.outcome = outcome


def package_folder(new: NewModel, order: _Order, seen: Provenance) -> FolderOutcome:
    """Packages one trained model in a flow run of its own, unless its digest was seen before.

    Raises:
        SlipwayError: If it cannot be read, or the packaging did not complete.
    """
    if order.stop.is_set():
        raise _NotPackagedError(failed(new.folder, "not looked at any more: the run was ended", new.model))
    sha256 = source_digest(new.source)
    if before := seen.find(same_digest(sha256)):
        return seen_before(new, before)
    try:
        started = start_run(order.deployment, {**order.parameters, "spec": new.spec})
        run = wait_for_run(started, longest=order.longest, stop=order.stop)
    except UnfinishedRunError as error:
        raise _NotPackagedError(run_failed(new, error.message, error.run)) from None
    state = run.state
    if state is None or not state.is_completed():
        words = (state and (state.message or state.name)) or "nothing is known of it"
        raise _NotPackagedError(run_failed(new, words, run.name))
    return packaged(new, _version_of(new, order.registry, became(str(run.id), sha256)), run.name)


package_folder_task = stage(package_folder, "package").with_options(task_run_name="package {new.folder}")


def _version_of(new: NewModel, registry: Registry, matches: Callable[[Seen], bool]) -> int | None:
    try:
        made = Provenance(registry, new.model).find(matches)
    except SlipwayError as error:
        logger.warning("%s is packaged; which version it became cannot be told: %s", new.folder, error.message)
        return None
    return made.version if made else None


def _outcome_of(new: NewModel, result: Any) -> FolderOutcome:
    if isinstance(result, FolderOutcome):
        return result
    if isinstance(result, _NotPackagedError):
        return result.outcome
    words = result.message if isinstance(result, SlipwayError) else f"{type(result).__name__}: {result}"
    return failed(new.folder, words, new.model)


def _require_deployment(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(name)
        except (ObjectNotFound, ValueError):
            raise NotFoundError(
                f"there is no deployment {name!r}, which packages the models: expected FLOW/DEPLOYMENT",
                hint="create it with: prefect --no-prompt deploy --all",
            ) from None


def _log(outcome: FolderOutcome) -> None:
    logger.log(logging.WARNING if outcome.went_wrong else logging.INFO, "%s", outcome.sentence)
