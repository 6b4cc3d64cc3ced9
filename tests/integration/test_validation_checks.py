"""The validator against candidates that are broken on purpose: each is a failed check that says what and how much."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from model_registry.servable import Blessing, Check, Measure
from model_registry.serving import batching
from tasks.model_process.messages import ReferenceAnswers, Tolerance
from tasks.model_process.warmup_log import WARMUP_FILE
from tests.support.candidates import Candidate, prepare
from tests.support.models import randomised

pytestmark = pytest.mark.xdist_group("validation-checks")

CLASSES = 3


def _model() -> keras.Model:
    x = keras.Input((6,), name="x")
    hidden = layers.Dense(8, activation="relu")(x)
    scores = layers.Dense(CLASSES, activation="softmax", name="scores")(hidden)
    return randomised(keras.Model(x, [scores, layers.Dense(CLASSES, name="logits")(hidden)], name="zoo"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Candidate]:
    directory = tmp_path_factory.mktemp("original")
    model = _model()
    model.save(directory / "zoo.keras")
    rows = np.random.default_rng(0).normal(size=(150, 6)).astype(np.float32)
    labels = model(rows)[0].numpy().argmax(axis=1)
    np.savez(directory / "rows.npz", x=rows, label=labels)
    spec = {
        "samples": str(directory / "rows.npz"),
        "quality": {"labels": "label", "metric": "accuracy", "at_least": 0.95, "output": "scores"},
    }
    return model, prepare(directory / "zoo.keras", directory / "work", spec)


@pytest.fixture
def candidate(original: tuple[keras.Model, Candidate], tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original[1].directory, tmp_path / "candidate"))


@pytest.fixture
def checks(original: tuple[keras.Model, Candidate], candidate: Path) -> Callable[..., dict[str, Check]]:
    def validate(**changes: Any) -> dict[str, Check]:
        return {check.check: check for check in original[1].validate(candidate=str(candidate), **changes)}

    return validate


def _failed(checks: dict[str, Check]) -> dict[str, Measure]:
    return {name: check.measured for name, check in checks.items() if not check.passed}


def _save_instead(
    candidate: Path, model: keras.Model, serve: Callable[[Any], dict[str, Any]], *, root: Any = None, name: str = "x"
) -> None:
    """Another SavedModel in the candidate's place, with the same warm-up records and batching parameters."""
    kept = {path: (candidate / path).read_bytes() for path in (WARMUP_FILE, batching.FILE)}
    shutil.rmtree(candidate)
    if root is None:
        root = tf.Module()
        root.resources = [variable.value for variable in model.variables]
    function = tf.function(serve, input_signature=[tf.TensorSpec([None, 6], tf.float32, name=name)], autograph=False)
    tf.saved_model.save(root, str(candidate), signatures={"serving_default": function})
    (candidate / WARMUP_FILE).parent.mkdir(exist_ok=True)
    for path, content in kept.items():
        (candidate / path).write_bytes(content)


def _answering(model: keras.Model, outputs: tuple[str, str] = ("scores", "logits")) -> Callable[[Any], dict[str, Any]]:
    return lambda x: dict(zip(outputs, model(x, training=False), strict=True))


def _changed(original: keras.Model, change: Callable[[str, Any], Any]) -> keras.Model:
    model = keras.models.clone_model(original)
    model.set_weights(original.get_weights())
    for variable in model.variables:
        variable.assign(change(variable.path, np.asarray(variable)))
    return model


def test_a_whole_candidate_passes_every_kind_of_check(checks: Callable[..., dict[str, Check]]) -> None:
    found = checks()

    assert Blessing(tuple(found.values())).verdict == "blessed", _failed(found)
    assert list(found) == [
        "signatures",
        "batching",
        "saved_model_cli show",
        "saved_model_cli scan",
        "ops",
        "saved_model_cli run",
        "warm-up replay",
        "parity/serving_default/logits",
        "finite/serving_default/logits",
        "parity/serving_default/scores",
        "finite/serving_default/scores",
        "top1/serving_default/scores",
        "quality/accuracy",
    ]
    assert found["top1/serving_default/scores"].detail == "150 rows"
    assert found["quality/accuracy"].measured == 1.0


