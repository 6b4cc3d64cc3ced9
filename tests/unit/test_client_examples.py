"""Plain features become tf.Example messages, and answers to them become arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_registry.errors import InvalidInputError
from model_registry.serving.client_examples import classes, fill_examples, regressions
from model_registry.serving.client_messages import message_class


def filled(given: Any) -> list[dict[str, list[Any]]]:
    """The values of each row's example."""
    examples = message_class("ExampleList")().examples
    fill_examples(examples, given)
    return [
        {
            name: list(feature.bytes_list.value or feature.int64_list.value or feature.float_list.value)
            for name, feature in example.features.feature.items()
        }
        for example in examples
    ]


def test_each_row_becomes_an_example() -> None:
    given = {"age": [30, 40], "name": ["ann", b"\x00"], "image": np.array([[0.5, 1.0], [2.0, 3.0]])}

    assert filled(given) == [
        {"age": [30], "name": [b"ann"], "image": [0.5, 1.0]},
        {"age": [40], "name": [b"\x00"], "image": [2.0, 3.0]},
    ]


def test_serialized_examples_are_sent_as_they_are() -> None:
    example = message_class("Example")()
    example.features.feature["age"].int64_list.value.append(7)

    assert filled([example.SerializeToString()] * 2) == [{"age": [7]}] * 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "found no feature"),
        ({"age": []}, "at least 1; found age: 0"),
        ({"age": [1], "name": ["a", "b"]}, "found age: 1, name: 2"),
        ({"age": 7}, "'age' is a single value"),
        ({"age": [[1], [2, 3]]}, "'age' is no array"),
        ({"age": [1j]}, "complex128: expected numbers, booleans or strings"),
        ({"age": [None]}, "found a NoneType among them"),
        ({"age": [2**64 - 1]}, "above those of int64"),
        ([b"\xff\xff"], "found other bytes"),
        ([1.5], "found float"),
    ],
)
def test_features_that_make_no_examples_are_refused(given: Any, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        filled(given)


def test_a_classification_becomes_scores_and_classes() -> None:
    response = message_class("ClassificationResponse")()
    for scores in ((0.25, 0.75), (1.0,)):
        row = response.result.classifications.add()
        for label, score in zip(("cat", "dog"), scores, strict=False):
            row.classes.add(label=label, score=score)

    found = classes(response)

    assert found["classes"].tolist() == [[b"cat", b"dog"], [b"cat", b""]]
    assert found["scores"].dtype == np.float32
    np.testing.assert_array_equal(found["scores"], [[0.25, 0.75], [1.0, np.nan]])


def test_a_classification_without_names_has_scores_alone() -> None:
    response = message_class("ClassificationResponse")()
    response.result.classifications.add().classes.add(score=0.5)

    assert {name: array.tolist() for name, array in classes(response).items()} == {"scores": [[0.5]]}


def test_a_regression_becomes_a_value_for_each_row() -> None:
    response = message_class("RegressionResponse")()
    for value in (1.5, 2.5):
        response.result.regressions.add(value=value)

    assert regressions(response)["outputs"].tolist() == [1.5, 2.5]
