"""The S3 client: how it is set up, and every exception it may raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, UndefinedModelAttributeError
from botocore.parsers import ResponseParserError
from s3transfer import exceptions as s3transfer_exceptions
from urllib3.exceptions import HTTPError

from model_registry.errors import StorageError
from model_registry.storage.s3_answers import NotS3Error, refuse_pages
from model_registry.storage.s3_retries import resend_damaged

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

BACKEND_ERRORS: tuple[type[Exception], ...] = (
    BotoCoreError,
    ClientError,
    UndefinedModelAttributeError,
    ResponseParserError,
    NotS3Error,
    Boto3Error,
    HTTPError,
    s3transfer_exceptions.CancelledError,
    s3transfer_exceptions.RetriesExceededError,
    s3transfer_exceptions.S3UploadFailedError,
    s3transfer_exceptions.S3DownloadFailedError,
    s3transfer_exceptions.S3CopyFailedError,
    s3transfer_exceptions.S3ValidationError,
    s3transfer_exceptions.InvalidSubscriberMethodError,
    s3transfer_exceptions.TransferNotDoneError,
)

# boto3's CRT client ignores endpoint_url (boto/boto3#4839).
TRANSFER = TransferConfig(
    multipart_threshold=8 << 20, multipart_chunksize=8 << 20, max_concurrency=10, preferred_transfer_client="classic"
)
# Not a parameter of boto3's: parts that wait in memory to be sent. Ten threads would hold 80 MB; six keep a line busy.
TRANSFER.max_in_memory_upload_chunks = 6


def connect(*, attempts: int, read_timeout: float) -> S3Client:
    """A client set up by the AWS_* variables and files.

    Args:
        attempts: How often a call is tried, the first included.
        read_timeout: Seconds without a byte after which a call fails.

    Raises:
        StorageError: If they name something impossible.
    """
    config = Config(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=read_timeout,
        max_pool_connections=50,
    )
    try:
        return resend_damaged(refuse_pages(Session().client("s3", config=config)), attempts=attempts)
    except BACKEND_ERRORS:
        raise
    except ValueError as error:  # of an endpoint that is no URL
        raise StorageError(f"the S3 client refuses its settings: {error}", hint="check AWS_ENDPOINT_URL") from error
