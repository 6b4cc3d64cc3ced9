"""TensorFlow's own saved_model_cli, called in this process: starting it anew would import TensorFlow again."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from tensorflow.python.tools import saved_model_cli

_NONE_DENIED = "does not contain the default denylisted ops"


def show(directory: Path, signature: str) -> str:
    """What `saved_model_cli show` prints of one signature."""
    return _call("show", "--dir", str(directory), "--tag_set", tf.saved_model.SERVING, "--signature_def", signature)


def scan(directory: Path) -> tuple[bool, str]:
    """Whether `saved_model_cli scan` finds no op that touches files or prints, and what it prints."""
    printed = _call("scan", "--dir", str(directory), "--tag_set", tf.saved_model.SERVING)
    return _NONE_DENIED in printed, printed


def run(directory: Path, signature: str, feed: Mapping[str, npt.NDArray[Any]]) -> str:
    """What `saved_model_cli run` prints for one request.

    What the command does once it has read its arguments: their syntax has no way to write a name with `=`
    or `;`, and .npy files none to hold bfloat16.

    Args:
        directory: The SavedModel.
        signature: Which to run.
        feed: Array [batch, ...] by input name; bytes objects for strings.
    """
    with _printed() as printed:
        saved_model_cli.run_saved_model_with_feed_dict(
            str(directory), tf.saved_model.SERVING, signature, feed, outdir=None, overwrite_flag=False
        )
    return printed.getvalue()


def _call(*arguments: str) -> str:
    parser = saved_model_cli.create_parser()
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    # Its options are absl flags, which would keep their values from one call to the next.
    with flagsaver.flagsaver(), _printed() as printed:
        parser.parse_args(arguments).func()
    return printed.getvalue()


@contextlib.contextmanager
def _printed() -> Iterator[io.StringIO]:
    """Catches what is printed, and prints it again afterwards, for the log."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield printed
    finally:
        print(printed.getvalue())
