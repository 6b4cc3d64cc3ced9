"""Object stores: a local directory, S3, and memory for tests, behind one protocol."""

from __future__ import annotations

import os
from pathlib import Path

from model_registry.errors import InvalidInputError
from model_registry.paths import check_bucket, check_key
from model_registry.storage.base import Leftover, ObjectInfo, ObjectStore, StoredObject

__all__ = ["Leftover", "ObjectInfo", "ObjectStore", "StoredObject", "open_store"]


def open_store(url: str) -> ObjectStore:
    """Opens the store that a path or an s3:// URL names; touches neither disk nor network.

    Args:
        url: A directory's path, or `s3://bucket` or `s3://bucket/prefix`.

    Raises:
        InvalidInputError: If it is neither, or the bucket's name stands for another host.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        prefix = prefix.rstrip("/")
        if not bucket:
            raise InvalidInputError(f"{url!r} names no bucket: expected s3://BUCKET or s3://BUCKET/PREFIX")
        check_bucket(bucket)
        if prefix:
            check_key(prefix)
        # Whoever has a local registry does not wait for boto3's import.
        from model_registry.storage.s3 import S3Store

        return S3Store(bucket, prefix)
    if separator:
        raise InvalidInputError(
            f"{url!r} is no registry that can be opened: expected a path or s3://BUCKET/PREFIX, found {scheme}://"
        )
    if not url or "\0" in url:
        raise InvalidInputError(f"{url!r} is no registry that can be opened: expected a path or s3://BUCKET/PREFIX")
    from model_registry.storage.local import LocalStore

    try:
        path = Path(url).expanduser().absolute()
    except RuntimeError as error:  # ~somebody unknown
        raise InvalidInputError(f"{url!r} is no registry that can be opened: {error}") from None
    return LocalStore(Path(os.path.normpath(path)))
