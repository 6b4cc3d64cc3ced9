"""What questions and moves cost on S3, in HTTP requests: as many in a large registry as in a small one, but for pages.

Counted is what goes out on the line, repetitions included. The large registry has a thousand models, and one of
them ten thousand versions, ten pages of a listing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from botocore.config import Config

from model_registry import paths
from model_registry.claims import Claim
from model_registry.errors import NotFoundError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.servable import ServableVersion, Variant
from model_registry.state import Origin
from model_registry.storage.s3 import S3Store
from tests.support.drafts import make_draft, make_payload
from tests.support.s3_server import run_s3_server

pytestmark = pytest.mark.xdist_group("request-counts")  # what is counted in is made once

_PAGE = 1000  # keys that S3 lists in one answer
_MODELS = 1000
_VERSIONS = 10_000
_BUCKET = "counted"
_ORIGIN = Origin("ann@build-7")


@dataclass
class Counted:
    """A registry whose requests are counted.

    Attributes:
        registry: It.
        client: What it sends them with.
        requests: Of each its method, and the key or `list PREFIX`.
    """

    registry: Registry
    client: Any
    requests: list[str] = field(default_factory=list)

    @contextmanager
    def counting(self) -> Iterator[list[str]]:
        """The requests that are sent meanwhile."""
        self.requests.clear()
        made: list[str] = []
        yield made
        made += self.requests

    def note(self, request: Any, **_: Any) -> None:
        url = urlsplit(request.url)
        query = parse_qs(url.query)
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        _, _, key = (query["prefix"][0] if "list-type" in query else key).partition("/")  # without the registry's own
        self.requests.append(f"list {key}" if "list-type" in query else f"{request.method} {key}")


def documents_of(model: str, versions: int) -> dict[str, bytes]:
    """Manifests of versions without files, and the claim on the last one."""
    documents = {}
    for number in range(1, versions + 1):
        version = replace(make_draft(model, f"i{number}"), version=number, variants=(Variant("native", ()),))
        documents[paths.manifest(model, number)] = version.to_json()
    documents[paths.claim(model, f"i{versions}")] = Claim(versions, "w", make_draft().run).to_json()
    return documents


@pytest.fixture(scope="module")
def two_registries(s3_server_python: Path) -> Iterator[dict[str, Counted]]:
    """One with a single model of ten versions, and one with a thousand more models and pages of versions."""
    contents = {"small": documents_of("digits", 10), "large": documents_of("digits", _VERSIONS)}
    for number in range(_MODELS):
        contents["large"] |= documents_of(f"model-{number}", 1)
    stored = {f"{name}/{key}": data for name, documents in contents.items() for key, data in documents.items()}
    with run_s3_server(s3_server_python, buckets={_BUCKET: stored}) as server:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.key,
            aws_secret_access_key=server.secret,
            region_name="us-east-1",
            config=Config(max_pool_connections=20, retries={"mode": "standard", "total_max_attempts": 5}),
        )
        yield {name: labelled(Counted(Registry(S3Store(_BUCKET, name, client=client)), client)) for name in contents}


def labelled(found: Counted) -> Counted:
    """With a label on its model `digits` that has been moved."""
    for version in (1, 2, 3):
        found.registry.promote("digits", version, "stable", origin=_ORIGIN)
    return found


@pytest.fixture(params=["small", "large"])
def found(request: pytest.FixtureRequest, two_registries: dict[str, Counted]) -> Iterator[Counted]:
    """Each in turn, its requests counted."""
    each = two_registries[request.param]
    each.client.meta.events.register("before-send.s3", each.note)
    yield each
    each.client.meta.events.unregister("before-send.s3", each.note)


@pytest.fixture
def pages(found: Counted) -> int:
    """Requests for a listing of the model's versions."""
    return ceil(versions_in(found) / _PAGE)


def versions_in(found: Counted) -> int:
    return 10 if found.registry.store.uri.endswith("small") else _VERSIONS


_STATE = f"GET {paths.state('digits')}"
_LISTING = f"list {paths.versions('digits')}"


def manifest(version: int) -> str:
    return f"GET {paths.manifest('digits', version)}"


# What is read


def test_the_version_of_a_label_takes_two_requests_however_large_the_registry(found: Counted) -> None:
    with found.counting() as requests:
        version = found.registry.get(Reference("digits", label="stable"))

    assert version.version == 3
    assert requests == [_STATE, manifest(3)]


def test_a_version_by_its_number_takes_one_request_however_large_the_registry(found: Counted) -> None:
    with found.counting() as requests:
        found.registry.get(Reference("digits", version=2))

    assert requests == [manifest(2)]


