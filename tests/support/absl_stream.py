"""Keeps absl, which TensorFlow logs through, from closing pytest's standard error.

Its handler keeps the sys.stderr of the moment it was imported, and closes that when logging is set up
anew, as Prefect does, unless it is the process's own.
"""

from __future__ import annotations

import sys

from absl import logging

logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
