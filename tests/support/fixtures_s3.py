"""Fixtures of the S3 servers."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import boto3
import pytest
from botocore.loaders import JSONFileLoader, Loader

from tests.support.s3_server import (
    S3Server,
    careless_server_binary,
    run_careless_server,
    run_s3_server,
    server_python,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@dataclass(frozen=True)
class Bucket:
    """A bucket of a test's own.

    Attributes:
        name: Its name.
        server: Where it is.
    """

    name: str
    server: S3Server

    @property
    def url(self) -> str:
        """A registry in the bucket."""
        return f"s3://{self.name}/registry-under-test"

    def environ(self) -> dict[str, str]:
        """The variables that make it reachable."""
        return self.server.environ()


@pytest.fixture(scope="session", autouse=True)
def botocore_reads_once() -> Iterator[None]:
    """Botocore parses a megabyte of its own JSON and looks through its directories for each session.

    That is 70 ms of work, and the tests open thousands.
    """
    parse, look = JSONFileLoader.load_file, Loader.list_available_services
    parsed = functools.cache(lambda path: parse(JSONFileLoader(), path))

    @functools.cache
    def services(type_name: str, *paths: str) -> list[str]:
        return look(Loader(extra_search_paths=[*paths], include_default_search_paths=False), type_name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(JSONFileLoader, "load_file", lambda _, path: parsed(path))
        patched.setattr(
            Loader, "list_available_services", lambda loader, type_name: services(type_name, *loader.search_paths)
        )
        yield


@pytest.fixture(scope="session")
def s3_server_python() -> Path:
    """The interpreter of the S3 server; skips where its environment is missing, but fails under CI."""
    python = server_python()
    if python is None:
        _missing("the S3 server's environment is missing: `make setup` makes .venv-s3")
    return python


@pytest.fixture(scope="session")
def s3_server(s3_server_python: Path) -> Iterator[S3Server]:
    """A running S3 server."""
    with run_s3_server(s3_server_python) as server:
        yield server


@pytest.fixture(scope="session")
def careless_server() -> Iterator[S3Server]:
    """A running server that ignores the conditions of a write; skips where it is missing, but fails under CI."""
    binary = careless_server_binary()
    if binary is None:
        _missing("rclone is missing: `make setup` brings it into .venv-s3")
    with run_careless_server(binary) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket; the process's AWS_* variables point at its server for the test's duration."""
    return _bucket(s3_server, monkeypatch)


@pytest.fixture
def careless_bucket(careless_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The same on the server that ignores the conditions of a write."""
    return _bucket(careless_server, monkeypatch)


def _bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environ().items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    _client_of(server).create_bucket(Bucket=bucket)
    return Bucket(bucket, server)


@functools.cache
def _client_of(server: S3Server) -> S3Client:
    """One for all the buckets; the environment names the server."""
    return boto3.session.Session().client("s3")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
