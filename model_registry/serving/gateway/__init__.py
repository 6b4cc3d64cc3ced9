"""The gateway that shares requests between a stable version and a canary: an Envoy, and the agent that tells it how.

Where things are; each line depends on those below it:

    the agent's loop      gateway_agent (gateway_settings)
      told to others      gateway_report  gateway_metrics  gateway_events
      its eyes            registry_states (the registry's)  envoy_admin (what is in force);  standing, pure
      its hands, memory   gateway_directory;  turnover, pure (make before break)
    metrics, passed on    metrics_port
    said to Envoy, pure   envoy_bootstrap (as it starts)  envoy_resources (as states change) -> envoy_routes
                          upstream_clusters
    what it counts, pure  envoy_metrics
    who gets what, pure   routing
"""
