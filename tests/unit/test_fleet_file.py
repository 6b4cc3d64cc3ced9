"""Reading fleet.yaml: what it may say, and what is told of what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.errors import InvalidInputError
from model_registry.serving.fleet import Fleet, FleetFile, Gateway, Server, size_bytes
from model_registry.serving.fleet_file import load_fleet, parse_fleet

ROOT = Path(__file__).parents[2]


def read(text: str) -> FleetFile:
    return parse_fleet(text.encode(), "fleet.yaml")


def test_a_fleet_needs_no_more_than_a_name() -> None:
    file = read("fleets: {stable: {}}\n")

    assert file == FleetFile(fleets={"stable": Fleet()})
    assert file.labels("stable") == ("stable",)
    assert file.fleets["stable"].serves("anything")
    assert file.gateway == Gateway()


def test_the_example_is_read_and_says_what_the_defaults_are() -> None:
    file = load_fleet(ROOT / "examples/fleet.yaml")

    assert file.gateway == Gateway()
    assert file.fleets["stable"].servers == (Server(host="tf-serving-stable"),)
    said = file.fleets["stable"].model_dump(exclude={"labels", "models", "servers", "replicas"})
    assert said == Fleet().model_dump(exclude={"labels", "models", "servers", "replicas"})
    assert file.fleets_of("digits", "canary") == ("canary",)
    assert file.fleets_of("faces", "canary") == ()


@pytest.mark.parametrize(
    ("text", "seconds"), [("0.25", 0.25), ("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("1h", 3600), ("2", 2)]
)
def test_a_duration_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert read(f"fleets: {{a: {{}}}}\ngateway: {{timeout: {text}}}\n").gateway.timeout == seconds


@pytest.mark.parametrize(("text", "as_text"), [("2", "2"), ("0.5", "0.5"), ("500m", "500m"), ("'4'", "4")])
def test_cpus_are_written_as_kubernetes_does(text: str, as_text: str) -> None:
    assert read(f"fleets: {{a: {{cpu: {text}}}}}\n").fleets["a"].cpu == as_text


def test_a_size_stands_for_bytes() -> None:
    assert [size_bytes(text) for text in ("512Mi", "4Gi", "1Ti")] == [512 << 20, 4 << 30, 1 << 40]


def test_one_fleet_may_serve_both_versions_of_a_rollout() -> None:
    file = read("fleets: {all: {labels: [stable, canary]}}\n")

    assert file.fleets_of("digits", "stable") == file.fleets_of("digits", "canary") == ("all",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "fleet.yaml is empty: expected a mapping with at least the key `fleets`"),
        ("- a\n", "expected a mapping with at least the key `fleets`, found a list of 1"),
        ("fleets: &a {a: {}}\n", "line 1: not valid YAML: anchors and aliases"),
        ("fleets: {}\n", "line 1, fleets: expected at least one fleet, such as `stable: {}`, and at most 100"),
        ("fleets: {Stable: {}}\n", "line 1, fleets.Stable: expected 1 to 40 lower-case letters"),
        ("fleets:\n  a:\n    modls: [a]\n", "line 3, fleets.a.modls: unknown key; did you mean 'models'?"),
        ("fleets:\n  a:\n    models: [../x]\n", "line 3, fleets.a.models[0]: model name '../x' (4 characters) cannot"),
        ("fleets: {a: {labels: [Stable]}}\n", "fleets.a.labels[0]: 'Stable' cannot be a label: expected"),
        ("fleets: {a: {labels: [x, x]}}\n", "fleets.a: `labels` names 'x' twice: expected each once"),
        ("fleets: {a: {variants: []}}\n", "fleets.a.variants: expected at least one variant"),
        ("fleets: {a: {variants: [a/b]}}\n", "fleets.a.variants[0]: expected a variant, such as native"),
        ("fleets: {a: {memory: 4G}}\n", "fleets.a.memory: expected a size such as 512Mi or 4Gi, found the text '4G'"),
        ("fleets: {a: {cpu: 0.0}}\n", "fleets.a.cpu: expected CPUs such as 2, 0.5 or 500m, found the number 0.0"),
        ("fleets: {a: {cpu: true}}\n", "fleets.a.cpu: expected text, found true"),
        ("fleets: {a: {batching: 1}}\n", "fleets.a.batching: expected true or false, found the number 1"),
        ("fleets: {a: {servers: [{host: 'a b'}]}}\n", "fleets.a.servers[0].host: expected a host's name or IPv4"),
        ("fleets: {a: {servers: [{host: a, grpc: 0}]}}\n", "fleets.a.servers[0].grpc: expected a number 1 or more"),
        ("fleets: {a: {replicas: {min: '3'}}}\n", "fleets.a.replicas.min: expected a whole number, found the text '3'"),
        ("fleets: {a: {replicas: {min: 3, max: 2}}}\n", "max is 2 and min 3: expected at least as many"),
        ("fleets: {a: {replicas: {latency: 1}}}\n", "expected `max` above `min`"),
        ("fleets: {a: {replicas: {min: 1, max: 3}}}\n", "expected `latency` or `gpu_utilization`, when to start more"),
        ("fleets: {a: {replicas: {max: 3, latency: soon}}}\n", "latency: expected seconds, or a duration such as"),
        ("fleets: {a: {replicas: {max: 3, latency: .nan}}}\n", "latency: expected a finite number, found the"),
        ("fleets: {a: {replicas: {max: 3, gpu_utilization: 80}}}\n", "expected a `gpu`, found none"),
        (
            "fleets: {a: {gpu: {shared: g, memory_fraction: 1}, replicas: {max: 3, gpu_utilization: 80}}}\n",
            "expected `replicas.latency`, for DCGM does not tell",
        ),
        ("fleets: {a: {gpu: {resource: gpu}}}\n", "fleets.a.gpu.resource: expected a resource such as nvidia.com/gpu"),
        ("fleets: {a: {gpu: {shared: g}}}\n", "fleets.a.gpu shares 'g': expected a `memory_fraction`"),
        (
            "fleets:\n  a: {gpu: {shared: g, memory_fraction: 0.6}}\n  b: {gpu: {shared: g, memory_fraction: 0.5}}\n",
            "the fleets that share GPU 'g' take 1.1 of its memory: expected at most 1",
        ),
        ("fleets: {a: {}}\ngateway: {canary: stable}\n", "line 2, gateway: `stable` and `canary` are both 'stable'"),
        ("fleets: {a: {}}\ngateway: {rest: 8081}\n", "`rest`, `grpc`, `admin` and `metrics` are 8081, 8081,"),
        ("fleets: {a: {}}\ngateway: {timeout: 0.4ms}\n", "line 2, gateway.timeout: expected a number 0.01 or more"),
        ("fleets: {a: {}}\ngateway: {timeout: 2h}\n", "line 2, gateway.timeout: expected a number at most 3600"),
    ],
)  # fmt: skip
def test_what_a_fleet_file_may_not_say_is_told_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(text)
    assert problem in caught.value.message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InvalidInputError, match="the fleet file"):
            load_fleet(path)
