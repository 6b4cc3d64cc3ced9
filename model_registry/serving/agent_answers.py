"""What an agent answers under each path that it has, whatever kind of agent it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError

from model_registry.servable import Version
from model_registry.serving.metric_families import CONTENT_TYPE


class Report(Protocol):
    """What an agent tells of itself."""

    def obstacles(self) -> tuple[str, ...]:
        """What stands between what is wanted and what is, each in a few words."""

    def to_json(self) -> bytes:
        """The document that /status answers with."""


_Report = TypeVar("_Report", bound=Report)
_Report_co = TypeVar("_Report_co", bound=Report, covariant=True)
_Report_contra = TypeVar("_Report_contra", bound=Report, contravariant=True)


class ObservedAgent(Protocol[_Report_co]):
    """What is asked of an agent, from several threads at once."""

    def report(self) -> _Report_co:
        """How things stand; answers at once, from what was seen last."""

    def healthy(self) -> bool:
        """Whether the agent does its work; if not, it should be restarted."""

    def ready(self) -> bool:
        """Whether the server beside it is fit for requests."""


@runtime_checkable
class RetryingAgent(Protocol):
    """One that can be asked to try again: then there is POST /retry."""

    def retry(self, model: str, version: int) -> None:
        """Lets a version that failed be tried again.

        Raises:
            NotFoundError: If the agent knows no such model or version.
            ConflictError: If it did not fail.
        """


class RenderedMetrics(Protocol[_Report_contra]):
    """What an agent counts and measures."""

    def render(self, report: _Report_contra) -> bytes:
        """Everything in Prometheus' text format, of `CONTENT_TYPE`."""


class RetryRequest(BaseModel):
    """What is posted to /retry."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    version: Version


@dataclass(frozen=True)
class Answer:
    """One of them."""

    status: HTTPStatus
    body: bytes
    content_type: str


@dataclass(frozen=True)
class Answers:
    """All of them, by path.

    Attributes:
        gets: What GET and HEAD are answered with.
        posts: What a POST is, by what was posted.
    """

    gets: Mapping[str, Callable[[], Answer]]
    posts: Mapping[str, Callable[[bytes], Answer]]


def answers_of(agent: ObservedAgent[_Report], metrics: RenderedMetrics[_Report]) -> Answers:
    """What an agent answers.

    Args:
        agent: Who is asked; one that can `retry` is asked for that, too.
        metrics: What /metrics tells.
    """
    return Answers(
        gets={
            "/healthz": lambda: _healthz(agent),
            "/readyz": lambda: _readyz(agent),
            "/status": lambda: Answer(HTTPStatus.OK, agent.report().to_json(), "application/json"),
            "/metrics": lambda: Answer(HTTPStatus.OK, metrics.render(agent.report()), CONTENT_TYPE),
        },
        posts={"/retry": lambda body: _retry(agent, body)} if isinstance(agent, RetryingAgent) else {},
    )


def said(status: HTTPStatus, line: str) -> Answer:
    """A line for a person; what somebody else wrote in it neither breaks it nor steers a terminal."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
    return Answer(status, f"{shown}\n".encode(), "text/plain; charset=utf-8")


def _healthz(agent: ObservedAgent[_Report]) -> Answer:
    if agent.healthy():
        return said(HTTPStatus.OK, "ok")
    stuck = "the agent has not looked at the registry and the server for too long; its log may tell why"
    return said(HTTPStatus.SERVICE_UNAVAILABLE, stuck)


def _readyz(agent: ObservedAgent[_Report]) -> Answer:
    obstacles = "; ".join(agent.report().obstacles())
    if agent.ready():
        return said(HTTPStatus.OK, f"ok; {obstacles}" if obstacles else "ok")
    return said(HTTPStatus.SERVICE_UNAVAILABLE, obstacles or "the server has not been seen to serve yet")


def _retry(agent: RetryingAgent, body: bytes) -> Answer:
    try:
        asked = RetryRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        return said(HTTPStatus.BAD_REQUEST, f'expected {{"model": NAME, "version": NUMBER}}; {where}: {first["msg"]}')
    agent.retry(asked.model, asked.version)
    return said(HTTPStatus.ACCEPTED, f"{asked.model}:{asked.version} will be tried again")
