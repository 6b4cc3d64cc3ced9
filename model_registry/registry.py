"""The registry as its writers see it: publishing versions, and moving labels between them.

A change of labels is read, decided by the rules in `transitions`, and swapped in by `journal`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from pydantic_core import to_json

from model_registry import paths, transitions
from model_registry.catalog import Catalog
from model_registry.documents import SCHEMA_VERSION, now
from model_registry.errors import ConflictError, FormatError, InvalidInputError, NotFoundError
from model_registry.journal import Journal
from model_registry.parallel import in_parallel
from model_registry.paths import Reference
from model_registry.publishing import Publisher
from model_registry.servable import ServableVersion
from model_registry.signing import Signer, Verifier, load_keys
from model_registry.state import Origin, Record, State, Transition
from model_registry.storage import ObjectStore, open_store
from model_registry.tombstone import Outcome
from model_registry.transitions import Expect, Expected
from model_registry.verification import Problem, verify

REGISTRY_VARIABLE = "SLIPWAY_REGISTRY"
DEFAULT_REGISTRY = "./registry"

_ROUNDS = 20

log = logging.getLogger("slipway.registry")


class Registry(Catalog):
    """Which versions of which models there are, how one more comes in, and what their labels name.

    Every method that moves a label or retires a version takes

    - `origin`: who does it, and why, for `slipway history`,
    - `dry_run`: whether to hold it to the rules and change nothing,

    returns the record of the transition, or None if there was nothing to change, and raises

    - NotFoundError, if the version or label is not there,
    - ConflictError, if a rule forbids it or somebody else was first; nothing was changed then,
    - StorageError, if the store failed; the message says if it cannot be told what became of it.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        lease: float = 60.0,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        """Opens a registry.

        Args:
            store: Where everything lies.
            lease: Seconds without a sign of life after which another publisher is taken for dead.
            signer: Signs what is published; None publishes it unsigned.
            verifier: Whose signature every manifest must bear; None trusts the store.
        """
        super().__init__(store, verifier=verifier)
        self._lease = lease
        self._signer = signer

    @classmethod
    def open(cls, url: str | None = None) -> Registry:
        """Opens the registry at a URL, else the one $SLIPWAY_REGISTRY names, else ./registry.

        Raises:
            InvalidInputError: If it is neither a path nor an s3:// URL, or a configured key cannot be used.
        """
        signer, verifier = load_keys(os.environ)
        store = open_store(url or os.environ.get(REGISTRY_VARIABLE) or DEFAULT_REGISTRY)
        return cls(store, signer=signer, verifier=verifier)

    def check(self) -> None:
        """Fails within seconds if nothing could be published here.

        Raises:
            InvalidInputError: If what is published could not be read again, for want of a signature.
            StorageError: If the store cannot be written, or ignores the conditions of a write.
        """
        self._require_key()
        self.store.check()

    def publish(
        self, draft: ServableVersion, payloads: Mapping[str, Path], *, force: bool = False
    ) -> tuple[ServableVersion, bool]:
        """Uploads and commits a new version, unless one of the same identity is committed and not retired.

        Args:
            draft: The manifest, with version 0 and neither created_at nor write_id. Variants without
                files are hashed here.
            payloads: Each variant's SavedModel directory. A local registry consumes it by a rename.
            force: Makes a new version whatever there is.

        Returns:
            The committed version, and whether it was there already.

        Raises:
            InvalidInputError: If the draft or a payload cannot be published.
            ConflictError: If this publisher was taken for dead and given up.
            StorageError: If the store failed; nothing is committed then, or the message says that it
                cannot be told. Transient only if calling again can succeed, and makes no second version.
        """
        self._require_key()
        return Publisher(self, draft, payloads, lease=self._lease, signer=self._signer).publish(force=force)

    def record_rejection(self, draft: ServableVersion, *, reason: str) -> None:
        """Writes down that a candidate was refused and why, in place of an earlier record of it."""
        key = paths.rejection(paths.check_model_name(draft.model), draft.identity)
        document = {
            "schema_version": SCHEMA_VERSION,
            "model": draft.model,
            "identity": draft.identity,
            "rejected_at": now(),
            "reason": reason,
            "source": draft.source,
            "blessing": {"verdict": draft.blessing.verdict, "checks": draft.blessing.checks},
            "run": draft.run,
        }
        data = to_json(document, indent=2) + b"\n"
        for _ in range(_ROUNDS):
            try:
                self.store.put_new(key, data)
                return
            except ConflictError:
                pass
            try:
                self.store.put_if_match(key, data, self.store.get(key).etag)
                return
            except (ConflictError, NotFoundError):
                continue
        raise ConflictError(f"{key} is being written by too many at once")

    def verify(self, version: ServableVersion) -> list[Problem]:
        """Reads every file of every variant back and holds it against the manifest."""
        return verify(self.store, version)

    def promote(
        self,
        model: str,
        version: int,
        label: str,
        *,
        origin: Origin,
        expect: Expected = Expect.ANYTHING,
        dry_run: bool = False,
    ) -> Record | None:
        """Lets a label name a committed version; `expect` is what the label is believed to name."""
        decide = partial(
            transitions.promote, model=model, version=version, label=paths.check_label(label), expect=expect
        )
        return self._change(model, decide, origin=origin, dry_run=dry_run)

    def follow(self, version: ServableVersion, label: str, *, origin: Origin, dry_run: bool = False) -> Record | None:
        """Lets a label name a version that was just published, unless it ever named a higher one.

        Of two that follow at once the higher version wins, whoever comes first: so who conflicts decides anew.
        """
        number = version.version
        decide = partial(transitions.follow, model=version.model, version=number, label=paths.check_label(label))
        return self._change(version.model, decide, origin=origin, dry_run=dry_run, rounds=_ROUNDS)

    def roll_back(
        self, model: str, label: str, *, origin: Origin, expect: Expected = Expect.ANYTHING, dry_run: bool = False
    ) -> Record | None:
        """Lets a label name the version that it named before, one step back in its own past."""
        decide = partial(transitions.roll_back, model=model, label=paths.check_label(label), expect=expect)
        return self._change(model, decide, origin=origin, dry_run=dry_run)

    def unlabel(
        self, model: str, label: str, *, origin: Origin, expect: Expected = Expect.ANYTHING, dry_run: bool = False
    ) -> Record | None:
        """Takes a label away, with its past."""
        decide = partial(transitions.unlabel, model=model, label=paths.check_label(label), expect=expect)
        return self._change(model, decide, origin=origin, dry_run=dry_run)

    def retire(
        self, model: str, versions: Collection[int], *, origin: Origin, forget: bool = False, dry_run: bool = False
    ) -> Record | None:
        """Decides that no label shall ever name these versions again; gc deletes them later.

        With `forget` rollbacks pass over them; else one that a label may be rolled back to is refused.
        """
        decide = partial(transitions.retire, model=model, versions=versions, forget=forget)
        return self._change(model, decide, origin=origin, dry_run=dry_run)

    def change_traffic(
        self,
        model: str,
        decide: Callable[[State], Transition | None],
        *,
        origin: Origin,
        dry_run: bool = False,
        insist: bool = False,
        write_id: str = "",
    ) -> Record | None:
        """Lets a rollout go on, as model_registry.rollout_transitions decides.

        Args:
            model: Whose.
            decide: Given the state, what is done; None for nothing.
            origin: Who does it, and why.
            dry_run: Whether to hold it to the rules and change nothing.
            insist: Whether to decide anew where somebody else was first, as an operator means it: pause whatever runs.
            write_id: By which the record of it is known (model_registry.journal.new_write_id); empty for a new one.
        """
        rounds = _ROUNDS if insist else 1
        return self._change(model, decide, origin=origin, dry_run=dry_run, rounds=rounds, write_id=write_id)

    def collected(self, model: str, versions: Collection[int], *, origin: Origin) -> Record | None:
        """Notes that retired versions were deleted (model_registry.collection)."""
        return self._change(model, partial(transitions.collect, versions=versions), origin=origin, dry_run=False)

    def _require_key(self) -> None:
        if self.verifier and not self._signer:
            raise InvalidInputError(
                "a public key is configured and no key to sign with: what is published unsigned would be refused "
                "by every reader",
                hint="set SLIPWAY_SIGNING_KEY, or unset SLIPWAY_PUBLIC_KEY where models are packaged",
            )

    def _change(
        self,
        model: str,
        decide: Callable[[State], Transition | None],
        *,
        origin: Origin,
        dry_run: bool,
        rounds: int = 1,
        write_id: str = "",
    ) -> Record | None:
        journal = Journal(self.store, model)
        while True:
            rounds -= 1
            seen = journal.read()
            transition = decide(seen.state)
            if transition is None:
                return None
            confirm = partial(self._require_committed, model, transition)
            confirm()
            if dry_run:
                return Record(seen.state.revision + 1, transition, origin, now(), write_id="")
            try:
                return journal.commit(transition, seen, origin=origin, confirm=confirm, write_id=write_id)
            except ConflictError:
                if rounds <= 0:
                    raise

    def _require_committed(self, model: str, transition: Transition) -> None:
        """Holds a transition to what only the manifests tell: that its versions are committed, with every variant.

        Asked after the state was read: what is collected is retired in the state before, and so conflicts.
        """
        if transition.action == "retire":
            missing = {*transition.versions} - {listed.version for listed in self.listing(model)}
            if missing:
                raise self.no_such_version(Reference(model, version=min(missing)), self.outcome(model, min(missing)))
        moved = _moves(transition)
        if moved is None:
            return
        label, to, before = moved
        target, *holders = in_parallel(partial(self._outcome_or_error, model), (to, *before))
        if isinstance(target, FormatError):
            raise target
        if not isinstance(target, ServableVersion):
            raise self.no_such_version(Reference(model, version=to), target)
        for number, holder in zip(before, holders, strict=True):
            if isinstance(holder, ServableVersion):
                transitions.require_variants(target, holder, label)
            else:  # a label must be free to leave it
                log.warning("%s:%s, which %s@%s names, has no manifest that can be read", model, number, model, label)

    def _outcome_or_error(self, model: str, version: int) -> Outcome | FormatError:
        try:
            return self.outcome(model, version)
        except FormatError as error:
            return error


def _moves(transition: Transition) -> tuple[str, int, tuple[int, ...]] | None:
    """Which label is to name which version, and those whose variants it needs; None where none moves forward."""
    label, before, to = transition.label, transition.from_version, transition.to_version
    if transition.action == "begin" and transition.traffic and (traffic := transition.traffic.after):
        holders = {traffic.baseline, *([] if before is None else [before])}
        return traffic.canary, traffic.candidate, tuple(sorted(holders))
    if label is None or to is None or transition.action in ("withdraw", "finish"):  # which was served before
        return None
    return label, to, () if before is None else (before,)
