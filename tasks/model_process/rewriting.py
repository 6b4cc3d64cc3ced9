"""One signature through TF-TRT's own converter, as far as the graph: parts of it become TRTEngineOp nodes.

The rewrite itself needs neither a GPU nor TensorRT, only a TensorFlow that was built with TF-TRT; the converter asks
for both before it starts. `without_gpu` answers in their place, for an estimate and for a rehearsal. The settings are
TF-TRT's for engines that are built ahead:

- Dynamic shape: with static shapes each shape gets an engine of its own, and the rewrite leaves out far more (of
  EfficientNetB0 17 engines with 88 % of the nodes instead of 1 with 99.7 %).
- `allow_build_at_runtime` stays True in the constructor: with False, `save` renames the outputs to `output_0`, ...
  Engines are kept from being built in a server by an attribute of their nodes, which `wrapping` sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.python.compiler.tensorrt import trt_convert

from model_registry.errors import ConversionError
from model_registry.servable import Signature
from tasks.model_process import exporting, inspecting, segment_report, segments
from tasks.model_process.conversion_messages import RewrittenSignature
from tasks.model_process.endpoints import Endpoint, saved_model_endpoint, signature_arguments
from tasks.model_process.error_lines import reason
from tasks.model_process.staying_native import frozen_bytes, node_counts, reasons_to_stay_native

__all__ = ["Native", "Rewritten", "frozen_sizes", "rewrite", "rewrite_all", "without_gpu"]

MINIMUM_SEGMENT_SIZE = 10
CACHED_ENGINES = 1  # for an engine: a "Range" profile holds all shapes
_LARGEST_GRAPH = 1 << 31  # bytes; a protocol buffer cannot be larger


@dataclass(frozen=True)
class Rewritten:
    """A signature that TF-TRT rewrote.

    Attributes:
        signature: As the native SavedModel has it.
        definition: Its SignatureDef there.
        converter: The TrtGraphConverterV2, after `convert()`.
        report: What became of its nodes.
    """

    signature: Signature
    definition: Any
    converter: Any
    report: RewrittenSignature

    @property
    def graph_def(self) -> Any:
        """The GraphDef after the conversion, frozen, with a TRTEngineOp for each segment."""
        return self.converter._converted_graph_def

    @property
    def arguments(self) -> dict[str, str]:
        """The argument of `converter.build`'s function for each input, by the signature's name for it."""
        return signature_arguments(self.converter._converted_func, self.definition)

    @property
    def input_tensors(self) -> dict[str, str]:
        """The tensor in `graph_def` for each input, such as `image:0`, by the signature's name for it."""
        _, keywords = self.converter._converted_func.structured_input_signature
        return {name: f"{keywords[argument].name}:0" for name, argument in self.arguments.items()}

    @property
    def output_tensors(self) -> dict[str, str]:
        """The tensor in `graph_def` for each output, such as `Identity_1:0`, by the signature's name for it."""
        return {name: tensor.name for name, tensor in self.converter._converted_func.structured_outputs.items()}

    def endpoint(self, graph_def: Any = None) -> Endpoint:
        """A way to call the signature, or what somebody made of its graph: by its names, with its shapes and dtypes.

        Args:
            graph_def: With the same inputs and outputs as `graph_def`; None for that one itself, whose engines run on
                a GPU only.
        """
        graph = self.graph_def if graph_def is None else graph_def
        # The converter's own way to make a function of a graph: it remembers the names of arguments and results.
        function = trt_convert._construct_function_from_graph_def(self.converter._converted_func, graph)
        plain = saved_model_endpoint(function, self.definition)

        def call(tensors: Any) -> dict[str, Any]:
            results = plain.call(tensors)
            # Whatever the optimizers leave of static shapes, a client is told the same as before.
            for item in self.signature.outputs:
                results[item.name].set_shape(item.shape)
            return results

        return dataclasses.replace(plain, call=call)


@dataclass(frozen=True)
class Native:
    """A signature that stays as it is.

    Attributes:
        signature: As the native SavedModel has it.
        definition: Its SignatureDef there.
        report: Says why.
    """

    signature: Signature
    definition: Any
    report: RewrittenSignature


@contextmanager
def without_gpu() -> Iterator[None]:
    """Lets TF-TRT's converter run where there is no GPU or no TensorRT. No engine can be built this way."""
    check, arrays = trt_convert._check_trt_version_compatibility, trt_convert.array_ops
    trt_convert._check_trt_version_compatibility = lambda: None
    trt_convert.array_ops = _OnAGpu(arrays)
    try:
        yield
    finally:
        trt_convert._check_trt_version_compatibility, trt_convert.array_ops = check, arrays


