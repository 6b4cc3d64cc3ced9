"""What one packaging is asked to do, and what can be told of it before anything is done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from model_registry.errors import InvalidInputError
from model_registry.paths import check_label
from model_registry.registry import Registry
from model_registry.source import inspect_source
from model_registry.spec import require_trust
from model_registry.spec_file import LoadedSpec, load_s3_spec, load_spec
from model_registry.spec_paths import is_s3
from model_registry.variants import check_variants


@dataclass(frozen=True)
class PackageRequest:
    """What one packaging is asked to do.

    Attributes:
        source: The trained model, a path or an s3:// URI; wins over the spec's.
        spec: A package.yaml, a path or an s3:// URI, or None for the defaults.
        name: The model's name; wins over the spec's.
        registry: Its URL, or None for SLIPWAY_REGISTRY or ./registry.
        variants: What must be delivered, by name; empty for the default set (model_registry.variants).
        trust: The operator's grant to the spec: the model may bring code.
        force: Package even if the same identity is there.
        label: Which label shall name the version; no part of its identity.
    """

    source: str | None = None
    spec: Path | str | None = None
    name: str | None = None
    registry: str | None = None
    variants: tuple[str, ...] = ()
    trust: bool = False
    force: bool = False
    label: str | None = None

    def resolve(self) -> LoadedSpec:
        """The spec in force. Reads the spec file, checks names and grants; touches nothing else.

        Raises:
            InvalidInputError: If the request cannot be carried out as it stands.
            StorageError: If the spec lies on S3, and the store fails.
        """
        check_variants(self.variants)
        if self.label is not None:
            check_label(self.label)
        if self.spec is not None:
            loaded = _load(self.spec).overridden(model=self.name, source=self.source)
        elif self.source is not None:
            loaded = LoadedSpec.without_file(_stem(self.source) if self.name is None else self.name, self.source)
        else:
            raise InvalidInputError(
                "nothing to package: expected a model file or a spec", hint="slipway package model.keras"
            )
        if loaded.spec.source is None:
            raise InvalidInputError(
                f"{self.spec} names no `source`", hint="add it there, or give the model file on the command line"
            )
        require_trust(loaded.spec, self.trust)
        return loaded

    def open(self) -> tuple[LoadedSpec, Registry]:
        """The spec in force and the registry, after what can be refused at once was refused.

        Raises:
            InvalidInputError: As `resolve` does, and if a local source is no model.
        """
        loaded = self.resolve()
        assert loaded.spec.source is not None
        if not is_s3(loaded.spec.source):
            inspect_source(Path(loaded.spec.source))
        return loaded, Registry.open(self.registry)


def _load(spec: Path | str) -> LoadedSpec:
    # Whatever took the URI for a path on its way here left one slash of two.
    on_s3 = re.match("s3:/+", str(spec))
    return load_s3_spec(f"s3://{str(spec)[on_s3.end() :]}") if on_s3 else load_spec(Path(spec))


def _stem(source: str) -> str:
    """The model's name when nobody gives one: `s3://bucket/digits.keras` makes `digits`."""
    name = source.rstrip("/").rsplit("/", 1)[-1]
    return name.removesuffix(".keras").removesuffix(".h5").removesuffix(".hdf5")
