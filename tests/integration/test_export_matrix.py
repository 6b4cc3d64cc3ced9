"""Every kind of Keras model, from its file to the answers of a Session, as TensorFlow Serving loads it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

import tasks
from model_registry.servable import Blessing
from model_registry.spec import PackageSpec
from tasks.model_process.warmup_log import WARMUP_FILE
from tasks.validation import tolerance
from tests.support.candidates import Arrays, prepare
from tests.support.model_server.parameter_files import BatchingParameters
from tests.support.models import KINDS
from tests.support.packaged_zoo import Packaged

ROOT = Path(tasks.__file__).parents[1]

_ELSEWHERE = """
import sys
from pathlib import Path
from tasks.model_process.lean_import import lean_import
with lean_import():
    from tests.support.candidates import prepare
for folder in map(Path, sys.argv[1:]):
    prepare(folder / "zoo.keras", folder / "there")
"""

pytestmark = [
    # The keys are what we want to see kept, so the zoo's inputs are named otherwise.
    pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning"),
    # Some of the zoo are there because Keras cannot build them from their file.
    pytest.mark.filterwarnings("ignore:Model '.*' had a build config:UserWarning"),
]


# What belongs to one model stays in one worker, so that each is packaged once.
@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in KINDS])
def packaged(request: pytest.FixtureRequest, zoo: Callable[[str], Packaged]) -> Packaged:
    return zoo(request.param)


def test_names_are_kept(packaged: Packaged) -> None:
    (signature,) = packaged.candidate.exported.signatures

    assert signature.name == "serving_default"
    assert [item.name for item in signature.inputs] == sorted(packaged.kind.inputs)
    assert [item.name for item in signature.outputs] == sorted(packaged.kind.outputs)


def test_a_session_answers_what_the_model_answers(packaged: Packaged) -> None:
    # Twice over: what draws at random, or keeps a state, shows in the second round.
    requests = packaged.candidate.requests() * 2
    limit = tolerance(PackageSpec.model_validate(packaged.candidate.plan.spec), packaged.candidate.loaded)

    for (_, feed), found in zip(requests, packaged.answers, strict=True):
        expected = _called(packaged, feed)
        assert sorted(found) == sorted(expected)
        for name, wanted in expected.items():
            if wanted.dtype.kind == "f" or wanted.dtype.name == "bfloat16":
                wide = found[name].astype(np.float64), wanted.astype(np.float64)
                np.testing.assert_allclose(*wide, limit.rtol, limit.atol, err_msg=name)
            else:
                np.testing.assert_array_equal(found[name], wanted, err_msg=name)
            assert found[name].dtype == wanted.dtype, name


def test_answers_tell_rows_apart(packaged: Packaged) -> None:
    """Or comparing them would prove little."""
    answer = packaged.answers[len(packaged.candidate.requests()) - 1]

    assert any(not np.array_equal(array[:1], array[1:2]) for array in answer.values())


def test_weights_lie_on_disk_once(packaged: Packaged) -> None:
    weights = sum(np.asarray(variable).nbytes for variable in packaged.model.variables)
    files = list((packaged.candidate.directory / "variables").glob("*"))

    assert sum(file.stat().st_size for file in files) <= 1.1 * weights + 65_536
    graph = (packaged.candidate.directory / "saved_model.pb").stat().st_size
    assert graph <= 2_000_000 + weights / 10, "the weights are frozen into the graph"


def test_there_is_a_record_for_each_batch_size(packaged: Packaged) -> None:
    sizes = [len(next(iter(feed.values()))) for _, feed in packaged.candidate.requests()]

    assert tuple(sizes) == packaged.candidate.exported.batch_sizes == packaged.kind.batch_sizes
    assert packaged.candidate.warmed.records == len(sizes)
    dropped = [note for note in packaged.candidate.exported.notes if "dropped" in note]
    assert bool(dropped) == (packaged.kind.batch_sizes != (1, 8))


def test_a_server_batches_up_to_the_sizes_of_the_records_or_the_notes_tell_why_not(packaged: Packaged) -> None:
    exported, file = packaged.candidate.exported, packaged.candidate.directory / "batching_params.pbtxt"
    reasons = [note for note in exported.notes if "no server batches requests to it" in note]

    assert file.exists() != bool(reasons)
    if file.exists():
        parameters = text_format.Parse(file.read_text(), BatchingParameters())
        assert tuple(parameters.allowed_batch_sizes) == exported.batch_sizes
        assert parameters.max_batch_size.value == exported.batch_sizes[-1]
        inner = [item.shape[1:] for signature in exported.signatures for item in signature.inputs if item.shape]
        assert not any(None in shape for shape in inner), "requests of two shapes would fail in one batch"


def test_the_validator_blesses_it(packaged: Packaged) -> None:
    blessing = Blessing(packaged.candidate.validate())

    assert blessing.verdict == "blessed", blessing.failures
    assert sum(check.check.startswith("parity/") for check in blessing.checks) == len(packaged.kind.outputs)


def test_two_processes_write_the_same_warm_up_records(tmp_path: Path) -> None:
    names = ["text_vectorization", "transformer", "normalization_and_discretization"]
    here: dict[str, bytes] = {}
    for name in names:
        (tmp_path / name).mkdir()
        KINDS[name].build().save(tmp_path / name / "zoo.keras")
        here[name] = prepare(tmp_path / name / "zoo.keras", tmp_path / name / "here").log

    # The other way round, so that each has other models before it.
    folders = [tmp_path / name for name in reversed(names)]
    subprocess.run([sys.executable, "-c", _ELSEWHERE, *folders], cwd=ROOT, check=True, capture_output=True)

    for name in names:
        there = tmp_path / name / "there/candidate" / WARMUP_FILE
        assert there.read_bytes() == here[name], name


def _called(packaged: Packaged, feed: Arrays) -> dict[str, Any]:
    """What the model in memory answers, which went through no file and none of our code."""
    values = [tf.constant(feed[name]) for name in packaged.kind.inputs]
    model = packaged.model
    if packaged.kind.call is not None:
        results = packaged.kind.call(model, values)
    elif isinstance(model, keras.Sequential):
        results = model(*values, training=False)
    else:
        results = model(keras.tree.pack_sequence_as(model.input, values), training=False)
    return dict(zip(packaged.kind.outputs, map(_array, keras.tree.flatten(results)), strict=True))


def _array(value: Any) -> Any:
    return value.numpy()
