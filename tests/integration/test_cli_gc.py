"""`slipway gc`, as people and scripts call it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import click
import click.testing
import pytest

from flows.cli_gc import gc
from model_registry import paths
from model_registry.registry import Registry
from model_registry.state import Origin
from model_registry.storage.local import LocalStore
from tests.support.command import SLIPWAY, tree
from tests.support.drafts import make_draft, make_payload


def slipway(*arguments: object) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(gc, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Three versions of `digits`: 1 is retired, 2 is stable."""
    opened = Registry(LocalStore(tmp_path / "registry"))
    for number in (1, 2, 3):
        opened.publish(make_draft(identity=f"a{number}"), {"native": make_payload(tmp_path / str(number))})
    opened.promote("digits", 2, "stable", origin=Origin("ann@build-7"))
    opened.retire("digits", [1], origin=Origin("ann@build-7"))
    monkeypatch.setenv("SLIPWAY_REGISTRY", opened.store.uri)
    return opened


def test_gc_deletes_at_once_where_nobody_can_be_asked(registry: Registry) -> None:
    result = slipway("--grace", "0")

    assert result.exit_code == 0, result.output
    header, _, row = result.stdout.splitlines()[:3]
    assert header.split() == ["KIND", "NAME", "FILES", "SIZE", "AGE", "WHY"]
    assert row.split()[:5] == ["version", "digits:1", "4", "24", "bytes"]
    assert "done: delete 4 files, 24 bytes" in result.stderr
    assert [listed.version for listed in registry.listing("digits")] == [3, 2]
    assert registry.history("digits")[0].origin == Origin(Origin.here().who, "gc")


def test_gc_leaves_what_is_younger_than_a_day(registry: Registry) -> None:
    before = tree(Path(registry.store.uri))

    result = slipway()

    assert (result.exit_code, result.stdout) == (0, "")
    assert "kept digits:1: retired at revision 2, and the grace is not over yet" in result.stderr
    assert f"no garbage in {registry.store.uri}" in result.stderr
    assert tree(Path(registry.store.uri)) == before


def test_a_dry_run_shows_exactly_what_is_done_then_and_changes_nothing(registry: Registry) -> None:
    before = tree(Path(registry.store.uri))

    shown = slipway("digits", "--keep", 1, "--grace", "0s", "--dry-run")
    rehearsed = json.loads(slipway("digits", "--keep", 1, "--grace", "0s", "--dry-run", "--json").stdout)
    assert tree(Path(registry.store.uri)) == before
    done = json.loads(slipway("digits", "--keep", 1, "--grace", "0s", "--json").stdout)

    assert "would be done: delete 4 files, 24 bytes" in shown.stderr
    assert "dry run: nothing was changed" in shown.stderr
    assert "digits:1" in shown.stdout
    assert rehearsed | {"dry_run": False, "deleted": done["deleted"]} == done
    assert [item | {"age": 0} for item in rehearsed["deleted"]] == [item | {"age": 0} for item in done["deleted"]]
    assert done == {
        "dry_run": False,
        "registry": registry.store.uri,
        "retired": [],
        "deleted": [
            {
                "kind": "version",
                "name": "digits:1",
                "why": "retired at revision 2",
                "files": 4,
                "bytes": 24,
                "age": done["deleted"][0]["age"],
                "model": "digits",
                "version": 1,
            }
        ],
        "kept": [{"name": "digits:2", "why": "digits@stable names it"}],
        "failed": [],
        "bytes": 24,
    }


def test_keep_retires_what_no_label_needs(registry: Registry, tmp_path: Path) -> None:
    registry.publish(make_draft(identity="a4"), {"native": make_payload(tmp_path / "4")})

    document = json.loads(slipway("--keep", 1, "--json").stdout)

    assert document["retired"] == [
        {"model": "digits", "version": 3, "why": "not the newest, and no label needs it"},
    ]
    assert document["deleted"] == []
    assert registry.history("digits")[0].origin.why == "gc --keep 1"


def test_what_could_not_be_collected_makes_it_exit_1(registry: Registry) -> None:
    registry.store.put_new(paths.state("faces"), b"{}")

    result = slipway("--grace", "0")

    assert result.exit_code == 1
    assert "digits:1" in result.stdout
    assert "not everything could be collected" in result.stderr
    assert "faces: registry/faces/state.json is not a state" in result.stderr
    again = slipway("--json")
    document = json.loads(again.stdout)
    assert (again.exit_code, document["error"]["class"]) == (1, "StorageError")
    assert [(failed["name"], failed["class"]) for failed in document["failed"]] == [("faces", "FormatError")]


def test_gc_of_a_model_that_is_not_there_names_the_nearest(registry: Registry) -> None:
    result = slipway("digit")

    assert result.exit_code == 1
    assert f"no model 'digit' in {registry.store.uri}" in result.stderr
    assert "nearest models: digits" in result.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800), ("1.5h", 5400)]
)
def test_a_grace_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    option = next(parameter for parameter in gc.params if parameter.name == "grace")

    assert option.type.convert(text, option, None) == seconds


@pytest.mark.parametrize("text", ["", "1w", "-1h", "h", "1h30m", "1e9", "inf", "nan", "1 h", "\u0661h"])
def test_a_grace_that_is_none_exits_2(text: str) -> None:
    result = slipway("--grace", text)

    assert result.exit_code == 2
    assert "is no duration: expected one like 90s, 30m, 24h or 7d" in result.stderr


def test_names_that_could_steer_a_terminal_are_shown_as_escapes(registry: Registry) -> None:
    left = Path(registry.store.uri, "models/.slipway-\x1b[31m.tmp")
    left.write_bytes(b"")

    result = slipway("--grace", "0", "--dry-run")

    assert r"models/.slipway-\x1b[31m.tmp" in result.stdout
    assert "\x1b" not in result.output


@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, [3, 2, 1]), ("y\n", 0, [3, 2])])
def test_on_a_terminal_the_plan_is_shown_and_asked_about(
    registry: Registry, answer: str, code: int, left: list[int]
) -> None:
    exit_code, said, shown = _on_a_terminal(answer, "gc", "--grace", "0")

    assert "delete 4 files, 24 bytes in " in said
    assert "go on? [y/N]" in said
    assert "digits:1" in shown
    assert exit_code == code
    assert [listed.version for listed in registry.listing("digits")] == left


def test_on_a_terminal_nobody_is_asked_with_yes_or_without_garbage(registry: Registry) -> None:
    for options in (["--grace", "0", "--yes"], []):
        exit_code, said, _ = _on_a_terminal("", "gc", *options)

        assert (exit_code, "go on?" in said) == (0, False)
    assert [listed.version for listed in registry.listing("digits")] == [3, 2]


def _on_a_terminal(answer: str, *arguments: str) -> tuple[int, str, str]:
    """Runs the command with stdin and stderr on a terminal; returns its exit code, the terminal's text, and stdout."""
    ours, its = os.openpty()
    try:
        with subprocess.Popen([SLIPWAY, *arguments], stdin=its, stderr=its, stdout=subprocess.PIPE, text=True) as run:
            os.write(ours, answer.encode())
            stdout, _ = run.communicate(timeout=60)
        return run.returncode, os.read(ours, 65_536).decode(), stdout
    finally:
        os.close(ours)
        os.close(its)
