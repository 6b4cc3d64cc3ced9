"""What is deployed with Docker Compose. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from model_registry.serving.fleet import Fleet, FleetFile, Server

SERVER_IMAGE = "tensorflow/serving:2.17.1"
AGENT_IMAGE = "slipway-sync-agent"

MODELS = "/models"
REGISTRY = "/registry"
PUBLIC_KEY = "/etc/slipway/public-key.pem"

STABLE, CANARY = "stable", "canary"


@dataclass(frozen=True)
class Deployment:
    """What is deployed.

    Attributes:
        registry: An s3:// URI, or the absolute path of a directory.
        models: Which of its models; all where empty.
        labels: Which labels are followed; all where empty. A gateway shares requests between two of its own.
        variants: In order of preference; what the agent takes by itself where empty.
        gpu: Whether the server has a GPU.
        batching: Whether it merges requests that wait.
        memory: What the server may use, as Docker writes it: `4g`.
        agent_image: What deploy/sync-agent.Dockerfile was built as.
        public_key: The absolute path of the public keys that manifests are held against; None without.
        gateway: Whether there are two fleets, a gateway before them, and a Prometheus that watches all of it.
    """

    registry: str
    models: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    gpu: bool = False
    batching: bool = False
    memory: str = "4g"
    agent_image: str = AGENT_IMAGE
    public_key: str | None = None
    gateway: bool = False

    @property
    def remote(self) -> bool:
        """Whether the registry lies in object storage."""
        return self.registry.startswith("s3://")

    @property
    def bucket(self) -> str:
        """The bucket of a registry in object storage."""
        return self.registry.removeprefix("s3://").partition("/")[0]

    def followed(self, labels: tuple[str, ...]) -> list[str]:
        """What an agent is told to follow."""
        named = (("--model", self.models), ("--label", labels), ("--variant", self.variants))
        options = [f"{option}={value}" for option, values in named for value in values]
        return [f"--registry={self.registry if self.remote else REGISTRY}", *options]

    def fleet_file(self) -> FleetFile:
        """What the gateway's agent reads: the two fleets, each one server."""
        fleets = {name: Fleet(models=self.models, servers=(Server(host=server_of(name)),)) for name in (STABLE, CANARY)}
        return FleetFile(fleets=fleets)


def server_of(fleet: str) -> str:
    """The service that is a fleet's server."""
    return f"tf-serving-{fleet}"


def agent_of(fleet: str) -> str:
    """The service that is the agent beside it."""
    return f"agent-{fleet}"
