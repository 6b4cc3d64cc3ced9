"""A model server for tests: TensorFlow Serving 2.17 as far as Slipway depends on it, in Python.

`python -m tests.support.model_server FLAGS` takes the flags of `tensorflow_model_server` and speaks its gRPC and REST.
What it imitates is held by tests/integration/test_model_server_*.py, which run against the real binary instead when
SLIPWAY_TF_SERVING names one. Where a comment says "read from its source", the rule was read and not measured.

Its parts are those of the real one: files name versions (`storage_path_source`), a manager loads and unloads what is
aspired (`aspired_versions_manager`), a monitor remembers each version's states (`servable_states`), the core ties them
to a configuration and its labels (`server_core`), and two doors lead in (`grpc_services`, `rest_server`).

Not imitated: merging requests into batches, SessionService, MultiInference, REST classify and regress, TLS, anything
but local files, and the time a load or an answer takes.
"""
