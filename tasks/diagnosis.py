"""What this machine has of all that Slipway works with, and what to do about what it lacks.

Each check is a function of its own that returns findings; they run side by side, because each mostly waits.
"""

from __future__ import annotations

import os
import platform
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from model_registry import __version__
from model_registry.errors import SlipwayError
from model_registry.registry import Registry
from model_registry.signing import load_keys
from model_registry.storage.probe import check_conditional_writes
from tasks.conversion_place import VARIABLE, Here, Nowhere, Place, find_place
from tasks.conversion_pool import Pool
from tasks.docker_engine import docker_engine, engine_address
from tasks.model_process import sandbox
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import SURVEY, Hardware

Verdict = Literal["ok", "warn", "fail"]

INSTALL = "pip install 'slipway[pipeline]'"
# TensorFlow's import alone takes ten seconds on a busy machine.
SURVEY_TIMEOUT = 120.0
_ANSWER_WITHIN = 5  # seconds, for a service on the network
_LIBRARIES = ("tensorflow", "keras", "tensorflow-serving-api", "numpy", "prefect", "fastapi", "docker")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        found: What is there.
        verdict: `ok`; `warn` where something works less well or not at all without it, but nothing is
            broken; `fail` where something is.
        hint: What to do; empty where there is nothing to do.
    """

    check: str
    found: str
    verdict: Verdict
    hint: str = ""


def diagnose(registry: str | None = None) -> tuple[Finding, ...]:
    """Makes every check, at once.

    Args:
        registry: Its URL, or None for SLIPWAY_REGISTRY or ./registry.
    """
    checks: Sequence[Callable[[], Iterable[Finding]]] = (
        _python,
        _libraries,
        _hardware,
        _isolation,
        partial(_registry, registry),
        partial(_conversion, registry),
        _signatures,
        _docker,
        _prefect_api,
    )
    with ThreadPoolExecutor(len(checks), thread_name_prefix="doctor") as pool:
        return tuple(finding for findings in pool.map(_made, checks) for finding in findings)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict among findings."""
    verdicts = {finding.verdict for finding in findings}
    return "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "ok"


def judge_python(version: tuple[int, int]) -> Finding:
    """Whether the pipeline runs on a Python; pure."""
    found = f"{version[0]}.{version[1]}"
    if (3, 10) <= version <= (3, 12):
        return Finding("Python", found, "ok")
    hint = "the pipeline needs 3.10 to 3.12, TensorFlow 2.17 has no wheel beyond; registry and agent run here"
    return Finding("Python", found, "warn" if version > (3, 12) else "fail", hint)


def judge_library(name: str, found: str | None, wanted: str) -> Finding:
    """Whether an installed version is one that Slipway is made for; pure.

    Args:
        name: The distribution.
        found: Its version, or None where it is not installed.
        wanted: The specifier, such as `>=2.17.1,<2.18`; empty where nothing is known.
    """
    if found is None:
        return Finding(name, "not installed", "warn", INSTALL)
    # Comes with TensorFlow, Keras and Prefect alike.
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(wanted).contains(found, prereleases=True):
        return Finding(name, found, "ok")
    return Finding(name, found, "fail", f"expected {wanted}: {INSTALL}")


def wanted_versions(requirements: Iterable[str]) -> dict[str, str]:
    """The specifiers of our own requirements by distribution, from lines such as `keras<3.16,>=3.12; extra == ...`."""
    wanted: dict[str, str] = {}
    for line in requirements:
        requirement = line.split(";")[0].strip()
        end = next((index for index, letter in enumerate(requirement) if letter in "<>=!~ ["), len(requirement))
        wanted[requirement[:end].lower()] = requirement[end:].strip()
    return wanted


def _made(check: Callable[[], Iterable[Finding]]) -> tuple[Finding, ...]:
    return tuple(check())


def _python() -> Iterable[Finding]:
    major, minor, _ = platform.python_version_tuple()
    yield judge_python((int(major), int(minor)))


def _libraries() -> Iterable[Finding]:
    yield Finding("slipway", __version__, "ok")
    try:
        wanted = wanted_versions(metadata.requires("slipway") or ())
    except metadata.PackageNotFoundError:  # a source tree that was never installed
        wanted = {}
    for name in _LIBRARIES:
        found = _installed(name)
        if name == "tensorflow" and found is None and (found := _installed("tensorflow-cpu")):
            finding = judge_library("tensorflow-cpu", found, wanted.get(name, ""))
            hint = "it has no TF-TRT: fine for native SavedModels, `pip install tensorflow` to convert"
            yield finding if finding.verdict == "fail" else Finding(finding.check, found, "warn", hint)
            continue
        yield judge_library(name, found, wanted.get(name, ""))


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _hardware() -> Iterable[Finding]:
    if not (_installed("tensorflow") or _installed("tensorflow-cpu")):
        yield Finding("GPU", "not looked for: TensorFlow is not installed", "warn", INSTALL)
        return
    try:
        with (
            tempfile.TemporaryDirectory(prefix="slipway-doctor-") as directory,
            ModelProcess(SURVEY, Path(directory) / SURVEY) as process,
        ):
            hardware, _ = process.result("look for GPUs and TensorRT", Hardware, SURVEY_TIMEOUT)
    except SlipwayError as error:
        last = error.message.splitlines()[-1]
        hint = error.hint or f"see what `python -c 'import tensorflow'` says; {INSTALL}"
        yield Finding("TensorFlow starts", last, "fail", hint)
        return
    yield from judge_hardware(hardware)


