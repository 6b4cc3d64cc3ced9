"""Tables for people, on stdout. On a terminal they fold to its width; into a pipe each row stays one line.

Manifests and reports hold names that somebody else chose, so nothing of them is taken for markup or
reaches the terminal as a control character.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from model_registry.servable import ServableVersion, TensorInfo
    from tasks.diagnosis import Finding

_PIPE_WIDTH = 10_000
_STYLES = {"ok": "green", "passed": "green", "warn": "yellow", "fail": "bold red", "FAILED": "bold red"}
_SHORT = {"max_absolute_error": "absolute", "max_relative_error": "relative"}
_STEPS = ((60.0, "second"), (3600.0, "minute"), (86_400.0, "hour"), (60 * 86_400.0, "day"))


def print_versions(versions: Sequence[ServableVersion], now: datetime | None = None) -> None:
    """A row for each version.

    Args:
        versions: In the order to be shown.
        now: What ages are told from; the present by default.
    """
    table = _table("VERSION", "CREATED", "SOURCE", "SIZE", "CHECKS", "RUN")
    for version in versions:
        failed = len(version.blessing.failures)
        checks = f"{failed} FAILED" if failed else f"{len(version.blessing.checks)} passed"
        source = version.source.uri.rstrip("/").rsplit("/", 1)[-1]
        size = sum(variant.bytes for variant in version.variants)
        _row(table, version.version, age(version.created_at, now), source, in_bytes(size), checks, version.run.name)
    _print(table)


def print_version(version: ServableVersion, uris: Mapping[str, str], now: datetime | None = None) -> None:
    """All a person asks of one version.

    Args:
        version: The manifest.
        uris: Where each variant lies, by its name.
        now: What the age is told from; the present by default.
    """
    source = version.source
    run = version.run.name + (f"  {version.run.url}" if version.run.url else "")
    facts = {
        "model": f"{version.model}:{version.version}",
        "created": f"{version.created_at} ({age(version.created_at, now)})",
        "source": source.uri,
        "": f"{source.format}, {in_bytes(source.bytes)}, sha256 {source.sha256[:12]}",
        "batch sizes": ", ".join(map(str, version.batch_sizes)),
        "libraries": ", ".join(f"{name} {found}" for name, found in version.libraries.items()),
        "run": run,
    }
    _print_facts(facts)
    variants = _table("VARIANT", "FILES", "SIZE", "DIGEST", "URI")
    for variant in version.variants:
        size = in_bytes(variant.bytes)
        _row(variants, variant.name, len(variant.files), size, variant.digest[:12], uris[variant.name])
    _print(variants)
    if version.missing:
        missing = _table("NOT DELIVERED", "WHY")
        for name, why in version.missing.items():
            _row(missing, name, why)
        _print(missing)
    signatures = _table("SIGNATURE", "METHOD", "INPUTS", "OUTPUTS")
    for signature in version.signatures:
        inputs, outputs = _tensors(signature.inputs), _tensors(signature.outputs)
        _row(signatures, signature.name, signature.method, inputs, outputs)
    _print(signatures)
    print_checks(asdict(check) for check in version.blessing.checks)


def print_package_report(report: Mapping[str, Any]) -> None:
    """What a packaging came to.

    Args:
        report: As `slipway package --json` prints it.
    """
    if report["version"] is None:
        outcome = f"{report['model']} was rejected, nothing was published"
    else:
        outcome = f"{report['model']}:{report['version']} " + (
            "was there already, made from the same input" if report["reused"] else "published"
        )
    _print(Text(printable(outcome), style="bold"))
    if report["variants"]:
        variants = _table("VARIANT", "FILES", "SIZE", "DIGEST", "URI")
        for name, variant in report["variants"].items():
            size, digest = in_bytes(variant["bytes"]), variant["digest"][:12]
            _row(variants, name, variant["files"], size, digest, variant["uri"])
        _print(variants)
    print_checks(report["checks"])
    stages = ", ".join(f"{stage['stage']} {stage['seconds']:.1f} s" for stage in report["stages"])
    _print_facts({"stages": f"{stages}; {report['seconds']:.1f} s from start to end", "registry": report["registry"]})


def print_checks(checks: Iterable[Mapping[str, Any]]) -> None:
    """What was measured on a candidate.

    Args:
        checks: Each as the JSON of a report or a manifest has it.
    """
    made = list(checks)
    several = len({check["variant"] for check in made}) > 1  # a column that says the same in each row tells nothing
    table = _table("CHECK", *(["VARIANT"] if several else []), "MEASURED", "THRESHOLD", "VERDICT", "DETAIL")
    for check in made:
        name = [check["check"], check["variant"]] if several else [check["check"]]
        verdict = "passed" if check["passed"] else "FAILED"
        _row(table, *name, measure(check["measured"]), measure(check["threshold"]), verdict, check.get("detail", ""))
    if made:
        _print(table)


def print_findings(findings: Sequence[Finding]) -> None:
    """What the doctor found."""
    table = _table("CHECK", "FOUND", "VERDICT", "WHAT TO DO")
    for finding in findings:
        _row(table, finding.check, finding.found, finding.verdict, finding.hint)
    _print(table)


def age(created_at: str, now: datetime | None = None) -> str:
    """How long ago something was, as a person says it; after two months the date.

    Args:
        created_at: ISO 8601.
        now: The present by default.
    """
    try:
        created = datetime.fromisoformat(created_at.replace("Z", "+00:00"))
    except ValueError:
        return created_at
    if created.tzinfo is None:
        created = created.replace(tzinfo=timezone.utc)
    seconds = ((now or datetime.now(timezone.utc)) - created).total_seconds()
    unit = 1.0
    for limit, name in _STEPS:
        if seconds < limit:
            count = max(0, int(seconds // unit))
            return f"{count} {name}{'' if count == 1 else 's'} ago"
        unit = limit if name != "day" else unit
    return created.date().isoformat()


def in_bytes(size: int) -> str:
    """A size as a person reads it: powers of ten, as disks and clouds count."""
    return decimal(size)


def printable(text: str) -> str:
    """The text with whatever could steer a terminal shown as an escape."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def measure(value: object) -> str:
    """A measured value or a threshold in a few digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_SHORT.get(name, name)} {measure(item)}" for name, item in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _tensors(tensors: Sequence[TensorInfo]) -> str:
    return "\n".join(f"{tensor.name} {tensor.dtype} {_shape(tensor)}" for tensor in tensors)


def _shape(tensor: TensorInfo) -> str:
    if tensor.shape is None:
        return "of unknown rank"
    return f"[{', '.join('null' if size is None else str(size) for size in tensor.shape)}]"


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for header in headers:
        # A path or a digest cut short is of no use: it goes on in the next line.
        table.add_column(header, overflow="fold", justify="right" if header in ("FILES", "SIZE") else "left")
    return table


def _row(table: Table, *values: object) -> None:
    table.add_row(*(_cell(value) for value in values))


def _cell(value: object) -> Text:
    lines = str(value).split("\n")
    text = "\n".join(printable(line) for line in lines)
    return Text(text, style=_STYLES.get(text, ""))


def _print_facts(facts: Mapping[str, str]) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(Text(name), _cell(value))
    _print(grid)


def _print(what: Table | Text) -> None:
    if sys.stdout.isatty():
        terminal = Console(highlight=False)
        terminal.print(what)
        if isinstance(what, Table):
            terminal.print()
        return
    console = Console(highlight=False, width=_PIPE_WIDTH)
    with console.capture() as capture:
        console.print(what)
    # Cells are padded to their column's width: nothing that a diff or a grep would want to see.
    lines = (line.rstrip() for line in capture.get().splitlines())
    sys.stdout.write("\n".join(lines) + ("\n\n" if isinstance(what, Table) else "\n"))
