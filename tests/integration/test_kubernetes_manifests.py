"""`slipway render kubernetes`: held against Kubernetes' own schemas, and against what the parts mean to one another."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import click.testing
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from flows.cli import main
from model_registry.errors import InvalidInputError
from model_registry.serving.fleet import Fleet, FleetFile, Server
from model_registry.serving.fleet_file import load_fleet, parse_fleet
from model_registry.serving.kubernetes.naming import in_kubernetes
from model_registry.serving.kubernetes.settings import Settings
from model_registry.serving.monitoring.prometheus_config import GATEWAY_JOBS, JOBS
from tests.support.kubernetes_objects import Rendered, container, containers, port_of, rendered, validate
from tests.support.model_server import flags

ROOT = Path(__file__).parents[2]

# The oldest that is promised, the oldest and the newest that is still of use, and one between them.
VERSIONS = ("1.30", "1.31", "1.34", "1.37")

SHARED = "gpu: {resource: nvidia.com/gpu.shared, shared: one, product: Tesla-T4-SHARED, memory_fraction: %s}"
FILES = {
    "cpu": "fleets: {stable: {}, canary: {replicas: {min: 1}}}",
    "one fleet": "fleets: {all: {labels: [stable, canary], models: [digits, faces], batching: true}}",
    "gpu": "fleets: {stable: {gpu: {product: NVIDIA-A100-SXM4-40GB}, variants: [tensorrt-fp16-sm80, native]}}",
    "shared gpu": f"fleets:\n  stable: {{{SHARED % 0.6}}}\n  canary: {{{SHARED % 0.3}}}\n",
    "by latency": "fleets: {stable: {replicas: {min: 2, max: 6, latency: 250ms}, cpu: 1500m}}",
    "by gpu": "fleets: {stable: {gpu: {}, replicas: {min: 1, max: 4, gpu_utilization: 70}}}",
    "by both": "fleets: {stable: {gpu: {}, replicas: {max: 4, gpu_utilization: 70, latency: 1s}}, canary: {}}",
    "no gateway": "fleets: {stable: {}}\ngateway: {replicas: 0}",
    "elsewhere": "fleets: {stable: {servers: [{host: 10.0.0.7}]}}\ngateway: {rest: 80, grpc: 81, timeout: 5m}",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "namespace": {"namespace": "serving", "credentials": "registry-credentials", "prometheus": "metrics"},
    "identity": {
        "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/reader"},
        "public_key": "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n",
        "agent_image": "registry.example.com/slipway:1",
    },
}
each_file = pytest.mark.parametrize("name", FILES)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_kubernetes_accepts_every_object(settings: str, version: str) -> None:
    for text in FILES.values():
        for found in rendered(text, **SETTINGS[settings]).objects:
            validate(found, version)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "lifecycle", "preStop", "sleep"), 5),
        ("Deployment", ("spec", "template", "spec", "initContainers", 1, "restartPolicies"), "Always"),
        ("HorizontalPodAutoscaler", ("spec", "metrics", 0, "pods", "target", "averageValues"), "1"),
        ("NetworkPolicy", ("spec", "ingress", 0, "ports", 0, "port"), {}),
        ("PodDisruptionBudget", ("spec", "maxUnavailable"), [1]),
        ("Service", ("spec", "ports", 0, "port"), "http"),
    ],
)
def test_what_kubernetes_would_refuse_is_found(kind: str, path: tuple[str | int, ...], value: object) -> None:
    found = copy.deepcopy(next(iter(rendered(FILES["by latency"]).of_kind(kind).values())))
    inner: Any = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value

    with pytest.raises(kubernetes_validate.ValidationError):
        validate(found, "1.34")


@each_file
def test_no_two_objects_are_called_the_same(name: str) -> None:
    found = [(one["kind"], one["metadata"]["name"]) for one in rendered(FILES[name]).objects]

    assert len(found) == len({*found})
    assert all(len(called) <= 63 for _, called in found)


@each_file
def test_every_container_is_confined_and_has_limits(name: str) -> None:
    for template in map(rendered(FILES[name]).pods, rendered(FILES[name]).of_kind("Deployment")):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for one in containers(template):
            assert {"cpu", "memory"} <= one["resources"]["limits"].keys() <= one["resources"]["requests"].keys()
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert re.search(r":[\w.-]+$", one["image"]) or one["image"] == "slipway-sync-agent"
            volumes = {volume["name"] for volume in spec["volumes"]}
            assert {mount["name"] for mount in one["volumeMounts"]} <= volumes


@each_file
def test_every_probe_asks_a_port_that_is_there_and_a_load_of_ten_minutes_is_waited_for(name: str) -> None:
    file = rendered(FILES[name])
    for template in map(file.pods, file.of_kind("Deployment")):
        for one in containers(template):
            probes = {kind: one[kind] for kind in ("startupProbe", "livenessProbe", "readinessProbe") if kind in one}
            assert len(probes) == (0 if one["name"].startswith("first-") else 3)
            for probe in probes.values():
                assert port_of(one, (probe.get("httpGet") or probe["tcpSocket"])["port"])
            if one["name"] == "tf-serving":
                waits = probes["startupProbe"]["periodSeconds"] * probes["startupProbe"]["failureThreshold"]
                assert waits >= 900, "the agent gives a load up after that, and nobody earlier"
    for fleet in parse_fleet(FILES[name].encode(), name).fleets:
        agent = container(file.pods(f"tf-serving-{fleet}"), "agent")
        assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "slipway-sync"}
        assert agent["restartPolicy"] == "Always"


@each_file
def test_a_server_that_is_busy_is_neither_ended_nor_left_out(name: str) -> None:
    for fleet in parse_fleet(FILES[name].encode(), name).fleets:
        server = container(rendered(FILES[name]).pods(f"tf-serving-{fleet}"), "tf-serving")
        assert "httpGet" in server["startupProbe"]
        for probe in ("livenessProbe", "readinessProbe"):
            assert server[probe]["tcpSocket"] == {"port": "tf-serving"}, "HTTP waits in the queue of predictions"


@pytest.mark.parametrize(
    ("gateway", "needed"),
    [("{}", False), ("{rest: 80}", True), ("{grpc: 443}", True), ("{metrics: 1023}", True), ("{admin: 1024}", False)],
)
def test_a_gateway_may_open_the_ports_that_it_is_given(gateway: str, needed: bool) -> None:
    file = rendered(f"fleets: {{stable: {{}}}}\ngateway: {gateway}")
    allowed = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]

    assert file.pods("slipway-gateway")["spec"]["securityContext"].get("sysctls") == (allowed if needed else None)
    assert "sysctls" not in file.pods("tf-serving-stable")["spec"]["securityContext"]


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "n", "null", "012", "1e3", "1-2", "0x1f"])
def test_a_name_is_a_name_for_kubectl_too_which_reads_yaml_1_1(word: str) -> None:
    settings = {"namespace": word, "credentials": word, "annotations": {word: word}, "prometheus": word}
    file = rendered("fleets: {stable: {}}", **settings)
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)

    assert [*reader.load_all(file.text)] == [*file.objects]
    for line in file.text.splitlines():
        # Not every reader of 1.1 takes y and n for words; that of kubectl does.
        assert not re.search(rf"(^|[ -]){re.escape(word)}:? *$|: {re.escape(word)}$", line), line
    assert file.of_kind("ServiceAccount")["tf-serving-stable"]["metadata"]["annotations"] == {word: word}


@each_file
def test_what_refers_to_pods_finds_those_of_one_deployment(name: str) -> None:
    file = rendered(FILES[name])
    for called, deployment in file.of_kind("Deployment").items():
        assert file.selected(deployment["spec"]["selector"]["matchLabels"]) == {called}
        assert deployment["spec"]["template"]["spec"]["serviceAccountName"] in file.of_kind("ServiceAccount")
        for constraint in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            assert file.selected(constraint["labelSelector"]["matchLabels"]) == {called}
        for volume in deployment["spec"]["template"]["spec"]["volumes"]:
            assert "configMap" not in volume or volume["configMap"]["name"] in file.of_kind("ConfigMap")
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        key = "selector" if kind == "PodDisruptionBudget" else "podSelector"
        assert file.of_kind(kind).keys() == file.of_kind("Deployment").keys()
        for called, found in file.of_kind(kind).items():
            assert file.selected(found["spec"][key]["matchLabels"]) == {called}
    for service in file.of_kind("Service").values():
        (deployment_name,) = file.selected(service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert any(
                port["targetPort"] == one["name"] and port["port"] == one["containerPort"]
                for has in containers(file.pods(deployment_name))
                for one in has.get("ports", [])
            )


@each_file
def test_ports_are_called_as_prometheus_looks_for_them(name: str) -> None:
    file = rendered(FILES[name])
    named = {
        called: {port["name"] for one in containers(file.pods(called)) for port in one.get("ports", [])}
        for called in file.of_kind("Deployment")
    }

    assert all(len(port) <= 15 for ports in named.values() for port in ports)
    for called, ports in named.items():
        assert {*(GATEWAY_JOBS if called == "slipway-gateway" else JOBS)} <= ports


@each_file
def test_the_policy_lets_in_who_asks_a_port_that_is_there_and_nobody_else_the_servers(name: str) -> None:
    file = rendered(FILES[name], prometheus="metrics")
    for called, policy in file.of_kind("NetworkPolicy").items():
        there = {port["containerPort"] for one in containers(file.pods(called)) for port in one.get("ports", [])}
        asked = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert asked == there
        metrics = [rule for rule in policy["spec"]["ingress"] if "metrics" in str(rule.get("from"))]
        assert len(metrics) == 1
        if called != "slipway-gateway":
            assert all(rule["from"] for rule in policy["spec"]["ingress"])
            peers = [one["podSelector"]["matchLabels"] for one in policy["spec"]["ingress"][0]["from"]]
            assert {"slipway/client": "true"} in peers
            gateway = file.of_kind("Deployment").keys() & {"slipway-gateway"}
            assert [file.selected(one) for one in peers[:-1]] == [gateway] * bool(gateway)


@pytest.mark.parametrize("name", ["by latency", "by gpu", "by both"])
def test_the_autoscaler_scales_a_deployment_by_metrics_that_the_adapter_has(name: str) -> None:
    file = rendered(FILES[name])
    (scaler,) = file.of_kind("HorizontalPodAutoscaler").values()
    rules = YAML(typ="safe").load(file.of_kind("ConfigMap")["slipway-adapter-rules"]["data"]["config.yaml"])["rules"]

    target = scaler["spec"]["scaleTargetRef"]
    assert target["name"] in file.of_kind(target["kind"])
    assert "replicas" not in file.of_kind("Deployment")[target["name"]]["spec"], "each apply would undo the scaling"
    wanted = {one["pods"]["metric"]["name"]: one["pods"]["target"] for one in scaler["spec"]["metrics"]}
    assert wanted.keys() == {rule["name"]["as"] for rule in rules}
    assert len(wanted) == (2 if name == "by both" else 1)
    for rule in rules:
        assert re.search(rule["name"]["matches"], rule["seriesQuery"].partition("{")[0])
        assert {"<<.GroupBy>>", "<<.LabelMatchers>>"} <= {*re.findall(r"<<[.\w]+>>", rule["metricsQuery"])}


def test_seconds_and_percents_are_what_the_fleet_file_says() -> None:
    metrics = rendered(FILES["by both"]).of_kind("HorizontalPodAutoscaler")["tf-serving-stable"]["spec"]["metrics"]

    assert [one["pods"]["target"]["averageValue"] for one in metrics] == ["1000m", "70"]


@pytest.mark.parametrize(
    ("fleets", "window"),
    [
        ("stable: {replicas: %s}, canary: {}", 3_600),
        ("all: {labels: [stable], replicas: %s}, new: {labels: [canary]}", 3_600),
        # It keeps its requests through every rollout: it serves both versions, there is none, or it has the canary's.
        ("all: {labels: [stable, canary], replicas: %s}, more: {labels: [canary]}", 600),
        ("stable: {replicas: %s}", 600),
        ("stable: {}, canary: {replicas: %s}", 600),
    ],
)
def test_a_fleet_that_a_rollout_takes_the_requests_from_keeps_its_servers_for_an_hour(fleets: str, window: int) -> None:
    file = rendered("fleets: {%s}" % (fleets % "{min: 2, max: 6, latency: 250ms}"))
    (scaler,) = file.of_kind("HorizontalPodAutoscaler").values()

    # https://kubernetes.io/docs/reference/kubernetes-api/: autoscaling/v2 refuses more, which its schema does not say.
    assert scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == window <= 3_600


def test_without_a_maximum_nothing_scales() -> None:
    file = rendered(FILES["cpu"])

    assert file.of_kind("HorizontalPodAutoscaler") == {}
    assert "slipway-adapter-rules" not in file.of_kind("ConfigMap")
    assert [one["spec"]["replicas"] for one in file.of_kind("Deployment").values()] == [2, 1, 2]


@each_file
def test_the_server_knows_its_flags_and_only_the_agent_writes_its_directory(name: str) -> None:
    file = parse_fleet(FILES[name].encode(), name)
    for called, fleet in file.fleets.items():
        template = rendered(FILES[name]).pods(f"tf-serving-{called}")
        server, agent = container(template, "tf-serving"), container(template, "agent")
        known = flags.parse(server["args"])
        assert (known.port, known.rest_api_port) == (port_of(server, "grpc"), port_of(server, "tf-serving"))
        assert known.enable_batching == known.enable_per_model_batching_parameters == fleet.batching
        assert known.tensorflow_intra_op_parallelism == known.tensorflow_inter_op_parallelism == 2
        assert known.per_process_gpu_memory_fraction == ((fleet.gpu and fleet.gpu.memory_fraction) or 0)
        mounts = {mount["name"]: mount.get("readOnly", False) for mount in server["volumeMounts"]}
        assert mounts == {"models": True, "files": True, "tmp": False}
        assert not next(mount for mount in agent["volumeMounts"] if mount["name"] == "models").get("readOnly")
        (models,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "models"]
        assert models["emptyDir"] == {"sizeLimit": fleet.disk}
        files = rendered(FILES[name]).of_kind("ConfigMap")[f"tf-serving-{called}"]["data"]
        read = {known.monitoring_config_file, known.batching_parameters_file} - {""}
        assert read == {f"/etc/tensorflow-serving/{file}" for file in files}


@each_file
def test_the_agents_know_their_options(name: str) -> None:
    file = rendered(FILES[name])
    fleets = parse_fleet(FILES[name].encode(), name)
    for template in map(file.pods, file.of_kind("Deployment")):
        for one in template["spec"]["initContainers"]:
            words = one["args"][1:] if "command" in one else one["args"]
            command, *options = words
            context = main.commands[command].make_context(command, list(options))
            assert context.params["registry"] == "s3://models"
            assert context.params["once"] == one["name"].startswith("first-")
    for called, fleet in fleets.fleets.items():
        command, *options = container(file.pods(f"tf-serving-{called}"), "agent")["args"]
        found = main.commands[command].make_context(command, options).params
        assert found["labels"] == fleets.labels(called)
        assert (found["models"], found["variants"]) == (fleet.models, fleet.variants)
        assert found["server"].endswith(":8501")


def test_pods_of_a_canary_wait_for_its_label_and_those_of_stable_tell_that_it_is_missing() -> None:
    file = rendered(FILES["cpu"])

    canary, stable = (container(file.pods(f"tf-serving-{name}"), "first-sync") for name in ("canary", "stable"))
    assert "until" in canary["command"][-1]
    assert canary["args"][0] == "first-sync"
    assert "command" not in stable


@each_file
def test_an_update_has_a_deadline_unless_its_pods_may_have_to_wait_for_a_label(name: str) -> None:
    file = rendered(FILES[name])
    fleets = parse_fleet(FILES[name].encode(), name)
    for called in fleets.fleets:
        template, spec = file.pods(f"tf-serving-{called}"), file.of_kind("Deployment")[f"tf-serving-{called}"]["spec"]
        first, server = container(template, "first-sync"), container(template, "tf-serving")
        waits = "stable" not in fleets.labels(called)
        assert ("command" in first) == waits
        if waits:
            assert spec["progressDeadlineSeconds"] == 2**31 - 1, "which alone Kubernetes takes for none"
        else:
            loads = server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"]
            assert loads + spec["minReadySeconds"] < spec["progressDeadlineSeconds"] < 2**31 - 1


def test_a_server_has_one_gpu_on_a_machine_that_has_the_product() -> None:
    template = rendered(FILES["gpu"]).pods("tf-serving-stable")
    server = container(template, "tf-serving")

    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert server["image"] == "tensorflow/serving:2.17.1-gpu"
    assert {"name": "TF_FORCE_GPU_ALLOW_GROWTH", "value": "true"} in server["env"]
    (cache,) = [int(one["value"]) for one in server["env"] if one["name"] == "CUDA_CACHE_MAXSIZE"]
    (tmp,) = [volume["emptyDir"]["sizeLimit"] for volume in template["spec"]["volumes"] if volume["name"] == "tmp"]
    assert (cache, tmp) == (128 << 20, "256Mi"), "who fills it is evicted"
    assert template["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}
    assert template["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "affinity" not in template["spec"]


def test_fleets_that_share_a_gpu_take_no_more_than_all_of_it() -> None:
    file = rendered(FILES["shared gpu"])
    fractions = []
    for name in file.selected({"slipway/shared-gpu": "one"}):
        template = file.pods(name)
        server = container(template, "tf-serving")
        fractions.append(flags.parse(server["args"]).per_process_gpu_memory_fraction)
        assert server["resources"]["limits"]["nvidia.com/gpu.shared"] == 1
        assert "TF_FORCE_GPU_ALLOW_GROWTH" not in str(server["env"])
        (apart,) = template["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert file.selected(apart["labelSelector"]["matchLabels"]) == {name}, "two of a fleet would be on one GPU"

    assert sorted(fractions) == [0.3, 0.6]
    assert "sharing.timeSlicing" in file.text


@each_file
def test_an_update_leaves_no_gap(name: str) -> None:
    timeout = parse_fleet(FILES[name].encode(), name).gateway.timeout
    for deployment in rendered(FILES[name]).of_kind("Deployment").values():
        spec = deployment["spec"]["template"]["spec"]
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        assert deployment["spec"]["minReadySeconds"] >= 30
        (serving,) = spec["containers"]
        before = serving["lifecycle"]["preStop"]
        waits = before["sleep"]["seconds"] if "sleep" in before else int(before["exec"]["command"][-1].split()[-1])
        assert timeout + 30 <= waits < spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("settings", SETTINGS)
def test_nothing_secret_is_written_and_the_server_has_no_credentials(
    settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine")
    file = rendered(FILES["cpu"], **SETTINGS[settings])

    assert "a-secret-of-mine" not in file.text
    assert file.of_kind("Secret") == {}
    for template in map(file.pods, file.of_kind("Deployment")):
        for one in template["spec"]["containers"]:
            assert "envFrom" not in one
        for one in template["spec"]["initContainers"]:
            names = [source["secretRef"]["name"] for source in one.get("envFrom", [])]
            assert names == ([SETTINGS[settings]["credentials"]] if "credentials" in SETTINGS[settings] else [])
        skipped = template["metadata"]["annotations"]
        for key, divider in (("eks.amazonaws.com", ","), ("azure.workload.identity", ";")):
            named = skipped.get(f"{key}/skip-containers", "").split(divider)
            alone = [one["name"] for one in template["spec"]["containers"]]
            assert named == ([""] if "credentials" in SETTINGS[settings] else alone)
    for account in file.of_kind("ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
        assert account["metadata"].get("annotations", {}) == SETTINGS[settings].get("annotations", {})


def test_manifests_are_held_against_the_public_key() -> None:
    file = rendered(FILES["cpu"], **SETTINGS["identity"])
    key = file.of_kind("ConfigMap")["slipway-public-keys"]["data"]

    for template in map(file.pods, file.of_kind("Deployment")):
        for one in template["spec"]["initContainers"]:
            (path,) = [variable["value"] for variable in one["env"] if variable["name"] == "SLIPWAY_PUBLIC_KEY"]
            (mount,) = [mount for mount in one["volumeMounts"] if mount["name"] == "keys"]
            assert path.removeprefix(mount["mountPath"] + "/") in key
    with pytest.raises(InvalidInputError, match="private key"):
        Settings("s3://models", public_key="-----BEGIN PRIVATE KEY-----")


def the_gateways_fleets(file: Rendered) -> FleetFile:
    """What the gateway's agent reads."""
    return parse_fleet(file.of_kind("ConfigMap")["slipway-gateway"]["data"]["fleet.yaml"].encode(), "fleet.yaml")


