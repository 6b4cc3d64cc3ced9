"""A registry below a prefix of an S3 bucket.

No commit of several objects exists on S3, so the small documents that decide something are written
with conditions, and payloads plainly. The AWS_* variables and files that every AWS tool reads set it up.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from botocore.exceptions import ClientError

from model_registry.errors import ConflictError, NotFoundError, StorageError
from model_registry.paths import check_key, check_prefix
from model_registry.payload import hash_file
from model_registry.progress import transferring
from model_registry.servable import PayloadFile
from model_registry.storage.base import Leftover, ObjectInfo, StoredObject
from model_registry.storage.probe import check_conditional_writes
from model_registry.storage.s3_client import BACKEND_ERRORS, TRANSFER, connect
from model_registry.storage.s3_clock import age_by
from model_registry.storage.s3_downloads import Download
from model_registry.storage.s3_errors import translate
from model_registry.storage.s3_leftovers import end_upload, find_uploads
from model_registry.storage.s3_uploads import Uploads
from model_registry.storage.s3_writes import pause, write

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_FILES_AT_ONCE = 8
_TRIES = 5  # of a request
_ATTEMPTS = 8  # where a body broke off
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
        """Lists; for `writing` holds the server to the conditions of a write, and leaves nothing behind.

        Raises:
            StorageError: Within half a minute, also if the endpoint swallows everything.
        """
        with _translated(self.uri):
            client = connect(attempts=2, read_timeout=6)
            client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        if writing:
            hasty = S3Store(self._bucket, self._prefix.rstrip("/"), client=client)
            check_conditional_writes(hasty, rounds=0)

    def get(self, key: str) -> StoredObject:
        """Reads a document."""
        return self._streamed(
            key, lambda body, found: StoredObject(body.read(), found["ETag"], age_by(found, found["LastModified"]))
        )

    def head(self, key: str) -> ObjectInfo:
        """Tells size and age."""
        with _translated(self.uri_of(key)):
            found = self._s3.head_object(**self._at(key))
        return ObjectInfo(key, found["ContentLength"], age_by(found, found["LastModified"]), found["ETag"])

    def put_new(self, key: str, data: bytes) -> str:
        """Creates a document."""
        return self._put(key, data, {"IfNoneMatch": "*"})

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replaces the document that has this etag."""
        return self._put(key, data, {"IfMatch": etag})

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, sorted by key."""
        for page in self._pages(prefix):
            for found in page.get("Contents", []):
                # Consoles draw folders as empty objects whose names end in a slash.
                if not found["Key"].endswith("/"):
                    age = age_by(page, found["LastModified"])
                    key = found["Key"][len(self._prefix) :]
                    yield ObjectInfo(key, found["Size"], age, found.get("ETag", ""))

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
                        pool.submit(self._upload, uploads, source, file, check_key(prefix + file.path))
                        for file in stage
                    ]
                    try:
                        for job in jobs:
                            job.result()
                    finally:
                        for job in jobs:
                            job.cancel()

    def download(self, key: str, destination: Path) -> PayloadFile:
        """Downloads an object and hashes what arrived in the file."""
        progress = partial(transferring, f"download of {self.uri_of(key)}")
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            return Download(partial(self._streamed, key), progress).to(destination)
        except OSError as error:
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
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch]}
                )
                if errors := answer.get("Errors"):
                    code, said = errors[0].get("Code", ""), errors[0].get("Message", "")
                    raise ClientError({"Error": {"Code": code, "Message": said}}, "DeleteObjects")

    def leftovers(self) -> Iterator[Leftover]:
        """Unfinished multipart uploads."""
        with _translated(self.uri):
            yield from find_uploads(self._s3, self._bucket, self._prefix)

    def discard(self, leftover: Leftover) -> None:
        """Ends a multipart upload."""
        with _translated(self.uri_of(leftover.name)):
            end_upload(self._s3, self._bucket, self._prefix, leftover)

    def in_use(self, run: str) -> bool:
        """No workspace lies in the bucket."""
        check_key(run)
        return False

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
                self._client = connect(attempts=_TRIES, read_timeout=60)
            return self._client

    def _at(self, key: str) -> _Address:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _upload(self, uploads: Uploads, source: Path, file: PayloadFile, key: str) -> None:
        try:
            uploads.upload(source, file, self._prefix + key)
        except ClientError as error:
            # A finished upload is unknown to some servers, when they are asked again because their answer was lost.
            if error.response["Error"].get("Code") != "NoSuchUpload" or not self._holds(key, file):
                raise

    def _holds(self, key: str, file: PayloadFile) -> bool:
        try:
            found = self.digest(key)
        except NotFoundError:
            return False
        return (found.bytes, found.sha256) == (file.bytes, file.sha256)

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

    def _streamed(self, key: str, read: Callable[[Any, Mapping[str, Any]], _Answer], **request: str) -> _Answer:
        """Gets an object and reads its body, anew if the connection breaks off: boto3 retries the headers only."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with _translated(self.uri_of(key)):
                    found = self._object(key, request)
            except NotFoundError:
                raise NotFoundError(f"{key} does not exist in the registry") from None
            try:
                with _translated(self.uri_of(key)), closing(found["Body"]) as body:
                    return read(body, found)
            except StorageError as error:
                if not error.transient or attempt == _ATTEMPTS:
                    raise
            pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    def _object(self, key: str, request: Mapping[str, str]) -> Any:
        try:
            return self._s3.get_object(**self._at(key), **request)  # type: ignore[arg-type]
        except ClientError as error:
            if error.response["Error"].get("Code") != "InvalidRange":
                raise
            return self._s3.get_object(**self._at(key))  # what is empty has no first byte

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        def send() -> str:
            return self._s3.put_object(**self._at(key), Body=data, **condition)["ETag"]  # type: ignore[arg-type]

        return write(send, partial(self.get, key), data, key=key, uri=self.uri_of(key))


@contextmanager
def _translated(target: str) -> Iterator[None]:
    try:
        yield
    except BACKEND_ERRORS as error:
        raise translate(error, target) from error
