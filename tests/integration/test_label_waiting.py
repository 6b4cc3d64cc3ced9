"""`promote --wait` and `rollback --wait`, as a command, beside agents that answer over HTTP."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flows.agent_checks import same_registry
from model_registry.registry import Registry
from model_registry.serving.agent_server import AgentServer
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.sync.sync_report import AgentReport
from model_registry.state import Origin
from model_registry.storage import open_store
from tests.support.command import SLIPWAY, slipway
from tests.support.drafts import make_draft, make_payload
from tests.support.dripping import dripper
from tests.support.watched_agents import FollowingAgent, StillAgent

ANN = Origin("ann@build-7")
PROMOTE = ("promote", "digits:2", "stable", "--wait")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def registry(folder: Path) -> Registry:
    """The versions 1 to 3 of digits, of which stable names 1."""
    registry = Registry(open_store(str(folder / "registry")))
    for identity in ("a1", "a2", "a3"):
        registry.publish(make_draft(identity=identity), {"native": make_payload(folder.with_name("payload"))})
    registry.promote("digits", 1, "stable", origin=ANN)
    return registry


@pytest.fixture
def serve() -> Iterator[Callable[[StillAgent], str]]:
    """Lets an agent answer; gives its URL."""
    with ExitStack() as stack:

        def start(agent: StillAgent) -> str:
            return stack.enter_context(AgentServer(("127.0.0.1", 0), agent, SyncMetrics())).url

        yield start


@pytest.fixture
def agent(registry: Registry) -> FollowingAgent:
    agent = FollowingAgent(registry.store.uri, steps=["DOWNLOADING", "DOWNLOADING", "LOADING"])
    agent.settle()
    return agent


Serve = Callable[[StillAgent], str]


@contextmanager
def waiting(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on; what it says on stderr comes into `stderr.txt`."""
    with (folder / "stderr.txt").open("wb") as stderr:
        process = subprocess.Popen([SLIPWAY, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def assert_said(folder: Path, *parts: str) -> None:
    """Waits until all of it was said."""
    deadline = time.monotonic() + 60
    while not all(part in (said := (folder / "stderr.txt").read_text()) for part in parts):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


def stable(registry: Registry) -> int | None:
    return registry.state("digits").labels.get("stable")


def test_a_promotion_waits_for_every_server_and_tells_what_is_new(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve
) -> None:
    second = FollowingAgent(registry.store.uri, name="agent-2")
    second.settle()

    told = slipway(*PROMOTE, "--agent", serve(agent), "--agent", serve(second), folder=folder)

    assert (told.code, told.stdout) == (0, "digits@stable: digits:1 -> digits:2 (revision 2)\n"), told
    said = [line.partition(" after ")[0] for line in told.stderr.splitlines()]
    assert [line for line in said if line.startswith("agent-1")] == [
        "agent-1  digits:2 DOWNLOADING",
        "agent-1  digits:2 LOADING",
        "agent-1  answers stable with digits:2",
    ]
    assert [line for line in said if line.startswith("agent-2")] == [
        "agent-2  digits:2 LOADING",
        "agent-2  answers stable with digits:2",
    ]
    assert len(said) == 5
    assert agent.serving == second.serving == {"stable": 2}


def test_as_json_there_is_one_document_with_the_agents(
    folder: Path, agent: FollowingAgent, registry: Registry, serve: Serve
) -> None:
    url = serve(agent)
    told = slipway(*PROMOTE, "--agent", url, "--agent", f"{url}/", "--json", folder=folder)
    again = slipway(*PROMOTE, "--agent", url, "--json", folder=folder)

    assert (told.code, told.stderr) == (0, "")
    (answer,) = told.document["agents"]
    assert (answer["url"], answer["agent"], answer["serving"]) == (url, "agent-1", 2)
    assert answer["seconds"] > 0
    assert (told.document["changed"], told.document["revision"], told.document["to"]) == (True, 2, 2)
    assert (again.document["changed"], again.document["revision"]) == (False, None)
    assert [one["serving"] for one in again.document["agents"]] == [2]
    assert "agents" not in slipway("promote", "digits:2", "stable", "--json", folder=folder).document
    assert stable(registry) == 2


def test_a_rollback_waits_too(folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve) -> None:
    registry.promote("digits", 2, "stable", origin=ANN)
    agent.settle()

    told = slipway("rollback", "digits", "stable", "--wait", "--agent", serve(agent), folder=folder)

    assert (told.code, told.stdout) == (0, "digits@stable: digits:2 -> digits:1 (revision 3)\n")
    assert "agent-1  answers stable with digits:1 after " in told.stderr
    assert agent.serving == {"stable": 1}


def test_a_load_that_fails_quotes_the_server_and_says_what_has_moved_and_what_to_do(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve
) -> None:
    agent.fails[2] = "NOT_FOUND: Op type not registered 'X'\x1b[2J\nsecond line"
    url = serve(agent)

    failed = slipway(*PROMOTE, "--agent", url, folder=folder)
    as_json = slipway(*PROMOTE, "--agent", url, "--json", folder=folder)

    assert (failed.code, failed.stdout) == (1, "digits@stable: digits:1 -> digits:2 (revision 2)\n")
    assert f"error: agent-1 at {url}: digits:2 FAILED: NOT_FOUND: Op type not registered 'X'\\x1b[2J" in failed.stderr
    assert (
        "digits@stable names digits:2 in the registry (revision 2), and this server answers with digits:1 under stable"
    ) in failed.stderr
    assert "`slipway rollback digits stable` moves the label back" in failed.stderr
    assert "--retry" in failed.stderr
    assert stable(registry) == 2
    # Now that it is known to have failed here, the same is refused before anything.
    assert (as_json.code, as_json.error["class"]) == (1, "SlipwayError")
    assert "digits:2 could not be loaded beside the agent at" in as_json.error["message"]
    assert as_json.error["hint"].startswith("nothing was moved")


def test_a_load_that_failed_is_tried_again_if_asked(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve
) -> None:
    agent.fails[2] = "no room on the GPU"
    url = serve(agent)
    assert slipway(*PROMOTE, "--agent", url, folder=folder).code == 1

    mended = slipway(*PROMOTE, "--agent", url, "--retry", folder=folder)

    assert (mended.code, mended.stdout) == (0, "digits@stable names digits:2 already\n")
    assert agent.retried == [("digits", 2)]
    said = [line.partition(" after ")[0] for line in mended.stderr.splitlines()]
    assert said[:2] == ["agent-1  digits:2 FAILED: no room on the GPU", "agent-1  was asked to try digits:2 again"]
    assert said[-1] == "agent-1  answers stable with digits:2"


def test_a_load_that_fails_again_ends_the_wait(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve
) -> None:
    agent.fails[2] = "no room on the GPU"
    agent.mends = False

    failed = slipway(*PROMOTE, "--agent", serve(agent), "--retry", folder=folder)

    assert failed.code == 1
    assert "digits:2 FAILED: no room on the GPU" in failed.stderr
    assert agent.retried == [("digits", 2)]


def test_when_time_is_up_it_is_told_where_each_server_stands(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve
) -> None:
    agent.steps = ()
    slow = FollowingAgent(registry.store.uri, name="agent-2", steps=["DOWNLOADING"] * 1000)
    slow.settle()
    down = FollowingAgent(registry.store.uri, name="agent-3")
    down.settle()
    down.says = replace(down.says, server_reachable=False)
    urls = [serve(one) for one in (agent, slow, down)]

    late = slipway(*PROMOTE, *(part for url in urls for part in ("--agent", url)), "--timeout", "4", folder=folder)

    assert late.code == 1
    assert "error: 2 of 3 servers did not answer with digits:2 within 4 s\n" in late.stderr
    assert f"agent-2 at {urls[1]}: digits:2 DOWNLOADING\n" in late.stderr
    assert f"agent-3 at {urls[2]}: its server at http://127.0.0.1:8501 does not answer\n" in late.stderr
    assert "digits@stable names digits:2 in the registry (revision 2), and the agents go on\n" in late.stderr
    assert "`slipway rollback digits stable`" in late.stderr
    assert stable(registry) == 2


def test_an_agent_that_goes_away_is_asked_until_it_is_back(
    folder: Path, registry: Registry, agent: FollowingAgent
) -> None:
    server = AgentServer(("127.0.0.1", 0), agent, SyncMetrics())
    server.start()
    address = server.address
    agent.steps = ("DOWNLOADING",) * 1000
    with waiting(folder, *PROMOTE, "--agent", server.url) as process:
        assert_said(folder, "agent-1  digits:2 DOWNLOADING")
        server.stop()
        assert_said(folder, "agent-1  cannot be asked: ", "does not answer: Connection refused")
        agent.way = ["AVAILABLE"]
        with AgentServer(address, agent, SyncMetrics()):
            assert_said(folder, "agent-1  answers stable with digits:2 after")
            assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_ends_the_wait_is_told_that_the_label_has_moved(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve, number: signal.Signals, code: int
) -> None:
    agent.steps = ("DOWNLOADING",) * 1000
    with waiting(folder, *PROMOTE, "--agent", serve(agent)) as process:
        assert_said(folder, "agent-1  digits:2 DOWNLOADING")
        process.send_signal(number)
        assert_said(folder, "only the wait ends: digits@stable names digits:2 in the registry (revision 2)")
        assert process.wait(timeout=60) == code
    assert stable(registry) == 2


def test_a_label_that_somebody_moves_meanwhile_ends_the_wait(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve
) -> None:
    agent.steps = ("DOWNLOADING",) * 1000
    with waiting(folder, *PROMOTE, "--agent", serve(agent)) as process:
        assert_said(folder, "agent-1  digits:2 DOWNLOADING")
        registry.promote("digits", 3, "stable", origin=ANN)
        assert_said(
            folder,
            "error: digits@stable was moved again by ann@build-7: expected it to name digits:2 since revision 2, "
            "found digits:3 at revision 3",
        )
        assert process.wait(timeout=60) == 4


def test_an_agent_that_is_told_otherwise_by_another_registry_is_no_conflict(
    folder: Path, tmp_path: Path, registry: Registry, serve: Serve
) -> None:
    elsewhere = Registry(open_store(str(tmp_path / "elsewhere")))
    for identity in ("b1", "b2", "b3"):
        elsewhere.publish(make_draft(identity=identity), {"native": make_payload(tmp_path / "payload")})
    for version in (1, 3, 1, 3):
        elsewhere.promote("digits", version, "stable", origin=ANN)
    agent = FollowingAgent(elsewhere.store.uri)
    agent.settle()
    agent.says = replace(agent.says, registry="/no/such/path/here")

    late = slipway(*PROMOTE, "--agent", serve(agent), "--timeout", "2", folder=folder)

    assert late.code == 1
    assert "follows the registry at /no/such/path/here; if that is not" in late.stderr
    assert "is told that digits@stable names digits:3, and the registry here says otherwise" in late.stderr


# What is refused, before anything is moved.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"registry": "s3://other/registry"}, "follows another registry: expected "),
        ({"registry": "/"}, "follows another registry: expected "),
        ({"follows_labels": ("canary",)}, "does not follow digits@stable: it follows canary of every model"),
        ({"follows_models": ("faces",)}, "does not follow digits@stable: it follows every label of faces"),
    ],
)
def test_an_agent_that_can_never_get_there_is_refused(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve, changes: dict[str, object], expected: str
) -> None:
    agent.says = replace(agent.says, **changes)  # type: ignore[arg-type]

    refused = slipway(*PROMOTE, "--agent", serve(agent), "--json", folder=folder)

    assert (refused.code, refused.error["class"]) == (1, "InvalidInputError")
    assert expected in refused.error["message"]
    assert refused.error["hint"].startswith("nothing was moved; leave --agent")
    assert stable(registry) == 1


