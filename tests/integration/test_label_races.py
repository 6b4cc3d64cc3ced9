"""Two writers of one model's labels, interleaved at chosen calls, and answers of the store that are lost or late.

Each case happens the same way every time, on every kind of store.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from model_registry import paths, transitions
from model_registry.errors import ConflictError, FormatError, NotFoundError, StorageError
from model_registry.journal import Journal
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.servable import ServableVersion, Variant
from model_registry.state import Origin, Record, Transition
from model_registry.storage import ObjectStore
from model_registry.tombstone import Tombstone
from tests.support.drafts import make_draft
from tests.support.failing_stores import Front
from tests.support.interrupted_stores import (
    HISTORY,
    MANIFEST,
    READS,
    STATE,
    WRITES,
    Interrupted,
    LateSwap,
    UnheardSwaps,
)
from tests.support.publishers import publish

_ANN, _BOB = Origin("ann"), Origin("bob")


class AtOnce(Front):
    """Holds each swap of a state until all writers are at theirs."""

    def __init__(self, store: ObjectStore, writers: threading.Barrier) -> None:
        super().__init__(store)
        self._writers = writers
        self._held = False

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        if key.endswith(STATE) and not self._held:
            self._held = True
            self._writers.wait(60)
        return self._store.put_if_match(key, data, etag)


def commit_versions(store: ObjectStore, count: int, *, model: str = "digits", first: int = 1) -> None:
    """Manifests of versions without files: labels ask for no more."""
    for number in range(first, first + count):
        version = replace(make_draft(model), version=number, variants=(Variant("native", ()),))
        store.put_new(paths.manifest(model, number), version.to_json())


def promote(store: ObjectStore, *versions: int, label: str = "stable", model: str = "digits") -> None:
    for version in versions:
        Registry(store).promote(model, version, label, origin=_BOB)


def collect(store: ObjectStore, version: int) -> None:
    """Deletes a retired version as gc does."""
    key = paths.manifest("digits", version)
    store.put_if_match(key, Tombstone("gc", "it was retired", "").to_json(), store.get(key).etag)
    journal = Journal(store, "digits")
    seen = journal.read()
    transition = transitions.collect(seen.state, [version])
    assert transition
    journal.commit(transition, seen, origin=Origin("gc"))


def labels(store: ObjectStore, model: str = "digits") -> dict[str, int]:
    return Registry(store).state(model).labels


def told(store: ObjectStore) -> list[tuple[str, str | None, int | None, int | None]]:
    """All transitions, the first one first, each with its author."""
    return [
        (record.origin.who, record.transition.label, record.transition.from_version, record.transition.to_version)
        for record in reversed(Registry(store).history("digits"))
    ]


def told_since(store: ObjectStore, revision: int) -> list[tuple[str, str | None, int | None, int | None]]:
    return told(store)[revision:]


@pytest.fixture
def digits(store: ObjectStore) -> ObjectStore:
    """A store with five versions, of which `stable` named 1, 2, and names 3."""
    commit_versions(store, 5)
    promote(store, 1, 2, 3)
    return store


# Two at once


def test_of_two_rollbacks_at_once_one_conflicts_and_the_label_goes_back_one_step(digits: ObjectStore) -> None:
    writers = threading.Barrier(2)

    def roll_back(_: int) -> Record | ConflictError | None:
        try:
            return Registry(AtOnce(digits, writers)).roll_back("digits", "stable", origin=_ANN)
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(roll_back, range(2)), key=lambda outcome: isinstance(outcome, ConflictError))

    assert isinstance(outcomes[0], Record)
    assert isinstance(outcomes[1], ConflictError)
    assert outcomes[1].message == "digits@stable was moved meanwhile: expected digits:3, found digits:2"
    assert labels(digits) == {"stable": 2}
    assert told_since(digits, 3) == [("ann", "stable", 3, 2)]


@pytest.mark.parametrize("point", [HISTORY, STATE])
def test_a_rollback_that_another_one_overtakes_conflicts(digits: ObjectStore, point: str) -> None:
    overtaken = Interrupted(digits, WRITES, point, lambda: Registry(digits).roll_back("digits", "stable", origin=_BOB))

    with pytest.raises(ConflictError, match="expected digits:3, found digits:2"):
        Registry(overtaken).roll_back("digits", "stable", origin=_ANN)

    assert told_since(digits, 3) == [("bob", "stable", 3, 2)]


def test_two_labels_of_one_model_moved_at_once_both_move(digits: ObjectStore) -> None:
    promote(digits, 4, label="canary")
    writers = threading.Barrier(2)

    def move(label: str) -> Record | None:
        return Registry(AtOnce(digits, writers)).promote("digits", 5, label, origin=Origin(label))

    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(move, ["canary", "stable"]))

    assert labels(digits) == {"canary": 5, "stable": 5}
    assert sorted(record.revision for record in records if record) == [5, 6]
    assert sorted(told_since(digits, 4)) == [("canary", "canary", 4, 5), ("stable", "stable", 3, 5)]


def test_two_first_labels_of_a_model_set_at_once_are_both_set(store: ObjectStore) -> None:
    commit_versions(store, 2)
    front = Interrupted(store, WRITES, STATE, lambda: promote(store, 1, 2, label="canary"))

    record = Registry(front).promote("digits", 1, "stable", origin=_ANN)

    assert record is not None
    assert record.revision == 3
    assert labels(store) == {"canary": 2, "stable": 1}
    assert told(store) == [("bob", "canary", None, 1), ("bob", "canary", 1, 2), ("ann", "stable", None, 1)]


def test_the_labels_of_two_models_do_not_disturb_each_other(digits: ObjectStore) -> None:
    commit_versions(digits, 2, model="letters")
    front = Interrupted(digits, WRITES, STATE, lambda: promote(digits, 1, 2, model="letters"))

    record = Registry(front).promote("digits", 4, "stable", origin=_ANN)

    assert record is not None
    assert record.revision == 4
    assert len(front.calls) == 1  # there was nothing to do again
    assert labels(digits) == {"stable": 4}
    assert labels(digits, "letters") == {"stable": 2}


@pytest.mark.parametrize("point", [HISTORY, STATE])
def test_a_promotion_to_what_is_retired_meanwhile_conflicts(digits: ObjectStore, point: str) -> None:
    front = Interrupted(digits, WRITES, point, lambda: Registry(digits).retire("digits", [4], origin=_BOB))

    with pytest.raises(ConflictError, match="digits:4 is retired"):
        Registry(front).promote("digits", 4, "stable", origin=_ANN)

    assert labels(digits) == {"stable": 3}
    assert told_since(digits, 3) == [("bob", None, None, None)]


@pytest.mark.parametrize("point", [HISTORY, STATE])
def test_a_retirement_of_what_is_promoted_meanwhile_conflicts(digits: ObjectStore, point: str) -> None:
    front = Interrupted(digits, WRITES, point, lambda: promote(digits, 4))

    with pytest.raises(ConflictError, match="digits:4 cannot be retired: digits@stable names it"):
        Registry(front).retire("digits", [4, 5], origin=_ANN)

    assert Registry(digits).state("digits").retired == {}
    assert told_since(digits, 3) == [("bob", "stable", 3, 4)]


def retire_and_collect(store: ObjectStore, version: int) -> None:
    Registry(store).retire("digits", [version], origin=_BOB)
    collect(store, version)


# Collected, it is not noted as retired any more: the state alone would let the promotion pass.
@pytest.mark.parametrize(("methods", "point"), [(("get",), MANIFEST), (WRITES, HISTORY), (WRITES, STATE)])
def test_a_promotion_to_what_is_retired_and_collected_meanwhile_is_refused(
    digits: ObjectStore, methods: tuple[str, ...], point: str
) -> None:
    front = Interrupted(digits, methods, point, lambda: retire_and_collect(digits, 4))

    with pytest.raises(NotFoundError, match="digits:4 does not exist: it was retired"):
        Registry(front).promote("digits", 4, "stable", origin=_ANN)

    assert labels(digits) == {"stable": 3}
    assert [record.transition.action for record in Registry(digits).history("digits", 2)] == ["collect", "retire"]


@pytest.mark.parametrize(("methods", "point"), [(("get",), STATE), (("list",), MANIFEST), (WRITES, STATE)])
def test_a_version_that_is_retired_and_collected_meanwhile_is_not_retired_again(
    digits: ObjectStore, methods: tuple[str, ...], point: str
) -> None:
    front = Interrupted(digits, methods, point, lambda: retire_and_collect(digits, 4))

    with pytest.raises(NotFoundError, match="digits:4 does not exist: it was retired"):
        Registry(front).retire("digits", [4], origin=_ANN)

    assert Registry(digits).state("digits").retired == {}


# Labels that follow


def follow(store: ObjectStore, version: int, origin: Origin = _ANN) -> Record | None:
    found = Registry(store).get(Reference("digits", version=version))
    return Registry(store).follow(found, "stable", origin=origin)


def test_a_late_packaging_does_not_move_its_label_below_a_higher_version(digits: ObjectStore) -> None:
    follow(digits, 5)

    with pytest.raises(ConflictError, match="stays at digits:5: expected a version above 5"):
        follow(digits, 4)
    Registry(digits).roll_back("digits", "stable", origin=_BOB)
    with pytest.raises(ConflictError, match="stays at digits:3: expected a version above 5"):
        follow(digits, 4)

    assert told_since(digits, 3) == [("ann", "stable", 3, 5), ("bob", "stable", 5, 3)]


@pytest.mark.parametrize("point", [HISTORY, STATE])
def test_of_two_that_follow_at_once_the_higher_wins_though_it_came_second(digits: ObjectStore, point: str) -> None:
    front = Interrupted(digits, WRITES, point, lambda: follow(digits, 4, _BOB))

    record = follow(front, 5)

    assert record is not None
    assert record.transition == Transition("follow", "stable", 4, 5)
    assert told_since(digits, 3) == [("bob", "stable", 3, 4), ("ann", "stable", 4, 5)]


@pytest.mark.parametrize("point", [HISTORY, STATE])
def test_of_two_that_follow_at_once_the_higher_stays_if_it_came_first(digits: ObjectStore, point: str) -> None:
    front = Interrupted(digits, WRITES, point, lambda: follow(digits, 5, _BOB))

    with pytest.raises(ConflictError, match="stays at digits:5"):
        follow(front, 4)

    assert told_since(digits, 3) == [("bob", "stable", 3, 5)]


@pytest.mark.parametrize("point", [HISTORY, STATE])
def test_who_follows_does_not_undo_a_promotion_and_a_rollback_that_came_between(
    digits: ObjectStore, point: str
) -> None:
    def there_and_back() -> None:
        promote(digits, 5)
        Registry(digits).roll_back("digits", "stable", origin=_BOB)

    front = Interrupted(digits, WRITES, point, there_and_back)

    with pytest.raises(ConflictError, match="expected a version above 5, the highest it ever named, found 5"):
        follow(front, 5)

    assert told_since(digits, 3) == [("bob", "stable", 3, 5), ("bob", "stable", 5, 3)]


# Expectations


def test_a_promotion_that_expects_what_is_not_there_any_more_conflicts(digits: ObjectStore) -> None:
    registry = Registry(digits)

    with pytest.raises(ConflictError, match="expected it to name digits:2, found digits:3"):
        registry.promote("digits", 4, "stable", origin=_ANN, expect=2)
    with pytest.raises(ConflictError, match="expected it to name nothing, found digits:3"):
        registry.promote("digits", 4, "stable", origin=_ANN, expect=None)
    front = Interrupted(digits, WRITES, STATE, lambda: promote(digits, 5))
    with pytest.raises(ConflictError, match="expected digits:3, found digits:5"):
        Registry(front).promote("digits", 4, "stable", origin=_ANN, expect=3)
    assert registry.promote("digits", 4, "stable", origin=_ANN, expect=5) is not None

    assert told_since(digits, 3) == [("bob", "stable", 3, 5), ("ann", "stable", 5, 4)]


def test_a_dry_run_tells_the_transition_and_changes_nothing(digits: ObjectStore) -> None:
    before = {info.key: digits.get(info.key).data for info in digits.list(paths.REGISTRY)}

    record = Registry(digits).promote("digits", 4, "stable", origin=_ANN, dry_run=True)

    assert record is not None
    assert (record.revision, record.transition) == (4, Transition("promote", "stable", 3, 4))
    assert {info.key: digits.get(info.key).data for info in digits.list(paths.REGISTRY)} == before


# Answers that are lost


def promoted_by_ann(store: ObjectStore, version: int = 4) -> Record:
    record = Registry(store).promote("digits", version, "stable", origin=_ANN)
    assert record is not None
    return record


def test_a_promotion_whose_answer_was_lost_is_found_in_the_state(digits: ObjectStore) -> None:
    record = promoted_by_ann(UnheardSwaps(digits))

    assert Registry(digits).history("digits", 1) == [record]
    assert told_since(digits, 3) == [("ann", "stable", 3, 4)]


def test_a_first_promotion_whose_answer_was_lost_is_found_in_the_state(store: ObjectStore) -> None:
    commit_versions(store, 4)

    record = promoted_by_ann(UnheardSwaps(store))

    assert Registry(store).history("digits") == [record]


@pytest.mark.parametrize("others", [(5,), (5, 1), (5, 4)])
def test_a_promotion_whose_answer_was_lost_before_others_came_is_found_in_history(
    digits: ObjectStore, others: tuple[int, ...]
) -> None:
    record = promoted_by_ann(UnheardSwaps(digits, afterwards=lambda: promote(digits, *others)))

    assert record.revision == 4
    history = Registry(digits).history("digits")
    assert [found.revision for found in history if found.write_id == record.write_id] == [4]
    steps = [4, *others]
    assert told_since(digits, 3) == [
        ("ann", "stable", 3, 4),
        *[("bob", "stable", one, after) for one, after in zip(steps, others, strict=False)],
    ]


def test_a_rollback_whose_answer_was_lost_goes_back_one_step(digits: ObjectStore) -> None:
    Registry(UnheardSwaps(digits)).roll_back("digits", "stable", origin=_ANN)

    assert told_since(digits, 3) == [("ann", "stable", 3, 2)]


def test_a_swap_that_never_arrived_is_made_again(digits: ObjectStore) -> None:
    record = promoted_by_ann(UnheardSwaps(digits, 3, done=False))

    assert Registry(digits).history("digits", 1) == [record]
    assert told_since(digits, 3) == [("ann", "stable", 3, 4)]


def test_a_swap_that_never_arrived_conflicts_with_what_somebody_else_did_meanwhile(digits: ObjectStore) -> None:
    lost = UnheardSwaps(digits, done=False, afterwards=lambda: promote(digits, 5))

    with pytest.raises(ConflictError, match="expected digits:3, found digits:5"):
        promoted_by_ann(lost)

    assert told_since(digits, 3) == [("bob", "stable", 3, 5)]


@pytest.mark.parametrize("done", [True, False])
def test_what_became_of_a_lost_answer_cannot_be_told_while_the_store_is_away(digits: ObjectStore, done: bool) -> None:
    with pytest.raises(StorageError, match="whether digits was changed cannot be told") as caught:
        promoted_by_ann(UnheardSwaps(digits, done=done, then_away=True))

    assert caught.value.hint == "see `slipway history digits` before trying again"
    assert not caught.value.transient  # repeated blindly, it could undo what came after
    assert labels(digits) == {"stable": 4 if done else 3}


def test_what_becomes_of_swaps_that_are_never_answered_cannot_be_told(digits: ObjectStore) -> None:
    unheard = UnheardSwaps(digits, 99, done=False)

    with pytest.raises(StorageError, match="cannot be told"):
        promoted_by_ann(unheard)

    assert unheard.unheard > 80  # it gave up soon
    assert told_since(digits, 3) == []


def test_a_swap_that_is_refused_for_good_changed_nothing(digits: ObjectStore) -> None:
    with pytest.raises(StorageError, match="the answer was lost") as caught:
        promoted_by_ann(UnheardSwaps(digits, done=False, transient=False))

    assert "cannot be told" not in caught.value.message
    assert told_since(digits, 3) == []


# Writes that land late


@pytest.mark.parametrize(
    ("methods", "point"),
    [
        (("get",), STATE),  # before the writer looks what became of it
        (("put_new",), HISTORY),  # after that, before it tries again
        (("put_if_match",), STATE),  # right before it swaps again
    ],
)
def test_an_unheard_swap_that_lands_late_is_one_transition(
    digits: ObjectStore, methods: tuple[str, ...], point: str
) -> None:
    late = LateSwap(digits)

    record = promoted_by_ann(Interrupted(late, methods, point, late.land, when=late.under_way))

    assert late.landed is True
    assert Registry(digits).history("digits", 1) == [record]
    assert told_since(digits, 3) == [("ann", "stable", 3, 4)]
    promote(digits, 5)
    assert told_since(digits, 3) == [("ann", "stable", 3, 4), ("bob", "stable", 4, 5)]


def test_an_unheard_swap_that_lands_after_it_was_made_again_changes_nothing(digits: ObjectStore) -> None:
    late = LateSwap(digits)
    record = promoted_by_ann(late)
    promote(digits, 5)

    late.land()

    assert late.landed is False
    assert told_since(digits, 3) == [("ann", "stable", 3, 4), ("bob", "stable", 4, 5)]
    assert Registry(digits).history("digits")[1] == record


@pytest.mark.parametrize(("methods", "point"), [(("get",), STATE), (("put_new",), HISTORY), (("put_if_match",), STATE)])
def test_an_unheard_swap_that_lands_after_somebody_else_was_first_changes_nothing(
    digits: ObjectStore, methods: tuple[str, ...], point: str
) -> None:
    late = LateSwap(digits)
    overtaken = Interrupted(late, methods, point, lambda: promote(digits, 5), when=late.under_way)

    with pytest.raises(ConflictError, match="expected digits:3, found digits:5"):
        promoted_by_ann(overtaken)
    late.land()

    assert late.landed is False
    assert told_since(digits, 3) == [("bob", "stable", 3, 5)]


@pytest.mark.parametrize("methods", [("get",), ("put_new",), ("put_if_match",)])
def test_while_an_unheard_swap_may_still_land_it_cannot_be_told_what_becomes_of_it(
    digits: ObjectStore, methods: tuple[str, ...]
) -> None:
    def fail() -> None:
        raise StorageError("the store is away", transient=True)

    late = LateSwap(digits)
    failing = Interrupted(late, methods, "registry/digits/", fail, when=late.under_way, once=False)

    with pytest.raises(StorageError, match="whether digits was changed cannot be told"):
        promoted_by_ann(failing)
    late.land()

    assert late.landed is True
    assert told_since(digits, 3) == [("ann", "stable", 3, 4)]


def test_while_an_unheard_swap_may_still_land_a_refusal_does_not_tell_what_becomes_of_it(digits: ObjectStore) -> None:
    def refuse() -> None:
        raise StorageError("the key expired", transient=False)

    late = LateSwap(digits)
    failing = Interrupted(late, WRITES, STATE, refuse, when=late.under_way, once=False)

    with pytest.raises(StorageError, match="the key expired; whether digits was changed cannot be told"):
        promoted_by_ann(failing)


# Readers


def test_a_reader_whose_version_was_collected_meanwhile_reads_the_state_again(digits: ObjectStore) -> None:
    def replace_and_collect() -> None:
        promote(digits, 4)
        Registry(digits).retire("digits", [3], forget=True, origin=_BOB)
        collect(digits, 3)

    front = Interrupted(digits, ("get",), MANIFEST, replace_and_collect)

    assert Registry(front).get(Reference("digits", label="stable")).version == 4


def test_a_reader_whose_label_was_taken_away_meanwhile_is_told_so(digits: ObjectStore) -> None:
    def unlabel_and_collect() -> None:
        Registry(digits).unlabel("digits", "stable", origin=_BOB)
        retire_and_collect(digits, 3)

    front = Interrupted(digits, ("get",), MANIFEST, unlabel_and_collect)

    with pytest.raises(NotFoundError, match="digits has no label 'stable'"):
        Registry(front).get(Reference("digits", label="stable"))


def test_a_reader_of_a_label_whose_version_is_deleted_is_told_what_is_wrong(digits: ObjectStore) -> None:
    digits.delete([paths.manifest("digits", 3)])

    with pytest.raises(FormatError, match="digits@stable names digits:3, which has no manifest"):
        Registry(digits).get(Reference("digits", label="stable"))


def test_the_newest_version_is_found_below_one_that_is_collected_meanwhile(digits: ObjectStore) -> None:
    front = Interrupted(digits, ("get",), f"{MANIFEST}5", lambda: retire_and_collect(digits, 5))

    assert Registry(front).get(Reference("digits")).version == 4


# With real publishers


def test_two_publishers_that_follow_end_at_the_higher_version(store: ObjectStore, tmp_path: Path) -> None:
    registry = Registry(store)
    published: list[ServableVersion] = [publish(registry, tmp_path / name, name)[0] for name in ("a1", "a2")]
    front = Interrupted(store, READS, STATE, lambda: registry.follow(published[1], "stable", origin=_BOB))

    with pytest.raises(ConflictError, match="stays at digits:2"):
        Registry(front).follow(published[0], "stable", origin=_ANN)

    assert registry.get(Reference("digits", label="stable")) == published[1]
    assert registry.verify(published[1]) == []
