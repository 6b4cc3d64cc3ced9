"""Asks a Prefect server what became of runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.support.prefect_processes import PrefectServer

_WITHIN = 120.0


def call(server: PrefectServer, path: str, body: dict[str, Any] | None = None, method: str = "") -> Any:
    """Asks the server, again while its database is busy: by GET without a body, else by POST."""
    deadline = time.monotonic() + _WITHIN
    while True:
        by = method or ("GET" if body is None else "POST")
        answer = server.client.request(by, path, json=body)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            answer.raise_for_status()
            return answer.json() if answer.content else None
        time.sleep(0.1)


def asked(server: PrefectServer, what: str, **criteria: Any) -> list[dict[str, Any]]:
    found = call(server, f"{what}/filter", criteria)
    assert isinstance(found, list)
    return found


def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WITHIN
    while not happened():
        assert time.monotonic() < deadline, f"expected within {_WITHIN:g} s that {what}"
        time.sleep(0.4)


def ids(server: PrefectServer, what: str) -> set[str]:
    return {found["id"] for found in asked(server, what)}


def artifacts_since(server: PrefectServer, before: set[str]) -> dict[str, dict[str, Any]]:
    # Those without a key are Prefect's own, of a state's data.
    found = asked(server, "artifacts")
    return {item["key"]: item for item in found if item["key"] and item["id"] not in before}
