"""Running what TF-TRT made of a signature twice: its segments as they are, and in half precision."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tasks.model_process.deconversion import deconverted, segment_functions
from tasks.model_process.half_precision import OVERFLOWS_AT, HalfFunction, in_half_precision

Arrays = Mapping[str, npt.NDArray[Any]]

# What inlining calls puts before a layer's own name.
_CALLS = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")
_SWITCHES = frozenset({"Switch", "_SwitchN"})


@dataclass(frozen=True)
class Overflow:
    """Where a finite value became too large for half precision.

    Attributes:
        where: The node, its layer's name in it, and its op in brackets; or what an engine was given.
        peak: The largest magnitude it had.
    """

    where: str
    peak: float


@dataclass(frozen=True)
class Runs:
    """What came of it.

    Attributes:
        single: Outputs by name, a request each.
        half: The same with the segments in half precision.
        overflows: Those that no other overflow explains, in the order of the data within an engine. None of an
            engine in a loop or behind a branch, where nothing can be fetched.
        clamped: How many weights are too large for half precision.
    """

    single: tuple[dict[str, Any], ...]
    half: tuple[dict[str, Any], ...]
    overflows: tuple[Overflow, ...]
    clamped: int


def run_both(
    graph_def: Any,
    engines: Sequence[str],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    requests: Sequence[Arrays],
) -> Runs:
    """Answers requests in single and in half precision.

    Args:
        graph_def: As TF-TRT rewrote it: frozen, with TRTEngineOps.
        engines: The names of those that the outputs need.
        inputs: Tensor names by the signature's input names.
        outputs: Likewise.
        requests: Arrays by input name.
    """
    functions = segment_functions(graph_def)
    taken = {function.signature.name for function in graph_def.library.function}
    halves: dict[str, HalfFunction] = {}
    for engine in engines:
        name = f"{functions[engine].signature.name}_half"
        while name in taken:
            name += "_"
        taken.add(name)
        halves[engine] = in_half_precision(functions[engine], name)
    unfetchable = _unfetchable(graph_def)
    peaks = {
        node.name: f"{node.name}:{len(functions[node.name].signature.output_arg)}"
        for node in graph_def.node
        if node.name in halves and node.name not in unfetchable
    }
    single = tuple(_run(deconverted(graph_def), inputs, outputs, requests))
    graph = deconverted(graph_def, {engine: half.function for engine, half in halves.items()})
    watched = tuple(_run(graph, inputs, {"answer": outputs, "peaks": peaks}, requests))
    return Runs(
        single=single,
        half=tuple(run["answer"] for run in watched),
        overflows=tuple(
            overflow
            for engine in peaks
            for overflow in _overflows(graph_def, engine, halves[engine], [run["peaks"][engine] for run in watched])
        ),
        clamped=sum(half.clamped for half in halves.values()),
    )


def _run(
    graph_def: Any, inputs: Mapping[str, str], fetches: Mapping[str, Any], requests: Sequence[Arrays]
) -> Iterator[dict[str, Any]]:
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    # As TF-TRT left it: what Grappler would do once more costs seconds, and may fuse what is to be rounded.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph, config=config) as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        for request in requests:
            yield session.run(fetches, {inputs[name]: array for name, array in request.items()})


def _overflows(
    graph_def: Any, engine: str, half: HalfFunction, peaks: Sequence[npt.NDArray[Any]]
) -> Iterator[Overflow]:
    # What is infinite before it is rounded is so because of an earlier overflow.
    finite = [np.where(np.isfinite(peak), peak, 0.0) for peak in peaks]
    largest = np.max(finite, axis=0) if finite else np.zeros(len(half.watched))
    arguments = [argument.name for argument in half.function.signature.input_arg]
    node = next(node for node in graph_def.node if node.name == engine)
    for watched, peak in zip(half.watched, largest, strict=True):
        if peak >= OVERFLOWS_AT:
            if watched.op:
                where = f"{_shown(watched.name)} ({watched.op})"
            else:
                where = f"{_shown(node.input[arguments.index(watched.name)])}, given to an engine,"
            yield Overflow(where, float(peak))


def _shown(name: str) -> str:
    return _CALLS.sub("", name).removesuffix(":0")


def _unfetchable(graph_def: Any) -> set[str]:
    """The nodes of which no output can be counted on: those inside of loops, and those that a branch may leave out.

    A branch is a Switch outside of loops, and what it may leave out goes on behind a Merge: that may be one of
    another branch.
    """
    readers: dict[str, list[Any]] = {}
    for node in graph_def.node:
        for tensor in node.input:
            readers.setdefault(tensor.removeprefix("^").split(":", 1)[0], []).append(node)
    inside = _inside_loops(graph_def, readers)
    left_out: set[str] = set()
    ahead = [node for node in graph_def.node if node.op in _SWITCHES and node.name not in inside]
    while ahead:
        node = ahead.pop()
        if node.name not in left_out:
            left_out.add(node.name)
            ahead.extend(readers.get(node.name, ()))
    return inside | left_out


def _inside_loops(graph_def: Any, readers: Mapping[str, Sequence[Any]]) -> set[str]:
    """The nodes between an Enter and its Exit; what an inner loop yields is inside of the outer one still."""
    enters = [node for node in graph_def.node if node.op == "Enter"]
    frames = len({node.attr["frame_name"].s for node in enters})
    inside: set[str] = set()
    ahead = [(node, 0) for node in enters]
    seen: set[tuple[str, int]] = set()
    while ahead:
        node, depth = ahead.pop()
        depth += {"Enter": 1, "Exit": -1}.get(node.op, 0)
        if 0 < depth <= frames and (node.name, depth) not in seen:
            seen.add((node.name, depth))
            inside.add(node.name)
            ahead.extend((reader, depth) for reader in readers.get(node.name, ()))
    return inside
