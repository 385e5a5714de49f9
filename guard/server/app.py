"""The server's ASGI app: the service's endpoints, the probes, and the guarding proxy.

    uvicorn.run(create_app(load_settings(security_class="regulated")))

`guard serve` runs it with signals and logging (`guard.server.run`).

This module does not know what any endpoint does.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import httpx2
from fastapi import FastAPI
from starlette.middleware import Middleware

from guard import __version__
from guard.live.notify import Webhook
from guard.server import (
    checks,
    detector_api,
    errors,
    exchange_schema,
    health,
    litellm_api,
    moderations,
    proxy,
)
from guard.server.edge import Edge
from guard.server.guards import Guards, Loader, open_journal
from guard.server.keys import KeyCheck
from guard.server.limits import Headers, Limits
from guard.server.load import Load
from guard.server.metrics import Metrics
from guard.server.review.app import Review, is_page
from guard.server.review.labels import LabelFile
from guard.server.review.mount import Fork, RefusedAsPages
from guard.server.review.sessions import Keys
from guard.server.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from fastapi.telemetry import TelemetryConfig

    from guard.journal.store import Journal
    from guard.server.guards import Judges
    from guard.server.settings import ServerSettings

OWN: Final = (checks.PATH, moderations.PATH, detector_api.PATH, litellm_api.PATH)
"""The paths of the service's endpoints."""

_DRAIN_SECONDS: Final = 5.0
"""How long the webhook may go on telling of alarms when the server ends."""

_NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI would hand every request's path and more to whichever exporter it finds."""

_ABOUT: Final = (
    "Judges what language models say, under a security class. "
    "Errors are in the form that the path's SDK expects."
)


def create_app(
    settings: ServerSettings, load: Callable[[], Mapping[str, Judges]] | None = None
) -> FastAPI:
    """Return the app.

    Args:
        settings: the process's settings.
        load: makes the guards, by the source of their class; by default from the settings.

    Raises:
        ConfigurationError: everything that is wrong with policies and model.
        JournalError: the journal cannot be opened.
    """
    counts = Load(settings)
    metrics = Metrics(counts)
    webhook = _webhook(settings, metrics)
    notify = () if webhook is None else (webhook,)
    journal = open_journal(settings) if load is None or settings.review else None
    guards = Guards(load or Loader(settings, journal, notify), settings, metrics)
    service = Service(settings, guards, metrics, counts)
    backend = _backend(settings) if settings.upstream else None
    review = _review(settings, journal)
    pages: list[Review] = [] if review is None else [review]

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(guards.watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for end in service.at_end:
                end()
            if backend is not None:
                await backend.aclose()
            try:
                await asyncio.to_thread(guards.close)
            finally:
                # Last: what was delivered just now may have raised an alarm.
                if webhook is not None:
                    await asyncio.to_thread(webhook.close, _DRAIN_SECONDS)

    app = FastAPI(
        title="Clearance",
        description=_ABOUT,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=_NO_TELEMETRY,
        middleware=[
            Middleware(Edge, metrics, quiet=health.PATHS),
            *(Middleware(RefusedAsPages, each) for each in pages),
            Middleware(Headers, settings),
            Middleware(
                KeyCheck,
                settings.keys,
                public=health.PATHS,
                local=not settings.open,
                keyless=is_page if pages else _nothing,
            ),
            Middleware(Limits, settings, counts, unlimited=health.PATHS, timed=OWN),
            *(Middleware(Fork, each) for each in pages),
        ],
    )
    app.state.service = service
    errors.add_handlers(app)
    for endpoint in (health, checks, moderations, detector_api, litellm_api):
        endpoint.add_routes(app, service)
    _describe_exchange(app)
    if backend is not None:
        # Last: it takes every path that is left.
        proxy.add_routes(app, service, backend)
    return app


def _nothing(_: str) -> bool:
    return False


def _review(settings: ServerSettings, journal: Journal | None) -> Review | None:
    """Return the pages, where the settings ask for them.

    Raises:
        InputError: the file of the labels cannot be used.
    """
    if settings.review is None or journal is None:
        return None
    labels = None if settings.review.labels is None else LabelFile(settings.review.labels)
    if labels is not None:
        labels.known()
    return Review(journal, labels, Keys(settings.review.keys))


def _webhook(settings: ServerSettings, metrics: Metrics) -> Webhook | None:
    """Return what is told of alarms."""
    if settings.webhook is None or settings.webhook_secret is None:
        return None
    secret = settings.webhook_secret.get_secret_value()
    return Webhook(settings.webhook, secret, told=metrics.delivery)


def _backend(settings: ServerSettings) -> httpx2.AsyncHTTPTransport:
    """Return what sends to the backend; the environment's proxies are not its way."""
    limits = httpx2.Limits(max_connections=settings.max_in_flight)
    return httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)


def _describe_exchange(app: FastAPI) -> None:
    """Have the API's schema say what an exchange is, which FastAPI cannot know."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema.setdefault("components", {}).setdefault("schemas", {}).update(
                exchange_schema.SCHEMAS
            )
            body = schema["paths"][checks.PATH]["post"]["requestBody"]
            body["content"]["application/json"]["schema"] = {
                "$ref": "#/components/schemas/Exchange"
            }
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way
