"""Putting a rewritten graph back to where any machine runs it: each engine as a call of its native segment.

That shows whether TF-TRT's rewrite kept the model's arithmetic. It shows nothing of TensorRT, which is not involved.
To try a segment in other arithmetic, give `deconverted` a function in its place:

    functions = segment_functions(graph_def)          # by engine
    half = {engine: in_half_precision(function) for engine, function in functions.items()}
    graph = deconverted(graph_def, half)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model_process.segments import ENGINE, engines

_CALL = "PartitionedCall"
# How a function's body names the outputs of either op.
_ENGINE_OUTPUT, _CALL_OUTPUT = ":out_tensor:", ":output:"


def segment_functions(graph_def: Any) -> dict[str, Any]:
    """The native segment behind each engine.

    Args:
        graph_def: As TF-TRT rewrote it.

    Returns:
        By the name of the TRTEngineOp node: the FunctionDef of the graph's own library. Copy it before you change it.
        Its arguments are the engine's inputs in their order, with the dtypes of the node's attribute `InT`; its
        results are the engine's outputs, with those of `OutT`. It captures nothing: its weights are Const nodes.
    """
    functions = {function.signature.name: function for function in graph_def.library.function}
    return {node.name: functions[node.attr["segment_func"].func.name] for node in engines(graph_def)}


def deconverted(graph_def: Any, replaced: Mapping[str, Any] | None = None) -> Any:
    """A copy of the graph without engines.

    Args:
        graph_def: As TF-TRT rewrote it; is not changed.
        replaced: A FunctionDef to call in place of an engine's native segment, by the name of the TRTEngineOp node:
            the same arguments and, first, the same results in number, order and dtype, under a name that the library
            does not have, without captures. Further results are further outputs of the call, `NODE:INDEX`; the engines
            of a loop run inside of its frame, where no output can be fetched. An engine that is not named gets its
            native segment.

    Returns:
        A GraphDef with a PartitionedCall of the same name for each TRTEngineOp, the new functions in its library in
        place of the segments that nothing calls any more, which hold the weights.

    Raises:
        ValueError: If a replacement is for no engine, has a taken name, or other arguments or results.
    """
    replaced = replaced or {}
    originals = segment_functions(graph_def)
    taken = {function.signature.name for function in graph_def.library.function}
    for engine, function in replaced.items():
        _check_replacement(engine, function, originals, taken)
        taken.add(function.signature.name)
    result = type(graph_def)()
    result.CopyFrom(graph_def)
    for function in result.library.function:
        _rename_outputs(function)
    for node in list(engines(result)):
        _to_call(node, (replaced.get(node.name) or originals[node.name]).signature)
    kept = {function.signature.name for engine, function in originals.items() if engine not in replaced}
    unused = {originals[engine].signature.name for engine in replaced} - kept
    for index in reversed(range(len(result.library.function))):
        if result.library.function[index].signature.name in unused:
            del result.library.function[index]
    result.library.function.extend(replaced.values())
    return result


def _check_replacement(engine: str, function: Any, originals: Mapping[str, Any], taken: set[str]) -> None:
    if engine not in originals:
        raise ValueError(f"no engine is called {engine!r}: expected one of {', '.join(originals) or 'none'}")
    if function.signature.name in taken:
        raise ValueError(f"the function {function.signature.name!r} is in the graph's library already")
    original = originals[engine].signature
    for kind in ("input_arg", "output_arg"):
        expected = [argument.type for argument in getattr(original, kind)]
        found = [argument.type for argument in getattr(function.signature, kind)]
        if (found[: len(expected)] if kind == "output_arg" else found) != expected:
            raise ValueError(f"{engine}: expected {kind} of types {expected} (DataType), found {found}")


def _rename_outputs(function: Any) -> None:
    """A body refers to `NODE:ARGUMENT:INDEX`, and the argument is called otherwise in a call than in an engine."""
    prefixes = tuple(f"{node.name}{_ENGINE_OUTPUT}" for node in function.node_def if node.op == ENGINE)
    if not prefixes:
        return
    for node in function.node_def:
        for index, name in enumerate(node.input):
            if name.startswith(prefixes):
                node.input[index] = name.replace(_ENGINE_OUTPUT, _CALL_OUTPUT)
    for result, name in function.ret.items():
        if name.startswith(prefixes):
            function.ret[result] = name.replace(_ENGINE_OUTPUT, _CALL_OUTPUT)


def _to_call(node: Any, function: Any) -> None:
    """Makes a TRTEngineOp a PartitionedCall in place; `function` is the signature of what it calls."""
    node.op = _CALL
    node.device = ""
    node.attr.clear()
    node.attr["Tin"].list.type.extend(argument.type for argument in function.input_arg)
    node.attr["Tout"].list.type.extend(argument.type for argument in function.output_arg)
    node.attr["f"].func.name = function.name
    for name in ("config", "config_proto", "executor_type"):
        node.attr[name].s = b""
