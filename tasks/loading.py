"""The first two stages: bring the source here, and load the model in its own process."""

from __future__ import annotations

from tasks.lookup import Lookup
from tasks.model_process.messages import LoadedModel
from tasks.packaging_run import PackagingRun
from tasks.stage import stage


def fetch_source(run: PackagingRun) -> Lookup:
    """Fetches and digests the source and looks whether its version is there already."""
    return run.begin()


def load_model(run: PackagingRun) -> tuple[LoadedModel, float]:
    """Waits until the model process has loaded the model.

    Returns:
        What was loaded, and the seconds it took.

    Raises:
        InvalidInputError: If it cannot be loaded.
    """
    return run.model.result("load", LoadedModel, run.loaded.spec.timeouts.load)


fetch_source_task = stage(fetch_source, "fetch")
load_model_task = stage(load_model, "load")
