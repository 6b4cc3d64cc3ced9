"""Collects garbage: reads what is there, lets the rules in `garbage` judge it, and carries out what they say.

Between a plan and its execution anything may happen: a person is asked in between. So everything that
decides is conditional on what lies in the store at that moment, and what somebody else did first is left
to them. What fails is reported, and the rest goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from model_registry import garbage, paths
from model_registry.claims import Claim
from model_registry.documents import now
from model_registry.errors import ConflictError, FormatError, InvalidInputError, NotFoundError, SlipwayError
from model_registry.garbage import Item, Newest, Note, Verdict
from model_registry.inventory import Inventory, payload_objects, staged_runs, take_inventory, valid_objects
from model_registry.parallel import in_parallel
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.reservation import Reservation
from model_registry.servable import TOMBSTONE_BYTES, ServableVersion
from model_registry.state import Origin
from model_registry.storage.base import Leftover, ObjectInfo, ObjectStore
from model_registry.tombstone import Tombstone, read_outcome

DAY = 86_400.0

# Labels that may be moved to one of the versions, one after the other, before we give up retiring the others.
_ROUNDS = 20

log = logging.getLogger("slipway.registry")


@dataclass(frozen=True)
class Failure:
    """Something that could not be read, or not be done.

    Attributes:
        name: Of the model, or as in `Item`.
        error: What came of it.
    """

    name: str
    error: SlipwayError


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        items: In the order in which it will be, the models' own first.
        notes: What stays although it looks like garbage.
        failures: What could not be read.
        keep: How many of the newest versions stay unretired; None for all.
        grace: Seconds.
    """

    items: tuple[Item, ...]
    notes: tuple[Note, ...]
    failures: tuple[Failure, ...]
    keep: int | None
    grace: float


@dataclass(frozen=True)
class Report:
    """What was done.

    Attributes:
        items: As in the plan, with what was really deleted.
        notes: What stays although it looks like garbage, or was somebody else's to do.
        failures: What could not be read or done.
    """

    items: tuple[Item, ...]
    notes: tuple[Note, ...]
    failures: tuple[Failure, ...]


def plan(
    registry: Registry, models: Sequence[str] | None = None, *, keep: int | None = None, grace: float = DAY
) -> Plan:
    """Finds the garbage, and changes nothing.

    Args:
        registry: Where.
        models: Whose; None for all models, staging directories and what interrupted writes left.
        keep: How many of the newest versions of each model stay; the others are to be retired, unless a
            label needs them. None retires nothing.
        grace: Seconds that must have passed since a version was retired, or since anybody wrote to what is
            abandoned. With 0 whatever is under way fails, and nothing that was committed is lost.

    Raises:
        NotFoundError: If there is no such model.
        StorageError: If the models cannot be listed.
    """
    there = registry.models()
    if unknown := [name for name in models or () if name not in there]:
        raise registry.no_such_version(Reference(paths.check_model_name(unknown[0])), None)
    judged = partial(_judge_model, registry, keep=keep, grace=grace)
    found = [*in_parallel(partial(_attempt, judged), there if models is None else sorted({*models}))]
    if models is None:
        found += (
            _attempt(lambda _: _judge_staging(registry.store, grace), paths.STAGING),
            _attempt(lambda _: garbage.judge_leftovers(registry.store.leftovers(), grace), "interrupted writes"),
        )
    verdict = garbage.merged(outcome for outcome in found if isinstance(outcome, Verdict))
    failures = tuple(outcome for outcome in found if isinstance(outcome, Failure))
    return Plan(verdict.items, verdict.notes, failures, keep, grace)


def collect(registry: Registry, planned: Plan, *, origin: Origin) -> Report:
    """Carries a plan out, as far as it still holds.

    Args:
        registry: The one that the plan is of.
        planned: What `plan` found.
        origin: Who does it. Why is said here.
    """
    collector = _Collector(registry, planned, origin)
    for model, items in groupby(planned.items, key=lambda item: item.model):
        if model is None:
            for item in items:
                collector.clear(item)
        else:
            collector.collect(model, [*items])
    return Report(tuple(collector.done), tuple(collector.notes), tuple(collector.failures))


