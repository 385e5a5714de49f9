"""Probes and numbers: whether the process lives, whether it can judge, what it counted.

This module does not know what is judged for clients.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel
from starlette.responses import Response

from guard.server.errors import Json
from guard.server.guards import Fallback  # noqa: TC001  # pydantic reads it
from guard.server.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from fastapi import FastAPI

    from guard.server.service import Service

LIVE: Final = "/health/live"
READY: Final = "/health/ready"
METRICS: Final = "/metrics"

PATHS: Final = (LIVE, READY, METRICS)
"""They are always answered: without a key, under any load, while the server stops."""

CACHE_SECONDS: Final = 1.0
"""How long the result of a self-test counts."""

_TRIAL: Final = "The harbour office opens at nine, and the ferry leaves from the second pier."


class Live(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether the server can judge.

    Attributes:
        status: `ready`; `draining` while it stops; `failing` where a detector does not work.
        security_class: the server's own class.
        detectors: how each fared in the self-test, by name.
        policies: `current`; `stale` where a policy file changed and is not usable, so that
            the one before it goes on. The log says why.
        policies_loaded: when those in use were loaded, ISO 8601.
        postures: how each class stands by its live risk: `normal`, or what its worst alarm does.
        fallback: `unused` where no alarm asks for another backend; `missing` where one would and
            there is none, so that it blocks everything; else `configured`.
    """

    status: Literal["ready", "draining", "failing"]
    security_class: str
    detectors: dict[str, str]
    policies: Literal["current", "stale"]
    policies_loaded: str
    postures: dict[str, str]
    fallback: Fallback


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the probes and the numbers to `app`."""
    probe = SelfTest(service)
    schema: dict[int | str, dict[str, Any]] = {503: {"model": Readiness}}

    async def live() -> Live:
        """Say that the process answers."""
        return Live()

    async def ready() -> Response:
        """Judge a sentence with every detector and say how that went."""
        state = await probe.result()
        return Json(state.model_dump(), 200 if state.status == "ready" else 503)

    async def metrics() -> Response:
        """Return the numbers in Prometheus's text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    app.get(LIVE, tags=["health"])(live)
    app.get(READY, tags=["health"], response_model=Readiness, responses=schema)(ready)
    app.get(METRICS, tags=["health"], response_class=_Text)(metrics)
    for path, answer in ((LIVE, live), (READY, ready), (METRICS, metrics)):
        app.head(path, include_in_schema=False)(answer)


class _Text(Response):
    media_type = "text/plain"


class SelfTest:
    """Judges a harmless sentence under every class, at most once a second however many ask."""

    def __init__(self, service: Service) -> None:
        """Test nothing yet."""
        self._service = service
        self._busy = asyncio.Lock()
        self._detectors: dict[str, str] = {}
        self._works = False
        self._until = 0.0

    async def result(self) -> Readiness:
        """Return how the server is."""
        async with self._busy:
            if time.monotonic() >= self._until:
                await self._test()
                self._until = time.monotonic() + CACHE_SECONDS
        guards = self._service.guards
        status: Literal["ready", "failing"] = "ready" if self._works else "failing"
        return Readiness(
            status="draining" if self._service.load.draining else status,
            security_class=guards.default.security_class.name,
            detectors=self._detectors,
            policies="stale" if guards.stale else "current",
            policies_loaded=guards.loaded.isoformat(timespec="seconds"),
            postures=guards.postures,
            fallback=guards.fallback,
        )

    async def _test(self) -> None:
        scorers = [judges.scorer for judges in self._service.guards.every]
        verdicts = await asyncio.gather(*(scorer.acheck(_TRIAL) for scorer in scorers))
        seen = [verdict.coverage for verdict in verdicts]
        said = [(name, str(how)) for each in seen for name, how in each.detectors.items()]
        # One that failed under any class has failed.
        self._detectors = dict(said) | {name: how for name, how in said if how != "ok"}
        complete = all(coverage.complete for coverage in seen)
        self._works = complete and set(self._detectors.values()) == {"ok"}
