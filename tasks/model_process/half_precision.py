"""A segment as half precision would compute it. Pure: a FunctionDef in, a FunctionDef out.

TensorFlow has half kernels on a CPU for some ops only. So each value is computed in single precision
and then rounded to half, which works for every op: storage is half, accumulation is single, and what lies beyond
65504 becomes infinite. That is what an FP16 engine at best does.

Rules, after what TensorRT 8 does:
- Constants are weights. They are rounded too, but none becomes infinite or zero: its log tells that it takes the
  closest finite, or the smallest subnormal, value.
- What a convolution or a product sums up is not rounded before its bias and its batch normalization have been applied:
  that is one kernel, and a value that is too large only in between never exists. A constant is taken for a bias, or for
  a normalization that was folded, if it has one element for each channel; a scale by one number is a layer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.python.framework import op_def_registry

LARGEST = float(np.finfo(np.float16).max)
# Halfway to what would be the next number: from here on rounding makes an infinity.
OVERFLOWS_AT = 65520.0

_FLOAT = tf.float32.as_datatype_enum
_HALF = tf.float16.as_datatype_enum
_INT = tf.int32.as_datatype_enum

# What they yield is among what they are given, or its opposite: no need to round that again.
# fmt: off
_MOVE_VALUES = frozenset((
    "Abs", "BroadcastTo", "ConcatV2", "DepthToSpace", "ExpandDims", "Fill", "Gather", "GatherNd", "GatherV2",
    "Identity", "IdentityN", "MaxPool", "Maximum", "Minimum", "Neg", "Pack", "Pad", "PadV2", "Relu",
    "Reshape", "ReverseV2", "Select", "SelectV2", "Slice", "Snapshot", "SpaceToDepth", "Split", "SplitV",
    "Squeeze", "StopGradient", "StridedSlice", "Tile", "Transpose", "Unpack",
))
# fmt: on


_SUMS = frozenset(["BatchMatMulV2", "Conv2D", "Conv2DBackpropInput", "Conv3D", "DepthwiseConv2dNative", "MatMul"])
_AFTER_A_SUM = frozenset(["BiasAdd", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
_AFTER_A_SUM_WITH_WEIGHTS = frozenset(["Add", "AddV2", "Mul", "Sub"])
# Which dimension of the weights is the channels of what is summed up, and the attribute that says to transpose them.
_CHANNELS = {"BatchMatMulV2": (-1, "adj_y"), "Conv2DBackpropInput": (-2, ""), "MatMul": (-1, "transpose_b")}


@dataclass(frozen=True)
class Watched:
    """A value whose size is watched.

    Attributes:
        name: Of the node that yields it, or of the function's argument.
        op: Of that node; empty for an argument.
    """

    name: str
    op: str


@dataclass(frozen=True)
class HalfFunction:
    """A function in half precision.

    Attributes:
        function: It has one more output than the original, its last: for each watched value, float32, the
            largest magnitude it had before it was rounded.
        watched: In an order in which no value depends on a later one.
        clamped: How many weights lie beyond what half precision holds.
    """

    function: function_pb2.FunctionDef
    watched: tuple[Watched, ...]
    clamped: int


def in_half_precision(function: function_pb2.FunctionDef, name: str) -> HalfFunction:
    """Rewrites a function so that whatever float32 it holds has the values that half precision has.

    Args:
        function: Its body holds plain ops, no calls: as TF-TRT makes a segment.
        name: Of the function that is made.

    Raises:
        ValueError: If the body holds an op that TensorFlow does not know, or a cycle.
    """
    return _Rewriting(function, name).done()


class _Rewriting:
    """One function on its way."""

    def __init__(self, function: function_pb2.FunctionDef, name: str) -> None:
        self.function = function_pb2.FunctionDef()
        self.function.CopyFrom(function)
        self.function.signature.name = name
        self.readers = _readers(self.function)
        self.constants: dict[str, list[int]] = {
            node.name: [dim.size for dim in node.attr["value"].tensor.tensor_shape.dim]
            for node in function.node_def
            if node.op == "Const"
        }
        self.summing: dict[str, int] = {}  # the nodes of a sum's kernel, and its channels
        self.names = {node.name for node in function.node_def} | {arg.name for arg in function.signature.input_arg}
        self.rounded: dict[str, str] = {}
        self.peaks: list[str] = []
        self.watched: list[Watched] = []
        self.clamped = 0

    def done(self) -> HalfFunction:
        originals = _ordered(list(self.function.node_def))
        for arg in self.function.signature.input_arg:
            if arg.type == _FLOAT:
                self._round(arg.name, Watched(arg.name, ""), device="")
        for node in originals:
            self._round_outputs(node)
        for node in originals:
            node.input[:] = [self.rounded.get(_full(tensor), tensor) for tensor in node.input]
        for output, tensor in self.function.ret.items():
            self.function.ret[output] = self.rounded.get(_full(tensor), tensor)
        self._yield_peaks()
        return HalfFunction(self.function, tuple(self.watched), self.clamped)

    def _round_outputs(self, node: node_def_pb2.NodeDef) -> None:
        if node.op == "Const":
            if node.attr["dtype"].type == _FLOAT:
                self._round_weights(node)
            return
        if node.op in _MOVE_VALUES:
            return
        for tensor, dtype in _outputs(node):
            if dtype == _FLOAT and not self._goes_on_in_its_kernel(node, tensor):
                self._round(tensor, Watched(node.name, node.op), node.device)

    def _goes_on_in_its_kernel(self, node: node_def_pb2.NodeDef, tensor: str) -> bool:
        if node.op in _SUMS:
            channels = self._channels(node)
        elif node.name in self.summing:
            channels = self.summing[node.name]
        else:
            return False
        readers = self.readers.get(tensor, [])
        reader = readers[0] if len(readers) == 1 else None
        if reader is None:
            return False
        others = [_node_of(source) for source in reader.input if _full(source) != tensor]
        if reader.op in _AFTER_A_SUM_WITH_WEIGHTS:
            fits = len(others) == 1 and 1 < channels == prod(self.constants.get(others[0], []))
        else:
            fits = reader.op in _AFTER_A_SUM and _full(reader.input[0]) == tensor
        if fits:
            self.summing[reader.name] = channels
        return fits

    def _channels(self, node: node_def_pb2.NodeDef) -> int:
        """How many channels a product or a convolution with weights has; 0 for one of two computed values."""
        weights = self.constants.get(_node_of(node.input[1]))
        if not weights or len(weights) < 2:
            return 0
        if node.op == "DepthwiseConv2dNative":
            return prod(weights[-2:])
        dimension, transposed = _CHANNELS.get(node.op, (-1, ""))
        return weights[-2 if transposed and node.attr[transposed].b else dimension]

    def _round_weights(self, node: node_def_pb2.NodeDef) -> None:
        exact = tf.make_ndarray(node.attr["value"].tensor)
        weights, clamped = half_weights(exact)
        self.clamped += clamped
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights, tf.float32, exact.shape))

    def _round(self, tensor: str, watched: Watched, device: str) -> None:
        base = tensor.replace(":", "/")
        half = self._add(f"{base}/half", "Cast", [tensor], device, SrcT=_FLOAT, DstT=_HALF)
        single = self._add(f"{base}/single", "Cast", [f"{half}:y:0"], device, SrcT=_HALF, DstT=_FLOAT)
        self.rounded[_full(tensor)] = f"{single}:y:0"
        every = self._constant(f"{base}/every", [-1])
        flat = self._add(f"{base}/flat", "Reshape", [tensor, every], device, T=_FLOAT, Tshape=_INT)
        axis = self._constant(f"{base}/axis", [0])
        ends = [
            self._add(f"{base}/{op.lower()}", op, [f"{flat}:output:0", axis], device, T=_FLOAT, Tidx=_INT)
            for op in ("Max", "Min")
        ]
        negative = self._add(f"{base}/negative", "Neg", [f"{ends[1]}:output:0"], device, T=_FLOAT)
        peak = self._add(f"{base}/peak", "Maximum", [f"{ends[0]}:output:0", f"{negative}:y:0"], device, T=_FLOAT)
        self.peaks.append(f"{peak}:z:0")
        self.watched.append(watched)

    def _yield_peaks(self) -> None:
        output = self._free("peaks", {arg.name for arg in self.function.signature.output_arg})
        self.function.signature.output_arg.add(name=output, type=_FLOAT)
        if self.peaks:
            packed = self._add("peaks/packed", "Pack", self.peaks, "", T=_FLOAT)
            self.function.node_def[-1].attr["N"].i = len(self.peaks)
            self.function.ret[output] = f"{packed}:output:0"
        else:
            self.function.ret[output] = self._constant("peaks/none", [], tf.float32)

    def _constant(self, name: str, values: list[int], dtype: tf.DType = tf.int32) -> str:
        added = self._add(name, "Const", [], "", dtype=dtype.as_datatype_enum)
        self.function.node_def[-1].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values, dtype))
        return f"{added}:output:0"

    def _add(self, name: str, op: str, inputs: list[str], device: str, **types: int) -> str:
        node = self.function.node_def.add(name=self._free(name, self.names), op=op, input=inputs, device=device)
        for key, value in types.items():
            node.attr[key].type = value
        self.names.add(node.name)
        return str(node.name)

    @staticmethod
    def _free(name: str, taken: set[str]) -> str:
        while name in taken:
            name += "_"
        return name


def half_weights(exact: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], int]:
    """Weights as TensorRT puts them into an FP16 engine.

    Args:
        exact: float32 of any shape.

    Returns:
        The same as float32 with values that half precision has, and how many were too large for it.
    """
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16)
    beyond = np.isinf(half) & np.isfinite(exact)
    vanished = (half == 0) & (exact != 0)
    smallest = np.finfo(np.float16).smallest_subnormal
    half = np.where(beyond, np.copysign(np.float16(LARGEST), half), half)
    half = np.where(vanished, np.copysign(smallest, half), half)
    return half.astype(np.float32), int(beyond.sum())


def _full(tensor: str) -> str:
    """The one way to write a tensor that may be written in two: `node:output` is `node:output:0`."""
    return f"{tensor}:0" if tensor.count(":") == 1 else tensor


def _ordered(nodes: list[node_def_pb2.NodeDef]) -> list[node_def_pb2.NodeDef]:
    by_name = {node.name: node for node in nodes}
    needs = {
        node.name: [source for source in (_node_of(tensor) for tensor in node.input) if source in by_name]
        for node in nodes
    }
    return [by_name[name] for name in TopologicalSorter(needs).static_order()]


def _readers(function: function_pb2.FunctionDef) -> dict[str, list[node_def_pb2.NodeDef | None]]:
    """Who reads a tensor; None stands for whoever called the function."""
    readers: dict[str, list[node_def_pb2.NodeDef | None]] = {}
    for node in function.node_def:
        for tensor in node.input:
            readers.setdefault(_full(tensor), []).append(node)
    for tensor in function.ret.values():
        readers.setdefault(_full(tensor), []).append(None)
    return readers


def _node_of(tensor: str) -> str:
    return tensor.removeprefix("^").split(":", 1)[0]


def _outputs(node: node_def_pb2.NodeDef) -> Iterator[tuple[str, int]]:
    """The outputs of a node as a function's body names them, `node:output:index`, and their dtypes."""
    definition = op_def_registry.get(node.op)
    if definition is None:
        raise ValueError(f"node {node.name!r} has op {node.op!r}, which this TensorFlow does not know")
    defaults = {attr.name: attr.default_value for attr in definition.attr}

    def attribute(name: str) -> Any:
        return node.attr[name] if name in node.attr else defaults[name]

    for output in definition.output_arg:
        if output.type_list_attr:
            dtypes = list(attribute(output.type_list_attr).list.type)
        else:
            dtype = attribute(output.type_attr).type if output.type_attr else output.type
            dtypes = [dtype] * (attribute(output.number_attr).i if output.number_attr else 1)
        for index, dtype in enumerate(dtypes):
            yield f"{node.name}:{output.name}:{index}", dtype
