"""What a sync agent is told. Pure."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass, field
from pathlib import Path

from model_registry.servable import NATIVE

SERVER = "http://127.0.0.1:8501"


@dataclass(frozen=True)
class SyncSettings:
    """The settings of one agent.

    Attributes:
        destination: The directory it fills.
        base_path: The same directory as the server sees it; empty where it sees it under the same path.
        models: Which to follow; none for all there are.
        labels: Which to follow; none for all there are.
        variants: Which variant to bring of a version: the first of these that it has.
        server: The server's REST URL.
        name: Of the agent, among its replicas.
        interval: Seconds from one look at the registry to the next.
        settle: Seconds a server needs to notice a new models.config and begin.
        drain: Seconds from a label's move to the old version's leave.
        load_timeout: Seconds a load may take.
        silence: Seconds that the server may say nothing that makes sense before it counts as gone. Where nobody
            listens it is gone at once.
        stagger: The longest that this agent waits for its turn before it lets its server load a version, in seconds.
        reserve: Bytes of the disk that stay free.
        keep: How many versions of a model that nobody needs any more stay on the disk, for a rollback.
    """

    destination: Path
    base_path: str = ""
    models: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    variants: tuple[str, ...] = (NATIVE,)
    server: str = SERVER
    name: str = field(default_factory=socket.gethostname)
    interval: float = 5.0
    settle: float = 5.0
    drain: float = 5.0
    load_timeout: float = 900.0
    silence: float = 30.0
    stagger: float = 5.0
    reserve: int = 512 << 20
    keep: int = 1

    def model_path(self, model: str) -> str:
        """A model's base_path, as the server sees it."""
        return f"{(self.base_path or str(self.destination.absolute())).rstrip('/')}/models/{model}"

    def turn(self, model: str, version: int) -> float:
        """Seconds this agent waits before it lets its server load a version: spread evenly over the replicas."""
        digest = hashlib.sha256(f"{self.name}\n{model}:{version}".encode()).digest()
        return self.stagger * int.from_bytes(digest[:8], "big") / 2**64
