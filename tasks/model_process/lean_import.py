"""Keras imported without matplotlib and scikit-learn, which it looks for and no model process needs.

It imports both wherever they are installed: half of the processor time of a start here, for matplotlib also searches
all fonts where HOME is empty. An eighth of the rest is Python's collector of garbage, which goes through all of
TensorFlow's modules again and again while they are imported, and finds nothing.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LEFT_OUT = ("matplotlib", "sklearn")


@contextmanager
def lean_import() -> Iterator[None]:
    """Inside the block neither can be imported; afterwards both can, for a model's own code may need them.

    Nor is garbage collected inside.
    """
    hidden = [name for name in _LEFT_OUT if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an import of it fails
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for name in hidden:
            del sys.modules[name]
