"""What people read: ages, sizes, and tables that nobody else can write into."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from flows.changes import change_document
from flows.printing import (
    age,
    measure,
    print_differences,
    print_findings,
    print_history,
    print_package_report,
    print_version,
    print_versions,
)
from flows.tables import printable
from model_registry.comparison import Difference
from model_registry.servable import Run, Seal, TensorInfo
from model_registry.state import Origin, Record, Transition
from tasks.diagnosis import Finding
from tests.support.published_models import draft, signature

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
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
    "label": None,
    "missing": {},
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
    versions = [
        {"version": 2, "labels": ["canary", "stable"], "retired": False, "committed_at": "2026-03-01T11:00:00+00:00"},
        {"version": 1, "labels": [], "retired": True, "committed_at": "2026-02-27T12:00:00+00:00"},
    ]

    print_versions(versions, NOW)

    lines = capsys.readouterr().out.splitlines()
    assert [[part.strip() for part in line.split("   ") if part.strip()] for line in (lines[0], *lines[2:4])] == [
        ["VERSION", "LABELS", "COMMITTED"],
        ["2", "canary, stable", "1 hour ago"],
        ["1", "(retired)", "2 days ago"],
    ]


def test_texts_from_the_registry_are_no_markup_no_rows_and_no_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "[red]otter[/red]\x1b]0;gotcha\x07\n9  promote"
    transition = Transition("promote", evil, from_version=None, to_version=2)
    run = Run("1", evil, f"http://{evil}")

    print_history([Record(1, transition, Origin(evil, evil, run), evil, "w")], NOW)

    _, _, *rows, last = capsys.readouterr().out.splitlines()
    assert (len(rows), last) == (1, "")
    assert rows[0].count("[red]otter[/red]\\x1b]0;gotcha\\x07\\n9  promote") == 7


def test_history_tells_each_kind_of_transition(capsys: pytest.CaptureFixture[str]) -> None:
    transitions = [
        Transition("retire", versions=(1, 2), forget=True),
        Transition("collect", versions=(1,)),
        Transition("unlabel", "canary", from_version=3),
        Transition("promote", "stable", from_version=None, to_version=3),
    ]
    run = Run("7e57", "quiet-otter", "http://prefect/runs/7e57")
    records = [
        Record(number, transition, Origin("ann@build-7", "slow", run), "2026-03-01T11:00:00+00:00", "w")
        for number, transition in enumerate(transitions)
    ]

    print_history(records, NOW)

    lines = capsys.readouterr().out.splitlines()[2:6]
    told = ["retire 1, 2 and forget", "collect 1", "unlabel canary: 3 -> nothing", "promote stable: nothing -> 3"]
    for line, expected in zip(lines, told, strict=True):
        for part in (
            expected,
            "2026-03-01T11:00:00+00:00 (1 hour ago)",
            "slow",
            "quiet-otter  http://prefect/runs/7e57",
        ):
            assert part in line


def test_differences_show_what_was_rounded_off(capsys: pytest.CaptureFixture[str]) -> None:
    differences = [
        Difference("checks", "quality measured", 0.9731, 0.9734),
        Difference("files", "native bytes", 101_000_000, None),
        Difference("files", "native digest", "ab" * 32, "ab" * 31 + "cd"),
        Difference("source", "uri", "/models/[red]a", "/models/\x1b[2Ja"),
    ]

    print_differences(differences, "digits:1", "digits:2")

    header, _, quality, size, digest, uri = capsys.readouterr().out.splitlines()[:6]
    assert header.split() == ["SECTION", "ITEM", "digits:1", "digits:2"]
    assert quality.split()[-2:] == ["0.9731", "0.9734"]
    assert size.split()[-2:] == ["101,000,000", "-"]
    assert digest.split()[-2:] == ["ab" * 32, "ab" * 31 + "cd"]
    assert uri.split()[-2:] == ["/models/[red]a", "/models/\\x1b[2Ja"]


def shown(**changes: Any) -> dict[str, Any]:
    variants = [
        {"uri": "s3://bucket/models/digits/native/3", "name": "native", "files": [1], "bytes": 1, "digest": "d"}
    ]
    return {"labels": [], "retired": False, "signature_checked": False, "variants": variants} | changes


def test_a_version_shows_signatures_with_free_dimensions(capsys: pytest.CaptureFixture[str]) -> None:
    image = TensorInfo("image", "float32", (None, 8, 8, 1))
    anything = TensorInfo("anything", "string", None)
    version = draft(
        version=3,
        created_at="2026-03-01T11:00:00Z",
        signatures=(signature("serving_default", "predict", [image], [anything]),),
        missing={"tensorrt-fp16": "no GPU"},
    )

    print_version(version, shown(labels=["canary", "stable"]), NOW)

    out = capsys.readouterr().out
    for expected in (
        "digits:3",
        "canary, stable",
        "unsigned",
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


@pytest.mark.parametrize(
    ("checked", "expected"), [(True, "(checked)"), (False, "(not checked: SLIPWAY_PUBLIC_KEY is not set)")]
)
def test_a_version_shows_whose_signature_it_bears_and_whether_it_was_checked(
    capsys: pytest.CaptureFixture[str], checked: bool, expected: str
) -> None:
    version = draft(version=3, created_at="2026-03-01T11:00:00Z", signature=Seal("ed25519", "0123456789abcdef", "x"))

    print_version(version, shown(signature_checked=checked, retired=True), NOW)

    out = capsys.readouterr().out
    assert f"signed by key 0123456789abcdef {expected}" in out
    assert "it is retired" in out


def test_a_report_tells_the_version_its_checks_and_stages(capsys: pytest.CaptureFixture[str]) -> None:
    print_package_report(REPORT)

    out = capsys.readouterr().out
    assert out.startswith("digits:3 published\n")
    assert "101.0 MB" in out
    assert "absolute 1.19e-07, relative 2.5e-06" in out
    assert "FAILED" in out
    assert "fetch 0.2 s, load 1.5 s; 7.4 s from start to end" in out


def test_a_report_tells_what_became_of_the_label(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(7, Transition("promote", "stable", from_version=2, to_version=3), Origin("ann"), "now", "w")

    print_package_report(REPORT | {"label": change_document("/registry", "digits", record)})

    assert "\ndigits@stable: digits:2 -> digits:3 (revision 7)\n" in capsys.readouterr().out


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


def test_a_report_tells_what_engines_fit_what_was_only_rehearsed_and_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    accelerator = {
        "name": "NVIDIA A100",
        "compute_capability": "8.0",
        "driver": "535.104",
        "cuda": "12.3",
        "tensorrt": "8.6.1",
    }
    native = REPORT["variants"]["native"]
    print_package_report(REPORT | {"variants": {"tensorrt-fp16-sm80": native | {"accelerator": accelerator}}})
    engines = "engines for compute capability 8.0, built on NVIDIA A100 with TensorRT 8.6.1, CUDA 12.3, driver 535.104"
    assert engines in capsys.readouterr().out

    print_package_report(REPORT | {"variants": {"tensorrt-fp16-rehearsal": native | {"accelerator": None}}})
    assert "a rehearsal of the conversion: no TensorRT ran, and it has no engines" in capsys.readouterr().out

    print_package_report(REPORT | {"missing": {"tensorrt-fp16": "no GPU\x1b[2J"}})
    out = capsys.readouterr().out
    assert "NOT DELIVERED" in out and "no GPU\\x1b[2J" in out
    assert "engines" not in out
