"""The sync agent beside a TensorFlow Serving: it brings versions and labels from the registry to the server.

Where things are; each line depends on those below it:

    its loop              sync_agent    start_up (before a server starts)  settling (until nothing is left to do)
      told to others      sync_metrics  published_report  sync_events
      and asked by them   agent_client  awaited_label (promote --wait)
      its eyes            registry_view;  server_watch
      its hands           supply -> downloads, serving_directory -> version_notes;  written_state
      its mind, pure      followed_model -> reconciling -> candidates, stays, safe_start, situation, version_telling
    what they hand on     sync_state  sync_report  sync_settings  agent_memory
"""
