"""How long two ways of answering take, and what to make of it. Knows neither TensorFlow nor a GPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from model_registry.servable import Check

ROUNDS = 7
RECORDED = "recorded"

Call = Callable[[], object]

# The first calls allocate memory and choose kernels.
_WARM_UP = 3
# A round asks as often as fills this time, or a clock's and a scheduler's whims would be the figure.
_ROUND = 0.1  # seconds
_MOST_CALLS = 50


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        native: Seconds a call of the native SavedModel, one figure a round.
        converted: The same of the converted.
    """

    native: tuple[float, ...]
    converted: tuple[float, ...]


def alternate(native: Call, converted: Call, rounds: int = ROUNDS) -> Speed:
    """Warms both up, then times them in turn, so that what else the machine does falls on both."""
    for call in (native, converted):
        _seconds(call, _WARM_UP)
    calls = _calls(max(_seconds(native, 1), _seconds(converted, 1)))
    figures = [(_seconds(native, calls), _seconds(converted, calls)) for _ in range(rounds)]
    return Speed(tuple(figure[0] for figure in figures), tuple(figure[1] for figure in figures))


def judge(check: str, variant: str, speed: Speed, at_least: float | None) -> Check:
    """Holds the ratio of the medians against what the spec asks for; pure.

    Args:
        check: Its name.
        variant: Whose check it is.
        speed: What was measured.
        at_least: The smallest speed-up; None only records it.
    """
    native, converted = statistics.median(speed.native), statistics.median(speed.converted)
    ratio = round(native / converted, 3)
    detail = f"native {native * 1e3:.3g} ms, converted {converted * 1e3:.3g} ms, medians of {len(speed.native)} rounds"
    if at_least is None:
        return Check(check, variant, ratio, RECORDED, True, detail)
    return Check(check, variant, ratio, at_least, ratio >= at_least, detail)


def _calls(seconds: float) -> int:
    """How many calls fill a round, of a way that takes so long."""
    return min(_MOST_CALLS, max(1, math.ceil(_ROUND / seconds))) if seconds > 0 else _MOST_CALLS


def _seconds(call: Call, times: int) -> float:
    """Seconds a call, on average."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times