def test_the_version_of_an_identity_takes_three_requests_however_large_the_registry(found: Counted) -> None:
    newest = versions_in(found)
    with found.counting() as requests:
        version = found.registry.find("digits", f"i{newest}")

    assert version is not None
    assert requests == [f"GET {paths.claim('digits', f'i{newest}')}", _STATE, manifest(newest)]


def test_the_newest_version_takes_a_listing_and_two_requests(found: Counted, pages: int) -> None:
    with found.counting() as requests:
        version = found.registry.get(Reference("digits"))

    assert version.version == versions_in(found)
    assert requests == [_STATE, *[_LISTING] * pages, manifest(version.version)]


def test_the_models_take_one_request_per_thousand(found: Counted) -> None:
    with found.counting() as requests:
        models = found.registry.models()

    assert (len(models) > _MODELS) == (versions_in(found) == _VERSIONS)
    assert requests == [f"list {paths.REGISTRY}"] * ceil(len(models) / _PAGE)


def test_the_versions_of_a_model_take_the_state_and_one_request_per_thousand(found: Counted, pages: int) -> None:
    with found.counting() as requests:
        listing = found.registry.listing("digits")

    assert [listed.version for listed in listing] == list(range(versions_in(found), 0, -1))
    assert [listed.version for listed in listing if listed.labels] == [3]
    assert requests == [_STATE, *[_LISTING] * pages]


def test_the_newest_manifests_take_a_request_each_beside_the_listing(found: Counted, pages: int) -> None:
    newest = versions_in(found)
    with found.counting() as requests:
        versions: list[ServableVersion] = found.registry.versions("digits", limit=3)

    expected = [newest, newest - 1, newest - 2]
    assert [version.version for version in versions] == expected
    assert requests[: 1 + pages] == [_STATE, *[_LISTING] * pages]
    assert sorted(requests[1 + pages :]) == sorted(manifest(version) for version in expected)


def test_the_last_transitions_take_a_request_each(found: Counted) -> None:
    with found.counting() as requests:
        history = found.registry.history("digits", limit=2)

    revision = history[0].revision
    assert requests == [_STATE, f"GET {paths.record('digits', revision - 1)}"]


def test_a_version_that_does_not_exist_is_told_in_as_many_requests_as_a_listing(found: Counted, pages: int) -> None:
    with found.counting() as requests, pytest.raises(NotFoundError, match="newest versions"):
        found.registry.get(Reference("digits", version=99_999))

    assert requests == [manifest(99_999), _STATE, *[_LISTING] * pages]


# What is changed; each test leaves the labels as it found them


def test_a_promotion_and_a_rollback_take_six_requests_each_however_large_the_registry(found: Counted) -> None:
    with found.counting() as there:
        record = found.registry.promote("digits", 4, "stable", origin=_ORIGIN)
    with found.counting() as back:
        found.registry.roll_back("digits", "stable", origin=_ORIGIN)

    assert record is not None
    for requests, revision in ((there, record.revision - 1), (back, record.revision)):
        assert requests[0] == _STATE
        assert sorted(requests[1:3]) == [manifest(3), manifest(4)]  # side by side
        assert requests[3:] == [
            f"PUT {paths.record('digits', revision)}",
            f"HEAD {paths.record('digits', revision + 1)}",
            f"PUT {paths.state('digits')}",
        ]


def test_a_promotion_to_where_the_label_is_takes_one_request(found: Counted) -> None:
    with found.counting() as requests:
        assert found.registry.promote("digits", 3, "stable", origin=_ORIGIN) is None

    assert requests == [_STATE]


def test_retiring_takes_a_listing_more_than_moving_a_label(found: Counted, pages: int) -> None:
    with found.counting() as requests:
        record = found.registry.retire("digits", [5, 6], origin=_ORIGIN)

    assert record is not None
    assert len(requests) == 1 + (1 + pages) + 3


def test_a_first_version_takes_as_many_requests_in_a_large_registry_as_in_a_small_one(
    two_registries: dict[str, Counted], tmp_path: Path
) -> None:
    counts = []
    for name, each in two_registries.items():
        payload = make_payload(tmp_path / name)
        each.client.meta.events.register("before-send.s3", each.note)
        with each.counting() as requests:
            each.registry.publish(make_draft("letters"), {"native": payload})
        each.client.meta.events.unregister("before-send.s3", each.note)
        # A first version tries out whether the store keeps the conditions of a write: two writers race there.
        counts.append(sorted(request for request in requests if "staging/" not in request))

    assert counts[0] == counts[1]
    assert len(counts[0]) < 25
