"""What a cluster adds to a fleet.yaml: images, namespace, the names of Secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from model_registry.errors import InvalidInputError

SERVER_IMAGE = "tensorflow/serving:2.17.1"
GPU_SERVER_IMAGE = f"{SERVER_IMAGE}-gpu"
AGENT_IMAGE = "slipway-sync-agent"
ENVOY_IMAGE = "envoyproxy/envoy:v1.40.0"  # the version that the gateway is tested with

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_ANNOTATION = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Settings:
    """What is the same for every fleet of a file.

    Attributes:
        registry: An s3:// URI.
        namespace: Of all objects; whatever `kubectl` is set to where empty.
        agent_image: What deploy/sync-agent.Dockerfile was built as, and pushed to where the cluster gets it.
        server_image: TensorFlow Serving; its own images, with and without CUDA, where empty.
        envoy_image: Envoy.
        credentials: The Secret whose keys the agents get as environment: AWS_ACCESS_KEY_ID and what else boto3 reads.
            Empty where the cluster lends an identity to their ServiceAccounts.
        annotations: Of the ServiceAccounts, by which a cloud knows which identity to lend.
        public_key: The public keys that manifests are held against, in PEM; empty without.
        prometheus: The namespace whose pods may ask for metrics.
    """

    registry: str
    namespace: str = ""
    agent_image: str = AGENT_IMAGE
    server_image: str = ""
    envoy_image: str = ENVOY_IMAGE
    credentials: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    public_key: str = ""
    prometheus: str = "monitoring"

    def __post_init__(self) -> None:
        if not self.registry.startswith("s3://"):
            raise InvalidInputError(
                f"the registry is {self.registry!r}: expected an s3:// URI, for pods on several machines read it",
                hint="name it by --registry, or in the fleet file",
            )
        for name in filter(None, (self.namespace, self.prometheus)):
            if not _NAMESPACE.fullmatch(name):
                raise InvalidInputError(f"{name[:100]!r} is no name of a Kubernetes namespace")
        if self.credentials and not _OBJECT.fullmatch(self.credentials):
            raise InvalidInputError(
                f"{self.credentials[:100]!r} is no name of a Secret",
                hint="it is the name that is written down, never what is in it",
            )
        for key in self.annotations:
            if not _ANNOTATION.fullmatch(key):
                raise InvalidInputError(
                    f"{key[:100]!r} is no key of an annotation: expected one such as eks.amazonaws.com/role-arn"
                )
        if "PRIVATE KEY" in self.public_key:
            raise InvalidInputError("the file of public keys has a private key in it", hint="take it out at once")
