"""What TensorFlow Serving 2.17 does with models.config and the versions it names, as far as an agent can tell.

It knows no clock: `poll` and `work` happen when a test lets them. What is kept:

- A poll applies the file as it is then. A label that names a version that is not AVAILABLE rejects the whole file.
- At the start labels are taken as they are (`--allow_version_labels_for_unavailable_models`), and the server answers
  once every version is AVAILABLE. One that cannot be loaded ends the process.
- A version that cannot be loaded in a running server stays listed as END with its error, and is tried again once a
  file without it was polled and then one with it.
- An unloading version that is listed again is unloaded first. A version that is being loaded is loaded to the end.
- While a model that is new to a running server is being loaded, no file is polled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from model_registry.serving.model_config import ServedModel
from model_registry.serving.version_status import VersionStatus

WRONG = "Internal: variables are missing"


@dataclass
class SimulatedServer:
    """One server, which may die and be started again.

    Attributes:
        file: Reads models.config.
        loads: Tells what comes of loading a version of a model: `good`, `bad`, or `crash`, which ends the process.
        running: Whether there is a process.
        ready: Whether it answers.
        aspired: The versions that it is to have, by model.
        states: What it tells of versions, by model.
        labels: What it answers with, by model.
        rejected: The labels for which a file was rejected, and the versions that they were to name: model, label and
            version.
        died_of: The version over which it died; None if it was killed, or runs.
        died_starting: Whether it did so before it ever answered.
        loaded: Every version that was ever AVAILABLE, by model.
    """

    file: Callable[[], tuple[ServedModel, ...]]
    loads: Callable[[str, int], str]
    running: bool = False
    ready: bool = False
    aspired: dict[str, set[int]] = field(default_factory=dict)
    states: dict[str, dict[int, VersionStatus]] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    rejected: list[tuple[str, str, int]] = field(default_factory=list)
    died_of: tuple[str, int] | None = None
    died_starting: bool = False
    loaded: set[tuple[str, int]] = field(default_factory=set)
    _spent: set[tuple[str, int]] = field(default_factory=set)
    _awaited: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Begins with the file as it is."""
        assert not self.running
        self.kill()
        self.running = True
        models = self.file()
        self.aspired = {model.name: {*model.versions} for model in models}
        self.labels = {model.name: dict(model.labels) for model in models}
        self.ready = not models

    def kill(self) -> None:
        """Ends the process."""
        self.running = self.ready = False
        self.aspired, self.states, self.labels = {}, {}, {}
        self.died_of, self.died_starting = None, False
        self._spent, self._awaited = set(), set()

    def poll(self) -> bool:
        """Reads the file, unless the last one is still under way; tells whether it did."""
        self._awaited = {name for name in self._awaited if not self._has_come(name)}
        if not self.ready or self._awaited:
            return False
        models = self.file()
        wrong = [
            (model.name, label, version)
            for model in models
            for label, version in model.labels.items()
            if self._state(model.name, version) != "AVAILABLE"
        ]
        if wrong:
            self.rejected += wrong
            return True
        self.labels = {model.name: dict(model.labels) for model in models}
        listed = {model.name: {*model.versions} for model in models}
        self._awaited = listed.keys() - self.aspired.keys()
        self.aspired = listed
        self._spent = {(name, version) for name, version in self._spent if version in listed.get(name, ())}
        return True

    def work(self, model: str, version: int) -> None:
        """Takes one step with one version, if there is one to take."""
        if not self.running:
            return
        aspired, state = version in self.aspired.get(model, ()), self._state(model, version)
        if state == "END" and aspired and (model, version) not in self._spent:
            self._tell(model, version, "LOADING")
        elif state == "LOADING":
            self._load(model, version)
        elif state == "AVAILABLE" and not aspired:
            self._tell(model, version, "UNLOADING")
        elif state == "UNLOADING":
            self._tell(model, version, "END")
        if self.running and not self.ready:
            self.ready = all(
                self._state(name, number) == "AVAILABLE" for name in self.aspired for number in self.aspired[name]
            )

    def status(self, model: str) -> tuple[VersionStatus, ...]:
        """What it tells of a model's versions."""
        return tuple(status for _, status in sorted(self.states.get(model, {}).items()))

    def answer(self, model: str, label: str) -> int | None:
        """The version that it answers with under a label; None if it does not answer under it."""
        version = self.labels.get(model, {}).get(label)
        return version if version is not None and self._state(model, version) == "AVAILABLE" else None

    def has(self, model: str) -> Mapping[int, str]:
        """The versions that it has, in whatever state."""
        return {status.version: status.state for status in self.status(model) if status.state != "END"}

    def _load(self, model: str, version: int) -> None:
        outcome = self.loads(model, version)
        if outcome == "crash" or (outcome == "bad" and not self.ready):
            starting = not self.ready
            self.kill()
            self.died_of, self.died_starting = (model, version), starting
        elif outcome == "bad":
            self._spent.add((model, version))
            self._tell(model, version, "END", WRONG)
        else:
            self.loaded.add((model, version))
            self._tell(model, version, "AVAILABLE")

    def _has_come(self, model: str) -> bool:
        """Whether one of the versions is AVAILABLE, or none ever will be."""
        versions = self.aspired.get(model, set())
        return any(self._state(model, version) == "AVAILABLE" for version in versions) or all(
            (model, version) in self._spent for version in versions
        )

    def _state(self, model: str, version: int) -> str:
        found = self.states.get(model, {}).get(version)
        return found.state if found else "END"

    def _tell(self, model: str, version: int, state: str, error: str = "") -> None:
        self.states.setdefault(model, {})[version] = VersionStatus(version, state, error)  # type: ignore[arg-type]
