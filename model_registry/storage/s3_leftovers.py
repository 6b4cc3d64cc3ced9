"""Multipart uploads that nobody finished: no listing shows their parts, and they are paid for until somebody ends them.

MinIO lists none unless it is asked for one key, and ends them itself after a day.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from model_registry.errors import InvalidInputError
from model_registry.paths import MODELS, REGISTRY, STAGING
from model_registry.storage.base import Leftover
from model_registry.storage.s3_clock import age_by

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# As in the requests of an upload, so that a person recognises it.
_MARK = "?uploadId="


def find_uploads(client: S3Client, bucket: str, prefix: str) -> Iterator[Leftover]:
    """Every one of a registry, the age being that of the last part that arrived; named by key and upload id."""
    ours = tuple(f"{prefix}{folder}" for folder in (MODELS, REGISTRY, STAGING))  # the bucket may serve others, too
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
        for upload in page.get("Uploads", []):
            key, identity = upload["Key"], upload["UploadId"]
            if not key.startswith(ours):
                continue
            size, age = 0, age_by(page, upload["Initiated"])
            parts: Any = client.get_paginator("list_parts")
            with suppress(client.exceptions.NoSuchUpload):  # finished since
                for answer in parts.paginate(Bucket=bucket, Key=key, UploadId=identity):
                    for part in answer.get("Parts", []):
                        size += part["Size"]
                        age = min(age, age_by(answer, part["LastModified"]))
                yield Leftover(f"{key[len(prefix) :]}{_MARK}{identity}", size, age)


def end_upload(client: S3Client, bucket: str, prefix: str, leftover: Leftover) -> None:
    """Ends one, which frees its parts. One that is finished or ended already does not matter.

    Raises:
        InvalidInputError: If it is named like no leftover.
    """
    key, mark, identity = leftover.name.rpartition(_MARK)
    if not mark:
        raise InvalidInputError(f"{leftover.name!r} is no leftover of an S3 registry")
    with suppress(client.exceptions.NoSuchUpload):
        client.abort_multipart_upload(Bucket=bucket, Key=prefix + key, UploadId=identity)
