"""Running commands and watching what they cost."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROUNDS = 5


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: Wall time.
        peaks: Peak resident memory of each of its processes, in bytes, by process id.
        root: The process id of the command itself.
        output: What it printed on stdout.
    """

    seconds: float
    peaks: Mapping[int, int]
    root: int
    output: str

    @property
    def largest(self) -> int:
        """Peak resident memory of the largest process, in bytes."""
        return max(self.peaks.values())


def run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Cost:
    """Runs a command to its end.

    Raises:
        RuntimeError: If it fails; the message ends with its log.
    """
    started = time.perf_counter()
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=dict(environment), text=True)
    peaks: dict[int, int] = {}
    watcher = threading.Thread(target=_watch, args=(process, peaks), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - started
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    return Cost(seconds, peaks, process.pid, output)


def _watch(process: subprocess.Popen[str], peaks: dict[int, int]) -> None:
    """Notes each process' high-water mark, which the kernel keeps: only the last look at each counts."""
    root = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for item in [root, *root.children(recursive=True)]:
                peaks[item.pid] = max(peaks.get(item.pid, 0), high_water_mark(item.pid))
        time.sleep(0.1)


def high_water_mark(pid: int) -> int:
    """Peak resident memory of a running process, in bytes; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def alternate(ways: Mapping[str, Callable[[], Cost]], rounds: int = ROUNDS) -> dict[str, list[Cost]]:
    """Measures several ways in turn, so that what else the machine does falls on all of them."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for index in range(rounds):
        for name, way in ways.items():
            cost = way()
            costs[name].append(cost)
            print(f"  round {index + 1}: {name} {cost.seconds:.2f} s, {cost.largest / 2**20:.0f} MiB", file=sys.stderr)
    return costs


def median_seconds(costs: Sequence[Cost]) -> float:
    """Median wall time."""
    return statistics.median(cost.seconds for cost in costs)


def median_largest(costs: Sequence[Cost]) -> float:
    """Median over the rounds of the largest process' peak, in bytes."""
    return statistics.median(cost.largest for cost in costs)


def last_json(output: str) -> dict[str, float]:
    """The JSON document a measuring child printed last."""
    document: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return document
