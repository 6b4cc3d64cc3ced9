"""Answers one request from a published SavedModel, as a server would.

It knows the SavedModel and the request, and checks neither: the parent has, against the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from model_registry.errors import InvalidInputError
from model_registry.servable import Signature
from tasks.model_process import serving, warmup_log
from tasks.model_process.arrays import Array, read_arrays, write_arrays
from tasks.model_process.messages import Answered, PredictPlan

_AROUND = re.compile(r"Graph execution error:|Detected at node|File \"|Node: |\d+ root error|\[\[")
_NO_LIMIT = 1 << 62  # the parent wrote the request, within its own limit


def stages(receive: Callable[[type[Any]], Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage: the answer."""
    plan = receive(PredictPlan)
    yield "answer", lambda: predict(plan)


def predict(plan: PredictPlan) -> Answered:
    """Runs the signature and writes its outputs.

    Raises:
        InvalidInputError: If the SavedModel cannot be loaded, or cannot answer this request.
    """
    name, saved_model = plan.signature.name, Path(plan.saved_model)
    feed = _recorded(saved_model, name) if plan.inputs is None else _given(Path(plan.inputs), plan.signature)
    try:
        with serving.loaded(saved_model) as (session, definitions):
            answers = serving.answer(session, definitions[name], feed)
    except KeyError as error:
        raise InvalidInputError(
            f"the SavedModel has no {error} in signature {name!r}, though the manifest says so",
            hint="somebody else wrote the manifest or the SavedModel; package the model again",
        ) from error
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise InvalidInputError(f"signature {name!r} cannot answer this request: {_said(error)}") from error
    write_arrays(Path(plan.answers), {key: np.asarray(value) for key, value in answers.items()})
    first = next(iter(feed.values()))
    return Answered(rows=len(first) if first.ndim else 1)


def _recorded(saved_model: Path, signature: str) -> dict[str, Array]:
    """The first warm-up record of a signature."""
    path = saved_model / warmup_log.WARMUP_FILE
    for record in warmup_log.read_log(path) if path.is_file() else ():
        name, feed = warmup_log.feed(record)
        if name == signature:
            return feed
    raise InvalidInputError(
        f"the version has no warm-up record for signature {signature!r} to ask it with", hint="give --inputs FILE"
    )


def _given(path: Path, signature: Signature) -> dict[str, Array]:
    with path.open("rb") as file:
        arrays = read_arrays(file, _NO_LIMIT)
    if signature.method != "predict":
        return {tf.saved_model.CLASSIFY_INPUTS: warmup_log.serialized(warmup_log.examples(arrays))}
    dtypes = {item.name: tf.as_dtype(item.dtype).as_numpy_dtype for item in signature.inputs}
    return {name: array.astype(dtypes[name], copy=False) for name, array in arrays.items()}


def _said(error: Exception) -> str:
    """What TensorFlow has to say, without the headings before it and the stack of graph nodes around it."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not _AROUND.match(line)), type(error).__name__)[:500]
