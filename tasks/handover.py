"""The requester's side of a hand-over: brings a candidate to a worker elsewhere, waits, and takes the variant back.

Both meet in `staging/<run>/` below the registry's root. The requester removes it at the end, whatever happens;
where it is killed, gc does.

What comes back is input like any other: the worker is trusted to run the model, its documents are not.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from model_registry.errors import ConversionError, FormatError, NotFoundError, SlipwayError
from model_registry.identity import library_versions
from model_registry.payload import WARMUP_REQUESTS, hash_files, walk_files
from model_registry.servable import Blessing, PayloadFile, Run, Signature
from model_registry.serving import batching
from model_registry.storage import ObjectStore
from model_registry.variants import REHEARSAL
from tasks.conversion import Candidate, Converted
from tasks.conversion_pool import Pool
from tasks.handover_documents import (
    ConvertedDocument,
    HandoverRequest,
    Staging,
    in_upload_order,
)
from tasks.handover_waiting import Waiting
from tasks.handover_worker import fetch_files
from tasks.model_process.client import ModelProcess
from tasks.model_process.conversion_messages import InspectPlan
from tasks.model_process.messages import (
    INSPECT,
    ValidatedCandidate,
)
from tasks.publication import rejection
from tasks.server_check import is_asked_for
from tasks.stage import stage

_NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}

log = logging.getLogger("slipway")


def hand_over(store: ObjectStore, pool: Pool, candidate: Candidate, workspace: Path, asked_by: Run) -> Converted:
    """Has a candidate converted by a worker elsewhere.

    Args:
        store: The registry's, which the worker reaches too.
        pool: Who is asked.
        candidate: What is to be converted.
        workspace: Where the variant is brought; is made.
        asked_by: The run that waits.

    Raises:
        ConversionError: If the worker failed, died, took too long, was cancelled, or sent what cannot be used.
        StorageError: If the store fails.
    """
    staging = Staging(uuid.uuid4().hex)
    with _removing(store, staging):
        native = _bring(store, staging, candidate, asked_by)
        limit, trusted = candidate.spec.timeouts.convert, candidate.trusted
        with Waiting(store, staging, pool, timeout=limit, trusted=trusted) as waiting:
            try:
                result = waiting.result()
            except FormatError as error:
                raise _refusal(waiting.name, error.message) from None
        where = f"{waiting.name} on work pool {pool.pool!r}"
        if result.error is not None:
            raise result.error.error(where)
        assert result.converted is not None
        served = is_asked_for(candidate.spec)
        if problem := check_converted(result.converted, candidate.signatures, native, served=served):
            raise _refusal(where, problem)
        return _take_back(store, staging, candidate, result.converted, workspace, where)


# Not again: a conversion is dear, and what can be waited for was waited for.
hand_over_task = stage(hand_over, "convert elsewhere").with_options(retries=0)


def check_converted(
    document: ConvertedDocument,
    signatures: Sequence[Signature],
    native: Sequence[PayloadFile],
    *,
    served: bool = False,
) -> str:
    """What in a worker's answer cannot be, or an empty text; pure.

    Args:
        document: What it says.
        signatures: What the variant must answer.
        native: The files of what it was made from.
        served: Whether it was to be tried in a server.
    """
    variant, checks = document.variant, document.checks
    expected = variant.accelerator.variant if variant.accelerator else REHEARSAL
    if variant.name != expected:
        return f"it is called {variant.name[:60]!r}, and by its accelerator it would be {expected!r}"
    if strange := {check.variant for check in checks} - {variant.name}:
        return f"it has checks of another variant, {min(strange)[:60]!r}"
    if not checks:
        return "it was not checked"
    if not all(check.passed for check in checks):
        return ""
    made = {check.check for check in checks}
    needed = [f"parity/{signature.name}/{output.name}" for signature in signatures for output in signature.outputs]
    if served:
        needed.append("server" if expected == REHEARSAL else "server/load")
    if missing := [name for name in (*needed, "engines", "signatures", "ops") if name not in made]:
        return f"it passed without the check {missing[0]!r}"
    for path, what in ((WARMUP_REQUESTS, "warm-up records"), (batching.FILE, "batching parameters")):
        if [file for file in native if file.path == path] != [file for file in variant.files if file.path == path]:
            return f"its {what} are not those of the native variant"
    return ""


def _bring(store: ObjectStore, staging: Staging, candidate: Candidate, asked_by: Run) -> tuple[PayloadFile, ...]:
    native = in_upload_order(_files(candidate.saved_model))
    cases = _files(candidate.cases)
    samples: tuple[PayloadFile, ...] = ()
    store.upload_tree(candidate.saved_model, staging.files("native"), native)
    store.upload_tree(candidate.cases, staging.files("cases"), cases)
    if candidate.samples is not None and candidate.spec.quality is not None:
        file = candidate.samples.resolve()  # the operator may have linked it
        samples = hash_files(file.parent, [file.name])
        store.upload_tree(file.parent, staging.files("samples"), samples)
    request = HandoverRequest(
        model=candidate.model,
        spec=candidate.spec.model_dump(mode="json"),
        signatures=candidate.signatures,
        records=candidate.records,
        rows=candidate.rows,
        answers=candidate.answers,
        native=native,
        cases=cases,
        samples=samples,
        asked_by=asked_by,
        tensorflow=library_versions().get("tensorflow", "none"),
    )
    store.put_new(staging.request, request.to_json())
    return native


def _take_back(
    store: ObjectStore,
    staging: Staging,
    candidate: Candidate,
    document: ConvertedDocument,
    workspace: Path,
    where: str,
) -> Converted:
    variant = document.variant
    converted = Converted(variant.name, workspace / "converted", variant.accelerator, document.checks, document.stages)
    if not converted.passed:
        return converted
    try:
        fetch_files(store, staging.files("converted"), variant.files, converted.directory)
    except NotFoundError as error:
        raise _refusal(where, error.message) from None
    _inspect(converted, candidate, workspace, where)
    return converted


def _inspect(converted: Converted, candidate: Candidate, workspace: Path, where: str) -> None:
    """Reads the graph in a process of its own: nothing of it runs here, where its engines could not either."""
    plan = InspectPlan(str(converted.directory), candidate.signatures, converted.variant)
    with ModelProcess(INSPECT, workspace / INSPECT, failure=ConversionError, settings=_NO_GPU) as process:
        process.tell(plan)
        inspected, _ = process.result("inspect", ValidatedCandidate, candidate.spec.timeouts.validation)
    if (blessing := Blessing(inspected.checks)).verdict != "blessed":
        raise _refusal(where, rejection(blessing))


def _refusal(where: str, problem: str) -> ConversionError:
    return ConversionError(
        f"{where} sent back what cannot be used: {problem}",
        hint="compare the versions of slipway on both sides, and see who can write into the registry's staging/",
    )


def _files(directory: Path) -> tuple[PayloadFile, ...]:
    return hash_files(directory, sorted(walk_files(directory)))


@contextlib.contextmanager
def _removing(store: ObjectStore, staging: Staging) -> Iterator[None]:
    """Removes the staging at the end, also where a signal ends this process; what fails is left for gc."""
    try:
        yield
    finally:
        try:
            store.delete([info.key for info in store.list(staging.root)])
        except SlipwayError as error:
            log.warning("%s is left for gc: %s", store.uri_of(staging.root), error)
