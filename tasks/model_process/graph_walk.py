"""What a MetaGraph would run and where a tensor comes from, told from the proto alone: nothing is executed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from model_registry.errors import InvalidInputError

# Their inputs are the arguments of the function in their attribute `f`.
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
# What may take the handle of a variable that still holds what its initializer assigned.
_HARMLESS_WITH_A_HANDLE = frozenset({"ReadVariableOp", "VarIsInitializedOp"})


class GraphWalk:
    """The nodes of a MetaGraph, those of its functions among them.

    Args:
        meta_graph: A MetaGraphDef; nobody has checked it yet.

    Attributes:
        functions: The FunctionDefs of its library, by name.

    Raises:
        InvalidInputError: If two nodes or functions have one name, so that one could hide behind the other.
    """

    def __init__(self, meta_graph: Any) -> None:
        self._meta_graph = meta_graph
        graph = meta_graph.graph_def
        self._main = _by_name((node.name, node) for node in graph.node)
        self.functions = _by_name((function.signature.name, function) for function in graph.library.function)
        self._bodies = {
            name: _by_name((node.name, node) for node in function.node_def) for name, function in self.functions.items()
        }

    def nodes(self) -> Iterator[tuple[str | None, Any]]:
        """Every node, with the name of the function that holds it; None for the graph itself."""
        for node in self._main.values():
            yield None, node
        for name, body in self._bodies.items():
            for node in body.values():
                yield name, node

    def run_by_serving(self) -> Iterator[Any]:
        """The nodes that signatures, initialisation or a function of the object graph can run; not the saver's."""
        graph = self._meta_graph
        names = [tensor for definition in graph.signature_def.values() for tensor in _named(definition)]
        for collection in graph.collection_def.values():
            names += collection.node_list.value
        objects = graph.object_graph_def
        functions = set(objects.concrete_functions)
        for node in objects.nodes:
            functions.update(node.function.concrete_functions)
            functions.add(node.bare_concrete_function.concrete_function_name)
        return self._reached(names, functions)

    def run_by_signature(self, name: str) -> Iterator[Any]:
        """The nodes that one signature can run."""
        return (node for _, node in self.located_in_signature(name))

    def located_in_signature(self, name: str) -> Iterator[tuple[str | None, Any]]:
        """The same with the name of the function that holds each; None for the graph itself."""
        return self._located(_named(self._meta_graph.signature_def[name]), ())

    def run_by_restoring(self) -> Iterator[Any]:
        """The nodes that the saver runs to load the variables."""
        return self._reached([self._meta_graph.saver_def.restore_op_name], ())

    def comes_from_asset(self, function: str | None, tensor: str) -> bool:
        """Whether a tensor can be nothing but the path of one of the model's assets.

        Args:
            function: The function it stands in; None for the graph itself.
            tensor: As a node's input names it.
        """
        try:
            return self._comes_from_asset(function, tensor, set())
        except (IndexError, KeyError, RecursionError):
            return False  # inputs that are missing, or a way too long: nothing is proven

    def _reached(self, names: Iterable[str], functions: Iterable[str]) -> Iterator[Any]:
        return (node for _, node in self._located(names, functions))

    def _located(self, names: Iterable[str], functions: Iterable[str]) -> Iterator[tuple[str | None, Any]]:
        names, pending = [node_of(name) for name in names], list(functions)
        seen: set[str] = set()
        while names:
            node = self._main.get(names.pop())
            if node is not None and node.name not in seen:
                seen.add(node.name)
                names.extend(map(node_of, node.input))
                pending.extend(self.called(node))
                yield None, node
        entered: set[str] = set()
        while pending:
            name = pending.pop()
            if name in self._bodies and name not in entered:
                entered.add(name)
                for node in self._bodies[name].values():
                    pending.extend(self.called(node))
                    yield name, node

    def called(self, node: Any) -> Iterator[str]:
        """The functions that a node refers to: branches, bodies, and the op itself if it is one."""
        if node.op in self.functions:
            yield node.op
        for attribute in node.attr.values():
            if attribute.func.name:
                yield attribute.func.name
            yield from (function.name for function in attribute.list.func)

    def _comes_from_asset(self, function: str | None, tensor: str, asked: set[tuple[str | None, str]]) -> bool:
        name = node_of(tensor)
        if (function, name) in asked:
            return True  # on a way round; the others decide
        asked.add((function, name))
        if function is None:
            assets = {node_of(asset.tensor_info.name) for asset in self._meta_graph.asset_file_def}
            if name in assets:
                return True
            node = self._main.get(name)
            if node is not None and node.op == "ReadVariableOp":
                return self._variable_holds_asset(node_of(node.input[0]), asked)
        else:
            arguments = [argument.name for argument in self.functions[function].signature.input_arg]
            if name in arguments:
                return self._argument_is_asset(function, arguments.index(name), len(arguments), asked)
            node = self._bodies[function].get(name)
        if node is not None and node.op == "Identity":
            return self._comes_from_asset(function, node.input[0], asked)
        return False

    def _variable_holds_asset(self, handle: str, asked: set[tuple[str | None, str]]) -> bool:
        """TensorFlow 2 puts an asset's path into a variable that is assigned when the model is initialised."""
        node = self._main.get(handle)
        users = [user for user in self._main.values() if handle in map(node_of, _data(user))]
        assigned = [user for user in users if user.op == "AssignVariableOp" and node_of(user.input[0]) == handle]
        others = {user.op for user in users if user not in assigned}
        return (
            node is not None
            and node.op == "VarHandleOp"
            and bool(assigned)
            and others <= _HARMLESS_WITH_A_HANDLE
            and all(self._comes_from_asset(None, user.input[1], asked) for user in assigned)
        )

    def _argument_is_asset(self, function: str, index: int, count: int, asked: set[tuple[str | None, str]]) -> bool:
        """Whether all who call the function give it an asset's path there."""
        objects = self._meta_graph.object_graph_def
        known = objects.concrete_functions
        if function in known:
            bound = known[function].bound_inputs
            first = count - len(bound)  # captured tensors follow the arguments
            if index < first or objects.nodes[bound[index - first]].WhichOneof("kind") != "asset":
                return False
        for caller, node in self.nodes():
            if function not in self.called(node):
                continue
            if node.op not in _CALLS and node.op != function:
                return False
            if not self._comes_from_asset(caller, _data(node)[index], asked):
                return False
        return True


def _by_name(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in items:
        if name in found:
            raise InvalidInputError(
                f"the SavedModel's graph has {name[:100]!r} twice: expected each name once",
                hint="do not load this model before you know where it comes from; TensorFlow writes no such graph",
            )
        found[name] = item
    return found


def node_of(tensor: str) -> str:
    """The node behind `name`, `name:0`, `name:output:0` or `^name`."""
    return tensor.removeprefix("^").split(":", 1)[0]


def _data(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]


def _named(definition: Any) -> list[str]:
    """The tensors that a SignatureDef names."""
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return [tensor for info in infos for tensor in _tensors(info)]


def _tensors(info: Any) -> list[str]:
    """The tensors that a TensorInfo names: one, or those that make up a sparse or another composite one."""
    if info.WhichOneof("encoding") == "coo_sparse":
        sparse = info.coo_sparse
        return [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
    if info.WhichOneof("encoding") == "composite_tensor":
        return [tensor for component in info.composite_tensor.components for tensor in _tensors(component)]
    return [info.name]
