"""What a conversion would come to, without a GPU and without a trace: of a model file, or of a published version."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from model_registry.registry import Registry
from model_registry.servable import NATIVE, ServableVersion, Signature
from model_registry.source import inspect_source
from model_registry.spec import PackageSpec
from model_registry.spec_file import LoadedSpec
from model_registry.spec_paths import is_s3
from tasks.estimation import Estimate, estimate, estimator
from tasks.fetching import fetch
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import (
    ESTIMATE,
    PREPARE,
    ExportedModel,
    LoadedModel,
    PreparePlan,
    WarmedModel,
)
from tasks.prediction import verified_files

_PREFIX = "slipway-dry-run-"

_logger = logging.getLogger("slipway")


def estimate_source(loaded: LoadedSpec, *, trust: bool) -> Estimate:
    """Exports a trained model as packaging would, and estimates what came of it.

    Args:
        loaded: The spec in force, as `PackageRequest.resolve` returns it.
        trust: The operator's grant to the spec: the model may bring code.

    Raises:
        InvalidInputError: If the source is no model, or cannot be exported.
        NotFoundError: If it is not there.
        StorageError: If it cannot be fetched.
        ConversionError: If the estimate cannot be made.
    """
    spec = loaded.spec
    assert spec.source is not None
    if not is_s3(spec.source):
        inspect_source(Path(spec.source))  # before two processes are started in vain
    with ExitStack() as stack:
        workspace = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX)))
        # On the CPU like the estimate: two processes on one GPU fight for its memory.
        preparing = stack.enter_context(
            ModelProcess(PREPARE, workspace / PREPARE, settings={"CUDA_VISIBLE_DEVICES": "-1"})
        )
        estimating = stack.enter_context(estimator(workspace / ESTIMATE))
        source = fetch(spec.source, workspace / "source")
        samples = fetch(spec.samples, workspace / "samples") if spec.samples else None
        candidate, cases = workspace / "candidate", workspace / "cases"
        cases.mkdir()
        preparing.tell(
            PreparePlan(
                source=str(source),
                source_format=inspect_source(source),
                spec=spec.model_dump(mode="json"),
                trusted=trust,
                code_directory=str(loaded.directory),
                samples=str(samples) if samples else None,
                candidate=str(candidate),
                cases=str(cases),
            )
        )
        model, seconds = preparing.result("load", LoadedModel, spec.timeouts.load)
        _done("load", seconds, f"{model.kind}, {model.parameters:,} parameters")
        exported, seconds = preparing.result("export", ExportedModel, spec.timeouts.load)
        _done("export", seconds, ", ".join(signature.name for signature in exported.signatures))
        warmed, seconds = preparing.result("warm up", WarmedModel, spec.timeouts.load)
        _done("warm up", seconds, f"{warmed.rows} rows{', made up' if warmed.synthesised else ''}")
        preparing.end()  # nobody asks for the trained model's own answers: both halves of the estimate are the graph's
        return _estimated(estimating, spec, candidate, cases, exported.signatures)


def estimate_version(registry: Registry, version: ServableVersion) -> Estimate:
    """Estimates a published version, by its native variant and the warm-up records in it.

    Args:
        registry: Where it lies.
        version: Its manifest.

    Raises:
        InvalidInputError: If TensorFlow is not installed, or the manifest holds no spec.
        StorageError: If a file is not what the manifest says.
        ConversionError: If the estimate cannot be made.
    """
    native = version.variant(NATIVE)
    assert native is not None
    spec = PackageSpec.parse(version.spec)
    with ExitStack() as stack:
        workspace = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX)))
        estimating = stack.enter_context(estimator(workspace / ESTIMATE))
        started = time.perf_counter()
        saved_model = verified_files(registry.store, version, native, workspace / "saved_model")
        _done("fetch", time.perf_counter() - started, f"{version.model}:{version.version}, {native.bytes:,} bytes")
        return _estimated(estimating, spec, saved_model, None, version.signatures)


def _estimated(
    process: ModelProcess, spec: PackageSpec, saved_model: Path, cases: Path | None, signatures: Sequence[Signature]
) -> Estimate:
    found = estimate(
        process,
        saved_model=saved_model,
        cases=cases,
        signatures=signatures,
        settings=spec.variants.tensorrt,
        timeout=spec.timeouts.convert,
        top1=spec.top1_agreement,
    )
    _done("estimate", found.seconds, "no TensorRT ran")
    return found


def _done(stage: str, seconds: float, detail: str) -> None:
    _logger.info("%-8s %5.1f s  %s", stage, seconds, detail)
