"""Ask a published version, without a server: its own SavedModel answers, in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from model_registry import paths
from model_registry.errors import InvalidInputError, NotFoundError, StorageError
from model_registry.fetching import fetch
from model_registry.paths import Reference
from model_registry.payload import open_file
from model_registry.servable import NATIVE, PayloadFile, ServableVersion, Signature, Variant
from model_registry.storage import ObjectStore
from tasks.model_process.client import ModelProcess, require_tensorflow
from tasks.model_process.messages import PREDICT, Answered, PredictPlan

DEFAULT_SIGNATURE = "serving_default"
MAX_ANSWER_BYTES = 1 << 30
TIMEOUT = 600.0  # seconds for loading and answering, TensorFlow's import among them


@dataclass(frozen=True)
class Prediction:
    """An answer.

    Attributes:
        signature: Who answered.
        outputs: numpy arrays by output name, strings as bytes objects.
        rows: How many rows were asked.
        recorded: Whether the request was the version's own warm-up record.
    """

    signature: Signature
    outputs: dict[str, Any]
    rows: int
    recorded: bool


def choose_signature(reference: Reference, signatures: Sequence[Signature], name: str | None) -> Signature:
    """The signature to ask: the one named, else `serving_default`, else the only one.

    Args:
        reference: Whose they are, for the message.
        signatures: What there is.
        name: Which one, or None.

    Raises:
        NotFoundError: If there is none of that name.
        InvalidInputError: If one has to be named.
    """
    names = [signature.name for signature in signatures]
    if name is None:
        name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names or len(names) != 1 else names[0]
        if name not in names:
            raise InvalidInputError(f"{reference} has no {name!r}; it has {', '.join(names)}", hint="give --signature")
    found = next((signature for signature in signatures if signature.name == name), None)
    if found is None:
        raise NotFoundError(f"{reference} has no signature {name!r}", hint=f"it has {', '.join(names)}")
    return found


def predict(
    store: ObjectStore,
    version: ServableVersion,
    *,
    signature: str | None = None,
    inputs: Path | None = None,
    variant: str = NATIVE,
) -> Prediction:
    """Answers one request from a published version.

    Args:
        store: Where the version lies.
        version: Its manifest.
        signature: Which to ask; see `choose_signature`.
        inputs: A request file (`tasks.request_file`); None for the version's own first warm-up record.
        variant: Which SavedModel answers.

    Raises:
        InvalidInputError: If the request does not fit, or the SavedModel cannot answer it.
        NotFoundError: If there is no such signature or variant.
        StorageError: If the files are not what the manifest says.
    """
    asked = choose_signature(Reference(version.model, version.version), version.signatures, signature)
    files = version.variant(variant)
    if files is None:
        raise NotFoundError(
            f"{version.model}:{version.version} has no variant {variant!r}",
            hint=f"it has {', '.join(item.name for item in version.variants)}",
        )
    require_tensorflow()
    # Numpy comes with the pipeline.
    from tasks.model_process.arrays import read_arrays, write_arrays
    from tasks.request_file import read_request

    request = read_request(inputs, asked) if inputs is not None else None
    with tempfile.TemporaryDirectory(prefix="slipway-predict-") as made:
        workspace = Path(made)
        # The child imports TensorFlow while the files are brought here and hashed.
        with ModelProcess(PREDICT, workspace / PREDICT) as process:
            given, answers = workspace / "request.npz", workspace / "answers.npz"
            if request is not None:
                write_arrays(given, request)
            directory = verified_files(store, version, files, workspace / "saved_model")
            process.tell(PredictPlan(str(directory), asked, str(given) if request is not None else None, str(answers)))
            answered, _ = process.result("answer", Answered, TIMEOUT)
        with open_file(workspace, answers.name) as file:
            outputs = read_arrays(file, MAX_ANSWER_BYTES)
    return Prediction(asked, outputs, answered.rows, recorded=inputs is None)


def verified_files(store: ObjectStore, version: ServableVersion, variant: Variant, destination: Path) -> Path:
    """Makes sure of a variant's files.

    Args:
        store: Where they lie.
        version: Whose they are.
        variant: Which.
        destination: Where they are brought from a store that is not local.

    Returns:
        A directory that holds them as the manifest tells them: the registry's own if that is local.

    Raises:
        StorageError: If one is not what the manifest says.
    """
    prefix = paths.payload(version.model, variant.name, version.version)
    local = "://" not in store.uri
    fetch(store, prefix, variant.files, None if local else destination, partial(_damaged, version))
    return Path(store.uri_of(prefix)) if local else destination


def _damaged(version: ServableVersion, file: PayloadFile, found: str) -> StorageError:
    return StorageError(
        f"{version.model}:{version.version}: {file.path} is not what was published: "
        f"expected {file.bytes:,} bytes, sha256 {file.sha256[:12]}, found {found}",
        hint=f"slipway verify {version.model}:{version.version} lists all that differs; package the model again",
    )
