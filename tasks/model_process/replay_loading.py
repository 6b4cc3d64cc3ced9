"""Gives a candidate to a server that somebody else runs, and tells whether that server still has it.

It may be stopped, or be told of other models, at any time: the error for that says nothing of the candidate.
"""

from __future__ import annotations

import time
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc

from model_registry.errors import InvalidInputError
from tasks.model_process.replay_calls import open_channel
from tasks.model_process.replay_messages import LoadedByServer, ReplayPlan

_LOOK = 0.2  # seconds
_ANSWER_WITHIN = 10.0

_State = get_model_status_pb2.ModelVersionStatus


def load(plan: ReplayPlan, deadline: float) -> LoadedByServer:
    """Tells the server of the model, and waits until it is AVAILABLE.

    Args:
        plan: Which model, from where.
        deadline: By time.monotonic.

    Raises:
        InvalidInputError: If the server went away, or has been told of other models.
    """
    began = time.monotonic()
    request = model_management_pb2.ReloadConfigRequest()
    config = request.config.model_config_list.config.add()
    config.name, config.base_path, config.model_platform = plan.model, str(plan.base_path), "tensorflow"
    config.model_version_policy.specific.versions.append(plan.version)
    with open_channel(plan.grpc) as channel:
        # The call lasts as long as the load, retries included.
        reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest.future(request)
        try:
            while True:
                problem, state = _look(plan, channel)
                if state == _State.AVAILABLE or problem:
                    break
                if state in (_State.UNLOADING, _State.END):  # nobody but a new config makes it so
                    raise lost(plan, f"it was told to unload version {plan.version}")
                if reload.done() and (problem := _refused(plan, reload)):
                    break
                if time.monotonic() > deadline:
                    if state == _State.UNKNOWN:
                        raise lost(plan, f"it did not begin to load within {plan.seconds:g} s")
                    told = _State.State.Name(state)
                    problem = f"not AVAILABLE within {plan.seconds:g} s, the server told {told} of it"
                    break
                time.sleep(_LOOK)
        finally:
            reload.cancel()
    return LoadedByServer(time.monotonic() - began, problem)


def require_version(plan: ReplayPlan, channel: grpc.Channel) -> None:
    """Makes sure that the server still has what it had loaded.

    Raises:
        InvalidInputError: If it has not.
    """
    _, state = _look(plan, channel)
    if state != _State.AVAILABLE:
        raise lost(plan, f"version {plan.version} was AVAILABLE, and is {_State.State.Name(state)}")


def lost(plan: ReplayPlan, found: str) -> InvalidInputError:
    """The error for a server that is not there any more, or not for us."""
    return InvalidInputError(
        f"the server at {plan.grpc} went away, or somebody else uses it: {found}",
        hint="this says nothing of the candidate; see whether the server runs, and keep it for this check alone",
    )


def _look(plan: ReplayPlan, channel: grpc.Channel) -> tuple[str, int]:
    """Why the server could not load the version, and the version's state."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = plan.model
    try:
        found = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=_ANSWER_WITHIN)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return "", _State.UNKNOWN
        raise lost(plan, f"{error.code().name}: {error.details()}") from None
    for item in found.model_version_status:
        if item.version == plan.version:
            failed = item.state == _State.END and item.status.error_code
            return f"the server could not load it: {item.status.error_message}" if failed else "", item.state
    return "", _State.UNKNOWN


def _refused(plan: ReplayPlan, reload: Any) -> str:
    try:
        status = reload.result().status
    except grpc.RpcError as error:
        said = f"{error.code().name}: {error.details()}"
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise lost(plan, said) from None
        return f"the server refused its config: {said}"
    return f"the server refused its config: {status.error_message}" if status.error_code else ""
