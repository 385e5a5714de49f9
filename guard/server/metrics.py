"""What the server counts, for Prometheus. Every label has few values, and none is a client's word.

This module does not know who reads them.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from guard import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from guard.live import Alarm
    from guard.live.notify import Outcome
    from guard.server.load import Load
    from guard.verdict import Verdict

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

BackendName = Literal["primary", "fallback"]
"""Which backend: the one that is guarded, or the one that stands in for it."""

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds."""


class Metrics:
    """The numbers of one app, in a registry of their own.

    Args:
        load: how busy the server is.
    """

    def __init__(self, load: Load) -> None:
        """Begin at zero."""
        self._registry = CollectorRegistry()
        self._requests = self._counter(
            "guard_requests", "Requests answered, by route and status.", ["route", "status"]
        )
        self._decisions = self._counter(
            "guard_decisions",
            "Exchanges judged, by intended action, security class and route.",
            ["action", "security_class", "route"],
        )
        self._reloads = self._counter(
            "guard_policy_reloads", "Attempts to load the policies anew.", ["outcome"]
        )
        self._answers = self._counter(
            "guard_backend_answers",
            "Answers of the backend, and of the one that stands in for it.",
            ["backend"],
        )
        self._deliveries = self._counter(
            "guard_webhook_deliveries",
            "Alarms told to the webhook (delivered), tries that failed, and alarms given up.",
            ["outcome"],
        )
        self._request_seconds = self._histogram(
            "guard_request_seconds", "From a request's headers to its answer's end."
        )
        self._judgement_seconds = self._histogram(
            "guard_judgement_seconds", "What judging one exchange took, with the wait for a thread."
        )
        self._policy_stale = self._gauge(
            "guard_policy_stale", "1 where the policy files changed and are not usable, else 0."
        )
        self._gauge("guard_in_flight", "Requests being served.").set_function(
            lambda: load.in_flight
        )
        self._gauge("guard_waiting", "Requests read or waiting for their turn.").set_function(
            lambda: load.waiting
        )
        info = Gauge("guard_build_info", "Always 1.", ["version"], registry=self._registry)
        info.labels(__version__).set(1)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)

    def follow(self, alarms: Callable[[], Iterable[tuple[str, Alarm]]]) -> None:
        """Show the alarms that stand when the numbers are read, each with its live state's name."""
        self._registry.register(_Alarms(alarms))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def decision(self, verdict: Verdict, route: str) -> None:
        """Count one verdict."""
        self._decisions.labels(verdict.intended, verdict.security_class, route).inc()

    def answer(self, backend: BackendName) -> None:
        """Count one answer of a backend."""
        self._answers.labels(backend).inc()

    def delivery(self, outcome: Outcome) -> None:
        """Count how telling the webhook ended, or one try of it."""
        self._deliveries.labels(outcome).inc()

    def reload(self, *, ok: bool) -> None:
        """Count one attempt to load the policies anew."""
        self._reloads.labels("ok" if ok else "failed").inc()
        self._policy_stale.set(0 if ok else 1)

    @contextmanager
    def judging(self, route: str) -> Iterator[None]:
        """Measure how long the body takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._judgement_seconds.labels(route).observe(time.perf_counter() - began)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ["route"], registry=self._registry, buckets=_BUCKETS)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)


class _Alarms(Collector):
    """The alarms that stand now: one that was cleared has no number any more."""

    def __init__(self, alarms: Callable[[], Iterable[tuple[str, Alarm]]]) -> None:
        self._alarms = alarms

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield the names, so that none need be standing to know them."""
        yield from self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield a 1 for each, and how much of it says nothing of the model."""
        standing, unjudged = self._families()
        for name, alarm in self._alarms():
            labels = [name, alarm.category, alarm.action]
            standing.add_metric(labels, 1)
            unjudged.add_metric(labels, alarm.unjudged / max(1, alarm.exceedances))
        yield standing
        yield unjudged

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        labels = ["name", "category", "action"]
        text = "1 for each alarm that stands: live state, category and what it does."
        failed = "Share of its exceedances in which a detector failed, 0 to 1."
        return (
            GaugeMetricFamily("guard_alarm_standing", text, labels=labels),
            GaugeMetricFamily("guard_alarm_unjudged_ratio", failed, labels=labels),
        )
