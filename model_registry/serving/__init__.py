"""What TensorFlow Serving and its neighbours read, and what brings versions to a server.

    sync                  the agent beside a server, which brings versions and labels there
    gateway               Envoy and the agent beside it: requests are shared between versions
    monitoring            Prometheus' configuration and rules, Grafana's dashboard
    kubernetes  compose   manifests and files that run all of it

What these have in common, and what is asked without them; each line depends on those below it:

    asking a server       client, and client_*: one idea each
    what a server reads   model_config  batching
    which servers, where  fleet_file -> fleet
    what a server says    server_status -> version_status
    agents of any kind    agent_server -> agent_requests -> agent_answers;  agent_loop  registry_watch  owned_directory
    HTTP with strangers   bounded_http  http_url
    metrics               metric_families

An agent runs beside every server, so nothing here needs TensorFlow or Prefect; only the client needs grpcio and numpy.
"""
