"""Eight processes change one registry at once: on a local directory, and on an S3 server over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.registry import Registry
from model_registry.storage import open_store
from model_registry.storage.base import ObjectStore
from model_registry.verification import contradictions
from tests.support.figures import Figures
from tests.support.fixtures_s3 import Bucket
from tests.support.operations import MODEL, publish_as_a_run
from tests.support.racers import (
    LABEL,
    RACERS,
    Race,
    move_the_label,
    publish_many,
    publish_the_same,
    start_racers,
)

pytestmark = [pytest.mark.figures, pytest.mark.xdist_group("races")]


@pytest.fixture(scope="module")
def race() -> Iterator[Race]:
    with start_racers() as racers:
        yield racers


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "local":
        return str(tmp_path / "registry")
    bucket: Bucket = request.getfixturevalue("s3_bucket")
    return bucket.url


@pytest.fixture
def environ(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """What the racers need of it; their own is from before the server was there."""
    temporary = {"TMPDIR": str(tmp_path)}
    if kind == "local":
        return temporary
    bucket: Bucket = request.getfixturevalue("s3_bucket")
    return temporary | bucket.environ()


def _sizes(local: int, s3: int, soak: tuple[int, int]) -> pytest.MarkDecorator:
    """How many, on each kind of store, in the suite and in the soak."""
    long = [pytest.mark.soak, pytest.mark.timeout(900)]
    return pytest.mark.parametrize(
        ("kind", "count"),
        [
            ("local", local),
            ("s3", s3),
            pytest.param("local", soak[0], marks=long),
            pytest.param("s3", soak[1], marks=long),
        ],
    )


@_sizes(local=25, s3=25, soak=(100, 100))
def test_every_publisher_gets_a_number_of_its_own_and_none_is_lost(
    race: Race, url: str, environ: Mapping[str, str], kind: str, count: int, figures: Figures
) -> None:
    answers = race.run(partial(publish_many, count), url, environ)

    published = [one for answer in answers for one in answer]
    expected = [*range(1, RACERS * count + 1)]
    assert sorted(one.version for one in published) == expected
    assert not any(one.reused for one in published)
    registry = Registry(open_store(url))
    versions = registry.versions(MODEL)
    assert sorted(version.version for version in versions) == expected
    assert {version.version: version.identity for version in versions} == {
        one.version: one.identity for one in published
    }
    assert [registry.verify(version) for version in versions] == [[]] * len(versions)
    assert len({version.variants[0].digest for version in versions}) == len(versions)
    assert contradictions(registry, MODEL) == []
    assert _numbers(registry.store, paths.reservations(MODEL)) == expected
    figures("races of publishers of different content into one model", store=kind, rounds=count, versions=len(versions))


@_sizes(local=10, s3=5, soak=(100, 50))
def test_processes_that_publish_the_same_get_one_version(
    race: Race, url: str, environ: Mapping[str, str], kind: str, count: int, figures: Figures
) -> None:
    answers = race.run(partial(publish_the_same, count), url, environ)

    registry = Registry(open_store(url))
    for which, told in enumerate(zip(*answers, strict=True)):
        assert {one.identity for one in told} == {f"same-{which}"}
        assert len({one.version for one in told}) == 1
        assert Counter(one.reused for one in told) == {False: 1, True: RACERS - 1}
    versions = registry.versions(MODEL)
    assert len(versions) == count
    assert [registry.verify(version) for version in versions] == [[]] * count
    assert contradictions(registry, MODEL) == []
    figures("races of publishers of the same content", store=kind, rounds=count, versions=len(versions))


@_sizes(local=40, s3=15, soak=(400, 150))
def test_one_process_moves_a_label_and_the_others_get_a_conflict(
    race: Race, url: str, environ: Mapping[str, str], kind: str, count: int, figures: Figures
) -> None:
    registry = Registry(open_store(url))
    for number in range(1, 2 * RACERS + 1):
        publish_as_a_run(registry, f"earlier-{number}", f"target-{number}")

    answers = race.run(partial(move_the_label, count), url, environ)

    winners = []
    for which, told in enumerate(zip(*answers, strict=True)):
        won = [(f"racer-{racer}", version) for racer, version in enumerate(told) if version is not None]
        assert len(won) == 1, f"round {which}"
        winners += won
    history = [*reversed(registry.history(MODEL))]
    assert [(record.origin.who, record.transition.to_version) for record in history] == winners
    assert [record.origin.why for record in history] == [str(which) for which in range(count)]
    assert [record.revision for record in history] == [*range(1, count + 1)]
    assert [record.transition.from_version for record in history] == [None, *(to for _, to in winners[:-1])]
    assert registry.state(MODEL).labels == {LABEL: winners[-1][1]}
    assert contradictions(registry, MODEL) == []
    conflicts = sum(version is None for answer in answers for version in answer)
    figures("races to move a label", store=kind, rounds=count, winners=len(winners), conflicts=conflicts)


def _numbers(store: ObjectStore, prefix: str) -> list[int]:
    return sorted(number for info in store.list(prefix) if (number := paths.version_of(info.key)))
