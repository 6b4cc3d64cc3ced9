"""How far a transfer is, and how a person is told."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.transfer_progress import Lines, in_words
from model_registry.progress import Transfer, listening, transferring


def test_a_listener_hears_every_step_of_all_threads() -> None:
    heard: list[Transfer] = []
    with listening(heard.append), transferring("upload", 1000) as advance, ThreadPoolExecutor(4) as pool:
        list(pool.map(advance, [10] * 100))
    assert [step.done for step in heard] == list(range(0, 1001, 10))


def test_nobody_listening_costs_nothing_and_fails_nothing() -> None:
    with transferring("upload", 10) as advance:
        advance(10)


def test_a_listener_hears_nothing_after_its_block() -> None:
    heard: list[Transfer] = []
    with listening(heard.append):
        pass
    with transferring("upload", 10) as advance:
        advance(10)
    assert heard == []


def test_progress_in_words_tells_bytes_and_share() -> None:
    assert in_words(Transfer("upload", 41_900_000, 102_000_000)) == "41.9 of 102.0 MB, 41 %"
    assert in_words(Transfer("upload", 0, 0)) == "0.0 of 0.0 MB, 100 %"


def test_a_line_is_logged_only_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(logging.getLogger("slipway"), "propagate", True)  # Prefect's own set-up turns it off
    monkeypatch.setattr("flows.transfer_progress.time.monotonic", lambda: now)
    lines = Lines()
    with caplog.at_level(logging.INFO, "slipway"):
        for second in range(25):
            now = float(second)
            lines(Transfer("upload", second, 25))
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["upload", "upload"]
