"""What a gateway's agent has learned from the registry: the states that routes are to follow, and whether it may write.

An agent that remembers nothing knows nothing until it has read the registry. Where routes are there all the same,
somebody removed the memory alone: they stay as they are until the state of every model that they follow has been read
again, or one state that cannot be read would take its model's routes away.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model_registry.serving.gateway.envoy_resources import ROUTES_FILE
from model_registry.serving.gateway.registry_states import StatesLook
from model_registry.serving.gateway.turnover import essence
from model_registry.state import State


class Wanted:
    """What is wanted, as far as it was read.

    Attributes:
        states: By model.
        unread: Why models could not be read: their state is the one before, or none.
        may_write: Whether anything is known at all.
    """

    def __init__(
        self, remembered: Mapping[str, State] | None, routed: Mapping[str, int] | None, *, uri: str, directory: Path
    ) -> None:
        """Begins.

        Args:
            remembered: The states that routes followed when an agent ran here last; None if nothing is remembered.
            routed: Without those, the revision that each model's routes follow; None if there are no routes.
            uri: Of the registry.
            directory: The agent's own.
        """
        self.states: dict[str, State] = dict(remembered or {})
        self.unread: dict[str, str] = {}
        self.may_write = remembered is not None
        self._uri, self._directory = uri, directory
        self._blind = routed is not None
        # Only a state with labels makes a route, and its revision is 1 at least: one of 0 was lost.
        self._unknown = {name: max(revision, 1) for name, revision in (routed or {}).items()}

    @property
    def known(self) -> dict[str, int]:
        """The models that are known, with the highest revision that was seen of each."""
        return self._unknown | {name: state.revision for name, state in self.states.items()}

    @property
    def blindness(self) -> str:
        """Why nothing may be written yet; empty if it may."""
        if not self._blind:
            return ""
        left = [f"{name} of revision {self._unknown[name]}" for name in sorted({*self._unknown} - {*self.states})]
        lacking = f"; not yet {', '.join(left)} or higher" if left else ""
        return (
            f"{ROUTES_FILE} is there, and what the agent remembers of it is not: it stays as it is until the state of "
            f"every model has been read{lacking}"
        )

    def take(self, look: StatesLook) -> None:
        """Learns what a look at the registry said; of one that failed as a whole, nothing."""
        if look.problem:
            return
        self.states |= {name: essence(state) for name, state in look.states.items()}
        self.unread = dict(look.problems)
        for name in look.unlisted:
            if name in self._unknown or self.states.get(name, State()).labels:
                self.unread[name] = (
                    f"{self._uri} does not list it any more: its routes stay; restore it there, or end this agent and "
                    f"remove {self._directory}"
                )
            else:
                self.states.pop(name, None)
        self.may_write = True
        if not look.problems and self._unknown.keys() <= look.states.keys():
            self._blind, self._unknown = False, {}
