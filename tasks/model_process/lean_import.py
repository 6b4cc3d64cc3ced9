"""Keras imported without matplotlib and scikit-learn, which it looks for and no model process needs.

It imports both wherever they are installed: half of the processor time of a start here, for matplotlib also searches
all fonts where HOME is empty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LEFT_OUT = ("matplotlib", "sklearn")


@contextmanager
def lean_import() -> Iterator[None]:
    """Inside the block neither can be imported; afterwards both can, for a model's own code may need them."""
    hidden = [name for name in _LEFT_OUT if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an import of it fails
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
