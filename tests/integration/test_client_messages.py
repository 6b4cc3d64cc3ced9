"""The messages that the client brings along are those of TensorFlow Serving, field by field."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_registry.serving.client_messages import SCHEMA, message_class
from model_registry.serving.client_tensors import DTYPES

pytestmark = pytest.mark.xdist_group("client-messages")
ROOT = Path(__file__).parents[2]
NAMES = re.findall(r"message (\w+)", SCHEMA)

# Prints the fields of messages: number, form and type. An enumeration counts as int32, the same on the wire.
_DESCRIBE = """
def described(message):
    return {field.name: [field.number, *form(field)] for field in message.fields}

def form(field):
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return ["map", kind(entry.fields_by_name["key"]), kind(entry.fields_by_name["value"])]
    return ["repeated" if field.label == field.LABEL_REPEATED else "", kind(field)]

def kind(field):
    if field.message_type is not None:
        return field.message_type.name
    return field.TYPE_INT32 if field.enum_type is not None else field.type
"""
# TensorFlow comes after the client, with its messages, and finds them in nobody's way.
_THEIRS = """
import importlib, json, sys
from model_registry.serving.client import Client
from model_registry.serving.client_messages import message_class

alone = "tensorflow" not in sys.modules
ours = message_class("PredictRequest")()
ours.inputs["a"].float_val.extend([1, 2])

from tasks.model_process.lean_import import lean_import
with lean_import():
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

read = list(predict_pb2.PredictRequest.FromString(ours.SerializeToString()).inputs["a"].float_val)
found = {}

def add(messages):
    for message in messages:
        found.setdefault(message.name, described(message))
        add(message.nested_types)

for name in (
    "tensorflow_serving.apis.classification", "tensorflow_serving.apis.get_model_metadata",
    "tensorflow_serving.apis.get_model_status", "tensorflow_serving.apis.input", "tensorflow_serving.apis.model",
    "tensorflow_serving.apis.predict", "tensorflow_serving.apis.prediction_log", "tensorflow_serving.apis.regression",
    "tensorflow_serving.apis.status", "tensorflow.core.example.example", "tensorflow.core.example.feature",
    "tensorflow.core.framework.tensor", "tensorflow.core.framework.tensor_shape", "tensorflow.core.protobuf.meta_graph",
    "google.protobuf.any", "google.protobuf.wrappers",
):
    add(importlib.import_module(name + "_pb2").DESCRIPTOR.message_types_by_name.values())
dtypes = {name: tf.as_dtype(name).as_datatype_enum for name in sys.argv[1:]}
print(json.dumps({"messages": found, "dtypes": dtypes, "alone": alone, "read": read}))
"""


@pytest.fixture(scope="module")
def theirs() -> Any:
    """What TensorFlow says, in a process of its own that has loaded the client before."""
    command = [sys.executable, "-c", _DESCRIBE + _THEIRS, *DTYPES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_as_tensorflow_has_it(name: str, theirs: Any) -> None:
    scope: dict[str, Any] = {}
    exec(_DESCRIBE, scope)

    ours = scope["described"](message_class(name).DESCRIPTOR)

    assert ours
    assert {field: theirs["messages"][name][field] for field in ours} == ours


def test_the_dtypes_have_tensorflows_numbers(theirs: Any) -> None:
    assert theirs["dtypes"] == DTYPES


def test_the_client_loads_no_tensorflow_and_stands_beside_it(theirs: Any) -> None:
    assert theirs["alone"]
    assert theirs["read"] == [1.0, 2.0]
