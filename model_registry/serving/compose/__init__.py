"""Docker Compose files for one machine: one server with its agent, or two fleets behind a gateway.

deployment      what is asked for
whole           the file; the two forms it has
agents          the containers that follow the registry
servers         the container of TensorFlow Serving
gateway         Envoy, its agent, and the network that both are in
watching        Prometheus
buckets         an S3 server, for a registry to begin with
writing         how words, files and mounts are written so that Compose takes them for what they are
"""
