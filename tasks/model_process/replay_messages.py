"""What is said between the pipeline and the process that asks a server for a candidate's answers."""

from __future__ import annotations

from dataclasses import dataclass

from model_registry.servable import Signature
from tasks.model_process.messages import Tolerance


@dataclass(frozen=True)
class ReplayPlan:
    """What the server is asked. Paths are absolute.

    Attributes:
        grpc: HOST:PORT of the server's gRPC.
        rest: URL of its REST API; None where that is not known.
        base_path: The directory of versions that the server is first told to load the model from; None where it has it.
        model: Its name.
        version: Which version is asked.
        candidate: The SavedModel, of which only protos are read.
        cases: Where the requests beyond its warm-up records lie, and the answers of the model it was made from.
        answers: How many of those there are.
        signatures: What the candidate has.
        tolerance: For parity.
        variant: Whose checks they are.
        seconds: How long all may take.
    """

    grpc: str
    rest: str | None
    base_path: str | None
    model: str
    version: int
    candidate: str
    cases: str
    answers: int
    signatures: tuple[Signature, ...]
    tolerance: Tolerance
    variant: str
    seconds: float


@dataclass(frozen=True)
class LoadedByServer:
    """What became of the loading.

    Attributes:
        seconds: How long it took.
        problem: Why the server does not serve it; empty where it does.
    """

    seconds: float
    problem: str = ""