class _Collector:
    """What was done so far."""

    def __init__(self, registry: Registry, planned: Plan, origin: Origin) -> None:
        self._registry = registry
        self._store = registry.store
        self._plan = planned
        self._origin = origin
        self.done: list[Item] = []
        self.notes = [*planned.notes]
        self.failures = [*planned.failures]

    def collect(self, model: str, items: Sequence[Item]) -> None:
        """Retires versions of a model, then deletes what is garbage of it."""
        if superfluous := [item for item in items if item.kind == "retire"]:
            with self._reporting(model):
                self._retire(model, superfluous)
        gone: list[int] = []
        for item in items:
            number = item.version
            if number is None or item.kind == "retire":
                continue
            with self._reporting(item.name):
                if item.kind == "version":
                    self._delete_version(model, number, item)
                    gone.append(number)
                else:
                    if item.kind == "orphan":
                        self._store.put_new(paths.manifest(model, number), self._tombstone(item))
                    self._delete(item, payload_objects(self._store, model, number))
        if gone:
            with self._reporting(model):
                self._registry.collected(model, gone, origin=replace(self._origin, why="gc"))

    def clear(self, item: Item) -> None:
        """Deletes what belongs to no model."""
        with self._reporting(item.name):
            if item.kind == "leftover":
                self._store.discard(Leftover(item.name, item.bytes, item.age))
                self.done.append(item)
                return
            found = [*valid_objects(self._store, item.name)]
            if any(info.age < self._plan.grace for info in found):
                raise ConflictError("its run goes on")
            # Held meanwhile: the run may be tried again at any moment.
            with self._store.workspace(item.name.removeprefix(paths.STAGING).rstrip("/")):
                self._delete(item, found)

    def _retire(self, model: str, items: Sequence[Item]) -> None:
        """Makes one transition of all, without those that a label was moved to since they were judged."""
        origin = replace(self._origin, why=f"gc --keep {self._plan.keep}")
        for attempt in range(1, _ROUNDS + 1):
            state = self._registry.state(model)
            needed = state.needed()
            committed = self._registry.committed(model)
            chosen = {
                item.version: item
                for item in items
                if item.version in committed and item.version not in needed and item.version not in state.retired
            }
            try:
                if chosen:
                    self._registry.retire(model, [*chosen], origin=origin)
            except ConflictError:
                if attempt == _ROUNDS:
                    raise
                continue
            self.done += chosen.values()
            moved = (item for item in items if item.version in needed)
            self.notes += [Note(item.name, "a label was moved to it meanwhile") for item in moved]
            return

    def _delete_version(self, model: str, number: int, item: Item) -> None:
        """Deletes a retired version's files, once a tombstone lies where its manifest did."""
        key = paths.manifest(model, number)
        stored = self._store.get(key)
        try:
            found = read_outcome(stored.data, key=key)
        except FormatError:
            if len(stored.data) <= TOMBSTONE_BYTES:
                raise
            found = None  # nobody can read it: it goes like any other
        # Nothing was deleted until here. Once retired, a version never gets a label back.
        state = self._registry.state(model)
        if number not in state.retired or number in state.needed():
            raise ConflictError("it is not retired any more")
        if not isinstance(found, Tombstone):
            self._store.put_if_match(key, self._tombstone(item, found), stored.etag)
        self._delete(item, payload_objects(self._store, model, number))

    def _delete(self, item: Item, objects: Iterable[ObjectInfo]) -> None:
        found = [*objects]
        # First what a server that looks at the directory must find to take it for a model.
        keys = sorted((info.key for info in found), key=lambda key: not key.endswith("/saved_model.pb"))
        self._store.delete(keys)
        if item.model:  # other names may hold anything
            log.info("%s: deleted, %d files", item.name, len(found))
        self.done.append(replace(item, files=len(found), bytes=sum(info.size for info in found)))

    def _tombstone(self, item: Item, collected: ServableVersion | None = None) -> bytes:
        source = collected.source if collected else None
        return Tombstone.of(source, f"gc {self._origin.who}", f"{item.why}, and collected", now()).to_json()

    @contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ConflictError, NotFoundError) as error:
            self.notes.append(Note(name, f"somebody else was first: {error.message}"))
        except SlipwayError as error:
            self.failures.append(Failure(name, error))


def _attempt(judged: Callable[[str], Verdict], name: str) -> Verdict | Failure:
    try:
        return judged(name)
    except SlipwayError as error:
        return Failure(name, error)


def _judge_model(registry: Registry, model: str, *, keep: int | None, grace: float) -> Verdict:
    store = registry.store
    found = take_inventory(store, model)
    ages = {number: _claim_age(store, model, number) for number in garbage.suspects(found, grace)}
    tombstones = {number: _tombstone_at(store, model, number) for number in garbage.graves(found)}
    return garbage.judge(
        found,
        newest=None if keep is None else _newest(registry, found, keep),
        grace=grace,
        claims={number: age for number, age in ages.items() if age is not None},
        tombstones={number: tombstone for number, tombstone in tombstones.items() if tombstone},
    )


def _newest(registry: Registry, found: Inventory, keep: int) -> Newest:
    """Reads manifests, the newest first, until enough of them can be trusted."""
    versions: set[int] = set()
    unreadable: dict[int, str] = {}
    for number in sorted(found.committed.keys() - found.state.retired.keys(), reverse=True):
        if len(versions) == keep:
            break
        try:
            if isinstance(registry.outcome(found.model, number), ServableVersion):
                versions.add(number)
        except FormatError as error:
            unreadable[number] = error.message
    return Newest(keep, frozenset(versions), unreadable)


def _judge_staging(store: ObjectStore, grace: float) -> Verdict:
    runs = {run: files for run, files in staged_runs(store).items() if files.age >= grace}
    return garbage.judge_staging(runs, {run for run in runs if store.in_use(run)}, grace)


def _claim_age(store: ObjectStore, model: str, number: int) -> float | None:
    """Seconds since the claim that names a reserved number was renewed; None where there is none that can be read."""
    key = paths.reservation(model, number)
    with suppress(NotFoundError, FormatError, InvalidInputError):  # the identity may be no part of a key
        reservation = Reservation.from_json(store.get(key).data, key=key)
        stored = store.get(claim := paths.claim(model, reservation.identity))
        if Claim.from_json(stored.data, key=claim).version == number:
            return stored.age
    return None


def _tombstone_at(store: ObjectStore, model: str, number: int) -> Tombstone | None:
    key = paths.manifest(model, number)
    with suppress(NotFoundError, FormatError):
        found = read_outcome(store.get(key).data, key=key)
        if isinstance(found, Tombstone):
            return found
    return None
