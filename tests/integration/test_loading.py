"""Loading a trained model, and what is said where that fails."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from model_registry.errors import InvalidInputError
from model_registry.servable import Blessing
from tasks.model_process import loading
from tests.support.candidates import answers_of, prepare
from tests.support.models import CUSTOM_LAYERS, KINDS

# Keras says so of each .h5, and the tests for unbuilt models provoke the other.
pytestmark = [
    pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model '.*' had a build config:UserWarning"),
]


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    """A folder of custom objects; nothing of it stays behind."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/harbour_layers.py").write_text(CUSTOM_LAYERS)
    path, registered = list(sys.path), dict(keras.saving.get_custom_objects())
    sys.path.insert(0, str(tmp_path / "code"))
    yield tmp_path / "code"
    sys.path[:] = path
    sys.modules.pop("harbour_layers", None)
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(registered)


def _forget_custom_code() -> None:
    sys.modules.pop("harbour_layers", None)
    keras.saving.get_custom_objects().clear()


def _saved(name: str, directory: Path, suffix: str = ".keras") -> Path:
    file = directory / f"zoo{suffix}"
    KINDS[name].build().save(file)
    return file


def _edited(file: Path, change: Callable[[dict[str, Any]], None], **metadata: str) -> Path:
    edited = file.with_stem("edited")
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(edited, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            if name == "metadata.json":
                data = json.dumps({**json.loads(data), **metadata}).encode()
            target.writestr(name, data)
    return edited


def _refusal(source: Path, source_format: Any = "keras", **options: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        loading.load(source, source_format, **options)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize(
    "name", ["sequential", "shared_layers", "a_model_inside_a_model", "stateful_gru", "mixed_float16"]
)
def test_an_h5_file_is_packaged_like_any_other(name: str, tmp_path: Path) -> None:
    model = KINDS[name].build()
    model.save(tmp_path / "zoo.h5")

    candidate = prepare(tmp_path / "zoo.h5", tmp_path / "work", source_format="h5")

    blessing = Blessing(candidate.validate())
    assert blessing.verdict == "blessed", blessing.failures
    request = candidate.requests()[-1]
    ((answer),) = answers_of(candidate.directory, [request])
    graph = getattr(model, "_functional", model)
    values = [tf.constant(request[1][item]) for item in KINDS[name].inputs]
    expected = keras.tree.flatten(graph(keras.tree.pack_sequence_as(graph.input, values), training=False))
    for output, wanted in zip(KINDS[name].outputs, expected, strict=True):
        np.testing.assert_allclose(answer[output], wanted.numpy(), rtol=1e-2, atol=1e-3)


def test_a_custom_layer_is_unknown_until_its_module_is_named(code: Path, tmp_path: Path) -> None:
    file = _saved("custom_layer", tmp_path)
    _forget_custom_code()

    refusal = _refusal(file)

    assert "uses 'Gate', which is not part of Keras" in refusal.message
    assert "custom_objects: [harbour_layers]" in str(refusal.hint)
    assert loading.load(file, "keras", custom_objects=["harbour_layers"], code_directory=code).built


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_an_operation_that_h5_cannot_hold_is_not_taken_for_custom_code_alone(tmp_path: Path) -> None:
    refusal = _refusal(_saved("recurrent", tmp_path, ".h5"), "h5")

    assert "uses 'NotEqual'" in refusal.message
    assert "which an HDF5 file cannot hold, save the model as .keras" in str(refusal.hint)


def test_a_custom_module_that_does_not_import_says_why(code: Path, tmp_path: Path) -> None:
    (code / "broken_layers.py").write_text("import a_package_nobody_has\n")

    refusal = _refusal(tmp_path / "any.keras", custom_objects=["broken_layers"], code_directory=code)

    assert "importing broken_layers failed: ModuleNotFoundError: No module named 'a_package" in refusal.message


def test_a_lambda_needs_a_grant(tmp_path: Path) -> None:
    file = _saved("lambda_layer", tmp_path)

    assert "unsafe_deserialization: true" in str(_refusal(file).hint)
    assert loading.load(file, "keras", unsafe=True).built


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_vocabulary_in_a_file_of_the_machine_is_not_read(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key\n")
    x = keras.Input((1,), dtype="string", name="x")
    file = tmp_path / f"zoo{suffix}"
    keras.Model(x, layers.StringLookup(vocabulary=["boat"])(x)).save(file)

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["vocabulary"] = str(tmp_path / "secret")

    if suffix == ".keras":
        file = _edited(file, change)
    else:
        with h5py.File(file, "r+") as archive:
            config = json.loads(archive.attrs["model_config"])
            change(config)
            archive.attrs["model_config"] = json.dumps(config)

    refusal = _refusal(file, suffix[1:])

    assert "names a vocabulary file outside of the model" in refusal.message
    assert "model.save" in str(refusal.hint)


def test_weights_without_a_model_are_told_apart(tmp_path: Path) -> None:
    KINDS["sequential"].build().save_weights(tmp_path / "zoo.weights.h5")
    shutil.move(tmp_path / "zoo.weights.h5", tmp_path / "zoo.h5")

    assert _refusal(tmp_path / "zoo.h5", "h5").message == "zoo.h5 holds weights only, no model"


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_a_file_cut_short_is_told_apart(tmp_path: Path) -> None:
    file = _saved("sequential", tmp_path, ".h5")
    file.write_bytes(file.read_bytes()[:-1000])

    refusal = _refusal(file, "h5")

    assert "zoo.h5 is cut short" in refusal.message
    assert "again" in str(refusal.hint)


def test_a_file_of_a_newer_keras_says_so(tmp_path: Path) -> None:
    def add_option(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["an_option_of_tomorrow"] = True

    file = _edited(_saved("sequential", tmp_path), add_option, keras_version="99.1.0")

    refusal = _refusal(file)

    assert "Unrecognized keyword arguments passed to Dense" in refusal.message
    assert "it was saved by Keras 99.1.0, which is newer" in str(refusal.hint)


def test_a_file_of_the_same_keras_is_not_called_newer(tmp_path: Path) -> None:
    def add_option(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["an_option"] = True

    assert _refusal(_edited(_saved("sequential", tmp_path), add_option)).hint is None


def test_a_model_that_was_never_built_is_refused(tmp_path: Path) -> None:
    keras.Sequential([layers.Dense(2)]).save(tmp_path / "zoo.keras")

    assert "saved before the model was built" in _refusal(tmp_path / "zoo.keras").message


def test_a_broken_saved_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/saved_model.pb").write_bytes(b"\x00\x01")

    assert "zoo cannot be loaded as a SavedModel" in _refusal(tmp_path / "zoo", "saved_model").message


def test_weights_that_keras_left_out_are_loaded_once_the_layers_are_there(tmp_path: Path) -> None:
    original = KINDS["subclassed_with_two_arguments"].build()
    original.save(tmp_path / "zoo.keras")
    model = loading.load(tmp_path / "zoo.keras", "keras")
    before = len(model.variables)
    row = np.ones((1, 5), np.float32)
    model(row, row)
    assert not np.array_equal(model.dense.kernel, original.dense.kernel), "or this test would prove nothing"

    loading.load_late_weights(model, tmp_path / "zoo.keras", before)

    np.testing.assert_array_equal(model.dense.kernel, original.dense.kernel)


@pytest.mark.parametrize(
    ("name", "precision"),
    [("sequential", "float32"), ("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16"), ("float64", "float32")],
)
def test_the_coarsest_precision_counts(name: str, precision: str) -> None:
    assert loading.precision(KINDS[name].build()) == precision
