"""Holds what lies in a registry against what its documents say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from model_registry import paths, transitions
from model_registry.catalog import Catalog
from model_registry.errors import ConflictError, FormatError, NotFoundError
from model_registry.parallel import in_parallel
from model_registry.progress import transferring
from model_registry.servable import PayloadFile, ServableVersion, Variant
from model_registry.state import State
from model_registry.storage.base import ObjectStore


@dataclass(frozen=True)
class Problem:
    """One way in which a payload is not what its manifest says.

    Attributes:
        variant: Of the version.
        path: Of the file, relative to the variant's directory.
        kind: What is wrong with it.
        expected: What the manifest says; empty for an extra file.
        found: What lies there; empty for a missing file.
    """

    variant: str
    path: str
    kind: Literal["missing", "extra", "size", "digest"]
    expected: str
    found: str


@dataclass(frozen=True)
class Verification:
    """What came of reading one version back.

    Attributes:
        model: Its model.
        number: Its number.
        version: Its manifest; None where that cannot be trusted.
        problems: How its files differ from the manifest.
        error: Why the manifest cannot be trusted, or None.
    """

    model: str
    number: int
    version: ServableVersion | None
    problems: tuple[Problem, ...] = ()
    error: FormatError | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and self.error is None


def verify_committed(catalog: Catalog, model: str) -> Iterator[Verification]:
    """Verifies every committed version of a model, retired ones among them, newest first.

    One that is collected meanwhile is passed over. Neither the state nor a manifest that cannot be trusted
    ends it.

    Raises:
        StorageError: If the store fails.
    """
    for number in catalog.committed(model):
        try:
            version = catalog.outcome(model, number)
            if not isinstance(version, ServableVersion):
                continue
            problems = verify(catalog.store, version)
            if not problems or isinstance(catalog.outcome(model, number), ServableVersion):
                yield Verification(model, number, version, tuple(problems))
        except FormatError as error:
            yield Verification(model, number, None, error=error)


def verify(store: ObjectStore, version: ServableVersion) -> list[Problem]:
    """Reads every file of every variant back and holds it against the manifest.

    Returns:
        What is wrong, by variant and path; empty if nothing is.
    """
    total = sum(variant.bytes for variant in version.variants)
    with transferring(f"verify {version.model}:{version.version}", total) as advance:
        problems = [
            problem
            for variant in version.variants
            for problem in _verify(store, paths.payload(version.model, variant.name, version.version), variant, advance)
        ]
    return sorted(problems, key=lambda problem: (problem.variant, problem.path))


def contradictions(catalog: Catalog, model: str) -> list[str]:
    """What a model's state, history and manifests say against each other, a sentence each."""
    try:
        state = catalog.state(model)
        history = catalog.history(model)
        committed = {listed.version for listed in catalog.listing(model)}
    except FormatError as error:
        return [str(error)]
    found = [
        f"{model}@{label} names {model}:{number}, which is not committed"
        for label, number in state.labels.items()
        if number not in committed
    ]
    replayed = State()
    try:
        for record in reversed(history):
            replayed = transitions.apply(replayed, record, model=model)
    except ConflictError as error:
        found.append(f"the history of {model} contradicts itself at revision {replayed.revision + 1}: {error.message}")
    else:
        # Somebody may have made a transition between the two readings.
        if replayed.revision == state.revision and replayed != state:
            found.append(f"the state of {model} is not what its history leads to")
    return found


def _verify(store: ObjectStore, prefix: str, variant: Variant, advance: Callable[[int], None]) -> Iterator[Problem]:
    expected = {file.path: file for file in variant.files}
    present = {info.key[len(prefix) :]: info.size for info in store.list(prefix)}
    for path in present.keys() - expected.keys():
        yield Problem(variant.name, path, "extra", "", f"{present[path]} bytes")
    for path in expected.keys() - present.keys():
        yield Problem(variant.name, path, "missing", f"{expected[path].bytes} bytes", "")
    readable = []
    for path in present.keys() & expected.keys():
        if present[path] == expected[path].bytes:
            readable.append(path)
        else:
            yield Problem(variant.name, path, "size", f"{expected[path].bytes} bytes", f"{present[path]} bytes")
    for path, found in zip(readable, in_parallel(partial(_digest, store, prefix, advance), readable), strict=True):
        if found is None:
            yield Problem(variant.name, path, "missing", f"{expected[path].bytes} bytes", "")
        elif found.sha256 != expected[path].sha256:
            yield Problem(variant.name, path, "digest", expected[path].sha256, found.sha256)


def _digest(store: ObjectStore, prefix: str, advance: Callable[[int], None], path: str) -> PayloadFile | None:
    try:
        found = store.digest(prefix + path)
    except NotFoundError:
        return None
    advance(found.bytes)
    return found
