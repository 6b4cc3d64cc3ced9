from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from model_registry.garbage import Newest, Note, Verdict, graves, judge, judge_leftovers, judge_staging, suspects
from model_registry.inventory import Files, Inventory, retirement_ages
from model_registry.state import Past, State
from model_registry.storage import Leftover
from model_registry.tombstone import Tombstone

_GRACE = 100.0
_OLD, _YOUNG = 101.0, 99.0
_GIVEN_UP = Tombstone("run-1", "its run was killed", "2030-01-01T00:00:00+00:00")
_OCCUPIED = Tombstone("run-1", "something lies there", "2030-01-01T00:00:00+00:00", occupied=True)


def inventory(
    *,
    state: State | None = None,
    retired: Mapping[int, float] | None = None,
    files: Mapping[int, float] | None = None,
    reserved: Mapping[int, float] | None = None,
    committed: Iterable[int] = (),
    buried: Iterable[int] = (),
) -> Inventory:
    """One whose files are three a number, of the ages given."""
    return Inventory(
        "digits",
        state or State(retired=dict.fromkeys(retired or {}, 5)),
        retired or {},
        {number: Files(3, 30, age) for number, age in (files or {}).items()},
        reserved or {},
        dict.fromkeys(committed, 1000.0),
        frozenset(buried),
    )


def judged(
    found: Inventory, *, keep: int | None = None, unreadable: Mapping[int, str] | None = None, **options: Any
) -> Verdict:
    """The verdict, where all manifests can be read but the ones named."""
    others = unreadable or {}
    readable = sorted(found.committed.keys() - found.state.retired.keys() - others.keys(), reverse=True)
    newest = None if keep is None else Newest(keep, frozenset(readable[:keep]), others)
    return judge(found, **({"newest": newest, "grace": _GRACE, "claims": {}, "tombstones": {}} | options))


def items(verdict: Verdict) -> list[tuple[str, int | None]]:
    return [(item.kind, item.version) for item in verdict.items]


def labelled(named: int, *past: int) -> State:
    return State(labels={"stable": named}, pasts={"stable": Past(past, named)})


@pytest.mark.parametrize(
    ("committed", "state", "keep", "retired", "kept"),
    [
        ([1, 2, 3], State(), None, [], []),
        ([1, 2, 3], State(), 3, [], []),
        ([1, 2, 3], State(), 9, [], []),
        ([], State(), 1, [], []),
        ([1, 2, 10, 9], State(), 2, [1, 2], []),
        ([1, 2, 3], labelled(1), 1, [2], [1]),
        ([1, 2, 3, 4], labelled(3, 1), 1, [2], [1, 3]),
        ([1, 2, 3, 4], labelled(4, 4), 1, [1, 2, 3], []),
        ([1, 2, 3, 4], State(retired={4: 5, 3: 5}), 1, [1], []),  # the newest is the newest that is not retired
        ([1, 2, 3, 4], State(retired={1: 5}), 1, [2, 3], []),
    ],
)
def test_keep_retires_all_but_the_newest_and_what_a_label_needs(
    committed: list[int], state: State, keep: int | None, retired: list[int], kept: list[int]
) -> None:
    found = inventory(committed=committed, state=state, retired=dict.fromkeys(state.retired, _YOUNG))

    verdict = judged(found, keep=keep)

    assert sorted(items(verdict)) == [("retire", version) for version in retired]
    names = [note.name for note in verdict.notes if "label" in note.why or "stable" in note.why]
    assert sorted(names) == [f"digits:{version}" for version in kept]


def test_what_a_label_needs_is_told_with_the_label() -> None:
    verdict = judged(inventory(committed=[1, 2, 3], state=labelled(2, 1)), keep=1)

    assert verdict.items == ()
    assert verdict.notes == (
        Note("digits:2", "digits@stable names it"),
        Note("digits:1", "digits@stable may be rolled back to it"),
    )


@pytest.mark.parametrize(
    ("age", "committed", "buried", "tombstones", "expected"),
    [
        (_OLD, [1], [], {}, [("version", 1)]),
        (_GRACE, [1], [], {}, [("version", 1)]),
        (_YOUNG, [1], [], {}, []),
        (_YOUNG, [], [1], {1: _GIVEN_UP}, [("version", 1)]),  # a collection that was interrupted
        (_OLD, [], [1], {}, []),  # what lies there cannot be read
        (_OLD, [], [], {}, []),
    ],
)
def test_a_retired_version_is_garbage_after_the_grace(
    age: float, committed: list[int], buried: list[int], tombstones: dict[int, Tombstone], expected: list[Any]
) -> None:
    found = inventory(retired={1: age}, files={1: _OLD}, committed=committed, buried=buried)

    assert items(judged(found, tombstones=tombstones)) == expected


def test_a_committed_version_that_is_not_retired_is_never_garbage() -> None:
    found = inventory(files={1: _OLD}, reserved={1: _OLD}, committed=[1])

    assert judged(found, grace=0.0) == Verdict()


def test_not_even_a_state_that_contradicts_itself_costs_a_label_its_version() -> None:
    state = State(labels={"stable": 1}, pasts={"stable": Past((2,), 2)}, retired={1: 5, 2: 5})
    found = inventory(state=state, retired={1: _OLD, 2: _OLD}, files={1: _OLD, 2: _OLD}, committed=[1, 2])

    assert judged(found, keep=1).items == ()


