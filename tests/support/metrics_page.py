"""The pages that a real Prometheus scrapes, held in the test's process: gateways, Envoys and sync agents, without them.

    with MetricsPages() as pages:
        gateway = pages.gateway("gateway-1")
        envoy = pages.envoy("envoy-1")
        agent = pages.agent("serving-1")
        prometheus = start_prometheus(pages.config())      # scrapes each page every 250 ms
        gateway.in_force("digits", weight=25, revision=7)
        agent.follows("digits", {"canary": 3}, serving={"canary": 3}, revision=7)
        agent.has("digits", LOADING=1)
        envoy.answered("digits", "canary", 3, requests=1000, errors=7, milliseconds=12.5)
        pages.scraped(prometheus)                          # waits until Prometheus has what is on all pages now

A page that is made or removed later is found or forgotten as by service discovery, which takes Prometheus up to five
seconds; a page that is `down` answers 503 at once, so that `up` is 0. Everything is thread-safe: traffic may go on
in a thread while a rollout looks.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from model_registry.serving.gateway import envoy_metrics
from tests.support.prometheus_server import PrometheusServer

ELSEWHERE = "monitoring/pods"  # a job of a name that nobody expects
JOBS = ("slipway-gateway", "envoy", "slipway-sync", "tf-serving", ELSEWHERE)
BOUNDS = (*envoy_metrics.BUCKETS, math.inf)  # milliseconds
_TICK = "slipway_test_tick"  # counts the scrapes of a page; `scraped` waits for it

Labels = Mapping[str, str]


class Page:
    """One target: a job's instance.

    Attributes:
        instance: As in its label `instance`.
        job: As in `job`.
        down: Whether it answers 503.
        labels: That Prometheus gives all its series besides.
        stamped: Unix seconds, ascending, that it says its values are of, and not of the moment that they are scraped.
            Prometheus goes on having such values where they come no more.
    """

    def __init__(self, job: str, instance: str, **labels: str) -> None:
        self.job, self.instance, self.labels = job, instance, labels
        self.down = False
        self.stamped: tuple[float, ...] = ()
        self._lock = threading.RLock()
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._changes = 0

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge, or a counter as if its process had been started anew."""
        with self._lock:
            self._values[name, tuple(sorted(labels.items()))] = value
            self._changes += 1

    def add(self, name: str, value: float, **labels: str) -> None:
        """Counts on; a counter begins at 0."""
        with self._lock:
            key = name, tuple(sorted(labels.items()))
            self.set(name, self._values.get(key, 0) + value, **labels)

    def remove(self, name: str = "", **labels: str) -> None:
        """Takes away every series with these labels; all where nothing is named, as a new process begins."""
        with self._lock:
            self._changes += 1
            for key in [key for key in self._values if name in ("", key[0]) and labels.items() <= dict(key[1]).items()]:
                del self._values[key]

    @property
    def changes(self) -> int:
        """How often it was changed."""
        with self._lock:
            return self._changes

    def text(self) -> bytes:
        """In Prometheus' text format."""
        stamps = [f" {time * 1000:.0f}" for time in self.stamped] or [""]
        with self._lock:
            lines = [
                f"{name}{{{','.join(f'{key}={_quoted(text)}' for key, text in labels)}}} {value!r}{stamp}"
                for (name, labels), value in self._values.items()
                for stamp in stamps
            ]
            return "\n".join([*lines, f"{_TICK} {self._changes}", ""]).encode()


class GatewayPage(Page):
    """The agent beside an Envoy."""

    def in_force(self, model: str, *, weight: int, revision: int) -> None:
        """Shows what Envoy has in force."""
        with self._lock:
            self.set("slipway_gateway_weight", weight, model=model)
            self.set("slipway_gateway_wanted_weight", weight, model=model)
            self.set("slipway_gateway_revision", revision, model=model)
            self.set("slipway_gateway_envoy_up", 1)


