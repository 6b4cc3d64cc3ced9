"""Starts all that takes part in a rollout, from what `slipway render` prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from model_registry.registry import Registry
from model_registry.serving.fleet import FleetFile
from model_registry.serving.monitoring.prometheus_config import RULES
from model_registry.serving.sync.serving_directory import CONFIG
from tests.support.command import slipway
from tests.support.envoy_process import EnvoyProcess
from tests.support.gateway_bench import GatewayBench
from tests.support.model_server_launchers import Launcher
from tests.support.model_server_processes import RunningServer
from tests.support.ports import free_port
from tests.support.prometheus_server import PrometheusServer
from tests.support.rollout_bench import MODEL, UNHASTY, RolloutBench
from tests.support.sync_bench import SyncBench
from tests.support.tiny_models import TinyModels

_FLEETS = ("stable", "canary")


@contextmanager
def run_rollout_bench(folder: Path, launcher: Launcher, tiny: TinyModels) -> Iterator[RolloutBench]:
    """A bench where version 1 is stable, served, routed and seen.

    Args:
        folder: A directory of its own.
        launcher: What starts model servers.
        tiny: Writes the versions.
    """
    work = folder / "work"
    work.mkdir()
    sync = SyncBench(work, Registry.open(str(work / "registry")), tiny)
    sync.promote(sync.publish(MODEL))
    with ExitStack() as processes:
        servers = {label: _server(sync, launcher, label) for label in _FLEETS}
        fleets = {
            label: {"servers": [{"host": "127.0.0.1", "rest": one.rest_port, "grpc": one.port}]}
            for label, one in servers.items()
        }
        gateway = GatewayBench(sync, EnvoyProcess(FleetFile.model_validate({"fleets": fleets}), work / "gateway"))
        processes.callback(sync.close)
        processes.callback(gateway.close)
        agents = {
            label: sync.agent(f"--label={label}", UNHASTY, server=one.url, destination=work / label)
            for label, one in servers.items()
        }
        for label, server in servers.items():  # each waits for what its agent writes, as compose and Kubernetes have it
            agents[label].until((work / label / CONFIG).exists, f"what the server of {label} starts with is there")
            processes.enter_context(server.start())
        prometheus, port = PrometheusServer("", folder / "prometheus"), free_port()
        bench = RolloutBench(gateway, servers, agents, prometheus, port)
        processes.callback(bench.close)
        _start_envoy(bench)
        prometheus.config_file.write_text(_watched(bench))
        processes.enter_context(prometheus)
        bench.label("stable", 1)
        prometheus.until("count(up == 1) == 6", what="two servers, their agents, Envoy and its agent answer")
        yield bench


def _server(sync: SyncBench, launcher: Launcher, label: str) -> RunningServer:
    """The server of a fleet, not started yet."""
    destination = sync.folder / label
    monitored = sync.folder / "monitoring.config"
    rendered = slipway("render", "monitoring", folder=sync.folder)
    assert rendered.code == 0, rendered
    monitored.write_text(rendered.stdout)
    flags = {
        "model_config_file": destination / "models.config",
        "model_config_file_poll_wait_seconds": 1,
        "allow_version_labels_for_unavailable_models": True,
        "max_num_load_retries": 0,
        "monitoring_config_file": monitored,
    }
    return RunningServer(launcher, sync.folder / f"server-{label}.log", flags)


def _start_envoy(bench: RolloutBench) -> None:
    """Starts it with what is printed for it, on what its agent wrote before."""
    gateway, envoy = bench.gateway, bench.gateway.envoy
    gateway.remove_files()
    bench.start_gateway_agent()
    bench.until((gateway.directory / "routes.json").exists, "the agent writes what an Envoy starts with")
    rendered = bench.slipway("render", "envoy", f"--fleet={gateway.fleet_file()}", f"--directory={envoy.directory}")
    assert rendered.code == 0, rendered
    (envoy.directory / "bootstrap.json").write_text(rendered.stdout)
    envoy.start()


def _watched(bench: RolloutBench) -> str:
    """What Prometheus is told."""
    targets = [
        *(f"--tf-serving=127.0.0.1:{server.rest_port}" for server in bench.servers.values()),
        *(f"--sync={agent.url.removeprefix('http://')}" for agent in bench.agents.values()),
        f"--gateway=127.0.0.1:{bench.metrics_port}",
        f"--envoy={bench.gateway.envoy.admin_url.removeprefix('http://')}",
    ]
    rules = bench.slipway("render", "alerts")
    config = bench.slipway("render", "prometheus", "--interval=1", *targets)
    assert (rules.code, config.code) == (0, 0), (rules, config)
    (bench.prometheus.config_file.parent / RULES).write_text(rules.stdout)
    return config.stdout
