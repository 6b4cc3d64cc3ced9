"""Which folders hold new models, and how it is told what became of them."""

from __future__ import annotations

import pytest

from model_registry.provenance import Seen
from model_registry.storage.base import ObjectInfo
from tasks.scan_rules import (
    FolderOutcome,
    Listing,
    NewModel,
    became,
    counted,
    failed,
    failure_message,
    handed_over,
    run_failed,
    same_digest,
    same_revision,
    seen_before,
    shown,
)

ROOT = "s3://bucket/trained"
NEW = NewModel("run-7", f"{ROOT}/run-7/package.yaml", "digits", f"{ROOT}/run-7/digits.keras", "e" * 64)


def infos(*keys: str) -> list[ObjectInfo]:
    return [ObjectInfo(key, 10, 0.0, f"etag of {key}") for key in keys]


def test_a_folder_is_handed_over_by_a_package_yaml_of_its_own() -> None:
    found = handed_over(
        infos(
            "package.yaml",  # of no folder
            "a/digits.keras",  # not ready
            "b/digits.keras",
            "b/package.yaml",
            "c/deeper/package.yaml",  # no direct child
            "d/package.yaml.tmp",
            "/package.yaml",
            "A/package.yaml",
        )
    )

    assert list(found) == ["A", "b"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"{ROOT}/a/digits.keras", {"": "a/digits.keras"}),
        (f"{ROOT}/a/saved", {"saved_model.pb": "a/saved/saved_model.pb", "variables/x": "a/saved/variables/x"}),
        (f"{ROOT}/a/saved/", {"saved_model.pb": "a/saved/saved_model.pb", "variables/x": "a/saved/variables/x"}),
        (f"{ROOT}/a/none.keras", {}),
        ("s3://bucket/trained-elsewhere/a.keras", None),
        ("s3://other/a.keras", None),
    ],
)
def test_what_a_listing_tells_of_a_source_is_not_asked_for_again(source: str, expected: dict[str, str] | None) -> None:
    keys = (
        *("a/saved2/x", "a/saved/variables/x", "a/saved/saved_model.pb", "a/saved-not/x"),
        *("a/saved0", "a/digits.keras.old", "a/digits.keras"),
    )

    found = Listing(ROOT, infos(*keys)).at(source)

    assert (None if found is None else {path: info.key for path, info in found}) == expected


def test_no_revision_is_like_no_other() -> None:
    assert not same_revision(None)(Seen("d", None, 1))
    assert same_revision("r")(Seen("d", "r", None))
    assert not same_revision("r")(Seen("d", "s", 1))
    assert same_digest("d")(Seen("d", None, None))


def test_a_run_became_the_version_it_made_or_the_one_another_run_made_of_the_same() -> None:
    matches = became("run", "digest")

    assert matches(Seen("other", None, 3, "run"))
    assert matches(Seen("digest", None, 3, "another run"))
    assert not matches(Seen("digest", None, None))  # refused
    assert not matches(Seen("other", None, 3, "another run"))


@pytest.mark.parametrize(
    ("words", "verdict", "reason"),
    [
        (
            "Flow run encountered an exception: RejectedError: digits was rejected: parity",
            "rejected",
            "digits was rejected: parity",
        ),
        (
            "Flow run encountered an exception: InvalidInputError: no model\nhere",
            "failed",
            "InvalidInputError: no model here",
        ),
        ("Flow run process exited with non-zero status code -9.", "failed", None),
    ],
)
def test_the_end_of_a_run_is_told_in_one_line(words: str, verdict: str, reason: str | None) -> None:
    outcome = run_failed(NEW, words, "clever-fox")

    assert (outcome.verdict, outcome.reason, outcome.run) == (verdict, reason or words, "clever-fox")
    assert outcome.went_wrong


def test_what_somebody_wrote_is_shown_as_one_printable_line() -> None:
    assert shown("a\x1b[31m\nb\u202ec") == "a\N{REPLACEMENT CHARACTER}[31m b\N{REPLACEMENT CHARACTER}c"
    assert len(shown("x" * 5000)) == 100
    assert len(failed("f", "x" * 5000).reason) == 500


def test_a_run_that_found_something_wrong_fails_with_all_their_names() -> None:
    fine = [FolderOutcome("a", "packaged", "digits", 4), seen_before(NEW, Seen("d", None, 3))]
    refused = seen_before(NEW, Seen("d", None, None))

    assert failure_message([*fine, refused]) is None
    assert counted([*fine, refused]) == "1 packaged, 2 seen before"
    assert counted([]) == "none"
    assert [outcome.sentence for outcome in [*fine, refused]] == [
        "a: packaged as digits:4",
        "run-7: seen before, digits:3",
        "run-7: seen before, digits was refused then",
    ]
    assert failure_message([*fine, failed("b", "no YAML"), run_failed(NEW, "RejectedError: parity", "fox")]) == (
        "2 of 4 trained models were not packaged: b: failed: no YAML; run-7: rejected: parity"
    )