class AgentPage(Page):
    """The agent beside a server."""

    def follows(
        self,
        model: str,
        wanted: Mapping[str, int],
        *,
        serving: Mapping[str, int] | None = None,
        gave_up: Collection[int] = (),
        revision: int,
    ) -> None:
        """Shows what it read in the registry, and what came of it.

        Args:
            model: The model.
            wanted: The version that each label names.
            serving: The version that the server answers with under each label; as wanted if left out.
            gave_up: The versions that failed to load.
            revision: Of the state that it read.
        """
        with self._lock:
            for metric in ("wanted", "serving", "given_up"):
                self.remove(f"slipway_sync_{metric}_version", model=model)
            self.set("slipway_sync_registry_age_seconds", 0.5)
            self.set("slipway_sync_server_up", 1)
            self.set("slipway_sync_revision", revision, model=model)
            for label, version in wanted.items():
                self.set("slipway_sync_wanted_version", version, model=model, label=label)
                if version in gave_up:
                    self.set("slipway_sync_given_up_version", version, model=model, label=label)
            for label, version in (wanted if serving is None else serving).items():
                self.set("slipway_sync_serving_version", version, model=model, label=label)
            if ("slipway_sync_versions", (("model", model), ("state", "FAILED"))) not in self._values:
                self.has(model, AVAILABLE=len({*wanted.values()}))

    def has(self, model: str, **states: int) -> None:
        """Shows how many versions are where, such as LOADING=1; none where left out."""
        with self._lock:
            for state in ("WAITING", "DOWNLOADING", "READY", "LOADING", "AVAILABLE", "LEAVING", "FAILED"):
                self.set("slipway_sync_versions", states.get(state, 0), model=model, state=state)


class EnvoyPage(Page):
    """An Envoy. As it does, it makes a status class's counter and the histogram at the first of their answers."""

    def cluster(self, model: str, label: str, version: int, *, api: str = "rest") -> None:
        """Makes a cluster that has answered nothing yet."""
        self.add("envoy_cluster_upstream_rq_completed", 0, **_cluster(model, label, version, api))

    def answered(
        self,
        model: str,
        label: str,
        version: int,
        *,
        requests: int,
        errors: int = 0,
        milliseconds: float | Sequence[float] = 10.0,
        api: str = "rest",
    ) -> None:
        """Counts on as if so many requests had come since.

        Args:
            model: The model.
            label: The label.
            version: What it names.
            requests: How many.
            errors: How many of them failed: with class 5 by REST, with HTTP status 200 by gRPC.
            milliseconds: How long they took; where several, they take turns.
            api: `rest` or `grpc`.
        """
        of = _cluster(model, label, version, api)
        times = [milliseconds] if isinstance(milliseconds, (int, float)) else milliseconds
        with self._lock:
            self.cluster(model, label, version, api=api)
            self.add("envoy_cluster_upstream_rq_completed", requests, **of)
            refused = errors if api == "rest" else 0
            for status, count in (("2", requests - refused), ("5", refused)):
                if count:
                    self.add(envoy_metrics.REQUESTS, count, **{envoy_metrics.CLASS: status}, **of)
            if api == "grpc":
                for metric, count in (
                    (envoy_metrics.GRPC_SUCCESSES, requests - errors),
                    (envoy_metrics.GRPC_FAILURES, errors),
                ):
                    self.add(metric, count, **of)
            counts = [0] * len(BOUNDS)
            for index, time in enumerate(times):
                counts[bisect_left(BOUNDS, time)] += requests // len(times) + (index < requests % len(times))
            for index, bound in enumerate(BOUNDS):
                le = "+Inf" if bound == math.inf else str(bound)
                self.add(envoy_metrics.LATENCY, sum(counts[: index + 1]), le=le, **of)

    def given_up(
        self, model: str, label: str, version: int, *, requests: int, timeouts: int = 0, api: str = "rest"
    ) -> None:
        """Counts on as if clients had left before they were answered; `timeouts` of them the gateway answered."""
        of = _cluster(model, label, version, api)
        with self._lock:
            self.cluster(model, label, version, api=api)
            ended = envoy_metrics.GRPC_ABANDONED if api == "grpc" else envoy_metrics.ABANDONED
            self.add(ended, requests, **of)
            self.add(envoy_metrics.TIMEOUTS, timeouts, **of)


