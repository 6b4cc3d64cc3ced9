"""The commands that move labels, retire versions, compare and verify what there is, as people and scripts call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from model_registry import paths
from model_registry.registry import Registry
from model_registry.servable import Run
from model_registry.state import Origin
from model_registry.storage import open_store
from tests.support.command import Outcome, slipway, tree
from tests.support.drafts import CONTENT, make_draft, make_payload
from tests.support.fixtures_s3 import Bucket

ANN = Origin("ann@build-7", "the new one is slow", Run("7e57", "quiet-otter", "http://prefect.test/runs/7e57"))
CHANGE = [
    *("registry", "model", "dry_run", "changed", "revision", "action", "label", "from", "to", "versions", "forget"),
    *("when", "who", "why", "run", "traffic", "evidence"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def registry(folder: Path) -> Registry:
    """The one that commands find in their working directory: digits 1 to 4 and faces 1."""
    registry = Registry(open_store(str(folder / "registry")))
    for identity in ("a1", "a2", "a3", "a4"):
        publish(registry, folder, identity=identity)
    publish(registry, folder, model="faces")
    return registry


def publish(registry: Registry, folder: Path, **changes: Any) -> None:
    content = {**CONTENT, "saved_model.pb": b"graph" * len(changes)}
    registry.publish(make_draft(**changes), {"native": make_payload(folder.with_name("payload"), content)})


def call(folder: Path, *arguments: str) -> Outcome:
    """A command that succeeds."""
    outcome = slipway(*arguments, folder=folder)
    assert outcome.code == 0, outcome
    return outcome


def summary(change: dict[str, Any]) -> tuple[Any, ...]:
    assert list(change) == CHANGE
    return tuple(change[name] for name in ("action", "label", "from", "to", "revision", "changed", "dry_run"))


def test_a_label_is_promoted_rolled_back_and_taken_away(folder: Path, registry: Registry) -> None:
    assert call(folder, "promote", "digits:2", "stable").stdout == "digits@stable: nothing -> digits:2 (revision 1)\n"
    promoted = call(folder, "promote", "digits:3", "stable", "--expect", "2", "--reason", "faster", "--json").document
    again = call(folder, "promote", "digits:3", "stable")
    unchanged = call(folder, "promote", "digits:3", "stable", "--json").document

    assert summary(promoted) == ("promote", "stable", 2, 3, 2, True, False)
    assert (promoted["registry"], promoted["model"], promoted["why"]) == (registry.store.uri, "digits", "faster")
    assert "@" in promoted["who"]
    assert again.stdout == "digits@stable names digits:3 already\n"
    assert summary(unchanged) == ("promote", "stable", 3, 3, None, False, False)
    assert registry.state("digits").revision == 2

    rolled_back = call(folder, "rollback", "digits", "stable", "--expect", "3", "--json").document
    taken = call(folder, "unlabel", "digits", "stable", "--expect", "2")

    assert summary(rolled_back) == ("rollback", "stable", 3, 2, 3, True, False)
    assert taken.stdout == "digits@stable: digits:2 -> nothing (revision 4)\n"
    assert registry.state("digits").labels == {}


def test_versions_of_a_model_are_retired_in_one_transition(folder: Path, registry: Registry) -> None:
    registry.promote("digits", 1, "stable", origin=ANN)
    registry.promote("digits", 4, "stable", origin=ANN)

    document = call(folder, "retire", "digits:3", "digits:2", "faces:1", "--reason", "old", "--json").document

    assert (document["registry"], document["dry_run"]) == (registry.store.uri, False)
    assert [(change["model"], change["versions"], change["revision"]) for change in document["changes"]] == [
        ("digits", [2, 3], 3),
        ("faces", [1], 1),
    ]
    assert all(list(change) == CHANGE for change in document["changes"])
    assert call(folder, "retire", "digits:2", "digits:3").stdout == "digits:2, digits:3 are retired already\n"

    refused = slipway("retire", "digits:1", folder=folder)
    assert refused.code == 4
    assert "digits:1 cannot be retired: digits@stable may be rolled back to it" in refused.stderr
    assert "--forget" in refused.stderr
    assert call(folder, "retire", "digits:1", "--forget").stdout == "digits:1 retired (revision 4)\n"
    assert slipway("rollback", "digits", "stable", folder=folder).code == 1
    assert registry.state("digits").labels == {"stable": 4}


def test_of_several_models_none_is_retired_if_one_is_refused(folder: Path, registry: Registry) -> None:
    registry.promote("faces", 1, "stable", origin=ANN)
    before = tree(folder)

    refused = slipway("retire", "digits:1", "faces:1", "--json", folder=folder)

    assert (refused.code, refused.error["class"]) == (4, "ConflictError")
    assert "faces:1 cannot be retired: faces@stable names it" in refused.error["message"]
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["promote", "digits:4", "stable"], "would move digits@stable: digits:3 -> digits:4"),
        (["promote", "digits:4", "canary"], "would move digits@canary: nothing -> digits:4"),
        (["rollback", "digits", "stable"], "would move digits@stable: digits:3 -> digits:2"),
        (["unlabel", "digits", "stable"], "would move digits@stable: digits:3 -> nothing"),
        (["retire", "digits:4", "digits:1", "faces:1"], "would retire digits:1, digits:4\nwould retire faces:1"),
    ],
)
def test_a_dry_run_tells_and_changes_nothing(
    folder: Path, registry: Registry, arguments: list[str], expected: str
) -> None:
    registry.promote("digits", 2, "stable", origin=ANN)
    registry.promote("digits", 3, "stable", origin=ANN)
    before = tree(folder)

    told = call(folder, *arguments, "--dry-run")
    document = call(folder, *arguments, "--dry-run", "--json").document

    assert (told.stdout, told.stderr) == (f"{expected}\n", "dry run: nothing was changed\n")
    change = document["changes"][0] if "changes" in document else document
    assert (change["dry_run"], change["changed"], change["revision"]) == (True, False, 3)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["promote", "digits:4", "stable", "--expect", "2"], 4, "expected it to name digits:2, found digits:3"),
        (["promote", "digits:4", "stable", "--expect", "none"], 4, "expected it to name nothing, found digits:3"),
        (["promote", "digits:4", "stable", "--expect", "2", "--dry-run"], 4, "found digits:3"),
        (["rollback", "digits", "stable", "--expect", "2"], 4, "expected it to name digits:2, found digits:3"),
        (["unlabel", "digits", "stable", "--expect", "2"], 4, "expected it to name digits:2, found digits:3"),
        (["promote", "digits:1", "stable"], 4, "digits:1 is retired"),
        (["retire", "digits:3"], 4, "digits:3 cannot be retired: digits@stable names it"),
        (["promote", "digits:9", "stable"], 1, "newest versions: 4, 3, 2"),
        (["promote", "digit:3", "stable"], 1, "nearest models: digits"),
        (["promote", "digits", "stable"], 1, "'digits' names no version: expected MODEL:VERSION"),
        (["promote", "digits:3", "Stable"], 1, "'Stable' cannot be a label"),
        (["retire", "digits:9"], 1, "digits:9 does not exist"),
        (["rollback", "digits", "canary"], 1, "its labels: stable"),
        (["rollback", "digit", "stable"], 1, "nearest models: digits"),
        (["unlabel", "digit", "stable"], 1, "nearest models: digits"),
        (["history", "digit"], 1, "nearest models: digits"),
        (["history", "digits", "--label", "Stable"], 1, "'Stable' cannot be a label"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(
    folder: Path, registry: Registry, arguments: list[str], code: int, expected: str
) -> None:
    registry.promote("digits", 2, "stable", origin=ANN)
    registry.promote("digits", 3, "stable", origin=ANN)
    registry.retire("digits", [1], origin=ANN)
    before = tree(folder)

    refused = slipway(*arguments, folder=folder)

    assert (refused.code, refused.stdout) == (code, "")
    assert refused.stderr.startswith("error: ")
    assert expected in refused.stderr
    assert tree(folder) == before


def test_history_tells_who_moved_what_when_why_and_from_which_run(folder: Path, registry: Registry) -> None:
    registry.promote("digits", 2, "stable", origin=Origin("bob@laptop"))
    registry.promote("digits", 3, "canary", origin=ANN)
    registry.retire("digits", [1], origin=ANN)

    told = call(folder, "history", "digits").stdout
    transitions = call(folder, "history", "digits", "--limit", "2", "--json").document["transitions"]
    of_a_label = call(folder, "history", "digits", "--label", "stable", "--json").document["transitions"]
    shortened = call(folder, "history", "digits", "--limit", "2")

    lines = told.splitlines()
    assert lines[0].split() == ["REVISION", "WHEN", "WHAT", "WHO", "WHY", "RUN"]
    assert [line.split()[0] for line in lines[2:5]] == ["3", "2", "1"]
    for part in ("promote canary: nothing -> 3", "ann@build-7", "the new one is slow", "quiet-otter", "http://prefect"):
        assert part in lines[3]
    assert [list(item) for item in transitions] == [CHANGE[4:]] * 2
    assert [(item["revision"], item["action"], item["versions"]) for item in transitions] == [
        (3, "retire", [1]),
        (2, "promote", []),
    ]
    assert transitions[1]["run"] == {"id": "7e57", "name": "quiet-otter", "url": "http://prefect.test/runs/7e57"}
    assert [(item["revision"], item["who"], item["run"]) for item in of_a_label] == [(1, "bob@laptop", None)]
    assert "the newest 2; --limit shows more" in shortened.stderr
    nothing = call(folder, "history", "faces")
    assert (nothing.stdout, nothing.stderr) == ("", "nobody ever moved a label of faces; `slipway promote` does\n")


def test_what_somebody_wrote_into_the_registry_steers_no_terminal(folder: Path, registry: Registry) -> None:
    evil = "[red]\x1b]0;gotcha\x07\n9  promote stable"
    registry.promote("digits", 2, "stable", origin=Origin(evil, evil, Run("1", evil, evil)))
    Path(registry.store.uri, "models/digits/native/1", evil.replace("/", "")).touch()

    told = call(folder, "history", "digits")
    verified = slipway("verify", "digits:1", folder=folder)

    assert "[red]\\x1b]0;gotcha\\x07\\n9  promote" in told.stdout
    assert len(told.stdout.splitlines()) == 4
    assert (verified.code, len(verified.stderr.splitlines())) == (1, 3)
    assert "native/[red]\\x1b]0;gotcha\\x07\\n9  promote stable is not in the manifest" in verified.stderr
    for text in (told.stdout, told.stderr, verified.stdout, verified.stderr):
        assert not {"\x1b", "\x07"} & set(text)


def test_show_tells_labels_and_retirement(folder: Path, registry: Registry) -> None:
    registry.promote("digits", 2, "stable", origin=ANN)
    registry.promote("digits", 2, "canary", origin=ANN)
    registry.retire("digits", [1], origin=ANN)

    labelled = call(folder, "show", "digits@stable", "--json").document
    retired = call(folder, "show", "digits:1", "--json").document

    assert (labelled["version"], labelled["labels"], labelled["retired"]) == (2, ["canary", "stable"], False)
    assert (retired["version"], retired["labels"], retired["retired"]) == (1, [], True)
    assert (labelled["signature"], labelled["signature_checked"]) == (None, False)
    assert "canary, stable" in call(folder, "show", "digits:2").stdout


def test_show_tells_whose_signature_a_version_bears_and_if_it_was_checked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "private.pem").write_bytes(private)
    (tmp_path / "public.pem").write_bytes(public)
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY", str(tmp_path / "private.pem"))
    publish(Registry.open(str(folder / "registry")), folder)
    monkeypatch.delenv("SLIPWAY_SIGNING_KEY")

    unchecked = call(folder, "show", "digits")
    monkeypatch.setenv("SLIPWAY_PUBLIC_KEY", str(tmp_path / "public.pem"))
    checked = call(folder, "show", "digits")
    document = call(folder, "show", "digits", "--json").document

    key_id = document["signature"]["key_id"]
    assert f"signed by key {key_id} (not checked: SLIPWAY_PUBLIC_KEY is not set)" in unchecked.stdout
    assert f"signed by key {key_id} (checked)" in checked.stdout
    assert document["signature_checked"] is True


def test_diff_tells_what_differs_between_two_versions(folder: Path, registry: Registry) -> None:
    publish(registry, folder, identity="a5", model="digits", run="run-5")
    registry.promote("digits", 5, "stable", origin=ANN)

    told = call(folder, "show", "--diff", "digits:1", "digits@stable")
    document = call(folder, "show", "--diff", "digits:1", "digits@stable", "--json").document
    same = call(folder, "show", "--diff", "digits:1", "digits:2")

    assert told.stdout.split()[:4] == ["SECTION", "ITEM", "digits:1", "digits:5"]
    assert (document["a"], document["b"]) == ("digits:1", "digits:5")
    assert document["differences"][0] == {"section": "files", "item": "native bytes", "before": 24, "after": 34}
    assert {(item["section"], item["item"]) for item in document["differences"]} == {
        ("files", "native bytes"),
        ("files", "native digest"),
    }
    assert same.stdout == "no differences between digits:1 and digits:2 but number, date and run\n"
    assert call(folder, "show", "--diff", "digits:1", "digits:2", "--json").document["differences"] == []


def test_verify_all_reads_retired_versions_and_every_model(folder: Path, registry: Registry) -> None:
    registry.promote("digits", 2, "stable", origin=ANN)
    registry.retire("digits", [1], origin=ANN)

    told = call(folder, "verify", "--all").stdout.splitlines()
    document = call(folder, "verify", "--all", "digits", "--json").document

    assert [line.split(":")[0] for line in told] == ["digits"] * 5 + ["faces"] * 2
    assert told[4] == "digits: labels, history and manifests agree"
    assert [item["version"] for item in document["versions"]] == [4, 3, 2, 1]
    assert all(item["verified"] for item in document["versions"])
    assert document["contradictions"] == []
    assert slipway("verify", "--all", "digits:1", folder=folder).code == 1
    assert call(folder, "verify", "digits@stable").stdout.startswith("digits:2 verified: ")


def test_verify_all_tells_everything_that_is_wrong(folder: Path, registry: Registry) -> None:
    registry.promote("digits", 2, "stable", origin=ANN)
    registry.promote("digits", 3, "stable", origin=ANN)
    root = Path(registry.store.uri)
    (root / "models/digits/native/1/saved_model.pb").unlink()
    (root / paths.manifest("digits", 4)).write_text("{}".ljust(2000))
    (root / paths.manifest("digits", 3)).unlink()
    (root / paths.state("faces")).write_text("no state")

    told = slipway("verify", "--all", folder=folder)
    printed = slipway("verify", "--all", "--json", folder=folder)

    assert (told.code, printed.code) == (1, 1)
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["digits:2", "faces:1"]
    document = printed.document
    assert [(item["model"], item["version"], item["verified"]) for item in document["versions"]] == [
        ("digits", 4, False),
        ("digits", 2, True),
        ("digits", 1, False),
        ("faces", 1, True),
    ]
    assert document["versions"][0]["error"]["class"] == "FormatError"
    assert document["versions"][2]["problems"][0]["kind"] == "missing"
    found = {item["model"]: item["message"] for item in document["contradictions"]}
    assert found["digits"] == "digits@stable names digits:3, which is not committed"
    assert "state.json is not a state" in found["faces"]
    assert document["error"]["class"] == "StorageError"
    for expected in ("digits:4 does not verify", "native/saved_model.pb is missing", *found.values()):
        assert expected.split(" (")[0] in told.stderr


def test_an_empty_registry_has_nothing_to_verify(folder: Path) -> None:
    outcome = call(folder, "verify", "--all")

    assert (outcome.stdout, outcome.code) == ("", 0)
    assert "no version in " in outcome.stderr


def test_labels_on_s3(folder: Path, s3_bucket: Bucket) -> None:
    publish(Registry.open(s3_bucket.url), folder)
    where = ("--registry", s3_bucket.url)

    promoted = call(folder, "promote", "digits:1", "stable", *where, "--json").document

    assert promoted["registry"] == s3_bucket.url
    assert call(folder, "list", "digits", *where, "--json").document["versions"][0]["labels"] == ["stable"]
    assert call(folder, "history", "digits", *where, "--json").document["transitions"][0]["to"] == 1
    assert call(folder, "verify", "--all", *where, "--json").document["contradictions"] == []


# `package --label` where the version is there already: nothing is loaded, and no Prefect takes part.


@pytest.fixture
def reused(folder: Path) -> Registry:
    """A registry that has the model `tiny` as version 1."""
    source = make_payload(folder / "tiny")
    registry = Registry(open_store(str(folder / "registry")))
    identity = call(folder, "package", str(source), "--dry-run", "--json").document["identity"]
    publish(registry, folder, model="tiny", identity=identity)
    return registry


def test_the_label_follows_to_a_version_that_is_there(folder: Path, reused: Registry) -> None:
    rehearsed = call(folder, "package", "tiny", "--label", "stable", "--dry-run")
    assert "would move tiny@stable: nothing -> tiny:1\n" in rehearsed.stdout
    assert reused.state("tiny").revision == 0

    document = call(folder, "package", "tiny", "--label", "stable", "--json").document
    again = call(folder, "package", "tiny", "--label", "stable")

    assert (document["version"], document["reused"]) == (1, True)
    assert summary(document["label"]) == ("follow", "stable", None, 1, 1, True, False)
    assert "tiny@stable names tiny:1 already" in again.stdout
    assert call(folder, "package", "tiny", "--json").document["label"] is None


def test_the_label_never_follows_below_the_highest_version_it_named(folder: Path, reused: Registry) -> None:
    publish(reused, folder, model="tiny", identity="a2")
    reused.promote("tiny", 2, "stable", origin=ANN)

    for options in ([], ["--dry-run"]):
        refused = slipway("package", "tiny", "--label", "stable", "--json", *options, folder=folder)

        assert (refused.code, refused.error["class"]) == (4, "ConflictError")
        assert "expected a version above 2, the highest it ever named, found 1" in refused.error["message"]
        assert ("tiny:1 is committed, but labelling it failed" in refused.error["message"]) == (not options)
    assert reused.state("tiny").labels == {"stable": 2}


def test_a_dry_run_does_not_know_the_number_of_a_new_version(folder: Path, reused: Registry) -> None:
    reused.promote("tiny", 1, "stable", origin=ANN)

    told = call(folder, "package", "tiny", "--label", "stable", "--force", "--dry-run")
    label = call(folder, "package", "tiny", "--label", "stable", "--force", "--dry-run", "--json").document["label"]

    assert "would move tiny@stable: tiny:1 -> the new version\n" in told.stdout
    assert summary(label) == ("follow", "stable", 1, None, None, False, True)


def test_a_label_that_cannot_be_is_refused_before_any_work(folder: Path) -> None:
    refused = slipway("package", "nothing.keras", "--label", "Stable", "--json", folder=folder)

    assert (refused.code, refused.error["class"]) == (1, "InvalidInputError")
    assert "'Stable' cannot be a label" in refused.error["message"]
    assert not (folder / "registry").exists()
