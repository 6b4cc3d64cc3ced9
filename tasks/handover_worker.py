"""The worker's side of a hand-over: takes a staged candidate, converts it, and brings the result back.

Every byte is held against the request before anything is loaded. The result is written last, and only while
somebody still waits: who gave up has removed the staging, and nothing is brought back into it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from model_registry.errors import ConflictError, ConversionError, NotFoundError, SlipwayError
from model_registry.fetching import fetch
from model_registry.identity import library_versions
from model_registry.patience import insist
from model_registry.payload import payload_files
from model_registry.servable import PayloadFile, Run, Variant
from model_registry.spec import PackageSpec, require_server_trust
from model_registry.storage import ObjectStore
from tasks.conversion import Candidate, Converted, convert
from tasks.handover_documents import (
    ConvertedDocument,
    ErrorDocument,
    HandoverRequest,
    HandoverResult,
    Pulse,
    Staging,
    in_upload_order,
)
from tasks.stage import stage

BEAT = 5.0  # seconds from one pulse to the next

log = logging.getLogger("slipway")


def convert_staged(
    store: ObjectStore, run: str, workspace: Path, *, made_by: Run, rehearsal: bool, trusted: bool = False
) -> Converted:
    """Converts what was staged under a run's name, and tells whoever waits what came of it.

    Args:
        store: The registry's.
        run: Of the hand-over.
        workspace: An empty directory.
        made_by: Who converts.
        rehearsal: Whether to go without GPU and TensorRT.
        trusted: Whether the operator granted what the staged spec asks for; the staging itself proves nothing.

    Raises:
        NotFoundError: If nothing is staged there.
        ConversionError: If the conversion failed; whoever waits was told.
        SlipwayError: Whatever else failed, likewise.
    """
    staging = Staging(run)
    try:
        request = HandoverRequest.from_json(store.get(staging.request).data, key=staging.request)
    except NotFoundError:
        raise NotFoundError(
            f"nothing is staged to be converted at {store.uri_of(staging.root)}",
            hint="the run that asked for it is over; package the model again, or slipway convert MODEL:VERSION",
        ) from None
    with _pulse(store, staging, Pulse(made_by, secrets.token_hex(16))):
        try:
            require_server_trust(PackageSpec.parse(request.spec), trusted)
            candidate = _fetch(store, staging, request, workspace)
            converted = convert(candidate, workspace / "conversion", rehearsal=rehearsal)
            _bring_back(store, staging, converted)
        except SlipwayError as error:
            with contextlib.suppress(SlipwayError):  # its pulse will stop, and that is noticed too
                _tell(store, staging, HandoverResult(error=ErrorDocument.of(error)))
            raise
    return converted


# Not again: whoever waits was told, and the run is taken.
convert_staged_task = stage(convert_staged, "convert").with_options(retries=0)


def fetch_files(store: ObjectStore, prefix: str, files: tuple[PayloadFile, ...], destination: Path) -> Path:
    """Brings files here and holds each against its digest.

    Raises:
        ConversionError: If one is not what it should be, or gone.
        StorageError: If the store fails.
    """

    def damaged(file: PayloadFile, found: str) -> ConversionError:
        return ConversionError(
            f"{store.uri_of(prefix + file.path)} is not what was handed over: expected {file.bytes:,} bytes, "
            f"sha256 {file.sha256[:12]}, found {found}",
            hint="see who writes into the registry's staging/, and whether the store loses data",
        )

    fetch(store, prefix, files, destination, damaged)
    return destination


def _fetch(store: ObjectStore, staging: Staging, request: HandoverRequest, workspace: Path) -> Candidate:
    ours = library_versions().get("tensorflow", "none")
    if ours.split(".")[:2] != request.tensorflow.split(".")[:2]:
        raise ConversionError(
            f"this worker has TensorFlow {ours}, expected {request.tensorflow}, which the model was exported with",
            hint="install the same version of slipway[pipeline] on both",
        )
    bring = partial(fetch_files, store)
    samples = bring(staging.files("samples"), request.samples, workspace / "samples") if request.samples else None
    return Candidate(
        model=request.model,
        saved_model=bring(staging.files("native"), request.native, workspace / "native"),
        cases=bring(staging.files("cases"), request.cases, workspace / "cases"),
        signatures=request.signatures,
        records=request.records,
        rows=request.rows,
        answers=request.answers,
        spec=PackageSpec.parse(request.spec),
        samples=samples / request.samples[0].path if samples else None,
    )


def _bring_back(store: ObjectStore, staging: Staging, converted: Converted) -> None:
    files = in_upload_order(payload_files(converted.directory)) if converted.passed else ()
    _require_waiting(store, staging)
    if files:  # what failed a check is of no use to anybody
        store.upload_tree(converted.directory, staging.files("converted"), files)
    variant = Variant(converted.variant, files, converted.accelerator)
    _tell(store, staging, HandoverResult(ConvertedDocument(variant, converted.checks, converted.stages)))


def _tell(store: ObjectStore, staging: Staging, result: HandoverResult) -> None:
    _require_waiting(store, staging)
    insist(lambda: store.put_new(staging.result, result.to_json()), lambda attempt: time.sleep(0.5 * 2**attempt))


def _require_waiting(store: ObjectStore, staging: Staging) -> None:
    try:
        store.head(staging.request)
    except NotFoundError:
        raise ConversionError(
            f"nobody waits for this conversion any more: {store.uri_of(staging.root)} is gone",
            hint="the run that asked for it was ended; nothing is left to do here",
        ) from None


@contextlib.contextmanager
def _pulse(store: ObjectStore, staging: Staging, pulse: Pulse) -> Iterator[None]:
    """Keeps the pulse going, from a thread of its own.

    Raises:
        ConflictError: If another worker has taken this run.
    """
    etag = _take(store, staging, pulse)
    done = threading.Event()

    def beat() -> None:
        current, tag = pulse, etag
        while not done.wait(BEAT):
            try:
                try:
                    tag = store.put_if_match(staging.pulse, current.next().to_json(), tag)
                    current = current.next()
                except ConflictError:  # a beat whose answer was lost, or a staging that is gone
                    found = store.get(staging.pulse)
                    current, tag = Pulse.from_json(found.data, key=staging.pulse), found.etag
                    if current.write_id != pulse.write_id:
                        return
            except NotFoundError:
                log.warning("the pulse of this conversion is gone: whoever asked for it does not wait any more")
                return
            except SlipwayError as error:
                log.warning("the pulse of this conversion could not be renewed: %s", error)

    # In the caller's context, from which Prefect learns whose log a line belongs to.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(beat,), name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _take(store: ObjectStore, staging: Staging, pulse: Pulse) -> str:
    try:
        return store.put_new(staging.pulse, pulse.to_json())
    except ConflictError:
        found = Pulse.from_json(store.get(staging.pulse).data, key=staging.pulse)
        raise ConflictError(
            f"flow run {found.worker.name!r} has taken this conversion already",
            hint="a conversion is never run twice; package the model again if that one died",
        ) from None
