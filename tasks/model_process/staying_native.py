"""Why a signature is not for TF-TRT, told from the SavedModel's proto before anything is converted.

TF-TRT freezes a signature: each variable becomes a constant, and what cannot become one makes it fail, some of it
(lookup tables) only when the result is saved. Such a signature stays as it is, beside those that are converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from model_registry.servable import Signature
from tasks.model_process.changed_variables import VARIABLE, changed_variables, read_variables, resource_arguments
from tasks.model_process.graph_walk import GraphWalk

# What convert_variables_to_constants_v2 turns into constants (tensorflow/python/framework/convert_to_constants.py).
_FROZEN_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})


def reasons_to_stay_native(meta_graph: Any, signatures: Sequence[Signature]) -> dict[str, str]:
    """Why each signature is left as it is, by name; empty for those that TF-TRT is given.

    A variable that one signature changes is the same one to all others, so none that reads it can be frozen either.

    Args:
        meta_graph: The MetaGraphDef of the native SavedModel.
        signatures: All of its signatures.

    Raises:
        InvalidInputError: If the graph is ambiguous: it has two nodes or functions of one name.
    """
    reasons = {signature.name: stays_native(meta_graph, signature) for signature in signatures}
    # A definition that is none of the signatures that are offered can be called all the same.
    changed = {name: changed_variables(meta_graph, name) for name in sorted(meta_graph.signature_def)}
    for name in [name for name, reason in reasons.items() if not reason]:
        read = read_variables(meta_graph, name)
        for other, variables in changed.items():
            if shared := sorted(read & variables):
                reasons[name] = (
                    f"{other!r} changes the variable {shared[0]!r} that it reads, so it cannot be frozen into a graph"
                )
                break
    return reasons


def stays_native(meta_graph: Any, signature: Signature) -> str:
    """Why a signature is left as it is for what it runs itself, in one line for a person; empty if nothing is.

    Args:
        meta_graph: The MetaGraphDef of the native SavedModel.
        signature: One of its signatures.

    Raises:
        InvalidInputError: If the graph is ambiguous: it has two nodes or functions of one name.
    """
    nodes = list(GraphWalk(meta_graph).run_by_signature(signature.name))
    ops = sorted({node.op for node in nodes})
    parsing = [op for op in ops if op.startswith(("ParseExample", "ParseSingleExample", "ParseSequenceExample"))]
    if parsing:
        return f"it parses serialized tf.Examples ({parsing[0]}), and TensorRT has no strings"
    for kind, infos in (("input", signature.inputs), ("output", signature.outputs)):
        strings = [info.name for info in infos if info.dtype == "string"]
        if strings:
            return f"its {kind} {strings[0]!r} holds strings, which TensorRT does not have"
    tables = [op for op in ops if "Table" in op]
    if tables:
        return f"it looks things up in a table ({tables[0]}), which cannot be frozen into a graph"
    owners = sorted(_of_resources(nodes, "output_arg") - {VARIABLE})
    if owners:
        return f"it keeps a resource that is no variable ({owners[0]}), which cannot be frozen into a graph"
    users = sorted(_of_resources(nodes, "input_arg") - _FROZEN_READS)
    if users:
        change = "changes" if users[0].startswith(("Assign", "Resource")) else "does more than read"
        return f"it {change} its variables as it runs ({users[0]}), so they cannot be frozen into a graph"
    return ""


def frozen_bytes(meta_graph: Any, signature: Signature) -> int:
    """How many bytes of variables a signature reads, and so how large its frozen graph is at least."""
    return sum(
        tf.as_dtype(node.attr["dtype"].type).size * (tf.TensorShape(node.attr["shape"].shape).num_elements() or 0)
        for node in GraphWalk(meta_graph).run_by_signature(signature.name)
        if node.op == VARIABLE
    )


def node_counts(meta_graph: Any, signature: Signature) -> tuple[int, int]:
    """How many nodes a signature can run, and how many of them are no constants."""
    ops = [node.op for node in GraphWalk(meta_graph).run_by_signature(signature.name)]
    return len(ops), sum(op != "Const" for op in ops)


def _of_resources(nodes: list[Any], arguments: str) -> set[str]:
    """The ops that take, or yield, a resource whatever they are applied to."""
    return {node.op for node in nodes if any(True for _ in resource_arguments(node, arguments))}