def judge_hardware(hardware: Hardware) -> Iterable[Finding]:
    """What GPUs and TensorRT allow for; pure."""
    if hardware.gpus:
        yield Finding("GPU", "; ".join(hardware.gpus), "ok")
    else:
        yield Finding("GPU", "none", "warn", "native SavedModels need none; converting with TensorRT does")
    if not hardware.trt_build:
        hint = "install tensorflow 2.17, not tensorflow-cpu and none later, to convert with TensorRT"
        yield Finding("TensorRT", "this TensorFlow is built without TF-TRT", "warn", hint)
    elif hardware.trt_failure:
        plugin = hardware.trt_library.replace("libnvinfer", "libnvinfer_plugin")
        hint = f"to convert, bring {hardware.trt_library} and {plugin}, by these names, onto LD_LIBRARY_PATH"
        yield Finding("TensorRT", hardware.trt_failure, "warn", hint)
    else:
        yield Finding("TensorRT", hardware.trt_library, "ok")


def _isolation() -> Iterable[Finding]:
    if sandbox.network_is_cut():
        yield Finding("model process", "without credentials, without network", "ok")
    else:
        hint = "allow user namespaces to `unshare --net`, or package only models you trust"
        yield Finding("model process", "without credentials, but the network is open", "warn", hint)


def _registry(url: str | None) -> Iterable[Finding]:
    try:
        store = Registry.open(url).store
    except SlipwayError as error:
        yield Finding("registry", error.message, "fail", error.hint or "")
        return
    try:
        missing = "://" not in store.uri and not Path(store.uri).exists()
        store.check()
        if missing:  # which is none of the doctor's to make
            yield Finding("registry", f"{store.uri}: not there yet, the first `slipway package` makes it", "ok")
            return
        check_conditional_writes(store)
    except SlipwayError as error:
        yield Finding(
            "registry", f"{store.uri}: {error.message.removeprefix(f'{store.uri}: ')}", "fail", error.hint or ""
        )
        return
    yield Finding("registry", f"{store.uri}: writable, conditional writes have one winner", "ok")


def _conversion(url: str | None) -> Iterable[Finding]:
    """Where `tensorrt-fp16` would be converted."""
    if not _installed("tensorflow") or not _installed("prefect"):
        return  # told among the libraries
    try:
        uri = Registry.open(url).store.uri
    except SlipwayError:
        return  # told with the registry
    try:
        yield judge_place(find_place(uri))
    except SlipwayError as error:
        yield Finding("conversion", error.message, "fail", error.hint or "")


def judge_place(place: Place) -> Finding:
    """What a place to convert at allows for; pure."""
    match place:
        case Here(None):
            hint = f"no GPU and no TensorRT take part in it: unset {VARIABLE} where engines are wanted"
            return Finding("conversion", f"a rehearsal, for {VARIABLE} says so", "warn", hint)
        case Here(accelerator):
            assert accelerator is not None
            return Finding("conversion", f"here, on {accelerator.name}, as {accelerator.variant}", "ok")
        case Pool(deployment, pool):
            return Finding("conversion", f"by {deployment} on the work pool {pool!r}", "ok")
        case Nowhere(reason, hint):
            return Finding("conversion", f"nowhere: {reason}", "warn", hint)


def _signatures() -> Iterable[Finding]:
    try:
        signer, verifier = load_keys(os.environ)
    except SlipwayError as error:
        yield Finding("signatures", error.message, "fail", error.hint or "")
        return
    signs = f"signs as {signer.key_id}" if signer else "publishes unsigned"
    reads = f"reads only what {' or '.join(verifier.key_ids)} signed" if verifier else "reads unsigned versions too"
    yield Finding("signatures", f"{signs}, {reads}", "ok")


def _docker() -> Iterable[Finding]:
    if not _installed("docker"):
        return  # told among the libraries
    try:
        with docker_engine(_ANSWER_WITHIN) as client:
            found = f"{client.version()['Version']} at {engine_address()}"
    except (SlipwayError, OSError, KeyError):
        hint = "`server: docker` in a package.yaml needs one: start it, or set DOCKER_HOST to it"
        yield Finding("Docker", "no engine answers", "warn", hint)
        return
    yield Finding("Docker", found, "ok")


def _prefect_api() -> Iterable[Finding]:
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        yield Finding("Prefect API", "PREFECT_API_URL is not set: a run starts a server of its own", "ok")
        return
    check = f"Prefect API {url}"
    if not url.startswith(("http://", "https://")):
        yield Finding(check, "no http:// or https:// URL", "fail", "PREFECT_API_URL=http://HOST:4200/api")
        return
    request = urllib.request.Request(f"{url}/health", headers=_authorization())  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_WITHIN) as answer:  # noqa: S310
            answer.read(1024)
    except urllib.error.HTTPError as error:
        hint = "set PREFECT_API_KEY or PREFECT_API_AUTH_STRING" if error.code in (401, 403) else "see the server's log"
        yield Finding(check, f"answers HTTP {error.code}", "fail", hint)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        yield Finding(check, f"does not answer: {reason}", "fail", "start it with: prefect server start")
    else:
        yield Finding(check, "healthy", "ok")


def _authorization() -> dict[str, str]:
    import base64

    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}
