"""Looks through a folder of trained models for those that the registry has not seen."""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace
from pathlib import Path

from model_registry.errors import InvalidInputError, NotFoundError, SlipwayError, StorageError
from model_registry.paths import TEMPORARY, check_key
from model_registry.plain_yaml import MAX_BYTES
from model_registry.provenance import Provenance
from model_registry.registry import Registry
from model_registry.revision import revision_of, revision_of_objects
from model_registry.servable import Variant
from model_registry.source import digest_source
from model_registry.spec import PackageSpec, require_trust
from model_registry.spec_file import load_spec, parse_spec
from model_registry.spec_paths import S3Folder, is_s3
from model_registry.storage import ObjectStore, open_store
from tasks.scan_rules import (
    SPEC,
    FolderOutcome,
    Listing,
    NewModel,
    failed,
    handed_over,
    same_revision,
    seen_before,
    shown,
)
from tasks.stage import stage


@dataclass(frozen=True)
class Scan:
    """What a look at a folder of trained models found.

    Attributes:
        new: The models that may be new; the registry has none of their revisions.
        known: What became of the other folders.
        seen: What the registry has seen, by the model's name.
    """

    new: tuple[NewModel, ...]
    known: tuple[FolderOutcome, ...]
    seen: dict[str, Provenance]


def scan(trained: str, registry: Registry, *, trust: bool = False) -> Scan:
    """Looks through all folders; reads their specs, and none of the models.

    Args:
        trained: The folder of all folders, a path or s3://bucket/prefix.
        registry: What it is held against.
        trust: The operator's grant to the specs.

    Raises:
        NotFoundError: If there is no such folder on this machine's disk.
        StorageError: If the registry fails, or the store that the folder lies in.
    """
    store = open_store(trained)
    if not is_s3(store.uri) and not Path(store.uri).is_dir():
        raise NotFoundError(
            f"there is no folder of trained models at {store.uri}",
            hint="`trained` names the folder that holds a folder for each trained model",
        )
    store.check(writing=False)
    objects = list(store.list("")) if is_s3(store.uri) else []
    listing = Listing(store.uri, objects)
    new: list[NewModel] = []
    known: list[FolderOutcome] = []
    seen: dict[str, Provenance] = {}
    if is_s3(store.uri):
        sizes = {folder: document.size for folder, document in handed_over(objects).items()}
    else:
        sizes, unusable = _local_folders(Path(store.uri))
        known.extend(unusable)
    for folder, size in sizes.items():
        try:
            spec, source = _read(store, folder, size)
            require_trust(spec, trust)
        except SlipwayError as error:
            if isinstance(error, StorageError) and error.transient:
                raise  # of the folder of all folders: the whole is tried again
            known.append(failed(folder, error.message))
            continue
        try:
            listed = listing.at(source)
            revision = revision_of(source) if listed is None else revision_of_objects(source, listed)
        except SlipwayError as error:  # a location that the spec chose: nobody else's matter
            known.append(failed(folder, error.message, spec.model))
            continue
        found = NewModel(shown(folder), store.uri_of(f"{folder}/{SPEC}"), spec.model, source, revision)
        provenance = seen.setdefault(spec.model, Provenance(registry, spec.model))
        before = provenance.find(same_revision(revision)) if revision else None
        if before:
            known.append(seen_before(found, before))
        else:
            new.append(found)
    return Scan(tuple(new), tuple(known), seen)


def source_digest(location: str) -> str:
    """Reads a trained model, without keeping it, and tells its digest as its manifest would (model_registry.source).

    Args:
        location: A path or an s3:// URI.

    Raises:
        NotFoundError: If it is not there.
        InvalidInputError: If it cannot be read.
        StorageError: If its store fails.
    """
    if not is_s3(location):
        return digest_source(Path(location))[0]
    folder, _, name = location.rstrip("/").rpartition("/")
    store, prefix = open_store(folder), f"{name}/"
    try:
        return store.digest(name).sha256
    except NotFoundError:
        files = tuple(
            replace(store.digest(check_key(info.key)), path=info.key[len(prefix) :]) for info in store.list(prefix)
        )
    if not files:
        raise NotFoundError(f"{location} is not there, which {SPEC} names as `source`")
    return Variant("source", files).digest


def _local_folders(root: Path) -> tuple[dict[str, int], list[FolderOutcome]]:
    """The size of the package.yaml of each direct child folder that has one, and the folders that cannot be looked at.

    A folder may be a symbolic link, such as `latest`: what it names is found under its own path, too.
    """
    sizes: dict[str, int] = {}
    unusable: list[FolderOutcome] = []
    try:
        names = sorted(path.name for path in root.iterdir() if not path.name.startswith(TEMPORARY))
    except OSError as error:
        raise StorageError(f"{root} cannot be read: {error.strerror or error}") from error
    for name in names:
        try:
            size = _spec_size(root / name)
        except OSError as error:
            unusable.append(failed(name, f"the folder cannot be looked at: {error.strerror or error}"))
            continue
        if size is not None:
            sizes[name] = size
    return sizes, unusable


def _spec_size(folder: Path) -> int | None:
    if not stat.S_ISDIR(folder.stat().st_mode):  # a link that leads nowhere raises
        return None
    try:
        return (folder / SPEC).stat().st_size
    except FileNotFoundError:
        return None


def _read(store: ObjectStore, folder: str, size: int) -> tuple[PackageSpec, str]:
    """The spec of a folder, and its source."""
    key = check_key(f"{folder}/{SPEC}")
    if is_s3(store.uri):
        data = store.get(key).data if size <= MAX_BYTES else bytes(MAX_BYTES + 1)
        spec = parse_spec(data, SPEC, S3Folder(open_store(store.uri_of(folder))))
    else:
        spec = load_spec(Path(store.uri_of(key))).spec
    if spec.source is None:
        raise InvalidInputError(f"{SPEC} names no `source`: expected the trained model's file")
    return spec, spec.source


scan_task = stage(scan, "scan")
