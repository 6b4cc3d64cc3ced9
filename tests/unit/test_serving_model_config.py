from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.errors import FormatError
from model_registry.serving.model_config import ServedModel, from_text, to_text

_DIGITS = ServedModel("digits", "/models/digits", (1, 3), {"stable": 1, "canary": 3})
_TEXT = """\
# Written by slipway sync, which writes it anew: edit the labels in the registry instead.
model_config_list {
  config {
    name: "digits"
    base_path: "/models/digits"
    model_platform: "tensorflow"
    model_version_policy {
      specific {
        versions: 1
        versions: 3
      }
    }
    version_labels { key: "canary" value: 3 }
    version_labels { key: "stable" value: 1 }
  }
}
"""
_ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ['"', "\\", "\\042", "a\nb", '"\n    base_path: "/', "{name}", "NAME", "versions: 1", "ü/模型"]
)


@st.composite
def _served(draw: st.DrawFn) -> ServedModel:
    versions = tuple(sorted(draw(st.sets(st.integers(1, 10**18 - 1), min_size=1, max_size=4))))
    labels = draw(st.dictionaries(_ODD, st.sampled_from(versions), max_size=3))
    return ServedModel(draw(_ODD), draw(_ODD), versions, labels)


def test_the_text_is_that_of_model_server_config() -> None:
    assert to_text([_DIGITS]) == _TEXT


def test_no_model_is_a_list_without_entries() -> None:
    assert to_text([]).endswith("model_config_list {\n}\n")
    assert from_text(to_text([]), path="models.config") == ()


def test_the_order_of_models_makes_no_difference() -> None:
    faces = ServedModel("faces", "/models/faces", (2,))
    assert to_text([faces, _DIGITS]) == to_text([_DIGITS, faces])


@given(st.lists(_served(), max_size=3, unique_by=lambda model: model.name))
def test_what_was_written_is_read_as_it_was(models: list[ServedModel]) -> None:
    assert from_text(to_text(models), path="models.config") == tuple(sorted(models, key=lambda model: model.name))


@given(st.text(max_size=30), st.integers(0, len(_TEXT)), st.integers(0, 5))
def test_what_is_read_is_what_would_be_written(inserted: str, at: int, dropped: int) -> None:
    text = _TEXT[:at] + inserted + _TEXT[at + dropped :]
    try:
        models = from_text(text, path="models.config")
    except FormatError:
        return
    assert to_text(models) == text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Written", "# Edited"),
        ("versions: 1\n", "versions: 01\n"),
        ("versions: 1\n", "versions: 0\n"),
        ("versions: 1\n", "versions: 4\n"),  # not ascending, and a label names 1
        ("versions: 1\n", "versions: 1\n        versions: 1\n"),
        ("versions: 1\n", "versions: \u0661\n"),  # a digit, though not of ASCII
        ("value: 3", "value: 2"),
        ('"canary"', '"stable"'),
        ('"tensorflow"', '"other"'),
        ("specific", "latest"),
        ('"digits"', '"dig\\151ts"'),
        ('"digits"', '"\\377"'),
        ("  config {", "  config {\n"),
        ("}\n}\n", "}\n}"),
        (_TEXT, ""),
        (_TEXT, _TEXT[:100]),
        ("model_config_list {\n", "model_config_list {\n" + _TEXT.split("model_config_list {\n")[1][:-2]),  # twice
    ],
)
def test_anything_else_is_refused(old: str, new: str) -> None:
    changed = _TEXT.replace(old, new, 1)
    assert changed != _TEXT
    with pytest.raises(FormatError, match=r"models\.config.*the agent owns this file"):
        from_text(changed, path="models.config")


@pytest.mark.parametrize("versions", [(), (2, 1), (1, 1), (0,)])
def test_versions_ascend_from_one(versions: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected ascending versions"):
        ServedModel("digits", "/models/digits", versions)


def test_a_label_names_a_version_that_is_listed() -> None:
    with pytest.raises(ValueError, match="a label names 2"):
        ServedModel("digits", "/models/digits", (1,), {"stable": 2})


def test_a_model_has_one_entry() -> None:
    with pytest.raises(ValueError, match="digits: expected one entry"):
        to_text([_DIGITS, _DIGITS])
