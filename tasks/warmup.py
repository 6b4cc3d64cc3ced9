"""Write the warm-up requests that TensorFlow Serving replays before a version becomes AVAILABLE."""

from __future__ import annotations

from tasks.model_process.messages import WarmedModel
from tasks.packaging_run import PackagingRun
from tasks.stage import stage


def warm_up(run: PackagingRun) -> tuple[WarmedModel, float]:
    """Waits until the model process has written the candidate's warm-up records.

    Returns:
        How many there are, and the seconds it took.

    Raises:
        InvalidInputError: If the samples do not fit the signatures.
    """
    return run.model.result("warm up", WarmedModel, run.loaded.spec.timeouts.load)


warm_up_task = stage(warm_up, "warm up")
