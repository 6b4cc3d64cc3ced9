"""What people read: versions, their history, reports and findings, as tables on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.text import Text

from flows.changes import change_sentence
from flows.rollout_sentences import rollout_in_history
from flows.tables import add_row, new_table, print_facts, print_rich, printable
from model_registry.variants import REHEARSAL

if TYPE_CHECKING:
    from model_registry.comparison import Difference
    from model_registry.servable import ServableVersion, TensorInfo
    from model_registry.state import Record, Transition
    from tasks.diagnosis import Finding

_SHORT = {"max_absolute_error": "absolute", "max_relative_error": "relative"}
_STEPS = ((60.0, "second"), (3600.0, "minute"), (86_400.0, "hour"), (60 * 86_400.0, "day"))


def print_versions(versions: Sequence[Mapping[str, Any]], now: datetime | None = None) -> None:
    """A row for each version.

    Args:
        versions: Each as `slipway list MODEL --json` prints it.
        now: What ages are told from; the present by default.
    """
    table = new_table("VERSION", "LABELS", "COMMITTED")
    for listed in versions:
        labels = "(retired)" if listed["retired"] else ", ".join(listed["labels"])
        add_row(table, listed["version"], labels, age(listed["committed_at"], now))
    print_rich(table)


def print_version(
    version: ServableVersion, document: Mapping[str, Any], now: datetime | None = None, *, rollout: str = ""
) -> None:
    """All a person asks of one version.

    Args:
        version: The manifest.
        document: As `slipway show --json` prints it.
        now: What the age is told from; the present by default.
        rollout: How the rollout of its model stands; empty where none is under way.
    """
    source = version.source
    run = version.run.name + (f"  {version.run.url}" if version.run.url else "")
    labels = ", ".join(document["labels"]) or "none"
    facts = {
        "model": f"{version.model}:{version.version}",
        "labels": "none, it is retired: no label may name it, and gc deletes it" if document["retired"] else labels,
        **({"rollout": rollout} if rollout else {}),
        "created": f"{version.created_at} ({age(version.created_at, now)})",
        "source": source.uri,
        "": f"{source.format}, {in_bytes(source.bytes)}, sha256 {source.sha256[:12]}",
        "batch sizes": ", ".join(map(str, version.batch_sizes)),
        "libraries": ", ".join(f"{name} {found}" for name, found in version.libraries.items()),
        "run": run,
        "signature": _signature(version, checked=document["signature_checked"]),
    }
    print_facts(facts)
    _print_variants({variant["name"]: {**variant, "files": len(variant["files"])} for variant in document["variants"]})
    _print_missing(version.missing)
    signatures = new_table("SIGNATURE", "METHOD", "INPUTS", "OUTPUTS")
    for signature in version.signatures:
        inputs, outputs = _tensors(signature.inputs), _tensors(signature.outputs)
        add_row(signatures, signature.name, signature.method, inputs, outputs)
    print_rich(signatures)
    print_checks(asdict(check) for check in version.blessing.checks)


def print_differences(differences: Sequence[Difference], before: str, after: str) -> None:
    """A row for each difference, the versions as the headers of their columns."""
    table = new_table("SECTION", "ITEM", before, after)
    for found in differences:
        texts = [_value(found.item, value) for value in (found.before, found.after)]
        if texts[0] == texts[1]:  # what tells them apart was rounded off
            texts = [str(found.before), str(found.after)]
        add_row(table, found.section, printable(found.item), *map(printable, texts))
    print_rich(table)


def print_history(records: Sequence[Record], now: datetime | None = None) -> None:
    """A row for each transition.

    Args:
        records: In the order to be shown.
        now: What ages are told from; the present by default.
    """
    table = new_table("REVISION", "WHEN", "WHAT", "WHO", "WHY", "RUN")
    for record in records:
        origin, when = record.origin, f"{record.when} ({age(record.when, now)})"
        run = f"{origin.run.name}  {origin.run.url or ''}".rstrip() if origin.run else ""
        texts = (when, _moved(record.transition), origin.who, origin.why, run)
        add_row(table, record.revision, *map(printable, texts))  # a line break in a reason makes no row of its own
    print_rich(table)


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
    print_rich(Text(printable(outcome), style="bold"))
    _print_variants(report["variants"])
    _print_missing(report["missing"])
    print_checks(report["checks"])
    if report["label"]:
        print_rich(Text(printable(change_sentence(report["label"]))))
    stages = ", ".join(f"{stage['stage']} {stage['seconds']:.1f} s" for stage in report["stages"])
    print_facts({"stages": f"{stages}; {report['seconds']:.1f} s from start to end", "registry": report["registry"]})


def print_checks(checks: Iterable[Mapping[str, Any]]) -> None:
    """What was measured on a candidate.

    Args:
        checks: Each as the JSON of a report or a manifest has it.
    """
    made = list(checks)
    several = len({check["variant"] for check in made}) > 1  # a column that says the same in each row tells nothing
    table = new_table("CHECK", *(["VARIANT"] if several else []), "MEASURED", "THRESHOLD", "VERDICT", "DETAIL")
    for check in made:
        name = [check["check"], check["variant"]] if several else [check["check"]]
        verdict = "passed" if check["passed"] else "FAILED"
        add_row(table, *name, measure(check["measured"]), measure(check["threshold"]), verdict, check.get("detail", ""))
    if made:
        print_rich(table)


def print_findings(findings: Sequence[Finding]) -> None:
    """What the doctor found."""
    table = new_table("CHECK", "FOUND", "VERDICT", "WHAT TO DO")
    for finding in findings:
        add_row(table, finding.check, finding.found, finding.verdict, finding.hint)
    print_rich(table)


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


def measure(value: object) -> str:
    """A measured value or a threshold in a few digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_SHORT.get(name, name)} {measure(item)}" for name, item in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _print_variants(variants: Mapping[str, Mapping[str, Any]]) -> None:
    """A row for each, and beneath what its engines fit, or that it has none."""
    if not variants:
        return
    table = new_table("VARIANT", "FILES", "SIZE", "DIGEST", "URI")
    for name, variant in variants.items():
        add_row(table, name, variant["files"], in_bytes(variant["bytes"]), variant["digest"][:12], variant["uri"])
    print_rich(table)
    made_on = {name: _made_on(name, variant.get("accelerator")) for name, variant in variants.items()}
    if any(made_on.values()):
        print_facts({name: text for name, text in made_on.items() if text})


