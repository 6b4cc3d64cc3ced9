"""Which Envoys were left out of what was scraped in a while."""

from __future__ import annotations

from collections.abc import Sequence

from model_registry.rollout.envoy_counts import CLUSTERS, EnvoyCounts
from model_registry.rollout.samples import LastScrape, Series


def counts(**scrapes: Sequence[float]) -> EnvoyCounts:
    """Of one cluster at each Envoy, scraped at these times, which answered a request between any two of them."""

    def series(metric: str, **labels: str) -> list[Series]:
        if metric != CLUSTERS and labels.get("api") != "rest":
            return []
        return [
            Series({"__name__": metric, "job": "envoy", "instance": name}, tuple((t, float(t)) for t in times))
            for name, times in scrapes.items()
        ]

    return EnvoyCounts.read(series)


def behind(**scrapes: Sequence[float]) -> tuple[LastScrape, ...]:
    return counts(**scrapes).requests(()).behind


def test_an_envoy_that_is_scraped_no_more_freezes_what_is_covered_and_is_named() -> None:
    found = counts(a=range(0, 61, 10), b=range(3, 34, 10))

    assert found.scraped() == (0, 33)
    assert found.requests(()).behind == (LastScrape(33, "b"),)


def test_envoys_that_are_scraped_in_turn_are_none_behind_at_any_moment() -> None:
    for now in range(200):
        assert behind(**{name: range(first, now + 1, 15) for name, first in (("a", 0), ("b", 7), ("c", 14))}) == ()


def test_envoys_that_nobody_scrapes_any_more_are_not_behind_each_other() -> None:
    assert behind(a=(0, 10, 20), b=(9, 19, 29)) == ()


def test_who_was_scraped_longest_ago_comes_first() -> None:
    assert behind(a=(0, 10), b=(1,), c=(2, 12, 22, 32), d=(), e=(31, 41)) == (
        LastScrape(1, "b"),
        LastScrape(10, "a"),
    )


def test_an_envoy_that_is_added_is_not_behind() -> None:
    assert behind(a=(0, 10, 20, 30), b=(25,)) == ()


def test_no_scrape_leaves_nobody_behind() -> None:
    assert counts().scraped() is None
    assert behind() == behind(a=(5,)) == ()
