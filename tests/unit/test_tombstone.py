from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_registry.errors import FormatError
from model_registry.servable import TOMBSTONE_BYTES, ServableVersion, Source
from model_registry.tombstone import Tombstone, read_outcome
from tests.support.drafts import make_draft

_WHEN = "2030-01-01T00:00:00.000000+00:00"
# What takes most bytes in JSON, and what Python makes of the bytes of a file name that are no UTF-8.
_COSTLY = st.sampled_from('\x00"\\é€😀\udcff')
_TEXTS = st.text(st.characters(codec=None), max_size=3000) | st.text(_COSTLY, max_size=3000)


@given(_TEXTS, _TEXTS, st.booleans())
@example("", "", False)
@example("\x00" * 5000, "\x00" * 5000, True)
@example("😀" * 61, "\udcff" * 61, True)
@example("a" * 100_000, "", False)
def test_a_tombstone_is_never_larger_than_listings_expect(who: str, why: str, occupied: bool) -> None:
    data = Tombstone(who, why, _WHEN, occupied).to_json()

    assert len(data) <= TOMBSTONE_BYTES
    read = read_outcome(data, key="key")
    assert isinstance(read, Tombstone)
    assert (read.when, read.occupied) == (_WHEN, occupied)


def test_a_tombstone_that_tells_of_a_source_is_no_larger() -> None:
    source = Source("/trained/a.keras", "keras", "c" * 64, 3, "d" * 64)

    data = Tombstone.of(source, "\x00" * 5000, "\x00" * 5000, _WHEN).to_json()

    assert len(data) <= TOMBSTONE_BYTES
    read = read_outcome(data, key="key")
    assert isinstance(read, Tombstone)
    assert (read.source_sha256, read.source_revision) == ("c" * 64, "d" * 64)


def test_a_digest_that_is_none_is_not_carried_on() -> None:
    tombstone = Tombstone.of(Source("/a", "keras", "no digest", 3, "x" * 5000), "gc", "retired", _WHEN)

    assert (tombstone.source_sha256, tombstone.source_revision) == (None, None)


def test_a_short_reason_is_kept_as_it_is() -> None:
    tombstone = Tombstone("nightly (1)", "its publisher stopped — for €5", _WHEN)

    assert read_outcome(tombstone.to_json(), key="key") == tombstone


def test_a_long_reason_keeps_its_beginning() -> None:
    read = read_outcome(Tombstone("nightly", "because " + "x" * 5000, _WHEN).to_json(), key="key")

    assert isinstance(read, Tombstone)
    assert read.who == "nightly"
    assert read.why.startswith("because xxx")
    assert read.why.endswith("...")
    assert len(read.why) > 500


@given(st.text(max_size=3), st.integers(1, 10**18))
def test_a_manifest_is_always_larger_than_any_tombstone(text: str, version: int) -> None:
    smallest = ServableVersion(
        model=text,
        version=version,
        identity=text,
        created_at=text,
        source=make_draft().source,
        spec={},
        signatures=(),
        batch_sizes=(),
        variants=(),
        blessing=replace(make_draft().blessing, checks=()),
        libraries={},
        run=make_draft().run,
        write_id=text,
    )

    data = smallest.to_json()

    assert len(data) > TOMBSTONE_BYTES
    assert read_outcome(data, key="key") == smallest


def test_a_large_manifest_is_not_filled_up() -> None:
    large = replace(make_draft(), missing={"tensorrt-fp16": "x" * 2000})

    assert b"  \n" not in large.to_json()


@pytest.mark.parametrize("tombstone", [None, [], {}, {"who": "gc"}, {"who": 1, "why": "", "when": ""}])
def test_a_tombstone_with_a_wrong_field_is_refused(tombstone: object) -> None:
    data = json.dumps({"schema_version": 1, "tombstone": tombstone}).encode()

    with pytest.raises(FormatError, match="key is not a tombstone: tombstone"):
        read_outcome(data, key="key")


def test_a_tombstone_of_a_newer_slipway_is_refused() -> None:
    with pytest.raises(FormatError, match="schema version 2"):
        read_outcome(b'{"schema_version": 2, "tombstone": {}}', key="key")
