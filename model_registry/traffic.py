"""How the requests to a model are shared between two of its labels, and how far a rollout has come. Pure.

It lies in state.json as `traffic` for as long as a rollout is under way. A gateway reads `weight` and the labels; the
rest is what a run needs to go on where another was killed.

    starting    canary names the candidate, and no request goes there yet; its servers load it
    shifting    the weight was set, and is not yet seen in force at every gateway
    baking      it is in force since `since`; the candidate is judged
    promoting   it was found good: stable names it too, whose servers load it
    leaving     no request is to go to canary any more; once none does, its label goes back and the rollout is over
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from model_registry.errors import InvalidInputError
from model_registry.paths import LABEL_PATTERN
from model_registry.servable import Run, Version

Percent = Annotated[int, Field(ge=0, le=100)]
Step = Annotated[int, Field(ge=1, le=100)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Promql = Annotated[str, Field(min_length=1, max_length=4_000)]
Phase = Literal["starting", "shifting", "baking", "promoting", "leaving"]
Outcome = Literal["promoted", "worse", "aborted"]
_Label = Annotated[str, Field(pattern=f"^(?:{LABEL_PATTERN})$")]

STEPS = (5, 25, 100)
BAKE = 600.0


@dataclass(frozen=True)
class Margins:
    """By how much a canary may be worse and still pass.

    Attributes:
        error_rate: A share of the requests: 0.01 is one in a hundred.
        p50: A share of stable's median latency.
        p99: A share of stable's 99th percentile.
    """

    error_rate: Share = 0.01
    p50: Share = 0.25
    p99: Share = 0.5


@dataclass(frozen=True)
class Plan:
    """How a rollout goes, from its beginning to its end.

    Attributes:
        steps: The weights of canary, ascending, in percent.
        bake: Seconds that each is judged for at least.
        margins: What counts as worse.
        checks: PromQL of the operator's own. Each has samples, and none of them is 0, where the candidate is good.
    """

    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=50)] = STEPS
    bake: Seconds = BAKE
    margins: Margins = field(default_factory=Margins)
    checks: Annotated[tuple[Promql, ...], Field(max_length=20)] = ()

    def checked(self) -> Plan:
        """The plan itself, if each of its values is one that a state can hold.

        Raises:
            InvalidInputError: If one is not; every problem is named.
        """
        try:
            return _PLAN.validate_python(asdict(self))
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
            raise InvalidInputError(f"this is no plan of a rollout: {'; '.join(problems)[:1_000]}") from None


_PLAN = TypeAdapter(Plan)


@dataclass(frozen=True)
class Traffic:
    """A rollout under way.

    Attributes:
        epoch: Which run leads it; each that takes it up counts on, and the one before is fenced off.
        stable: The label whose version is to be replaced.
        canary: The label that names the candidate meanwhile.
        baseline: What stable named when the rollout began.
        candidate: What it is to name.
        restore: What canary named before; None for nothing.
        weight: How many percent of the requests go to canary.
        plan: How it goes.
        phase: How far it is; see above.
        step: The index of the step of the plan that is or was tried last.
        since: Since when the weight was seen in force: Unix seconds by Prometheus' clock; None before.
        bakes: How often the bake of this step was begun, this time included.
        reference: From when to when stable had requests during the step before, or for the time of a bake before the
            first one, likewise in Unix seconds: what a step is held against that leaves stable none. None before.
        paused: Why nobody leads it on; empty while somebody does.
        awaits_data: Whether it is paused for want of data: its own run goes on without being told to.
        outcome: How it ends; None before that is known.
        run: The flow run that leads it, if one does.
    """

    epoch: Annotated[int, Field(ge=1)]
    stable: _Label
    canary: _Label
    baseline: Version
    candidate: Version
    restore: Version | None
    plan: Plan
    weight: Percent = 0
    phase: Phase = "starting"
    step: Annotated[int, Field(ge=0)] = 0
    since: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    bakes: Annotated[int, Field(ge=0)] = 0
    reference: tuple[float, float] | None = None
    paused: str = ""
    awaits_data: bool = False
    outcome: Outcome | None = None
    run: Run | None = None

    def versions(self) -> frozenset[int]:
        """Those that it needs, wherever it leads."""
        return frozenset({self.baseline, self.candidate, *([self.restore] if self.restore else [])})

    def contradiction(self) -> str:
        """What cannot be of it; empty where all can."""
        steps = self.plan.steps
        if list(steps) != sorted({*steps}):
            return f"its steps do not ascend: {', '.join(map(str, steps))}"
        if self.stable == self.canary:
            return f"both its labels are {self.stable!r}"
        if self.baseline == self.candidate:
            return f"its candidate is its baseline, version {self.baseline}"
        if self.step >= len(steps):
            return f"it is at step {self.step + 1} of {len(steps)}"
        idle = self.phase in ("starting", "leaving")
        if self.weight != (0 if idle else steps[self.step]):
            return f"its weight is {self.weight} % in phase {self.phase!r} of step {steps[self.step]} %"
        if (self.since is not None) != (self.phase == "baking"):
            return f"`since` is {self.since} in phase {self.phase!r}"
        if self.awaits_data and not self.paused:
            return "it waits for data, and is not paused"
        if (self.outcome is not None) != (self.phase in ("promoting", "leaving")):
            return f"its outcome is {self.outcome} in phase {self.phase!r}"
        return ""
