"""What one look at the registry says to a gateway: the state of each model that the fleet file serves.

One model whose state cannot be read never holds up the others, and never looks as if it had none: only a state that
was read, and is no older than what was read before, changes where requests go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_registry.catalog import Catalog
from model_registry.errors import FormatError, InvalidInputError, SlipwayError, StorageError
from model_registry.parallel import in_parallel
from model_registry.serving.fleet import FleetFile
from model_registry.state import State


@dataclass(frozen=True)
class StatesLook:
    """All models that are routed, or were.

    Attributes:
        states: Those that were read.
        problems: Why others were not, by model.
        unlisted: Those that were known and are not there any more.
        problem: Why the registry as a whole cannot be read; empty if it can.
    """

    states: Mapping[str, State] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    unlisted: frozenset[str] = frozenset()
    problem: str = ""


class RegistryStates:
    """Looks at a registry, again and again."""

    def __init__(self, catalog: Catalog, fleet: FleetFile) -> None:
        """Asks for nothing yet.

        Args:
            catalog: The registry.
            fleet: Which models there are servers for.
        """
        self._catalog = catalog
        self._fleet = fleet
        self._named = frozenset(model for one in fleet.fleets.values() for model in one.models)

    def look(self, known: Mapping[str, int]) -> StatesLook:
        """Reads each model's state.

        Args:
            known: The models that are known already, with the highest revision that was seen of each, or that routes
                follow.
        """
        try:
            listed = self._catalog.models()
        except SlipwayError as error:
            return StatesLook(problem=str(error))
        if known and not listed:  # no model ever leaves it: a disk that is not mounted looks so
            return StatesLook(problem=f"{self._catalog.store.uri} is empty: expected {', '.join(sorted(known))}")
        names = sorted({*(name for name in listed if self.serves(name)), *self._named})
        states: dict[str, State] = {}
        problems: dict[str, str] = {}
        out_of_reach = []
        for name, found in zip(
            names, in_parallel(lambda name: self._read(name, known.get(name, 0)), names), strict=True
        ):
            if isinstance(found, State):
                states[name] = found
            else:
                problems[name] = found[0]
                out_of_reach += [found[0]] if found[1] else []
        problem = out_of_reach[0] if names and len(out_of_reach) == len(names) else ""
        if problem:
            return StatesLook(problem=problem)
        return StatesLook(states, problems, frozenset(known.keys() - {*names}))

    def serves(self, model: str) -> bool:
        """Whether there are servers for a model."""
        return any(fleet.serves(model) for fleet in self._fleet.fleets.values())

    def _read(self, model: str, known: int) -> State | tuple[str, bool]:
        """The state; or why there is none, and whether it was the store that failed."""
        try:
            state = self._catalog.state(model)
        except StorageError as error:
            return str(error), True
        except (FormatError, InvalidInputError) as error:
            return f"its state cannot be read, its routes stay: {error}", False
        if state.revision < known:
            return (
                f"its revision in {self._catalog.store.uri} went backwards: expected {known} or higher, found "
                f"{state.revision}; its routes stay. See who restored an older state"
            ), False
        return state
