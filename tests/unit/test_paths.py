from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry import paths
from model_registry.errors import InvalidInputError
from model_registry.paths import Reference


@pytest.mark.parametrize("name", ["digits", "a", "Res-Net_50.v2", "9lives", "x" * 128])
def test_a_model_may_bear_a_plain_name(name: str) -> None:
    assert paths.check_model_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-x", ".x", "a/b", "a b", "a:1", "a@b", "ä", "x" * 129, "a\n"])
def test_a_model_may_not_bear_a_name_that_needs_quoting(name: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be used"):
        paths.check_model_name(name)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("digits", Reference("digits")),
        ("digits:3", Reference("digits", version=3)),
        ("digits@stable", Reference("digits", label="stable")),
    ],
)
def test_a_reference_is_read_and_written_alike(text: str, reference: Reference) -> None:
    assert Reference.parse(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text", ["", "digits:", "digits:0", "digits:01", "digits:x", "digits:-1", "digits@", "digits@S"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Reference.parse(text)


def test_every_path_is_a_valid_key() -> None:
    for key in (
        paths.reservation("m", 1),
        paths.manifest("m", 1),
        paths.claim("m", "a1"),
        paths.rejection("m", "a1"),
        paths.payload("m", "native", 1) + "saved_model.pb",
        paths.staging("run") + "file",
    ):
        assert paths.check_key(key) == key


def test_the_version_is_read_from_a_manifests_key() -> None:
    assert paths.version_of(paths.manifest("m", 12)) == 12
    for key in ("registry/m/versions/0.json", "registry/m/versions/007.json", "registry/m/versions/x.json", "3.json"):
        assert paths.version_of(key) is None


@given(st.text())
def test_a_key_that_passes_stays_below_the_root(text: str) -> None:
    try:
        paths.check_key(text)
    except InvalidInputError:
        return
    assert not text.startswith("/")
    assert not {"", ".", ".."} & {*text.split("/")}
    assert len(text.encode()) <= 900
