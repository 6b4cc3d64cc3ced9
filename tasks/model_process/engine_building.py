"""Building engines ahead, from the requests that a model is warmed up and tested with.

No engine has been built by it: that needs a GPU and TensorRT, and it was written from the source of TensorFlow 2.17
(tensorflow/python/compiler/tensorrt/trt_convert.py: `build` and `save`; compiler/tf2tensorrt/kernels/
trt_engine_resource_ops.cc). `make gpu-check` runs it where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.compiler.tensorrt import trt_convert

from model_registry.errors import ConversionError
from tasks.model_process import segments, warmup_log
from tasks.model_process.cases import REQUESTS
from tasks.model_process.error_lines import reason
from tasks.model_process.rewriting import Rewritten

# What TrtGraphConverterV2.save calls the file of an engine, which becomes an asset of the SavedModel.
ENGINE_FILE = "trt-serialized-engine."


def requests(native: Path, cases: Path, signature: str) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """What a signature is warmed up with, then what else it was tried with: arrays by input name.

    Args:
        native: The native variant's directory.
        cases: Where requests beyond the warm-up records lie; there need not be any.
        signature: Its name.
    """
    for file in (native / warmup_log.WARMUP_FILE, cases / REQUESTS):
        for record in warmup_log.read_log(file) if file.is_file() else ():
            name, feed = warmup_log.feed(record)
            if name == signature:
                yield feed


def build(part: Rewritten, feeds: Iterable[dict[str, npt.NDArray[Any]]]) -> None:
    """Builds the engines of a signature; they stay in the memory of the GPU until they are serialized.

    The converter answers every request with the native segments first, to learn which shapes each engine is given:
    one profile from the smallest to the largest of each dimension. Then it answers the first one again, and each
    engine that is asked for the first time is built. That is all that `TrtGraphConverterV2.build` does, and an engine
    in a branch that the first request does not take then has a profile and is not built. So the other requests are
    answered again too, in their order, by the same function: it builds what it reaches for the first time and runs
    what is there.

    Run without TensorRT, on a graph whose engines are calls again: which requests are answered, by what, in what
    order. Not run: that the second and later requests build anything.

    Args:
        part: A signature that was rewritten on a machine with a GPU.
        feeds: Requests by the signature's input names, of every size that the engines shall take.

    Raises:
        ConversionError: If there is no request, or TensorFlow cannot answer one.
    """
    if not part.report.segments:
        return
    arguments = part.arguments
    # Arrays, for tensors would lie in the GPU's memory, which TensorRT needs.
    given = [{arguments[name]: array for name, array in feed.items()} for feed in feeds]
    if not given:
        raise ConversionError(
            f"no warm-up record asks the signature {part.signature.name!r}, so its engines would know no shape",
            hint="package the model again: each signature gets a record for each batch size",
        )
    try:
        part.converter.build(lambda: iter(given))
        for request in given[1:]:
            part.converter._converted_func(**{name: tf.convert_to_tensor(array) for name, array in request.items()})
    except Exception as error:
        raise ConversionError(
            f"the engines of the signature {part.signature.name!r} cannot be built: {reason(error)}",
            hint="out of memory: lower `workspace` or the largest of batch_sizes, or take a larger GPU; "
            "else the process's log says what TensorRT refuses",
        ) from error


def check_reached(parts: Sequence[Rewritten], files: Collection[str]) -> None:
    """Makes sure that each engine was asked at least once.

    Args:
        parts: The signatures whose engines were built.
        files: The canonical names of the engines that `serialize` found, built or not.

    Raises:
        ConversionError: If no request reached an engine, which then knows no shape it could be built for.
    """
    for part in parts:
        names = [segments.canonical_name(segment.name) for segment in part.report.segments]
        lacking = [name for name in names if name not in files]
        if lacking:
            raise ConversionError(
                f"no request reaches {', '.join(lacking)} of the signature {part.signature.name!r}: "
                f"{len(lacking)} of {len(names)} engines cannot be built ahead",
                hint="they lie in a branch that no warm-up record takes: give samples that take this branch",
            )


def serialize(parts: Sequence[Rewritten], directory: Path) -> dict[str, Path]:
    """Writes each engine into a file, as `TrtGraphConverterV2.save` does, and frees its memory.

    TensorFlow writes an empty file for an engine that TensorRT failed to build, and none for one that no request
    reached.

    Args:
        parts: The signatures whose engines were built.
        directory: Where to write.

    Returns:
        The files by the canonical names of the engines.
    """
    files: dict[str, Path] = {}
    for part in parts:
        for engine in segments.engines(part.graph_def):
            name = segments.canonical_name(engine.name)
            file = directory / f"{ENGINE_FILE}{name}"
            try:
                trt_convert.gen_trt_ops.serialize_trt_resource(
                    resource_name=name, filename=str(file), delete_resource=True, save_gpu_specific_engines=True
                )
            except tf.errors.NotFoundError:
                continue
            files[name] = file
    return files
