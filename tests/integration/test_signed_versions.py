"""Signed versions on every store: who has the public key reads nothing else, whoever can write the bucket."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from model_registry import paths
from model_registry.claims import Claim
from model_registry.errors import FormatError, InvalidInputError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.signing import Signer, Verifier
from model_registry.state import Origin
from model_registry.storage import ObjectStore
from tests.support.publishers import publish

_ORIGIN = Origin("ann@build-7")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and its public key."""
    key, folder = Ed25519PrivateKey.generate(), tmp_path_factory.mktemp("keys")
    private, public = folder / "signing-key.pem", folder / "public-key.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def signed(store: ObjectStore, keys: tuple[Path, Path]) -> Registry:
    return Registry(store, signer=Signer.from_file(keys[0]), verifier=Verifier.from_file(keys[1]))


@pytest.fixture
def unsigned(store: ObjectStore) -> Registry:
    return Registry(store)


def _rewrite(store: ObjectStore, version: int, **changes: object) -> None:
    key = paths.manifest("digits", version)
    stored = store.get(key)
    document = {**json.loads(stored.data), **changes}
    store.put_if_match(key, json.dumps(document, indent=2).encode(), stored.etag)


def test_a_signed_version_is_published_found_and_read(signed: Registry, tmp_path: Path) -> None:
    version, _ = publish(signed, tmp_path / "1")

    assert version.signature is not None
    assert signed.get(Reference("digits")) == version
    assert publish(signed, tmp_path / "2") == (version, True)
    assert signed.verify(version) == []
    signed.promote("digits", 1, "stable", origin=_ORIGIN)
    assert signed.get(Reference("digits", label="stable")) == version


def test_who_has_no_public_key_reads_a_signed_version(signed: Registry, unsigned: Registry, tmp_path: Path) -> None:
    version, _ = publish(signed, tmp_path / "1")

    assert unsigned.get(Reference("digits", version=1)) == version


@pytest.mark.parametrize("field", ["variants", "signatures", "blessing", "source", "created_at", "colour"])
def test_a_manifest_changed_in_the_store_is_refused_by_every_reader(
    signed: Registry, tmp_path: Path, field: str
) -> None:
    version, _ = publish(signed, tmp_path / "1")
    signed.promote("digits", 1, "stable", origin=_ORIGIN)
    other = json.loads(replace(version, created_at="2031-01-01T00:00:00+00:00").to_json())
    other["variants"][0]["files"][0]["sha256"] = "0" * 64
    other["signatures"][0]["name"] = "other"
    other["blessing"]["checks"][0]["measured"] = 0.0
    other["source"]["uri"] = "/elsewhere.keras"
    other["colour"] = "red"
    _rewrite(signed.store, 1, **{field: other[field]})

    for reference in ("digits", "digits:1", "digits@stable"):
        with pytest.raises(FormatError, match="signature"):
            signed.get(Reference.parse(reference))
    with pytest.raises(FormatError, match="signature"):
        signed.find("digits", "a1")
    with pytest.raises(FormatError, match="signature"):
        signed.promote("digits", 1, "canary", origin=_ORIGIN)


def test_an_unsigned_version_is_refused_where_a_public_key_is_configured(
    signed: Registry, unsigned: Registry, tmp_path: Path
) -> None:
    publish(unsigned, tmp_path / "1")

    with pytest.raises(FormatError, match="has no signature"):
        signed.get(Reference("digits", version=1))


def test_a_model_of_unsigned_versions_goes_on_signed(signed: Registry, unsigned: Registry, tmp_path: Path) -> None:
    publish(unsigned, tmp_path / "1")
    unsigned.promote("digits", 1, "stable", origin=_ORIGIN)

    with pytest.raises(FormatError, match="has no signature") as caught:
        publish(signed, tmp_path / "2")
    assert "--force" in str(caught.value)
    version, reused = publish(signed, tmp_path / "3", force=True)

    assert (version.version, reused) == (2, False)
    signed.promote("digits", 2, "stable", origin=_ORIGIN)
    assert signed.get(Reference("digits", label="stable")) == version
    assert publish(signed, tmp_path / "4") == (version, True)


def test_a_claim_that_names_a_version_of_another_source_is_refused(signed: Registry, tmp_path: Path) -> None:
    publish(signed, tmp_path / "1", "old")
    publish(signed, tmp_path / "2", "new")
    key = paths.claim("digits", "new")
    stored = signed.store.get(key)
    redirected = replace(Claim.from_json(stored.data, key=key), version=1)
    signed.store.put_if_match(key, redirected.to_json(), stored.etag)

    with pytest.raises(FormatError, match="was made from something else"):
        signed.find("digits", "new")
    with pytest.raises(FormatError, match="was made from something else"):
        publish(signed, tmp_path / "3", "new")
    version, reused = publish(signed, tmp_path / "4", "new", force=True)
    assert (version.version, version.identity, reused) == (3, "new", False)
    assert signed.find("digits", "new") == version


def test_a_version_of_another_key_is_refused(store: ObjectStore, signed: Registry, tmp_path: Path) -> None:
    publish(Registry(store, signer=Signer(Ed25519PrivateKey.generate())), tmp_path / "1")

    with pytest.raises(FormatError, match="key"):
        signed.get(Reference("digits", version=1))


def test_a_manifest_moved_to_another_number_is_refused(signed: Registry, tmp_path: Path) -> None:
    publish(signed, tmp_path / "1")
    publish(signed, tmp_path / "2", "a2")
    signed.store.copy(paths.manifest("digits", 1), paths.manifest("digits", 3))

    with pytest.raises(FormatError, match="is the manifest of digits:1"):
        signed.get(Reference("digits", version=3))


def test_the_keys_come_from_the_environment(
    keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY", os.fspath(keys[0]))
    monkeypatch.setenv("SLIPWAY_PUBLIC_KEY", os.fspath(keys[1]))
    version, _ = publish(Registry.open(str(tmp_path / "registry")), tmp_path / "payload")

    assert version.signature is not None
    monkeypatch.delenv("SLIPWAY_SIGNING_KEY")
    reader = Registry.open(str(tmp_path / "registry"))
    assert reader.get(Reference("digits")) == version
    with pytest.raises(InvalidInputError, match="no key to sign with"):
        reader.check()


def test_nothing_is_published_that_its_own_readers_would_refuse(
    store: ObjectStore, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    reader = Registry(store, verifier=Verifier.from_file(keys[1]))

    with pytest.raises(InvalidInputError, match="no key to sign with"):
        publish(reader, tmp_path / "1")

    assert list(store.list("")) == []
