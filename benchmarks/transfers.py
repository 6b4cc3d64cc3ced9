"""Uploads to S3 and downloads from it, against the field's tools, on one server with one set of data.

Ours and obstore's are timed inside processes that stay up; the AWS CLI and s5cmd are commands, whose start
belongs to each use. All of them alternate. What was transferred is removed outside the timing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from benchmarks import measuring
from benchmarks.report import Row
from tests.support.s3_server import run_s3_server, server_python

if TYPE_CHECKING:
    from mypy_boto3_s3.service_resource import Bucket

MIB = 1 << 20
TOOLS = Path(__file__).parent.parent / ".venv-transfer" / "bin"
BUCKET = "transfers"
DATA = {"256 MB": (1, 256 * MIB), "200 files of 64 KB": (200, 64 << 10)}
LARGE, SMALL = DATA
SHORTEST, LONGEST = 64 * MIB, 1024 * MIB  # whose peaks are compared; the middle one is shown beside them

Transfer = Callable[[Path, str], float]


@dataclass(frozen=True)
class Tool:
    """One way to transfer. Both take a directory and a prefix that ends in a slash, and tell the seconds.

    Attributes:
        upload: Brings the directory's files below the prefix.
        download: Brings what lies below the prefix into the empty directory.
    """

    upload: Transfer
    download: Transfer


@dataclass(frozen=True)
class _Bench:
    work: Path
    rounds: int
    environment: Mapping[str, str]

    def throughput(self) -> list[Row]:
        """How fast each tool is; the rows hold ours against theirs."""
        with self.running("slipway", sys.executable) as ours, self.running("obstore", TOOLS / "python") as obstore:
            tools = {"ours": ours.tool, "AWS CLI": self.aws_cli(), "s5cmd": self.s5cmd(), "obstore": obstore.tool}
            rows = []
            for data, (count, size) in DATA.items():
                source = self.work / data.replace(" ", "-")
                _write_files(source, count, size)
                medians = {"upload": self._uploads(tools, source), "download": self._downloads(tools, source)}
                for way, seconds in medians.items():
                    rows += _rows(f"{way} of {data}", seconds, data)
            return rows

    def memory(self) -> list[Row]:
        """The peak of a process that transfers one file, for files of different sizes."""
        peaks: dict[str, list[int]] = {"upload": [], "download": []}
        sizes = (SHORTEST, 256 * MIB, LONGEST)
        for size in sizes:
            source, target = self.work / "one", self.work / "one-back"
            _write_files(source, 1, size)
            for way, directory in (("upload", source), ("download", target)):
                target.mkdir(exist_ok=True)
                with self.running("slipway", sys.executable) as process:
                    process.ask(way, directory, "memory/")
                    peaks[way].append(measuring.high_water_mark(process.pid))
            shutil.rmtree(source)
            shutil.rmtree(target)
            self.remove("memory/")
        shown = " and ".join(f"{size // MIB} MB" for size in sizes)
        return [
            Row(
                f"{way}: the process' peak memory at 1 GB over that at 64 MB",
                measured[-1] / measured[0],
                "<=",
                1.3,
                f"{', '.join(f'{peak / MIB:.0f}' for peak in measured)} MiB at {shown}",
            )
            for way, measured in peaks.items()
        ]

    @contextlib.contextmanager
    def running(self, client: str, python: str | Path) -> Iterator[_Running]:
        """A process of benchmarks.transfer_process."""
        log = self.work / f"log-{client}"
        command = [str(python), "-m", "benchmarks.transfer_process", client, BUCKET]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(self.environment),
                text=True,
                bufsize=1,
            ) as process,
        ):
            yield _Running(process, log)

    def aws_cli(self) -> Tool:
        """`aws s3 cp`."""

        def copy(source: str, target: str) -> float:
            return self._command("aws", "s3", "cp", "--recursive", "--only-show-errors", source, target)

        return Tool(
            lambda directory, prefix: copy(str(directory), f"s3://{BUCKET}/{prefix}"),
            lambda directory, prefix: copy(f"s3://{BUCKET}/{prefix}", str(directory)),
        )

    def s5cmd(self) -> Tool:
        """`s5cmd cp`."""

        def copy(source: str, target: str) -> float:
            endpoint = self.environment["AWS_ENDPOINT_URL"]
            return self._command("s5cmd", "--log", "error", "--endpoint-url", endpoint, "cp", source, target)

        return Tool(
            lambda directory, prefix: copy(f"{directory}/", f"s3://{BUCKET}/{prefix}"),
            lambda directory, prefix: copy(f"s3://{BUCKET}/{prefix}*", f"{directory}/"),
        )

    def create_bucket(self) -> None:
        """Creates the bucket of the transfers."""
        self._bucket().create()

    def remove(self, prefix: str) -> None:
        """Deletes what lies below a prefix."""
        self._bucket().objects.filter(Prefix=prefix).delete()

    def _bucket(self) -> Bucket:
        session = boto3.Session(
            self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
        )
        return session.resource("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"]).Bucket(BUCKET)

    def _uploads(self, tools: Mapping[str, Tool], source: Path) -> dict[str, float]:
        def upload(name: str) -> float:
            seconds = tools[name].upload(source, "up/")
            self.remove("up/")
            return seconds

        return self._alternate(f"upload {source.name}", tools, upload)

    def _downloads(self, tools: Mapping[str, Tool], source: Path) -> dict[str, float]:
        def download(name: str) -> float:
            with tempfile.TemporaryDirectory(dir=self.work) as target:
                seconds = tools[name].download(Path(target), "down/")
                arrived = {path.name: path.stat().st_size for path in Path(target).iterdir()}
            if arrived != {path.name: path.stat().st_size for path in source.iterdir()}:
                raise RuntimeError(f"not everything of {source} came back: {arrived}")
            return seconds

        tools["ours"].upload(source, "down/")
        try:
            return self._alternate(f"download {source.name}", tools, download)
        finally:
            self.remove("down/")

    def _alternate(self, what: str, names: Iterable[str], way: Callable[[str], float]) -> dict[str, float]:
        """Medians of the rounds, after one that does not count: connections, and what the disk has cached."""
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for index in range(self.rounds + 1):
            for name in names:
                seconds[name].append(way(name))
            shown = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
            print(f"  round {index} of {what}: {shown}", file=sys.stderr)
        return {name: statistics.median(values[1:]) for name, values in seconds.items()}

    def _command(self, name: str, *arguments: str) -> float:
        return measuring.run((str(TOOLS / name), *arguments), self.environment, self.work / "log").seconds


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[str]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def tool(self) -> Tool:
        return Tool(
            lambda directory, prefix: self.ask("upload", directory, prefix),
            lambda directory, prefix: self.ask("download", directory, prefix),
        )

    def ask(self, way: str, directory: Path, prefix: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([way, str(directory), prefix]) + "\n")
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{way} of {directory} failed:\n{self.log.read_text()[-2000:]}")
        return float(json.loads(answer))


def measure(work: Path, environment: Mapping[str, str], rounds: int) -> list[Row]:
    """Every row of the transfers.

    Args:
        work: An empty directory.
        environment: What every command gets, save what points it at the server.
        rounds: How often each tool is measured.
    """
    python = server_python()
    if python is None:
        raise RuntimeError("the S3 server's environment is missing: `make setup` makes .venv-s3")
    with run_s3_server(python, persistent=False) as server:
        bench = _Bench(work, rounds, {**environment, **server.environ()})
        bench.create_bucket()
        return [*bench.throughput(), *bench.memory()]


def _rows(what: str, seconds: Mapping[str, float], data: str) -> list[Row]:
    count, size = DATA[data]
    amount, unit = (size / MIB, "MB/s") if data == LARGE else (count, "files/s")
    detail = f"{unit}: " + ", ".join(f"{name} {amount / value:.0f}" for name, value in seconds.items())
    if data == SMALL:
        return [Row(f"{what}: throughput over the AWS CLI's", seconds["AWS CLI"] / seconds["ours"], ">", 1, detail)]
    return [
        Row(f"{what}: throughput over {name}'s", seconds[name] / seconds["ours"], ">=", target, detail)
        for name, target in (("s5cmd", 0.9), ("obstore", 0.75))
    ]


def _write_files(directory: Path, count: int, size: int) -> None:
    directory.mkdir()
    noise = random.Random(0)  # noqa: S311 - the same in every run
    for index in range(count):
        with open(directory / f"{index:03}.bin", "wb") as file:
            for start in range(0, size, MIB):
                file.write(noise.randbytes(min(MIB, size - start)))
            os.fsync(file.fileno())
