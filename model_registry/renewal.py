"""Keeps a claim alive while its holder works."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from model_registry.claims import Claim
from model_registry.errors import ConflictError, NotFoundError, SlipwayError
from model_registry.storage.base import ObjectStore

log = logging.getLogger("slipway.registry")


@contextmanager
def renewed(store: ObjectStore, key: str, claim: Claim, etag: str, *, every: float) -> Iterator[None]:
    """Renews a claim from a thread of its own, until the work is done or the claim is somebody else's.

    Args:
        store: Where the claim lies.
        key: Of the claim.
        claim: As it was written last.
        etag: Of that document.
        every: Seconds from one renewal to the next.
    """
    done = threading.Event()

    def renew() -> None:
        current: Claim | None = claim
        tag = etag
        while current and not done.wait(every):
            try:
                try:
                    tag = store.put_if_match(key, current.renewed().to_json(), tag)
                    current = current.renewed()
                except ConflictError:
                    # By another publisher, or by a renewal of our own whose answer was lost.
                    current, tag = _reread(store, key, claim)
            except SlipwayError as error:
                log.warning("the claim %s could not be renewed: %s", key, error)

    # In the caller's context, from which Prefect learns whose log a line belongs to.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(renew,), name="renew-claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _reread(store: ObjectStore, key: str, ours: Claim) -> tuple[Claim | None, str]:
    """The claim with its etag if it is still ours; if not, the commit will tell."""
    try:
        stored = store.get(key)
    except NotFoundError:
        return None, ""
    found = Claim.from_json(stored.data, key=key)
    still_ours = (found.write_id, found.version) == (ours.write_id, ours.version)
    return (found if still_ours else None), stored.etag
