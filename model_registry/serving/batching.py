"""What TensorFlow Serving is told of batching: merging requests that wait into one run of the model. Pure.

Rules, from the source of TensorFlow Serving 2.17 (bundle_factory_util.cc, batching_session.cc, main.cc):

- Nothing is batched without `--enable_batching`. With `--enable_per_model_batching_parameters` beside it, a version is
  batched by the file `batching_params.pbtxt` beside its saved_model.pb, and not at all without one. Of the common
  `--batching_parameters_file` only the pool of threads counts then, which all models share.
- The last of `allowed_batch_sizes` must be `max_batch_size`, or the version does not load. A batch between two of them
  is padded with rows of its own, which are cut off the answer; a request above the last is refused.
- All inputs and outputs of a request must have the same first dimension. Two requests whose inputs differ in another
  dimension, and meet in a batch, **both fail**. So a version is only batched if no signature of it lets that happen.
  (`pad_variable_length_inputs` would fill up the shorter one, and change what the model answers.)

The texts are BatchingParameters' text format (tensorflow_serving/servables/tensorflow/session_bundle_config.proto).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from model_registry.servable import Signature, TensorInfo

FILE = "batching_params.pbtxt"
MOST_BYTES = 64 << 10  # of such a file; what is written here is a hundredth of it

# The batching guide's own: "slightly above zero, e.g. 1 millisecond, tends to smooth out batch sizes when the request
# rate is low, thus keeping tail latency low".
_TIMEOUT = 1_000  # microseconds

# The server's default is 10, which a model that takes one row at a time fills with ten clients. The server takes no
# more requests at once than it has gRPC threads, four for each CPU; this holds those of 25 CPUs even one row each.
_ENQUEUED = 100  # batches; beyond them a request gets UNAVAILABLE

# As the server calls it where nobody does.
_POOL = "model_server_batch_threads"

_ALLOWED = re.compile(r"^allowed_batch_sizes: (\d{1,18})$", re.MULTILINE)


def for_version(signatures: Sequence[Signature], batch_sizes: Sequence[int]) -> str | None:
    """The content of a version's `batching_params.pbtxt`, or None if requests to it must not be batched.

    Args:
        signatures: All that the version answers.
        batch_sizes: Those in force, ascending.
    """
    return None if obstacle(signatures, batch_sizes) else per_version(batch_sizes)


def per_version(batch_sizes: Sequence[int]) -> str:
    """The parameters of one version.

    Args:
        batch_sizes: What a batch is padded up to, ascending; the last is the most that one holds. They are those that
            the warm-up records have, and the profiles of TensorRT's engines: no batch meets a shape for the first time.

    Raises:
        ValueError: If there is none, or they do not ascend.
    """
    if not batch_sizes or list(batch_sizes) != sorted({*batch_sizes}) or batch_sizes[0] < 1:
        raise ValueError(f"expected ascending batch sizes, at least one, found {tuple(batch_sizes)}")
    allowed = "".join(f"allowed_batch_sizes: {size}\n" for size in batch_sizes)
    return (
        f"max_batch_size {{ value: {batch_sizes[-1]} }}\n"
        f"batch_timeout_micros {{ value: {_TIMEOUT} }}\n"
        f"max_enqueued_batches {{ value: {_ENQUEUED} }}\n"
        f"{allowed}"
    )


def whole_server(*, threads: int | None = None) -> str:
    """The content of the file that `--batching_parameters_file` names: what all models share.

    Args:
        threads: How many batches run at once, of all models together; as many as the server's machine has CPUs
            where None.

    Raises:
        ValueError: If it is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least 1 thread, found {threads}")
    count = "" if threads is None else f"num_batch_threads {{ value: {threads} }}\n"
    return f'{count}thread_pool_name {{ value: "{_POOL}" }}\n'


def obstacle(signatures: Sequence[Signature], batch_sizes: Sequence[int]) -> str:
    """Why requests to a version must not be batched, for a person; empty if they may.

    Args:
        signatures: All that the version answers: its file holds for each of them.
        batch_sizes: Those in force.
    """
    return next((found for signature in signatures for found in _obstacles(signature, batch_sizes)), "")


def shown(text: str | None) -> str:
    """The batch sizes that a version's file allows, for a person."""
    if text is None:
        return "no file"
    return ", ".join(_ALLOWED.findall(text)) or "none"


def _obstacles(signature: Signature, batch_sizes: Sequence[int]) -> Iterator[str]:
    if not signature.inputs:
        yield f"{signature.name} has no input"
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if problem := _without_batch(tensor, batch_sizes):
                yield f"{kind} {tensor.name!r} of {signature.name} {problem}"
    for tensor in signature.inputs:
        if tensor.shape and None in tensor.shape[1:]:
            yield f"input {tensor.name!r} of {signature.name} may differ in shape from one request to the next"


def _without_batch(tensor: TensorInfo, batch_sizes: Sequence[int]) -> str:
    if tensor.shape is None:
        return "has no rank that is known"
    if not tensor.shape:
        return "has no batch dimension"
    first = tensor.shape[0]
    if first is not None and tuple(batch_sizes) != (first,):
        return f"always has {first} row(s)"
    return ""
