"""The converted signatures and the native ones back in one SavedModel, with all that a client and a server know of it.

`TrtGraphConverterV2.save` writes the one signature it converted, without assets and warm-up file, and forgets method
names. So it is not used: each part becomes a callable again, and all of them are traced and saved as any model is.
What `save` does for engines is done here in its words: each engine's file is tracked by a `_TRTEngineResource`, so that
it comes along as an asset and is read when a server loads the version; and no engine is built while one serves.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.compiler.tensorrt import trt_convert

from model_registry.errors import ConversionError
from model_registry.servable import Signature
from model_registry.serving import batching
from tasks.model_process import exporting, rewriting, segments
from tasks.model_process.deconversion import deconverted
from tasks.model_process.endpoints import Endpoint, saved_model_endpoint
from tasks.model_process.engine_building import ENGINE_FILE
from tasks.model_process.rewriting import Native, Rewritten
from tasks.model_process.signatures import TracedSignature, trace

_ASSETS = "assets"
_EXTRA = "assets.extra"


def rewritten(parts: Sequence[Rewritten | Native]) -> list[Rewritten]:
    """The parts that TF-TRT rewrote."""
    return [part for part in parts if isinstance(part, Rewritten)]


def save_deconverted(parts: Sequence[Rewritten | Native], native: Path, directory: Path) -> None:
    """Writes the parts as a SavedModel that runs anywhere: each engine as a call of its native segment.

    Args:
        parts: Every signature of the native variant.
        native: The native variant's directory.
        directory: Where to write; must not exist.

    Raises:
        ConversionError: If what was written has other signatures than the native variant.
    """
    calls = {part.signature.name: part.endpoint(deconverted(part.graph_def)) for part in rewritten(parts)}
    _save(parts, calls, native, directory, {})


def save_engines(
    parts: Sequence[Rewritten | Native], engines: Mapping[str, Path], native: Path, directory: Path
) -> tuple[str, ...]:
    """Writes the parts as a SavedModel with engines, for GPUs of the kind they were built on.

    Args:
        parts: Every signature of the native variant.
        engines: The file of each engine that was built, by its canonical name.
        native: The native variant's directory.
        directory: Where to write; must not exist.

    Returns:
        The engines that the graph will look for, as paths below the directory: one for each TRTEngineOp, whether it
        was built or not.

    Raises:
        ConversionError: If what was written has other signatures than the native variant.
    """
    promised: set[str] = set()
    for part in rewritten(parts):
        for engine in segments.engines(part.graph_def):
            # Not in the converter's constructor: its `save` would then rename the outputs.
            engine.attr["_allow_build_at_runtime"].b = False
            promised.add(segments.canonical_name(engine.name))
    calls = {part.signature.name: part.endpoint() for part in rewritten(parts)}
    resources = {
        name: trt_convert._TRTEngineResource(name, str(file), rewriting.CACHED_ENGINES)
        for name, file in sorted(engines.items())
    }
    _save(parts, calls, native, directory, {"trt_engine_resources": resources})
    return tuple(f"{_ASSETS}/{ENGINE_FILE}{name}" for name in sorted(promised))


def _save(
    parts: Sequence[Rewritten | Native],
    calls: Mapping[str, Endpoint],
    native: Path,
    directory: Path,
    tracked: Mapping[str, Any],
) -> None:
    # Converted signatures hold their weights, so that the native model is needed for what stays native only.
    loaded = tf.saved_model.load(str(native)) if len(calls) < len(parts) else None
    traced = [_traced(part, calls.get(part.signature.name), loaded) for part in parts]
    found = exporting.export(loaded, traced, directory, tracked)
    _check_signatures(found, [part.signature for part in parts])
    _copy_for_servers(native, directory)


def _traced(part: Rewritten | Native, endpoint: Endpoint | None, loaded: Any) -> TracedSignature:
    name = part.signature.name
    traced = trace(name, None, endpoint or saved_model_endpoint(loaded.signatures[name], part.definition))
    return dataclasses.replace(traced, method=part.signature.method)


def _check_signatures(found: Sequence[Signature], wanted: Sequence[Signature]) -> None:
    wanted = sorted(wanted, key=lambda signature: signature.name)
    for mine, theirs in zip(found, wanted, strict=False):
        if mine != theirs:
            raise ConversionError(
                f"the conversion changed the signature {theirs.name!r}: expected {theirs}, found {mine}"
            )
    if len(found) != len(wanted):
        raise ConversionError(
            f"the conversion kept {len(found)} signature(s): expected {', '.join(item.name for item in wanted)}"
        )


def _copy_for_servers(native: Path, directory: Path) -> None:
    """The warm-up file, the batching parameters, and what else lies beside the model for its server."""
    extra, parameters = native / _EXTRA, native / batching.FILE
    links = [path for path in (extra, *extra.rglob("*"), parameters) if path.is_symlink()]
    if links:
        raise ConversionError(f"{links[0].relative_to(native)} is a symbolic link: expected a file of the model's own")
    if extra.is_dir():
        shutil.copytree(extra, directory / _EXTRA)
    if parameters.is_file():
        shutil.copyfile(parameters, directory / batching.FILE)
