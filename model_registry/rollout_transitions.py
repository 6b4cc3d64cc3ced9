"""What a rollout does to the state of a model: the rules, as pure functions.

    1. It begins where none is under way, from the version that stable names, to another one that is not retired.
    2. The candidate gets requests only once its servers have it, more of them step by step, and the next step only
       after it was judged at this one.
    3. Who leads a rollout bears its epoch. To take it up is to count on: whoever led it before is fenced off, since
       each transition holds only against the very traffic that it was decided on.
    4. Stable names the candidate before its requests leave canary, and canary gives its version up only once no
       request goes there.
    5. Anybody may pause, resume or abort it at any time. What was accepted and is aborted goes back.

Each function decides from the state as it was seen; `transitions.apply` holds that against the state that is there.
"""

from __future__ import annotations

from dataclasses import replace

from model_registry.errors import ConflictError, InvalidInputError, NotFoundError
from model_registry.paths import check_label
from model_registry.servable import Run
from model_registry.state import Action, State, TrafficChange, Transition
from model_registry.traffic import Outcome, Plan, Traffic


def begin(
    state: State,
    model: str,
    candidate: int,
    *,
    plan: Plan,
    stable: str = "stable",
    canary: str = "canary",
    run: Run | None = None,
) -> Transition:
    """Decides to begin one. Whether the candidate is committed is the caller's to know.

    Raises:
        InvalidInputError: If the plan or the labels make no sense.
        NotFoundError: If stable names nothing.
        ConflictError: If one is under way, stable names the candidate already, or that is retired.
    """
    if under_way := state.traffic:
        raise ConflictError(
            f"a rollout of {model}:{under_way.candidate} is under way, "
            f"{f'paused: {under_way.paused}' if under_way.paused else under_way.phase}, with {under_way.weight} % of "
            "the requests: expected none",
            hint=f"`slipway rollout {model} --resume` takes it up where it was left, --abort ends it",
        )
    baseline = state.labels.get(stable)
    if baseline is None:
        raise NotFoundError(
            f"{model}@{stable} names nothing: a rollout replaces the version that it names",
            hint=f"for a first version nothing can be compared: slipway promote {model}:{candidate} {stable}",
        )
    if baseline == candidate:
        raise ConflictError(f"{model}@{stable} names {model}:{candidate} already: there is nothing to roll out")
    if candidate in state.retired:
        raise ConflictError(
            f"{model}:{candidate} is retired: expected a version that is not",
            hint="package its source again for a new version; a retired one does not come back",
        )
    before = state.labels.get(canary)
    traffic = Traffic(
        epoch=state.revision + 1,  # above that of every rollout before: each of those counted on by a transition
        stable=check_label(stable),
        canary=check_label(canary),
        baseline=baseline,
        candidate=candidate,
        restore=None if before == candidate else before,
        plan=plan.checked(),
        run=run,
    )
    if wrong := traffic.contradiction():
        raise InvalidInputError(f"this cannot be rolled out: {wrong}")
    change = TrafficChange(None, traffic)
    if before == candidate:
        return Transition("begin", traffic=change)
    return Transition("begin", canary, from_version=before, to_version=candidate, traffic=change)


def shift(traffic: Traffic, step: int, *, until: float | None = None) -> Transition:
    """Decides to give canary the weight of a step; its bake begins once that is seen in force.

    Args:
        traffic: As it is.
        step: Index of a step of the plan.
        until: When that is, in Unix seconds by Prometheus' clock: until then stable had requests to be held against.
    """
    reference = traffic.reference
    if until is not None and traffic.since is not None and traffic.weight < 100:
        reference = (traffic.since, until)
    elif until is not None and traffic.phase == "starting":  # all of them were stable's, for what is known
        reference = (max(0.0, until - traffic.plan.bake), until)
    after = replace(
        traffic,
        step=step,
        weight=traffic.plan.steps[step],
        phase="shifting",
        since=None,
        bakes=traffic.bakes if step == traffic.step else 0,
        reference=reference,
    )
    return _goes_on("shift", traffic, after)


