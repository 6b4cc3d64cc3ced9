"""Which variants a run sets out to deliver, and which version it takes for done."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.errors import ConversionError
from model_registry.servable import NATIVE, TENSORRT_FP16, Accelerator, ServableVersion, Variant
from model_registry.spec import PackageSpec
from model_registry.variants import REHEARSAL, Conversion
from tasks.conversion_place import Here, Nowhere
from tasks.conversion_pool import Pool
from tasks.delivery import Delivery
from tests.support.published_models import draft

A100 = Accelerator("NVIDIA A100-SXM4-40GB", "8.0", "535.104", "12.3", "8.6.1")
T4 = Accelerator("Tesla T4", "7.5", "535.104", "12.3", "8.6.1")
NOWHERE = Nowhere("no GPU", "buy one")
POOL = Pool("convert-model/convert-model", "gpu")


def version(*variants: str, **changes: object) -> ServableVersion:
    return draft(variants=tuple(Variant(name, ()) for name in (NATIVE, *variants)), **changes)


def delivery(place: Here | Pool | Nowhere | None, conversion: Conversion = Conversion.WELCOME) -> Delivery:
    return Delivery(conversion, place)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (None, (NATIVE,)),
        (NOWHERE, (NATIVE,)),
        (Here(A100), (NATIVE, "tensorrt-fp16-sm80")),
        (POOL, (NATIVE, TENSORRT_FP16)),
        (Here(None), (NATIVE, REHEARSAL)),
    ],
)
def test_a_version_is_identified_by_what_can_be_delivered(
    place: Here | Pool | Nowhere | None, expected: tuple[str, ...]
) -> None:
    assert delivery(place).variants == expected


def test_what_cannot_be_converted_is_missing_for_a_reason() -> None:
    assert delivery(NOWHERE).missing == {TENSORRT_FP16: "no GPU"}
    assert delivery(None).missing == delivery(POOL).missing == {}


def test_what_was_asked_for_by_name_fails_where_nobody_can_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    spec = PackageSpec.default("digits")
    with pytest.raises(ConversionError, match="tensorrt-fp16 was asked for and cannot be converted, nothing was done"):
        Delivery.of((TENSORRT_FP16,), spec, "/registry")
    assert Delivery.of((), spec, "/registry").variants == (NATIVE,)
    assert Delivery.of((NATIVE,), spec, "/registry") == Delivery(Conversion.LEFT_OUT, None)


@pytest.mark.parametrize(
    ("place", "variants", "expected"),
    [
        (Here(A100), ["tensorrt-fp16-sm80"], True),
        (Here(T4), ["tensorrt-fp16-sm80"], False),  # engines of another GPU
        (Here(A100), [REHEARSAL], False),
        (Here(None), [REHEARSAL], True),
        (POOL, ["tensorrt-fp16-sm80"], True),
        (POOL, [REHEARSAL], False),
        (POOL, [], False),
        (NOWHERE, [], True),
        (None, [], True),
    ],
)
def test_a_version_is_done_if_it_has_what_would_be_made(
    place: Here | Pool | Nowhere | None, variants: list[str], expected: bool
) -> None:
    assert delivery(place).satisfied_by(version(*variants)) is expected


def test_a_conversion_that_failed_is_done_for_whom_it_was_welcome_to_and_not_for_whom_asks_for_it() -> None:
    failed = version(missing={TENSORRT_FP16: "overflow"})
    assert delivery(POOL).satisfied_by(failed)
    assert not delivery(POOL, Conversion.REQUIRED).satisfied_by(failed)
