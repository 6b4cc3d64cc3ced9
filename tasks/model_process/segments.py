"""What of a rewritten graph lies inside engines and what does not, told from its GraphDef. Pure.

Rules:
- A node counts if the signature's outputs need it: the rewrite leaves the arguments of unrolled loops behind, which
  nothing reads (94 of the nodes of a model with two LSTMs and a GRU).
- What a loop or a branch runs counts, each function once however often it is called. TF-TRT unrolls loops into
  Enter, Switch, Merge, NextIteration and Exit, which count like any other node: no engine takes them, they cost time.
- An engine counts as the nodes of its segment, and not as a node itself.
- A constant is no computation. Everything else is counted as one, arguments and NoOp too, so that coverage is never
  told better than it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tasks.model_process.conversion_messages import LeftOut, RewrittenSignature, Segment

ENGINE: Final = "TRTEngineOp"
CONSTANT: Final = "Const"


def rewritten_signature(
    name: str, graph_def: Any, outputs: Iterable[str], reasons: Mapping[str, str]
) -> RewrittenSignature:
    """What TF-TRT made of a signature.

    Args:
        name: Of the signature.
        graph_def: After the conversion.
        outputs: The names of the tensors, or nodes, that the signature answers with.
        reasons: Why ops were left out, as far as it is known, by op.
    """
    functions = {function.signature.name: function for function in graph_def.library.function}
    segments, outside = [], Counter[str]()
    for node in running_nodes(graph_def, outputs):
        if node.op == ENGINE:
            segments.append(_segment(node.name, functions[node.attr["segment_func"].func.name].node_def))
        else:
            outside[node.op] += 1
    left_out = tuple(
        LeftOut(op, count, reasons.get(op, ""))
        for op, count in sorted(outside.items(), key=lambda item: (-item[1], item[0]))
        if op != CONSTANT
    )
    return RewrittenSignature(
        name=name,
        native="",
        nodes=sum(segment.nodes for segment in segments) + sum(outside.values()),
        computing_nodes=sum(segment.computing_nodes for segment in segments) + sum(item.nodes for item in left_out),
        segments=tuple(sorted(segments, key=lambda segment: segment.name)),
        left_out=left_out,
    )


def running_nodes(graph_def: Any, outputs: Iterable[str]) -> Iterator[Any]:
    """The nodes that the outputs need, those of called functions among them; of a segment the engine alone.

    Args:
        graph_def: A GraphDef with its library.
        outputs: Names of tensors or nodes of its main graph.
    """
    nodes = {node.name: node for node in graph_def.node}
    functions = {function.signature.name: function for function in graph_def.library.function}
    names, called, seen = [_node(name) for name in outputs], list[str](), set[str]()
    while names:
        name = names.pop()
        if name not in seen and name in nodes:
            seen.add(name)
            names.extend(map(_node, nodes[name].input))
            called.extend(_called(nodes[name], functions))
            yield nodes[name]
    entered: set[str] = set()
    while called:
        name = called.pop()
        if name not in entered:
            entered.add(name)
            for node in functions[name].node_def:
                called.extend(_called(node, functions))
                yield node


def engines(graph_def: Any) -> Iterator[Any]:
    """Every TRTEngineOp node, those in functions among them; to read, or to change an attribute."""
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        yield from (node for node in nodes if node.op == ENGINE)


def canonical_name(engine: str) -> str:
    """The name under which an engine is cached and saved: that of its node without scopes."""
    return engine.rsplit("/", 1)[-1]


def _segment(name: str, nodes: Any) -> Segment:
    return Segment(name, len(nodes), sum(node.op != CONSTANT for node in nodes))


def _called(node: Any, functions: Mapping[str, Any]) -> Iterator[str]:
    """The functions that a node runs: branches, bodies, and the op itself if it is one; none of an engine's."""
    if node.op == ENGINE:
        return
    if node.op in functions:
        yield node.op
    for attribute in node.attr.values():
        for function in (attribute.func, *attribute.list.func):
            if function.name in functions:
                yield function.name


def _node(tensor: str) -> str:
    return tensor.removeprefix("^").split(":", 1)[0]
