from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_registry.errors import FormatError, InvalidInputError
from model_registry.rollout.histograms import Histogram
from model_registry.rollout.samples import LastScrape, Requests, Series, increments, loading_intervals, requests_of

INF = math.inf
unhurried = settings(deadline=None)


def series(*values: float | None, start: int = 0, **labels: str) -> Series:
    """One point every ten seconds; None where there is none."""
    points = ((10.0 * at, value) for at, value in enumerate(values, start) if value is not None)
    return Series(labels, tuple(points))


def answers(status_class: str, *values: float | None, **labels: str) -> Series:
    return series(*values, envoy_response_code_class=status_class, **labels)


@unhurried
@given(st.lists(st.integers(0, 1000), min_size=1), st.data())
def test_what_was_counted_is_found_whatever_restarts_there_were(grown: list[int], data: st.DataObject) -> None:
    counted, points = 0, [0]
    for count in grown:
        # A restart forgets what was counted; it shows when the counter is lower than before.
        restarted = data.draw(st.booleans()) and count < counted
        counted = count if restarted else counted + count
        points.append(counted)

    assert increments([series(*points)]) == (sum(grown),)


def test_a_counter_that_drops_counts_from_nothing() -> None:
    assert increments([series(100, 130, 7, 9)]) == (30 + 7 + 2,)


def test_a_counter_that_has_outgrown_its_old_value_restarts_with_its_cluster() -> None:
    # After the restart there were 45 fast requests and 5 slow ones; the fast ones alone look like 5 more.
    fast, all_ = series(40, 45, le="10"), series(100, 50, le="+Inf")

    assert increments([fast, all_]) == (45, 50)


def test_a_restart_is_nothing_to_another_cluster() -> None:
    canary = series(1000, 1001, api="rest", instance="a")

    assert increments([canary, series(50, 2, api="grpc", instance="a")])[0] == 1
    assert increments([canary, series(50, 2, api="rest", instance="b")])[0] == 1


def test_a_counter_that_appears_late_began_at_nothing() -> None:
    assert increments([answers("2", 10, 20, 30), answers("5", None, None, 4)]) == (20, 4)


def test_a_counter_that_appears_with_all_others_tells_nothing_of_before() -> None:
    assert increments([answers("2", None, 1000, 1010), answers("5", None, 70, 70)]) == (10, 0)


def test_a_missed_scrape_loses_nothing() -> None:
    assert increments([series(1, None, None, 9)]) == (8,)


@pytest.mark.parametrize(
    ("interval", "left"),
    [((12.0, 13.0), 1 + 100), ((10.0, 20.0), 1 + 100), ((5.0, 15.0), 100), ((20.0, 20.0), 111), ((-INF, INF), 0)],
)
def test_what_grew_while_a_model_was_loaded_is_left_out(interval: tuple[float, float], left: int) -> None:
    assert increments([series(0, 1, 11, 111)], [interval]) == (left,)


def test_a_restart_that_is_left_out_is_one_all_the_same() -> None:
    assert increments([series(50, 3, 5)], [(0, 10)]) == (2,)


def test_a_counter_that_appears_in_an_interval_that_is_left_out_is_not_counted() -> None:
    assert increments([answers("2", 1, 2, 3), answers("5", None, 4, 5)], [(0, 10)]) == (1, 1)


def test_loading_lasts_from_the_point_before_to_the_point_after() -> None:
    assert loading_intervals([series(0, 0, 1, 2, 0, 0, 1, 0)]) == ((10, 40), (50, 70))


def test_loading_has_no_end_where_no_point_tells_it() -> None:
    assert loading_intervals([series(1, 0, 0, 1)]) == ((-INF, 10), (20, INF))


def test_loading_of_several_servers_is_united() -> None:
    one, another, idle = series(0, 1, 0, 0, 0, 0, 0), series(0, 0, 1, 0, 0, 1, 0), series(0, 0)

    assert loading_intervals([one, another, idle]) == ((0, 30), (40, 60))


_NO_COUNTS = [math.nan, INF, -INF, -1.0, 2.0**54]


@pytest.mark.parametrize("take", [increments, loading_intervals])
@pytest.mark.parametrize("value", _NO_COUNTS)
def test_a_number_that_is_no_count_is_refused(value: float, take: Callable[[list[Series]], object]) -> None:
    with pytest.raises(FormatError, match=r"requests_total\{job='envoy'\} is no count: expected 0 to 2\^53"):
        take([series(0, value, __name__="requests_total", job="envoy")])


@pytest.mark.parametrize("times", [(0.0, 0.0), (1.0, 0.0), (0.0, math.nan), (0.0, INF)])
def test_times_that_do_not_ascend_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(FormatError):
        increments([Series({}, tuple((time, 1.0) for time in times))])


