"""Publish a blessed candidate as the model's next version, or record why it was refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from model_registry.errors import RejectedError
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.servable import NATIVE, Blessing, Check, Run, ServableVersion, Variant
from model_registry.variants import REHEARSAL
from tasks.conversion_outcome import ConversionOutcome
from tasks.model_process.messages import ExportedModel
from tasks.packaging_run import PackagingRun
from tasks.stage import stage


def publish(
    run: PackagingRun, exported: ExportedModel, blessing: Blessing, conversion: ConversionOutcome, made_by: Run
) -> tuple[ServableVersion, bool]:
    """Publishes the candidate, with what was converted of it, if every check passed.

    Args:
        run: The packaging; its processes are ended first, so that nobody writes any more.
        exported: Signatures and batch sizes.
        blessing: All checks, of every variant that is to be published.
        conversion: What became of the other variant.
        made_by: Who publishes.

    Returns:
        The version, and whether it was there already (another run of the same identity was first).

    Raises:
        RejectedError: If a check failed; the registry remembers why.
        StorageError: If the store fails.
    """
    run.end_processes()
    begun = run.begin()
    begun.check_unchanged()
    converted = conversion.converted
    rehearsed = converted is not None and converted.variant == REHEARSAL
    draft = ServableVersion(
        model=run.loaded.spec.model,
        version=0,
        identity=begun.rehearsal_identity if rehearsed else begun.identity,
        created_at="",
        source=begun.described,
        spec=run.loaded.spec.model_dump(mode="json"),
        signatures=exported.signatures,
        batch_sizes=exported.batch_sizes,
        variants=(),
        blessing=blessing,
        libraries=run.libraries,
        run=made_by,
        write_id="",
        missing=conversion.missing,
    )
    if blessing.verdict == "rejected":
        reason = rejection(blessing)
        run.registry.record_rejection(draft, reason=reason)
        raise RejectedError(
            f"{draft.model} was rejected, nothing was published: {reason}",
            blessing=blessing,
            hint="the checks that failed say what differs; see the table of checks",
        )
    payloads = {NATIVE: run.candidate}
    variants = [Variant(NATIVE, payload_files(run.candidate))]
    if converted is not None:
        payloads[converted.variant] = converted.directory
        variants.append(Variant(converted.variant, payload_files(converted.directory), converted.accelerator))
    # The version that a rehearsal could supersede has another identity.
    force = run.request.force or (begun.superseded and not rehearsed)
    return commit(run.registry, replace(draft, variants=tuple(variants)), payloads, force=force)


def commit(
    registry: Registry, draft: ServableVersion, payloads: Mapping[str, Path], *, force: bool
) -> tuple[ServableVersion, bool]:
    """Publishes a version; one of its identity that was committed meanwhile counts only if it has the same variants.

    Runs of one identity may deliver differently: to one of them a conversion was welcome, and failed.

    Args:
        registry: Where.
        draft: With its variants.
        payloads: Each variant's directory.
        force: Makes a new version whatever there is.

    Raises:
        ConflictError: If this publisher was taken for dead and given up.
        StorageError: If the store fails.
    """
    version, reused = registry.publish(draft, payloads, force=force)
    if reused and any(version.variant(variant.name) is None for variant in draft.variants):
        return registry.publish(draft, payloads, force=True)
    return version, reused


def rejection(blessing: Blessing) -> str:
    """The failed checks as a sentence; those of another variant than the native one name it."""
    return "; ".join(_sentence(check) for check in blessing.failures) or "no check was made"


def _sentence(check: Check) -> str:
    detail = f" ({check.detail})" if check.detail else ""
    variant = "" if check.variant == NATIVE else f"{check.variant}: "
    return f"{variant}{check.check} measured {_shown(check.measured)}, allowed {_shown(check.threshold)}{detail}"


def _shown(measure: object) -> str:
    if isinstance(measure, dict):
        return ", ".join(f"{name} {value:.3g}" for name, value in measure.items())
    return f"{measure:.4g}" if isinstance(measure, float) else str(measure)


publish_task = stage(publish, "publish")
