"""PromQL that is put together: what is a name in it stays one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.errors import InvalidInputError
from model_registry.rollout.promql import duration, filled_in, quoted, selector

VALUES = {"model": "dig.its-1_x", "version": "3", "baseline": "2", "window": "600s"}
LITERAL = re.compile(r'"(?:[^"\\\n]|\\["\\]|\\u[0-9a-f]{4})*"')


@given(st.text())
def test_any_text_is_one_literal_that_says_it(text: str) -> None:
    try:
        literal = quoted(text)
    except InvalidInputError:
        assert any(0xD800 <= ord(character) < 0xE000 for character in text)
        return
    assert LITERAL.fullmatch(literal)
    assert (
        re.sub(r"\\u([0-9a-f]{4})|\\(.)", lambda found: chr(int(found[1], 16)) if found[1] else found[2], literal[1:-1])
        == text
    )


def test_a_selector_names_what_it_means() -> None:
    assert selector("up", {"job": "envoy"}, instance=["a.b:1", "c"]) == r'up{job="envoy",instance=~"a\\.b:1|c"}'


@pytest.mark.parametrize("name", ["", "a-b", "a b", "1a", "é", 'x="y",z', "a\n", "__name__"])
def test_what_is_no_name_of_a_label_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="no name of a label"):
        selector("up", {name: "x"})
    with pytest.raises(InvalidInputError, match="no name of a label"):
        selector("up", {}, **{name: ["x"]})


@pytest.mark.parametrize("metric", ["", "up{}", "up or up", "a:b", "é"])
def test_what_is_no_name_of_a_metric_is_refused(metric: str) -> None:
    with pytest.raises(InvalidInputError, match="no name of a metric"):
        selector(metric, {})


@pytest.mark.parametrize(
    ("seconds", "expected"), [(600.0, "600000ms"), (0.25, "250ms"), (0.0, "1ms"), (1e-9, "1ms"), (1 / 3, "333ms")]
)
def test_a_duration_is_in_milliseconds(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("promql", "expected"),
    [
        ('x{m="$model",v="$version"}[$window]', 'x{m="dig.its-1_x",v="3"}[600s]'),
        ("${version}0 > $baseline", "30 > 2"),
        ('x{y=~"a$|b$"}', 'x{y=~"a$|b$"}'),
        ('label_replace(x, "a", "$1${2}", "b", "(.)(.)")', 'label_replace(x, "a", "$1${2}", "b", "(.)(.)")'),
        ("$$version", "$3"),
        ("", ""),
    ],
)
def test_a_check_is_filled_in(promql: str, expected: str) -> None:
    assert filled_in(promql, VALUES) == expected


@pytest.mark.parametrize("promql", ["$modle", "$models", "${candidate}", "$versions", "$model_", "$MODEL"])
def test_a_check_that_names_something_else_is_refused(promql: str) -> None:
    with pytest.raises(InvalidInputError, match=r"expected one of \$model, \$version, \$baseline, \$window"):
        filled_in(promql, VALUES)


@pytest.mark.parametrize("value", ["", 'x"', "x'", "x`", "x}", "x\\", "x y", "x\n", "$model", "é", "-x"])
def test_a_value_that_could_end_what_it_stands_in_is_refused(value: str) -> None:
    with pytest.raises(InvalidInputError, match=r"\$model is"):
        filled_in("1", {**VALUES, "model": value})


@given(
    st.text(st.sampled_from("$model{}version\"\\`'[] \n1")),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
)
def test_what_is_filled_in_changes_nothing_around_it(promql: str, model: str) -> None:
    try:
        found = filled_in(promql, {**VALUES, "model": model})
    except InvalidInputError:
        return
    parts = re.split(r"\$\{?(?:model|version)\}?", promql)
    assert all(part in found for part in parts)
