"""Publish a blessed candidate as the model's next version, or record why it was refused."""

from __future__ import annotations

from dataclasses import replace

from model_registry.errors import RejectedError
from model_registry.payload import payload_files
from model_registry.servable import NATIVE, Blessing, Check, Run, ServableVersion, Variant
from tasks.model_process.messages import ExportedModel
from tasks.packaging_run import PackagingRun
from tasks.stage import stage


def publish(
    run: PackagingRun, exported: ExportedModel, blessing: Blessing, made_by: Run
) -> tuple[ServableVersion, bool]:
    """Publishes the candidate if every check passed.

    Args:
        run: The packaging; its processes are ended first, so that nobody writes any more.
        exported: Signatures and batch sizes.
        blessing: All checks.
        made_by: Who publishes.

    Returns:
        The version, and whether it was there already (another run of the same identity was first).

    Raises:
        RejectedError: If a check failed; the registry remembers why.
        StorageError: If the store fails.
    """
    run.model.end()
    run.validator.end()
    begun = run.begin()
    begun.check_unchanged()
    draft = ServableVersion(
        model=run.loaded.spec.model,
        version=0,
        identity=begun.identity,
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
    )
    if blessing.verdict == "rejected":
        reason = rejection(blessing)
        run.registry.record_rejection(draft, reason=reason)
        raise RejectedError(
            f"{draft.model} was rejected, nothing was published: {reason}",
            blessing=blessing,
            hint="the checks that failed say what differs; see the table of checks",
        )
    variant = Variant(NATIVE, payload_files(run.candidate))
    return run.registry.publish(replace(draft, variants=(variant,)), {NATIVE: run.candidate}, force=run.request.force)


def rejection(blessing: Blessing) -> str:
    """The failed checks as a sentence."""
    return "; ".join(_sentence(check) for check in blessing.failures) or "no check was made"


def _sentence(check: Check) -> str:
    detail = f" ({check.detail})" if check.detail else ""
    return f"{check.check} measured {_shown(check.measured)}, allowed {_shown(check.threshold)}{detail}"


def _shown(measure: object) -> str:
    if isinstance(measure, dict):
        return ", ".join(f"{name} {value:.3g}" for name, value in measure.items())
    return f"{measure:.4g}" if isinstance(measure, float) else str(measure)


publish_task = stage(publish, "publish")
