"""State and history on every kind of store: what is written when, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from model_registry import paths
from model_registry.errors import ConflictError, FormatError
from model_registry.journal import Journal
from model_registry.state import Origin, Record, State, Transition
from model_registry.storage import ObjectStore
from tests.support.interrupted_stores import HISTORY, STATE, WRITES, Interrupted, KilledError

_STATE_KEY = paths.state("digits")


def promoted(store: ObjectStore, *versions: int) -> list[Record]:
    """The records of moving `stable` through these versions."""
    journal = Journal(store, "digits")
    made = []
    for version in versions:
        seen = journal.read()
        transition = Transition("promote", "stable", seen.state.labels.get("stable"), version)
        made.append(journal.commit(transition, seen, origin=Origin("ann", f"for {version}")))
    return made


def put_back(store: ObjectStore, data: bytes) -> None:
    store.delete([_STATE_KEY])
    store.put_new(_STATE_KEY, data)


def test_a_model_without_a_state_has_an_empty_one(store: ObjectStore) -> None:
    journal = Journal(store, "digits")

    seen = journal.read()

    assert (seen.state, seen.etag) == (State(), None)
    assert journal.history() == []
    assert list(store.list("")) == []


def test_a_transition_is_in_the_state_and_its_predecessors_are_in_history(store: ObjectStore) -> None:
    first, second, third = promoted(store, 1, 2, 3)

    state = Journal(store, "digits").read().state
    assert (state.revision, state.labels, state.last_transition) == (3, {"stable": 3}, third)
    stored = [Record.from_json(store.get(paths.record("digits", n)).data, key="key") for n in (1, 2)]
    assert stored == [first, second]
    assert [info.key for info in store.list(paths.history("digits"))] == [paths.record("digits", n) for n in (1, 2)]


def test_history_tells_the_last_transition_first_and_no_more_than_asked_for(store: ObjectStore) -> None:
    first, second, third = promoted(store, 1, 2, 3)
    journal = Journal(store, "digits")

    assert journal.history() == [third, second, first]
    assert journal.history(limit=9) == [third, second, first]
    assert journal.history(limit=2) == [third, second]
    assert journal.history(limit=1) == [third]
    assert journal.history(limit=0) == []


def test_history_is_written_before_the_swap(store: ObjectStore) -> None:
    promoted(store, 1)
    front = Interrupted(store, WRITES, "registry/digits/", lambda: None)

    promoted(front, 2)

    assert front.calls == [("put_new", paths.record("digits", 1)), ("put_if_match", _STATE_KEY)]


def test_a_writer_killed_between_history_and_swap_leaves_a_record_that_the_next_one_accepts(store: ObjectStore) -> None:
    (first,) = promoted(store, 1)

    def kill() -> None:
        raise KilledError

    with pytest.raises(KilledError):
        promoted(Interrupted(store, WRITES, STATE, kill), 2)
    assert store.get(paths.record("digits", 1)).data == first.to_json()

    (second,) = promoted(store, 3)

    assert Journal(store, "digits").history() == [second, first]
    assert second.transition == Transition("promote", "stable", 1, 3)


def test_a_writer_killed_before_anything_was_written_leaves_nothing(store: ObjectStore) -> None:
    def kill() -> None:
        raise KilledError

    with pytest.raises(KilledError):
        promoted(Interrupted(store, WRITES, STATE, kill), 1)

    assert list(store.list("")) == []
    assert len(promoted(store, 1)) == 1


def test_an_older_state_that_was_put_back_is_refused(store: ObjectStore) -> None:
    promoted(store, 1, 2)
    older = store.get(_STATE_KEY).data
    promoted(store, 3, 4)
    newer = store.get(_STATE_KEY).data
    put_back(store, older)

    with pytest.raises(FormatError, match="has revision 2, and history goes on from there") as caught:
        promoted(store, 5)

    assert store.uri_of(paths.history("digits")) in caught.value.hint
    assert store.get(_STATE_KEY).data == older
    put_back(store, newer)
    assert promoted(store, 5)[0].revision == 5


def test_a_state_that_another_history_led_to_is_refused(store: ObjectStore) -> None:
    promoted(store, 1)
    other = json.loads(store.get(_STATE_KEY).data)
    promoted(store, 2)
    other["last_transition"]["write_id"] = "somebody-else"
    put_back(store, json.dumps(other).encode())

    with pytest.raises(FormatError, match="history goes on from there or tells another transition"):
        promoted(store, 3)


def test_a_state_that_is_gone_is_refused_and_not_begun_anew(store: ObjectStore) -> None:
    promoted(store, 1, 2, 3)
    store.delete([_STATE_KEY])

    with pytest.raises(FormatError, match=r"state\.json is gone: expected revision 3 or higher, since history holds 2"):
        promoted(store, 4)

    assert [info.key for info in store.list(paths.history("digits"))] == [paths.record("digits", n) for n in (1, 2)]


def test_history_with_a_record_missing_is_refused(store: ObjectStore) -> None:
    promoted(store, 1, 2, 3, 4)
    store.delete([paths.record("digits", 2)])
    journal = Journal(store, "digits")

    with pytest.raises(FormatError, match=r"history/2\.json is missing from the history of digits"):
        journal.history()
    assert [record.revision for record in journal.history(limit=2)] == [4, 3]


def test_a_revision_that_somebody_made_up_costs_one_look_at_history(store: ObjectStore) -> None:
    (record,) = promoted(store, 1)
    forged = replace(record, revision=10**17)
    state = Journal(store, "digits").read().state
    put_back(store, replace(state, revision=10**17, last_transition=forged).to_json())

    with pytest.raises(FormatError, match="missing from the history"):
        Journal(store, "digits").history()


def test_a_record_that_lies_at_another_ones_place_is_refused(store: ObjectStore) -> None:
    promoted(store, 1, 2, 3)
    store.copy(paths.record("digits", 1), paths.record("digits", 2))

    with pytest.raises(FormatError, match=r"history/2\.json is the record of revision 1, expected 2"):
        Journal(store, "digits").history()


def test_a_state_that_cannot_be_read_is_refused_and_stays(store: ObjectStore) -> None:
    store.put_new(_STATE_KEY, b"{}")

    with pytest.raises(FormatError, match=r"state\.json is not a state"):
        promoted(store, 1)
    with pytest.raises(FormatError):
        Journal(store, "digits").history()
    assert store.get(_STATE_KEY).data == b"{}"


def test_the_first_transition_gives_way_to_others_that_were_first(store: ObjectStore) -> None:
    front = Interrupted(store, WRITES, STATE, lambda: promoted(store, 1, 2))

    with pytest.raises(ConflictError, match="digits@stable was moved meanwhile: expected nothing, found digits:2"):
        promoted(front, 3)


def test_a_state_that_others_began_meanwhile_is_not_taken_for_lost(store: ObjectStore) -> None:
    # They lay down history between this writer's look at the state and its look at history.
    front = Interrupted(store, ("list",), HISTORY, lambda: promoted(store, 1, 2, 3))

    with pytest.raises(ConflictError, match="digits@stable was moved meanwhile: expected nothing, found digits:3"):
        promoted(front, 4)

    assert [record.revision for record in Journal(store, "digits").history()] == [3, 2, 1]


def test_a_writer_that_finds_history_beyond_what_it_read_knows_that_others_were_first(store: ObjectStore) -> None:
    promoted(store, 1)
    front = Interrupted(store, WRITES, HISTORY, lambda: promoted(store, 2, 3))

    with pytest.raises(ConflictError, match="expected digits:1, found digits:3"):
        promoted(front, 4)


def test_the_age_of_a_state_is_the_stores(store: ObjectStore) -> None:
    promoted(store, 1)

    assert 0 <= Journal(store, "digits").read().age < 120
