from __future__ import annotations

from typing import Any

import pytest

from model_registry.errors import InvalidInputError
from model_registry.servable import Accelerator
from model_registry.spec import PackageSpec
from model_registry.variants import Conversion, wanted_conversion


def spec(**variants: Any) -> PackageSpec:
    return PackageSpec.parse(
        {"model": "digits", "variants": {key.replace("_", "-"): item for key, item in variants.items()}}
    )


@pytest.mark.parametrize(
    ("named", "variants", "wanted"),
    [
        ((), {}, Conversion.WELCOME),
        ((), {"native": {"atol": 1e-3}}, Conversion.WELCOME),
        ((), {"tensorrt_fp16": {}}, Conversion.REQUIRED),
        (("tensorrt-fp16",), {}, Conversion.REQUIRED),
        (("native", "tensorrt-fp16"), {}, Conversion.REQUIRED),
        (("native",), {}, Conversion.LEFT_OUT),
        (("native",), {"tensorrt_fp16": {}}, Conversion.LEFT_OUT),
    ],
)
def test_what_is_asked_for_by_name_must_be_delivered(
    named: tuple[str, ...], variants: dict[str, Any], wanted: Conversion
) -> None:
    assert wanted_conversion(named, spec(**variants)) is wanted


def test_an_unknown_variant_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        InvalidInputError, match=r"'tensorrt': expected native or tensorrt-fp16; did you mean 'tensorrt-fp16'"
    ):
        wanted_conversion(("tensorrt",), spec())


def test_a_variant_cannot_be_asked_for_by_what_its_engines_fit() -> None:
    with pytest.raises(InvalidInputError) as caught:
        wanted_conversion(("tensorrt-fp16-sm80",), spec())
    assert caught.value.hint == "engines are built for the GPU that converts, which names the variant"


@pytest.mark.parametrize(("capability", "name"), [("8.0", "tensorrt-fp16-sm80"), ("12.1", "tensorrt-fp16-sm121")])
def test_a_variant_is_named_after_what_its_engines_fit(capability: str, name: str) -> None:
    assert Accelerator("NVIDIA X", capability, "550", "12.3", "8.6.1").variant == name
