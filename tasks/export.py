"""Export the loaded model as a SavedModel with explicit signatures."""

from __future__ import annotations

from tasks.model_process.messages import ExportedModel
from tasks.packaging_run import PackagingRun
from tasks.stage import stage


def export_model(run: PackagingRun) -> tuple[ExportedModel, float]:
    """Waits until the model process has written the candidate.

    Returns:
        Its signatures and batch sizes, and the seconds it took.

    Raises:
        InvalidInputError: If the model or the spec does not allow it.
    """
    return run.model.result("export", ExportedModel, run.loaded.spec.timeouts.load)


export_model_task = stage(export_model, "export")
