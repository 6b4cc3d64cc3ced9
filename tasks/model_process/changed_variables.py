"""Which variables a signature changes, told from the proto: a signature that is frozen must read none of them.

The handle that an op changes is followed back to its VarHandleOp, out of functions into whoever calls them. Where that
way is lost, each variable that the signature reaches counts as changed: rather a signature too many stays native.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import op_def_registry

from tasks.model_process.graph_walk import GraphWalk, node_of

VARIABLE: Final = "VarHandleOp"
_ONLY_READ = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"})
# What they yield is one of the resources that they are given.
_PASS_ON = frozenset({"Identity", "IdentityN", "Enter", "Exit", "Merge", "NextIteration", "Switch", "_SwitchN"})
# How many of their inputs come before the arguments of the functions that they call.
_CALLS = {
    "PartitionedCall": 0,
    "StatefulPartitionedCall": 0,
    "While": 0,
    "StatelessWhile": 0,
    "If": 1,
    "StatelessIf": 1,
    "Case": 1,
    "StatelessCase": 1,
}
_LOOPS = frozenset({"While", "StatelessWhile"})

Place = tuple["str | None", str]  # a function, or None for the graph itself; and a tensor as an input names it there


class _LostError(Exception):
    """A handle comes from where it cannot be followed."""


def changed_variables(meta_graph: Any, signature: str) -> frozenset[str]:
    """The names of the variables that a signature changes.

    Args:
        meta_graph: A MetaGraphDef.
        signature: The name of one of its signatures.

    Raises:
        InvalidInputError: If the graph has two nodes or functions of one name.
    """
    walk = GraphWalk(meta_graph)
    located = list(walk.located_in_signature(signature))
    changed: set[str] = set()
    try:
        for function, node in located:
            for tensor in _changed_by(node):
                changed |= _sources(walk, located, (function, tensor))
    except (_LostError, IndexError, KeyError, ValueError):  # the others: what is named is not there
        return _variables(node for _, node in located)
    return frozenset(changed)


def read_variables(meta_graph: Any, signature: str) -> frozenset[str]:
    """The names of the variables that a signature can reach."""
    return _variables(GraphWalk(meta_graph).run_by_signature(signature))


def resource_arguments(node: Any, kind: str) -> Iterator[int]:
    """Which arguments of an op are a resource whatever it is applied to; Identity and calls pass on anything.

    Args:
        node: A NodeDef.
        kind: "input_arg" or "output_arg".
    """
    definition = op_def_registry.get(node.op)
    for index, argument in enumerate(getattr(definition, kind) if definition is not None else ()):
        if argument.type == types_pb2.DT_RESOURCE:
            yield index


def _variables(nodes: Iterable[Any]) -> frozenset[str]:
    return frozenset(_name(node) for node in nodes if node.op == VARIABLE)


def _name(node: Any) -> str:
    """Two handles of one name are of one variable."""
    return node.attr["shared_name"].s.decode(errors="replace") or str(node.name)


def _changed_by(node: Any) -> Iterator[str]:
    if node.op in _ONLY_READ:
        return
    definition = op_def_registry.get(node.op)
    resources = list(resource_arguments(node, "input_arg"))
    # Lists among the arguments shift the inputs behind them.
    plain = definition is not None and not any(arg.number_attr or arg.type_list_attr for arg in definition.input_arg)
    if resources and not plain:
        raise _LostError
    for index in resources:
        yield node.input[index]


def _sources(walk: GraphWalk, located: list[tuple[str | None, Any]], start: Place) -> set[str]:
    """The variables that a handle can be of; other resources are none."""
    nodes = {(function, node.name): node for function, node in located}
    ahead, seen, found = [start], set[Place](), set[str]()
    while ahead:
        place = function, tensor = ahead.pop()
        if place in seen:
            continue
        seen.add(place)
        node = nodes.get((function, node_of(tensor)))
        if node is None:
            ahead.extend(_given(walk, located, function, node_of(tensor)))
        elif node.op in _PASS_ON:
            ahead.extend((function, name) for name in node.input if not name.startswith("^"))
        elif node.op == VARIABLE:
            found.add(_name(node))
        elif node.op in _CALLS and node.op not in _LOOPS:
            ahead.extend(_yielded(walk, node, tensor))
        elif not list(resource_arguments(node, "output_arg")):
            raise _LostError
    return found


def _yielded(walk: GraphWalk, node: Any, tensor: str) -> Iterator[Place]:
    """What each function that a node may call yields for one of its outputs: `node`, `node:1`, or `node:output:1`."""
    _, _, index = tensor.rpartition(":") if ":" in tensor else ("", "", "0")
    for name in walk.called(node):
        function = walk.functions[name]
        yield name, function.ret[function.signature.output_arg[int(index)].name]


def _given(
    walk: GraphWalk, located: list[tuple[str | None, Any]], function: str | None, argument: str
) -> Iterator[Place]:
    """What is given for a function's argument by all who call it."""
    if function is None:
        raise _LostError
    signature = walk.functions[function].signature
    index = [item.name for item in signature.input_arg].index(argument)
    for caller, node in located:
        if function not in walk.called(node):
            continue
        if node.op != function and node.op not in _CALLS:
            raise _LostError
        yield caller, node.input[_CALLS.get(node.op, 0) + index]
        if node.op in _LOOPS and function == node.attr["body"].func.name:
            # The next time round it is given what it yielded.
            yield function, walk.functions[function].ret[signature.output_arg[index].name]
