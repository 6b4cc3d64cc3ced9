"""What every stage has in common as a Prefect task.

Its result is a path or a small value of this run alone: never cached, never persisted. It is tried again
for a store that failed for the moment, and for nothing else: a bad model stays bad.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from model_registry.errors import StorageError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# boto3 has tried five times by then; these are for a store that is away for longer.
RETRY_DELAYS = (10, 30)


def stage(function: Callable[Parameters, Result], name: str) -> Task[Parameters, Result]:
    """Makes a stage's function a Prefect task.

    Args:
        function: The plain function.
        name: What people see in Prefect.
    """
    return Task(
        function,
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(RETRY_DELAYS),
        retry_delay_seconds=list(RETRY_DELAYS),
        retry_condition_fn=_is_transient,
    )


def _is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    del task, run
    error = state.result(raise_on_failure=False)
    return isinstance(error, StorageError) and error.transient
