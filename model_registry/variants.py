"""Which variants a run sets out to deliver. Pure.

Rules:
- `native` is always delivered: it is what loads everywhere.
- `tensorrt-fp16` asked for by name, on the command line or in the spec, must be delivered: the version
  stands or falls with it. The command line wins over the spec.
- Where nobody names anything, it is delivered if it can be; if not, the manifest says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Literal, get_args

from model_registry.errors import InvalidInputError
from model_registry.servable import TENSORRT_FP16
from model_registry.spec import PackageSpec
from model_registry.spec_errors import nearest

# What the rehearsal of a conversion makes: TF-TRT's rewrite without engines, which loads everywhere and proves
# nothing of TensorRT.
REHEARSAL = f"{TENSORRT_FP16}-rehearsal"

# The same as a type, so that the form of a flow's parameters offers them.
VariantName = Literal["native", "tensorrt-fp16"]

_KNOWN: tuple[str, ...] = get_args(VariantName)


class Conversion(Enum):
    """What a run is to do about `tensorrt-fp16`.

    Attributes:
        REQUIRED: The version needs it.
        WELCOME: The version does without where it cannot be had.
        LEFT_OUT: Nobody wants it.
    """

    REQUIRED = "required"
    WELCOME = "welcome"
    LEFT_OUT = "left out"


def check_variants(named: Sequence[str]) -> None:
    """Refuses what is no variant that can be asked for.

    Raises:
        InvalidInputError: If a name is unknown.
    """
    for name in named:
        if name not in _KNOWN:
            hint = "engines are built for the GPU that converts, which names the variant" if "-sm" in name else None
            raise InvalidInputError(
                f"unknown variant {name[:60]!r}: expected {' or '.join(_KNOWN)}{nearest(name, _KNOWN)}", hint=hint
            )


def wanted_conversion(named: Sequence[str], spec: PackageSpec) -> Conversion:
    """What is to be done about `tensorrt-fp16`.

    Args:
        named: What the caller asked for by name; empty for the default set.
        spec: The spec in force.

    Raises:
        InvalidInputError: If a name is unknown.
    """
    check_variants(named)
    if TENSORRT_FP16 in named or (not named and spec.variants.tensorrt_fp16 is not None):
        return Conversion.REQUIRED
    return Conversion.LEFT_OUT if named else Conversion.WELCOME
