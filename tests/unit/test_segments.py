"""What is counted as inside and outside of engines, on graphs small enough to count by hand."""

from __future__ import annotations

from typing import Any

import pytest
from tensorflow.core.framework import function_pb2, graph_pb2, types_pb2

from tasks.model_process import segments
from tasks.model_process.conversion_messages import LeftOut, Segment
from tasks.model_process.deconversion import deconverted, segment_functions

FLOAT, HALF = types_pb2.DT_FLOAT, types_pb2.DT_HALF


def function(graph: Any, name: str, *nodes: tuple[str, str], arguments: int = 1, results: int = 1) -> Any:
    made = graph.library.function.add()
    made.signature.name = name
    for index in range(arguments):
        made.signature.input_arg.add(name=f"in{index}", type=FLOAT)
    for index in range(results):
        made.signature.output_arg.add(name=f"out{index}", type=FLOAT)
    for node, op in nodes:
        made.node_def.add(name=node, op=op)
    return made


def engine(nodes: Any, name: str, *inputs: str) -> None:
    node = nodes.add(name=name, op=segments.ENGINE, input=list(inputs), device="/device:GPU:0")
    node.attr["segment_func"].func.name = f"{name.rsplit('/', 1)[-1]}_native_segment"
    node.attr["InT"].list.type.append(FLOAT)
    node.attr["OutT"].list.type.append(FLOAT)


def graph() -> Any:
    """A chain: x, an engine, a While whose body has an engine too, Identity; and a node that nothing reads."""
    made = graph_pb2.GraphDef()
    made.node.add(name="x", op="Placeholder")
    made.node.add(name="unread", op="Placeholder")
    engine(made.node, "scope/TRTEngineOp_000_000", "x")
    made.node.add(name="count", op="Const")
    loop = made.node.add(name="loop", op="While", input=["scope/TRTEngineOp_000_000:0", "count", "^late"])
    loop.attr["body"].func.name = "body"
    made.node.add(name="late", op="NoOp")
    made.node.add(name="Identity", op="Identity", input=["loop:1"])
    function(made, "TRTEngineOp_000_000_native_segment", ("w", "Const"), ("a", "MatMul"), ("b", "Relu"))
    function(made, "TRTEngineOp_000_001_native_segment", ("w", "Const"), ("a", "Tanh"))
    body = function(made, "body", ("one", "Const"), ("add", "AddV2"))
    engine(body.node_def, "TRTEngineOp_000_001", "in0")
    body.node_def[1].input.append("TRTEngineOp_000_001:out_tensor:0")
    body.ret["out0"] = "TRTEngineOp_000_001:out_tensor:0"
    function(made, "not_called", ("lost", "Mul"))
    return made


def test_nodes_count_where_they_run_and_constants_are_no_computation() -> None:
    report = segments.rewritten_signature("serving_default", graph(), ["Identity:0"], {"While": "no loops"})

    assert report.segments == (
        Segment("TRTEngineOp_000_001", 2, 1),
        Segment("scope/TRTEngineOp_000_000", 3, 2),
    )
    assert {(item.op, item.nodes, item.reason) for item in report.left_out} == {
        ("AddV2", 1, ""),
        ("Identity", 1, ""),
        ("NoOp", 1, ""),
        ("Placeholder", 1, ""),
        ("While", 1, "no loops"),
    }
    assert (report.nodes, report.computing_nodes) == (5 + 7, 3 + 5)
    assert report.coverage == pytest.approx(3 / 8)
    assert report.native == ""


def test_a_graph_without_engines_has_none() -> None:
    made = graph_pb2.GraphDef()
    made.node.add(name="x", op="Placeholder")
    made.node.add(name="y", op="Relu", input=["x"])

    report = segments.rewritten_signature("serving_default", made, ["y:0"], {})

    assert (report.segments, report.coverage) == ((), 0.0)
    assert report.left_out == (LeftOut("Placeholder", 1, ""), LeftOut("Relu", 1, ""))


def test_an_engine_is_cached_and_saved_under_its_name_without_scopes() -> None:
    names = [segments.canonical_name(node.name) for node in segments.engines(graph())]

    assert names == ["TRTEngineOp_000_000", "TRTEngineOp_000_001"]


def test_engines_become_calls_of_their_segments_in_functions_too() -> None:
    original = graph()

    made = deconverted(original)

    assert original == graph(), "the original is not changed"
    assert list(segments.engines(made)) == []
    call = next(node for node in made.node if node.name == "scope/TRTEngineOp_000_000")
    assert (call.op, call.device, list(call.input)) == ("PartitionedCall", "", ["x"])
    assert call.attr["f"].func.name == "TRTEngineOp_000_000_native_segment"
    assert list(call.attr["Tin"].list.type) == list(call.attr["Tout"].list.type) == [FLOAT]
    assert "workspace_size_bytes" not in call.attr
    body = next(item for item in made.library.function if item.signature.name == "body")
    assert body.node_def[1].input == ["TRTEngineOp_000_001:output:0"]
    assert dict(body.ret) == {"out0": "TRTEngineOp_000_001:output:0"}


def replacement(name: str, *, arguments: int = 1, results: int = 1) -> Any:
    library = graph_pb2.GraphDef()
    made = function_pb2.FunctionDef()
    made.CopyFrom(function(library, name, ("h", "Relu"), arguments=arguments, results=results))
    return made


def test_another_function_is_called_in_place_of_a_segment_and_may_yield_more() -> None:
    made = deconverted(graph(), {"scope/TRTEngineOp_000_000": replacement("half", results=2)})

    calls = {node.name: node for node in made.node}
    assert calls["scope/TRTEngineOp_000_000"].attr["f"].func.name == "half"
    assert list(calls["scope/TRTEngineOp_000_000"].attr["Tout"].list.type) == [FLOAT, FLOAT]
    assert sorted(segment_functions(graph())) == ["TRTEngineOp_000_001", "scope/TRTEngineOp_000_000"]
    assert [item.signature.name for item in made.library.function][-1] == "half"


@pytest.mark.parametrize(
    ("engine_name", "made", "problem"),
    [
        ("TRTEngineOp_000_000", replacement("half"), "no engine is called 'TRTEngineOp_000_000'"),
        ("TRTEngineOp_000_001", replacement("body"), "'body' is in the graph's library already"),
        ("TRTEngineOp_000_001", replacement("half", arguments=2), "expected input_arg of types"),
        ("TRTEngineOp_000_001", replacement("half", results=0), "expected output_arg of types"),
    ],
)
def test_a_function_that_does_not_fit_is_refused(engine_name: str, made: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        deconverted(graph(), {engine_name: made})
