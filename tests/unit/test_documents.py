from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from model_registry.documents import encodable, load, validate
from model_registry.errors import FormatError


@dataclass(frozen=True)
class _Leaf:
    number: int


@dataclass(frozen=True)
class _Document:
    leaves: tuple[_Leaf, ...]


_ADAPTER = TypeAdapter(_Document)


def test_an_object_of_the_known_schema_is_loaded_whole() -> None:
    assert load(b'{"schema_version": 1, "a": [1]}', key="key", what="a claim") == {"schema_version": 1, "a": [1]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"1",
        b'"schema_version"',
        b'["schema_version"]',
        b"{}",
        b"\xff\xfe",
        b'{"schema_version": 1, "a": "\\ud800"}',
        b'{"schema_version": ' + b"1" * 5000 + b"}",
        b'{"schema_version": 1, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_json_object_with_a_schema_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="key is not a claim: ") as caught:
        load(data, key="key", what="a claim")

    assert "restore the document from a backup" in caught.value.hint


@given(st.binary(max_size=200))
@example(b'{"schema_version": 1}')
def test_any_bytes_are_either_loaded_or_refused(data: bytes) -> None:
    try:
        document = load(data, key="key", what="a claim")
    except FormatError:
        return
    assert document["schema_version"] == 1


@pytest.mark.parametrize("schema", ["2", "0", '"1"', "null", "[]"])
def test_another_schema_is_refused_with_the_way_out(schema: str) -> None:
    with pytest.raises(FormatError, match=r"key has schema version .*, this Slipway reads 1") as caught:
        load(b'{"schema_version": %s}' % schema.encode(), key="key", what="a claim")

    assert "install the Slipway that wrote it" in caught.value.hint


def test_a_wrong_field_is_named_with_the_way_to_it() -> None:
    with pytest.raises(FormatError, match=r"key is not a tree: leaves\.1\.number: "):
        validate(_ADAPTER, {"leaves": [{"number": 1}, {"number": "x"}]}, key="key", what="a tree")
    with pytest.raises(FormatError, match="key is not a tree: leaves: "):
        validate(_ADAPTER, {}, key="key", what="a tree")


def test_a_document_that_is_no_object_is_named_as_a_whole() -> None:
    with pytest.raises(FormatError, match="key is not a tree: document: "):
        validate(_ADAPTER, [], key="key", what="a tree")  # type: ignore[arg-type]


def test_a_valid_document_becomes_its_type() -> None:
    document = {"schema_version": 1, "leaves": [{"number": 1}], "colour": "red"}

    assert validate(_ADAPTER, document, key="key", what="a tree") == _Document((_Leaf(1),))


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_made_encodable_and_valid_text_stays_as_it_is(text: str) -> None:
    shown = encodable(text)

    shown.encode()
    assert encodable(shown) == shown
    assert shown == text or any("\ud800" <= character <= "\udfff" for character in text)
