"""Reads manifests from a store, and trusts none of the names in them."""

from __future__ import annotations

from model_registry import paths
from model_registry.documents import load
from model_registry.errors import FormatError, InvalidInputError, NotFoundError
from model_registry.servable import ServableVersion
from model_registry.signing import Verifier
from model_registry.storage.base import ObjectStore
from model_registry.tombstone import Outcome, Tombstone, outcome_of


def read_manifest(store: ObjectStore, model: str, version: int, *, verifier: Verifier | None) -> Outcome:
    """Reads what lies at a manifest's key: the manifest, a tombstone, or nothing (None).

    Args:
        store: Where it lies.
        model: Whose it is.
        version: Its number.
        verifier: Whose signature a manifest must bear; None where no public key is configured.

    Raises:
        FormatError: If the document is neither, or speaks of another version, or names a path that
            leads out of the version's own directory, or is not signed as it should be.
    """
    key = paths.manifest(model, version)
    try:
        stored = store.get(key)
    except NotFoundError:
        return None
    document = load(stored.data, key=key, what="a manifest")
    outcome = outcome_of(document, key=key)
    if isinstance(outcome, Tombstone):
        return outcome
    if verifier:
        verifier.check(document, key=key)
    return _checked(outcome, model, version, key)


def _checked(found: ServableVersion, model: str, version: int, key: str) -> ServableVersion:
    if (found.model, found.version) != (model, version):
        raise FormatError(
            f"{key} is the manifest of {found.model}:{found.version}, expected {model}:{version}",
            hint="somebody moved documents inside the registry; restore them from a backup",
        )
    try:
        for variant in found.variants:
            if "/" in variant.name:
                raise InvalidInputError(f"variant name {variant.name!r} has a slash")
            prefix = paths.payload(model, variant.name, version)
            for file in variant.files:
                paths.check_key(prefix + file.path)
    except InvalidInputError as error:
        raise FormatError(f"{key} is not a manifest of ours: {error.message}") from None
    return found
