"""Versions of a very small model, as many as a test wants, each told from the others by what it answers.

One SavedModel is written by TensorFlow, in a process of its own; a version is a copy of it with other constants in the
graph, for which no TensorFlow is needed. So a test can make a version in a millisecond.

Its signatures, rows first in every tensor:

- `serving_default`: x float32 [null, 2] -> y float32 [null, 2] = x * weight, version int64 [null]; a version may take
  its time first, and refuse a share of all inputs;
- `texts`: text string [null] -> upper string [null], raw_bytes string [null], which is no UTF-8;
- `spin`: steps int64 [null] -> turns int64 [null], after so many turns of a loop, about 100,000 a second;
- `classify` and `regress`: over tf.Examples with a feature x.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.model_process.lean_import import lean_import

_REPOSITORY = Path(__file__).resolve().parents[2]
WARMUP_FILE = Path("assets.extra/tf_serving_warmup_requests")
# What stands in the seed's graph where a copy's constants go, 8 bytes each.
_WEIGHT = struct.pack("<2f", 1.8754e-19, -3.3191e27)
_VERSION = struct.pack("<2q", 0x1E57AB1E5EEDC0DE, -0x0123456789ABCDEF)
_DELAY = struct.pack("<2q", 0x5107E5107E5107E5, -0x7A2D1E7A2D1E7A2D)
_REFUSED = struct.pack("<2q", 0x2EF05ED2EF05ED2E, -0x00BAD1DEA00BAD1D)
_SPIN_TURNS = 400_000
_INPUTS = 1_000_000  # as many kinds of inputs are told apart, by their hash


@dataclass(frozen=True)
class TinyModels:
    """Where the seed and its warm-up files are.

    Attributes:
        directory: As `python -m tests.support.tiny_models` wrote it.
    """

    directory: Path

    def write(
        self,
        base_path: Path,
        version: int,
        *,
        weight: float | None = None,
        name: str | None = None,
        delay_turns: int = 0,
        failing_share: float = 0.0,
    ) -> Path:
        """Writes a version that loads.

        Args:
            base_path: Where versions are; made if need be.
            version: Which, and what it answers as `version`.
            weight: What it multiplies with; the version if left out.
            name: The directory's name, if it is not the version.
            delay_turns: How many turns of a loop `serving_default` takes before it answers, some 100,000 a second.
            failing_share: Of all inputs, how many `serving_default` refuses with INVALID_ARGUMENT. Which, the first
                number of the first row decides, alike in every version; a version refuses what one with a smaller
                share does, and more.

        Returns:
            Its directory, which came to be in one rename.
        """
        target = base_path / (name or str(version))
        staged = base_path / f".tmp-{target.name}"
        shutil.copytree(self.directory / "seed", staged)
        graph = staged / "saved_model.pb"
        value = float(version) if weight is None else weight
        content = graph.read_bytes().replace(_WEIGHT, struct.pack("<2f", value, 0.0))
        refused = round(failing_share * _INPUTS)
        for place, number in ((_VERSION, version), (_DELAY, delay_turns), (_REFUSED, refused)):
            content = content.replace(place, struct.pack("<2q", number, 0))
        graph.write_bytes(content)
        return staged.rename(target)

    def add_warmup(self, version: Path, kind: str = "warm") -> None:
        """Puts a warm-up file into a version's directory.

        Args:
            version: The directory.
            kind: `warm` for three records, `spinning` for one that takes some seconds of computing, `other_model`,
                `empty_log` and `empty_file` for what passes too; `wrong_input`, `wrong_signature`, `wrong_shape`,
                `cut`, `no_log` and `too_many` for what fails the load.
        """
        file = version / WARMUP_FILE
        file.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.directory / kind, file)

    def write_without_variables(self, base_path: Path, version: int) -> Path:
        """A version whose upload stopped after saved_model.pb: it loads, and answers nothing."""
        directory = self.write(base_path, version, name=f"without-variables-{version}")
        shutil.rmtree(directory / "variables")
        return directory.rename(base_path / str(version))

    def write_truncated(self, base_path: Path, version: int) -> Path:
        """A version whose saved_model.pb is cut in the middle: its load fails."""
        directory = self.write(base_path, version, name=f"truncated-{version}")
        graph = directory / "saved_model.pb"
        graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
        return directory.rename(base_path / str(version))


@contextlib.contextmanager
def held_load(version: Path) -> Iterator[None]:
    """Keeps a server from finishing the load of a version for the block's duration.

    TensorFlow's loader reads fingerprint.pb and minds nothing that is wrong with it. As a named pipe, it is read once
    somebody writes to it: no time passes and nothing is computed, and the load goes on when the test says so.
    """
    file, pipe = "fingerprint.pb", "held"
    content = (version / file).read_bytes()
    directory = os.open(version, os.O_RDONLY)  # the directory itself, wherever it is moved to meanwhile
    os.mkfifo(pipe, dir_fd=directory)
    os.rename(pipe, file, src_dir_fd=directory, dst_dir_fd=directory)
    try:
        yield
    finally:
        # For reading and writing, an open never waits; it lets go whoever waits to read.
        writer = os.open(file, os.O_RDWR, dir_fd=directory)
        with open(os.open(pipe, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory), "wb") as regular:
            regular.write(content)
        os.rename(pipe, file, src_dir_fd=directory, dst_dir_fd=directory)
        os.close(writer)
        os.close(directory)


def make(directory: Path) -> None:
    """Writes the seed, in a process that has TensorFlow; takes some seconds."""
    command = [sys.executable, "-m", __name__, str(directory)]
    subprocess.run(command, check=True, cwd=_REPOSITORY, stdin=subprocess.DEVNULL, timeout=120)


def _save(directory: Path) -> None:
    with lean_import():
        import numpy as np
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2

    module = tf.Module()
    module.scale = tf.Variable(1.0)  # one variable, so that a version without its variables/ cannot answer
    weight = np.frombuffer(_WEIGHT, np.float32)
    number, delay, refused = (np.frombuffer(place, np.int64) for place in (_VERSION, _DELAY, _REFUSED))

    def scaled(x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, tf.constant(weight)[0] * tf.eye(2)) * module.scale  # which refuses other shapes

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def serving_default(x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = scaled(x)
        turns = tf.zeros([], tf.int64)
        while turns < tf.constant(delay)[0]:
            turns += 1
        with tf.control_dependencies([y]):  # a wrong shape is refused before
            first = tf.strings.as_string(tf.bitcast(tf.reduce_sum(x[:1, :1]), tf.int32))
            kind = tf.strings.to_hash_bucket_fast(first, _INPUTS)
            known = tf.debugging.Assert(kind >= tf.constant(refused)[0], ["an input that this version refuses"])
        with tf.control_dependencies([known]):
            # What the loop counted is part of the answer, or it would be optimised away.
            answered = tf.constant(number)[0] + turns - tf.constant(delay)[0]
            return {"y": tf.identity(y), "version": tf.fill([tf.shape(x)[0]], answered)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def texts(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"upper": tf.strings.upper(text, encoding="utf-8"), "raw_bytes": tf.strings.join([text, b"\xff\x00"])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="steps")])
    def spin(steps: tf.Tensor) -> dict[str, tf.Tensor]:
        turns = tf.zeros([], tf.int64)
        most = tf.reduce_max(steps)
        while turns < most:
            turns += 1
        return {"turns": tf.fill(tf.shape(steps), turns)}

    def parsed(inputs: tf.Tensor) -> tf.Tensor:
        return scaled(tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([2], tf.float32)})["x"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = parsed(inputs)
        return {"classes": tf.tile([["left", "right"]], [tf.shape(scores)[0], 1]), "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": tf.reduce_sum(parsed(inputs), axis=1)}

    module.endpoints = [serving_default, texts, spin, classify, regress]
    functions = {function.python_function.__name__: function for function in module.endpoints}
    tf.saved_model.save(module, str(directory / "seed"), signatures=functions)
    graph = directory / "seed/saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(graph.read_bytes())
    for method in ("classify", "regress"):  # TensorFlow 2 calls every signature a prediction
        saved.meta_graphs[0].signature_def[method].method_name = f"tensorflow/serving/{method}"
    content = saved.SerializeToString()
    graph.write_bytes(content)
    places = (_WEIGHT, _VERSION, _DELAY, _REFUSED)
    assert all(place in content for place in places), "TensorFlow no longer writes constants as their bytes"
    _save_records(directory)


def _save_records(directory: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    def record(signature: str, **inputs: object) -> bytes:
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.model_spec.name = "whatever"
        log.predict_log.request.model_spec.signature_name = signature
        for name, value in inputs.items():
            log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return log.SerializeToString()

    rows = [[1.0, 2.0]]
    warm = record("serving_default", x=rows)
    logs = {
        "warm": [warm, record("texts", text=["a"]), record("", x=rows * 3)],
        "spinning": [record("spin", steps=tf.constant([_SPIN_TURNS], tf.int64))],
        "other_model": [warm],
        "empty_log": [b""],
        "empty_file": [],
        "wrong_input": [record("serving_default", xx=rows)],
        "wrong_signature": [record("serving", x=rows)],
        "wrong_shape": [record("serving_default", x=[[1.0, 2.0, 3.0]])],
        "no_log": [b"\xff not a PredictionLog"],
        "too_many": [warm] * 1001,
        "cut": [warm],
    }
    for name, records in logs.items():
        with tf.io.TFRecordWriter(str(directory / name)) as writer:
            for content in records:
                writer.write(content)
    whole = (directory / "cut").read_bytes()
    (directory / "cut").write_bytes(whole[: len(whole) // 2])


if __name__ == "__main__":
    _save(Path(sys.argv[1]))
