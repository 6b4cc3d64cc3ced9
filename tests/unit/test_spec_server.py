"""What a package.yaml may say of the server that a candidate is tried in, and what of it takes a grant."""

from __future__ import annotations

from typing import Any

import pytest

from model_registry.errors import InvalidInputError
from model_registry.spec import PackageSpec, require_trust
from model_registry.spec_server import serving_image


def parse(**keys: Any) -> PackageSpec:
    return PackageSpec.parse({"model": "digits", **keys})


@pytest.mark.parametrize(
    "server", ["none", "docker", "localhost:8500", "tf-serving.models:8500", "10.0.0.7:8500", "[::1]:8500"]
)
def test_a_server_is_none_docker_or_an_address(server: str) -> None:
    spec = parse(server=server)
    assert spec.server == server
    assert PackageSpec.parse(spec.model_dump(mode="json")) == spec


def test_a_server_left_empty_is_none() -> None:
    assert parse(server=None) == parse()
    assert parse().server == "none"


@pytest.mark.parametrize(
    "server",
    [
        "dokcer",
        "localhost",
        ":8500",
        "a:0",
        "a:65536",
        "a b:8500",
        "http://a:8500",
        "-x:1",
        "a" * 300 + ":1",
        8500,
        True,
    ],
)
def test_anything_else_is_refused(server: object) -> None:
    with pytest.raises(InvalidInputError, match="expected none, docker, or the HOST:PORT"):
        parse(server=server)


@pytest.mark.parametrize("image", ["serving", "team/serving:1.0_a", "registry.internal:5000/a/b__c@sha256:" + "0" * 64])
def test_an_image_is_what_docker_takes(image: str) -> None:
    assert parse(server="docker", image=image).image == image


@pytest.mark.parametrize("image", ["", "--privileged", "a b", "a:b:c", "a/../b", "a@sha256:0", "x" * 256, 5])
def test_what_is_no_image_is_refused(image: object) -> None:
    with pytest.raises(InvalidInputError, match="image: expected"):
        parse(server="docker", image=image)


@pytest.mark.parametrize("server", ["none", "localhost:8500"])
def test_an_image_without_an_engine_is_refused(server: str) -> None:
    with pytest.raises(InvalidInputError, match="expected `server: docker` beside it"):
        parse(server=server, image="tensorflow/serving:2.17.1")


@pytest.mark.parametrize(
    ("keys", "named", "why"),
    [
        ({"server": "docker", "image": "a/b:1"}, "`image: a/b:1`", "runs that image"),
        ({"server": "localhost:8500"}, "`server: localhost:8500`", "replaces the whole config"),
    ],
)
def test_a_server_that_reaches_beyond_the_model_takes_a_grant(keys: dict[str, str], named: str, why: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        require_trust(parse(**keys), trusted=False)
    assert named in caught.value.message and why in caught.value.message
    assert "--trust" in str(caught.value.hint)
    require_trust(parse(**keys), trusted=True)


def test_tensorflow_servings_own_image_takes_none() -> None:
    require_trust(parse(server="docker"), trusted=False)


def test_a_variant_with_engines_is_tried_in_the_image_that_has_cuda() -> None:
    assert serving_image(None, accelerated=False) == "tensorflow/serving:2.17.1"
    assert serving_image(None, accelerated=True) == "tensorflow/serving:2.17.1-gpu"
    assert serving_image("ours:1", accelerated=True) == "ours:1"