def test_an_agent_that_does_not_answer_holds_up_a_promotion_but_no_rollback(
    folder: Path, registry: Registry, agent: FollowingAgent
) -> None:
    registry.promote("digits", 3, "stable", origin=ANN)
    server = AgentServer(("127.0.0.1", 0), agent, SyncMetrics())
    server.start()
    server.stop()
    gone = f"http://127.0.0.1:{server.address[1]}"

    refused = slipway(*PROMOTE, "--agent", gone, folder=folder)
    held_up = stable(registry)
    rolled_back = slipway("rollback", "digits", "stable", "--wait", "--agent", gone, "--timeout", "1", folder=folder)

    assert (refused.code, refused.stdout, held_up) == (1, "", 3)
    assert f"error: {gone} does not answer: Connection refused; nothing was moved" in refused.stderr
    assert f"leave --agent {gone} out" in refused.stderr
    assert (rolled_back.code, rolled_back.stdout) == (1, "digits@stable: digits:3 -> digits:1 (revision 3)\n")
    assert f"1 of 1 servers did not answer with digits:1 within 1 s\n{gone} at {gone}: cannot be asked" in (
        rolled_back.stderr
    )
    assert stable(registry) == 1


def test_an_agent_that_drips_is_left_within_the_timeout(folder: Path, registry: Registry) -> None:
    registry.promote("digits", 3, "stable", origin=ANN)
    with dripper(b"HTTP/1.1 200 OK\r\n", b"X-A: ") as dripping:
        options = ("--wait", "--agent", dripping.url, "--timeout", "1")
        refused = slipway("promote", "digits:2", "stable", *options, folder=folder)
        dripping.assert_left()
        rolled_back = slipway("rollback", "digits", "stable", *options, folder=folder)

    assert (refused.code, refused.stdout) == (1, "")
    said = f"{dripping.url} does not answer: no whole answer within 1 s"
    assert f"error: {said}; nothing was moved" in refused.stderr
    assert (rolled_back.code, rolled_back.stdout) == (1, "digits@stable: digits:3 -> digits:1 (revision 3)\n")
    assert rolled_back.stderr.startswith(said)
    assert "1 of 1 servers did not answer with digits:1 within 1 s\n" in rolled_back.stderr


