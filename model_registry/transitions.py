"""How a model's state may change: the rules, as pure functions.

    1. A label moves only to a version that is committed, not retired, and has every variant of the
       version the label names now: a server that loads such a variant would be left without one.
    2. A transition is made absolute once, from the state its author saw. If the label names another
       version by the time it is applied, it conflicts; it is never aimed anew.
    3. A rollback goes one step back in the label's own past, and is a move like any other: recorded,
       and never a deletion.
    4. A label that follows new versions (`package --label`) never goes below the highest version that it
       ever named: a late packaging, or one that finds an old version again, undoes no rollback.
    5. What a label names or may be rolled back to is not retired, nor what a rollout needs. What is retired is
       deleted later, and its number never comes back.
    6. There is one rollout of a model at a time. As long as it is under way its two labels move by it alone, and it
       goes on only from the very traffic that it was decided on: whoever still acts on another is fenced off. One
       that is paused is resumed or aborted first.

`promote`, `follow`, `roll_back`, `unlabel`, `retire` and `collect` decide, and what is in `rollout_transitions` for a
rollout; `apply` holds the decision against the state that is there when it is written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from enum import Enum

from model_registry.errors import ConflictError, NotFoundError
from model_registry.servable import ServableVersion
from model_registry.state import PAST_STEPS, Past, Record, State, Transition


class Expect(Enum):
    """What a label is expected to name where nobody said."""

    ANYTHING = "anything"


# What leads a label back in its past.
_BACK = frozenset({"rollback", "withdraw", "finish"})

# A version, nothing (None), or whatever it is.
Expected = int | None | Expect


def promote(
    state: State, model: str, version: int, label: str, *, expect: Expected = Expect.ANYTHING
) -> Transition | None:
    """Decides to let a label name a version. Whether that is committed is the caller's to know.

    Args:
        state: As the author saw it.
        model: Its name, for the message.
        version: What the label shall name.
        label: Which label moves.
        expect: What the author believes that the label names.

    Returns:
        The transition; None if the label names the version already.

    Raises:
        ConflictError: If the label names another version than expected, or the version is retired.
    """
    found = _held(state, model, label, expect)
    if found == version:
        return None
    transition = Transition("promote", label, from_version=found, to_version=version)
    _require(state, transition, model)
    return transition


def follow(state: State, model: str, version: int, label: str) -> Transition | None:
    """Decides to let a label name a new version, as `promote` does, unless it ever named a higher one.

    Raises:
        ConflictError: If it did, or the version is retired.
    """
    found = state.labels.get(label)
    if found == version:
        return None
    transition = Transition("follow", label, from_version=found, to_version=version)
    _require(state, transition, model)
    return transition


def roll_back(state: State, model: str, label: str, *, expect: Expected = Expect.ANYTHING) -> Transition:
    """Decides to let a label name the version it named before.

    Raises:
        NotFoundError: If the label names nothing, or named nothing before.
        ConflictError: If it does not name what is expected.
    """
    found = _held(state, model, label, expect)
    if found is None:
        raise no_label(state, model, label)
    past = state.pasts[label].versions
    if not past:
        raise NotFoundError(
            f"{model}@{label} names {model}:{found} and has no past to go back to",
            hint=f"name the version: slipway promote {model}:VERSION {label}",
        )
    return Transition("rollback", label, from_version=found, to_version=past[-1])


def unlabel(state: State, model: str, label: str, *, expect: Expected = Expect.ANYTHING) -> Transition:
    """Decides to take a label away, with its past.

    Raises:
        NotFoundError: If there is no such label.
        ConflictError: If it does not name what is expected.
    """
    found = _held(state, model, label, expect)
    if found is None:
        raise no_label(state, model, label)
    return Transition("unlabel", label, from_version=found)


def retire(state: State, model: str, versions: Collection[int], *, forget: bool = False) -> Transition | None:
    """Decides that no label shall ever name these versions again.

    Args:
        state: As the author saw it.
        model: Its name, for the message.
        versions: Which are retired; those that are already do not matter.
        forget: Whether rollbacks shall pass over them; else one that a label may be rolled back to is refused.

    Returns:
        The transition; None if all of them are retired already.

    Raises:
        ConflictError: If a label needs one of them.
    """
    remaining = tuple(sorted({*versions} - state.retired.keys()))
    if not remaining:
        return None
    transition = Transition("retire", versions=remaining, forget=forget)
    _require(state, transition, model)
    return transition


def collect(state: State, versions: Collection[int]) -> Transition | None:
    """Notes that retired versions were deleted; None if none of them is noted as retired any more."""
    gone = tuple(sorted({*versions} & state.retired.keys()))
    return Transition("collect", versions=gone) if gone else None


def apply(state: State, record: Record, *, model: str) -> State:
    """The state after a transition.

    Args:
        state: The state that is there.
        record: The transition with its author; its revision follows the state's.
        model: Its name, for the message.

    Raises:
        ConflictError: If the state is no longer what the transition needs.
    """
    transition = record.transition
    _require(state, transition, model)
    after = replace(state, revision=record.revision, last_transition=record)
    if transition.traffic:
        after = replace(after, traffic=transition.traffic.after)
    label, to = transition.label, transition.to_version
    if label is None:
        return after if transition.traffic else _without(after, transition, record.revision)
    labels = {name: version for name, version in state.labels.items() if name != label}
    pasts = {name: past for name, past in state.pasts.items() if name != label}
    if to is not None:
        labels[label] = to
        pasts[label] = _past_after(state.pasts.get(label, Past()), transition, to)
    return replace(after, labels=dict(sorted(labels.items())), pasts=dict(sorted(pasts.items())))


def _require(state: State, transition: Transition, model: str) -> None:
    """What must be true of the state in which a transition is made, whoever decided on it, and when."""
    label = transition.label
    _require_traffic(state, transition, model)
    if transition.action == "retire":
        _require_unneeded(state, transition, model)
    if label is None:
        return
    found = state.labels.get(label)
    if found != transition.from_version:
        raise ConflictError(
            f"{model}@{label} was moved meanwhile: expected {_named(model, transition.from_version)}, "
            f"found {_named(model, found)}",
            hint=f"see `slipway history {model}`, and decide anew",
        )
    if transition.action in _BACK and transition.to_version is not None:
        past = state.pasts[label].versions
        if past[-1:] != (transition.to_version,):
            raise ConflictError(
                f"{model}@{label}: its past changed meanwhile: expected {_named(model, transition.to_version)} before "
                f"it, found {_named(model, past[-1] if past else None)}"
            )
    if transition.action == "follow":
        _require_new(state, transition, model)
    if transition.to_version in state.retired:
        raise ConflictError(
            f"{model}:{transition.to_version} is retired: expected a version that is not",
            hint="package its source again for a new version; a retired one does not come back",
        )


def _require_traffic(state: State, transition: Transition, model: str) -> None:
    """Rule 6."""
    there, change = state.traffic, transition.traffic
    if change is None:
        if there and transition.label in (there.stable, there.canary):
            raise ConflictError(
                f"{model}@{transition.label} takes part in a rollout: expected to move it alone, found "
                f"{model}:{there.candidate} on its way from {there.canary} to {there.stable}, with {there.weight} % of "
                "the requests",
                hint=f"`slipway rollout {model} --abort` ends it first",
            )
        return
    if there != change.before:
        if there is None:
            found = "none is under way any more"
        elif change.before is None:
            found = f"one of {model}:{there.candidate} is under way"
        elif there.epoch != change.before.epoch:
            found = f"it was taken up by another run (epoch {there.epoch}, this one is {change.before.epoch})"
        else:
            found = f"it is {'paused' if there.paused else there.phase} at {there.weight} % by now"
        raise ConflictError(
            f"the rollout of {model} was changed meanwhile: {found}{_by(state)}",
            hint=f"see `slipway rollout {model} --status` and `slipway history {model}`",
        )
    if there is None and change.after and change.after.epoch != state.revision + 1:
        # Its epoch would not be above every one before, and stable might name another version by now.
        raise ConflictError(
            f"{model} was changed meanwhile: expected to begin a rollout at revision {change.after.epoch - 1}, found "
            f"revision {state.revision}{_by(state)}",
            hint=f"see `slipway history {model}`, and decide anew",
        )
    if there and there.paused and transition.action != "pause" and not _ends_a_pause(transition):
        raise ConflictError(
            f"the rollout of {model}:{there.candidate} is paused: {there.paused}: expected one that is led on",
            hint=f"`slipway rollout {model} --resume` takes it up, --abort ends it",
        )


def _by(state: State) -> str:
    last = state.last_transition
    return f"; last changed by {last.origin.who}" if last else ""


def _ends_a_pause(transition: Transition) -> bool:
    after = transition.traffic.after if transition.traffic else None
    return transition.action == "resume" or (after is not None and after.outcome == "aborted")


def _require_new(state: State, transition: Transition, model: str) -> None:
    # Asked when it is applied, too: the label may have been at the version and back again meanwhile.
    label, to = transition.label or "", transition.to_version or 0
    highest = state.pasts.get(label, Past()).highest
    if to <= highest:
        raise ConflictError(
            f"{model}@{label} stays at {_named(model, state.labels.get(label))}: expected a version above {highest}, "
            f"the highest it ever named, found {to}",
            hint=f"if this is meant: slipway promote {model}:{to} {label}",
        )


def _require_unneeded(state: State, transition: Transition, model: str) -> None:
    for version in transition.versions:
        if state.traffic and version in state.traffic.versions():
            raise ConflictError(
                f"{model}:{version} cannot be retired: the rollout of {model}:{state.traffic.candidate} needs it",
                hint=f"wait for its end, or end it: slipway rollout {model} --abort",
            )
        if labels := state.labels_of(version):
            raise ConflictError(
                f"{model}:{version} cannot be retired: {', '.join(f'{model}@{label}' for label in labels)} names it",
                hint=f"move the label first: slipway promote {model}:VERSION {labels[0]}",
            )
        into = [label for label, past in state.pasts.items() if version in past.versions]
        if into and not transition.forget:
            raise ConflictError(
                f"{model}:{version} cannot be retired: {', '.join(f'{model}@{label}' for label in into)} may be rolled "
                "back to it",
                hint="with --forget rollbacks pass over it",
            )


def require_variants(target: ServableVersion, holder: ServableVersion, label: str) -> None:
    """Holds a move to the rule on variants.

    Args:
        target: What the label shall name.
        holder: What it names.
        label: Which it is.

    Raises:
        ConflictError: If the target lacks a variant of the holder.
    """
    names = sorted(variant.name for variant in target.variants)
    missing = sorted({variant.name for variant in holder.variants}.difference(names))
    if missing:
        raise ConflictError(
            f"{target.model}@{label}: expected every variant of {target.model}:{holder.version}, and "
            f"{target.model}:{target.version} lacks {', '.join(missing)}; found {', '.join(names)}: servers that load "
            "the missing one would be left without a model",
            hint=f"package the source with --variant {missing[0]}, or take the label away first: slipway unlabel",
        )


def _past_after(past: Past, transition: Transition, to: int) -> Past:
    highest = max(past.highest, to)
    if transition.action in _BACK:
        return Past(past.versions[:-1], highest)
    steps = past.versions if transition.from_version is None else (*past.versions, transition.from_version)
    return Past(steps[-PAST_STEPS:], highest)


def _without(state: State, transition: Transition, revision: int) -> State:
    gone = {*transition.versions}
    if transition.action == "collect":
        return replace(state, retired={number: at for number, at in state.retired.items() if number not in gone})
    pasts = {
        label: replace(past, versions=_steps_without(past.versions, gone, state.labels[label]))
        for label, past in state.pasts.items()
    }
    # Of two that retire a version at once the first one did.
    return replace(state, pasts=pasts, retired=dict(sorted({**dict.fromkeys(gone, revision), **state.retired}.items())))


def _steps_without(steps: tuple[int, ...], gone: set[int], holder: int) -> tuple[int, ...]:
    """A past from which versions are taken out; each step still leads to another version than the one before."""
    remaining = [version for version in steps if version not in gone]
    return tuple(
        version for version, after in zip(remaining, [*remaining, holder][1:], strict=True) if version != after
    )


def no_label(state: State, model: str, label: str) -> NotFoundError:
    """The error for a label that names nothing; the hint tells which labels there are."""
    there = ", ".join(state.labels)
    return NotFoundError(
        f"{model} has no label {label!r}",
        hint=f"its labels: {there}" if there else "`slipway promote` sets one",
    )


def _named(model: str, version: int | None) -> str:
    return "nothing" if version is None else f"{model}:{version}"


def _held(state: State, model: str, label: str, expect: Expected) -> int | None:
    found = state.labels.get(label)
    if expect is not Expect.ANYTHING and expect != found:
        raise ConflictError(
            f"{model}@{label}: expected it to name {_named(model, expect)}, found {_named(model, found)}",
            hint=f"see `slipway history {model}`, and decide anew",
        )
    return found