class MetricsPages:
    """All targets of one Prometheus, as a context."""

    def __init__(self) -> None:
        self._pages: list[Page] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> MetricsPages:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def gateway(self, instance: str, *, job: str = "slipway-gateway", **labels: str) -> GatewayPage:
        """A new target, of the job `slipway-gateway` where it is not told otherwise."""
        page = GatewayPage(job, instance, **labels)
        self._pages.append(page)
        return page

    def envoy(self, instance: str, **labels: str) -> EnvoyPage:
        """A new target of the job `envoy`."""
        page = EnvoyPage("envoy", instance, **labels)
        self._pages.append(page)
        return page

    def agent(self, instance: str, *, job: str = "slipway-sync", **labels: str) -> AgentPage:
        """A new target, of the job `slipway-sync` where it is not told otherwise."""
        page = AgentPage(job, instance, **labels)
        self._pages.append(page)
        return page

    def page(self, job: str, instance: str, **labels: str) -> Page:
        """A new target of any of the `JOBS`, which shows what a test sets."""
        assert job in JOBS, f"expected one of {JOBS}"
        page = Page(job, instance, **labels)
        self._pages.append(page)
        return page

    def forget(self, page: Page) -> None:
        """Takes a target out of service discovery."""
        self._pages.remove(page)

    def config(self, interval: str = "250ms") -> str:
        """A prometheus.yml that scrapes them."""
        address = f"127.0.0.1:{self._server.server_port}"
        jobs = "".join(
            f"""
- job_name: {job}
  http_sd_configs:
  - url: http://{address}/targets/{job}
    refresh_interval: {interval}"""
            for job in JOBS
        )
        return f"global:\n  scrape_interval: {interval}\n  scrape_timeout: {interval}\nscrape_configs:{jobs}\n"

    def scraped(self, prometheus: PrometheusServer, *, seconds: float = 60.0) -> None:
        """Waits until Prometheus has all that is on the pages now, and knows of those that are down or forgotten.

        Raises:
            AssertionError: If it has not by then.
        """
        wanted = {page.instance: page for page in self._pages}
        changes = {instance: page.changes for instance, page in wanted.items() if not page.down}

        def reached(_: object) -> bool:
            known = {sample.labels["instance"]: sample.value for sample in prometheus.query("up")}
            seen = {sample.labels["instance"]: sample.value for sample in prometheus.query(_TICK)}
            return known == {instance: float(not page.down) for instance, page in wanted.items()} and all(
                seen.get(instance, -1) >= count for instance, count in changes.items()
            )

        prometheus.until("vector(1)", reached, what="a scrape of every page", seconds=seconds)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """What is at a path: status, content type, body."""
        _, kind, name = path.split("/", 2)
        if kind == "targets":
            groups = [
                {
                    "targets": [f"127.0.0.1:{self._server.server_port}"],
                    "labels": {**page.labels, "__metrics_path__": f"/page/{page.instance}", "instance": page.instance},
                }
                for page in list(self._pages)
                if page.job == name
            ]
            return 200, "application/json", json.dumps(groups).encode()
        found = next((page for page in list(self._pages) if page.instance == name and not page.down), None)
        return (200, "text/plain; version=0.0.4", found.text()) if found else (503, "text/plain", b"down\n")


def _handler(pages: MetricsPages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, kind, body = pages.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            with contextlib.suppress(ConnectionError):  # Prometheus leaves when its time is over
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _cluster(model: str, label: str, version: int, api: str) -> dict[str, str]:
    model = envoy_metrics.model_label(model)
    return {"model": model, "label": label, "version": str(version), "api": api, "envoy_cluster_name": "slipway"}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
