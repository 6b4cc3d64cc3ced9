"""Uploads of files to S3: parts in parallel, hashed as they are sent, never whole in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from boto3.s3.transfer import create_transfer_manager
from s3transfer.subscribers import BaseSubscriber

from model_registry.errors import InvalidInputError, StorageError
from model_registry.payload import open_file
from model_registry.servable import PayloadFile
from model_registry.storage.s3_client import BACKEND_ERRORS, TRANSFER

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from s3transfer.futures import TransferFuture
    from s3transfer.manager import TransferManager


class Uploads:
    """Uploads that share ten threads and a bounded number of parts in memory, however many files there are."""

    def __init__(self, client: S3Client, bucket: str, advance: Callable[[int], None]) -> None:
        """Starts the threads.

        Args:
            client: Whose requests they make.
            bucket: Where everything goes.
            advance: Called with the number of bytes that were read to be sent.
        """
        self._manager: TransferManager = create_transfer_manager(client, TRANSFER)
        self._bucket = bucket
        self._advance = advance

    def close(self) -> None:
        """Ends the threads."""
        self._manager.shutdown()

    def upload(self, source: Path, file: PayloadFile, key: str) -> None:
        """Uploads one file and holds what was sent against its digest."""
        try:
            with open_file(source, file.path) as opened:
                reader = _HashingReader(opened, self._advance)
                body: Any = reader
                self._manager.upload(body, self._bucket, key, subscribers=[_KnownSize(file.bytes)]).result()
        except InvalidInputError as error:
            raise StorageError(error.message, hint=error.hint) from error
        except OSError as error:
            if isinstance(error, BACKEND_ERRORS):
                raise
            raise StorageError(f"{source / file.path} cannot be read: {error.strerror or error}") from error
        if (reader.size, reader.digest.hexdigest()) != (file.bytes, file.sha256):
            raise StorageError(f"{source / file.path} changed after it was hashed")


class _HashingReader:
    """A file that can only be read once from front to back, so that what is hashed is what is sent."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._file = file
        self._advance = advance
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, amount: int = -1) -> bytes:
        data = self._file.read(amount)
        self.digest.update(data)
        self.size += len(data)
        self._advance(len(data))
        return data


class _KnownSize(BaseSubscriber):
    """Tells the size of what cannot be asked for it, from which the size of the parts follows."""

    def __init__(self, size: int) -> None:
        self._size = size

    def on_queued(self, future: TransferFuture, **_: Any) -> None:
        future.meta.provide_transfer_size(self._size)
