"""A SavedModel as TensorFlow Serving has it: loaded into a Session, its signatures run by their tensors' names.

An eager `tf.saved_model.load` restores other variable handles than a signature may read, so it answers
where a server fails; a Session fails where the server does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf

Arrays = Mapping[str, npt.NDArray[Any]]


@contextmanager
def loaded(directory: Path) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Loads a SavedModel.

    Returns:
        The tf.compat.v1.Session, and the SignatureDefs by name.
    """
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(directory))
        yield session, meta_graph.signature_def


def answer(session: Any, definition: Any, feed: Arrays) -> dict[str, Any]:
    """Runs a signature.

    Args:
        session: Where the SavedModel is loaded.
        definition: The SignatureDef.
        feed: Arrays by the signature's input names.

    Returns:
        Arrays by the signature's output names.
    """
    fetches = {name: info.name for name, info in definition.outputs.items()}
    answers: dict[str, Any] = session.run(
        fetches, {definition.inputs[name].name: array for name, array in feed.items()}
    )
    return answers
