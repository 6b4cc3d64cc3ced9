"""What TF-TRT would make of a model, as people read it: engines, what is left out and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from flows.tables import add_row, new_table, print_rich, printable

if TYPE_CHECKING:
    from tasks.model_process.conversion_messages import RewrittenModel, RewrittenSignature

_SAYS = "an estimate made on a CPU: TF-TRT's own rewrite of the graph, no TensorRT, no engine"


def print_rewritten(name: str, rewritten: RewrittenModel) -> None:
    """The segments that would become engines, and the nodes that would not.

    Args:
        name: Of the model, as it was asked for.
        rewritten: What the rewrite came to.
    """
    print_rich(Text(printable(f"{name}: {_SAYS}"), style="bold"))
    summary = new_table("SIGNATURE", "ENGINES", "NODES", "NON-CONST", "INSIDE ENGINES", "STAYS NATIVE BECAUSE")
    for item in rewritten.signatures:
        share = "-" if item.native else f"{item.coverage:.1%}"
        add_row(summary, item.name, len(item.segments), item.nodes, item.computing_nodes, share, item.native)
    print_rich(summary)
    segments = new_table("SIGNATURE", "SEGMENT", "NODES", "NON-CONST")
    left_out = new_table("SIGNATURE", "LEFT OUT", "NODES", "WHY")
    for item in rewritten.signatures:
        for segment in item.segments:
            add_row(segments, item.name, segment.name, segment.nodes, segment.computing_nodes)
        for left in item.left_out:
            add_row(left_out, item.name, left.op, left.nodes, left.reason)
    for table in (segments, left_out):
        if table.row_count:
            print_rich(table)


def rewritten_document(rewritten: RewrittenModel) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "engines": rewritten.engines,
        "coverage": rewritten.coverage,
        "signatures": [_signature_document(item) for item in rewritten.signatures],
    }


def _signature_document(item: RewrittenSignature) -> dict[str, Any]:
    return {**asdict(item), "coverage": item.coverage}
