"""The requests that both doors lead to, answered as messages."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tests.support.model_server.errors import ServingError
from tests.support.model_server.servable import Servable
from tests.support.model_server.server_core import ServerCore


def predict(core: ServerCore, request: Any) -> Any:
    """Answers a PredictRequest.

    Raises:
        ServingError: If the model, its version or its label is not served, or it cannot answer.
    """
    with core.servable(request.model_spec) as (version, servable):
        return _named(_servable(servable).predict(request), request, version)


def classify(core: ServerCore, request: Any) -> Any:
    """Answers a ClassificationRequest; raises as `predict`."""
    with core.servable(request.model_spec) as (version, servable):
        return _named(_servable(servable).classify(request), request, version)


def regress(core: ServerCore, request: Any) -> Any:
    """Answers a RegressionRequest; raises as `predict`."""
    with core.servable(request.model_spec) as (version, servable):
        return _named(_servable(servable).regress(request), request, version)


def metadata(core: ServerCore, request: Any) -> Any:
    """Answers a GetModelMetadataRequest: the SignatureDefs, which is all there is.

    Raises:
        ServingError: As `predict`; or if something else is asked for.
    """
    if not request.model_spec.name:
        raise ServingError("INVALID_ARGUMENT", "Missing ModelSpec")
    if not request.metadata_field:
        message = "GetModelMetadataRequest must specify at least one metadata_field"
        raise ServingError("INVALID_ARGUMENT", message)
    for field in request.metadata_field:
        if field != "signature_def":
            raise ServingError("INVALID_ARGUMENT", f"Metadata field {field} is not supported")
    with core.servable(request.model_spec) as (version, servable):
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in _servable(servable).signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        return _named(response, request, version)


def status(core: ServerCore, spec: Any) -> Any:
    """The states of a model's versions: of the one asked for by number, or else of all; a label is not looked at.

    Raises:
        ServingError: If nothing was ever known of the model or version.
    """
    if not spec.name:
        raise ServingError("INVALID_ARGUMENT", "Missing ModelSpec")
    states = core.states.of(spec.name)
    if spec.WhichOneof("version_choice") == "version":
        version = spec.version.value
        if version not in states:
            raise ServingError("NOT_FOUND", f"Could not find version {version} of model {spec.name}")
        states = {version: states[version]}
    if not states:
        raise ServingError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
    response = get_model_status_pb2.GetModelStatusResponse()
    for version, state in states.items():
        found = response.model_version_status.add(version=version, state=state.name)
        if state.error is not None:
            found.status.error_code = state.error.number
            found.status.error_message = state.error.message
        else:
            found.status.error_code = 0
    return response


def _servable(found: Any) -> Servable:
    assert isinstance(found, Servable)
    return found


def _named(response: Any, request: Any, version: int) -> Any:
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = version
    return response