def buckets(*grown: int, bounds: tuple[str, ...] = ("10", "20.0", "+Inf"), **labels: str) -> list[Series]:
    """Cumulative buckets, as Envoy tells them."""
    return [series(5, 5 + count, le=le, **labels) for le, count in zip(bounds, accumulate(grown), strict=True)]


def test_requests_are_summed_over_gateways_and_interfaces() -> None:
    classes = [
        answers("2", 100, 190, instance="a", api="rest"),
        answers("5", 0, 3, instance="a", api="rest"),
        answers("4", 0, 1, instance="b", api="rest"),
        answers("2", 0, 50, instance="b", api="grpc"),
    ]
    failures = [series(0, 2, instance="b", api="grpc")]
    latencies = [*buckets(80, 9, 4, instance="a", api="rest"), *buckets(1, 0, 50, instance="b", api="grpc")]

    found = requests_of(classes, failures, latencies)

    assert found == Requests(144, 6, Histogram((10, 20, INF), (81, 9, 54)))


def test_there_are_no_more_errors_than_requests() -> None:
    assert requests_of([answers("2", 0, 3)], [series(0, 9)], []) == Requests(3, 3)


def test_an_answer_of_no_known_class_is_an_error() -> None:
    assert requests_of([series(0, 3)], [], []) == Requests(3, 3)


def test_no_series_are_no_requests() -> None:
    assert requests_of([], [], []) == Requests() == Requests(0, 0, Histogram((INF,), (0,)))


def test_requests_while_a_model_was_loaded_are_left_out_of_everything() -> None:
    loading = loading_intervals([series(0, 1)])

    assert requests_of([answers("2", 0, 3)], [series(0, 1)], buckets(1, 1, 1), loading).total == 0
    assert requests_of([answers("2", 0, 3)], [], buckets(1, 1, 1), loading).latency.samples == 0


def test_buckets_are_sorted_by_their_number_and_not_by_their_text() -> None:
    found = requests_of([], [], buckets(1, 2, 4, bounds=("5", "1e1", "+Inf"))[::-1])

    assert found.latency == Histogram((5, 10, INF), (1, 2, 4))


@pytest.mark.parametrize("bound", ["", "ten", "nan", "-1", "0", "-Inf"])
def test_a_bucket_without_a_bound_is_refused(bound: str) -> None:
    with pytest.raises(FormatError, match="the bound of a bucket is a number of milliseconds"):
        requests_of([], [], buckets(1, 1, bounds=(bound, "+Inf")))


def test_a_histogram_that_does_not_count_all_is_refused() -> None:
    with pytest.raises(FormatError, match=r"lacks its bucket le=\+Inf: found 10, 20"):
        requests_of([], [], buckets(1, 1, bounds=("10", "20")))


def test_buckets_that_shrink_are_refused() -> None:
    with pytest.raises(FormatError, match=r"le 10, 20, inf by \[5, 4, 6\]"):
        requests_of([], [], buckets(5, -1, 2))


def test_gateways_with_different_buckets_are_refused() -> None:
    other = buckets(1, 1, 1, bounds=("10", "25", "+Inf"), instance="b")

    with pytest.raises(FormatError, match="le is 10, 20, inf in one, 10, 25, inf in the other"):
        requests_of([], [], [*buckets(1, 1, 1, instance="a"), *other])


@pytest.mark.parametrize(
    ("bounds", "counts"),
    [((), ()), ((1.0,), (0,)), ((1.0, INF), (0,)), ((2.0, 1.0, INF), (0, 0, 0)), ((0.0, INF), (0, 0)), ((INF,), (-1,))],
)
def test_what_is_no_histogram_is_refused(bounds: tuple[float, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError):
        Histogram(bounds, counts)


@pytest.mark.parametrize("errors", [-1, 4])
def test_more_errors_than_requests_are_refused(errors: int) -> None:
    with pytest.raises(InvalidInputError):
        Requests(3, errors)


def test_requests_add_up() -> None:
    one, other = Requests(3, 1, Histogram((1, INF), (2, 1))), Requests(4, 0, Histogram((1, INF), (0, 4)))

    assert one + other == Requests(7, 1, Histogram((1, INF), (2, 5)))
    assert one + Requests() == Requests() + one == one


def test_whoever_is_behind_in_one_is_behind_in_both_together() -> None:
    early, late = LastScrape(10, "b"), LastScrape(20, "a")

    assert (Requests(behind=(late,)) + Requests(behind=(early, late))).behind == (early, late)


def test_histograms_of_different_buckets_do_not_add_up() -> None:
    with pytest.raises(InvalidInputError, match="different buckets"):
        Histogram((1, INF), (1, 0)) + Histogram((2, INF), (1, 0))


def test_a_rank_is_interpolated_in_its_bucket() -> None:
    histogram = Histogram((10, 20, 40, INF), (4, 0, 10, 1))

    assert [histogram.at(rank) for rank in (1, 4, 9, 14, 15)] == [2.5, 10, 30, 40, INF]
    assert (histogram.samples, histogram.largest) == (15, 40)