def test_however_many_agents_there_are_they_are_asked_at_once(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve
) -> None:
    together = threading.Barrier(20)

    class Meeting(StillAgent):
        def report(self) -> AgentReport:
            together.wait(60)  # for all the others to be asked, too
            return agent.says

    urls = [serve(Meeting()) for _ in range(together.parties)]

    told = slipway(*PROMOTE, *(part for url in urls for part in ("--agent", url)), "--dry-run", folder=folder)

    assert (told.code, told.stdout) == (0, "would move digits@stable: digits:1 -> digits:2\n"), told


def test_a_dry_run_asks_the_agents_and_waits_for_none(
    folder: Path, registry: Registry, agent: FollowingAgent, serve: Serve
) -> None:
    url = serve(agent)
    told = slipway(*PROMOTE, "--agent", url, "--dry-run", folder=folder)
    document = slipway(*PROMOTE, "--agent", url, "--dry-run", "--json", folder=folder).document
    agent.says = replace(agent.says, follows_labels=("canary",))
    refused = slipway(*PROMOTE, "--agent", url, "--dry-run", folder=folder)

    assert (told.code, told.stdout) == (0, "would move digits@stable: digits:1 -> digits:2\n")
    assert told.stderr == "dry run: nothing was changed\n"
    assert (document["dry_run"], document["agents"]) == (True, [])
    assert "does not follow digits@stable" in refused.stderr
    assert stable(registry) == 1


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--wait"], 2, "--wait needs --agent URL"),
        (["--agent", "http://127.0.0.1:1"], 2, "--agent, --timeout and --retry are for --wait"),
        (["--timeout", "5"], 2, "are for --wait"),
        (["--retry"], 2, "are for --wait"),
        (["--wait", "--agent", "http://127.0.0.1:1", "--timeout", "0"], 2, "0.0 is not in the range x>0"),
        (["--wait", "--agent", "http://127.0.0.1:1", "--timeout", "nan"], 2, "expected a number of seconds, found nan"),
        (["--wait", "--agent", "127.0.0.1:1"], 1, "'127.0.0.1:1' is no agent's URL: it begins with neither"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(
    folder: Path, registry: Registry, options: list[str], code: int, expected: str
) -> None:
    for command in (["promote", "digits:2", "stable"], ["rollback", "digits", "stable"]):
        refused = slipway(*command, *options, folder=folder)

        assert (refused.code, refused.stdout) == (code, "")
        assert expected in " ".join(refused.stderr.split())
    assert stable(registry) == 1


def test_two_uris_are_one_registry_or_not_or_it_cannot_be_told(tmp_path: Path) -> None:
    here, other, link = tmp_path / "here", tmp_path / "other", tmp_path / "link"
    here.mkdir()
    other.mkdir()
    link.symlink_to(here)

    assert same_registry("s3://b/r", "s3://b/r", here=False) is True
    assert same_registry("s3://b/r", "s3://b/x", here=False) is False
    assert same_registry("s3://b/r", str(here), here=True) is False
    assert same_registry(str(link), str(here), here=False) is True
    assert same_registry(str(other), str(here), here=True) is False
    assert same_registry(str(other), str(here), here=False) is None
    assert same_registry(str(tmp_path / "missing"), str(here), here=True) is None
    assert same_registry("relative", str(here), here=True) is None
    assert same_registry("/a\0b", str(here), here=True) is None
