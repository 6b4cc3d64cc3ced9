"""What a process was about when it was killed: each way to change a registry, and what was there before.

Every one can be run again by whoever does not know whether the first run came to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model_registry import paths
from model_registry.claims import Claim
from model_registry.collection import collect, plan
from model_registry.documents import now
from model_registry.errors import ConflictError
from model_registry.payload import SAVED_MODEL
from model_registry.registry import Registry
from model_registry.reservation import Reservation
from model_registry.servable import NATIVE, Run, ServableVersion
from model_registry.state import Origin
from model_registry.tombstone import Tombstone
from tests.support.drafts import CONTENT, make_draft, make_payload

MODEL = "digits"
OURS = "a1"
_OTHER = "b2"
_THIRD = "c3"
_WEIGHTS = "variables/variables.data-00000-of-00001"
# Two parts of a multipart upload.
_LARGE = {**CONTENT, _WEIGHTS: b"\x5a" * (9 << 20)}


@dataclass(frozen=True)
class Operation:
    """One way to change a registry.

    Attributes:
        name: For people.
        prepare: Makes what is there before.
        run: Does it, as the run of that name.
        repeats: Whether it does its work once more when it is run again after its end.
    """

    name: str
    prepare: Callable[[Registry], None]
    run: Callable[[Registry, str], None]
    repeats: bool = False


def publish_as_a_run(
    registry: Registry,
    run: str,
    identity: str,
    *,
    force: bool = False,
    content: dict[str, bytes] = CONTENT,
) -> tuple[ServableVersion, bool]:
    """Publishes what it writes into the run's workspace, as a packaging does; files tell identities apart."""
    content = {**content, SAVED_MODEL: f"the graph of {identity}".encode()}
    with registry.store.workspace(run) as directory:
        payload = make_payload(directory / "native", content)
        return registry.publish(make_draft(MODEL, identity, run), {"native": payload}, force=force)


def _origin(run: str) -> Origin:
    return Origin("somebody", why=f"the test's {run}")


def _nothing(_: Registry) -> None:
    pass


def _one_version(registry: Registry) -> None:
    publish_as_a_run(registry, "earlier-1", _OTHER)
    registry.promote(MODEL, 1, "stable", origin=_origin("earlier"))


def _one_of_ours(registry: Registry) -> None:
    publish_as_a_run(registry, "earlier-1", OURS)
    registry.promote(MODEL, 1, "stable", origin=_origin("earlier"))


def _two_versions(registry: Registry) -> None:
    _one_version(registry)
    publish_as_a_run(registry, "earlier-2", OURS)


def _two_versions_and_no_label(registry: Registry) -> None:
    publish_as_a_run(registry, "earlier-1", _OTHER)
    publish_as_a_run(registry, "earlier-2", OURS)


def _a_label_with_a_past(registry: Registry) -> None:
    _two_versions(registry)
    registry.promote(MODEL, 2, "stable", origin=_origin("earlier"))


def _garbage_of_every_kind(registry: Registry) -> None:
    _a_label_with_a_past(registry)
    publish_as_a_run(registry, "earlier-3", _THIRD)
    registry.retire(MODEL, [3], origin=_origin("earlier"))
    for number, ended in ((4, False), (5, True)):
        identity, run = f"dead-{number}", Run(f"dead-{number}", "dead")
        reservation = Reservation(number, identity, run, now(), write_id="dead")
        registry.store.put_new(paths.reservation(MODEL, number), reservation.to_json())
        registry.store.put_new(paths.claim(MODEL, identity), Claim(number, "dead", run).to_json())
        for variant in (NATIVE, "tensorrt-fp16-sm89"):
            for name in ("saved_model.pb", "variables/variables.index"):
                registry.store.put_new(f"{paths.payload(MODEL, variant, number)}{name}", b"half")
        if ended:
            tombstone = Tombstone("somebody", "its publisher died", now())
            registry.store.put_new(paths.manifest(MODEL, number), tombstone.to_json())
    registry.store.put_new(f"{paths.staging('dead')}native/saved_model.pb", b"half")


def collect_garbage(registry: Registry, run: str) -> None:
    """Collects all that is garbage at this moment."""
    report = collect(registry, plan(registry, grace=0), origin=_origin(run))
    assert report.failures == ()


def _publish(registry: Registry, run: str) -> None:
    publish_as_a_run(registry, run, OURS)


def _publish_large(registry: Registry, run: str) -> None:
    publish_as_a_run(registry, run, OURS, content=_LARGE)


def _force(registry: Registry, run: str) -> None:
    publish_as_a_run(registry, run, OURS, force=True)


def _label_first(registry: Registry, run: str) -> None:
    registry.promote(MODEL, 1, "stable", origin=_origin(run))


def _promote(registry: Registry, run: str) -> None:
    registry.promote(MODEL, 2, "stable", origin=_origin(run))


def _roll_back(registry: Registry, run: str) -> None:
    try:
        registry.roll_back(MODEL, "stable", expect=2, origin=_origin(run))
    except ConflictError:
        if registry.state(MODEL).labels["stable"] != 1:
            raise


def _unlabel(registry: Registry, run: str) -> None:
    try:
        registry.unlabel(MODEL, "stable", expect=2, origin=_origin(run))
    except ConflictError:
        if "stable" in registry.state(MODEL).labels:
            raise


def _retire(registry: Registry, run: str) -> None:
    registry.retire(MODEL, [1], forget=True, origin=_origin(run))


COLLECTION = "collect garbage"
OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("publish the first version", _nothing, _publish),
        Operation("publish another version", _one_version, _publish),
        Operation("publish a large version", _one_version, _publish_large),
        Operation("publish by force", _one_of_ours, _force, repeats=True),
        Operation("set the first label", _two_versions_and_no_label, _label_first),
        Operation("promote", _two_versions, _promote),
        Operation("roll back", _a_label_with_a_past, _roll_back),
        Operation("unlabel", _a_label_with_a_past, _unlabel),
        Operation("retire", _a_label_with_a_past, _retire),
        Operation(COLLECTION, _garbage_of_every_kind, collect_garbage),
    )
}
