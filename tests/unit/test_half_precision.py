"""Half precision by rounding: what becomes of a segment's function, with values computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import function_pb2, graph_pb2

from tasks.model_process.half_precision import LARGEST, Watched, half_weights, in_half_precision
from tests.support import absl_stream  # noqa: F401 - for its effect

pytestmark = pytest.mark.xdist_group("fp16-estimate")

X = tf.TensorSpec([None], name="x")


def function_of(body: Any, *specs: tf.TensorSpec) -> function_pb2.FunctionDef:
    """What TensorFlow makes of a Python function, its body as it is traced."""
    concrete = tf.function(body, autograph=False).get_concrete_function(*specs)
    made = function_pb2.FunctionDef()
    made.CopyFrom(concrete.function_def)
    return made


def run(function: function_pb2.FunctionDef, *values: Any) -> dict[str, Any]:
    """Calls it in a Session: arrays by the names of its outputs."""
    signature = function.signature
    graph = graph_pb2.GraphDef()
    graph.versions.producer = tf.version.GRAPH_DEF_VERSION
    graph.library.function.append(function)
    for index, arg in enumerate(signature.input_arg):
        graph.node.add(name=f"in{index}", op="Placeholder").attr["dtype"].type = arg.type
    call = graph.node.add(name="call", op="PartitionedCall", input=[f"in{i}" for i in range(len(signature.input_arg))])
    call.attr["f"].func.name = signature.name
    call.attr["Tin"].list.type.extend(arg.type for arg in signature.input_arg)
    call.attr["Tout"].list.type.extend(arg.type for arg in signature.output_arg)
    with tf.Graph().as_default() as made, tf.compat.v1.Session(graph=made) as session:
        tf.graph_util.import_graph_def(graph, name="")
        fetches = {arg.name: f"call:{index}" for index, arg in enumerate(signature.output_arg)}
        answers: dict[str, Any] = session.run(fetches, {f"in{i}:0": value for i, value in enumerate(values)})
        return answers


def half(body: Any, *specs: tf.TensorSpec) -> Any:
    return in_half_precision(function_of(body, *specs), "half")


def test_what_an_op_yields_is_rounded_to_half() -> None:
    made = half(lambda x: x + x, X)
    # 1025 is a half; 2049 + 2049 = 4098, where halves lie 4 apart and the tie goes to the even mantissa.
    assert run(made.function, [1025.0, 1.0, 2050.0])["identity"].tolist() == [2050.0, 2.0, 4100.0]
    assert run(half(lambda x: x * 3.0, X).function, [683.0, 1023.0])["identity"].tolist() == [2048.0, 3068.0]


def test_the_arguments_are_rounded() -> None:
    # 2049 is no half: halves lie 2 apart there, and 2048 has the even mantissa.
    answer = run(half(lambda x: tf.reshape(x, [-1]), X).function, [2049.0, 2051.0, 0.1])["identity"]
    assert answer.tolist() == [2048.0, 2052.0, float(np.float16(0.1))]


def test_sums_are_accumulated_in_single_precision() -> None:
    # In half 2048 + 1 = 2048 however often; in single the sum is 2048 + 8, which half has.
    made = half(tf.reduce_sum, X)
    assert run(made.function, [2048.0] + [1.0] * 8)["identity"] == 2056.0


def dense_with_a_bias(x: Any) -> Any:
    return tf.nn.bias_add(x @ tf.constant([[1.0, 1.0]]), [-60_000.0, 1.0])


def test_a_sum_is_rounded_after_its_bias_for_that_is_one_kernel() -> None:
    made = half(dense_with_a_bias, tf.TensorSpec([None, 1], name="x"))
    # 2050 + 1 = 2051 is no half: rounded once, to 2052.
    assert run(made.function, [[2050.0]])["identity"].tolist() == [[-57952.0, 2052.0]]
    assert [watched.op for watched in made.watched] == ["", "BiasAdd"]


def test_a_sum_that_is_too_large_only_before_its_bias_does_not_overflow() -> None:
    def body(x: Any) -> Any:
        total = x @ tf.constant([[300.0, 300.0]])
        return (total - [60_000.0, 60_000.0]) * tf.constant([[2.0**-3, 2.0**-3]]) + [1.0, 1.0]

    made = half(body, tf.TensorSpec([None, 1], name="x"))
    answer = run(made.function, [[400.0]])
    assert answer["identity"].tolist() == [[7500.0, 7500.0]]  # 60000 / 8 + 1 = 7501, which is no half
    assert [watched.op for watched in made.watched] == ["", "AddV2"]


@pytest.mark.parametrize("scale", [1e-6, [1e-6], [[1e-6, 1e-6], [1e-6, 1e-6]]], ids=["scalar", "of one", "of four"])
def test_a_sum_that_is_scaled_by_what_is_no_normalization_overflows_before_it(scale: Any) -> None:
    made = half(lambda x: (x @ tf.constant([[300.0, 300.0]])) * tf.constant(scale), tf.TensorSpec([2, 1], name="x"))

    answer = run(made.function, [[400.0], [400.0]])

    assert [watched.op for watched in made.watched] == ["", "MatMul", "Mul"]
    assert answer["peaks"].tolist() == [400.0, 120_000.0, np.inf]
    assert answer["identity"].tolist() == [[np.inf, np.inf]] * 2


@pytest.mark.parametrize(
    ("sum_of", "shape"),
    [
        (lambda x: tf.nn.conv2d(x, tf.ones([1, 1, 2, 6]), 1, "SAME"), [1, 4, 4, 2]),
        (lambda x: tf.nn.depthwise_conv2d(x, tf.ones([1, 1, 2, 3]), [1] * 4, "SAME"), [1, 4, 4, 2]),
        (lambda x: tf.nn.conv2d_transpose(x, tf.ones([1, 1, 6, 2]), [1, 4, 4, 6], 1), [1, 4, 4, 2]),
        (lambda x: tf.matmul(x, tf.ones([6, 2]), transpose_b=True), [4, 2]),
        (lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=tf.ones([1, 6, 2]), adj_y=True), [1, 4, 2]),
    ],
    ids=["convolution", "depthwise", "transposed convolution", "transposed product", "batched product"],
)
def test_a_bias_is_told_by_the_channels_of_its_sum(sum_of: Any, shape: list[int]) -> None:
    made = half(lambda x: sum_of(x) + tf.ones([6]), tf.TensorSpec(shape, name="x"))
    assert [watched.op for watched in made.watched] == ["", "AddV2"]


def test_a_product_of_two_computed_values_has_no_bias() -> None:
    made = half(lambda x: tf.matmul(x, x) + tf.ones([2]), tf.TensorSpec([2, 2], name="x"))
    assert [watched.op for watched in made.watched] == ["", "MatMul", "AddV2"]


def test_a_sum_that_somebody_else_reads_is_rounded_itself() -> None:
    def body(x: Any) -> Any:
        total = x @ tf.constant([[1.0]])
        return total, tf.nn.bias_add(total, [1.0])

    made = half(body, tf.TensorSpec([None, 1], name="x"))
    assert [watched.op for watched in made.watched] == ["", "MatMul", "BiasAdd"]
    # 2050 is a half, 2051 is none.
    assert run(made.function, [[2050.0]])["identity_1"].tolist() == [[2052.0]]


def test_a_sum_of_two_sums_is_rounded_before_it() -> None:
    def body(x: Any) -> Any:
        return x @ tf.constant([[1.0]]) + x @ tf.constant([[2.0]])

    made = half(body, tf.TensorSpec([None, 1], name="x"))
    assert [watched.op for watched in made.watched] == ["", "MatMul", "MatMul", "AddV2"]


def test_weights_are_rounded() -> None:
    made = half(lambda x: x * tf.constant([2049.0, 0.1]), X)
    assert run(made.function, [1.0, 1.0])["identity"].tolist() == [2048.0, float(np.float16(0.1))]


def test_a_value_beyond_the_largest_half_becomes_infinite() -> None:
    made = half(lambda x: x * 256.0, X)
    answer = run(made.function, [255.0, 256.0, -256.0])
    assert answer["identity"].tolist() == [65280.0, np.inf, -np.inf]
    assert answer["peaks"].tolist() == [256.0, 65536.0]  # of the argument, and of the product before it was rounded
    assert made.watched == (Watched("x", ""), Watched("mul", "Mul"))


def test_weights_beyond_half_precision_are_clamped_and_counted_as_tensorrt_does() -> None:
    weights, clamped = half_weights(np.array([1e9, -1e9, 65504, np.inf, 1e-12, -1e-12, 0, 1], np.float32))
    tiny = 2.0**-24
    assert weights.tolist() == [LARGEST, -LARGEST, LARGEST, np.inf, tiny, -tiny, 0.0, 1.0]
    assert clamped == 2
    # So the mask that attention adds, (1 - m) * -1e9, makes no NaN of 0 * inf.
    mask = half(lambda m: (1.0 - m) * -1e9, tf.TensorSpec([None], name="m"))
    assert run(mask.function, [1.0, 0.0])["identity"].tolist() == [0.0, -LARGEST]
    assert mask.clamped == 1


def test_integers_booleans_and_what_is_half_already_are_left_alone() -> None:
    def body(x: Any, n: Any, h: Any) -> Any:
        return tf.shape(x) * n, x > 1.0, h + h

    made = half(body, X, tf.TensorSpec([], tf.int32, name="n"), tf.TensorSpec([], tf.float16, name="h"))
    answer = run(made.function, [1.0, 2.0], 100_001, 3.0)
    assert answer["identity"].tolist() == [200_002]
    assert answer["identity_1"].tolist() == [False, True]
    assert answer["identity_2"].dtype == np.float16
    assert [watched.name for watched in made.watched] == ["x"]


def test_each_output_of_a_node_is_rounded_by_itself() -> None:
    def body(x: Any) -> Any:
        values, indices = tf.math.top_k(x * 1.0, 2)
        mean, variance = tf.nn.moments(x, [0])
        return values, indices, mean, variance

    answer = run(half(body, X).function, [2049.0, 1.0, 4.0])
    assert answer["identity"].tolist() == [2048.0, 4.0]
    assert answer["identity_1"].tolist() == [0, 2]
    assert answer["identity_2"] == np.float16((2048 + 1 + 4) / 3)


def test_several_outputs_of_one_name_keep_their_order() -> None:
    def body(x: Any) -> Any:
        return tf.unstack(tf.reshape(x, [2, 2]) + 1.0, axis=0)

    answer = run(half(body, tf.TensorSpec([4], name="x")).function, [2048.0, 1.0, 2.0, 3.0])
    assert answer["identity"].tolist() == [2048.0, 2.0]
    assert answer["identity_1"].tolist() == [3.0, 4.0]


def test_control_edges_are_kept() -> None:
    def body(x: Any) -> Any:
        with tf.control_dependencies([tf.raw_ops.Assert(condition=tf.reduce_all(x > 0.0), data=[x])]):
            return x + 1.0

    made = half(body, X)
    before = {edge for node in function_of(body, X).node_def for edge in node.input if edge.startswith("^")}
    assert "^Assert" in before
    assert before == {edge for node in made.function.node_def for edge in node.input if edge.startswith("^")}
    assert run(made.function, [1.0])["identity"].tolist() == [2.0]


def test_watched_values_come_in_an_order_that_follows_the_data() -> None:
    made = half(lambda x: tf.sqrt(tf.square(x * 300.0)), X)
    assert [watched.op for watched in made.watched] == ["", "Mul", "Square", "Sqrt"]
    shuffled = function_of(lambda x: tf.sqrt(tf.square(x * 300.0)), X)
    nodes = [shuffled.node_def[index] for index in reversed(range(len(shuffled.node_def)))]
    turned = function_pb2.FunctionDef()
    turned.CopyFrom(shuffled)
    del turned.node_def[:]
    turned.node_def.extend(nodes)
    assert [watched.op for watched in in_half_precision(turned, "half").watched] == ["", "Mul", "Square", "Sqrt"]
    assert run(made.function, [1.0])["peaks"].tolist() == [1.0, 300.0, 90_000.0, np.inf]


def test_names_that_are_taken_are_evaded() -> None:
    original = function_of(lambda x: x + 1.0, X)
    original.node_def.add(name="add/z/0/half", op="NoOp")
    original.signature.output_arg[0].name = "peaks"
    original.ret["peaks"] = original.ret.pop("identity")
    made = in_half_precision(original, "half").function
    names = [node.name for node in made.node_def]
    assert len(names) == len(set(names))
    assert [arg.name for arg in made.signature.output_arg] == ["peaks", "peaks_"]
    assert run(made, [2048.0])["peaks"].tolist() == [2048.0]


def test_a_function_without_any_single_precision_watches_nothing() -> None:
    made = half(lambda n: n + 1, tf.TensorSpec([], tf.int32, name="n"))
    assert made.watched == ()
    assert run(made.function, 1)["peaks"].tolist() == []


def test_the_original_is_not_touched() -> None:
    original = function_of(lambda x: x * 2049.0, X)
    before = original.SerializeToString(deterministic=True)
    in_half_precision(original, "half")
    assert original.SerializeToString(deterministic=True) == before


def test_an_op_that_tensorflow_does_not_know_is_refused_by_name() -> None:
    original = function_of(lambda x: x + 1.0, X)
    original.node_def.add(name="strange", op="FromAnotherPlanet")
    with pytest.raises(ValueError, match="'strange' has op 'FromAnotherPlanet'"):
        in_half_precision(original, "half")
