"""What makes TensorFlow Serving tell Prometheus how it does. Pure.

Without a file that `--monitoring_config_file` names, the server has no metrics. They lie on the REST port. Their names
begin with a colon, `:tensorflow:serving:request_count`; latencies are in microseconds; there is no label for the
version. The text is MonitoringConfig's text format (tensorflow_serving/config/monitoring_config.proto).
"""

from __future__ import annotations

PATH = "/monitoring/prometheus/metrics"


def config() -> str:
    """The content of the file that `--monitoring_config_file` names."""
    return f'prometheus_config {{\n  enable: true\n  path: "{PATH}"\n}}\n'
