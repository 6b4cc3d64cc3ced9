"""What TensorFlow Serving and its neighbours read, and what brings versions to a server.

Where things are; each line depends on those below it:

    what a server reads   model_config  batching  monitoring  compose
    asking a server       client, and client_*: one idea each
    the agent's loop      sync_agent    start_up (before a server starts)  settling (until nothing is left to do)
      told to others      agent_server -> agent_answers, agent_requests;  sync_metrics  published_report  sync_events
      and asked by them   agent_client  awaited_label (promote --wait)
      its eyes            registry_watch -> registry_view;  server_watch -> server_status
      its hands           supply -> downloads, serving_directory -> owned_directory, version_notes;  written_state
      its mind, pure      followed_model -> reconciling -> candidates, stays, safe_start, situation, version_telling
    what they hand on     sync_state  sync_report  sync_settings  agent_memory  version_status
    HTTP with strangers   bounded_http  http_url
    of agents of any kind agent_loop  metric_families;  registry_watch and agent_server, too
    sharing requests      gateway, a package: Envoy and the agent beside it

An agent runs beside every server, so nothing here needs TensorFlow or Prefect; only the client needs grpcio and numpy.
"""
