"""A real Docker engine for tests, with an image that has what TensorFlow Serving's own has: its entrypoint, its flags.

The engine is one of the test run's own: its data, socket, network bridge and containers are nobody else's, and it
touches no firewall. Its default runtime is runc with the Python environment of this checkout mounted read-only into
every container, as NVIDIA's runtime mounts a driver: so the code under test has no hook for tests, and the image needs
nothing but a Debian root. `tensorflow_model_server` in it is the tests' small server, or what SLIPWAY_TF_SERVING names.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors

IMAGE = "tensorflow/serving:2.17.1"

_REPOSITORY = Path(__file__).resolve().parents[2]
_CACHE = _REPOSITORY / ".cache"
_READY_WITHIN = 60.0
_ENDS_WITHIN = 30.0
_NEEDED = ("dockerd", "runc", "ip")
# Of a Debian root, what no container here reads.
_LEFT_OUT = ("./var/cache/", "./var/lib/apt/lists/", "./usr/share/doc/", "./usr/share/man/", "./usr/share/locale/")

# As tensorflow_serving/tools/docker/Dockerfile has it.
_ENTRYPOINT = """#!/bin/bash
tensorflow_model_server --port=8500 --rest_api_port=8501 \
--model_name=${MODEL_NAME} --model_base_path=${MODEL_BASE_PATH}/${MODEL_NAME} "$@"
"""
_RUNTIME = """#!{python} -I
import json, os, sys
if "create" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    with open(path) as file:
        config = json.load(file)
    for mounted in {mounted!r}:
        config["mounts"].append(
            {{"destination": mounted, "source": mounted, "type": "bind", "options": ["rbind", "ro"]}}
        )
    with open(path, "w") as file:
        json.dump(config, file)
os.execvp("runc", ["runc", *sys.argv[1:]])
"""


@dataclass(frozen=True)
class DockerEngine:
    """A running engine.

    Attributes:
        host: As DOCKER_HOST names it.
        log: What it printed.
    """

    host: str
    log: Path

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A connection of the tests' own."""
        client = docker.DockerClient(self.host, timeout=60)
        try:
            yield client
        finally:
            client.close()

    def containers(self) -> list[dict[str, Any]]:
        """All containers that the code under test made and that are there, as the engine inspects them."""
        with self.client() as client:
            found = client.api.containers(all=True, filters={"label": "slipway=server-check"})
            inspected = []
            for container in found:
                with contextlib.suppress(docker.errors.NotFound):
                    inspected.append(client.api.inspect_container(container["Id"]))
            return inspected

    def image(self, name: str, entrypoint: Sequence[str]) -> str:
        """Makes an image like IMAGE that runs something else."""
        with self.client() as client:
            container = client.api.create_container(IMAGE, entrypoint=["true"])["Id"]
            change = f"ENTRYPOINT {json.dumps(list(entrypoint))}"
            client.api.commit(container, repository=name, tag="1", changes=change)
            client.api.remove_container(container)
        return f"{name}:1"


def obstacle() -> str:
    """Why no engine can be started here; empty where one can."""
    if os.geteuid() != 0:
        return "a Docker engine of the tests' own needs root"
    needed = _NEEDED if _root_file().exists() else (*_NEEDED, "debootstrap")
    missing = [name for name in needed if shutil.which(name) is None]
    packages = "docker.io, iproute2 and debootstrap"
    return f"{', '.join(missing)} missing: install {packages}" if missing else ""


