"""The surroundings of a process that deserialises or runs a model.

A model file can hold code, so the process gets: an environment of listed variables only (no
credentials), an empty HOME, a temporary directory of its own, and no network where the kernel lets us
take it away. It still runs as the same user: what that user's files hold by absolute path it could
read, and without a network it can tell nobody but the parent.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Where libraries, GPUs and locales are found; how TensorFlow is tuned. By name, none by prefix: Terraform's
# TF_VAR_... and TF_TOKEN_... carry secrets.
_KEPT = frozenset(
    {
        "CUDA_DEVICE_ORDER",  # without it the numbers in CUDA_VISIBLE_DEVICES may mean other GPUs
        "CUDA_HOME",
        "CUDA_MPS_LOG_DIRECTORY",
        "CUDA_MPS_PIPE_DIRECTORY",
        "CUDA_VISIBLE_DEVICES",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "PATH",
        "TF_CPP_MAX_VLOG_LEVEL",
        "TF_CPP_MIN_LOG_LEVEL",
        "TF_CPP_VMODULE",
        "TF_CUDNN_DETERMINISTIC",
        "TF_DETERMINISTIC_OPS",
        "TF_ENABLE_ONEDNN_OPTS",
        "TF_FORCE_GPU_ALLOW_GROWTH",
        "TF_GPU_ALLOCATOR",
        "TF_GPU_THREAD_COUNT",
        "TF_GPU_THREAD_MODE",
        "TF_NUM_INTEROP_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_XLA_FLAGS",
        "TZ",
        "XLA_FLAGS",
    }
)


def environment(inherited: Mapping[str, str], home: Path, scratch: Path) -> dict[str, str]:
    """The child's environment.

    Args:
        inherited: The parent's.
        home: An empty directory.
        scratch: Where temporary files go.
    """
    kept = {name: value for name, value in inherited.items() if name in _KEPT}
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **kept,
        "HOME": str(home),
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(home / ".keras"),
        "TMPDIR": str(scratch),
    }


def command(module: str, arguments: Sequence[str], *, network: bool = False) -> list[str]:
    """The child's command line: an isolated Python, in a network namespace of its own if that can be had.

    Args:
        module: What it runs.
        arguments: What follows.
        network: Whether it keeps the network: for what asks a server, and never runs a model itself.
    """
    # -I: neither the current directory nor PYTHON* variables add to what can be imported.
    return [*(() if network else _without_network()), sys.executable, "-I", "-m", module, *arguments]


def network_is_cut() -> bool:
    """Whether children are without a network here."""
    return bool(_without_network())


@functools.cache
def _without_network() -> tuple[str, ...]:
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    for prefix in _ways(unshare, shutil.which("setpriv")):
        tried = subprocess.run([*prefix, "true"], capture_output=True, check=False, timeout=10)
        if tried.returncode == 0:
            return prefix
    return ()


def _ways(unshare: str, setpriv: str | None) -> list[tuple[str, ...]]:
    """How to take the network away, the best first."""
    if os.geteuid() != 0:
        # Needs a user namespace around it, where the kernel lets ordinary users make one.
        return [(unshare, "--user", "--map-current-user", "--net", "--")]
    plain = (unshare, "--net", "--")
    if setpriv is None:
        return [plain]
    # Root with all its capabilities could join the parent's namespace again, and read its environment in /proc.
    powerless = (setpriv, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--")
    return [(*plain, *powerless), plain]
