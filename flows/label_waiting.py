"""`promote --wait`: follows a label that was moved until the server beside each agent answers with it.

The agents are asked before the move too, so that one which can never get there is told before anything is changed.
After it the label names the version whatever becomes of the wait, and every way out of here says so.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import click

from flows.agent_checks import require_following, require_not_given_up
from flows.tables import printable
from model_registry.catalog import Catalog
from model_registry.errors import ConflictError, NotFoundError, SlipwayError, StorageError
from model_registry.serving.sync.agent_client import AgentClient
from model_registry.serving.sync.awaited_label import AwaitedLabel, Standing, standing
from model_registry.serving.sync.sync_report import AgentReport

_ANSWER = 5.0  # seconds that an agent has for one
_LOOK = 0.5  # seconds between two looks at an agent
_NAP = 3600.0  # seconds; what a thread can wait for is bounded
_WORDS = 600

logger = logging.getLogger("slipway")


@dataclass
class _Agent:
    """One that is waited for, as far as it is known.

    Attributes:
        client: Asks it.
        name: Its own; empty as long as it never answered.
        words: What was said of it last.
        answering: What its server answers with under the label; None for nothing.
        seconds: When its server was seen to answer as it should, since the wait began; None before.
        retried: Whether it was asked to try again what failed there.
        failure_is_old: Whether it was, and has not begun yet.
    """

    client: AgentClient
    name: str = ""
    words: str = "was not asked yet"
    answering: int | None = None
    seconds: float | None = None
    retried: bool = False
    failure_is_old: bool = False


class LabelWait:
    """Waits for the servers beside some agents."""

    def __init__(self, registry: Catalog, urls: Sequence[str], *, timeout: float, retry: bool) -> None:
        """Touches no network.

        Args:
            registry: Where the label moves.
            urls: The agents.
            timeout: Seconds that all of them have together, from the move on; and before it, to be checked.
            retry: Whether a load that failed is tried again, once for each agent.

        Raises:
            InvalidInputError: If a URL is none.
        """
        self._registry = registry
        self._timeout = timeout
        self._retry = retry
        clients = [AgentClient(url, timeout=min(timeout, _ANSWER)) for url in urls]
        self._agents = list({client.url: _Agent(client) for client in clients}.values())

    def check(self, model: str, label: str, *, version: int | None) -> None:
        """Asks every agent, before anything is changed, if it can get there at all.

        Args:
            model: Whose label shall move.
            label: Which.
            version: Where to, as `promote` knows. None for a rollback: it must not be held up by what is broken, so
                an agent that does not answer is only warned of.

        Raises:
            InvalidInputError: If an agent follows another registry, or not this label.
            StorageError: If it does not answer.
            FormatError: If something else answers.
            SlipwayError: If its server could not load the version, and is not asked to try again.
        """
        with ThreadPoolExecutor(len(self._agents)) as pool:  # a thread each, so that together they take no longer
            answers = list(pool.map(_ask, self._agents))
        for agent, answer in zip(self._agents, answers, strict=True):
            url = agent.client.url
            if isinstance(answer, AgentReport):
                agent.name = answer.agent
                require_following(answer, url, self._registry.store.uri, model, label)
                if version is not None and not self._retry:
                    require_not_given_up(answer, url, model, version)
            elif version is None and isinstance(answer, StorageError):
                logger.warning("%s", printable(answer.message))
            else:
                hint = answer.hint or f"start it, or leave --agent {url} out"
                raise type(answer)(f"{answer.message}; nothing was moved", hint=hint)

    def until_served(self, change: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Waits until every server answers with what the label names now.

        Args:
            change: The move, as flows.changes tells it.

        Returns:
            For each agent its `url`, its name as `agent`, the version its server answers with as `serving`, and
            after how many `seconds` it was seen to.

        Raises:
            SlipwayError: If a server could not load the version, or not all answer with it in time.
            ConflictError: If somebody moved the label again.
        """
        state = None if change["revision"] else self._registry.state(change["model"])
        awaited = AwaitedLabel(
            change["model"], change["label"], change["to"], state.revision if state else change["revision"]
        )
        stands = f"{awaited} names {awaited.model}:{awaited.version} in the registry (revision {awaited.revision})"
        try:
            self._wait(awaited, stands)
        except Exception:
            raise
        except BaseException:  # Ctrl-C, or a signal that asks for the end
            click.echo(f"only the wait ends: {stands}, and the agents go on", err=True)
            raise
        return [
            {
                "url": agent.client.url,
                "agent": agent.name,
                "serving": agent.answering,
                "seconds": None if agent.seconds is None else round(agent.seconds, 1),
            }
            for agent in self._agents
        ]

    def _wait(self, awaited: AwaitedLabel, stands: str) -> None:
        began = time.monotonic()
        answers: queue.SimpleQueue[tuple[_Agent, AgentReport | SlipwayError]] = queue.SimpleQueue()
        over = threading.Event()
        for agent in self._agents:  # a thread each: one that is slow to answer holds up none of the others
            threading.Thread(target=_watch, args=(agent, answers, over), daemon=True).start()
        try:
            while left := [agent for agent in self._agents if agent.seconds is None]:
                remaining = began + self._timeout - time.monotonic()
                if remaining <= 0:
                    raise self._late(awaited, stands, left)
                try:
                    agent, answer = answers.get(timeout=min(remaining, _NAP))
                except queue.Empty:
                    continue
                if agent.seconds is None:
                    self._take(agent, answer, awaited, stands, time.monotonic() - began)
        finally:
            over.set()

    def _take(
        self, agent: _Agent, answer: AgentReport | SlipwayError, awaited: AwaitedLabel, stands: str, seconds: float
    ) -> None:
        if isinstance(answer, SlipwayError):
            self._say(agent, f"cannot be asked: {answer.message}")
            return
        agent.name = answer.agent
        if awaited.model in answer.models:
            agent.answering = answer.models[awaited.model].serving.get(awaited.label)
        found = standing(answer, awaited)
        if found.state == "serving":
            agent.seconds = seconds
            self._say(agent, f"{found.words} after {seconds:.1f} s")
        elif found.state == "moved":
            self._say(agent, self._moved(found, awaited))
        elif found.state == "waiting":
            agent.failure_is_old = False
            self._say(agent, found.words)
        elif self._retry and not agent.retried:
            self._say(agent, found.words)
            self._try_again(agent, awaited)
        elif not agent.failure_is_old:
            agent.words = printable(found.words)[:_WORDS]
            raise self._failed(agent, awaited, stands)

    def _try_again(self, agent: _Agent, awaited: AwaitedLabel) -> None:
        try:
            agent.client.retry(awaited.model, awaited.version)
        except (ConflictError, NotFoundError):  # it tries already
            pass
        except StorageError as error:
            self._say(agent, f"cannot be asked to try again: {error.message}")
            return
        agent.retried = agent.failure_is_old = True
        self._say(agent, f"was asked to try {awaited.model}:{awaited.version} again")

    def _moved(self, found: Standing, awaited: AwaitedLabel) -> str:
        """What is said where the registry itself does not know of another move.

        Raises:
            ConflictError: If it does.
        """
        try:
            state = self._registry.state(awaited.model)
        except StorageError as error:
            return f"{found.words}; the registry cannot be asked: {error.message}"
        names = state.labels.get(awaited.label)
        if names == awaited.version:
            return f"{found.words}, and the registry here says otherwise: does it follow another one?"
        last = state.last_transition
        by = f" by {last.origin.who}" if last and last.transition.label == awaited.label else ""
        raise ConflictError(
            f"{awaited} was moved again{by}: expected it to name {awaited.model}:{awaited.version} since revision "
            f"{awaited.revision}, found {f'{awaited.model}:{names}' if names else 'nothing'} at revision "
            f"{state.revision}",
            hint=f"see `slipway history {awaited.model} --label {awaited.label}`",
        )

    def _failed(self, agent: _Agent, awaited: AwaitedLabel, stands: str) -> SlipwayError:
        answers = f"answers with {awaited.model}:{agent.answering}" if agent.answering else "answers with nothing"
        return SlipwayError(
            f"{self._shown(agent)} at {agent.client.url}: {agent.words}\n"
            f"{stands}, and this server {answers} under {awaited.label}{self._others(agent)}",
            hint=f"`slipway rollback {awaited.model} {awaited.label}` moves the label back; or mend what failed, and "
            "repeat the command with --retry",
        )

    def _late(self, awaited: AwaitedLabel, stands: str, left: Sequence[_Agent]) -> SlipwayError:
        lines = "".join(f"\n{self._shown(agent)} at {agent.client.url}: {agent.words}" for agent in left)
        return SlipwayError(
            f"{len(left)} of {len(self._agents)} servers did not answer with {awaited.model}:{awaited.version} within "
            f"{self._timeout:g} s{lines}\n{stands}, and the agents go on",
            hint="repeat the command to wait on (--timeout S for longer); "
            f"`slipway rollback {awaited.model} {awaited.label}` moves the label back",
        )

    def _others(self, agent: _Agent) -> str:
        return "".join(
            f"\n{self._shown(other)} at {other.client.url}: {other.words}"
            for other in self._agents
            if other is not agent
        )

    def _say(self, agent: _Agent, words: str) -> None:
        """Tells what is new, and nothing twice."""
        words = printable(words)[:_WORDS]
        if words != agent.words:
            agent.words = words
            logger.info("%s  %s", self._shown(agent), words)

    def _shown(self, agent: _Agent) -> str:
        if sum(other.name == agent.name for other in self._agents) > 1:  # also of those that never answered
            return printable(f"{agent.name} {agent.client.url}".strip())
        return printable(agent.name or agent.client.url)


def _ask(agent: _Agent) -> AgentReport | SlipwayError:
    try:
        return agent.client.report()
    except SlipwayError as error:
        return error


def _watch(
    agent: _Agent,
    answers: queue.SimpleQueue[tuple[_Agent, AgentReport | SlipwayError]],
    over: threading.Event,
) -> None:
    while not over.is_set():
        answers.put((agent, _ask(agent)))
        over.wait(_LOOK)
