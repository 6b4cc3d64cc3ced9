"""What makes two packagings the same: a digest of all that goes into one. Pure, but for `library_versions`."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from model_registry import __version__
from model_registry.servable import TENSORRT_FP16
from model_registry.spec import PackageSpec, TensorRTSpec
from model_registry.spec_server import NO_SERVER

_SCHEME = 1  # part of every digest: raised when the same inputs shall be packaged anew
_LIBRARIES = ("tensorflow", "keras", "tensorflow-serving-api", "numpy")
# Where things lay and how long they might take; what was read there is in by its digest.
_WITHOUT_EFFECT = {"source", "samples", "timeouts"}


def identity(
    *,
    source_sha256: str,
    spec: PackageSpec,
    samples_sha256: str | None,
    code_sha256: str | None,
    libraries: Mapping[str, str],
    variants: Sequence[str],
) -> str:
    """Digest of what a packaging is made from.

    Args:
        source_sha256: Digest of the trained model.
        spec: How it is packaged.
        samples_sha256: Digest of the samples; None where they are synthesised.
        code_sha256: Digest of the custom objects' modules, or None.
        libraries: Versions of what packages it, by distribution.
        variants: The variants this run sets out to deliver, in any order.

    Returns:
        SHA-256 in lower-case hexadecimal, over canonical JSON: keys sorted, no spaces, ASCII.
    """
    settings = spec.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    if spec.server == NO_SERVER:  # as if the spec had never heard of it
        del settings["server"], settings["image"]
    # Asked for by the spec or by the command line, it is the same conversion; not asked for, its settings do nothing.
    settings["variants"].pop(TENSORRT_FP16, None)
    if any(name.startswith(TENSORRT_FP16) for name in variants):
        settings["variants"][TENSORRT_FP16] = spec.variants.tensorrt.model_dump(mode="json")
    document = {
        "scheme": _SCHEME,
        "source": source_sha256,
        "spec": settings,
        "samples": samples_sha256,
        "code": code_sha256,
        "libraries": dict(libraries),
        "variants": sorted(set(variants)),
    }
    return _digest(document)


def converted_identity(
    published: str, *, settings: TensorRTSpec, libraries: Mapping[str, str], variants: Sequence[str]
) -> str:
    """Digest of what the conversion of a published version is made from.

    Args:
        published: The identity of that version.
        settings: How it is converted.
        libraries: Versions of what converts it, by distribution.
        variants: The variants the new version is to have, in any order.
    """
    return _digest(
        {
            "scheme": _SCHEME,
            "published": published,
            "settings": settings.model_dump(mode="json"),
            "libraries": dict(libraries),
            "variants": sorted(set(variants)),
        }
    )


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a servable; those not installed are left out.

    They are read from the installed metadata: nothing is imported.
    """
    versions = {"python": platform.python_version(), "slipway": __version__}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def _digest(document: dict[str, object]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
