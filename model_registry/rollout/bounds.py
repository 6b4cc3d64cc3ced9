"""Confidence bounds that hold for any number of samples and any shape of latencies. Pure; needs scipy.

Both are exact: the chance that a bound is on the wrong side of the truth is at most its level, also for five requests.

- Shares: C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
  binomial", Biometrika 26 (1934).
- Quantiles: H. A. David, H. N. Nagaraja, "Order Statistics", 3rd edition (2003), section 7.1. How many samples lie
  below a quantile follows a binomial distribution, whatever the latencies are like, so that sorted samples bound it.
"""

from __future__ import annotations

import math
from typing import Any

from model_registry.errors import InvalidInputError
from model_registry.rollout.histograms import Histogram


def least_share(hits: float, samples: float, level: float) -> float:
    """Lower bound of a share that was `hits` of `samples`; it lies above the truth with a chance of `level` at most."""
    return float(_special().betaincinv(hits, samples - hits + 1, level)) if hits else 0.0


def largest_share(hits: float, samples: float, level: float) -> float:
    """Upper bound of a share; it lies below the truth with a chance of `level` at most."""
    return float(_special().betainccinv(hits + 1, samples - hits, level)) if hits < samples else 1.0


def least_quantile(latency: Histogram, share: float, level: float, *, grown: float = 1) -> float:
    """Lower bound of a quantile; it lies above the truth with a chance of `level` at most.

    Inside a bucket it is interpolated, so it bounds the quantile that the histogram would show had it counted forever:
    what `histogram_quantile` draws. That takes nothing from the level: a sample inside the bucket then counts as a part
    between 0 and 1, which spreads less than 0 or 1 with the same mean.

    Args:
        latency: At least one sample.
        share: Which quantile, such as 0.99.
        level: Chance of being wrong.
        grown: Supposes that many times the samples, spread alike.

    Returns:
        Milliseconds: 0 where so few samples have no bound, the last finite bound at most.
    """
    below = _most(latency.samples * grown, share, level)
    # The sample that bounds it is the next one. Where that lies within its part of the bucket, nobody knows.
    return min(latency.at(below / grown), latency.largest) if below else 0.0


def largest_quantile(latency: Histogram, share: float, level: float, *, grown: float = 1) -> float:
    """Upper bound of a quantile; it lies below the truth with a chance of `level` at most.

    Args:
        latency: As `least_quantile` takes them, with the others.
        share: Likewise.
        level: Likewise.
        grown: Likewise.

    Returns:
        Milliseconds; infinite where so few samples, or the last bucket, have no bound.
    """
    above = _most(latency.samples * grown, 1 - share, level)
    return math.inf if above is None else latency.at(latency.samples - above / grown)


def samples_for_a_quantile(share: float, level: float) -> int:
    """How many samples an upper bound of a quantile needs: of fewer, even the slowest may lie below it."""
    return math.ceil(math.log(level) / math.log(share))


def _most(samples: float, chance: float, level: float) -> int | None:
    """The largest k for which a binomial variable is k or less with a chance of `level` at most; None if not even 0."""
    if samples * math.log1p(-chance) > math.log(level):
        return None
    return int(_special().bdtrik(level, samples, chance))


def _special() -> Any:
    """The part of scipy that is needed. scipy.stats has all this too, and takes a second to import."""
    try:
        from scipy import special
    except ImportError:
        raise InvalidInputError(
            "judging a canary needs scipy, which is not installed", hint="pip install 'slipway[rollout]'"
        ) from None
    return special
