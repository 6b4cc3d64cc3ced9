"""`make bench`: every measurement, held against its target, written to docs/benchmarks.md.

The ways that are compared alternate within one run, and a row is the median of five rounds: the figures
that count are the ratios. A target that is missed is written down as missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import client, gateway, measuring, transfers
from benchmarks.measuring import Cost
from benchmarks.models import DENSE, RESNET50
from benchmarks.report import Row, write_report
from tests.support.prefect_processes import running_server

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "docs" / "benchmarks.md"
SLIPWAY = str(Path(sys.executable).with_name("slipway"))

# What part 4 of the pipeline promises to check of each candidate, whatever the model.
EXPECTED_CHECKS = (
    "signatures",
    "saved_model_cli show",
    "saved_model_cli scan",
    "ops",
    "saved_model_cli run",
    "warm-up replay",
    "parity/serving_default/",
    "finite/serving_default/",
    "top1/serving_default/",
)


@dataclass(frozen=True)
class Bench:
    """Where a run of the benchmarks keeps its things.

    Attributes:
        work: A directory of the run's own.
        models: Where the models are.
        rounds: How often each way is measured.
        environment: What every command gets.
    """

    work: Path
    models: Path
    rounds: int
    environment: Mapping[str, str]

    def command(self, *arguments: str, **variables: str) -> Cost:
        """Measures one command."""
        return measuring.run(arguments, {**self.environment, **variables}, self.work / "log")

    def export_alone(self, model: str) -> list[Row]:
        """The export alone against keras.Model.export."""
        source = str(self.models / model)
        cost = self.command(sys.executable, "-m", "benchmarks.export_alone", source, str(self.rounds))
        found = measuring.last_json(cost.output)
        target = 2.5 if model == RESNET50 else 1.8
        speed_up = found["theirs_seconds"] / found["ours_seconds"]
        share = found["ours_bytes"] / found["theirs_bytes"]
        times = f"{found['ours_seconds']:.2f} s against {found['theirs_seconds']:.2f} s"
        sizes = f"{found['ours_bytes'] / 1e6:.1f} MB against {found['theirs_bytes'] / 1e6:.1f} MB"
        return [
            Row(f"export of {model}, times faster than keras.Model.export", speed_up, ">=", target, times),
            Row(f"export of {model}, share of its bytes", share, "<=", 0.51, sizes),
        ]

    def package(self, model: str, api_url: str) -> list[Row]:
        """The whole `slipway package`, with a Prefect server and without, against the straight script."""
        source, straight, registry = str(self.models / model), self.work / "straight", self.work / "registry"

        def script() -> Cost:
            shutil.rmtree(straight, ignore_errors=True)
            return self.command(sys.executable, "-m", "benchmarks.straight", source, str(straight))

        def package(**variables: str) -> Cost:
            shutil.rmtree(registry, ignore_errors=True)
            cost = self.command(SLIPWAY, "package", source, "--registry", str(registry), "--json", **variables)
            _assert_all_checks(cost)
            return cost

        ways = {
            "straight script": script,
            "slipway, server running": lambda: package(PREFECT_API_URL=api_url),
            "slipway, temporary server": package,
        }
        for way in ways.values():  # once each, unmeasured: caches, and the temporary server's own database
            way()
        costs = measuring.alternate(ways, self.rounds)
        base = measuring.median_seconds(costs["straight script"])
        largest = measuring.median_largest(costs["straight script"])
        rows = []
        for name, target in (("slipway, server running", 1.15), ("slipway, temporary server", 1.35)):
            seconds, memory = measuring.median_seconds(costs[name]), measuring.median_largest(costs[name])
            detail = f"{seconds:.2f} s against {base:.2f} s"
            label = f"package {model}, {name}: wall time over the script's"
            rows.append(Row(label, seconds / base, "<=", target, detail))
            detail = f"{memory / 2**20:.0f} MiB against {largest / 2**20:.0f} MiB"
            label = f"package {model}, {name}: largest process over the script's"
            rows.append(Row(label, memory / largest, "<=", 1.3, detail))
        publisher = statistics.median(cost.peaks[cost.root] for cost in costs["slipway, server running"])
        if model == DENSE:
            detail = f"{publisher / 2**20:.0f} MiB, with TensorFlow's children beside it"
            size = (self.models / model).stat().st_size
            label = "the publishing process' peak over the 500 MB model's bytes"
            rows.append(Row(label, publisher / size, "<", 1, detail))
        return rows

    def start_up(self) -> list[Row]:
        """How long the light commands take."""
        registry = str(self.work / "registry")
        rows = []
        for arguments in (("--help",), ("list", "--registry", registry)):
            costs = [self.command(SLIPWAY, *arguments) for _ in range(self.rounds * 2)]
            rows.append(Row(f"slipway {arguments[0]}, seconds", measuring.median_seconds(costs), "<", 0.5, ""))
        return rows


def _assert_all_checks(cost: Cost) -> None:
    report = json.loads(cost.output)
    checks = [check["check"] for check in report["checks"] if check["passed"]]
    missing = [name for name in EXPECTED_CHECKS if not any(check.startswith(name) for check in checks)]
    if missing or report["reused"] or report["verdict"] != "blessed":
        raise RuntimeError(f"the measured run did not do the whole work; missing {missing}: {report}")


@contextlib.contextmanager
def _bench(rounds: int) -> Iterator[Bench]:
    models = ROOT / ".cache" / "benchmarks"
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH")
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as work:
        home = Path(work) / "home"
        home.mkdir()
        environment = {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "HOME": str(home),
            "KERAS_BACKEND": "tensorflow",
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        subprocess.run([sys.executable, "-m", "benchmarks.models", str(models)], check=True, env=environment)
        yield Bench(Path(work), models, rounds, environment)


def main() -> None:
    """Measures what was asked for, prints it, and writes the report when all was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=measuring.ROUNDS)
    parser.add_argument("--only", choices=("export", "package", "start-up", "transfers", "client", "gateway"))
    options = parser.parse_args()
    rows: list[Row] = []
    with _bench(options.rounds) as bench:
        if options.only in (None, "export"):
            rows += [row for model in (RESNET50, DENSE) for row in bench.export_alone(model)]
        if options.only in (None, "package"):
            home = bench.work / "server"
            home.mkdir()
            with running_server(home) as server:
                rows += [row for model in (RESNET50, DENSE) for row in bench.package(model, server.api_url)]
        if options.only in (None, "start-up"):
            rows += bench.start_up()
        if options.only in (None, "transfers"):
            directory = bench.work / "transfers"
            directory.mkdir()
            rows += transfers.measure(directory, bench.environment, options.rounds)
        if options.only in (None, "client"):
            rows += client.measure(bench.environment, options.rounds, bench.work / "log")
        if options.only in (None, "gateway"):
            directory = bench.work / "gateway"
            directory.mkdir()
            rows += gateway.measure(bench.environment, options.rounds, directory)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    text = write_report(rows, machine, options.rounds, None if options.only else REPORT)
    print(text)


if __name__ == "__main__":
    main()
