"""Converts a native SavedModel by TF-TRT: pre-flight, rewrite, build, save.

A rehearsal goes without GPU and TensorRT: no pre-flight, the same rewrite, nothing is built, and each engine is put
back as a call of its native segment. It proves the rewrite and all around it, and nothing of TensorRT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tasks.model_process import preflight
from tasks.model_process.conversion_messages import ConvertPlan


def stages(receive: Callable[[type[ConvertPlan]], ConvertPlan]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The stages in their order; each runs before the next is asked for."""
    plan = receive(ConvertPlan)
    if not plan.rehearsal:
        yield "preflight", lambda: preflight.check(plan.workspace)
    # Not before the pre-flight: TensorFlow aborts this process where another library bears TensorRT's name.
    from tasks.model_process.conversion_steps import Conversion

    conversion = Conversion(plan)
    yield "rewrite", conversion.rewrite
    yield "build", conversion.build
    yield "save", conversion.save
