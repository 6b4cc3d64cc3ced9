from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from model_registry.errors import FormatError
from model_registry.servable import Run
from model_registry.state import Origin, Past, Record, State, Transition

_RECORD = Record(
    revision=7,
    transition=Transition("rollback", "stable", from_version=3, to_version=2),
    origin=Origin("ann@build-7", "latency doubled", Run("1", "nightly", "http://prefect/runs/1")),
    when="2030-01-01T00:00:00+00:00",
    write_id="w",
)
_STATE = State(
    revision=7,
    labels={"canary": 3, "stable": 2},
    pasts={"canary": Past((1, 2), 3), "stable": Past((1,), 3)},
    retired={4: 5},
    last_transition=_RECORD,
)


def _changed(*path: str, value: Any) -> bytes:
    """The state's document with one member set."""
    document = json.loads(_STATE.to_json())
    parent = document
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    return json.dumps(document).encode()


def test_a_state_is_read_as_it_was_written() -> None:
    assert State.from_json(_STATE.to_json(), key="key") == _STATE
    assert State.from_json(State().to_json(), key="key") == State()


@pytest.mark.parametrize(
    "transition",
    [
        Transition("promote", "stable", to_version=1),
        Transition("promote", "stable", from_version=1, to_version=2),
        Transition("rollback", "stable", from_version=2, to_version=1),
        Transition("unlabel", "stable", from_version=1),
        Transition("retire", versions=(1, 2), forget=True),
        Transition("collect", versions=(1,)),
    ],
)
def test_a_record_is_read_as_it_was_written(transition: Transition) -> None:
    record = replace(_RECORD, transition=transition)

    assert Record.from_json(record.to_json(), key="key") == record


def test_a_transition_is_stored_with_the_words_from_and_to() -> None:
    transition = json.loads(_RECORD.to_json())["transition"]

    assert (transition["action"], transition["label"]) == ("rollback", "stable")
    assert (transition["from"], transition["to"]) == (3, 2)
    assert {"from_version", "to_version"}.isdisjoint(transition)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("revision",), 6, "its revision is 6, and that of its last transition 7"),
        (("last_transition",), None, "its revision is 7, and that of its last transition None"),
        (("labels",), {"stable": 2}, "`labels` and `pasts` speak of different labels"),
        (("pasts",), {}, "`labels` and `pasts` speak of different labels"),
        (("retired",), {"2": 5}, "version 2 is retired, and a label names it"),
        (("retired",), {"1": 5}, "version 1 is retired, and a label names it or may be rolled back to it"),
        (("last_transition", "transition", "to"), None, "its last transition is no rollback"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(path: tuple[str, ...], value: Any, message: str) -> None:
    with pytest.raises(FormatError, match="key contradicts itself") as caught:
        State.from_json(_changed(*path, value=value), key="key")

    assert message in caught.value.message


@pytest.mark.parametrize(
    "path",
    [
        ("traffic",),
        ("pasts", "stable", "colour"),
        ("last_transition", "colour"),
        ("last_transition", "transition", "colour"),
        ("last_transition", "origin", "colour"),
    ],
)
def test_a_field_of_a_newer_slipway_is_refused_because_our_swap_would_lose_it(path: tuple[str, ...]) -> None:
    with pytest.raises(FormatError, match=path[-1]):
        State.from_json(_changed(*path, value={}), key="key")


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(FormatError, match="key has schema version 2, this Slipway reads 1"):
        State.from_json(_changed("schema_version", value=2), key="key")
    with pytest.raises(FormatError, match="key has schema version 2"):
        Record.from_json(replace(_RECORD, schema_version=2).to_json(), key="key")


@pytest.mark.parametrize("label", ["", "Stable", "1st", "-a", "a_b", "a/b", "stable\n", "a" * 64])
def test_a_bad_label_is_refused(label: str) -> None:
    with pytest.raises(FormatError, match="labels"):
        State.from_json(_changed("labels", value={label: 1}), key="key")
    with pytest.raises(FormatError, match="pasts"):
        State.from_json(_changed("pasts", value={label: {"versions": [], "highest": 1}}), key="key")
    with pytest.raises(FormatError, match=r"transition\.label"):
        State.from_json(_changed("last_transition", "transition", "label", value=label), key="key")


@pytest.mark.parametrize("version", [0, -1, 1.5, "x", None, [1]])
def test_a_bad_version_is_refused(version: Any) -> None:
    for path, value in (
        (("labels", "stable"), version),
        (("pasts", "stable", "versions"), [version]),
        (("last_transition", "transition", "versions"), [version]),
    ):
        with pytest.raises(FormatError, match=path[-1]):
            State.from_json(_changed(*path, value=value), key="key")


@pytest.mark.parametrize("version", ["0", "-1", "x"])
def test_a_bad_retired_version_is_refused(version: str) -> None:
    with pytest.raises(FormatError, match="retired"):
        State.from_json(_changed("retired", value={version: 1}), key="key")


@pytest.mark.parametrize(
    "transition",
    [
        {"action": "promote", "label": "stable"},
        {"action": "promote", "to": 1},
        {"action": "promote", "label": "stable", "to": 1, "versions": [2]},
        {"action": "rollback", "label": "stable", "to": 1},
        {"action": "rollback", "label": "stable", "from": 1},
        {"action": "unlabel", "label": "stable"},
        {"action": "unlabel", "label": "stable", "from": 2, "to": 1},
        {"action": "retire"},
        {"action": "retire", "label": "stable", "versions": [1]},
        {"action": "collect", "from": 1, "versions": [1]},
    ],
)
def test_a_record_that_says_too_much_or_too_little_for_its_action_is_refused(transition: dict[str, Any]) -> None:
    document = json.loads(_RECORD.to_json()) | {"transition": transition}

    with pytest.raises(FormatError, match=f"not a record of history: its transition is no {transition['action']}"):
        Record.from_json(json.dumps(document).encode(), key="key")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b"\xff", b'{"schema_version": 1}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="key is not a record of history"):
        Record.from_json(data, key="key")


def test_an_action_nobody_knows_is_refused() -> None:
    with pytest.raises(FormatError, match=r"transition\.action"):
        State.from_json(_changed("last_transition", "transition", "action", value="explode"), key="key")


def test_the_labels_of_a_version_are_sorted() -> None:
    state = State(labels={"stable": 2, "canary": 2, "old": 1}, pasts={})

    assert state.labels_of(2) == ("canary", "stable")
    assert state.labels_of(3) == ()


def test_what_labels_name_or_may_be_rolled_back_to_is_needed() -> None:
    assert _STATE.needed() == {1, 2, 3}
    assert State().needed() == frozenset()


def test_a_reason_that_is_no_utf_8_can_be_stored() -> None:
    origin = Origin("ann\udcff@build-7", "caf\udce9")  # as Python reads such bytes from a command line
    record = replace(_RECORD, origin=origin)

    assert Record.from_json(record.to_json(), key="key").origin == origin
    assert origin.why == r"caf\udce9"


def test_an_origin_names_who_runs_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")

    origin = Origin.here("too slow")

    assert origin.who.startswith("ann@")
    assert (origin.why, origin.run) == ("too slow", None)
