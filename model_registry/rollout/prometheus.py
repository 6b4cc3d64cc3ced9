"""Prometheus, asked over HTTP: https://prometheus.io/docs/prometheus/latest/querying/api/.

What it answers is checked as if anybody had written it. A part of an answer is none: a store behind Thanos or
VictoriaMetrics that is gone would otherwise pass for a gateway without errors.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

from model_registry.errors import FormatError, InvalidInputError, SlipwayError, StorageError
from model_registry.rollout.http_config import HttpConfig, Login, load_http_config
from model_registry.rollout.prometheus_answers import Answered, Sample, read, read_refusal
from model_registry.rollout.promql import duration
from model_registry.rollout.samples import Series
from model_registry.serving.bounded_http import Answer, BoundedHttp, TooLargeError, words
from model_registry.serving.http_url import base_url, is_far

__all__ = ["Prometheus", "Sample"]

_EXPECTED = "expected http://HOST:PORT of a Prometheus, with its path where it has a prefix"
_ANSWER_BYTES = 64 * 1024 * 1024
_POINTS = 100_000  # of one answer; each takes some 30 bytes
# What a whole rollout's longest bake is thinned out to. Gateways by the dozen, scraped for a day, are below it.
_MOST_POINTS = 3_000_000
_SHOWN = 300
_MOMENT = 0.0005  # Prometheus tells time in milliseconds


class Prometheus:
    """Asks one server, or a store that answers like one. Each question makes a connection of its own. Thread-safe.

    A proxy is used where HTTP_PROXY, HTTPS_PROXY and NO_PROXY say so, but never towards a loopback address. A
    redirection is not followed.

    Every question raises:
        StorageError: If it does not answer whole and in time; transient where it may do so later.
        FormatError: If something else answers.
        InvalidInputError: If it refuses the PromQL.

    No error has the password or the token, even where an answer quotes it.

    Attributes:
        url: Where it answers, without a closing slash.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, http_config: Path | None = None) -> None:
        """Touches no network.

        Args:
            url: `http://HOST:PORT`, or https, with a path where it has a prefix.
            timeout: Seconds from the first attempt to connect to the last byte of an answer.
            http_config: A file with how to log in, as `promtool --http.config.file` takes it; see `http_config`.

        Raises:
            InvalidInputError: If the URL is none of this kind, or the file is wrong.
        """
        self.url = base_url(url, what="URL of a Prometheus", expected=_EXPECTED)
        self._http = BoundedHttp(timeout=timeout, limit=_ANSWER_BYTES, proxied=is_far(self.url))
        self._config = load_http_config(http_config) if http_config else HttpConfig()

    def time(self) -> float:
        """Unix seconds by Prometheus' clock."""
        return self._one("time()", None)

    def query(self, promql: str, at: float | None = None, *, foreign: bool = False) -> tuple[Sample, ...]:
        """What an expression is at one moment: an instant vector, or a scalar as one sample without labels.

        Args:
            promql: The expression.
            at: Unix seconds; now where None.
            foreign: Whether somebody else wrote it, so that it is to blame where it cannot be executed. What this
                project asks can be: where it fails, the data or the store is in a state that may pass.

        Raises:
            InvalidInputError: If Prometheus refuses it, or it is a range vector or a string.
        """
        return self._ask(promql, at, foreign=foreign).samples(promql)

    def series(self, selector: str, start: float, end: float) -> tuple[Series, ...]:
        """The points of series as they were scraped, without any interpolation.

        Where there are some millions, they are thinned out evenly; the time of each may then be a step later.

        Args:
            selector: Of an instant vector, such as `up{job="envoy"}`.
            start: Unix seconds.
            end: Unix seconds.

        Returns:
            A series for each that has a point from start to end, by time.

        Raises:
            InvalidInputError: If there are more series than one answer can have points.
        """
        if not start < end:
            return ()
        length = end - start
        counted = f"count_over_time({selector}[{duration(length)}])"
        points = self._one(f"sum({counted}) or vector(0)", end)
        if points == 0:
            return ()
        step = ""
        if points > _MOST_POINTS:
            count = self._one(f"count({counted})", end)
            if count > _POINTS:
                raise InvalidInputError(f"{selector} are {count:.0f} series: expected at most {_POINTS}")
            # A subquery answers with the last point before each step.
            step = f":{duration(length * count / _MOST_POINTS)}"
        chunks = math.ceil(min(points, _MOST_POINTS) / _POINTS)
        found: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
        for number in range(1, chunks + 1):
            # A millisecond more than its part, since Prometheus 3 leaves out a range's first moment.
            part = f"{selector}[{duration(length / chunks + 0.001)}{step}]"
            for series in self._ask(part, start + length * number / chunks).series():
                taken = found.setdefault(frozenset(series.labels.items()), [])
                last = taken[-1][0] if taken else -math.inf
                taken += [point for point in series.points if max(last, start - _MOMENT) < point[0]]
        return tuple(Series(dict(labels), tuple(taken)) for labels, taken in found.items() if taken)

    def _one(self, promql: str, at: float | None) -> float:
        samples = self.query(promql, at)
        if len(samples) != 1 or not math.isfinite(samples[0].value):
            raise FormatError(
                f"{self.url} answers {promql} with {len(samples)} values: expected one number", hint=_EXPECTED
            )
        return samples[0].value

    def _ask(self, promql: str, at: float | None, *, foreign: bool = False) -> Answered:
        """An answer that is whole."""
        form = {"query": promql} | ({} if at is None else {"time": f"{at:.3f}"})
        # How Thanos and VictoriaMetrics are told to fail where they would leave something out; Prometheus ignores it.
        form |= {"partial_response": "false", "deny_partial_response": "1"}
        login = self._config.login()
        headers = {"Content-Type": "application/x-www-form-urlencoded", **login.headers}
        try:
            # POST, since a query may be longer than a URL.
            answer = self._http.ask(f"{self.url}/api/v1/query", urlencode(form).encode(), headers=headers)
        except TooLargeError:
            raise FormatError(
                f"{self.url} answers {promql[:_SHOWN]} with more than {_ANSWER_BYTES} bytes: expected fewer series"
            ) from None
        except OSError as error:
            raise StorageError(
                f"Prometheus at {self.url} does not answer: {login.redacted(words(error))}",
                hint="see whether it runs, and where: --prometheus URL",
                transient=True,
            ) from error
        if answer.status != HTTPStatus.OK:
            raise self._refusal(answer, promql, login, foreign=foreign)
        try:
            answered = read(answer.body, url=self.url)
        except FormatError as error:
            raise FormatError(login.redacted(error.message), hint=error.hint) from None
        if answered.missing:
            missing = login.redacted(answered.missing)[:_SHOWN]
            raise StorageError(f"Prometheus at {self.url} answers in part: {missing}", transient=True)
        return answered

    def _refusal(self, answer: Answer, promql: str, login: Login, *, foreign: bool) -> SlipwayError:
        kind, said = read_refusal(answer.body)
        said = login.redacted(said or answer.reason)[:_SHOWN]
        if kind == "bad_data" or (kind == "execution" and foreign):
            return InvalidInputError(f"Prometheus refuses {promql[:_SHOWN]!r}: {said}")
        if kind == "execution":
            return StorageError(f"Prometheus at {self.url} fails at {promql[:_SHOWN]!r}: {said}", transient=True)
        message = f"Prometheus at {self.url} answers {answer.status}: {said}"
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return StorageError(message, hint="tell how to log in, by a file as promtool --http.config.file takes it")
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return StorageError(message, transient=True)
        return StorageError(message, hint=_EXPECTED)
