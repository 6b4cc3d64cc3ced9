"""Which variants a run sets out to deliver, and where the conversion that one of them takes can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_registry.errors import ConversionError
from model_registry.servable import NATIVE, TENSORRT_FP16, ServableVersion
from model_registry.spec import PackageSpec
from model_registry.variants import REHEARSAL, Conversion, wanted_conversion
from tasks.conversion_place import Here, Nowhere, Place, find_place
from tasks.conversion_pool import Pool


@dataclass(frozen=True)
class Delivery:
    """What a run sets out to deliver.

    Attributes:
        conversion: What is to be done about `tensorrt-fp16`.
        place: Where it is converted; None where nobody wants it.
    """

    conversion: Conversion
    place: Place | None

    @classmethod
    def of(cls, named: Sequence[str], spec: PackageSpec, registry: str) -> Delivery:
        """Decides, before any work.

        Args:
            named: What the caller asked for by name; empty for the default set.
            spec: The spec in force.
            registry: Its URI.

        Raises:
            ConversionError: If a conversion must be delivered, and nobody can convert.
        """
        conversion = wanted_conversion(named, spec)
        if conversion is Conversion.LEFT_OUT:
            return cls(conversion, None)
        place = find_place(registry)
        if conversion is Conversion.REQUIRED and isinstance(place, Nowhere):
            raise ConversionError(
                f"{TENSORRT_FP16} was asked for and cannot be converted, nothing was done: {place.reason}",
                hint=place.hint,
            )
        return cls(conversion, place)

    @property
    def to_convert(self) -> Here | Pool | None:
        """Where a conversion will be tried; None where none will."""
        return None if isinstance(self.place, Nowhere) else self.place

    @property
    def required(self) -> bool:
        """Whether the version stands or falls with the conversion."""
        return self.conversion is Conversion.REQUIRED

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants by which the version is identified.

        A rehearsal is never taken for the real thing, nor engines of another GPU, nor a version that was made where
        nobody could convert. What GPU a worker elsewhere has is known afterwards.
        """
        if self.to_convert is None:
            return (NATIVE,)
        match self.to_convert:
            case Here(None):
                return (NATIVE, REHEARSAL)
            case Here(accelerator) if accelerator is not None:
                return (NATIVE, accelerator.variant)
            case _:
                return (NATIVE, TENSORRT_FP16)

    @property
    def missing(self) -> dict[str, str]:
        """Why a variant will not be delivered, as far as that is known before the work."""
        return {TENSORRT_FP16: self.place.reason} if isinstance(self.place, Nowhere) else {}

    def satisfied_by(self, version: ServableVersion) -> bool:
        """Whether a version that was made from the same input has what this run sets out to deliver.

        One whose conversion failed satisfies whom it is welcome to only: it would fail again.
        """
        if self.to_convert is None:
            return True
        if TENSORRT_FP16 in version.missing:
            return not self.required
        return self.found_in(version)

    def found_in(self, version: ServableVersion) -> bool:
        """Whether a version has a converted variant as it would be made now."""
        names = {variant.name for variant in version.variants} - {NATIVE}
        match self.to_convert:
            case Here(None):
                return REHEARSAL in names
            case Here(accelerator) if accelerator is not None:
                return accelerator.variant in names  # engines of another GPU are of no use
            case _:
                return bool(names - {REHEARSAL})
