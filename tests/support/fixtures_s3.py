"""Fixtures of the S3 server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest

from tests.support.s3_server import S3Server, run_s3_server, server_python


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running S3 server; skips where its environment is missing, but fails under CI."""
    python = server_python()
    if python is None:
        reason = "the S3 server's environment is missing: `make setup` makes .venv-s3"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with run_s3_server(python) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket; the process's AWS_* variables point at its server for the test's duration."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environ().items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    boto3.session.Session().client("s3").create_bucket(Bucket=bucket)
    return Bucket(bucket, s3_server)
