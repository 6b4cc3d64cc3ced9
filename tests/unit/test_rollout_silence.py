"""What a pause says where there are samples of some Envoys and not of others."""

from __future__ import annotations

import pytest

from model_registry.rollout.baking import Sight
from model_registry.rollout.observation import Window
from model_registry.rollout.samples import LastScrape, Requests
from model_registry.rollout.silence import Silence
from model_registry.traffic import Plan, Traffic

NOW = 1_800_000_000.0
PLAN = Plan(steps=(5, 100), bake=600.0)
BEGINS_ANEW = (
    "; where an Envoy is gone for good, the bake begins anew without it within ten minutes, else see why Prometheus "
    "does not scrape it"
)


def baking(weight: int = 5) -> Traffic:
    return Traffic(2, "stable", "canary", 1, 2, None, PLAN, weight=weight, phase="baking", since=NOW, bakes=1)


def window(covered: float, **behind: float) -> Window:
    """With the seconds after the bake began at which an Envoy was scraped last, of those that are behind."""
    last = tuple(sorted(LastScrape(NOW + seconds, instance) for instance, seconds in behind.items()))
    return Window(Requests(1000, behind=last), covered, 0)


def said(canary: Window, stable: Window, *, traffic: Traffic | None = None) -> str:
    """Why a bake is paused that has had samples of 100 seconds, and 287 seconds later still has."""
    silence = Silence(100)
    for seconds in (200, 260, 387):
        silence = silence.heard(traffic or baking(), Sight(NOW + seconds, canary, stable), seconds)
    move = silence.move(PLAN, 387)
    assert move is not None and move.silent
    return move.why


def test_an_envoy_that_is_scraped_no_more_is_named_and_not_prometheus() -> None:
    gone = window(100, gone=100)

    assert said(gone, gone) == (
        "no data for 187 s: Prometheus has newer samples of the requests to canary and stable, but none for 287 s from "
        f"the Envoy at gone{BEGINS_ANEW}"
    )


def test_only_the_side_that_lacks_samples_is_told_of() -> None:
    assert "of the requests to canary, but none for 287 s" in said(window(100, gone=100), window(380))
    at_100 = said(window(100, gone=100), window(0), traffic=baking(100))
    assert "of the requests to canary, but none for 287 s" in at_100


def test_the_first_envoys_to_fall_silent_are_named_of_many() -> None:
    many = window(100, e=350, b=101, a=100, d=300, c=200)

    assert said(many, window(100, a=100)).endswith(
        "but none for 287 s from the Envoy at a, for 286 s from the Envoy at b, for 187 s from the Envoy at c, and 2 "
        f"more{BEGINS_ANEW}"
    )


@pytest.mark.parametrize("stable", [window(100), window(50)])
def test_where_a_side_has_no_new_samples_of_any_envoy_it_is_prometheus_that_lacks_them(stable: Window) -> None:
    assert said(window(100, gone=100), stable) == (
        "no data for 187 s: Prometheus has no new samples of the requests to canary and stable"
    )
