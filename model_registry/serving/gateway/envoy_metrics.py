"""What Envoy counts of each version, under the names that Prometheus has for it. Pure.

Each cluster is counted by the labels `model`, `label`, `version` and `api` (rest or grpc). What is not shared between
stable and canary by chance has a `label` that begins with a dash (upstream_clusters): `label="canary"` matches nothing
but samples of a rollout. Envoy 1.40 was seen to count, for each request of a client:

    what became of it                        REST                     gRPC
    answered 2xx; status OK                  REQUESTS 2, latency      REQUESTS 2, GRPC_SUCCESSES, latency
    answered 4xx or 5xx; another status      REQUESTS 4 or 5, latency REQUESTS 2, GRPC_FAILURES, latency
    out of the gateway's time                REQUESTS 5 (504)         REQUESTS 5, GRPC_FAILURES
      and besides                            ABANDONED, TIMEOUTS      GRPC_ABANDONED, TIMEOUTS
    out of the client's time                 ABANDONED                GRPC_ABANDONED; or, where the server was first,
                                                                      REQUESTS 2, GRPC_FAILURES, latency
    the client hung up                       ABANDONED                GRPC_ABANDONED
    no server listens, after retries         REQUESTS 5 (503)         REQUESTS 5, GRPC_FAILURES
    the connection broke under it            REQUESTS 5 (503)         REQUESTS 5, GRPC_FAILURES
    answered after retries                   once, as answered        once, as answered

So what was answered and what failed, each request once:

    REST    total: REQUESTS of api="rest"               errors: those of them whose class is not 2
    gRPC    total: GRPC_SUCCESSES and GRPC_FAILURES     errors: GRPC_FAILURES

REQUESTS of api="grpc" is in neither: it has what fails with HTTP's 200 as good, and what fails before that a second
time. An error is whatever is no answer, a client's mistake too: requests are shared by chance, so what both versions
refuse is alike on both sides, and a version that refuses what the one before took is worse.

One mistake is not alike, and biases the verdict: a gRPC request that names a label or a version in its message, which
Envoy cannot read. It is shared as any other, and only the servers that have what it names answer: `canary` fails on
stable's side, `stable` on canary's (INVALID_ARGUMENT, "Unrecognized servable version label"), a number on the side of
the other version (NOT_FOUND, "Servable not found for request: Specific"). So no gRPC client of a gateway may name
either. These counts do not tell it from a worse version: the access log's `grpc_status` does. Over REST the path says
so, and is counted apart.

A version that hangs until its clients give up has neither errors nor latencies by these. What was given up is

    REST    ABANDONED of api="rest" less TIMEOUTS of api="rest"
    gRPC    GRPC_ABANDONED of api="grpc" less TIMEOUTS of api="grpc"

Latencies are of what a server answered, from Envoy's first byte to it to the last from it. Envoy has them in whole
milliseconds, rounded down, so what takes less than one is counted as 0.
"""

from __future__ import annotations

REQUESTS = "envoy_cluster_upstream_rq_xx"
CLASS = "envoy_response_code_class"
GRPC_SUCCESSES = "envoy_cluster_grpc_success"
GRPC_FAILURES = "envoy_cluster_grpc_failure"
LATENCY = "envoy_cluster_upstream_rq_time_bucket"

ABANDONED = "envoy_cluster_upstream_cx_destroy_local_with_active_rq"
GRPC_ABANDONED = "envoy_cluster_upstream_rq_tx_reset"
TIMEOUTS = "envoy_cluster_upstream_rq_timeout"

# Milliseconds. Envoy has whole ones, in two digits, rounded down: what it calls 12 took between 12 and 13. So each
# bound lies just below a number of two digits, and a bucket's edges are where the time of its requests has them. A
# fifth or so lies between two of them, from a millisecond to a minute: some 55 series for a version at each gateway.
_STEPS = (10, 12, 14, 17, 20, 24, 29, 35, 42, 50, 60, 72, 86)
_EDGES = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    *(step * 10**power for power in range(4) for step in _STEPS if step * 10**power <= 60_000),
)
BUCKETS = tuple(edge - (0.125 if edge <= 100 else 1.0) for edge in _EDGES)


def model_label(model: str) -> str:
    """What the label `model` has for a model: its name, but for dots at its end, which Envoy would drop."""
    kept = model.rstrip(".")
    return kept + "%2E" * (len(model) - len(kept))
