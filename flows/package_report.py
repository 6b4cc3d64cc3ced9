"""What a packaging has to tell when it is over: for `--json`, for the terminal and for Prefect's artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flows.changes import change_document
from model_registry import paths
from model_registry.registry import Registry
from model_registry.servable import NATIVE, Accelerator, Blessing, Check, ServableVersion
from model_registry.state import Record, Transition
from model_registry.variants import REHEARSAL
from tasks.packaging_run import PackagingRun
from tasks.stage_time import StageTime

__all__ = ["PackageReport", "StageTime", "VariantReport", "reuse_report"]


@dataclass(frozen=True)
class VariantReport:
    """Where a variant lies, what it weighs, and what its engines fit.

    Attributes:
        uri: Its directory.
        files: How many.
        bytes: Their size.
        digest: Over all of them.
        accelerator: What its engines were built on and fit; None where there are none.
        rehearsal: Whether its conversion was only rehearsed: no TensorRT ran.
    """

    uri: str
    files: int
    bytes: int
    digest: str
    accelerator: Accelerator | None = None
    rehearsal: bool = False


@dataclass(frozen=True)
class PackageReport:
    """The outcome of one packaging.

    Attributes:
        model: The name published under.
        version: The number; None after a rejection.
        verdict: `blessed` or `rejected`.
        reused: Whether the version was there before.
        registry: Where it was published.
        variants: By name.
        checks: Every check made.
        stages: In their order; the seconds that the work itself took.
        seconds: From start to end, with all that starting processes took.
        label: What became of the label that was to follow, as flows.changes tells it; None if none was.
        missing: Why a variant was not delivered, by its name.
    """

    model: str
    version: int | None
    verdict: str
    reused: bool
    registry: str
    variants: dict[str, VariantReport]
    checks: tuple[Check, ...]
    stages: tuple[StageTime, ...]
    seconds: float
    label: dict[str, Any] | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        registry: Registry,
        version: ServableVersion,
        stages: Sequence[StageTime],
        *,
        reused: bool,
        seconds: float,
    ) -> PackageReport:
        """The report of a version that is there."""
        store = registry.store
        variants = {
            variant.name: VariantReport(
                uri=store.uri_of(paths.payload(version.model, variant.name, version.version)),
                files=len(variant.files),
                bytes=variant.bytes,
                digest=variant.digest,
                accelerator=variant.accelerator,
                rehearsal=variant.name == REHEARSAL,
            )
            for variant in version.variants
        }
        return cls(
            model=version.model,
            version=version.version,
            verdict=version.blessing.verdict,
            reused=reused,
            registry=store.uri,
            variants=variants,
            checks=version.blessing.checks,
            stages=tuple(stages),
            seconds=seconds,
            missing=version.missing,
        )

    @classmethod
    def rejected(
        cls, registry: Registry, model: str, blessing: Blessing, stages: Sequence[StageTime], seconds: float
    ) -> PackageReport:
        """The report of a candidate that failed a check."""
        return cls(
            model=model,
            version=None,
            verdict=blessing.verdict,
            reused=False,
            registry=registry.store.uri,
            variants={},
            checks=blessing.checks,
            stages=tuple(stages),
            seconds=seconds,
        )

    def labelled(self, label: str, record: Record | None) -> PackageReport:
        """The report with what became of the label.

        Args:
            label: Which one.
            record: The transition; None if the label named the version already.
        """
        asked = Transition("follow", label, from_version=self.version, to_version=self.version)
        return replace(self, label=change_document(self.registry, self.model, record, asked=asked))

    @property
    def uri(self) -> str:
        """Where the native variant lies; empty after a rejection."""
        native = self.variants.get(NATIVE)
        return native.uri if native else ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `slipway package --json` prints them."""
        return asdict(self)


def reuse_report(run: PackagingRun) -> PackageReport:
    """The report of a run that found its version in the registry.

    Args:
        run: One whose lookup found an existing version.
    """
    found = run.begin()
    assert found.existing is not None
    stages = [StageTime("fetch", found.seconds)]
    return PackageReport.of(run.registry, found.existing, stages, reused=True, seconds=run.seconds)
