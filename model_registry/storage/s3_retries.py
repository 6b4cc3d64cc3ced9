"""Requests that are sent again although botocore would not: those whose body was damaged on its way to the server."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from model_registry.storage.s3_errors import DAMAGED

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def resend_damaged(client: S3Client, *, attempts: int) -> S3Client:
    """Lets a client answer a failed checksum by sending the body once more, as after a broken connection.

    botocore takes every answer with a status of 400 for final, the one about a flipped bit too.

    Args:
        client: Which to teach it.
        attempts: How often a call is tried, the first included.
    """

    def needs_retry(response: tuple[object, Mapping[str, Any]] | None, **event: Any) -> float | None:
        made: int = event["attempts"]
        if response is None or made >= attempts or response[1].get("Error", {}).get("Code") not in DAMAGED:
            return None
        return random.uniform(0, 0.05 * 2**made)  # noqa: S311

    client.meta.events.register("needs-retry.s3", needs_retry)  # type: ignore[arg-type]  # its answer is looked at
    return client
