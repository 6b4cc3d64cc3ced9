"""Reading the source, and telling whether its version is there already."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from model_registry.custom_code import custom_code_digest
from model_registry.errors import InvalidInputError
from model_registry.identity import identity, library_versions
from model_registry.registry import Registry
from model_registry.revision import file_mark
from model_registry.servable import NATIVE, ServableVersion, Source
from model_registry.source import describe_source, digest_source
from model_registry.spec_file import LoadedSpec
from model_registry.variants import REHEARSAL
from tasks.delivery import Delivery
from tasks.fetching import fetch, fetch_source, require_reachable
from tasks.package_request import PackageRequest

FileState = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Lookup:
    """What is known once the source was read.

    Attributes:
        source: The model on this machine's disk.
        samples: The samples likewise, or None.
        described: What the manifest says of the source.
        identity: Digest of all that goes in.
        rehearsal_identity: The same, were the conversion only rehearsed; who rehearses is known afterwards.
        existing: The version this identity already has, or None.
        superseded: Whether a version has this identity, and not what this run sets out to deliver.
        state: What the file system said of source and samples before they were read.
        code: Where custom objects are imported from, which modules, and their digest.
        seconds: How long it took.
    """

    source: Path
    samples: Path | None
    described: Source
    identity: str
    rehearsal_identity: str
    existing: ServableVersion | None
    superseded: bool
    state: FileState
    code: tuple[Path, tuple[str, ...], str | None]
    seconds: float

    def check_unchanged(self) -> None:
        """Refuses a source, samples or code that were overwritten while they were packaged.

        Raises:
            InvalidInputError: If a size, a time or the code is other by now, or a file is gone.
        """
        then, now = dict(self.state), dict(_state(self.source, self.samples))
        changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        directory, modules, digest = self.code
        if custom_code_digest(modules, directory) != digest:
            changed.append(f"the code of {', '.join(modules)}")
        if changed:
            raise InvalidInputError(
                f"{self.described.uri} changed while it was packaged, nothing was published: "
                f"found other than before: {', '.join(changed[:5])}",
                hint="save to a new file and rename it into place, or wait until training is over",
            )


def look_up(
    request: PackageRequest,
    loaded: LoadedSpec,
    registry: Registry,
    delivery: Delivery,
    workspace: Path,
    libraries: dict[str, str],
    *,
    reached: Callable[[], None] = lambda: None,
) -> Lookup:
    """Reads the source and tells whether its version is there already.

    Args:
        request: What was asked for.
        loaded: The spec in force.
        registry: Where the version would be published.
        delivery: Which variants it would have.
        workspace: Where a source that is not local is brought.
        libraries: Versions of what would package it.
        reached: Is called as soon as the stores have answered, before anything is read.

    Raises:
        InvalidInputError: If the source is no model.
        NotFoundError: If it is not there.
        StorageError: If it cannot be read, or the registry cannot be written.
    """
    started = time.perf_counter()
    spec = loaded.spec
    assert spec.source is not None
    registry.check()
    require_reachable(spec.source)
    reached()
    source, revision = fetch_source(spec.source, workspace / "source")
    samples = fetch(spec.samples, workspace / "samples") if spec.samples else None
    state = _state(source, samples)
    described = describe_source(source, uri=spec.source, revision=revision)
    code = custom_code_digest(spec.custom_objects, loaded.directory)
    identified = partial(
        identity,
        source_sha256=described.sha256,
        spec=spec,
        samples_sha256=_digest_samples(samples) if samples else None,
        code_sha256=code,
        libraries=libraries,
    )
    digest = identified(variants=delivery.variants)
    found = None if request.force else registry.find(spec.model, digest)
    existing = found if found and delivery.satisfied_by(found) else None
    return Lookup(
        source=source,
        samples=samples,
        described=described,
        identity=digest,
        rehearsal_identity=identified(variants=(NATIVE, REHEARSAL)),
        existing=existing,
        superseded=found is not None and existing is None,
        state=state,
        code=(loaded.directory, spec.custom_objects, code),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class Rehearsal:
    """What a packaging would do.

    Attributes:
        loaded: The spec in force.
        registry: Where it would publish.
        delivery: Which variants it would have.
        found: The source, its identity, and the version of that identity if there is one.
    """

    loaded: LoadedSpec
    registry: Registry
    delivery: Delivery
    found: Lookup


def rehearse(request: PackageRequest) -> Rehearsal:
    """Goes as far as packaging goes before it starts a process; leaves nothing behind.

    Raises:
        SlipwayError: As `PackageRequest.open`, `Delivery.of` and `look_up` do.
    """
    loaded, registry = request.open()
    delivery = Delivery.of(request.variants, loaded.spec, registry.store.uri)
    with tempfile.TemporaryDirectory(prefix="slipway-dry-run-") as workspace:
        found = look_up(request, loaded, registry, delivery, Path(workspace), library_versions())
    return Rehearsal(loaded, registry, delivery, found)


def _digest_samples(samples: Path) -> str:
    try:
        return digest_source(samples)[0]
    except InvalidInputError:
        if samples.is_file():
            raise
        raise InvalidInputError(
            f"samples: there is no file at {samples}", hint="name an .npz file, as numpy.savez writes it"
        ) from None


def _state(source: Path, samples: Path | None) -> FileState:
    """Inode, size and times of change of each file: cheaper than a second digest, and enough to see a rewrite."""
    paths = [path for top in (source, samples) if top for path in (sorted(top.rglob("*")) if top.is_dir() else [top])]
    found = []
    for path in paths:
        with contextlib.suppress(OSError):  # one that is gone is missed by whoever reads it, and in the comparison
            found.append((str(path), file_mark(path.stat())))
    return tuple(found)
