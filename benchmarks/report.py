"""Rows of measurements, and the page they go to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

_HEAD = """# Benchmarks

Written by `make bench`; do not edit. Ratios within one run count, seconds are those of one machine.

- Measured: {date}, {machine}; medians of {rounds} rounds, the ways alternating.
- The straight script (benchmarks/straight.py) imports TensorFlow, loads, exports the same way, runs one
  `saved_model_cli run` in a process, and copies the directory. Slipway adds: hashing, a process without
  network, warm-up records, `saved_model_cli show` and `scan`, a look at every op, a replay of every record,
  parity with the Keras model, publishing with a manifest, and a Prefect flow run. The benchmark fails if a
  check was left out.
- Transfers: every tool against one emulator of S3 (ministack) on the same cores, each with its own numbers of
  connections and parts. The AWS CLI and s5cmd are commands and their start counts; ours and obstore run in
  processes that have connected. Only ours hashes (SHA-256, both ways). The emulator keeps objects in memory here:
  told to keep them on the disk it reads the whole object anew for each range, which punishes whoever downloads
  in ranges. No network took part.
- Client: one caller; both ways in one process, taking turns of ten requests, over gRPC to a server that answers at
  once and runs no model, so that the client's own cost is not lost beside a model's. A request is float32
  [batch, 28, 28, 1], an answer float32 [batch, 10]. The straight stub is `PredictionServiceStub` with
  `tf.make_tensor_proto` and `tf.make_ndarray`, and checks nothing; ours checks each request against the signature.
  The ratio is the median of the rounds' ratios.
- Gateway: the same caller and server; directly, through an Envoy that only passes on, and through the gateway's, with
  its routes by model, retries, limits, metrics by version and access log. One worker thread in each Envoy.
- No GPU and no TensorRT took part in any of this.

| what | measured | target | met | detail |
| --- | --- | --- | --- | --- |
"""


_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: What was measured.
        measured: The figure.
        relation: How it should stand to the target.
        target: What it should reach.
        detail: The figures behind it.
    """

    what: str
    measured: float
    relation: Literal["<", "<=", ">", ">="]
    target: float
    detail: str

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return _RELATIONS[self.relation](self.measured, self.target)


def write_report(rows: Sequence[Row], machine: str, rounds: int, path: Path | None) -> str:
    """Renders the page, writes it where asked, and returns it."""
    head = _HEAD.format(date=datetime.now(timezone.utc).date(), machine=machine, rounds=rounds)
    lines = [
        f"| {row.what} | {row.measured:.2f} | {row.relation} {row.target:g} | {'yes' if row.met else '**missed**'} "
        f"| {row.detail} |\n"
        for row in rows
    ]
    text = head + "".join(lines)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return text