@contextlib.contextmanager
def run_docker_engine() -> Iterator[DockerEngine]:
    """Starts an engine that has IMAGE, and ends it with all its containers.

    Raises:
        RuntimeError: If it does not get ready; the message has its log.
    """
    root = _debian_root()
    with tempfile.TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as name, _bridge() as bridge:
        directory = Path(name)
        directory.chmod(0o755)
        runtime = directory / "runtime"
        runtime.write_text(_RUNTIME.format(python=sys.executable, mounted=_mounted()))
        runtime.chmod(0o755)
        (directory / "daemon.json").write_text("{}")
        engine = DockerEngine(f"unix://{directory}/docker.sock", directory / "log")
        command = [
            "dockerd",
            f"--config-file={directory}/daemon.json",
            f"--host={engine.host}",
            f"--data-root={directory}/data",
            f"--exec-root={directory}/exec",
            f"--pidfile={directory}/pid",
            f"--containerd-namespace={bridge}",
            f"--containerd-plugins-namespace={bridge}-plugins",
            f"--bridge={bridge}",
            "--iptables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            f"--add-runtime=environment={runtime}",
            "--default-runtime=environment",
            "--log-level=warn",
        ]
        with open(engine.log, "wb") as log:
            process = subprocess.Popen(
                command, cwd=directory, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            _wait(process, engine)
            with engine.client() as client:
                _import(client, root)
            yield engine
            with engine.client() as client:
                for container in client.api.containers(all=True):
                    client.api.remove_container(container["Id"], force=True, v=True)
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], engine: DockerEngine) -> None:
    socket = Path(engine.host.removeprefix("unix://"))
    deadline = time.monotonic() + _READY_WITHIN
    while True:
        if socket.exists():
            with contextlib.suppress(Exception), engine.client() as client:
                client.ping()
                return
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(f"dockerd did not get ready; its log:\n{engine.log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the engine, and its containerd with it."""
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _bridge() -> Iterator[str]:
    """A network bridge of the engine's own: Docker's would be shared with an engine that runs here already."""
    name = f"slipway{secrets.token_hex(3)}"
    subnet = f"10.{213 + secrets.randbelow(20)}.{secrets.randbelow(256)}.1/24"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", subnet, "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


def _import(client: Any, root: Path) -> None:
    """Makes the image: the Debian root, and above it what TensorFlow Serving's image has."""
    server = os.environ.get("SLIPWAY_TF_SERVING") or f"{sys.executable} -m tests.support.model_server"
    scripts = {
        "usr/bin/tf_serving_entrypoint.sh": _ENTRYPOINT,
        "usr/bin/tensorflow_model_server": f'#!/bin/sh\nexec {server} "$@"\n',
    }
    environment = {
        "MODEL_BASE_PATH": "/models",
        "MODEL_NAME": "model",
        "MODEL_SERVER_HOST": "0.0.0.0",
        "PYTHONPATH": str(_REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
    changes = [f"ENV {name}={value}" for name, value in environment.items()]
    with open(root, "rb") as file:
        pieces = iter(lambda: file.read(1 << 20), b"")
        client.api.import_image_from_stream(pieces, repository="debian-root", tag="1", changes=changes)
    container = client.api.create_container("debian-root:1", entrypoint=["true"])["Id"]
    client.api.put_archive(container, "/", _archive(scripts))
    change = 'ENTRYPOINT ["/usr/bin/tf_serving_entrypoint.sh"]'
    repository, tag = IMAGE.split(":")
    client.api.commit(container, repository=repository, tag=tag, changes=change)
    client.api.remove_container(container)


def _archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _mounted() -> list[str]:
    """The environment that runs this: interpreter, libraries, the checkout."""
    base = Path(sys.base_prefix)
    system = [os.path.realpath(sys.executable), sysconfig.get_path("stdlib")]
    wanted = [*(system if base == Path("/usr") else [str(base)]), sys.prefix, str(_REPOSITORY)]
    # What that interpreter was linked with, and the loader that goes with it.
    wanted.append(f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}")
    if binary := os.environ.get("SLIPWAY_TF_SERVING"):
        wanted.append(binary)
    return [path for path in dict.fromkeys(wanted) if not any(Path(other) in Path(path).parents for other in wanted)]


def _debian_root() -> Path:
    """The tar file of a Debian root, made once for a checkout."""
    made = _root_file()
    if made.exists():
        return made
    _CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="debian-root-") as name:
        root = Path(name) / "root"
        command = ["debootstrap", "--variant=minbase", _suite(), str(root), *_mirror()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"debootstrap failed:\n{(done.stdout + done.stderr)[-4000:]}")
        (root / "models").mkdir()
        part = made.with_suffix(f".{secrets.token_hex(4)}")
        excluded = [f"--exclude={path}*" for path in _LEFT_OUT]
        subprocess.run(["tar", "--create", f"--file={part}", f"--directory={root}", *excluded, "."], check=True)
        part.rename(made)
    return made


def _root_file() -> Path:
    return _CACHE / f"debian-{_suite()}.tar"


def _suite() -> str:
    """This machine's own, so that its libraries go with the root's loader."""
    release = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
    return release.get("VERSION_CODENAME", "stable").strip('"')


def _mirror() -> list[str]:
    """Where this machine gets its packages from; debootstrap knows a place of its own."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(
        [*asked, f"Codename: {_suite()}", "Component: main"], capture_output=True, text=True, check=False
    )
    return done.stdout.split()[:1]
