"""What `slipway show --diff` finds between two versions, and what it leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from model_registry.comparison import Difference, differences
from model_registry.servable import Blessing, Check, PayloadFile, Run, Seal, Source, TensorInfo, Variant
from tests.support.published_models import draft, signature

IMAGE = TensorInfo("image", "float32", (None, 8, 8, 1))
FLAT = TensorInfo("image", "float16", (None, 64))
SCORES = TensorInfo("scores", "float32", None)
PARITY = Check("parity/scores", "native", {"max_absolute_error": 1e-7}, {"atol": 1e-5}, True)


def files(*sizes: int) -> tuple[PayloadFile, ...]:
    return tuple(PayloadFile(f"file-{number}", size, f"{size:064x}") for number, size in enumerate(sizes))


def test_two_versions_of_the_same_content_differ_in_nothing() -> None:
    first = draft(version=1, created_at="2026-03-01T11:00:00Z", identity="1" * 64, write_id="a")
    second = draft(version=2, created_at="2026-03-02T11:00:00Z", write_id="b", run=Run("2", "calm-heron"))

    assert differences(first, second) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"model": "digits"}, {"model": "faces"}, [("model", "name", "digits", "faces")]),
        ({"batch_sizes": (1, 8)}, {"batch_sizes": (1,)}, [("model", "batch sizes", [1, 8], [1])]),
        (
            {"signatures": (signature("serving_default", "predict", [IMAGE], [SCORES]),)},
            {
                "signatures": (
                    signature("serving_default", "classify", [FLAT], [SCORES]),
                    signature("embedding", "predict", [], [SCORES]),
                )
            },
            [
                ("signatures", "serving_default method", "predict", "classify"),
                ("signatures", "serving_default input image", "float32 [null, 8, 8, 1]", "float16 [null, 64]"),
                ("signatures", "embedding method", None, "predict"),
                ("signatures", "embedding output scores", None, "float32 of unknown rank"),
            ],
        ),
        (
            {"blessing": Blessing((PARITY,))},
            {"blessing": Blessing((Check("parity/scores", "native", 2e-7, {"atol": 1e-5}, True),))},
            [("checks", "parity/scores measured", {"max_absolute_error": 1e-7}, 2e-7)],
        ),
        (
            {"blessing": Blessing((Check("scan", "tensorrt-fp16-sm80", 0, 0, True),))},
            {"blessing": Blessing(())},
            [
                ("checks", "scan (tensorrt-fp16-sm80) measured", 0, None),
                ("checks", "scan (tensorrt-fp16-sm80) threshold", 0, None),
                ("checks", "scan (tensorrt-fp16-sm80) passed", True, None),
            ],
        ),
        (
            {"variants": (Variant("native", files(10, 20)),), "missing": {"tensorrt-fp16": "no GPU"}},
            {"variants": (Variant("native", files(31)),)},
            [
                ("files", "native bytes", 30, 31),
                ("files", "native files", 2, 1),
                ("files", "native digest", Variant("", files(10, 20)).digest, Variant("", files(31)).digest),
                ("files", "tensorrt-fp16 not delivered", "no GPU", None),
            ],
        ),
        (
            {"source": Source("/a.keras", "keras", "ab", 1)},
            {"source": Source("/b.h5", "h5", "cd", 2)},
            [
                ("source", "uri", "/a.keras", "/b.h5"),
                ("source", "format", "keras", "h5"),
                ("source", "sha256", "ab", "cd"),
                ("source", "bytes", 1, 2),
            ],
        ),
        (
            {"spec": {"server": "none", "variants": {"native": {"atol": 1e-5}}, "quality": None}},
            {"spec": {"server": "docker", "variants": {"native": {"atol": 1e-3}}}},
            [("spec", "server", "none", "docker"), ("spec", "variants.native.atol", 1e-5, 1e-3)],
        ),
        (
            {"libraries": {"keras": "3.15.1", "h5py": "3"}},
            {"libraries": {"keras": "3.16.0", "numpy": "1.26"}},
            [
                ("libraries", "keras", "3.15.1", "3.16.0"),
                ("libraries", "h5py", "3", None),
                ("libraries", "numpy", None, "1.26"),
            ],
        ),
        ({}, {"signature": Seal("ed25519", "0123", "x")}, [("signed", "key_id", None, "0123")]),
    ],
)
def test_each_section_tells_what_differs(
    before: dict[str, Any], after: dict[str, Any], expected: list[tuple[Any, ...]]
) -> None:
    found = differences(draft(**before), draft(**after))

    assert found == [Difference(*difference) for difference in expected]
