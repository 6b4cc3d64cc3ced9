"""What one look at the registry says: which versions the followed labels name, and which variant of each to bring.

One model that cannot be read never holds up the others, and never makes its labels look gone: only a state that was
read, and is no older than what was read before, takes a label away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from model_registry.catalog import Catalog
from model_registry.errors import FormatError, InvalidInputError, SlipwayError, StorageError
from model_registry.parallel import in_parallel
from model_registry.servable import ServableVersion, Variant
from model_registry.tombstone import Tombstone


@dataclass(frozen=True)
class ModelLook:
    """One model, as the registry wants it.

    Attributes:
        revision: Of its state; 0 where that could not be read.
        wanted: The version that each followed label names; None where that cannot be told.
        variants: What to bring of the wanted versions that can be brought.
        refused: Why the others cannot.
        published: Every variant of the wanted versions whose manifest could be read.
        problem: Why `wanted` is None, or what else is wrong with the whole; empty if nothing is.
        out_of_reach: Whether it was the store that failed, not the document.
        listed: Whether the registry has the model, or it is followed by name.
    """

    revision: int = 0
    wanted: Mapping[str, int] | None = None
    variants: Mapping[int, Variant] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)
    published: Mapping[int, tuple[Variant, ...]] = field(default_factory=dict)
    problem: str = ""
    out_of_reach: bool = False
    listed: bool = True


@dataclass(frozen=True)
class _Manifest:
    """What a manifest said.

    Attributes:
        revision: Of its model's state when it was read.
        choice: The variant to bring, or why there is none.
        variants: All there are.
    """

    revision: int
    choice: Variant | str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Look:
    """All models that are followed, or were.

    Attributes:
        models: By name.
        problem: Why the registry as a whole cannot be read; empty if it can.
    """

    models: Mapping[str, ModelLook]
    problem: str = ""


class RegistryView:
    """Looks at a registry, again and again; remembers the manifests of what is wanted.

    They never change. But somebody may put another registry in the place of this one: they are read again once for
    each revision of the labels.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        models: Collection[str] = (),
        labels: Collection[str] = (),
        variants: Collection[str],
    ) -> None:
        """Asks for nothing yet.

        Args:
            catalog: The registry.
            models: Which to follow; none for all there are.
            labels: Which to follow; none for all there are.
            variants: What to bring of a version: the first of these that it has.
        """
        self._catalog = catalog
        self._models = tuple(models)
        self._labels = frozenset(labels)
        self._variants = tuple(variants)
        self._cache: dict[tuple[str, int], _Manifest] = {}

    def look(self, known: Mapping[str, int]) -> Look:
        """Reads each followed model's state, and the manifests that were not read before.

        Args:
            known: The models that are known already, with the highest revision that was seen of each.
        """
        try:
            names = list(self._models or self._catalog.models())
        except SlipwayError as error:
            return Look({name: ModelLook(problem=str(error), out_of_reach=True) for name in known}, str(error))
        found = dict(zip(names, in_parallel(lambda name: self._look(name, known.get(name, 0)), names), strict=True))
        for name in known.keys() - found.keys():
            found[name] = self._unlisted(known[name])
        self._forget(found)
        if found and all(model.out_of_reach for model in found.values()):
            return Look(found, next(iter(found.values())).problem)
        return Look(found)

    def _unlisted(self, revision: int) -> ModelLook:
        if self._models:  # the operator's own choice, not the registry's
            return ModelLook(revision, wanted={}, listed=False)
        return ModelLook(
            problem=f"{self._catalog.store.uri} does not list it any more: what is served of it stays; restore it, or "
            "name the models to follow with --model",
            listed=False,
        )

    def _look(self, model: str, known: int) -> ModelLook:
        try:
            state = self._catalog.state(model)
        except StorageError as error:
            return ModelLook(problem=str(error), out_of_reach=True)
        except (FormatError, InvalidInputError) as error:
            return ModelLook(problem=str(error))
        if state.revision < known:
            return ModelLook(
                problem=f"its revision in {self._catalog.store.uri} went backwards: expected {known} or higher, found "
                f"{state.revision}; what is served of it stays. See who restored an older state"
            )
        wanted = {label: version for label, version in state.labels.items() if label in (self._labels or state.labels)}
        numbers = sorted({*wanted.values()})
        chosen = dict(
            zip(numbers, in_parallel(partial(self.choice, model, revision=state.revision), numbers), strict=True)
        )
        problem = ""
        if not state.revision and self._models:
            problem = f"{self._catalog.store.uri} has no label of it yet: promote a version"
        return ModelLook(
            state.revision,
            wanted,
            {version: choice for version, choice in chosen.items() if isinstance(choice, Variant)},
            {version: choice for version, choice in chosen.items() if isinstance(choice, str)},
            {version: found.variants for version in numbers if (found := self._cache.get((model, version)))},
            problem,
        )

    def choice(self, model: str, version: int, *, revision: int | None = None) -> Variant | str:
        """The variant to bring of a version, or the reason why there is none.

        Args:
            model: Whose version.
            version: Its number.
            revision: Of the labels that name it; None for the last that was seen.
        """
        found = self._cache.get((model, version))
        if found and revision in (None, found.revision):
            return found.choice
        try:
            outcome = self._catalog.outcome(model, version)
        except SlipwayError as error:
            return str(error)
        if not isinstance(outcome, ServableVersion):
            why = f": {outcome.why}" if isinstance(outcome, Tombstone) else ""
            return f"{model}:{version} has no manifest{why}"
        choice: Variant | str = next(
            filter(None, map(outcome.variant, self._variants)),
            f"it has no variant {' or '.join(self._variants)}, only "
            f"{', '.join(variant.name for variant in outcome.variants)}; none is substituted",
        )
        self._cache[model, version] = _Manifest(revision or 0, choice, outcome.variants)
        return choice

    def _forget(self, found: Mapping[str, ModelLook]) -> None:
        wanted = {
            (name, version) for name, model in found.items() for version in (model.variants.keys() | model.refused)
        }
        kept = {name for name, model in found.items() if model.wanted is None}
        for key in [key for key in self._cache if key not in wanted and key[0] not in kept]:
            del self._cache[key]