@pytest.mark.parametrize(
    ("revision", "history", "expected"),
    [
        (7, {}, 50.0),  # the last transition: the state's own age
        (7, {7: 40.0}, 50.0),  # of a writer that was killed before its swap
        (5, {4: 900.0, 5: 800.0, 6: 700.0}, 800.0),
        (5, {6: 700.0}, 50.0),  # whose record is gone: whatever is younger for certain
    ],
)
def test_a_retirement_is_never_taken_for_older_than_it_is(
    revision: int, history: dict[int, float], expected: float
) -> None:
    assert retirement_ages(State(revision=7, retired={1: revision}), 50.0, history) == {1: expected}


@pytest.mark.parametrize(
    ("reserved", "files", "claim", "expected"),
    [
        (_OLD, None, None, True),
        (_GRACE, _OLD, _GRACE, True),
        (_OLD, _OLD, _OLD, True),
        (_YOUNG, None, None, False),
        (_OLD, _YOUNG, None, False),
        (_OLD, _OLD, _YOUNG, False),
        (_OLD, None, _YOUNG, False),
    ],
)
def test_an_orphan_is_as_young_as_the_last_sign_of_life(
    reserved: float, files: float | None, claim: float | None, expected: bool
) -> None:
    found = inventory(reserved={1: reserved}, files={1: files} if files else {})

    verdict = judged(found, claims={1: claim} if claim else {})

    assert items(verdict) == ([("orphan", 1)] if expected else [])


def test_only_what_has_neither_manifest_nor_tombstone_nor_label_may_be_an_orphan() -> None:
    found = inventory(reserved=dict.fromkeys(range(1, 6), _OLD), committed=[1], buried=[2], state=labelled(3, 4))

    assert suspects(found, _GRACE) == [5]
    verdict = judged(found)
    assert items(verdict) == [("orphan", 5)]
    assert [note.name for note in verdict.notes] == ["digits:3", "digits:4"]
    assert all(note.why.endswith("its manifest is gone") for note in verdict.notes)


@pytest.mark.parametrize(
    ("tombstone", "state", "expected", "told"),
    [
        (_GIVEN_UP, State(), [("remains", 1)], ""),
        (_OCCUPIED, State(), [], "the files there are not its own"),
        (None, State(), [], "what lies where its manifest would cannot be read"),
        (_GIVEN_UP, labelled(1), [], "digits@stable names it; it has a tombstone: its run was killed"),
    ],
)
def test_files_at_a_tombstone_are_swept_at_once_if_they_are_ours(
    tombstone: Tombstone | None, state: State, expected: list[Any], told: str
) -> None:
    found = inventory(state=state, reserved={1: _YOUNG}, files={1: _YOUNG}, buried=[1])

    assert graves(found) == [1]
    verdict = judged(found, tombstones={1: tombstone} if tombstone else {})

    assert items(verdict) == expected
    assert [note.why for note in verdict.notes] == ([told] if told else [])


def test_a_tombstone_is_read_only_where_files_lie_or_a_retirement_is_noted() -> None:
    found = inventory(
        reserved=dict.fromkeys(range(1, 5), _OLD), files={1: _OLD, 4: _OLD}, buried=[1, 2, 3], retired={3: _OLD}
    )

    assert graves(found) == [1, 3]


@pytest.mark.parametrize("buried", [[], [7]])
def test_files_at_a_number_that_nobody_reserved_stay(buried: list[int]) -> None:
    verdict = judged(inventory(files={7: _OLD}, buried=buried), grace=0.0, tombstones=dict.fromkeys(buried, _GIVEN_UP))

    assert verdict == Verdict(notes=(Note("digits:7", "nobody reserved this number: the files there are not ours"),))


def test_staging_is_garbage_when_it_is_old_and_nobody_holds_it() -> None:
    runs = {"c": Files(1, 10, _OLD), "a": Files(2, 20, _GRACE), "b": Files(3, 30, _YOUNG), "held": Files(1, 1, _OLD)}

    verdict = judge_staging(runs, {"held"}, _GRACE)

    assert [(item.name, item.files, item.bytes) for item in verdict.items] == [
        ("staging/a/", 2, 20),
        ("staging/c/", 1, 10),
    ]
    assert [note.name for note in verdict.notes] == ["staging/held/"]


def test_leftovers_are_garbage_after_the_grace() -> None:
    verdict = judge_leftovers([Leftover("a", 1, _OLD), Leftover("b", 1, _YOUNG), Leftover("c", 2, _GRACE)], _GRACE)

    assert [item.name for item in verdict.items] == ["a", "c"]


def test_files_are_as_old_as_the_youngest() -> None:
    files = Files().and_one(10, 5.0).and_one(20, 3.0).and_one(30, 4.0)

    assert files == Files(3, 60, 3.0)


def test_what_cannot_be_read_counts_as_no_new_version_and_stays() -> None:
    verdict = judged(inventory(committed=[1, 2, 3, 8, 9]), keep=2, unreadable={9: "it is not signed", 8: "rubbish"})

    assert items(verdict) == [("retire", 1)]
    assert verdict.notes == (
        Note("digits:9", "it does not count as new: it is not signed"),
        Note("digits:8", "it does not count as new: rubbish"),
    )
