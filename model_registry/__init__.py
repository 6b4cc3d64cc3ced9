"""The registry: which versions of a model exist, what they hold, and where they lie.

Needs neither TensorFlow nor Prefect, so that a command answers at once and an agent beside a
server stays small.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("slipway")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
