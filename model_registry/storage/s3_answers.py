"""What an answer of an S3 server always tells, by which it is known from the page of somebody in between.

A proxy or a captive portal answers whatever is asked with 200 and a page to log in on. Where that is well-formed,
the client takes it for an answer that tells nothing: a listing would be empty, and a write done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# By operation, of each group at least one; so the API reference has it, and so servers answer that have little else
# in common. https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
_TOLD: dict[str, tuple[tuple[str, ...], ...]] = {
    "CompleteMultipartUpload": (("ETag", "Key"),),
    "CopyObject": (("CopyObjectResult",),),
    "CreateMultipartUpload": (("UploadId",),),
    "DeleteObjects": (("Deleted", "Errors"),),  # unless it is asked to be quiet
    "GetObject": (("ETag",), ("LastModified",), ("ContentLength",)),
    "HeadObject": (("ETag",), ("LastModified",), ("ContentLength",)),
    "ListMultipartUploads": (("Bucket", "IsTruncated"),),
    "ListObjectsV2": (("Name", "IsTruncated"),),
    "ListParts": (("UploadId", "IsTruncated"),),
    "PutObject": (("ETag",),),
    "UploadPart": (("ETag",),),
    "UploadPartCopy": (("CopyPartResult",),),
}


class NotS3Error(Exception):
    """Something answered, and it was no S3 server."""


def refuse_pages(client: S3Client) -> S3Client:
    """Lets a client raise NotS3Error at an answer that was successful and tells nothing."""

    def look(http_response: Any, parsed: Mapping[str, Any], model: Any, **event: object) -> None:
        if http_response.status_code >= 300:  # the client's own to tell
            return
        for names in _TOLD.get(model.name, ()):
            if all(parsed.get(name) in (None, "", {}, []) for name in names):
                http_response.raw.close()  # nobody else will: the body of an object is still unread
                raise NotS3Error(f"the answer to {model.name} has no {' or '.join(names)}")

    client.meta.events.register("after-call.s3", look)
    return client
