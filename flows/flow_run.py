"""The flow run that is going on, as manifests and history name it."""

from __future__ import annotations

from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL

from model_registry.servable import Run


def this_run() -> Run:
    """The run that calls; its URL is None where Prefect has no pages."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    flow_run, base = context.flow_run, PREFECT_UI_URL.value()
    return Run(str(flow_run.id), flow_run.name, f"{base}/runs/flow-run/{flow_run.id}" if base else None)
