"""Our client against the straight stub, in one process and against one server, in turn.

The straight stub is what tutorials show: `tf.make_tensor_proto`, `PredictionServiceStub`, `tf.make_ndarray`, over one
insecure channel. The model takes images of 28 by 28 and answers ten probabilities.

python -m benchmarks.client HOST:PORT ROUNDS
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import measuring
from benchmarks.report import Row

BATCHES = (1, 32)
ROUND_SECONDS = 2.0  # for each way
TURN = 10  # requests
MODEL, INPUT, OUTPUT = "digits", "image", "probabilities"
SHAPE = (28, 28, 1)

Images = npt.NDArray[np.float32]
Ask = Callable[[Images], npt.NDArray[np.float32]]


def measure(environment: Mapping[str, str], rounds: int, log: Path) -> list[Row]:
    """The rows of the client.

    Args:
        environment: What every command gets.
        rounds: How often each way is measured.
        log: Where the measuring process may write what it has to say.
    """
    with answering(environment) as target:
        cost = measuring.run([sys.executable, "-m", "benchmarks.client", target, str(rounds)], environment, log)
    found = measuring.last_json(cost.output)
    rows = []
    for batch in BATCHES:
        ours, straight = found[f"ours/{batch}"], found[f"straight/{batch}"]
        rows.append(
            Row(
                f"client at batch {batch}: requests per second over the straight stub's",
                found[f"ratio/{batch}"],
                ">=",
                0.95,
                f"requests/s: ours {ours:.0f}, straight stub {straight:.0f}",
            )
        )
    return rows


@contextlib.contextmanager
def answering(environment: Mapping[str, str]) -> Iterator[str]:
    """A server that answers at once inside the block; tells where."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.prediction_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        text=True,
    ) as server:
        assert server.stdout is not None
        yield f"127.0.0.1:{server.stdout.readline().strip()}"


def our_client(target: str) -> Ask:
    """The client, its signature fetched."""
    from model_registry.serving.client import Client

    client = Client(target)
    return lambda images: client.predict(MODEL, {INPUT: images}).outputs[OUTPUT]


def straight_stub(target: str) -> Ask:
    """The stub as tutorials use it."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(target))

    def ask(images: Images) -> npt.NDArray[np.float32]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = MODEL
        request.model_spec.signature_name = "serving_default"
        request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(images))
        answer: npt.NDArray[np.float32] = tf.make_ndarray(stub.Predict(request, 10.0).outputs[OUTPUT])
        return answer

    return ask


def rates(ways: Mapping[str, Ask], images: Images) -> dict[str, float]:
    """Requests per second of one caller over a round, in which the ways take turns of a few requests each."""
    seconds = dict.fromkeys(ways, 0.0)
    turns = 0
    while sum(seconds.values()) < ROUND_SECONDS * len(ways):
        # Who begins alternates too: whatever slows the machine for a moment falls on all of them.
        for name in sorted(ways, reverse=turns % 2 == 1):
            started = time.perf_counter()
            for _ in range(TURN):
                ways[name](images)
            seconds[name] += time.perf_counter() - started
        turns += 1
    return {name: turns * TURN / taken for name, taken in seconds.items()}


def main() -> None:
    """Prints the median rates, and the median of the rounds' ratios, as JSON."""
    target, rounds = sys.argv[1], int(sys.argv[2])
    ways = {"ours": our_client(target), "straight": straight_stub(target)}
    found = {}
    for batch in BATCHES:
        images = np.random.default_rng(0).random((batch, *SHAPE), np.float32)
        assert np.array_equal(*(ask(images) for ask in ways.values())), "the ways must get the same answer"
        measured = [rates(ways, images) for _ in range(rounds)]
        for name in ways:
            found[f"{name}/{batch}"] = statistics.median(of_round[name] for of_round in measured)
        ratios = [of_round["ours"] / of_round["straight"] for of_round in measured]
        found[f"ratio/{batch}"] = statistics.median(ratios)
        print(f"batch {batch}: {', '.join(f'{ratio:.3f}' for ratio in ratios)}", file=sys.stderr)
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # TensorFlow and two channels take their time to say good-bye


if __name__ == "__main__":
    main()
