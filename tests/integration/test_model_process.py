"""Whatever a model does to the process that loads it: the parent hears of it, lives on, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from model_registry.errors import InvalidInputError
from model_registry.spec import PackageSpec
from tasks.model_process import sandbox
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import PREPARE, ExportedModel, LoadedModel, PreparePlan

_WITHIN = 60.0
_MODULE = "what_the_model_brings"

SECRETS = {"AWS_SECRET_ACCESS_KEY": "a secret of the parent's", "SLIPWAY_REGISTRY": "s3://theirs", "PYTHONPATH": "/x"}

OBSERVES = """
    import json, os, pathlib, socket, sys

    def connect(address):
        try:
            socket.create_connection(address, timeout=5).close()
        except OSError as error:
            return type(error).__name__
        return "connected"

    here = pathlib.Path(__file__).parent
    (here / "seen.json").write_text(json.dumps({
        "environ": dict(os.environ),
        "home": sorted(os.listdir(pathlib.Path.home())),
        "mode": oct(pathlib.Path.home().stat().st_mode & 0o777),
        "files": sorted(os.listdir()),
        "connect": connect(("127.0.0.1", int((here / "port").read_text()))),
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in map(int, os.listdir("/proc/self/fd"))
                              if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")),
    }))
"""

# What the module does when it is imported, what the parent then says, and of what the log's end must tell.
FATES = {
    "a segmentation fault": (
        "import ctypes; print('before the fault', flush=True); ctypes.string_at(0)",
        r"was killed by SIGSEGV while it should load",
        "before the fault",
    ),
    "an abort": ("import os; print('before the abort', flush=True); os.abort()", r"killed by SIGABRT", "the abort"),
    "a kill, as the kernel's when memory is used up, after 100 MB of prints": (
        """
        import os, signal, sys
        for _ in range(100):
            sys.stdout.write(("." * 99_999 + "\\n") * 10)
        print("the last \x1b]0;title\x07 line", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        r"was killed by SIGKILL while it should load",
        "the last ?]0;title? line",
    ),
    "a real-time signal": (
        "import os, signal; print('about to go', flush=True); os.kill(os.getpid(), signal.SIGRTMIN + 3)",
        r"was killed by signal \d+",
        "about to go",
    ),
    "an orderly exit": (
        "import sys; print('goodbye'); sys.exit(0)",
        r"ended with status 0 while it should load",
        "goodbye",
    ),
    "an exit that leaves a grandchild with the pipe": (
        """
        import os, pathlib, time
        if not os.fork():
            pathlib.Path(__file__).with_name("grandchild").write_text(str(os.getpid()))
            time.sleep(600)
        while not pathlib.Path(__file__).with_name("grandchild").exists():
            time.sleep(0.01)
        print("a child is left", flush=True)
        os._exit(7)
        """,
        r"ended with status 7 while it should load",
        "a child is left",
    ),
    "closing the pipe and staying": (
        "import os, time; print('now silent', flush=True); os.closerange(3, 256); time.sleep(600)",
        r"stopped reporting while it should load",
        "now silent",
    ),
    "garbage in every pipe": (
        """
        import os
        for descriptor in range(3, 256):
            try:
                os.write(descriptor, b'{"stage": "load", "seconds": "\\x1b[2J"}\\n')
            except OSError:
                pass
        """,
        r"broke its protocol while it should load",
        "",
    ),
    "the report of another stage": (
        """
        import os
        for descriptor in range(3, 256):
            try:
                os.write(descriptor, b'{"stage": "validate", "seconds": 1}\\n')
            except OSError:
                pass
        """,
        r"broke its protocol while it should load: expected stage 'load', found 'validate'",
        "",
    ),
}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    return folder


@contextmanager
def loading(code: Path, text: str, source: Path | None = None) -> Iterator[ModelProcess]:
    """A child that was told to import the module; afterwards the test fails if a process of its is left."""
    (code / f"{_MODULE}.py").write_text(textwrap.dedent(text))
    workspace = code.parent / "workspace"
    workspace.mkdir()
    with ModelProcess(PREPARE, workspace / PREPARE) as process:
        spec = PackageSpec.model_validate({"model": "fateful", "custom_objects": [_MODULE]})
        process.tell(
            PreparePlan(
                source=str(source or code / "none.keras"),
                source_format="keras",
                spec=spec.model_dump(mode="json"),
                trusted=True,
                code_directory=str(code),
                samples=None,
                candidate=str(workspace / "candidate"),
                cases=str(workspace / "cases"),
            )
        )
        yield process
    assert not psutil.pid_exists(process.pid)
    if (grandchild := code / "grandchild").exists():
        until(lambda: is_gone(int(grandchild.read_text())), "the grandchild is gone")


