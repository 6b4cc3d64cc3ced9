"""What differs between two versions. Pure: two manifests in, a list of differences out.

Each section of a manifest is laid out flat, as values by their names; two of them differ where a name has
another value. What every version has of its own, its number, its date and its run, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from model_registry.servable import NATIVE, ServableVersion

_Items = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Difference:
    """One value that two versions do not share.

    Attributes:
        section: What it belongs to, such as `signatures`.
        item: Its name there.
        before: Of the first version, a JSON value; None where it has none.
        after: Of the second one, likewise.
    """

    section: str
    item: str
    before: Any
    after: Any


def differences(before: ServableVersion, after: ServableVersion) -> list[Difference]:
    """Everything that differs between two versions but number, date and run.

    Returns:
        By section; within one in the order of the first version, then what only the second one has.
    """
    found = []
    for section, laid_out in _SECTIONS.items():
        first, second = dict(laid_out(before)), dict(laid_out(after))
        found += [
            Difference(section, item, first.get(item), second.get(item))
            for item in dict.fromkeys((*first, *second))
            if first.get(item) != second.get(item)
        ]
    return found


def _model(version: ServableVersion) -> _Items:
    yield "name", version.model
    yield "batch sizes", list(version.batch_sizes)


def _signatures(version: ServableVersion) -> _Items:
    for signature in version.signatures:
        yield f"{signature.name} method", signature.method
        for tensor in signature.inputs:
            yield f"{signature.name} input {tensor.name}", tensor.form
        for tensor in signature.outputs:
            yield f"{signature.name} output {tensor.name}", tensor.form


def _checks(version: ServableVersion) -> _Items:
    for check in version.blessing.checks:
        name = check.check if check.variant == NATIVE else f"{check.check} ({check.variant})"
        yield f"{name} measured", check.measured
        yield f"{name} threshold", check.threshold
        yield f"{name} passed", check.passed


def _files(version: ServableVersion) -> _Items:
    for variant in version.variants:
        yield f"{variant.name} bytes", variant.bytes
        yield f"{variant.name} files", len(variant.files)
        yield f"{variant.name} digest", variant.digest
    for name, why in version.missing.items():
        yield f"{name} not delivered", why


def _source(version: ServableVersion) -> _Items:
    source = version.source
    yield from (("uri", source.uri), ("format", source.format), ("sha256", source.sha256), ("bytes", source.bytes))


def _spec(version: ServableVersion) -> _Items:
    yield from _flat(version.spec, "")


def _flat(values: Mapping[str, Any], prefix: str) -> _Items:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _libraries(version: ServableVersion) -> _Items:
    yield from version.libraries.items()


def _signed(version: ServableVersion) -> _Items:
    yield "key_id", version.signature.key_id if version.signature else None


_SECTIONS: dict[str, Callable[[ServableVersion], _Items]] = {
    "model": _model,
    "signatures": _signatures,
    "checks": _checks,
    "files": _files,
    "source": _source,
    "spec": _spec,
    "libraries": _libraries,
    "signed": _signed,
}
