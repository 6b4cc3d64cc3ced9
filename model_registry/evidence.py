"""What a version was judged by, as it stands in the history of its model. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Verdict = Literal["worse", "not worse", "undecided"]


@dataclass(frozen=True)
class Evidence:
    """One metric of the canary against the same of stable.

    Attributes:
        metric: `error_rate`, a share; `p50` or `p99`, milliseconds; or the PromQL of a check.
        canary: As it was measured; None where there was nothing to measure.
        stable: Likewise.
        canary_bound: The confidence bound that was held against the other: the lower one where the canary is worse,
            the upper one otherwise. None where so few samples have none.
        stable_bound: The bound of stable on its other side.
        margin: By how much the canary may be worse: a share of the requests for `error_rate`, of stable's value for a
            quantile; 0 for a check.
        canary_samples: Requests.
        stable_samples: Requests.
        verdict: What follows.
    """

    metric: str
    canary: Number | None
    stable: Number | None
    canary_bound: Number | None
    stable_bound: Number | None
    margin: Number
    canary_samples: Count
    stable_samples: Count
    verdict: Verdict
