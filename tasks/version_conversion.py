"""Converting a published version: what it takes, and the new version that comes of it.

The trained model is not at hand: the native variant was held against it when it was published, and its own answers
to its warm-up records stand in for it now. Every check that compares says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from model_registry import paths
from model_registry.errors import ConflictError, ConversionError, RejectedError
from model_registry.identity import converted_identity, library_versions
from model_registry.paths import Reference
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.servable import (
    NATIVE,
    TENSORRT_FP16,
    Blessing,
    Check,
    Run,
    ServableVersion,
    Variant,
)
from model_registry.spec import PackageSpec, require_server_trust
from model_registry.variants import REHEARSAL
from tasks.conversion import Candidate
from tasks.conversion_outcome import ConversionOutcome
from tasks.delivery import Delivery
from tasks.handover_documents import in_upload_order
from tasks.handover_worker import fetch_files
from tasks.model_process.client import ModelProcess
from tasks.model_process.conversion_messages import AnswerPlan, RecordedAnswers
from tasks.publication import commit, rejection
from tasks.stage import stage

AGAINST_NATIVE = "against the native variant's own answers"

# What compares answers; the other checks measure the variant alone.
_COMPARING = ("parity/", "top1/", "server/grpc/", "server/rest/")


@dataclass(frozen=True)
class VersionConversion:
    """What is to be converted, and what is known before any work.

    Attributes:
        registry: Where the version lies, and the new one will.
        version: What is converted.
        spec: Its spec, with the settings of the conversion.
        delivery: Where it is converted.
        libraries: Versions of what converts it.
        identity: Of the new version.
        rehearsal_identity: The same, were the conversion only rehearsed.
        existing: The version that has what is asked for already, or None.
        superseded: Whether a version has this identity, and not what is asked for now.
        force: Whether a new one was asked for whatever there is.
        trust: The operator's grant to the version's spec.
    """

    registry: Registry
    version: ServableVersion
    spec: PackageSpec
    delivery: Delivery
    libraries: dict[str, str]
    identity: str
    rehearsal_identity: str
    existing: ServableVersion | None
    superseded: bool
    force: bool
    trust: bool

    @property
    def name(self) -> str:
        """As people name the version."""
        return f"{self.version.model}:{self.version.version}"


def look_up_version(reference: str, registry: str | None, *, force: bool, trust: bool = False) -> VersionConversion:
    """Finds the version and where it can be converted, and tells whether that was done already.

    Raises:
        InvalidInputError: If the reference is none, or the version's spec cannot be read, or asks for what was not
            granted.
        NotFoundError: If there is no such version.
        ConflictError: If it is retired.
        ConversionError: If nobody can convert.
        StorageError: If the registry cannot be read, or not be written.
    """
    asked = Reference.parse(reference)
    opened = Registry.open(registry)
    opened.check()
    version, state = opened.with_state(asked)
    if version.version in state.retired:
        raise ConflictError(
            f"{version.model}:{version.version} is retired, and may be deleted at any time: expected one that is not",
            hint=f"see which there are: slipway list {version.model}",
        )
    spec = _with_settings(PackageSpec.parse(version.spec))
    require_server_trust(spec, trust)
    delivery = Delivery.of((TENSORRT_FP16,), spec, opened.store.uri)
    libraries = library_versions()
    identified = partial(converted_identity, version.identity, settings=spec.variants.tensorrt, libraries=libraries)
    digest = identified(variants=delivery.variants)
    found = None
    if not force:
        found = version if delivery.found_in(version) else opened.find(version.model, digest)
    existing = found if found and delivery.found_in(found) else None
    return VersionConversion(
        registry=opened,
        version=version,
        spec=spec,
        delivery=delivery,
        libraries=libraries,
        identity=digest,
        rehearsal_identity=identified(variants=(NATIVE, REHEARSAL)),
        existing=existing,
        superseded=found is not None and existing is None,
        force=force,
        trust=trust,
    )


def fetch_native(conversion: VersionConversion, destination: Path) -> tuple[Variant, float]:
    """Brings the native variant here, each file held against the manifest.

    Returns:
        The variant, and the seconds it took.

    Raises:
        ConversionError: If a file is not what was published.
        StorageError: If the store fails.
    """
    started = time.perf_counter()
    version = conversion.version
    native = version.variant(NATIVE)
    if native is None:
        raise ConversionError(f"{conversion.name} has no {NATIVE} variant to be converted")
    prefix = paths.payload(version.model, NATIVE, version.version)
    fetch_files(conversion.registry.store, prefix, native.files, destination)
    return native, time.perf_counter() - started


def record_answers(
    conversion: VersionConversion, process: ModelProcess, saved_model: Path, cases: Path
) -> tuple[Candidate, float]:
    """Has the native variant answer its own warm-up records.

    Args:
        conversion: What is converted.
        process: One of the role ANSWER.
        saved_model: Where the native variant lies.
        cases: Where the answers go; is made.

    Returns:
        The candidate for the conversion, and the seconds it took.

    Raises:
        ConversionError: If it cannot answer them.
    """
    cases.mkdir()
    process.tell(AnswerPlan(str(saved_model), str(cases)))
    recorded, seconds = process.result("answer", RecordedAnswers, conversion.spec.timeouts.validation)
    process.end()
    candidate = Candidate(
        model=conversion.version.model,
        saved_model=saved_model,
        cases=cases,
        signatures=conversion.version.signatures,
        records=recorded.answers,
        rows=recorded.rows,
        answers=recorded.answers,
        spec=conversion.spec.model_copy(update={"quality": None, "samples": None}),  # no labels are published
        samples=None,
        trusted=conversion.trust,
    )
    return candidate, seconds


def publish_conversion(
    conversion: VersionConversion, native: Path, outcome: ConversionOutcome, made_by: Run
) -> tuple[ServableVersion, bool]:
    """Publishes the new version, if every check passed.

    Args:
        conversion: What was converted.
        native: The directory of the native variant; a local registry consumes it.
        outcome: What became of the conversion.
        made_by: Who publishes.

    Returns:
        The version, and whether it was there already.

    Raises:
        RejectedError: If a check failed; the registry remembers why.
        StorageError: If the store fails.
    """
    version, converted = conversion.version, outcome.converted
    kept = tuple(check for check in version.blessing.checks if check.variant == NATIVE)
    blessing = Blessing((*kept, *map(_against_native, outcome.checks)))
    rehearsed = converted is not None and converted.variant == REHEARSAL
    draft = replace(
        version,
        version=0,
        identity=conversion.rehearsal_identity if rehearsed else conversion.identity,
        created_at="",
        spec=conversion.spec.model_dump(mode="json"),
        variants=(),
        missing={},
        blessing=blessing,
        libraries=conversion.libraries,
        run=made_by,
        write_id="",
        signature=None,
    )
    if blessing.verdict == "rejected" or converted is None:
        reason = rejection(blessing)
        conversion.registry.record_rejection(draft, reason=reason)
        raise RejectedError(
            f"the conversion of {conversion.name} was rejected, nothing was published: {reason}",
            blessing=blessing,
            hint="the version itself stays as it is; the checks that failed say what differs",
        )
    kept_native = version.variant(NATIVE)
    assert kept_native is not None
    variants = (
        replace(kept_native, files=in_upload_order(kept_native.files)),
        Variant(converted.variant, payload_files(converted.directory), converted.accelerator),
    )
    payloads = {NATIVE: native, converted.variant: converted.directory}
    force = conversion.force or (conversion.superseded and not rehearsed)
    return commit(conversion.registry, replace(draft, variants=variants), payloads, force=force)


look_up_version_task = stage(look_up_version, "look up")
fetch_native_task = stage(fetch_native, "fetch")
record_answers_task = stage(record_answers, "answer")
publish_conversion_task = stage(publish_conversion, "publish")


def _with_settings(spec: PackageSpec) -> PackageSpec:
    """The spec as it would have been written to ask for the conversion."""
    variants = spec.variants.model_copy(update={"tensorrt_fp16": spec.variants.tensorrt})
    return spec.model_copy(update={"variants": variants})


def _against_native(check: Check) -> Check:
    if not check.check.startswith(_COMPARING):
        return check
    return replace(check, detail="; ".join(filter(None, (check.detail, AGAINST_NATIVE))))