class _OnAGpu:
    """The module `array_ops`, whose `zeros` lies on a GPU: that is how the converter looks for one."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def zeros(self, *_: Any) -> Any:
        return SimpleNamespace(device="/job:localhost/replica:0/task:0/device:GPU:0")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def rewrite_all(saved_model: Path, signatures: Sequence[Signature], *, workspace: int) -> list[Rewritten | Native]:
    """Every signature, rewritten or left as it is, in the order of `signatures`.

    Args:
        saved_model: The native variant's directory.
        signatures: Its signatures.
        workspace: Bytes of GPU memory that TensorRT may use for one engine.

    Raises:
        InvalidInputError: If the SavedModel would reach beyond itself when it is loaded.
        ConversionError: If it cannot be read, or is too large to be frozen, or as `rewrite` does.
    """
    meta_graph = _read(saved_model)
    reasons = reasons_to_stay_native(meta_graph, signatures)
    _check_size([signature for signature in signatures if not reasons[signature.name]], meta_graph)
    parts: list[Rewritten | Native] = []
    for signature in signatures:
        if reasons[signature.name]:
            counts = node_counts(meta_graph, signature)
            report = RewrittenSignature(signature.name, reasons[signature.name], *counts, (), ())
            parts.append(Native(signature, meta_graph.signature_def[signature.name], report))
        else:
            parts.append(rewrite(saved_model, signature, workspace=workspace))
    return parts


def frozen_sizes(saved_model: Path, signatures: Sequence[Signature]) -> dict[str, int]:
    """How many bytes of weights each signature holds once it is frozen, by name; those that stay native are left out.

    Args:
        saved_model: The native variant's directory.
        signatures: Its signatures.

    Raises:
        InvalidInputError: As `rewrite_all`.
        ConversionError: If it cannot be read.
    """
    meta_graph = _read(saved_model)
    reasons = reasons_to_stay_native(meta_graph, signatures)
    return {
        signature.name: frozen_bytes(meta_graph, signature) for signature in signatures if not reasons[signature.name]
    }


def rewrite(saved_model: Path, signature: Signature, *, workspace: int) -> Rewritten:
    """One signature that TF-TRT can take; the weights it reads are frozen into its graph.

    Args:
        saved_model: The native variant's directory.
        signature: One that need not stay native.
        workspace: Bytes of GPU memory that TensorRT may use for one engine.

    Raises:
        ConversionError: If TF-TRT refuses.
    """
    if not tf.sysconfig.get_build_info().get("is_tensorrt_build"):
        raise ConversionError(
            f"this TensorFlow {tf.__version__} was built without TF-TRT, which then finds no engine in any model",
            hint="install the package `tensorflow` 2.17 for Linux x86-64, not `tensorflow-cpu` nor a later one",
        )
    with segment_report.captured() as log:
        try:
            converter = trt_convert.TrtGraphConverterV2(
                input_saved_model_dir=str(saved_model),
                input_saved_model_signature_key=signature.name,
                precision_mode=trt_convert.TrtPrecisionMode.FP16,
                use_dynamic_shape=True,
                dynamic_shape_profile_strategy=trt_convert.PROFILE_STRATEGY_RANGE,
                max_workspace_size_bytes=workspace,
                minimum_segment_size=MINIMUM_SEGMENT_SIZE,
                maximum_cached_engines=CACHED_ENGINES,
                use_calibration=False,
            )
            converter.convert()
        except Exception as error:
            raise ConversionError(f"TF-TRT cannot rewrite the signature {signature.name!r}: {reason(error)}") from error
    reasons = segment_report.reasons(log())
    # The weights are in the graph by now; those of the model that the converter loaded would only take memory.
    converter._saved_model = None
    outputs = [tensor.name for tensor in converter._converted_func.outputs]
    report = segments.rewritten_signature(signature.name, converter._converted_graph_def, outputs, reasons)
    definition = exporting.signature_definitions(saved_model)[signature.name]
    return Rewritten(signature, definition, converter, report)


def _read(saved_model: Path) -> Any:
    try:
        proto = inspecting.read_saved_model(saved_model)
    except (OSError, DecodeError) as error:
        raise ConversionError(f"{saved_model.name} cannot be read as a SavedModel: {reason(error)}") from error
    inspecting.check_assets(saved_model, proto)
    denied = inspecting.denied_ops(proto)
    if denied:
        raise ConversionError(
            f"{saved_model.name} has ops that reach beyond the model: {inspecting.shown(denied)}",
            hint="package the model again: its own checks would have refused this",
        )
    return exporting.serve_meta_graph(proto)


def _check_size(signatures: Sequence[Signature], meta_graph: Any) -> None:
    sizes = {signature.name: frozen_bytes(meta_graph, signature) for signature in signatures}
    if sum(sizes.values()) >= _LARGEST_GRAPH:
        named = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise ConversionError(
            f"frozen, the weights take {sum(sizes.values()):,} bytes, those of each signature anew ({named}); "
            f"expected less than {_LARGEST_GRAPH:,}, the most that saved_model.pb can hold",
            hint="serve the native variant, or give the model fewer signatures or weights",
        )
