"""Real S3 servers over HTTP for tests, in an environment of their own because one of them pins botocore.

ministack keeps the conditions of a write; `rclone serve s3` ignores them all, and so must be refused.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config

from tests.support.ports import free_port

_REPOSITORY = Path(__file__).resolve().parents[2]
_READY_WITHIN = 60.0
_ROOT_KEY, _ROOT_SECRET = "root", "rootsecret"
_ACCOUNT = "000000000000"  # whose buckets the server keeps below a directory of this name


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: Its URL.
        key: Access key of a user; the root key would be let through with any signature.
        secret: The user's secret.
        log: What the server printed.
    """

    endpoint: str
    key: str
    secret: str
    log: Path

    def environ(self) -> dict[str, str]:
        """The variables that point every AWS tool at this server, and at no profile of the machine's owner."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


def careless_server_binary() -> Path | None:
    """The rclone beside that interpreter, or None where nobody set it up."""
    python = server_python()
    binary = python.with_name("rclone") if python else None
    return binary if binary and binary.exists() else None


def server_python() -> Path | None:
    """The interpreter that has ministack, or None where nobody set it up."""
    python = Path(os.environ.get("SLIPWAY_S3_SERVER_PYTHON", _REPOSITORY / ".venv-s3" / "bin" / "python"))
    return python if python.exists() else None


@contextmanager
def run_s3_server(
    python: Path, *, persistent: bool = True, buckets: Mapping[str, Mapping[str, bytes]] | None = None
) -> Iterator[S3Server]:
    """Starts a server on a free loopback port, and ends it.

    Args:
        python: The interpreter that has it.
        persistent: Whether objects are kept on the disk. The server then reads the whole object again for
            each range of it that somebody asks for.
        buckets: What a persistent server finds on the disk at its start, bytes by key in each bucket; ten thousand
            objects are there in a second so, and in half a minute if they are put.

    Raises:
        RuntimeError: If it does not get ready; the message has its log.
    """
    with tempfile.TemporaryDirectory(prefix="s3-server-") as name:
        directory = Path(name)
        port = free_port()
        endpoint = f"http://127.0.0.1:{port}"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "SERVICES": "s3,iam,sts",
            "AUTH": "true",
            "AWS_ACCESS_KEY_ID": _ROOT_KEY,
            "AWS_SECRET_ACCESS_KEY": _ROOT_SECRET,
            "DOCKER_HOST": "unix:///nonexistent",
            "S3_PERSIST": "1" if persistent else "0",
            "S3_DATA_DIR": str(directory / "s3"),
            "PERSIST_STATE": "1",
            "STATE_DIR": str(directory / "state"),
        }
        for bucket, objects in (buckets or {}).items():
            for key, data in objects.items():
                file = directory / "s3" / _ACCOUNT / bucket / key
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        command = [str(python), "-m", "ministack"]
        with _running(command, directory, environ, lambda: _answers(f"{endpoint}/_ministack/health")):
            key, secret = _create_user(endpoint)
            yield S3Server(endpoint, key, secret, directory / "log")


@contextmanager
def run_careless_server(binary: Path) -> Iterator[S3Server]:
    """Starts a server that ignores `If-Match` and `If-None-Match`, and ends it. Its buckets are empty directories.

    Raises:
        RuntimeError: If it does not get ready; the message has its log.
    """
    with tempfile.TemporaryDirectory(prefix="s3-careless-") as name:
        directory = Path(name)
        (directory / "buckets").mkdir()
        address = f"127.0.0.1:{free_port()}"
        server = S3Server(f"http://{address}", "careless", "carelesssecret", directory / "log")
        command = [str(binary), "serve", "s3", "--addr", address, "--auth-key", f"{server.key},{server.secret}"]
        command += ["--config", os.devnull, str(directory / "buckets")]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
        with _running(command, directory, environ, lambda: _answers(server.endpoint)):
            yield server


@contextmanager
def _running(
    command: list[str], directory: Path, environ: dict[str, str], is_ready: Callable[[], bool]
) -> Iterator[None]:
    log = directory / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(command, env=environ, cwd=directory, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _READY_WITHIN
        while not is_ready():
            if time.monotonic() > deadline or process.poll() is not None:
                said = log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"the S3 server did not get ready; its log:\n{said}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500  # it does not like what we ask, so it is there
    except OSError:
        return False


def _create_user(endpoint: str) -> tuple[str, str]:
    iam = boto3.client(
        "iam",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=_ROOT_KEY,
        aws_secret_access_key=_ROOT_SECRET,
        config=Config(retries={"mode": "standard", "total_max_attempts": 5}),
    )
    iam.create_user(UserName="slipway")
    iam.put_user_policy(
        UserName="slipway",
        PolicyName="everything",
        PolicyDocument='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}',
    )
    made = iam.create_access_key(UserName="slipway")["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]
