"""One model as an agent follows it, between two looks: what the registry, the disk and the server said of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from model_registry.servable import Variant
from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync import reconciling
from model_registry.serving.sync.registry_view import ModelLook
from model_registry.serving.sync.sync_report import ModelReport, VersionReport
from model_registry.serving.sync.sync_settings import SyncSettings
from model_registry.serving.sync.sync_state import Decision, Loading, Progress, Remembered, Seen, Settings
from model_registry.serving.version_status import VersionStatus

_IN_SERVER = ("START", "LOADING", "AVAILABLE", "UNLOADING")


@dataclass
class FollowedModel:
    """One model.

    Attributes:
        name: Its name.
        followed: Whether the registry has it, as far as is known, and it is to be followed.
        config: Its part of models.config as it lies on the disk.
        remembered: What was AVAILABLE, and what failed.
        progress: Of what is under way.
        look: What the registry said of it when it was read well last.
        problem: Why it could not be read since; empty if it could.
        here: What lies on the disk.
        server: What the server said of its versions; None where it was silent.
        decision: What was decided last, and written down.
        keep: The versions whose directories were to stay at the last look, written down or not; None before the first.
        answers: The version that the server answers with under each label.
        counted_on: The labels under which the server is to answer for as long as they are wanted: it did before, or
            models.config named them when the agent began.
    """

    name: str
    followed: bool = True
    config: ServedModel | None = None
    remembered: Remembered = field(default_factory=Remembered)
    progress: Progress = field(default_factory=Progress)
    look: ModelLook = field(default_factory=ModelLook)
    problem: str = ""
    here: Mapping[int, Variant] = field(default_factory=dict)
    server: tuple[VersionStatus, ...] | None = None
    decision: Decision | None = None
    keep: frozenset[int] | None = None
    answers: Mapping[str, int] = field(default_factory=dict)
    counted_on: frozenset[str] = frozenset()

    @property
    def matters(self) -> bool:
        """Whether the server has it, or is to have it: then it takes more than silence to let it go."""
        return self.config is not None or bool(self.remembered.labels or self.look.wanted)

    @property
    def is_over(self) -> bool:
        """Whether nobody follows it, and nothing of it is left."""
        return not (self.followed or self.matters or self.here)

    @property
    def asks(self) -> frozenset[str]:
        """The labels whose answer the next decision needs: the first one knows of none, and needs those of the file."""
        if self.decision:
            return self.decision.ask
        return frozenset(self.config.labels if self.config else ())

    def take(self, look: ModelLook, *, out_of_reach: bool) -> None:
        """Notes what the registry says. What was read well stands until something newer is.

        Args:
            look: At this model.
            out_of_reach: Whether the registry as a whole could not be read: that is told once, not of each model.
        """
        self.followed = look.listed or self.matters
        if not self.followed:  # it only lies here
            look = ModelLook(self.remembered.revision, wanted={})
        self.problem = "" if out_of_reach else look.problem
        if look.wanted is not None:
            self.look = look

    def decide(
        self,
        answered: Mapping[str, int],
        elsewhere: Loading,
        now: float,
        settings: SyncSettings,
        *,
        gone: bool,
        first: bool,
    ) -> Decision:
        """What is to be done, by what was seen.

        Args:
            answered: The version that answered under each label that was asked for.
            elsewhere: What the server is loading for other models.
            now: Monotonic seconds.
            settings: The agent's.
            gone: Whether a server that does not answer has ended.
            first: Whether no version of any model was ever AVAILABLE here.
        """
        listed = self.config.versions if self.config else ()
        wanted = self.look.wanted
        coming = {*(wanted or {}).values()} - {*listed}
        seen = Seen(
            wanted=wanted,
            revision=self.look.revision,
            here=frozenset(
                version
                for version, variant in self.here.items()
                if version in listed or self.is_right(version, variant, settings)
            ),
            server=self.server,
            answered=answered,
            now=now,
            elsewhere=elsewhere,
            gone=gone,
            first=first,
        )
        rules = Settings(
            settle=settings.settle,
            drain=settings.drain,
            load_timeout=settings.load_timeout,
            stagger=max((settings.turn(self.name, version) for version in coming), default=0.0),
        )
        path = settings.model_path(self.name)
        decision = reconciling.decide(
            self.config, self.remembered, self.progress, seen, rules, name=self.name, base_path=path
        )
        self.keep = decision.keep | {*self.remembered.labels.values()}
        self.answers = decision.serving
        self.counted_on |= self.answers.keys()
        if wanted is not None:
            self.counted_on &= wanted.keys()
        return decision

    def is_right(self, version: int, variant: Variant, settings: SyncSettings) -> bool:
        """Whether what lies under a version's number is what would be brought there today."""
        today = self.look.variants.get(version)
        return same(variant, today) if today else variant.name in settings.variants

    def adopt(self, decision: Decision) -> None:
        """Notes that a decision was written down."""
        self.config, self.remembered, self.progress = decision.config, decision.remembered, decision.progress
        self.decision = decision

    def retry(self, version: int) -> None:
        """Lets a version that failed to load be tried again."""
        self.remembered, self.progress = reconciling.retry(self.remembered, self.progress, version)

    def to_bring(self) -> dict[int, Variant]:
        """The versions that are wanted and not here, and what to bring of them."""
        versions = self.decision.fetch if self.decision else ()
        return {version: self.look.variants[version] for version in versions if version in self.look.variants}

    def in_use(self, version: int) -> bool:
        """Whether the server may have a version loaded, or load it at any moment. One that is silent is not there."""
        if self.server is None:
            return False
        listed = self.config is not None and version in self.config.versions
        return listed or any(one.version == version and one.state in _IN_SERVER for one in self.server)

    def unneeded(self) -> frozenset[int]:
        """The versions on the disk that no models.config names, no server has and no label wants."""
        wanted = self.look.wanted
        if wanted is None or self.problem or self.keep is None:
            return frozenset()
        needed = {*self.keep, *wanted.values(), *(self.config.versions if self.config else ())}
        return frozenset(version for version in self.here if version not in needed and not self.in_use(version))

    def report(self, running: Mapping[int, str], failures: Mapping[int, str], *, disk_problem: str = "") -> ModelReport:
        """How it stands.

        Args:
            running: The versions that are being downloaded, and which variant of each.
            failures: Those whose download failed, and why.
            disk_problem: What of it could not be looked at or removed.
        """
        return ModelReport(
            revision=max(self.look.revision, self.remembered.revision),
            wanted=dict(self.look.wanted or {}),
            serving=dict(self.answers),
            versions=tuple(self._told(one, running, failures) for one in self.decision.versions)
            if self.decision
            else (),
            problem=self.problem,
            disk_problem=disk_problem,
        )

    def _told(self, one: VersionReport, running: Mapping[int, str], failures: Mapping[int, str]) -> VersionReport:
        """A version's report, with what only the disk and the registry know."""
        if self.config and one.version in self.config.versions and one.version in self.here:
            return self._held_against_the_registry(one, self.here[one.version])
        if one.version in self.here and one.version not in running and one.state != "WAITING":
            return replace(one, variant=self.here[one.version].name)
        if one.version in running:
            return replace(one, state="DOWNLOADING", variant=running[one.version])
        why = self.look.refused.get(one.version) or failures.get(one.version, "")
        return replace(one, state="FAILED", why=why) if why and one.state == "WAITING" else one

    def _held_against_the_registry(self, one: VersionReport, lying: Variant) -> VersionReport:
        """The report of a version that the server may have loaded: so it is not replaced, whatever it is.

        Another variant of the version is what the label names all the same; other bytes are not.
        """
        one, today = replace(one, variant=lying.name), self.look.variants.get(one.version)
        published = self.look.published.get(one.version, (lying,))
        differs = not any(same(lying, variant) for variant in published)
        if one.state == "FAILED" or not (differs or (today and not same(lying, today))):
            return one
        there = ", ".join(map(_shown, published)) if differs or not today else _shown(today)
        why = f"lies here as {_shown(lying)}, the registry has {there}; it is replaced once no label names it"
        return replace(one, differs=differs, why=why if differs else one.why or why)


def _shown(variant: Variant) -> str:
    return f"{variant.name} {variant.digest[:12]}"


def same(one: Variant, other: Variant) -> bool:
    """Whether two variants are one, byte for byte."""
    return (one.name, one.digest) == (other.name, other.digest)
