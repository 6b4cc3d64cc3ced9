"""The rules at the top of model_registry/transitions.py, one after the other."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry import transitions
from model_registry.errors import ConflictError, NotFoundError
from model_registry.servable import ServableVersion, Variant
from model_registry.state import PAST_STEPS, Origin, Past, Record, State, Transition
from tests.support.drafts import make_draft

_ORIGIN = Origin("ann@build-7")


def made(state: State, transition: Transition | None) -> State:
    """The state after a transition."""
    assert transition is not None
    revision = state.revision + 1
    record = Record(revision, transition, _ORIGIN, "2030-01-01T00:00:00+00:00", f"w{revision}")
    after = transitions.apply(state, record, model="digits")
    # What is stored must be readable again.
    assert State.from_json(after.to_json(), key="key") == after
    return after


def promoted(*versions: int, label: str = "stable", state: State | None = None) -> State:
    """A state in which a label was moved through these versions."""
    state = state or State()
    for version in versions:
        state = made(state, transitions.promote(state, "digits", version, label))
    return state


def rolled_back(state: State, label: str = "stable") -> State:
    return made(state, transitions.roll_back(state, "digits", label))


def retired(state: State, *versions: int, forget: bool = False) -> State:
    return made(state, transitions.retire(state, "digits", versions, forget=forget))


def with_variants(version: int, *names: str) -> ServableVersion:
    return replace(make_draft(), version=version, variants=tuple(Variant(name, ()) for name in names))


# 1. Where a label may move


def test_promote_lets_a_label_name_a_version() -> None:
    state = promoted(1, 2)

    assert state.labels == {"stable": 2}
    assert state.revision == 2
    assert state.last_transition is not None
    assert state.last_transition.transition == Transition("promote", "stable", from_version=1, to_version=2)


def test_promoting_what_the_label_names_already_changes_nothing() -> None:
    assert transitions.promote(promoted(2), "digits", 2, "stable") is None
    assert transitions.follow(promoted(2), "digits", 2, "stable") is None


def test_promote_refuses_a_retired_version() -> None:
    state = retired(promoted(2), 1)

    with pytest.raises(ConflictError, match="digits:1 is retired: expected a version that is not"):
        transitions.promote(state, "digits", 1, "stable")
    with pytest.raises(ConflictError, match="digits:1 is retired"):
        transitions.follow(state, "digits", 1, "canary")


@pytest.mark.parametrize(
    ("target", "holder"),
    [(["native"], ["native"]), (["native", "tensorrt-fp16-sm89"], ["native"]), (["b", "a"], ["a", "b"])],
)
def test_a_label_moves_to_a_version_that_has_every_variant_of_its_holder(target: list[str], holder: list[str]) -> None:
    transitions.require_variants(with_variants(2, *target), with_variants(1, *holder), "stable")


def test_a_label_does_not_move_to_a_version_that_lacks_a_variant_of_its_holder() -> None:
    holder = with_variants(1, "native", "tensorrt-fp16-sm89", "tensorrt-fp16-sm75")

    with pytest.raises(ConflictError) as caught:
        transitions.require_variants(with_variants(2, "native"), holder, "stable")

    assert "expected every variant of digits:1" in caught.value.message
    assert "digits:2 lacks tensorrt-fp16-sm75, tensorrt-fp16-sm89; found native" in caught.value.message
    assert "--variant tensorrt-fp16-sm75" in caught.value.hint


# Expectations, where somebody states one


@pytest.mark.parametrize(
    ("expect", "text"),
    [
        (1, "digits@stable: expected it to name digits:1, found digits:2"),
        (None, "digits@stable: expected it to name nothing, found digits:2"),
    ],
)
def test_a_label_that_names_another_version_than_expected_does_not_move(expect: int | None, text: str) -> None:
    state = promoted(1, 2)

    for decide in (
        lambda: transitions.promote(state, "digits", 3, "stable", expect=expect),
        lambda: transitions.promote(state, "digits", 2, "stable", expect=expect),  # also not to where it is
        lambda: transitions.roll_back(state, "digits", "stable", expect=expect),
        lambda: transitions.unlabel(state, "digits", "stable", expect=expect),
    ):
        with pytest.raises(ConflictError) as caught:
            decide()
        assert caught.value.message == text


def test_a_label_that_does_not_exist_is_not_what_was_expected() -> None:
    with pytest.raises(ConflictError, match="expected it to name digits:1, found nothing"):
        transitions.promote(State(), "digits", 2, "stable", expect=1)


def test_what_is_expected_and_found_moves() -> None:
    state = made(State(), transitions.promote(State(), "digits", 1, "stable", expect=None))
    state = made(state, transitions.promote(state, "digits", 2, "stable", expect=1))
    state = made(state, transitions.roll_back(state, "digits", "stable", expect=2))
    state = made(state, transitions.unlabel(state, "digits", "stable", expect=1))

    assert state.labels == {}


# 2. A transition is absolute


def test_a_transition_holds_in_another_state_where_its_label_is_the_same() -> None:
    seen = promoted(1, 2)
    back = transitions.roll_back(seen, "digits", "stable")

    after = made(retired(promoted(7, label="canary", state=seen), 9), back)

    assert after.labels == {"canary": 7, "stable": 1}
    assert after.retired == {9: 4}
    assert after.revision == 5


@pytest.mark.parametrize(
    ("meanwhile", "found"),
    [
        (lambda state: promoted(3, state=state), "digits:3"),
        (rolled_back, "digits:1"),
        (lambda state: made(state, transitions.unlabel(state, "digits", "stable")), "nothing"),
    ],
)
def test_a_transition_conflicts_where_its_label_was_moved_meanwhile(meanwhile, found: str) -> None:
    seen = promoted(1, 2)
    decided = [
        transitions.promote(seen, "digits", 5, "stable"),
        transitions.roll_back(seen, "digits", "stable"),
        transitions.unlabel(seen, "digits", "stable"),
    ]
    there = meanwhile(seen)

    for transition in decided:
        with pytest.raises(ConflictError) as caught:
            made(there, transition)
        assert caught.value.message == f"digits@stable was moved meanwhile: expected digits:2, found {found}"
        assert "slipway history digits" in caught.value.hint


def test_a_first_promotion_conflicts_where_somebody_else_set_the_label() -> None:
    with pytest.raises(ConflictError, match="expected nothing, found digits:1"):
        made(promoted(1), transitions.promote(State(), "digits", 2, "stable"))


def test_a_move_conflicts_where_its_target_was_retired_meanwhile() -> None:
    seen = promoted(1)

    with pytest.raises(ConflictError, match="digits:2 is retired"):
        made(retired(seen, 2), transitions.promote(seen, "digits", 2, "stable"))


def test_a_retirement_conflicts_where_a_label_came_to_name_its_version_meanwhile() -> None:
    seen = promoted(1)
    transition = transitions.retire(seen, "digits", [2])

    with pytest.raises(ConflictError, match="digits:2 cannot be retired: digits@stable names it"):
        made(promoted(2, state=seen), transition)
    with pytest.raises(ConflictError, match="digits:2 cannot be retired: digits@stable may be rolled back to it"):
        made(promoted(2, 3, state=seen), transition)


def test_a_rollback_conflicts_where_the_past_of_its_label_changed_meanwhile() -> None:
    seen = promoted(1, 2, 3)
    back = transitions.roll_back(seen, "digits", "stable")

    with pytest.raises(ConflictError) as caught:
        made(promoted(4, 3, state=seen), back)
    assert caught.value.message == (
        "digits@stable: its past changed meanwhile: expected digits:2 before it, found digits:4"
    )
    anew = promoted(3, state=made(seen, transitions.unlabel(seen, "digits", "stable")))
    with pytest.raises(ConflictError, match="expected digits:2 before it, found nothing"):
        made(anew, back)
    with pytest.raises(ConflictError, match="expected digits:2 before it, found digits:1"):
        made(retired(seen, 2, forget=True), back)


# 3. Rolling back


def test_rollbacks_walk_back_step_by_step() -> None:
    state = promoted(1, 2, 3)
    named = []
    for _ in range(2):
        state = rolled_back(state)
        named.append(state.labels["stable"])

    assert named == [2, 1]
    with pytest.raises(NotFoundError, match="digits@stable names digits:1 and has no past to go back to"):
        transitions.roll_back(state, "digits", "stable")


def test_a_version_that_was_rolled_back_is_not_gone_back_to() -> None:
    state = promoted(3, state=rolled_back(promoted(1, 2)))

    assert state.labels == {"stable": 3}
    assert rolled_back(state).labels == {"stable": 1}


def test_a_label_has_a_past_of_its_own() -> None:
    state = promoted(5, 6, label="canary", state=promoted(1, 2))

    assert rolled_back(state).labels == {"canary": 6, "stable": 1}
    assert rolled_back(state, "canary").labels == {"canary": 5, "stable": 2}


def test_a_label_that_is_not_there_cannot_be_rolled_back_or_taken_away() -> None:
    with pytest.raises(NotFoundError, match="digits has no label 'canary'") as caught:
        transitions.roll_back(promoted(1), "digits", "canary")
    assert caught.value.hint == "its labels: stable"
    with pytest.raises(NotFoundError, match="digits has no label 'stable'") as caught:
        transitions.unlabel(State(), "digits", "stable")
    assert "slipway promote" in caught.value.hint


def test_a_label_is_taken_away_with_its_past() -> None:
    state = promoted(1, 2)
    state = promoted(3, state=made(state, transitions.unlabel(state, "digits", "stable")))

    assert state.pasts == {"stable": Past((), 3)}


def test_pasts_are_bounded() -> None:
    state = promoted(*range(1, PAST_STEPS + 6))

    assert state.pasts["stable"] == Past(tuple(range(5, PAST_STEPS + 5)), PAST_STEPS + 5)
    assert state.needed() == set(range(5, PAST_STEPS + 6))
    assert retired(state, 4).retired == {4: PAST_STEPS + 6}


# 4. Labels that follow new versions


def test_a_label_follows_to_a_higher_version() -> None:
    state = made(State(), transitions.follow(State(), "digits", 2, "stable"))
    state = made(state, transitions.follow(state, "digits", 3, "stable"))

    assert state.labels == {"stable": 3}
    assert rolled_back(state).labels == {"stable": 2}


def test_a_label_does_not_follow_to_a_lower_version() -> None:
    with pytest.raises(ConflictError) as caught:
        transitions.follow(promoted(3), "digits", 2, "stable")

    assert caught.value.message == (
        "digits@stable stays at digits:3: expected a version above 3, the highest it ever named, found 2"
    )
    assert caught.value.hint == "if this is meant: slipway promote digits:2 stable"


def test_a_late_packaging_does_not_undo_a_rollback() -> None:
    state = rolled_back(promoted(1, 3))

    for late in (2, 3):
        with pytest.raises(ConflictError, match=f"stays at digits:1: expected a version above 3, .* found {late}"):
            transitions.follow(state, "digits", late, "stable")
    assert made(state, transitions.follow(state, "digits", 4, "stable")).labels == {"stable": 4}


def test_the_highest_version_is_remembered_when_it_is_retired() -> None:
    state = retired(rolled_back(promoted(1, 3)), 3)

    with pytest.raises(ConflictError, match="expected a version above 3"):
        transitions.follow(state, "digits", 2, "stable")


def test_people_may_go_where_followers_may_not() -> None:
    assert promoted(2, state=rolled_back(promoted(1, 3))).labels == {"stable": 2}


# 5. Retiring and collecting


def test_what_a_label_names_is_not_retired() -> None:
    state = promoted(1, label="canary", state=promoted(1))

    for forget in (False, True):
        with pytest.raises(ConflictError) as caught:
            transitions.retire(state, "digits", [1], forget=forget)
        assert caught.value.message == "digits:1 cannot be retired: digits@canary, digits@stable names it"
        assert caught.value.hint == "move the label first: slipway promote digits:VERSION canary"


def test_what_a_label_may_be_rolled_back_to_is_retired_only_with_forget() -> None:
    state = promoted(1, 2, 3)

    with pytest.raises(ConflictError, match="digits:2 cannot be retired: digits@stable may be rolled back") as caught:
        transitions.retire(state, "digits", [2])
    assert caught.value.hint == "with --forget rollbacks pass over it"
    state = retired(state, 2, forget=True)
    assert state.pasts == {"stable": Past((1,), 3)}
    assert rolled_back(state).labels == {"stable": 1}


def test_a_rollback_leads_to_another_version_whatever_was_forgotten() -> None:
    state = retired(promoted(1, 2, 1), 2, forget=True)

    with pytest.raises(NotFoundError, match="has no past to go back to"):
        transitions.roll_back(state, "digits", "stable")
    assert rolled_back(retired(promoted(5, 1, 2, 1), 2, forget=True)).labels == {"stable": 5}
    state = rolled_back(retired(promoted(5, 1, 2, 1, 4), 2, forget=True))
    assert state.labels == {"stable": 1}
    assert rolled_back(state).labels == {"stable": 5}


def test_one_version_that_is_needed_keeps_all_from_being_retired() -> None:
    with pytest.raises(ConflictError, match="digits:2 cannot be retired"):
        transitions.retire(promoted(2), "digits", [1, 2, 3])


def test_retiring_what_is_retired_changes_nothing() -> None:
    state = retired(State(), 1, 2)

    assert transitions.retire(state, "digits", [1, 2]) is None
    assert transitions.retire(state, "digits", []) is None
    assert transitions.retire(state, "digits", [3, 1]) == Transition("retire", versions=(3,))


def test_of_two_that_retire_a_version_at_once_the_first_one_did() -> None:
    twice = transitions.retire(State(), "digits", [1])

    assert made(made(State(), twice), twice).retired == {1: 1}


def test_what_was_collected_is_not_noted_as_retired_any_more() -> None:
    state = retired(promoted(9), 1, 2, 3)
    state = made(state, transitions.collect(state, [3, 1, 7]))

    assert state.retired == {2: 2}
    assert state.last_transition is not None
    assert state.last_transition.transition == Transition("collect", versions=(1, 3))
    assert transitions.collect(state, [1, 3]) is None


def test_collecting_twice_at_once_does_no_harm() -> None:
    state = retired(State(), 1, 2)
    transition = transitions.collect(state, [1])

    assert made(made(state, transition), transition).retired == {2: 1}


# All of them together

_MOVES = st.one_of(
    st.tuples(st.sampled_from(["promote", "follow"]), st.sampled_from(["stable", "canary"]), st.integers(1, 6)),
    st.tuples(st.sampled_from(["roll_back", "unlabel"]), st.sampled_from(["stable", "canary"]), st.none()),
    st.tuples(st.sampled_from(["retire", "forget", "collect"]), st.none(), st.integers(1, 6)),
)


def _decided(state: State, action: str, label: str, version: int) -> Transition | None:
    if action in ("promote", "follow"):
        return getattr(transitions, action)(state, "digits", version, label)
    if action in ("roll_back", "unlabel"):
        return getattr(transitions, action)(state, "digits", label)
    if action == "collect":
        return transitions.collect(state, [version])
    return transitions.retire(state, "digits", [version], forget=action == "forget")


@given(st.lists(_MOVES, max_size=40))
def test_whatever_is_done_a_state_keeps_its_rules(moves: list[tuple[str, str, int]]) -> None:
    state = State()
    for action, label, version in moves:
        try:
            transition = _decided(state, action, label, version)
        except (ConflictError, NotFoundError):
            continue
        if transition is None:
            continue
        state = made(state, transition)  # which reads it back, and so proves it free of contradictions
        for name, past in state.pasts.items():
            walk = [*past.versions, state.labels[name]]
            assert all(one != next_one for one, next_one in pairwise(walk))
            assert max(walk) <= past.highest


@given(st.lists(_MOVES, max_size=12), st.lists(_MOVES, max_size=3), _MOVES)
def test_a_decision_holds_in_a_later_state_or_conflicts(before, meanwhile, late) -> None:
    def after(state: State, moves) -> State:
        for move in moves:
            try:
                if transition := _decided(state, *move):
                    state = made(state, transition)
            except (ConflictError, NotFoundError):
                continue
        return state

    seen = after(State(), before)
    there = after(seen, meanwhile)
    with suppress(ConflictError, NotFoundError):
        if transition := _decided(seen, *late):
            made(there, transition)
