"""The page that a rollout leaves in Prefect."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from flows.rollout_artifact import page
from model_registry.evidence import Evidence, Verdict
from model_registry.rollout.report import Look, RolloutReport

_CHECK = 'avg(score{model="digits"}) > bool 0.9'


def _evidence(verdict: Verdict = "not worse", errors: float = 0.001) -> tuple[Evidence, ...]:
    return (
        Evidence("error_rate", errors, 0.001, 0.03, 0.002, 0.01, 812, 15_300, verdict),
        Evidence("p50", 12.0, 11.5, 12.5, 11.0, 0.25, 812, 15_300, "not worse"),
        Evidence("p99", 80.0, None, None, 70.0, 0.5, 812, 15_300, "undecided"),
        Evidence(_CHECK, 0.0, None, None, None, 0.0, 0, 0, "worse"),
    )


def _report() -> RolloutReport:
    looks = [Look(1_700_000_000.0 + 60 * number, 5, 1, "not worse", _evidence()) for number in range(3)]
    looks += [Look(1_700_000_240.0, 25, 1, "worse", _evidence("worse", 0.051))]
    why = "error rate 5.1 % against 0.1 %"
    return RolloutReport(
        "digits", 3, 2, "worse", why, "", 0, None, "", 9, looks=tuple(looks), evidence=_evidence("worse", 0.051)
    )


def _plot(text: str) -> ElementTree.Element:
    found = re.search(r"!\[[^\]]*\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", text)
    assert found
    return ElementTree.fromstring(base64.b64decode(found[1]))


def test_the_page_tells_the_verdict_why_and_the_numbers_it_rests_on() -> None:
    text = page(_report())

    assert text.startswith("# digits:3 was worse than digits:2 and taken back\n")
    assert "error rate 5\\.1 % against 0\\.1 %" in text
    assert "| errors | 5.1 % | 3 % | 0.1 % | 0.2 % | + 1 points | 812 / 15,300 | WORSE |" in text
    assert "| p99 | 80 ms | - | - | 70 ms | + 50 % | 812 / 15,300 | undecided |" in text


def test_every_look_is_a_row_with_its_weight() -> None:
    rows = re.findall(r"^\| \d\d:\d\d:\d\d \| (\d+) % .* \| (\S+(?: \S+)?) \|$", page(_report()), re.MULTILINE)

    assert rows == [("5", "not worse")] * 3 + [("25", "WORSE")]


def test_of_very_many_looks_the_last_are_listed_and_all_are_drawn() -> None:
    looks = tuple(Look(1e9 + number, 5, 1, "not worse", _evidence()) for number in range(200))

    text = page(replace(_report(), looks=looks))

    assert "## The last 60 looks" in text
    assert len(re.findall(r"^\| \d\d:", text, re.MULTILINE)) == 60
    assert _plot(text).tag.endswith("svg")


def test_the_plot_shows_both_sides_and_where_the_canary_was_worse() -> None:
    drawn = ElementTree.tostring(_plot(page(_report())), encoding="unicode")
    without = ElementTree.tostring(_plot(page(replace(_report(), looks=_report().looks[:3]))), encoding="unicode")

    assert drawn.lower().count("#d95f02") > 3 and drawn.lower().count("#1b6ca8") > 3
    assert "#c00000" in drawn.lower() and "#c00000" not in without.lower()


@pytest.mark.parametrize("outcome", ["promoted", "worse", "aborted", "paused", None])
def test_every_end_has_a_page_even_without_a_look(outcome: str | None) -> None:
    text = page(replace(_report(), outcome=outcome, looks=(), evidence=(), by="ann@build-7"))  # type: ignore[arg-type]

    assert text.startswith("# ") and "digits:3" in text.splitlines()[0] and "by ann@build\\-7" in text
    assert "data:image" not in text


def test_words_of_others_are_no_markup_on_the_page() -> None:
    why = "see [this](javascript:alert(1)) ![x](http://evil.example/x.png) <script>x</script> | a\n# b"

    text = page(replace(_report(), why=why, looks=()))

    assert "](http" not in text and "](javascript" not in text and "<script>" not in text
    assert not re.search(r"^# b", text, re.MULTILINE)