def test_the_model_saved_again_by_other_means_passes(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    """Or the tests below would fail for another reason than theirs."""
    _save_instead(candidate, original[0], _answering(original[0]))

    assert _failed(checks()) == {}


def test_perturbed_weights_fail_the_outputs_they_reach(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    model = _changed(original[0], lambda path, value: value + 0.25 * ("logits/bias" in path))
    _save_instead(candidate, model, _answering(model))

    failed = _failed(checks())

    assert list(failed) == ["parity/serving_default/logits"]
    measured = failed["parity/serving_default/logits"]
    assert isinstance(measured, dict)
    assert measured["max_absolute_error"] == pytest.approx(0.25, abs=1e-5)


def test_weights_that_turn_classes_around_fail_agreement_and_quality(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    model = _changed(original[0], lambda path, value: -value if "scores" in path else value)
    _save_instead(candidate, model, _answering(model))

    found = checks()

    assert list(_failed(found)) == [
        "parity/serving_default/scores",
        "top1/serving_default/scores",
        "quality/accuracy",
    ]
    assert found["quality/accuracy"].measured == found["top1/serving_default/scores"].measured
    assert isinstance(found["quality/accuracy"].measured, float)
    assert found["quality/accuracy"].measured < 0.8


def test_zeros_within_the_tolerance_pass_parity_with_a_remark_and_fail_agreement(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    model = original[0]
    _save_instead(candidate, model, lambda x: {key: 0.0 * value for key, value in _answering(model)(x).items()})

    found = checks(tolerance=Tolerance(atol=100.0, rtol=1e-2))

    assert list(_failed(found)) == ["top1/serving_default/scores", "quality/accuracy"]
    for output in ("scores", "logits"):
        assert "a constant would pass; give samples, or lower atol" in found[f"parity/serving_default/{output}"].detail


def test_swapped_outputs_fail_both(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    _save_instead(candidate, original[0], _answering(original[0], outputs=("logits", "scores")))

    assert {"parity/serving_default/logits", "parity/serving_default/scores"} <= set(_failed(checks()))


def test_nan_weights_are_counted(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    def spoil(path: str, value: Any) -> Any:
        return np.where(np.arange(CLASSES) == 0, np.nan, value) if "logits/bias" in path else value

    model = _changed(original[0], spoil)
    _save_instead(candidate, model, _answering(model))

    failed = _failed(checks())

    # One class of three, in each row of both warm-up records (1 and 8 rows) and of the 142 samples left.
    assert failed["finite/serving_default/logits"] == 1 + 8 + 142 + 2
    assert list(failed) == ["parity/serving_default/logits", "finite/serving_default/logits"]


@pytest.mark.parametrize("lost", ["variables", "variables/variables.index"])
def test_a_lost_file_of_weights_fails_run_and_replay(
    lost: str, candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    path = candidate / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    failed = _failed(checks())

    assert (failed["saved_model_cli run"], failed["warm-up replay"], failed["parity"]) == ("failed", "failed", 0)


@pytest.mark.parametrize(
    ("content", "measured"),
    [
        (None, "no file"),
        ("max_batch_size { value: 8 }\nallowed_batch_sizes: 1\n", "1"),  # keeps the version from loading
        ("max_batch_size { value: 64 }\nallowed_batch_sizes: 64\n", "64"),
        (f"{batching.per_version((1, 8))}pad_variable_length_inputs: true\n", "1, 8"),
    ],
)
def test_other_batching_parameters_than_those_of_the_batch_sizes_fail(
    content: str | None, measured: str, candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    file = candidate / batching.FILE
    file.unlink() if content is None else file.write_text(content)

    found = checks()

    assert list(_failed(found)) == ["batching"]
    assert (found["batching"].measured, found["batching"].threshold) == (measured, "1, 8")


def test_a_linked_file_of_batching_parameters_fails(
    candidate: Path, checks: Callable[..., dict[str, Check]], tmp_path: Path
) -> None:
    file = candidate / batching.FILE
    shutil.move(file, tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")

    assert "a symbolic link" in checks()["batching"].detail


def test_batching_parameters_of_what_must_not_be_batched_fail(checks: Callable[..., dict[str, Check]]) -> None:
    found = checks(batching=None)

    assert list(_failed(found)) == ["batching"]
    assert (found["batching"].measured, found["batching"].threshold) == ("1, 8", "no file")


def test_a_lost_warm_up_record_is_missed(candidate: Path, checks: Callable[..., dict[str, Check]]) -> None:
    log = candidate / WARMUP_FILE
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(log))]
    with tf.io.TFRecordWriter(str(log)) as writer:
        writer.write(records[0])

    found = checks()

    assert (found["warm-up replay"].measured, found["warm-up replay"].threshold) == (1, 2)
    assert not found["warm-up replay"].passed
    assert not found["parity"].passed


def test_a_cut_warm_up_file_fails_the_replay(candidate: Path, checks: Callable[..., dict[str, Check]]) -> None:
    log = candidate / WARMUP_FILE
    log.write_bytes(log.read_bytes()[:-5])

    assert "DataLossError" in checks()["warm-up replay"].detail


def test_a_record_for_an_input_that_is_not_there_fails_the_replay(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    _save_instead(candidate, original[0], _answering(original[0]), name="y")

    failed = _failed(checks())

    assert {"signatures", "saved_model_cli show", "saved_model_cli run", "warm-up replay"} <= set(failed)


def test_an_op_that_writes_files_is_found_by_the_scan(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]], tmp_path: Path
) -> None:
    model = original[0]

    def serve(x):
        with tf.control_dependencies([tf.io.write_file(str(tmp_path / "written"), "by the model")]):
            return _answering(model)(x)

    _save_instead(candidate, model, serve)

    found = checks()

    assert list(_failed(found)) == ["saved_model_cli scan", "ops", "saved_model_cli run", "warm-up replay", "parity"]
    assert "WriteFile" in found["saved_model_cli scan"].detail
    assert found["ops"].detail == "WriteFile (writes files)"


@pytest.mark.parametrize("hidden", ["branch", "loop"])
def test_an_op_hidden_from_the_scan_is_found_and_nothing_runs(
    hidden: str,
    original: tuple[keras.Model, Candidate],
    candidate: Path,
    checks: Callable[..., dict[str, Check]],
    tmp_path: Path,
) -> None:
    """The scan follows plain calls alone."""
    model, written = original[0], tmp_path / "written"

    def write() -> Any:
        with tf.control_dependencies([tf.io.write_file(str(written), "by the model")]):
            return tf.constant(0)

    def serve(x):
        if hidden == "branch":
            nothing = tf.cond(tf.shape(x)[0] > 0, write, lambda: tf.constant(0))
        else:
            nothing = tf.while_loop(lambda index: index < 1, lambda index: (index + 1 + write(),), [tf.constant(0)])[0]
        with tf.control_dependencies([nothing]):
            return _answering(model)(x)

    _save_instead(candidate, model, serve)

    found = checks()

    assert found["saved_model_cli scan"].passed, "or the test would prove nothing"
    assert list(_failed(found)) == ["ops", "saved_model_cli run", "warm-up replay", "parity"]
    assert found["saved_model_cli run"].detail == found["warm-up replay"].detail == "not run: ops failed"
    assert not written.exists()


def test_answers_that_were_announced_and_are_not_there_fail_parity(original: tuple[keras.Model, Candidate]) -> None:
    candidate = replace(original[1], answered=ReferenceAnswers(original[1].answered.cases + 1))

    found = {check.check: check for check in candidate.validate()}

    assert list(_failed(found)) == ["parity"]
    assert found["parity"].threshold == original[1].answered.cases + 1


def test_the_tutorial_way_of_exporting_fails_run_and_replay(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    _save_instead(candidate, original[0], _answering(original[0]), root=original[0])

    found = checks()

    for check in ("saved_model_cli run", "warm-up replay"):
        assert not found[check].passed
        assert "Could not find variable" in found[check].detail


def test_an_output_left_out_is_named(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    model = original[0]
    _save_instead(candidate, model, lambda x: {"scores": model(x, training=False)[0]})

    found = checks()

    assert not found["signatures"].passed
    assert not found["parity/serving_default"].passed
    assert "logits" in found["parity/serving_default"].detail


def test_an_output_of_another_shape_is_told_with_both(
    original: tuple[keras.Model, Candidate], candidate: Path, checks: Callable[..., dict[str, Check]]
) -> None:
    model = original[0]

    def serve(x):
        scores, logits = model(x, training=False)
        return {"scores": scores, "logits": logits[:, :2]}

    _save_instead(candidate, model, serve)

    check = checks()["parity/serving_default/logits"]

    assert (check.passed, check.measured, check.threshold) == (False, "float32 [1, 2]", "float32 [1, 3]")


def test_wrong_labels_fail_the_quality_gate(
    original: tuple[keras.Model, Candidate], checks: Callable[..., dict[str, Check]], tmp_path: Path
) -> None:
    with np.load(str(original[1].plan.samples)) as archive:
        rows, labels = archive["x"], archive["label"]
    labels[:30] = (labels[:30] + 1) % CLASSES
    np.savez(tmp_path / "wrong.npz", x=rows, label=labels)

    found = checks(samples=str(tmp_path / "wrong.npz"))

    assert _failed(found) == {"quality/accuracy": 0.8}
    assert found["quality/accuracy"].threshold == 0.95


@pytest.mark.parametrize("missing", [{"signature": "classify"}, {"output": "probabilities"}])
def test_quality_of_what_is_not_there_is_not_measured(
    missing: dict[str, str], original: tuple[keras.Model, Candidate], checks: Callable[..., dict[str, Check]]
) -> None:
    spec = original[1].plan.spec
    found = checks(spec={**spec, "quality": {**spec["quality"], **missing}})

    assert _failed(found) == {"quality/accuracy": "not measured"}
    assert ("no signature 'classify'" if "signature" in missing else "set quality.output to one of") in found[
        "quality/accuracy"
    ].detail


def test_a_broken_graph_is_failed_checks_and_no_crash(candidate: Path, checks: Callable[..., dict[str, Check]]) -> None:
    (candidate / "saved_model.pb").write_bytes(b"\x00 this is no protobuf")

    failed = _failed(checks())

    assert {"signatures", "saved_model_cli show", "saved_model_cli scan", "warm-up replay", "parity"} <= set(failed)


@keras.saving.register_keras_serializable(package="zoo")
class OtherwiseInAGraph(layers.Layer):
    def call(self, x):
        return x * 2 if tf.executing_eagerly() else x * 3

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_model_that_answers_otherwise_once_it_is_traced_is_rejected(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    keras.Model(x, OtherwiseInAGraph(name="y")(x)).save(tmp_path / "zoo.keras")

    checks = {check.check: check for check in prepare(tmp_path / "zoo.keras", tmp_path / "work").validate()}

    assert list(_failed(checks)) == ["parity/serving_default/y"]
