"""What people read: ages, sizes, and tables that nobody else can write into."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from flows.printing import age, measure, print_findings, print_package_report, print_version, print_versions, printable
from model_registry.servable import Blessing, Check, PayloadFile, Run, TensorInfo, Variant
from tasks.diagnosis import Finding
from tests.support.published_models import draft, signature

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
NATIVE = Variant("native", (PayloadFile("saved_model.pb", 1_500_000, "ab" * 32),))
REPORT: dict[str, Any] = {
    "model": "digits",
    "version": 3,
    "verdict": "blessed",
    "reused": False,
    "registry": "/registry",
    "variants": {
        "native": {"uri": "/registry/models/digits/native/3", "files": 7, "bytes": 101_000_000, "digest": "cd" * 32}
    },
    "checks": [
        {
            "check": "parity/serving_default/probabilities",
            "variant": "native",
            "measured": {"max_absolute_error": 1.1920928955078125e-07, "max_relative_error": 2.5e-6},
            "threshold": {"atol": 1e-5, "rtol": 1e-4},
            "passed": True,
            "detail": "",
        },
        {"check": "finite/x", "variant": "native", "measured": 3, "threshold": 0, "passed": False, "detail": "NaN"},
    ],
    "seconds": 7.44,
    "stages": [{"stage": "fetch", "seconds": 0.25}, {"stage": "load", "seconds": 1.5}],
}


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-03-01T11:59:59Z", "1 second ago"),
        ("2026-03-01T12:00:30Z", "0 seconds ago"),  # another machine's clock is ahead
        ("2026-03-01T11:15:00+00:00", "45 minutes ago"),
        ("2026-03-01T10:59:00Z", "1 hour ago"),
        ("2026-02-27T12:00:00Z", "2 days ago"),
        ("2025-12-01T12:00:00Z", "2025-12-01"),
        ("2026-03-01T11:00:00", "1 hour ago"),
        ("yesterday", "yesterday"),
    ],
)
def test_age_is_told_as_people_say_it(created: str, expected: str) -> None:
    assert age(created, NOW) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.99731, "0.997"), (1.19e-7, "1.19e-07"), (3, "3"), ("runs", "runs"), ({"atol": 1e-5}, "atol 1e-05")],
)
def test_measures_have_few_digits(value: Any, expected: str) -> None:
    assert measure(value) == expected


def test_printable_shows_what_would_steer_a_terminal() -> None:
    assert printable("grün\x1b[2J\n") == "grün\\x1b[2J\\n"


def test_versions_are_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Blessing((Check("a", "native", 1, 0, False),))
    versions = [
        draft(version=2, created_at="2026-03-01T11:00:00Z", variants=(NATIVE,)),
        draft(version=1, created_at="2026-02-27T12:00:00Z", variants=(NATIVE, NATIVE), blessing=failed),
    ]

    print_versions(versions, NOW)

    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split("  ")[0] == "2"
    assert [part.strip() for part in lines[3].split("  ") if part.strip()] == [
        "1", "2 days ago", "digits.keras", "3.0 MB", "1 FAILED", "quiet-otter",
    ]  # fmt: skip


def test_names_from_the_registry_are_no_markup_and_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run("1", "[red]otter[/red]\x1b]0;gotcha\x07")

    print_versions([draft(version=1, created_at="2026-03-01T11:00:00Z", run=run)], NOW)

    out = capsys.readouterr().out
    assert "[red]otter[/red]\\x1b]0;gotcha\\x07" in out
    assert "\x1b" not in out


def test_a_version_shows_signatures_with_free_dimensions(capsys: pytest.CaptureFixture[str]) -> None:
    image = TensorInfo("image", "float32", (None, 8, 8, 1))
    anything = TensorInfo("anything", "string", None)
    version = draft(
        version=3,
        created_at="2026-03-01T11:00:00Z",
        variants=(NATIVE,),
        signatures=(signature("serving_default", "predict", [image], [anything]),),
        missing={"tensorrt-fp16": "no GPU"},
    )

    print_version(version, {"native": "s3://bucket/models/digits/native/3"}, NOW)

    out = capsys.readouterr().out
    for expected in (
        "digits:3",
        "2026-03-01T11:00:00Z (1 hour ago)",
        "keras, 1.2 kB, sha256 abababababab",
        "image float32 [null, 8, 8, 1]",
        "anything string of unknown rank",
        "s3://bucket/models/digits/native/3",
        "1, 8",
        "no GPU",
        "parity/serving_default/probabilities",
        "quiet-otter",
    ):
        assert expected in out


def test_a_report_tells_the_version_its_checks_and_stages(capsys: pytest.CaptureFixture[str]) -> None:
    print_package_report(REPORT)

    out = capsys.readouterr().out
    assert out.startswith("digits:3 published\n")
    assert "101.0 MB" in out
    assert "absolute 1.19e-07, relative 2.5e-06" in out
    assert "FAILED" in out
    assert "fetch 0.2 s, load 1.5 s; 7.4 s from start to end" in out


def test_checks_name_their_variant_where_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    print_package_report(REPORT | {"variants": {}})
    assert "VARIANT" not in capsys.readouterr().out
    checks = [
        check | {"variant": variant} for check in REPORT["checks"] for variant in ("native", "tensorrt-fp16-sm80")
    ]

    print_package_report(REPORT | {"checks": checks, "variants": {}})

    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["CHECK", "VARIANT", "MEASURED", "THRESHOLD", "VERDICT", "DETAIL"]
    assert out.count("tensorrt-fp16-sm80") == 2


def test_a_report_tells_a_reused_version_from_a_rejected_one(capsys: pytest.CaptureFixture[str]) -> None:
    print_package_report(REPORT | {"reused": True})
    print_package_report(REPORT | {"version": None, "variants": {}})

    out = capsys.readouterr().out
    assert "digits:3 was there already" in out
    assert "digits was rejected, nothing was published" in out


def test_into_a_pipe_a_row_stays_one_line_without_padding(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings([Finding("registry", "x" * 300, "fail", "y" * 300), Finding("slipway", "1.0", "ok")])

    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["registry", "x" * 300, "fail", "y" * 300]
    assert lines[3].split() == ["slipway", "1.0", "ok"]
    assert all(line == line.rstrip() for line in lines)
