"""What one look at the registry says, and what it never says though a document is broken or gone."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.errors import StorageError
from model_registry.registry import Registry
from model_registry.servable import NATIVE
from model_registry.serving.sync.registry_view import Look, RegistryView
from model_registry.state import Origin
from model_registry.storage.base import StoredObject
from model_registry.storage.memory import MemoryStore
from tests.support.drafts import make_draft, make_payload

ORIGIN = Origin("ann@build-7")


class Unreachable(MemoryStore):
    """A store that is out of reach below some prefixes, and notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: tuple[str, ...] = ()
        self.read: list[str] = []

    def get(self, key: str) -> StoredObject:
        self.read.append(key)
        if key.startswith(self.gone or "-"):
            raise StorageError("the network is gone", transient=True)
        return super().get(key)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry(Unreachable())
    for model in ("digits", "faces"):
        for identity in ("a1", "b2"):
            draft = make_draft(model, identity)
            version, _ = found.publish(draft, {NATIVE: make_payload(tmp_path / model / identity)})
            found.promote(model, version.version, "stable" if identity == "a1" else "canary", origin=ORIGIN)
    store_of(found).read.clear()
    return found


def store_of(registry: Registry) -> Unreachable:
    store = registry.store
    assert isinstance(store, Unreachable)
    return store


def view(registry: Registry, *, variants: Collection[str] = (NATIVE,), **only: Collection[str]) -> RegistryView:
    return RegistryView(registry, variants=variants, **only)


def wanted(look: Look) -> dict[str, dict[str, int] | None]:
    return {name: None if model.wanted is None else dict(model.wanted) for name, model in look.models.items()}


def test_all_labels_of_all_models_are_followed(registry: Registry) -> None:
    look = view(registry).look({})

    both = {"stable": 1, "canary": 2}
    assert wanted(look) == {"digits": both, "faces": both}
    assert {version: variant.name for version, variant in look.models["digits"].variants.items()} == {
        1: NATIVE,
        2: NATIVE,
    }
    assert not look.problem


def test_only_some_are_followed_if_so_told(registry: Registry) -> None:
    look = view(registry, models=["digits"], labels=["stable"]).look({})

    assert wanted(look) == {"digits": {"stable": 1}}


def test_a_model_that_is_not_to_be_followed_any_more_is_not_wanted(registry: Registry) -> None:
    assert wanted(view(registry, models=["digits"]).look({"faces": 2}))["faces"] == {}


def test_a_model_that_is_not_listed_any_more_is_a_problem_and_stays(registry: Registry) -> None:
    look = view(registry).look({"birds": 3})

    assert look.models["birds"].wanted is None
    assert "does not list it any more" in look.models["birds"].problem


@pytest.mark.parametrize("known", [3, 10])
def test_a_revision_that_went_backwards_is_a_problem(registry: Registry, known: int) -> None:
    look = view(registry).look({"digits": known, "faces": 2})

    assert look.models["digits"].wanted is None
    assert f"expected {known} or higher, found 2" in look.models["digits"].problem
    assert look.models["faces"].wanted is not None


def test_a_followed_model_whose_state_is_gone_went_backwards(registry: Registry) -> None:
    registry.store.delete([paths.state("digits")])

    assert view(registry, models=["digits"]).look({"digits": 2}).models["digits"].wanted is None


def test_a_model_that_nobody_published_is_told(registry: Registry) -> None:
    assert "has no label of it yet" in view(registry, models=["birds"]).look({}).models["birds"].problem


def test_one_model_out_of_reach_is_not_the_registry(registry: Registry) -> None:
    store_of(registry).gone = ("registry/digits/",)

    look = view(registry).look({})

    assert not look.problem
    assert look.models["digits"].problem == "the network is gone"
    assert look.models["faces"].wanted is not None


def test_all_models_out_of_reach_is_the_registry(registry: Registry) -> None:
    store_of(registry).gone = ("registry/",)

    look = view(registry).look({})

    assert look.problem == "the network is gone"
    assert wanted(look) == {"digits": None, "faces": None}


def test_a_manifest_is_read_once_and_one_that_failed_again(registry: Registry) -> None:
    seen, store = view(registry, models=["digits"]), store_of(registry)
    store.gone = (paths.manifest("digits", 2),)
    assert seen.look({}).models["digits"].refused == {2: "the network is gone"}
    store.gone = ()

    assert not seen.look({}).models["digits"].refused
    assert not seen.look({}).models["digits"].refused
    assert store.read.count(paths.manifest("digits", 1)) == 1
    assert store.read.count(paths.manifest("digits", 2)) == 2


def test_a_manifest_that_says_nonsense_refuses_its_version_alone(registry: Registry) -> None:
    store, key = store_of(registry), paths.manifest("digits", 2)
    document = json.loads(store.get(key).data) | {"version": 3}
    store.put_if_match(key, json.dumps(document).encode(), store.get(key).etag)

    found = view(registry).look({}).models["digits"]

    assert found.wanted == {"stable": 1, "canary": 2}
    assert {*found.variants} == {1}
    assert "is the manifest of digits:3" in found.refused[2]


def test_no_variant_is_substituted(registry: Registry) -> None:
    found = view(registry, variants=["tensorrt-fp16-sm80"]).look({}).models["digits"]

    assert found.refused[1] == "it has no variant tensorrt-fp16-sm80, only native; none is substituted"
    assert view(registry, variants=["tensorrt-fp16-sm80", NATIVE]).look({}).models["digits"].variants[1].name == NATIVE
