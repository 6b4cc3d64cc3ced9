from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.claims import Claim
from model_registry.errors import FormatError, InvalidInputError, NotFoundError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.servable import PayloadFile, ServableVersion, Variant
from model_registry.storage import open_store
from model_registry.storage.memory import MemoryStore
from model_registry.tombstone import Tombstone
from tests.support.drafts import make_draft, make_payload


@pytest.fixture(params=["memory", "local"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    return Registry(MemoryStore() if request.param == "memory" else open_store(str(tmp_path / "registry")))


def publish(
    registry: Registry, tmp_path: Path, identity: str = "a1", model: str = "digits", *, force: bool = False
) -> tuple[ServableVersion, bool]:
    payload = make_payload(tmp_path / "payload" / identity)
    return registry.publish(make_draft(model, identity), {"native": payload}, force=force)


def bury(registry: Registry, model: str, version: int) -> None:
    tombstone = Tombstone("gc", "its upload was abandoned", "2030-01-01T00:00:00+00:00")
    registry.store.put_new(paths.manifest(model, version), tombstone.to_json())


def test_a_published_version_is_committed_with_its_files(registry: Registry, tmp_path: Path) -> None:
    version, reused = publish(registry, tmp_path)

    assert (version.version, reused) == (1, False)
    assert version.created_at
    assert version.write_id
    assert registry.get(Reference("digits", version=1)) == version
    assert registry.get(Reference("digits")) == version
    assert registry.find("digits", "a1") == version
    assert registry.models() == ["digits"]
    assert registry.verify(version) == []
    native = version.variant("native")
    assert native is not None
    assert native.files[-1].path == "saved_model.pb"


def test_the_same_identity_yields_the_version_that_is_there(registry: Registry, tmp_path: Path) -> None:
    first, _ = publish(registry, tmp_path)

    assert publish(registry, tmp_path) == (first, True)
    assert [listed.version for listed in registry.listing("digits")] == [1]
    assert [info.key for info in registry.store.list(paths.reservations("digits"))] == [paths.reservation("digits", 1)]


def test_force_makes_a_new_version_of_the_same_identity(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)

    second, reused = publish(registry, tmp_path, force=True)

    assert (second.version, reused) == (2, False)
    assert registry.find("digits", "a1") == second


def test_versions_come_newest_first_without_those_given_up(registry: Registry, tmp_path: Path) -> None:
    for identity in ("a1", "a2"):
        publish(registry, tmp_path, identity)
    bury(registry, "digits", 3)
    bury(registry, "digits", 4)
    registry.store.put_new(paths.reservation("digits", 4), b"{}")
    publish(registry, tmp_path, "a5")

    assert [listed.version for listed in registry.listing("digits")] == [5, 2, 1]
    assert [version.version for version in registry.versions("digits")] == [5, 2, 1]
    assert [version.version for version in registry.versions("digits", limit=2)] == [5, 2]
    assert registry.versions("digits", limit=0) == []
    assert registry.get(Reference("digits")).version == 5


def test_the_newest_version_is_found_below_those_given_up(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)
    bury(registry, "digits", 2)

    assert registry.get(Reference("digits")).version == 1
    with pytest.raises(NotFoundError, match="digits:2 does not exist: its upload was abandoned"):
        registry.get(Reference("digits", version=2))


def test_what_does_not_exist_is_answered_with_what_does(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="the registry is empty"):
        registry.get(Reference("digits"))
    publish(registry, tmp_path)

    with pytest.raises(NotFoundError, match="newest versions: 1"):
        registry.get(Reference("digits", version=7))
    with pytest.raises(NotFoundError, match="nearest models: digits"):
        registry.get(Reference("digit"))
    with pytest.raises(NotFoundError, match="digits has no label 'stable'"):
        registry.get(Reference("digits", label="stable"))


def test_an_identity_nobody_published_is_not_found(registry: Registry) -> None:
    assert registry.find("digits", "a1") is None
    assert registry.versions("digits") == []
    assert registry.models() == []


def test_an_identity_that_is_being_published_is_not_found_yet(registry: Registry) -> None:
    claim = Claim(1, "w", make_draft().run)
    registry.store.put_new(paths.claim("digits", "a1"), claim.to_json())

    assert registry.find("digits", "a1") is None


def test_an_identity_is_found_at_its_last_version_while_another_is_forced(registry: Registry, tmp_path: Path) -> None:
    first, _ = publish(registry, tmp_path)
    key = paths.claim("digits", "a1")
    claim = Claim(2, "w", make_draft().run, previous=1)
    registry.store.put_if_match(key, claim.to_json(), registry.store.get(key).etag)

    assert registry.find("digits", "a1") == first


def test_a_manifest_of_another_version_is_refused(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)
    registry.store.copy(paths.manifest("digits", 1), paths.manifest("digits", 2))

    with pytest.raises(FormatError, match="is the manifest of digits:1, expected digits:2"):
        registry.get(Reference("digits"))


@pytest.mark.parametrize(
    "variant",
    [
        Variant("native", (PayloadFile("../../../../etc/passwd", 1, "0" * 64),)),
        Variant("../native", ()),
        Variant("..", (PayloadFile("a", 1, "0" * 64),)),
    ],
)
def test_a_manifest_that_names_files_elsewhere_is_refused(registry: Registry, variant: Variant) -> None:
    version = replace(make_draft(), version=1, variants=(variant,))
    registry.store.put_new(paths.manifest("digits", 1), version.to_json())

    with pytest.raises(FormatError, match="is not a manifest of ours"):
        registry.get(Reference("digits"))


def test_verify_finds_what_was_changed_lost_and_added(registry: Registry, tmp_path: Path) -> None:
    version, _ = publish(registry, tmp_path)
    store, prefix = registry.store, paths.payload("digits", "native", 1)
    store.put_if_match(f"{prefix}saved_model.pb", b"grapH", store.get(f"{prefix}saved_model.pb").etag)
    store.put_if_match(
        f"{prefix}variables/variables.index", b"in", store.get(f"{prefix}variables/variables.index").etag
    )
    store.delete([f"{prefix}variables/variables.data-00000-of-00001"])
    store.put_new(f"{prefix}assets/extra", b"")

    problems = registry.verify(version)

    assert [(problem.path, problem.kind) for problem in problems] == [
        ("assets/extra", "extra"),
        ("saved_model.pb", "digest"),
        ("variables/variables.data-00000-of-00001", "missing"),
        ("variables/variables.index", "size"),
    ]
    assert {problem.variant for problem in problems} == {"native"}


def test_a_rejection_is_written_down_and_replaced(registry: Registry) -> None:
    for reason in ("accuracy 0.4", "accuracy 0.5"):
        registry.record_rejection(make_draft(), reason=reason)

    document = json.loads(registry.store.get(paths.rejection("digits", "a1")).data)
    assert document["reason"] == "accuracy 0.5"
    assert document["blessing"]["checks"][0]["check"] == "parity"
    assert document["source"]["sha256"] == "0" * 64
    assert registry.versions("digits") == []


@pytest.mark.parametrize(
    ("draft", "variants", "message"),
    [
        (replace(make_draft(), version=3), ["native"], "a draft has no version"),
        (make_draft(), ["tensorrt-fp16-sm89"], "'native' is missing"),
        (make_draft(), [], "'native' is missing"),
        (replace(make_draft(), variants=(Variant("native", ()),)), ["native", "other"], "payloads were given for"),
        (make_draft(model="a/b"), ["native"], "model name"),
    ],
)
def test_a_draft_that_cannot_be_published_takes_no_number(
    registry: Registry, tmp_path: Path, draft: ServableVersion, variants: list[str], message: str
) -> None:
    payloads = {name: make_payload(tmp_path / name) for name in variants}

    with pytest.raises(InvalidInputError, match=message):
        registry.publish(draft, payloads)

    assert list(registry.store.list("")) == []


def test_the_registry_is_named_by_argument_then_environment_then_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Registry.open().store.uri == f"{tmp_path}/registry"

    monkeypatch.setenv("SLIPWAY_REGISTRY", "/srv/models")
    assert Registry.open().store.uri == "/srv/models"
    assert Registry.open("s3://bucket/models").store.uri == "s3://bucket/models"
