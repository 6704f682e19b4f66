"""What is counted and what is logged: numbers, names and times, never a text that somebody wrote.

A `Telemetry` has a registry of its own, so that two servers in one process (or one test) count apart.
``docs/api.md`` lists the metrics.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    from cierzo.messages import Finish

_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BETWEEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Telemetry:
    """Counts of one server.

    Attributes:
        registry: What `page` prints; add to it what else belongs to this server.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("cierzo_requests_total", "Requests, by route and status.", "route", "status")
        self._seconds = Histogram(
            "cierzo_request_seconds", "Seconds from a request to its end.", ["route"], registry=self.registry
        )
        self._finishes = self._counter(
            "cierzo_replies_total",
            "Answers, by how they ended: eos_token, stop_sequence, length, cancelled, or the name of an error.",
            "reason",
        )
        self._prompt = self._counter("cierzo_prompt_tokens_total", "Tokens read.")
        self._answer = self._counter("cierzo_answer_tokens_total", "Tokens written.")
        self._cached = self._counter("cierzo_cached_tokens_total", "Tokens of prompts that the KV cache held already.")
        self._first = self._histogram("cierzo_time_to_first_token_seconds", "From request to first token.", _FIRST)
        self._between = self._histogram("cierzo_time_between_tokens_seconds", "Mean gap of an answer.", _BETWEEN)

    def gauge(self, name: str, words: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for when the metrics are read."""
        Gauge(name, words, registry=self.registry).set_function(value)

    def labels(self, name: str, words: str, value: Callable[[], Mapping[str, str]]) -> None:
        """Show names that are asked for when the metrics are read, as the labels of a 1."""
        self.registry.register(_Labels(name, words, value))

    def requested(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def began(self, seconds: float) -> None:
        """Count the first token of an answer."""
        self._first.observe(seconds)

    def ended(self, reason: str, tokens: int, decode: float, finish: Finish | None) -> None:
        """Count the end of an answer.

        Args:
            reason: A finish reason, ``cancelled``, or the name of an error's class.
            tokens: Tokens written.
            decode: Seconds from the first token to the last.
            finish: How the engine says it ended, if it said so.
        """
        self._finishes.labels(reason).inc()
        self._answer.inc(tokens)
        if tokens > 1:
            self._between.observe(decode / (tokens - 1))
        if finish is not None:
            self._prompt.inc(finish.prompt_tokens)
            self._cached.inc(finish.cached_tokens)

    def page(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, labels, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, words, buckets=buckets, registry=self.registry)


class _Labels(Collector):
    def __init__(self, name: str, words: str, value: Callable[[], Mapping[str, str]]) -> None:
        self._name, self._words, self._value = name, words, value

    def collect(self) -> Iterator[Metric]:
        labels = self._value()
        metric = GaugeMetricFamily(self._name, self._words, labels=list(labels))
        metric.add_metric(list(labels.values()), 1)
        yield metric


class JsonLines(logging.Formatter):
    """One JSON object a line. What a record carries in ``fields`` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__  # not its text, which may quote what somebody wrote
            line["where"] = _where(record)
        return json.dumps(line, ensure_ascii=True, default=str)


def _where(record: logging.LogRecord) -> list[str]:
    places = []
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None:
        places.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places[-6:]
