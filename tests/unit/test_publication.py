from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model_registry.errors import ConflictError
from model_registry.paths import Reference
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.servable import NATIVE, ServableVersion, Variant
from model_registry.state import Origin
from model_registry.storage.memory import MemoryStore
from tasks.publication import commit
from tasks.version_conversion import look_up_version
from tests.support.drafts import make_draft, make_payload

ENGINES = "tensorrt-fp16-sm80"


def committed(
    registry: Registry, folder: Path, *names: str, missing: dict[str, str] | None = None
) -> tuple[ServableVersion, bool]:
    payloads = {name: make_payload(folder / name) for name in names}
    variants = tuple(Variant(name, payload_files(directory)) for name, directory in payloads.items())
    draft = replace(make_draft(), variants=variants, missing=missing or {})
    return commit(registry, draft, payloads, force=False)


def test_a_version_that_was_committed_meanwhile_does_not_stand_for_one_with_more_variants(tmp_path: Path) -> None:
    registry = Registry(MemoryStore())
    native, _ = committed(registry, tmp_path / "1", NATIVE, missing={"tensorrt-fp16": "the worker died"})

    whole, reused = committed(registry, tmp_path / "2", NATIVE, ENGINES)

    assert (whole.version, reused) == (native.version + 1, False)
    assert [variant.name for variant in whole.variants] == [NATIVE, ENGINES]
    assert registry.verify(whole) == []


@pytest.mark.parametrize("names", [(NATIVE,), (NATIVE, ENGINES)])
def test_a_version_that_was_committed_meanwhile_stands_for_one_with_as_many_or_fewer(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    registry = Registry(MemoryStore())
    whole, _ = committed(registry, tmp_path / "1", NATIVE, ENGINES)

    assert committed(registry, tmp_path / "2", *names) == (whole, True)


def test_a_retired_version_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.open(str(tmp_path / "registry"))
    version, _ = committed(registry, tmp_path / "1", NATIVE)
    registry.retire("digits", [version.version], origin=Origin.here())
    monkeypatch.setenv("SLIPWAY_CONVERSION", "rehearsal")

    with pytest.raises(ConflictError, match="digits:1 is retired, and may be deleted at any time"):
        look_up_version("digits:1", registry.store.uri, force=False)

    assert registry.get(Reference("digits", version=1)) == version