def _made_on(name: str, accelerator: Mapping[str, str] | None) -> str:
    if accelerator:
        found = accelerator
        return (
            f"engines for compute capability {found['compute_capability']}, built on {found['name']} with TensorRT "
            f"{found['tensorrt']}, CUDA {found['cuda']}, driver {found['driver']}"
        )
    return "a rehearsal of the conversion: no TensorRT ran, and it has no engines" if name == REHEARSAL else ""


def _print_missing(missing: Mapping[str, str]) -> None:
    if missing:
        table = new_table("NOT DELIVERED", "WHY")
        for name, why in missing.items():
            add_row(table, name, printable(why))
        print_rich(table)


def _tensors(tensors: Sequence[TensorInfo]) -> str:
    return "\n".join(f"{tensor.name} {tensor.form}" for tensor in tensors)


def _signature(version: ServableVersion, *, checked: bool) -> str:
    if version.signature is None:
        return "unsigned"
    outcome = "checked" if checked else "not checked: SLIPWAY_PUBLIC_KEY is not set"
    return f"signed by key {version.signature.key_id} ({outcome})"


def _moved(transition: Transition) -> str:
    if transition.traffic is not None:
        return rollout_in_history(transition)
    if transition.label is None:
        versions = ", ".join(map(str, transition.versions))
        return f"{transition.action} {versions}{' and forget' if transition.forget else ''}"
    before, after = ("nothing" if end is None else end for end in (transition.from_version, transition.to_version))
    return f"{transition.action} {transition.label}: {before} -> {after}"


def _value(item: str, value: Any) -> str:
    if value is None:
        return "-"
    if item.endswith(("digest", "sha256")):
        return str(value)[:12]
    return f"{value:,}" if type(value) is int else measure(value)
