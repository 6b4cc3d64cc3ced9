"""What a gateway's agent is told. Pure."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_registry.serving.fleet import FleetFile

INTERVAL = 2.0
DRAIN = 5.0


@dataclass(frozen=True)
class GatewaySettings:
    """The settings of one agent.

    Attributes:
        directory: What it fills and Envoy reads.
        fleet: Which fleets there are, and which labels requests are shared between.
        envoy: The URL of Envoy's admin interface; empty for this machine's, at the fleet file's port.
        name: Of the agent, among its replicas.
        interval: Seconds from one look at the registry to the next.
        drain: Seconds that clusters stay after the last route to them is gone: requests may be under way.
    """

    directory: Path
    fleet: FleetFile
    envoy: str = ""
    name: str = field(default_factory=socket.gethostname)
    interval: float = INTERVAL
    drain: float = DRAIN

    @property
    def admin(self) -> str:
        """Where Envoy's admin interface is."""
        return self.envoy or f"http://127.0.0.1:{self.fleet.gateway.admin}"
