"""Reading package.yaml from a disk: YAML, paths and label files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from model_registry.errors import InvalidInputError
from model_registry.spec import PackageSpec
from model_registry.spec_file import LoadedSpec, load_spec

CLASSIFY = "model: digits\nsignatures:\n  serving_default: {method: classify, scores: p, classes: %s}\n"


def write(directory: Path, text: str | bytes) -> Path:
    path = directory / "package.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_paths_start_from_the_specs_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    loaded = load_spec(write(tmp_path / "sub", "model: digits\nsource: ../digits.keras\nsamples: s.npz\n"))
    assert loaded.spec.source == str(tmp_path / "digits.keras")
    assert loaded.spec.samples == str(tmp_path / "sub/s.npz")
    assert loaded.directory == tmp_path / "sub"


def test_absolute_paths_and_s3_uris_stay_as_they_are(tmp_path: Path) -> None:
    loaded = load_spec(write(tmp_path, "model: digits\nsource: s3://bucket/a/digits.keras\nsamples: /data/s.npz\n"))
    assert (loaded.spec.source, loaded.spec.samples) == ("s3://bucket/a/digits.keras", "/data/s.npz")


def test_a_linked_source_keeps_the_name_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "latest.keras").symlink_to(tmp_path / "blob")
    assert load_spec(write(tmp_path, "model: d\nsource: latest.keras\n")).spec.source == str(tmp_path / "latest.keras")


def test_labels_are_read_with_the_spec(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("\ufeffzero\r\nün\r\ntwo words\r\n".encode())
    signatures = load_spec(write(tmp_path, CLASSIFY % "labels.txt")).spec.signatures
    assert signatures is not None
    assert signatures["serving_default"].classes == ("zero", "ün", "two words")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../labels.txt", "expected a file inside the spec's folder"),
        ("sub/../../labels.txt", "expected a file inside the spec's folder"),
        ("/etc/hostname", "expected a file inside the spec's folder"),
        ("s3://bucket/labels.txt", "expected a file inside the spec's folder"),
        ("missing.txt", "'missing.txt' cannot be read: No such file or directory"),
        ("link.txt", "is a link that leads out of the spec's folder"),
        ("folder", "is no regular file"),
        ("pipe", "is no regular file"),
        ("loop", "'loop' cannot be read"),
        ("empty.txt", "expected one label a line in 'empty.txt', found '' on line 1"),
        ("gap.txt", "found '' on line 2"),
        ("binary.txt", "'binary.txt' is not UTF-8 text: byte 1 is 0xff"),
        ("large.txt", "expected at most 10 MB of labels"),
    ],
)
def test_labels_elsewhere_or_damaged_are_refused(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "labels.txt").write_text("secret\n")
    inside = tmp_path / "spec"
    inside.mkdir()
    (inside / "link.txt").symlink_to(tmp_path / "labels.txt")
    (inside / "loop").symlink_to(inside / "loop")
    (inside / "folder").mkdir()
    os.mkfifo(inside / "pipe")
    (inside / "empty.txt").write_bytes(b"")
    (inside / "gap.txt").write_bytes(b"a\n\nb\n")
    (inside / "binary.txt").write_bytes(b"a\xff")
    if name == "large.txt":
        (inside / name).write_bytes(b"a" * 10_000_001)
    with pytest.raises(InvalidInputError) as caught:
        load_spec(write(inside, CLASSIFY % name))
    assert caught.value.message.startswith("package.yaml: line 3, signatures.serving_default.classes: ")
    assert problem in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "package.yaml is empty"),
        ("# nothing\n---\n", "package.yaml is empty"),
        ("- model\n", "expected a mapping with at least the key `model`, found a list of 1"),
        ("digits", "expected a mapping with at least the key `model`, found the text 'digits'"),
        ("model: a\nmodel: b\n", "package.yaml, line 2: not valid YAML: found duplicate key"),
        ("model: [a\n", "line 2: not valid YAML"),
        ("model: a\n b: c\n", "line 2: not valid YAML"),
        ("model: a\n---\nmodel: b\n", "line 2: not valid YAML"),
        ("a: &x 1\nb: *x\n", "line 1: not valid YAML: anchors and aliases"),
        ("a: 1\nb: *x\n", "line 2: not valid YAML: anchors and aliases"),
        ("a: &a [&b [x], *b]\n", "anchors and aliases"),
        ("model: !!python/object/apply:os.system [id]\n", "tags are not accepted"),
        ("model: !!str 5\n", "tags are not accepted"),
        ("model: 2024-99-99\n", "not valid YAML: ValueError"),
        ("model: 2024-01-01\n", "line 1, model: expected text, found the date 2024-01-01; put it in quotes"),
        ("model: " + "[" * 5000, "nested more than 20 levels deep"),
        ("model: a\n\n\nbatch_size: [1]\n", "line 4, batch_size: unknown key; did you mean 'batch_sizes'?"),
        ("model: a\nbatch_sizes:\n- 1\n- 0\n", "line 4, batch_sizes[1]: expected a number 1 or more"),
        ("model: 'a\\0'\nsource: \"a\\0b\"\n", "line 2, source: expected a path"),
        ("model: \"\\ud800\"\n", "line 1, model"),
        ("? [a]\n: 1\n", "package.yaml"),
        (b"\x89HDF\r\n\x1a\n\0\0", "is not a YAML text: expected UTF-8, found the byte 0x89 at 0"),
        (b"PK\x03\x04\x14\0", "not valid YAML"),
        ("model: a".encode("utf-16"), "is not a YAML text"),
        ("#" * (1 << 20) + "\n", "expected at most 1 MiB"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_spec_is_refused(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_spec(write(tmp_path, text))
    assert problem in caught.value.message


def test_numbers_are_read_by_yaml_1_2(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, "model: digits\nvariants: {native: {atol: 1e-5, rtol: 1.0e-4}}\n")).spec
    assert (spec.variants.native.atol, spec.variants.native.rtol) == (1e-5, 1e-4)


def test_a_spec_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path / "none.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "is no regular file"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(InvalidInputError, match="the spec") as caught:
            load_spec(path)
        assert problem in caught.value.message


def test_the_command_line_wins_over_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    loaded = load_spec(write(tmp_path / "specs", "model: digits\nsource: a.keras\nbatch_sizes: [4]\n"))
    monkeypatch.chdir(tmp_path)
    changed = loaded.overridden(model="letters", source="b.keras")
    assert (changed.spec.model, changed.spec.source) == ("letters", str(tmp_path / "b.keras"))
    assert (changed.spec.batch_sizes, changed.directory) == ((4,), tmp_path / "specs")
    assert loaded.overridden() == loaded


def test_no_spec_is_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = LoadedSpec.without_file("digits", "digits.keras")
    assert loaded == LoadedSpec(PackageSpec(model="digits", source=str(tmp_path / "digits.keras")), tmp_path)


@pytest.mark.parametrize("change", [{"model": "a b"}, {"model": ""}, {"source": "gs://b/m.keras"}, {"source": ""}])
def test_the_command_line_is_checked_too(tmp_path: Path, change: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        load_spec(write(tmp_path, "model: digits\n")).overridden(**change)


# Words of YAML and of package.yaml, put together as they come.
pieces = [
    "model", "signatures", "inputs", "digits", ":", ": ", "-", "- ", "?", "? ", "{", "}", "[", "]", ",", "'", '"',
    "null", "~", "1e5", "0x", "0b", "0o9", "1_0", "1:30", "+.e", ".inf", ".nan", "2024-01-01", "&a", "*a", "!!int",
    "<<", "---", "...", "|", ">", "#", "=", "\\x", "\n", "\n  ", "\t", "\ufeff", "%YAML 1.1\n",
]  # fmt: skip
yaml_like = st.lists(
    st.sampled_from(pieces) | st.text(st.characters(codec="utf-8"), max_size=4),
    max_size=25,
).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(yaml_like.map(str.encode), yaml_like.map(lambda text: b"model: a\n" + text.encode()), st.binary()))
@example(b"model: 0b\n")
@example(b"model: 0x\n")
@example(b"<<: 1\n")
@example(b"model: " + b"9" * 5000)
def test_any_file_is_a_spec_or_invalid_input(tmp_path: Path, data: bytes) -> None:
    try:
        loaded = load_spec(write(tmp_path, data))
    except InvalidInputError:
        return
    assert PackageSpec.parse(loaded.spec.model_dump(mode="json")) == loaded.spec
