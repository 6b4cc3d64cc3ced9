"""Drafts and SavedModel directories that look real to the registry, made in microseconds."""

from __future__ import annotations

from pathlib import Path

from model_registry.servable import Blessing, Check, Run, ServableVersion, Signature, Source, TensorInfo

CONTENT = {
    "assets.extra/tf_serving_warmup_requests": b"warm-up",
    "saved_model.pb": b"graph",
    "variables/variables.data-00000-of-00001": b"weights",
    "variables/variables.index": b"index",
}


def make_draft(model: str = "digits", identity: str = "a1", run: str = "run-1") -> ServableVersion:
    """A draft that passed its one check."""
    image = TensorInfo("image", "float32", (None, 8, 8, 1))
    scores = TensorInfo("scores", "float32", (None, 10))
    return ServableVersion(
        model=model,
        version=0,
        identity=identity,
        created_at="",
        source=Source("/models/digits.keras", "keras", "0" * 64, 1024),
        spec={"model": model},
        signatures=(Signature("serving_default", "predict", (image,), (scores,)),),
        batch_sizes=(1, 8),
        variants=(),
        blessing=Blessing((Check("parity", "native", 1e-7, 1e-5, True),)),
        libraries={"tensorflow": "2.17.1"},
        run=Run(run, run),
        write_id="",
    )


def make_payload(directory: Path, content: dict[str, bytes] = CONTENT) -> Path:
    """Writes a directory that has the files of a SavedModel."""
    for name, data in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory
