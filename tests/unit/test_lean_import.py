"""What Keras is kept from importing in a model process, and what a model's own code may import there all the same."""

from __future__ import annotations

import gc
import subprocess
import sys

from tasks.model_process.lean_import import lean_import

_LEAN = """
import sys
from tasks.model_process.lean_import import lean_import
with lean_import():
    import tasks.model_process.preparing
found = {"matplotlib", "sklearn"} & {*sys.modules}
assert not found, found
import matplotlib, sklearn
assert matplotlib.__version__ and sklearn.__version__
"""


def test_keras_imports_neither_and_a_models_own_code_can() -> None:
    done = subprocess.run([sys.executable, "-c", _LEAN], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_garbage_is_collected_again_afterwards() -> None:
    assert gc.isenabled()
    with lean_import():
        assert not gc.isenabled()
    assert gc.isenabled()
