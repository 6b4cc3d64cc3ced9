from __future__ import annotations

from dataclasses import replace

import pytest

from model_registry.claims import Claim, Step, next_number, next_step, succeed
from model_registry.errors import FormatError
from model_registry.servable import Run
from model_registry.tombstone import Outcome, Tombstone, read_outcome
from tests.support.drafts import make_draft

_RUN = Run("1", "nightly", None)
_CLAIM = Claim(3, "w", _RUN)
_COMMITTED = replace(make_draft(), version=3, created_at="2030-01-01T00:00:00+00:00", write_id="w")
_GIVEN_UP = Tombstone("gc", "orphan", "2030-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("claim", "age", "outcome", "force", "step"),
    [
        (None, 0, None, False, Step.CLAIM),
        (None, 0, None, True, Step.CLAIM),
        (_CLAIM, 0, None, False, Step.WAIT),
        (_CLAIM, 60, None, False, Step.WAIT),
        (_CLAIM, 60.1, None, False, Step.BURY),
        (_CLAIM, 0, None, True, Step.WAIT),
        (_CLAIM, 61, None, True, Step.BURY),
        (_CLAIM, 0, _COMMITTED, False, Step.REUSE),
        (_CLAIM, 61, _COMMITTED, False, Step.REUSE),
        (_CLAIM, 0, _COMMITTED, True, Step.TAKE),
        (_CLAIM, 0, _GIVEN_UP, False, Step.TAKE),
        (_CLAIM, 61, _GIVEN_UP, True, Step.TAKE),
    ],
)
def test_the_next_step_follows_from_what_was_read(
    claim: Claim | None, age: float, outcome: Outcome, force: bool, step: Step
) -> None:
    assert next_step(claim, age, outcome, lease=60, force=force) is step


def test_numbers_count_on_from_the_highest_ever_taken() -> None:
    assert next_number([]) == 1
    assert next_number([1, 7, 3]) == 8


def test_a_successor_remembers_the_version_that_stays_committed() -> None:
    forced = succeed(_CLAIM, _COMMITTED, version=4, write_id="x", run=_RUN)
    again = succeed(forced, _GIVEN_UP, version=5, write_id="y", run=_RUN)

    assert (forced.version, forced.previous) == (4, 3)
    assert (again.version, again.previous) == (5, 3)
    assert succeed(None, None, version=1, write_id="z", run=_RUN).previous is None


def test_a_renewal_is_another_document_of_the_same_claim() -> None:
    renewed = _CLAIM.renewed()

    assert renewed.to_json() != _CLAIM.to_json()
    assert replace(renewed, renewal=0) == _CLAIM


def test_documents_are_read_as_they_were_written() -> None:
    assert Claim.from_json(_CLAIM.to_json(), key="key") == _CLAIM
    assert read_outcome(_GIVEN_UP.to_json(), key="key") == _GIVEN_UP
    assert read_outcome(_COMMITTED.to_json(), key="key") == _COMMITTED


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"tombstone": 3}', b"\xff"])
def test_what_is_neither_manifest_nor_tombstone_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="key is not"):
        read_outcome(data, key="key")
    with pytest.raises(FormatError, match="key is not a claim"):
        Claim.from_json(data, key="key")


def test_a_claim_of_a_newer_slipway_is_refused() -> None:
    with pytest.raises(FormatError, match="schema version 2"):
        Claim.from_json(replace(_CLAIM, schema_version=2).to_json(), key="key")
