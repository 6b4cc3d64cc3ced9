"""A version in memory: its SavedModel in a Session of its own, loaded as the server's C++ loader does.

- Without `variables/variables.index` nothing is restored, and the load passes all the same; requests fail then.
- fingerprint.pb is read before anything else, and what is wrong with it is nobody's business (read from its source).
- The SignatureDefs of the `serve` MetaGraph are what requests may call.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from tensorflow.python.saved_model import loader_impl

from tests.support.model_server.errors import ServingError, from_tensorflow
from tests.support.model_server.server_log import log

_TAGS = [tf.saved_model.SERVING]
_SOURCE = "../tensorflow/cc/saved_model/loader.cc"


class SavedModel:
    """A SavedModel that answers.

    Attributes:
        signatures: SignatureDef by name.
    """

    def __init__(self, directory: Path) -> None:
        """Loads it.

        Raises:
            ServingError: If it cannot be loaded.
        """
        with contextlib.suppress(OSError):
            (directory / "fingerprint.pb").read_bytes()
        _check_readable(directory)
        # The caller's own thread runs each request, and the versions share no threads.
        config = config_pb2.ConfigProto(inter_op_parallelism_threads=-1, intra_op_parallelism_threads=1)
        with _tensorflow_errors():
            self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
            loader = loader_impl.SavedModelLoader(str(directory))
            with self._session.graph.as_default():
                saver, _ = loader.load_graph(self._session.graph, _TAGS)
                if (directory / "variables/variables.index").exists():
                    loader.restore_variables(self._session, saver)
                else:
                    log("I", _SOURCE, "The specified SavedModel has no variables; no checkpoints were restored.")
                loader.run_init_ops(self._session, _TAGS)
        self.signatures: Mapping[str, Any] = dict(loader.get_meta_graph_def_from_tags(_TAGS).signature_def)
        self._callables: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}
        self._mutex = threading.Lock()

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Runs part of the graph.

        Args:
            feeds: Arrays by tensor name.
            fetches: Names of tensors.

        Raises:
            ServingError: What TensorFlow said.
        """
        key = (tuple(sorted(feeds)), tuple(fetches))
        with self._mutex:
            if key not in self._callables:
                options = config_pb2.CallableOptions(feed=key[0], fetch=key[1])
                with _tensorflow_errors():
                    self._callables[key] = self._session._make_callable_from_options(options)
            call = self._callables[key]
        with _tensorflow_errors():
            return list(call(*(feeds[name] for name in key[0])))

    def close(self) -> None:
        """Gives back the Session."""
        self._callables.clear()
        self._session.close()


def _check_readable(directory: Path) -> None:
    file = directory / "saved_model.pb"
    try:
        graphs = saved_model_pb2.SavedModel.FromString(file.read_bytes()).meta_graphs
    except OSError:
        raise ServingError(
            "NOT_FOUND",
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}. Check that the "
            "directory exists and that you have the right permissions for accessing it.",
        ) from None
    except DecodeError:
        raise ServingError("DATA_LOSS", f"Can't parse {file} as binary proto") from None
    if not any(set(graph.meta_info_def.tags) == set(_TAGS) for graph in graphs):
        message = f"Could not find meta graph def matching supplied tags: {{ serve }} in {directory}"
        raise ServingError("NOT_FOUND", message)


@contextlib.contextmanager
def _tensorflow_errors() -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise from_tensorflow(error.error_code, error.message) from None
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        # Where Python's loader or feeding complains before the runtime does.
        raise ServingError("INVALID_ARGUMENT", str(error)) from None
