"""A registry, its fleet, and whoever leads a rollout there; in memory, in a time of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_registry.errors import ConflictError, NotFoundError, StorageError
from model_registry.registry import Registry
from model_registry.rollout.control_loop import Patience
from model_registry.rollout.driver import Driver
from model_registry.rollout.report import RolloutReport
from model_registry.state import Origin, Record
from model_registry.storage.memory import MemoryStore
from model_registry.traffic import Plan, Traffic
from tests.support.drafts import make_draft, make_payload
from tests.support.simulated_fleet import SimulatedFleet

PLAN = Plan(steps=(5, 25, 100), bake=60.0)
ANN, BOB = Origin("ann@build-7"), Origin("bob@laptop", "lunch")


class Store(MemoryStore):
    """One that may be away, or do what it is asked and not say so.

    Attributes:
        away: Whether it fails.
        unmounted: Whether it is empty for who reads.
        unheard: How many writes of a state it makes and does not answer.
        goes_with_the_next_write: Whether it is away once it made the next one.
        before_the_next_write: What somebody else does just before that.
        before_a_read_of: What happens just before a document is read next, by its key.
    """

    away = False
    unmounted = False
    unheard = 0
    goes_with_the_next_write = False
    before_the_next_write: Callable[[], object] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.before_a_read_of: dict[str, Callable[[], object]] = {}

    def get(self, key: str) -> Any:
        if action := self.before_a_read_of.pop(key, None):
            action()
        self._fail()
        if self.unmounted:
            raise NotFoundError(f"{key} does not exist in the registry")
        return super().get(key)

    def put_if_match(self, key: str, data: bytes, etag: str) -> Any:
        self._fail()
        if self.before_the_next_write and key.endswith("state.json"):
            action, self.before_the_next_write = self.before_the_next_write, None
            action()
        if self.unmounted:
            raise ConflictError(f"{key} is not what it was")
        done = super().put_if_match(key, data, etag)
        if self.goes_with_the_next_write and key.endswith("state.json"):
            self.goes_with_the_next_write, self.away = False, True
            self._fail()
        if self.unheard and key.endswith("state.json"):
            self.unheard -= 1
            raise StorageError("the answer was lost", transient=True)
        return done

    def _fail(self) -> None:
        if self.away:
            raise StorageError("the store is away", transient=True)


class Town:
    """A registry with digits 1 to 3, 1 of them stable, and its fleet."""

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self.registry = Registry(self.store)
        for number in (1, 2, 3):
            payload = make_payload(folder / "payload", {"saved_model.pb": b"graph"})
            self.registry.publish(make_draft(identity=f"a{number}"), {"native": payload})
        self.registry.promote("digits", 1, "stable", origin=ANN)
        self.fleet = SimulatedFleet(self.registry)
        self.told: list[Record] = []

    def driver(self, origin: Origin = ANN, **patience: Any) -> Driver:
        clock, sleep = self.fleet.clock, self.fleet.sleep
        told, patience_ = self.told.append, Patience(**patience)
        return Driver(
            self.registry, self.fleet, "digits", origin=origin, patience=patience_, clock=clock, sleep=sleep, told=told
        )

    def begin(self, candidate: int = 2, plan: Plan = PLAN, **patience: Any) -> RolloutReport:
        return self.driver(**patience).begin(candidate, plan)

    @property
    def actions(self) -> list[str]:
        return [record.transition.action for record in reversed(self.registry.history("digits"))]

    @property
    def changes(self) -> list[Traffic]:
        """Each traffic that there was."""
        changes = [record.transition.traffic for record in reversed(self.registry.history("digits"))]
        return [change.after for change in changes if change and change.after]

    @property
    def labels(self) -> dict[str, int]:
        return self.registry.state("digits").labels

    def change(self, decide: Callable[..., Any], origin: Origin = BOB) -> None:
        self.registry.change_traffic("digits", lambda state: decide(state, "digits"), origin=origin, insist=True)

    def until(self, phase: str, action: Callable[[], None], *, step: int = 0, then: float = 0.5) -> None:
        """Does something once the rollout is in a phase of a step."""

        def look() -> None:
            traffic = self.registry.state("digits").traffic
            if traffic and (traffic.phase, traffic.step) == (phase, step) and not traffic.paused:
                self.fleet.after(then, action)
            else:
                self.fleet.after(0.5, look)

        self.fleet.after(0, look)