def assert_the_gateway_finds_every_pod(file: Rendered) -> None:
    """Of all fleets, in the namespace serving."""
    for name, fleet in the_gateways_fleets(file).fleets.items():
        (server,) = fleet.servers
        service, namespace, _ = server.host.split(".")
        assert file.of_kind("Service")[service]["spec"]["clusterIP"] == "None"
        assert file.selected(file.of_kind("Service")[service]["spec"]["selector"]) == {f"tf-serving-{name}"}
        assert namespace == "serving"
        ports = [port["port"] for port in file.of_kind("Service")[service]["spec"]["ports"]]
        assert ports == [server.grpc, server.rest]


def test_the_gateway_finds_every_pod_of_a_fleet_that_names_no_servers() -> None:
    file = rendered(FILES["cpu"], namespace="serving")

    assert_the_gateway_finds_every_pod(file)
    assert the_gateways_fleets(file) == in_kubernetes(parse_fleet(FILES["cpu"].encode(), "fleet.yaml"), "serving")


@pytest.mark.parametrize("rest", ["", ".serving", ".serving.svc", ".serving.svc.cluster.local"])
def test_a_fleet_that_names_its_own_service_gets_its_pods_and_not_the_one_address_of_all(rest: str) -> None:
    # With all of its ports left as they are, and with some that the Service does not have.
    for ports in ("", ", grpc: 80, rest: 81"):
        text = "fleets: {stable: {servers: [{host: tf-serving-stable%s%s}]}, canary: {}}"
        assert_the_gateway_finds_every_pod(rendered(text % (rest, ports), namespace="serving"))


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.7",
        "tf-serving",
        "tf-serving-other",
        "each-tf-serving-stable",
        "tf-serving-stable.elsewhere.svc",
        "tf-serving-stable.serving.example.com",
        "tf-serving-stable.serving.svc.clusterset.local",
    ],
)
def test_servers_that_are_none_of_the_file_s_own_stay_as_they_are_named(host: str) -> None:
    servers = (Server(host=host), Server(host="tf-serving-stable"), Server(host="TF-Serving-stable.serving"))

    found = in_kubernetes(FleetFile(fleets={"stable": Fleet(servers=servers)}), "serving")

    assert found.fleets["stable"].servers == (Server(host=host), Server(host="each-tf-serving-stable.serving.svc"))


