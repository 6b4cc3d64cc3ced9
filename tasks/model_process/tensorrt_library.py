"""What TF-TRT wants of TensorRT and what the loader finds, asked before TensorFlow is imported.

Whoever brings another library under TensorRT's name gets a process that aborts: TensorFlow asks for the
version when it is imported, and takes a missing symbol for the end (tensorflow/compiler/tf2tensorrt/stub).
The same question put through ctypes has an answer.
"""

from __future__ import annotations

import ctypes
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model_registry.errors import ConversionError

# What the wheels of TensorFlow 2.17 are linked against. It stands in compiled code only, and that is imported
# with TensorFlow; the pre-flight compares the two.
VERSION = "8.6.1"
# TF-TRT asks the loader for these very names; the soname alone, libnvinfer.so.8, is not enough.
NAMES = (f"libnvinfer.so.{VERSION}", f"libnvinfer_plugin.so.{VERSION}")

_INSTALL = (
    f"install TensorRT {VERSION}, with {' and '.join(NAMES)}, by these very names, where the loader looks "
    "(LD_LIBRARY_PATH): the packages libnvinfer8 and libnvinfer-plugin8, as in deploy/gpu-worker.Dockerfile"
)


@dataclass(frozen=True)
class Library:
    """What there is of TF-TRT and TensorRT.

    Attributes:
        tensorflow: The version that is installed.
        trt_build: Whether it was built with TF-TRT. Later releases still ship the Python side, so that an
            import proves nothing.
        cuda: The CUDA it was built with, such as `12.3`; empty for a build without.
        failure: What the loader says of the first library that it cannot load; empty if it can.
        version: What the loaded library says it is; empty for one that is not TensorRT.
    """

    tensorflow: str
    trt_build: bool
    cuda: str
    failure: str
    version: str

    @property
    def is_fatal(self) -> bool:
        """Whether importing TensorFlow ends the process."""
        return self.trt_build and not self.failure and not self.version


def look() -> Library:
    """Asks the installed TensorFlow and the loader; loads the libraries into this process."""
    root = _tensorflow()
    build = _build(root)
    tensorflow = next((found for name in ("tensorflow", "tensorflow-cpu") if (found := _installed(name))), "unknown")
    cuda = str(build.get("cuda_version", ""))
    if not build.get("is_tensorrt_build", False):
        return Library(tensorflow, trt_build=False, cuda=cuda, failure="", version="")
    libraries = []
    for name in NAMES:
        try:
            libraries.append(_loaded(name, root))
        except OSError as error:
            return Library(tensorflow, trt_build=True, cuda=cuda, failure=str(error), version="")
    return Library(tensorflow, trt_build=True, cuda=cuda, failure="", version=_version(libraries[0]))


def judge(library: Library) -> None:
    """Refuses what TF-TRT cannot convert with; pure.

    Raises:
        ConversionError: If TensorFlow has no TF-TRT, or the library is missing or another one.
    """
    if not library.trt_build:
        raise ConversionError(
            f"the installed TensorFlow, {library.tensorflow}, is built without TF-TRT",
            hint="pip install 'slipway[pipeline]', which brings tensorflow 2.17: tensorflow-cpu has no TF-TRT, "
            "nor has any release from 2.18 on",
        )
    if library.failure:
        raise ConversionError(f"TensorRT cannot be loaded: {library.failure}", hint=_INSTALL)
    if not library.version:
        raise ConversionError(
            f"what the loader finds as {NAMES[0]} is not TensorRT: it does not tell its version", hint=_INSTALL
        )
    if library.version != VERSION:
        raise ConversionError(
            f"what the loader finds as {NAMES[0]} is TensorRT {library.version}; this TensorFlow needs {VERSION}",
            hint=f"a link to another version does not do: {_INSTALL}",
        )


def version_of(number: int) -> str:
    """The version that getInferLibVersion tells as one number: NV_TENSORRT_VERSION of NvInferVersion.h; pure."""
    major, rest = divmod(number, 10_000) if number >= 10_000 else divmod(number, 1_000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _tensorflow() -> Path:
    spec = find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise ConversionError("TensorFlow is not installed", hint="pip install 'slipway[pipeline]'")
    return Path(spec.origin).parent


def _build(root: Path) -> Mapping[str, Any]:
    """What `tf.sysconfig.get_build_info()` tells, without the import."""
    build: Mapping[str, Any] = runpy.run_path(str(root / "python/platform/build_info.py"))["build_info"]
    return build


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _loaded(name: str, root: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError:
        # TensorFlow's own run path leads there too.
        beside = root.parent / "tensorrt" / name
        if not beside.exists():
            raise
        return ctypes.CDLL(str(beside))


def _version(library: ctypes.CDLL) -> str:
    try:
        ask = library.getInferLibVersion
    except AttributeError:
        return ""
    ask.argtypes, ask.restype = [], ctypes.c_int
    return version_of(ask())
