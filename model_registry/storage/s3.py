"""A registry below a prefix of an S3 bucket.

No commit of several objects exists on S3, so the small documents that decide something are written
with conditions, and payloads plainly. The AWS_* variables and files that every AWS tool reads set it up.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from botocore.exceptions import ClientError

from model_registry.errors import ConflictError, NotFoundError, SlipwayError, StorageError
from model_registry.paths import STAGING, check_key, check_prefix
from model_registry.payload import hash_file
from model_registry.progress import transferring
from model_registry.servable import PayloadFile
from model_registry.storage.base import ObjectInfo, StoredObject
from model_registry.storage.s3_client import BACKEND_ERRORS, TRANSFER, connect
from model_registry.storage.s3_errors import status_of, translate
from model_registry.storage.s3_uploads import Uploads

if TYPE_CHECKING:
    from datetime import datetime

    from mypy_boto3_s3.client import S3Client

_FILES_AT_ONCE = 8
_ATTEMPTS = 8  # of a write that met another (409), and of a body that broke off
_DELETE_BATCH = 1000  # what DeleteObjects takes

_Answer = TypeVar("_Answer")


class _Address(TypedDict):
    Bucket: str
    Key: str


class S3Store:
    """Objects of one bucket, below one prefix. The client is made at first use and shared by threads."""

    def __init__(self, bucket: str, prefix: str = "", *, client: S3Client | None = None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = client
        self._making = threading.Lock()

    @property
    def uri(self) -> str:
        """The bucket and the prefix, s3://bucket/prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def uri_of(self, key: str) -> str:
        """The s3:// URI of a key or prefix."""
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def check(self, *, writing: bool = True) -> None:
        """Lists; for `writing` writes an object, holds the server to its conditions, and removes the object.

        Raises:
            StorageError: Within half a minute, also if the endpoint swallows everything.
        """
        with _translated(self.uri):
            client = connect(attempts=2, read_timeout=8)
            client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        if not writing:
            return
        probe = S3Store(self._bucket, self._prefix.rstrip("/"), client=client)
        key = f"{STAGING}check-{secrets.token_hex(8)}"
        etag = probe.put_new(key, b"1")
        try:
            if not _refused(lambda: probe.put_new(key, b"2")):
                raise self._untrustworthy("ignores If-None-Match")
            if not _refused(lambda: probe.put_if_match(key, b"2", '"00000000000000000000000000000000"')):
                raise self._untrustworthy("ignores If-Match")
            if _refused(lambda: probe.put_if_match(key, b"3", etag)):
                raise self._untrustworthy("refuses If-Match with the right ETag")
        finally:
            probe.delete([key])

    def get(self, key: str) -> StoredObject:
        """Reads a document."""
        return self._streamed(key, lambda body, found: StoredObject(body.read(), found["ETag"], _age(found)))

    def head(self, key: str) -> ObjectInfo:
        """Tells size and age."""
        with _translated(self.uri_of(key)):
            found = self._s3.head_object(**self._at(key))
        return ObjectInfo(key, found["ContentLength"], _age(found))

    def put_new(self, key: str, data: bytes) -> str:
        """Creates a document."""
        return self._put(key, data, {"IfNoneMatch": "*"})

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replaces the document that has this etag."""
        return self._put(key, data, {"IfMatch": etag})

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, sorted by key."""
        for page in self._pages(prefix):
            now = _date(page)
            for found in page.get("Contents", []):
                # Consoles draw folders as empty objects whose names end in a slash.
                if not found["Key"].endswith("/"):
                    age = _seconds(now, found["LastModified"])
                    yield ObjectInfo(found["Key"][len(self._prefix) :], found["Size"], age)

    def list_children(self, prefix: str) -> Iterator[str]:
        """The names one level below a prefix."""
        names: set[str] = set()
        cut = len(self._prefix + prefix)
        for page in self._pages(prefix, Delimiter="/"):
            names.update(found["Prefix"][cut:-1] for found in page.get("CommonPrefixes", []))
            names.update(found["Key"][cut:] for found in page.get("Contents", []))
        return iter(sorted(names - {""}))

    def upload_tree(self, source: Path, prefix: str, files: Sequence[PayloadFile]) -> None:
        """Uploads the first file, then those in between side by side, then the last."""
        with _translated(self.uri_of(check_prefix(prefix))):
            if self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + prefix, MaxKeys=1).get("Contents"):
                raise ConflictError(f"something lies at {self.uri_of(prefix)} already")
            with (
                transferring(f"upload to {self.uri_of(prefix)}", sum(file.bytes for file in files)) as advance,
                closing(Uploads(self._s3, self._bucket, advance)) as uploads,
                ThreadPoolExecutor(_FILES_AT_ONCE) as pool,
            ):
                stages = (files[:1], files[1:-1], files[1:][-1:])
                for stage in stages:
                    jobs = [
                        pool.submit(uploads.upload, source, file, f"{self._prefix}{check_key(prefix + file.path)}")
                        for file in stage
                    ]
                    try:
                        for job in jobs:
                            job.result()
                    finally:
                        for job in jobs:
                            job.cancel()

    def download(self, key: str, destination: Path) -> PayloadFile:
        """Downloads an object in parts, side by side, and hashes what arrived in the file."""
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            with (
                transferring(f"download of {self.uri_of(key)}", self.head(key).size) as advance,
                _translated(self.uri_of(key)),
            ):
                self._s3.download_file(**self._at(key), Filename=str(destination), Config=TRANSFER, Callback=advance)
            with open(destination, "rb", buffering=0) as file:
                os.fsync(file.fileno())
                return hash_file(file, destination.name)
        except OSError as error:
            destination.unlink(missing_ok=True)
            raise StorageError(f"{destination} cannot be written: {error.strerror or error}") from error

    def digest(self, key: str) -> PayloadFile:
        """Size and SHA-256 of an object."""
        return self._streamed(key, lambda body, _: hash_file(body, key))

    def copy(self, source: str, destination: str) -> None:
        """Copies an object inside the bucket; the server moves the bytes."""
        with _translated(self.uri_of(source)):
            self._s3.copy(dict(self._at(source)), **self._at(destination), Config=TRANSFER)  # type: ignore[arg-type]

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects, a thousand in a request."""
        remaining = iter([self._prefix + check_key(key) for key in keys])
        while batch := [*islice(remaining, _DELETE_BATCH)]:
            with _translated(self.uri):
                answer = self._s3.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
                if errors := answer.get("Errors"):
                    code, said = errors[0].get("Code", ""), errors[0].get("Message", "")
                    raise ClientError({"Error": {"Code": code, "Message": said}}, "DeleteObjects")

    @contextmanager
    def workspace(self, run: str) -> Iterator[Path]:
        """A directory for a run's work, among the system's temporary ones."""
        check_key(run)
        directory = Path(tempfile.mkdtemp(prefix=f"slipway-{run.replace('/', '-')[:60]}-"))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @property
    def _s3(self) -> S3Client:
        with self._making, _translated(self.uri):
            if self._client is None:
                self._client = connect(attempts=5, read_timeout=60)
            return self._client

    def _untrustworthy(self, does: str) -> StorageError:
        return StorageError(
            f"{self.uri}: the server {does}, so two writers could lose each other's versions",
            hint="use a store with conditional writes, such as AWS S3 or MinIO",
        )

    def _at(self, key: str) -> _Address:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        check_prefix(prefix)
        with _translated(self.uri_of(prefix)):
            paginator: Any = self._s3.get_paginator("list_objects_v2")
            pages = iter(paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix, **options))
        while True:
            with _translated(self.uri_of(prefix)):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def _streamed(self, key: str, read: Callable[[Any, Mapping[str, Any]], _Answer]) -> _Answer:
        """Gets an object and reads its body, anew if the connection breaks off: boto3 retries the headers only."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with _translated(self.uri_of(key)):
                    found = self._s3.get_object(**self._at(key))
            except NotFoundError:
                raise NotFoundError(f"{key} does not exist in the registry") from None
            try:
                with _translated(self.uri_of(key)), closing(found["Body"]) as body:
                    return read(body, found)
            except StorageError as error:
                if not error.transient or attempt == _ATTEMPTS:
                    raise
            _pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        """Writes under a condition, and settles by reading back whether a doubtful write won.

        A dropped answer makes boto3 ask again, and then our own first write is what it conflicts with.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._s3.put_object(**self._at(key), Body=data, **condition)["ETag"]  # type: ignore[arg-type]
            except BACKEND_ERRORS as error:
                status = status_of(error)
                if status == 409 and attempt < _ATTEMPTS:
                    _pause(attempt)
                    continue
                failure = translate(error, self.uri_of(key))
                if isinstance(failure, NotFoundError):
                    raise ConflictError(f"{key} is gone") from error
                if isinstance(failure, ConflictError) or (isinstance(failure, StorageError) and failure.transient):
                    return self._settled(key, data, failure, error)
                raise failure from error
        raise AssertionError("the last attempt returns or raises")

    def _settled(self, key: str, data: bytes, failure: SlipwayError, cause: Exception) -> str:
        try:
            found = self.get(key)
        except SlipwayError:
            if isinstance(failure, ConflictError):
                raise ConflictError(f"{key} was changed by somebody else") from cause
            raise failure from cause
        if found.data == data:
            return found.etag
        if isinstance(failure, ConflictError):
            raise ConflictError(f"{key} was changed by somebody else") from cause
        raise failure from cause


@contextmanager
def _translated(target: str) -> Iterator[None]:
    try:
        yield
    except BACKEND_ERRORS as error:
        raise translate(error, target) from error


def _date(answer: Mapping[str, Any]) -> datetime | None:
    """The server's clock when it answered; its clock and ours need not agree."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError):
        return None


def _seconds(now: datetime | None, then: datetime) -> float:
    # Of unknown age is young: nobody is taken for dead, and nothing for an orphan, by guess.
    return max(0.0, (now - then).total_seconds()) if now else 0.0


def _age(answer: Mapping[str, Any]) -> float:
    return _seconds(_date(answer), answer["LastModified"])


def _refused(write: Callable[[], str]) -> bool:
    try:
        write()
    except ConflictError:
        return True
    return False


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311