def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WITHIN
    while not happened():
        assert time.monotonic() < deadline, f"expected within {_WITHIN:g} s that {what}"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def failure(process: ModelProcess, timeout: float = _WITHIN) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        process.result("load", LoadedModel, timeout)
    return caught.value


def test_a_model_sees_no_credentials_no_home_and_no_network(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (code / "port").write_text(str(listener.getsockname()[1]))
        with loading(code, OBSERVES) as process:
            assert "none.keras" in failure(process).message

    seen = json.loads((code / "seen.json").read_text())
    assert not SECRETS.keys() & seen["environ"].keys()
    assert not [name for name in seen["environ"] if name.startswith(("AWS_", "PREFECT_", "SLIPWAY_", "PYTHON"))]
    assert not set(SECRETS.values()) & set(seen["environ"].values())
    assert seen["environ"]["HOME"] != os.environ["HOME"]
    assert seen["home"] in ([], [".keras"]), "Keras itself makes a folder there when it is imported"
    assert (seen["mode"], seen["files"]) == ("0o700", [])
    own = str(code.parent)
    assert [name for name in seen["descriptors"] if not name.startswith(("pipe:", "anon_inode:", own, "/dev/"))] == []
    if not sandbox.network_is_cut():
        pytest.skip("this system lets nobody take away a process's network")
    assert seen["connect"] == "OSError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can always make a network namespace")
def test_the_network_is_cut_for_root() -> None:
    assert sandbox.network_is_cut()


@pytest.mark.parametrize("fate", FATES)
def test_a_model_that_ends_its_process_is_reported_with_the_end_of_the_log(code: Path, fate: str) -> None:
    text, said, logged = FATES[fate]

    with loading(code, text) as process:
        error = failure(process)
        assert sum(path.stat().st_size for path in code.parent.rglob("*") if path.is_file()) < 1_000_000

    head, _, log = error.message.partition("last lines of its log:\n")
    pattern = re.compile(said)
    assert pattern.search(head), error.message
    assert log
    assert logged in log
    assert "\x1b" not in error.message
    assert len(error.message) < 20_000
    assert error.hint


def test_memory_that_is_used_up_is_an_error_that_names_it(code: Path) -> None:
    text = """
        import resource, sys
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        bytearray(1 << 30)
    """
    with loading(code, text) as process:
        error = failure(process)

    assert f"importing {_MODULE} failed: MemoryError" in error.message


def test_a_model_that_takes_too_long_is_ended(code: Path) -> None:
    text = """
        import pathlib, time
        pathlib.Path(__file__).with_name("began").touch()
        print("thinking", flush=True)
        time.sleep(600)
    """
    with loading(code, text) as process:
        until((code / "began").exists, "the module is imported")
        error = failure(process, 0.2)

    assert "the prepare process did not load within 0.2 s, and was ended" in error.message
    assert "thinking" in error.message
    assert "timeouts" in (error.hint or "")


def test_a_layer_that_aborts_when_it_is_called_is_reported_for_the_export(code: Path, models: Path) -> None:
    text = """
        import os
        import keras

        class Gate(keras.layers.Layer):
            def build(self, shape):
                self.scale = self.add_weight(name="scale", shape=(shape[-1],))

            def call(self, x, training=None):
                if training is False:  # as the export traces it
                    print("called", flush=True)
                    os.abort()
                return x
    """
    with loading(code, text, models / "custom.keras") as process:
        loaded, _ = process.result("load", LoadedModel, _WITHIN)
        assert loaded.parameters == 4
        with pytest.raises(InvalidInputError, match=r"(?s)killed by SIGABRT while it should export.*called"):
            process.result("export", ExportedModel, _WITHIN)


PARENT = """
import os, sys, time
from pathlib import Path
from tests.integration.test_model_process import loading, until

code = Path(sys.argv[1])
with loading(code, '''
    import os, pathlib, time
    grandchild = os.fork()
    if grandchild:
        here = pathlib.Path(__file__).parent
        (here / "pids.tmp").write_text(f"{os.getpid()} {grandchild}")
        (here / "pids.tmp").rename(here / "pids")
    time.sleep(600)
'''):
    time.sleep(600)
"""


def test_child_and_grandchild_end_by_themselves_when_the_parent_is_killed(code: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(code)], cwd=Path(__file__).parents[2])
    try:
        until((code / "pids").exists, "the module is imported")
        pids = [int(pid) for pid in (code / "pids").read_text().split()]
        assert not any(is_gone(pid) for pid in pids)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()

    until(lambda: all(is_gone(pid) for pid in pids), "child and grandchild are gone")
