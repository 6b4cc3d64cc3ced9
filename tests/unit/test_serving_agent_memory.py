from __future__ import annotations

import json
from typing import Any

import pytest

from model_registry.errors import FormatError
from model_registry.serving.sync.agent_memory import AgentMemory
from model_registry.serving.sync.sync_state import Remembered

_MEMORY = AgentMemory(
    {
        "digits": Remembered(
            revision=7, labels={"stable": 2}, loaded=(1, 2), failed={3: "variables are missing"}, strikes={4: 1}
        ),
        "faces": Remembered(),
    }
)


def test_a_memory_is_read_as_it_was_written() -> None:
    assert AgentMemory.from_json(_MEMORY.to_json(), path="agent.json") == _MEMORY
    assert AgentMemory.from_json(AgentMemory().to_json(), path="agent.json") == AgentMemory()


def test_it_is_the_first_start_until_a_version_was_available() -> None:
    assert AgentMemory().first
    assert AgentMemory({"digits": Remembered(revision=7, failed={1: "bad"}, strikes={2: 1})}).first
    assert not AgentMemory({"faces": Remembered(), "digits": Remembered(loaded=(1,))}).first
    assert not AgentMemory({"digits": Remembered(labels={"stable": 1})}).first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("revision", -1),
        ("revision", "x"),
        ("labels", {"Stable": 1}),
        ("labels", {"stable": 0}),
        ("loaded", [0]),
        ("failed", {"x": "why"}),
        ("strikes", {"1": "many"}),
    ],
)
def test_a_wrong_field_is_named(name: str, value: Any) -> None:
    document = json.loads(_MEMORY.to_json())
    document["models"]["digits"][name] = value
    with pytest.raises(FormatError, match=rf"agent\.json is not an agent's memory: models\.digits\.{name}"):
        AgentMemory.from_json(json.dumps(document).encode(), path="agent.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"schema_version": 1, "models": {"../x": {}}}'])
def test_what_is_no_memory_is_refused_with_the_way_out(data: bytes) -> None:
    with pytest.raises(FormatError, match="remove it"):
        AgentMemory.from_json(data, path="agent.json")


def test_a_memory_of_a_newer_slipway_is_refused() -> None:
    with pytest.raises(FormatError, match="schema version 2") as error:
        AgentMemory.from_json(b'{"schema_version": 2, "models": {}}', path="agent.json")
    assert error.value.hint == "install the Slipway that wrote it, or a newer one"
