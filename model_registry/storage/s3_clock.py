"""The clock of an S3 server, as the `Date` of each of its answers tells it; its clock and ours need not agree."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime


def age_by(answer: Mapping[str, Any], then: datetime) -> float:
    """Seconds from a time to the answer.

    Args:
        answer: What a call of the client returned, its metadata included.
        then: By the server's clock.
    """
    try:
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError):
        return 0.0  # of unknown age is young: nobody is taken for dead, and nothing for an orphan, by guess
    return max(0.0, (now - then).total_seconds())
