"""What Prometheus answers, and what it never would."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.errors import FormatError, InvalidInputError, SlipwayError
from model_registry.rollout.observation import check_result
from model_registry.rollout.prometheus_answers import Answered, Sample, read, read_refusal
from model_registry.rollout.samples import Series

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KINDS = st.sampled_from(["scalar", "string", "vector", "matrix", "streams"])
NUMBERS = st.sampled_from(["1", "-0.5", "1e308", "NaN", "+Inf", "-Inf"])


def answered(kind: str, result: Any, **more: Any) -> Answered:
    document = {"status": "success", "data": {"resultType": kind, "result": result}, **more}
    return read(json.dumps(document).encode(), url="http://p")


def test_each_kind_is_read() -> None:
    assert answered("scalar", [1.5, "7"]).samples("x") == (Sample({}, 7, 1.5),)
    assert answered("vector", [{"metric": {"a": "b"}, "value": [2, "+Inf"]}]).samples("x") == (
        Sample({"a": "b"}, math.inf, 2),
    )
    assert math.isnan(answered("scalar", [1, "NaN"]).samples("x")[0].value)
    assert answered("matrix", [{"metric": {"a": "b"}, "values": [[1, "2"], [3, "4"]]}]).series() == (
        Series({"a": "b"}, ((1, 2), (3, 4))),
    )
    assert answered("matrix", []).series() == ()


def test_a_range_and_a_string_are_no_samples_and_a_vector_is_no_series() -> None:
    with pytest.raises(InvalidInputError, match="'x' is a range of values"):
        answered("matrix", []).samples("x")
    with pytest.raises(InvalidInputError, match="'x' is a string"):
        answered("string", [1, "hello"]).samples("x")
    with pytest.raises(FormatError, match="expected a matrix"):
        answered("vector", []).series()


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ({}, ""),
        ({"warnings": None, "isPartial": False}, ""),
        ({"warnings": ["PromQL info: metric might not be a counter"], "infos": ["x"]}, ""),
        ({"warnings": ["PromQL info: x", "store b is gone"]}, "store b is gone"),
        ({"isPartial": True}, "a part is missing"),
    ],
)
def test_an_answer_tells_what_it_lacks(more: dict[str, Any], missing: str) -> None:
    assert answered("vector", [], **more).missing == missing


@given(st.binary(max_size=50) | JSON.map(lambda document: json.dumps(document).encode()))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    with pytest.raises(FormatError, match="http://p does not answer as Prometheus does"):
        read(body, url="http://p")
    assert len(read_refusal(body)) == 2


@given(KINDS, JSON | st.tuples(st.floats(0, 1e12), NUMBERS) | st.lists(JSON | st.fixed_dictionaries(
    {"metric": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)},
    optional={"value": st.tuples(st.floats(0, 1e12), NUMBERS | st.text(max_size=3)),
              "values": st.lists(st.tuples(st.floats(), NUMBERS | st.text(max_size=3)), max_size=3)},
), max_size=3))  # fmt: skip
def test_whatever_a_result_is_it_is_numbers_or_refused(kind: str, result: Any) -> None:
    for reading in (lambda found: found.samples("x"), lambda found: found.series()):
        try:
            found = reading(answered(kind, result))
        except SlipwayError:
            continue
        for one in found:
            assert all(isinstance(text, str) for pair in one.labels.items() for text in pair)
            assert all(math.isfinite(time) for time, _ in getattr(one, "points", [(getattr(one, "time", 0), 0)]))


@given(st.lists(st.builds(Sample, st.just({"a": "b"}), st.floats(), st.just(1.0)), max_size=4))
def test_a_check_passes_where_it_has_samples_and_none_is_zero_or_nan(samples: list[Sample]) -> None:
    found = check_result(samples)
    bad = any(sample.value == 0 or math.isnan(sample.value) for sample in samples)
    assert found.passed is (None if not samples else not bad)
    assert found.value is None or math.isfinite(found.value)
    assert found.words and "\n" not in found.words
