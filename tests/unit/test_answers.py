"""Answers as TensorFlow Serving's REST API would print them, and as a person reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flows.answers import answer_lines, rest_value


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0.1, 0.2]], np.float32), [[0.1, 0.2]]),
        (np.array([0.1], np.float64), [0.1]),
        (np.array([[b"gr\xc3\xbcn", b"\xff"]], dtype=object), [["grün", {"b64": "/w=="}]]),
        (np.array(7, np.int32), 7),
        (np.array(0.1, np.float16), 0.1),
        (np.zeros((2, 0), np.float32), [[], []]),
        (np.zeros((0, 2), np.float32), []),
        (np.arange(12, dtype=np.float32).reshape(2, 3, 2), np.arange(12.0).reshape(2, 3, 2).tolist()),
    ],
)
def test_values_are_the_rest_apis(array: Any, expected: Any) -> None:
    assert rest_value(array) == expected


def test_more_values_than_one_chunk_come_out_whole() -> None:
    array = np.linspace(0, 1, 70_000, dtype=np.float32)

    assert np.array_equal(np.array(rest_value(array), np.float32), array)


def test_class_scores_show_the_classes_that_lead() -> None:
    scores = np.array([[0.1, 0.7, 0.2]] * 12, np.float32)

    lines = list(answer_lines({"probabilities": scores}))

    assert lines[0] == "probabilities  float32 [12, 3]"
    assert lines[1] == "  row 0: class 1 (0.7000), then 2 (0.2000), 0 (0.1000)"
    assert lines[-1] == "  and 2 more rows; --json prints them all"


def test_large_arrays_are_abbreviated() -> None:
    lines = list(answer_lines({"embedding": np.zeros((1000, 1000), np.float32)}))

    assert len(lines) < 12
    assert any("..." in line for line in lines)


def test_strings_cannot_steer_the_terminal() -> None:
    lines = list(answer_lines({"text": np.array([b"\x1b[2J", b"\xff\xfe"], dtype=object)}))

    assert not any("\x1b" in line for line in lines)
    assert "2 bytes" in lines[1]
