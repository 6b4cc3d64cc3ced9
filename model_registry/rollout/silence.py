"""When a bake that Prometheus has nothing new to say of is to be paused. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model_registry.rollout.baking import LOOKS, Sight
from model_registry.rollout.samples import Requests
from model_registry.rollout.steering import Pause
from model_registry.traffic import Plan, Traffic

_SHORTEST, _LONGEST = 5.0, 180.0  # seconds; the latter is three scrapes as Prometheus makes them by default
_ROUNDING = 1e-6
_SHOWN = 3  # Envoys that are named


@dataclass(frozen=True)
class Silence:
    """For how long Prometheus has had nothing new to say of a bake.

    Attributes:
        covered: Seconds of which there were samples when it had.
        since: When it was first asked in vain after that, in seconds by any clock that goes on; None where it was not.
        looks: How often it was asked in vain since then.
        words: What it said last, where that was an error.
    """

    covered: float
    since: float | None = None
    looks: int = 0
    words: str = ""

    def heard(self, traffic: Traffic, sight: Sight, now: float) -> Silence:
        """After a look."""
        sides = [sight.canary] if traffic.weight == 100 else [sight.canary, sight.stable]
        covered = min(side.covered for side in sides)
        if covered > self.covered + _ROUNDING:
            return Silence(covered)
        missing = {
            label: side.requests
            for label, side in zip((traffic.canary, traffic.stable), sides, strict=False)
            if side.covered <= self.covered + _ROUNDING
        }
        labels = " and ".join(missing)
        if all(requests.behind for requests in missing.values()):
            lost = _lost(missing.values(), sight.time)
            return self.failed(f"Prometheus has newer samples of the requests to {labels}, but {lost}", now)
        kind = "new samples" if self.covered else "samples"
        return self.failed(f"Prometheus has no {kind} of the requests to {labels}", now)

    def failed(self, words: str, now: float) -> Silence:
        """After a look that came to nothing."""
        return Silence(self.covered, now if self.since is None else self.since, self.looks + 1, words)

    def move(self, plan: Plan, now: float) -> Pause | None:
        """Pauses what nobody can watch; None as long as the data may still come.

        Three looks in vain, as they are made in a bake; but neither less than any scraping takes, nor more than it
        takes where nobody hurried it.
        """
        if self.since is None:
            return None
        lasted = now - self.since
        enough = max(_SHORTEST, min(_LONGEST, 3 * plan.bake / LOOKS))
        if self.looks < 3 or lasted < enough:
            return None
        return Pause(f"no data for {lasted:.0f} s: {self.words}", silent=True)


def _lost(sides: Iterable[Requests], now: float) -> str:
    """Which Envoys there are no samples from while there are of others, and what becomes of the bake."""
    last = {one.instance: one.time for side in sides for one in side.behind}
    longest_ago = sorted(last.items(), key=lambda one: one[1])
    named = [f"for {now - time:.0f} s from the Envoy at {instance}" for instance, time in longest_ago[:_SHOWN]]
    named += [f"and {len(last) - _SHOWN} more"] if len(last) > _SHOWN else []
    return (
        f"none {', '.join(named)}; where an Envoy is gone for good, the bake begins anew without it within ten "
        "minutes, else see why Prometheus does not scrape it"
    )
