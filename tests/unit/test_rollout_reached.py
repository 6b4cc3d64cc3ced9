"""Whether all gateways and servers are where they should be, by what each was seen to be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.rollout.reached import GatewaySeen, Reached, ServerSeen, all_gateways, all_servers

GATEWAY = GatewaySeen(up=True, weight=25, revision=7)
SERVER = ServerSeen(up=True, read=True, revision=7, wanted=3, serving=3)
UPS = st.none() | st.booleans()
GAVE_UP = replace(SERVER, serving=None, gave_up=3)
BESIDE = ServerSeen(up=True, read=True)
NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 2.0, 3.0, 6.0, 7.0, 8.0, 25.0, 25.5, float("nan"), float("inf")]))


@given(st.dictionaries(st.text(), st.builds(GatewaySeen, UPS, NUMBERS, NUMBERS), max_size=4))
def test_a_weight_is_in_force_only_where_every_gateway_says_so(seen: dict[str, GatewaySeen]) -> None:
    found = all_gateways(seen, weight=25, revision=7)
    assert found.reached == (
        bool(seen) and all(one.up and one.weight == 25 and (one.revision or 0) >= 7 for one in seen.values())
    )
    assert found.words and not found.failed


@given(
    st.dictionaries(
        st.text(),
        st.builds(ServerSeen, UPS, st.booleans(), NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        max_size=4,
    )
)
def test_a_version_is_served_only_where_no_server_is_amiss(seen: dict[str, ServerSeen]) -> None:
    found = all_servers(seen, label="canary", version=3, revision=7)
    assert not (found.reached and found.failed)
    if found.reached:
        following = [one for one in seen.values() if one.wanted is not None and one.revision is not None]
        assert following and all(one.up and one.read and one.serving == one.wanted == 3 for one in following)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"up": False}, "b is down"),
        ({"up": None, "wanted": None}, "b followed canary within the last ten minutes and does not any more"),
        ({"up": None}, "b followed canary of late, but Prometheus has no `up` with the same job and instance"),
        ({"read": False}, "b has not read the registry yet"),
        ({"revision": 6.0}, "b has read revision 6, not yet 7"),
        ({"wanted": 4.0}, "b read that canary names version 4 instead of 3"),
        ({"serving": None}, "b answers with nothing as canary instead of version 3"),
        ({"serving": 2.0}, "b answers with version 2 as canary instead of version 3"),
        ({"serving": 2.0, "gave_up": 2.0}, "b answers with version 2 as canary instead of version 3"),
    ],
)
def test_the_server_that_is_amiss_is_named(change: dict[str, Any], words: str) -> None:
    seen = {"a": SERVER, "b": replace(SERVER, **change), "c": BESIDE}
    found = all_servers(seen, label="canary", version=3, revision=7)
    assert (found.reached, found.words) == (False, words)


def test_a_server_that_gave_the_version_up_has_failed() -> None:
    found = all_servers({"a": SERVER, "b": GAVE_UP}, label="canary", version=3, revision=7)
    assert found == Reached(
        False,
        True,
        "b answers with nothing as canary instead of version 3, which FAILED to load there: its agent's /status tells "
        "why",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"gave_up": 2.0},  # what the label named before
        {"gave_up": float("nan")},
        {"gave_up": None},
        {"wanted": 4.0},
        {"wanted": 4.0, "gave_up": 4.0},
        {"wanted": None},
        {"revision": 6.0},  # the version was tried before, and the agent does not know yet that it is tried again
        {"revision": float("nan")},
        {"revision": None},
        {"up": False},
        {"up": None},
    ],
    ids=str,
)
def test_a_server_has_failed_only_with_the_version_that_is_meant_as_it_is_meant_now(change: dict[str, Any]) -> None:
    found = all_servers({"a": SERVER, "b": replace(GAVE_UP, **change)}, label="canary", version=3, revision=7)
    assert not found.failed
    assert "FAILED" not in found.words


def test_a_server_that_answers_with_a_version_has_not_failed_with_it() -> None:
    assert all_servers({"a": replace(GAVE_UP, serving=3)}, label="canary", version=3, revision=7).reached


def test_a_gateway_that_prometheus_does_not_scrape_is_amiss_whatever_it_told() -> None:
    for weight, words in [
        (None, "b told a weight within the last ten minutes and does not any more"),
        (25.0, "b told a weight of late, but Prometheus has no `up` with the same job and instance"),
    ]:
        found = all_gateways({"a": GATEWAY, "b": replace(GATEWAY, up=None, weight=weight)}, weight=25, revision=7)
        assert (found.reached, found.words) == (False, words)


def test_a_hundred_gateways_are_not_all_listed() -> None:
    words = all_gateways({f"g{number:03}": GatewaySeen(up=False) for number in range(100)}, weight=0, revision=1).words
    assert words.startswith("g000 is down; ") and words.endswith("; and 92 more") and len(words) < 200