def test_without_a_namespace_names_are_of_the_gateway_s_own() -> None:
    found = in_kubernetes(FleetFile(fleets={"stable": Fleet()}))

    assert found.fleets["stable"].servers == (Server(host="each-tf-serving-stable"),)
    for named, pods in (("", ""), (".blue", ".blue.svc"), (".blue.svc", ".blue.svc")):
        servers = (Server(host=f"tf-serving-stable{named}"),)
        found = in_kubernetes(FleetFile(fleets={"stable": Fleet(servers=servers)}))
        assert found.fleets["stable"].servers == (Server(host=f"each-tf-serving-stable{pods}"),)
    assert all("namespace" not in one["metadata"] for one in rendered(FILES["cpu"]).objects)


@each_file
def test_pods_are_started_anew_when_what_they_read_once_changes(name: str) -> None:
    before = rendered(FILES[name])
    keyed = rendered(FILES[name], public_key="-----BEGIN PUBLIC KEY-----\nother")

    for called in before.of_kind("Deployment"):
        annotations = [file.pods(called)["metadata"]["annotations"] for file in (before, keyed)]
        assert annotations[0] != annotations[1]


def slipway(*arguments: object) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(main, ["render", "kubernetes", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_command_prints_what_the_example_asks_for() -> None:
    arguments = ("--fleet", ROOT / "examples/fleet.yaml", "--namespace", "serving", "--credentials", "reader")

    result = slipway(*arguments)
    document = json.loads(slipway(*arguments, "--json").stdout)

    assert result.exit_code == 0, result.output
    assert document["content"] == result.stdout
    assert document["registry"] == "s3://models/slipway"
    assert "Deployment/slipway-gateway" in document["objects"]
    printed = Rendered(result.stdout, tuple(YAML(typ="safe").load_all(result.stdout)))
    for found in printed.objects:
        validate(found, VERSIONS[-1])
    assert_the_gateway_finds_every_pod(printed)


def test_the_example_s_canary_can_serve_what_stable_does_which_the_last_step_asks_of_it() -> None:
    fleets = load_fleet(ROOT / "examples/fleet.yaml").fleets

    assert fleets["canary"].replicas == fleets["stable"].replicas


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--registry", "somewhere"], 1, "expected an s3:// URI"),
        (["--namespace", "Serving"], 1, "no name of a Kubernetes namespace"),
        (["--credentials", "AKIA/secret"], 1, "no name of a Secret"),
        (["--service-account-annotation", "role"], 2, "expected KEY=VALUE"),
        (["--service-account-annotation", "a b=c"], 1, "no key of an annotation"),
        (["--image-agent", "an image"], 2, "is no image"),
    ],
)
def test_what_no_cluster_would_take_is_refused(options: list[str], code: int, message: str) -> None:
    result = slipway("--fleet", ROOT / "examples/fleet.yaml", *options)

    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_a_fleet_file_that_is_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("fleets:\n  stable:\n    replica: 3\n")

    result = slipway("--fleet", tmp_path / "fleet.yaml", "--registry", "s3://models")

    assert result.exit_code == 1
    assert "line 3, fleets.stable.replica: unknown key; did you mean 'replicas'?" in result.stderr


def test_the_agents_port_is_not_the_gateways() -> None:
    with pytest.raises(InvalidInputError, match="8503"):
        rendered("fleets: {stable: {}}\ngateway: {rest: 8503}")
