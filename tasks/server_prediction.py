"""Ask a running TensorFlow Serving, with the same request files as a published version is asked with."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model_registry.catalog import Catalog
from model_registry.errors import InvalidInputError
from model_registry.paths import Reference
from tasks.prediction import Prediction, choose_signature

_LIBRARIES = ("grpc", "numpy", "google.protobuf")


def predict(
    server: str,
    reference: Reference,
    open_registry: Callable[[], Catalog],
    *,
    signature: str | None = None,
    inputs: Path | None = None,
    tls_ca: Path | None = None,
    timeout: float,
) -> tuple[int, Prediction]:
    """Answers one request from a server.

    Args:
        server: HOST:PORT of its gRPC port.
        reference: The model; without version or label the server's newest.
        open_registry: Opens the registry. Called only without `inputs`.
        signature: Which to ask: the one named, else `serving_default`, else the only one.
        inputs: A request file (`tasks.request_file`); None for the first warm-up record that the registry has of
            the version that the server has.
        tls_ca: A PEM file with who signed the server's certificate; None for a connection in the clear.
        timeout: Seconds for each call.

    Returns:
        The version that answered, and its answer.

    Raises:
        InvalidInputError: If the request does not fit, or the server cannot answer it.
        NotFoundError: If the server or the registry has no such model, version, label or signature.
        StorageError: If the server or the registry does not answer.
    """
    _require_client()
    from model_registry.serving.client import Client, Tls

    tls = Tls.from_files(tls_ca) if tls_ca is not None else None
    # A person at a terminal wants to hear at once that nothing listens there.
    with Client(server, tls=tls, timeout=timeout, retries=0) as client:
        found, signatures = client.signatures(reference.model, version=reference.version, label=reference.label)
        asked = choose_signature(Reference(reference.model, found), signatures, signature)
        if inputs is not None:
            from tasks.request_file import read_request

            request: Any = read_request(inputs, asked)
        else:
            from tasks.recorded_request import recorded_request

            registry = open_registry()
            # The version that the signature came from, wherever the label has gone meanwhile.
            version = registry.get(Reference(reference.model, version=found))
            request = recorded_request(registry.store, version, asked.name)
        answer = client.predict(
            reference.model, request, version=reference.version, label=reference.label, signature=asked.name
        )
    outputs = {name: _plain(array) for name, array in answer.outputs.items()}
    return answer.version, Prediction(asked, outputs, _rows(request), recorded=inputs is None)


def _require_client() -> None:
    """Tells who has the light base only what is missing.

    Raises:
        InvalidInputError: If what the client is made of is not installed.
    """
    for library in _LIBRARIES:
        try:
            missing = find_spec(library) is None
        except (ImportError, ValueError):
            missing = True
        if missing:
            raise InvalidInputError(
                f"this asks a server over gRPC, and {library} is not installed",
                hint="pip install 'slipway[pipeline]', for Python 3.10 to 3.12",
            )


def _rows(request: Any) -> int:
    """The batch size; 1 for a request without a batch dimension, or without any input."""
    values = list(request.values()) if isinstance(request, dict) else [request]
    return max((len(value) for value in values if isinstance(value, list) or value.ndim), default=1)


def _plain(array: Any) -> Any:
    """The array in a dtype of numpy's own: float32 holds every bfloat16."""
    return array.astype("float32") if array.dtype.name == "bfloat16" else array
