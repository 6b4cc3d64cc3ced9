from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from model_registry.errors import FormatError
from model_registry.servable import Blessing, Check, PayloadFile, ServableVersion, Variant
from tests.support.drafts import make_draft


def _document(**changes: Any) -> bytes:
    return json.dumps(json.loads(make_draft().to_json()) | changes).encode()


def test_a_manifest_is_read_as_it_was_written() -> None:
    files = (PayloadFile("saved_model.pb", 5, "0" * 64),)
    version = replace(
        make_draft(), version=3, variants=(Variant("native", files),), missing={"tensorrt-fp16": "no GPU"}
    )

    assert ServableVersion.from_json(version.to_json(), key="key") == version


def test_a_field_of_a_newer_slipway_is_passed_over() -> None:
    assert ServableVersion.from_json(_document(colour="red"), key="key") == make_draft()


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(FormatError, match="key has schema version 2, this Slipway reads 1"):
        ServableVersion.from_json(_document(schema_version=2), key="key")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'"text"'])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="key is not a manifest"):
        ServableVersion.from_json(data, key="key")


@pytest.mark.parametrize("field", ["model", "version", "source", "variants", "blessing"])
def test_a_manifest_with_a_wrong_field_is_refused_by_its_name(field: str) -> None:
    with pytest.raises(FormatError, match=field):
        ServableVersion.from_json(_document(**{field: [None]}), key="key")


def test_the_verdict_needs_a_check_and_no_failure() -> None:
    good, bad = Check("a", "native", 1, 1, True), Check("b", "native", 2, 1, False)

    assert Blessing(()).verdict == "rejected"
    assert Blessing((good,)).verdict == "blessed"
    assert Blessing((good, bad)).verdict == "rejected"
    assert Blessing((good, bad)).failures == (bad,)


def test_the_digest_of_a_variant_does_not_depend_on_the_order_of_its_files() -> None:
    one, two = PayloadFile("a", 1, "1" * 64), PayloadFile("b", 2, "2" * 64)

    assert Variant("native", (one, two)).digest == Variant("native", (two, one)).digest
    assert Variant("native", (one, two)).digest != Variant("native", (one,)).digest
    assert Variant("native", (one, two)).bytes == 3


def test_a_variant_is_found_by_its_name() -> None:
    version = replace(make_draft(), variants=(Variant("native", ()),))

    assert version.variant("native") == Variant("native", ())
    assert version.variant("other") is None
