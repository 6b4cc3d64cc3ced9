"""How many times as fast as native a converted SavedModel answers, by batch size.

Both are loaded into Sessions, as TensorFlow Serving has them, and asked the warm-up records in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from model_registry.errors import ConversionError
from model_registry.servable import Signature
from tasks.model_process import serving, speed, warmup_log
from tasks.model_process.conversion_messages import Timed, TimePlan


def stages(receive: Callable[[type[Any]], Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage."""
    yield "time", lambda: measure(receive(TimePlan))


def measure(plan: TimePlan) -> Timed:
    """Measures each signature at each batch size that the warm-up records have.

    Raises:
        ConversionError: If a signature has no record.
    """
    requests = _requests(Path(plan.native), plan.signatures)
    checks = []
    with (
        serving.loaded(Path(plan.native)) as (native, native_definitions),
        serving.loaded(Path(plan.converted)) as (converted, converted_definitions),
    ):
        for (name, size), feed in requests.items():
            measured = speed.alternate(
                partial(serving.answer, native, native_definitions[name], feed),
                partial(serving.answer, converted, converted_definitions[name], feed),
            )
            checks.append(speed.judge(f"speed-up/{name}/{size}", plan.variant, measured, plan.min_speedup))
    return Timed(tuple(checks))


def _requests(saved_model: Path, signatures: tuple[Signature, ...]) -> Mapping[tuple[str, int], serving.Arrays]:
    """One request by signature and batch size, in the order of the records."""
    wanted = {signature.name for signature in signatures}
    requests: dict[tuple[str, int], serving.Arrays] = {}
    for record in warmup_log.read_log(saved_model / warmup_log.WARMUP_FILE):
        name, feed = warmup_log.feed(record)
        if name in wanted:
            requests.setdefault((name, _rows(feed)), feed)
    if missing := wanted - {name for name, _ in requests}:
        raise ConversionError(
            f"no warm-up record asks {', '.join(sorted(missing))}: there is nothing to measure its speed with",
            hint="package the model anew: each signature has a record for each batch size",
        )
    return requests


def _rows(feed: serving.Arrays) -> int:
    """The batch size; 1 for a request without a batch dimension."""
    return max((len(array) for array in feed.values() if array.ndim), default=1)
