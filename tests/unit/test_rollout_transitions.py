"""The rules at the top of model_registry/rollout_transitions.py, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from model_registry import rollout_transitions as rollouts
from model_registry import transitions
from model_registry.errors import ConflictError, FormatError, InvalidInputError, NotFoundError
from model_registry.servable import Run
from model_registry.state import Origin, Past, Record, State, TrafficChange, Transition
from model_registry.traffic import Margins, Plan, Traffic

PLAN = Plan(steps=(5, 25, 100), bake=60.0)
NOW = 1_800_000_000.0


def made(state: State, transition: Transition | None, *, who: str = "ann@build-7") -> State:
    """The state after a transition."""
    assert transition is not None and transition.complete
    revision = state.revision + 1
    record = Record(revision, transition, Origin(who), "2030-01-01T00:00:00+00:00", f"w{revision}")
    after = transitions.apply(state, record, model="digits")
    # What is stored must be readable again.
    assert State.from_json(after.to_json(), key="key") == after
    assert Record.from_json(record.to_json(), key="key") == record
    return after


def promoted(*versions: int, label: str = "stable", state: State | None = None) -> State:
    state = state or State()
    for version in versions:
        state = made(state, transitions.promote(state, "digits", version, label))
    return state


def begun(candidate: int = 2, state: State | None = None, plan: Plan = PLAN) -> State:
    state = state or promoted(1)
    return made(state, rollouts.begin(state, "digits", candidate, plan=plan))


def traffic_of(state: State) -> Traffic:
    assert state.traffic is not None
    return state.traffic


def shifted(state: State, step: int, *, until: float = NOW) -> State:
    return made(state, rollouts.shift(traffic_of(state), step, until=until))


def baking(state: State, step: int, *, since: float = NOW) -> State:
    return made(shifted(state, step), rollouts.bake(traffic_of(shifted(state, step)), since=since))


def at(phase: str, outcome: str = "promoted", state: State | None = None) -> State:
    """A rollout in a phase."""
    state = state or begun()
    if phase == "starting":
        return state
    if phase == "shifting":
        return shifted(state, 0)
    state = baking(state, 0)
    if phase == "baking":
        return state
    if outcome != "promoted":
        return made(state, rollouts.withdraw(traffic_of(state), outcome))  # type: ignore[arg-type]
    state = made(baking(state, 2), rollouts.accept(traffic_of(baking(state, 2))))
    if phase == "promoting":
        return state
    return made(state, rollouts.withdraw(traffic_of(state), "promoted"))


PHASES = ["starting", "shifting", "baking", "promoting", "leaving"]

# 1. Where one begins


def test_it_begins_with_canary_naming_the_candidate_and_no_requests() -> None:
    state = begun()

    traffic = traffic_of(state)
    assert state.labels == {"canary": 2, "stable": 1}
    assert (traffic.baseline, traffic.candidate, traffic.restore) == (1, 2, None)
    assert (traffic.phase, traffic.weight, traffic.epoch, traffic.outcome) == ("starting", 0, 2, None)


def test_it_remembers_what_canary_named_before() -> None:
    state = begun(3, promoted(2, label="canary", state=promoted(1)))

    assert traffic_of(state).restore == 2
    assert state.pasts["canary"] == Past((2,), 3)


def test_a_canary_that_names_the_candidate_already_does_not_move() -> None:
    state = promoted(2, label="canary", state=promoted(1))

    transition = rollouts.begin(state, "digits", 2, plan=PLAN)

    assert transition.label is None
    assert traffic_of(made(state, transition)).restore is None


def test_each_rollout_has_an_epoch_above_every_one_before() -> None:
    first = at("leaving")
    over = made(
        made(first, rollouts.resume(first, "digits")),
        rollouts.finish(traffic_of(made(first, rollouts.resume(first, "digits")))),
    )

    second = begun(3, over)

    assert traffic_of(second).epoch > traffic_of(first).epoch + 1


def test_a_second_one_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConflictError, match=r"a rollout of digits:2 is under way, starting, with 0 %") as caught:
        rollouts.begin(begun(), "digits", 3, plan=PLAN)

    assert "--resume" in (caught.value.hint or "") and "--abort" in (caught.value.hint or "")


def test_a_second_one_is_refused_with_why_the_first_is_paused() -> None:
    state = made(begun(), rollouts.pause(begun(), "digits", "no data"))

    with pytest.raises(ConflictError, match="under way, paused: no data"):
        rollouts.begin(state, "digits", 2, plan=PLAN)


def test_nothing_is_rolled_out_where_stable_names_nothing() -> None:
    with pytest.raises(NotFoundError, match="digits@stable names nothing") as caught:
        rollouts.begin(State(), "digits", 1, plan=PLAN)

    assert caught.value.hint and "slipway promote digits:1 stable" in caught.value.hint


def test_what_stable_names_already_is_not_rolled_out() -> None:
    with pytest.raises(ConflictError, match="digits@stable names digits:1 already"):
        rollouts.begin(promoted(1), "digits", 1, plan=PLAN)


def test_a_retired_version_is_not_rolled_out() -> None:
    state = promoted(1)
    state = made(state, transitions.retire(state, "digits", [2]))

    with pytest.raises(ConflictError, match="digits:2 is retired"):
        rollouts.begin(state, "digits", 2, plan=PLAN)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: transitions.promote(state, "digits", 3, "stable"),  # another baseline
        lambda state: transitions.promote(state, "digits", 2, "canary"),
        lambda state: transitions.retire(state, "digits", [2]),
        lambda state: transitions.promote(state, "digits", 3, "gpu"),  # its epoch is not the highest any more
    ],
)
@pytest.mark.parametrize("canary", [[], [2]], ids=["canary names nothing", "canary names the candidate"])
def test_it_begins_only_where_nothing_was_changed_since_it_was_decided(
    change: Callable[[State], Transition | None], canary: list[int]
) -> None:
    seen = promoted(*canary, label="canary", state=promoted(1))
    begin = rollouts.begin(seen, "digits", 2, plan=PLAN)
    try:
        transition = change(seen)
    except ConflictError:  # what canary names is not retired
        transition = None
    meanwhile = made(seen, transition or transitions.promote(seen, "digits", 3, "cpu"), who="bob@laptop")

    with pytest.raises(ConflictError, match=r"digits was changed meanwhile: .*; last changed by bob@laptop"):
        made(meanwhile, begin)


@pytest.mark.parametrize(
    ("plan", "labels", "text"),
    [
        (Plan(steps=(25, 5)), {}, "its steps do not ascend: 25, 5"),
        (Plan(steps=(5, 5)), {}, "its steps do not ascend"),
        (Plan(steps=()), {}, "steps: "),
        (Plan(steps=(0, 50)), {}, "steps.0: "),
        (Plan(steps=(50, 101)), {}, "steps.1: "),
        (Plan(bake=0), {}, "bake: "),
        (Plan(bake=float("inf")), {}, "bake: "),
        (Plan(margins=Margins(p50=-0.1)), {}, "margins.p50: "),
        (Plan(margins=Margins(error_rate=float("nan"))), {}, "margins.error_rate: "),
        (Plan(checks=("",)), {}, "checks.0: "),
        (Plan(checks=("up",) * 21), {}, "checks: "),
        (PLAN, {"canary": "stable"}, "both its labels are 'stable'"),
        (PLAN, {"canary": "Not a label"}, "'Not a label'"),
    ],
)
def test_a_plan_that_makes_no_sense_begins_nothing(plan: Plan, labels: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        rollouts.begin(promoted(1), "digits", 2, plan=plan, **labels)

    assert text in caught.value.message


# 2. More requests step by step


def test_it_goes_through_its_steps() -> None:
    state = begun()
    for step, weight in enumerate(PLAN.steps):
        state = shifted(state, step)
        assert (traffic_of(state).weight, traffic_of(state).phase, traffic_of(state).since) == (
            weight,
            "shifting",
            None,
        )
        state = made(state, rollouts.bake(traffic_of(state), since=NOW + step))
        assert (traffic_of(state).phase, traffic_of(state).since, traffic_of(state).bakes) == ("baking", NOW + step, 1)


def test_what_the_last_step_is_held_against_is_the_time_of_the_step_before() -> None:
    state = baking(begun(), 1, since=NOW)

    state = shifted(state, 2, until=NOW + 70)

    assert traffic_of(state).reference == (NOW, NOW + 70)


def test_what_a_single_step_is_held_against_is_the_time_of_a_bake_before_it() -> None:
    state = shifted(begun(plan=replace(PLAN, steps=(100,))), 0, until=NOW)

    assert traffic_of(state).reference == (NOW - 60, NOW)


def test_a_bake_at_all_requests_is_no_reference() -> None:
    state = baking(baking(begun(), 1), 2)
    paused = made(state, rollouts.pause(state, "digits", "no data"))
    resumed = made(paused, rollouts.resume(paused, "digits"))

    assert traffic_of(resumed).reference == traffic_of(state).reference != None  # noqa: E711


def test_bakes_are_counted_for_each_step() -> None:
    state = baking(begun(), 0)
    paused = made(state, rollouts.pause(state, "digits", "no data"))
    resumed = made(paused, rollouts.resume(paused, "digits"))
    again = made(resumed, rollouts.bake(traffic_of(resumed), since=NOW + 200))

    assert traffic_of(again).bakes == 2
    assert traffic_of(shifted(again, 1)).bakes == 0


# 3. The epoch fences


@pytest.mark.parametrize("phase", PHASES)
def test_to_take_it_up_fences_off_whoever_led_it(phase: str) -> None:
    seen = at(phase)
    stale = {
        "starting": lambda: rollouts.shift(traffic_of(seen), 0),
        "shifting": lambda: rollouts.bake(traffic_of(seen), since=NOW),
        "baking": lambda: rollouts.shift(traffic_of(seen), 1),
        "promoting": lambda: rollouts.withdraw(traffic_of(seen), "promoted"),
        "leaving": lambda: rollouts.finish(traffic_of(seen)),
    }[phase]()
    taken = made(seen, rollouts.resume(seen, "digits"), who="bob@laptop")

    with pytest.raises(ConflictError) as caught:
        made(taken, stale)

    epoch = traffic_of(seen).epoch
    assert f"taken up by another run (epoch {epoch + 1}, this one is {epoch})" in caught.value.message
    assert "last changed by bob@laptop" in caught.value.message


def test_a_transition_holds_only_against_the_traffic_that_it_was_decided_on() -> None:
    seen = at("baking")
    paused = made(seen, rollouts.pause(seen, "digits", "lunch"))
    over = made(at("leaving"), rollouts.finish(traffic_of(at("leaving"))))

    with pytest.raises(ConflictError, match="it is paused at 5 % by now"):
        made(paused, rollouts.shift(traffic_of(seen), 1))
    with pytest.raises(ConflictError, match="it is shifting at 25 % by now"):
        made(shifted(seen, 1), rollouts.shift(traffic_of(seen), 1))
    with pytest.raises(ConflictError, match="none is under way any more"):
        made(over, rollouts.shift(traffic_of(seen), 1))
    with pytest.raises(ConflictError, match="one of digits:2 is under way"):
        made(seen, rollouts.begin(promoted(1), "digits", 3, plan=PLAN))


def test_to_resume_notes_who_leads_it_now() -> None:
    run = Run("7e57", "quiet-otter")

    state = made(at("baking"), rollouts.resume(at("baking"), "digits", run=run))

    assert (traffic_of(state).run, traffic_of(state).phase) == (run, "baking")  # it was not paused, and goes on


# 4. Stable first, then the requests, then canary


def test_stable_names_the_candidate_before_its_requests_leave_canary() -> None:
    state = at("promoting")

    assert state.labels == {"canary": 2, "stable": 2}
    assert (traffic_of(state).weight, traffic_of(state).outcome) == (100, "promoted")


def test_a_promoted_candidate_leaves_no_canary() -> None:
    state = at("leaving")

    over = made(state, rollouts.finish(traffic_of(state)))

    assert (over.labels, over.traffic) == ({"stable": 2}, None)
    assert over.pasts == {"stable": Past((1,), 2)}


def test_a_worse_candidate_leaves_canary_to_what_it_named_before() -> None:
    state = at("leaving", "worse", begun(3, promoted(2, label="canary", state=promoted(1))))

    over = made(state, rollouts.finish(traffic_of(state)))

    assert over.labels == {"canary": 2, "stable": 1}
    assert over.pasts["canary"] == Past((), 3)


def test_a_worse_candidate_takes_canary_along_where_it_named_nothing() -> None:
    state = at("leaving", "worse")

    assert made(state, rollouts.finish(traffic_of(state))).labels == {"stable": 1}


# 5. Pause, resume, abort


@pytest.mark.parametrize("phase", PHASES)
def test_it_can_be_paused_and_resumed_at_any_time(phase: str) -> None:
    state = at(phase)

    paused = made(state, rollouts.pause(state, "digits", "lunch"))
    assert rollouts.pause(paused, "digits", "lunch") is None
    resumed = made(paused, rollouts.resume(paused, "digits"))

    assert traffic_of(paused) == replace(traffic_of(state), paused="lunch")
    assert (traffic_of(resumed).paused, traffic_of(resumed).epoch) == ("", traffic_of(state).epoch + 1)
    assert traffic_of(resumed).phase == ("shifting" if phase == "baking" else phase)  # nobody watched meanwhile
    assert traffic_of(resumed).weight == traffic_of(state).weight


def test_a_persons_pause_takes_the_place_of_the_runs_own() -> None:
    paused = made(at("baking"), rollouts.pause(at("baking"), "digits", "no data for 180 s", awaits_data=True))
    assert traffic_of(paused).awaits_data

    by_bob = made(paused, rollouts.pause(paused, "digits", "by bob: stop"))

    assert traffic_of(by_bob) == replace(traffic_of(paused), paused="by bob: stop", awaits_data=False)
    assert rollouts.pause(by_bob, "digits", "by bob") is None  # nothing that he did not say
    with pytest.raises(ConflictError, match="it is paused at 5 % by now"):
        made(by_bob, rollouts.resume(paused, "digits"))  # what the run decides once there are data again


def test_a_bake_that_is_taken_up_has_looks_of_its_own_and_keeps_its_time() -> None:
    state = at("baking")

    taken = made(state, rollouts.resume(state, "digits"))

    assert traffic_of(taken) == replace(traffic_of(state), epoch=traffic_of(state).epoch + 1, bakes=2)


def test_a_pause_without_a_reason_says_so() -> None:
    assert traffic_of(made(begun(), rollouts.pause(begun(), "digits", ""))).paused == "no reason was given"


@pytest.mark.parametrize("phase", PHASES)
def test_it_can_be_aborted_at_any_time(phase: str) -> None:
    state = at(phase)

    aborted = made(state, rollouts.abort(state, "digits"))
    over = made(aborted, rollouts.finish(traffic_of(aborted)))

    traffic = traffic_of(aborted)
    assert (traffic.phase, traffic.weight, traffic.outcome) == ("leaving", 0, "aborted")
    assert traffic.epoch == traffic_of(state).epoch + 1
    assert aborted.labels == {"canary": 2, "stable": 1}
    assert over.labels == {"stable": 1}
    assert over.pasts["stable"].versions == ()


def test_a_paused_one_can_be_aborted() -> None:
    paused = made(at("baking"), rollouts.pause(at("baking"), "digits", "lunch"))

    assert traffic_of(made(paused, rollouts.abort(paused, "digits"))).paused == ""


@pytest.mark.parametrize("outcome", ["worse", "aborted"])
def test_what_is_withdrawn_already_is_not_aborted_again(outcome: str) -> None:
    assert rollouts.abort(at("leaving", outcome), "digits") is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda state: rollouts.pause(state, "digits", "why"),
        lambda state: rollouts.resume(state, "digits"),
        lambda state: rollouts.abort(state, "digits"),
        lambda state: rollouts.under_way(state, "digits"),
    ],
)
def test_there_must_be_one_to_be_paused_resumed_or_aborted(ask: Callable[[State], object]) -> None:
    with pytest.raises(NotFoundError, match="no rollout of digits is under way"):
        ask(promoted(1))


@pytest.mark.parametrize("phase", PHASES)
def test_a_paused_one_is_not_led_on(phase: str) -> None:
    paused = made(at(phase), rollouts.pause(at(phase), "digits", "lunch"))
    traffic = traffic_of(paused)
    on = {
        "starting": lambda: rollouts.shift(traffic, 0),
        "shifting": lambda: rollouts.bake(traffic, since=NOW),
        "baking": lambda: rollouts.withdraw(traffic, "worse"),
        "promoting": lambda: rollouts.withdraw(traffic, "promoted"),
        "leaving": lambda: rollouts.finish(traffic),
    }[phase]()

    with pytest.raises(ConflictError, match="the rollout of digits:2 is paused: lunch") as caught:
        made(paused, on)
    assert "--resume" in (caught.value.hint or "")


# Rule 6 of transitions: nothing else moves its labels, or retires what it needs


@pytest.mark.parametrize("phase", PHASES)
def test_its_labels_move_by_it_alone(phase: str) -> None:
    state = at(phase, state=begun(4, promoted(2, 1)))
    decisions: list[Callable[[], Transition | None]] = [
        lambda: transitions.promote(state, "digits", 5, "stable"),
        lambda: transitions.promote(state, "digits", 5, "canary"),
        lambda: transitions.follow(state, "digits", 5, "stable"),
        lambda: transitions.roll_back(state, "digits", "stable"),
        lambda: transitions.unlabel(state, "digits", "canary"),
    ]
    for decide in decisions:
        with pytest.raises(ConflictError, match="takes part in a rollout: expected to move it alone") as caught:
            made(state, decide())
        assert "slipway rollout digits --abort" in (caught.value.hint or "")


def test_other_labels_move_beside_it() -> None:
    state = promoted(7, label="gpu", state=at("baking"))

    assert traffic_of(state) == traffic_of(at("baking"))
    assert made(state, rollouts.shift(traffic_of(state), 1)).labels == {"canary": 2, "gpu": 7, "stable": 1}


def test_what_it_needs_is_not_retired() -> None:
    state = begun(3, promoted(2, label="canary", state=promoted(1)))

    with pytest.raises(ConflictError, match="digits:2 cannot be retired: the rollout of digits:3 needs it"):
        transitions.retire(state, "digits", [2], forget=True)
    assert {1, 2, 3} <= state.needed()


# What a document may say


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"plan": Plan(steps=(25, 5))}, "its steps do not ascend: 25, 5"),
        ({"canary": "stable"}, "both its labels are 'stable'"),
        ({"candidate": 1}, "its candidate is its baseline, version 1"),
        ({"step": 3}, "it is at step 4 of 3"),
        ({"weight": 25}, "its weight is 25 % in phase 'baking' of step 5 %"),
        ({"phase": "starting"}, "its weight is 5 % in phase 'starting'"),
        ({"since": None}, "`since` is None in phase 'baking'"),
        ({"phase": "shifting"}, "`since` is"),
        ({"awaits_data": True}, "it waits for data, and is not paused"),
        ({"outcome": "worse"}, "its outcome is worse in phase 'baking'"),
        ({"phase": "leaving", "weight": 0, "since": None}, "its outcome is None in phase 'leaving'"),
    ],
)
def test_a_traffic_that_contradicts_itself_is_told(changes: dict[str, object], text: str) -> None:
    state = at("baking")
    assert traffic_of(state).contradiction() == ""

    wrong = replace(traffic_of(state), **changes)  # type: ignore[arg-type]

    assert text in wrong.contradiction()
    with pytest.raises(FormatError, match="key contradicts itself: of its traffic: "):
        State.from_json(replace(state, traffic=wrong).to_json(), key="key")


@pytest.mark.parametrize(
    ("phase", "labels", "text"),
    [
        ("baking", {"stable": 2, "canary": 2}, "label 'stable' names 2, expected 1"),
        ("promoting", {"stable": 1, "canary": 2}, "label 'stable' names 1, expected 2"),
        ("baking", {"stable": 1, "canary": 1}, "label 'canary' names 1, expected 2"),
    ],
)
def test_a_state_whose_labels_name_something_else_is_refused(phase: str, labels: dict[str, int], text: str) -> None:
    wrong = replace(at(phase), labels=labels)

    with pytest.raises(FormatError, match=text):
        State.from_json(wrong.to_json(), key="key")


def test_a_state_without_the_labels_of_its_rollout_is_refused() -> None:
    wrong = replace(at("baking"), labels={"stable": 1}, pasts={"stable": Past((), 1)})

    with pytest.raises(FormatError, match="label 'canary' names None, expected 2"):
        State.from_json(wrong.to_json(), key="key")


def test_a_state_that_retired_what_its_rollout_needs_is_refused() -> None:
    state = begun(3, promoted(2, label="canary", state=promoted(1)))
    past = {**state.pasts, "canary": Past((), 3)}

    with pytest.raises(FormatError, match="version 2 is retired"):
        State.from_json(replace(state, pasts=past, retired={2: 1}).to_json(), key="key")


def test_a_transition_says_what_its_action_needs_and_nothing_else() -> None:
    before, after = traffic_of(at("starting")), traffic_of(at("shifting"))
    both = TrafficChange(before, after)
    complete = [
        Transition("shift", traffic=both),
        Transition("begin", "canary", None, 2, traffic=TrafficChange(None, before)),
        Transition("begin", traffic=TrafficChange(None, before)),
        Transition("accept", "stable", 1, 2, traffic=both),
        Transition("withdraw", traffic=both),
        Transition("withdraw", "stable", 2, 1, traffic=both),
        Transition("finish", "canary", 2, None, traffic=TrafficChange(before, None)),
    ]
    incomplete = [
        Transition("shift"),
        Transition("shift", traffic=TrafficChange(None, None)),
        Transition("shift", traffic=TrafficChange(None, after)),
        Transition("shift", traffic=TrafficChange(before, None)),
        Transition("shift", "canary", 1, 2, traffic=both),
        Transition("shift", versions=(1,), traffic=both),
        Transition("shift", forget=True, traffic=both),
        Transition("shift", to_version=2, traffic=both),
        Transition("begin", "canary", None, 2, traffic=both),
        Transition("begin", "stable", 1, 2, traffic=TrafficChange(None, before)),
        Transition("begin", "gpu", None, 2, traffic=TrafficChange(None, before)),
        Transition("accept", traffic=both),
        Transition("accept", "canary", 1, 2, traffic=both),
        Transition("accept", "gpu", 1, 2, traffic=both),
        Transition("finish", traffic=TrafficChange(before, None)),
        Transition("finish", "canary", 2, 2, traffic=TrafficChange(before, None)),
        Transition("finish", "canary", 2, None, traffic=both),
        Transition("promote", "stable", 1, 2, traffic=both),
        Transition("retire", versions=(1,), traffic=both),
    ]
    assert [transition.complete for transition in complete] == [True] * len(complete)
    assert [transition.complete for transition in incomplete] == [False] * len(incomplete)
