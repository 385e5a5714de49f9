"""What the tests of the server share: apps with scripted guards, served on a real port."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from guard.detectors.personal import personal_data_detector
from guard.detectors.secrets import secret_detector
from guard.server.app import create_app
from guard.server.guards import Judges
from guard.server.scripted import serve_in_thread
from guard.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fastapi import FastAPI

    from guard.detectors.base import Detector
    from guard.security_class import SecurityClass


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.upper().startswith("GUARD_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def make_judges(
    make_class: Callable[..., SecurityClass], word_detector: Callable[..., Detector]
) -> Callable[..., Judges]:
    """Return the maker of judges that fire on words, and redact secrets and personal data."""

    def make(*detectors: Detector, journal: Any = None, live: Any = None, **changes: Any) -> Judges:
        limits = dict(make_class().limits) | {
            "secret_leak": {"flag": 0.3, "act": 0.5, "remedy": "redact"},
            "pii_leak": {"flag": 0.4, "act": 0.85, "remedy": "redact"},
        }
        return Judges.of(
            make_class(**({"limits": limits} | changes)),
            detectors or (secret_detector(), personal_data_detector(), word_detector()),
            journal=journal,
            live=live,
            redactor=str,
        )

    return make


@pytest.fixture
def make_app(make_judges: Callable[..., Judges]) -> Callable[..., FastAPI]:
    """Return the maker of apps; `judges` are those of every class, unless `load` makes them."""

    def make(
        judges: Judges | None = None,
        load: Callable[[], Mapping[str, Judges]] | None = None,
        **settings: Any,
    ) -> FastAPI:
        given = ServerSettings(**settings)
        there = judges or make_judges()
        return create_app(given, load=load or (lambda: dict.fromkeys(given.sources, there)))

    return make


@pytest.fixture
def serve(make_app: Callable[..., FastAPI]) -> Iterator[Callable[..., httpx2.Client]]:
    """Serve apps on real ports while the test runs; return a client for each."""
    with ExitStack() as stack:

        def start(judges: Judges | None = None, **settings: Any) -> httpx2.Client:
            """Serve an app of `make_app`."""
            app = make_app(judges, **settings)
            url = stack.enter_context(serve_in_thread(app)).url
            return stack.enter_context(httpx2.Client(base_url=url, timeout=30))

        yield start
