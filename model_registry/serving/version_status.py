"""What TensorFlow Serving tells of a version over REST. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ServerState = Literal["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]
SERVER_STATES = get_args(ServerState)


@dataclass(frozen=True)
class VersionStatus:
    """One version, as `GET /v1/models/NAME` lists it (tensorflow_serving/apis/get_model_status.proto).

    A failed version stays listed as END with its error; one that was unloaded as END without.

    Attributes:
        version: Its number.
        state: Where it is on its way through the server.
        error: Why it could not be loaded; empty where the server tells no error.
    """

    version: int
    state: ServerState
    error: str = ""
