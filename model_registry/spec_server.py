"""What a package.yaml says of the server that a candidate is tried in. Pure.

Two of its forms need the operator's grant, for a spec is untrusted: an image is code that runs on the engine's
machine, and a server at an address gets its whole config replaced.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

from model_registry.spec_errors import expected

NO_SERVER = "none"
DOCKER = "docker"
DEFAULT_IMAGE = "tensorflow/serving:2.17.1"
_GPU = "-gpu"  # how TensorFlow Serving's own images name the one that has CUDA and TensorRT

# https://github.com/distribution/reference: [DOMAIN/]PATH[:TAG][@DIGEST], and a name that is not empty.
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_MAX_IMAGE = 255
_ADDRESS = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")


def _check_server(value: object) -> object:
    if value is None:
        return NO_SERVER
    if not isinstance(value, str):
        raise expected("none, docker, or the HOST:PORT of a running server's gRPC")
    if value in (NO_SERVER, DOCKER):
        return value
    address = _ADDRESS.fullmatch(value)
    if address is None or not 0 < int(address[1]) < 65_536:
        raise expected("none, docker, or the HOST:PORT of a running server's gRPC")
    return value


def _check_image(value: object) -> object:
    if isinstance(value, str) and (len(value) > _MAX_IMAGE or not _IMAGE.fullmatch(value)):
        raise expected(f"an image as docker names it, like '{DEFAULT_IMAGE}'")
    return value


Server = Annotated[str, BeforeValidator(_check_server)]
Image = Annotated[str, BeforeValidator(_check_image)]


def serving_image(image: str | None, *, accelerated: bool) -> str:
    """The image that a candidate is tried in.

    Args:
        image: What the spec names; None for TensorFlow Serving's own.
        accelerated: Whether the candidate has engines, which need the image with CUDA and TensorRT.
    """
    return image or (DEFAULT_IMAGE + _GPU if accelerated else DEFAULT_IMAGE)


def needs_grant(server: str, image: str | None) -> str | None:
    """What in a spec's choice of server takes the operator's grant, as its author wrote it; None where nothing does."""
    if server == DOCKER:
        return f"image: {image}" if image else None
    return None if server == NO_SERVER else f"server: {server}"