def bake(traffic: Traffic, *, since: float) -> Transition:
    """Notes that the weight is in force at every gateway.

    Args:
        traffic: As it is, shifting.
        since: Unix seconds by Prometheus' clock.
    """
    return _goes_on("bake", traffic, replace(traffic, phase="baking", since=since, bakes=traffic.bakes + 1))


def accept(traffic: Traffic) -> Transition:
    """Decides that stable names the candidate: it was found good at the last step."""
    after = replace(traffic, phase="promoting", since=None, outcome="promoted")
    change = TrafficChange(traffic, after)
    return Transition("accept", traffic.stable, traffic.baseline, traffic.candidate, traffic=change)


def withdraw(traffic: Traffic, outcome: Outcome) -> Transition:
    """Decides that no request goes to canary any more; what was accepted and is not to stay goes back.

    Args:
        traffic: As it is.
        outcome: `promoted`, where stable serves the candidate by now; else why it does not come to that.
    """
    epoch = traffic.epoch + 1 if outcome == "aborted" else traffic.epoch
    gone_on = replace(traffic, paused="", awaits_data=False, since=None)
    after = replace(gone_on, epoch=epoch, weight=0, phase="leaving", outcome=outcome)
    change = TrafficChange(traffic, after)
    if traffic.outcome == "promoted" and outcome != "promoted":
        return Transition("withdraw", traffic.stable, traffic.candidate, traffic.baseline, traffic=change)
    return Transition("withdraw", traffic=change)


def finish(traffic: Traffic) -> Transition:
    """Decides that it is over: canary goes back to what it named before, or away if the candidate is stable's now."""
    to = None if traffic.outcome == "promoted" else traffic.restore
    return Transition("finish", traffic.canary, traffic.candidate, to, traffic=TrafficChange(traffic, None))


def pause(state: State, model: str, why: str, *, awaits_data: bool = False) -> Transition | None:
    """Decides that it stays where it is until somebody resumes it; None if it is paused for that reason.

    Another reason takes the place of the one before: a run that paused itself and waits to go on then does not.

    Args:
        state: As it was seen.
        model: Whose it is.
        why: The reason.
        awaits_data: Whether that is for want of data: then its own run goes on without being told to.

    Raises:
        NotFoundError: If none is under way.
    """
    traffic = under_way(state, model)
    paused = why[:2_000] or "no reason was given"
    same = traffic.paused == paused or traffic.paused.startswith(f"{paused}: ")  # the same one, who says less by now
    if same and traffic.awaits_data == awaits_data:
        return None
    return _goes_on("pause", traffic, replace(traffic, paused=paused, awaits_data=awaits_data))


def resume(state: State, model: str, *, run: Run | None = None) -> Transition:
    """Decides to take it up where it is, paused or not: whoever led it before is fenced off.

    A bake that was paused begins anew: it was for some reason. One whose leader was killed goes on, since Prometheus
    watched meanwhile; but it counts as another one, whose looks have chances of their own.

    Raises:
        NotFoundError: If none is under way.
    """
    traffic = under_way(state, model)
    after = replace(traffic, epoch=traffic.epoch + 1, paused="", awaits_data=False, run=run)
    if traffic.phase == "baking" and traffic.paused:
        after = replace(after, phase="shifting", since=None)
    elif traffic.phase == "baking":
        after = replace(after, bakes=traffic.bakes + 1)
    return _goes_on("resume", traffic, after)


def abort(state: State, model: str) -> Transition | None:
    """Decides that it ends without the candidate; None if that was decided before.

    Raises:
        NotFoundError: If none is under way.
    """
    traffic = under_way(state, model)
    if traffic.phase == "leaving" and traffic.outcome != "promoted":
        return None
    return withdraw(traffic, "aborted")


def under_way(state: State, model: str) -> Traffic:
    """The rollout that is under way.

    Raises:
        NotFoundError: If none is.
    """
    if state.traffic is None:
        raise NotFoundError(
            f"no rollout of {model} is under way",
            hint=f"`slipway rollout {model}:VERSION` begins one; `slipway history {model}` tells of those before",
        )
    return state.traffic


def _goes_on(action: Action, before: Traffic, after: Traffic) -> Transition:
    return Transition(action, traffic=TrafficChange(before, after))
