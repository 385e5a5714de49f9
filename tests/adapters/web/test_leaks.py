"""The leak matrix of web applications: every byte on the socket, beside the plain application."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from guard.adapters.asgi import GuardASGI
from guard.adapters.wsgi import GuardWSGI
from guard.server.scripted import serve_in_thread
from tests.adapters.leak_lab import Lab, Way
from tests.adapters.leak_matrix import check
from tests.adapters.web.bodies import KINDS, OWN
from tests.adapters.web.served import Play, raw_request, served_wsgi, talk, unchunked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.engine import Guard
    from tests.adapters.leak_lab import Answers
    from tests.adapters.leak_matrix import Row
    from tests.adapters.web.bodies import Kind

NOTE = "Every byte on the socket, from an application that is really served by {}."

SERVERS = {"ASGI": "uvicorn", "WSGI": "the standard library's server"}


@dataclass
class Stage:
    """One server for all applications, which take turns on it.

    Attributes:
        app: the application that it serves now.
        url: where.
    """

    app: Any = None
    url: str = ""
    lock: Any = field(default_factory=threading.Lock)

    @contextmanager
    def served(self, title: str) -> Iterator[Stage]:
        """Serve while the context lasts."""

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await self.app(scope, receive, send)

        if title == "ASGI":
            with serve_in_thread(asgi) as server:
                self.url = server.url
                yield self
        else:
            with served_wsgi(self._play) as url:
                self.url = url
                yield self

    def _play(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)


STAGES = {title: Stage() for title in SERVERS}


def build(answers: Answers, guard: Guard | None) -> Any:
    """Return what an application says, and who guards it."""
    return answers[0], guard


async def read(title: str, kind: Kind, subject: Any, *, status: int = 200) -> bytes:
    """Return every byte that an application answers with, without the date."""
    choice, guard = subject
    pieces = kind.pieces(choice)
    length = [("content-length", str(len(pieces[0])))] if kind.whole else []
    play = Play([*kind.headers, *length], pieces, status=status)
    app: Any = play if title == "ASGI" else play.wsgi
    if guard is not None:
        middleware: Any = GuardASGI if title == "ASGI" else GuardWSGI
        app = middleware(app, guard, {"/chat": kind.form})
    STAGES[title].app = app
    came = talk(STAGES[title].url, raw_request("/chat", kind.asked))
    lines = unchunked(came).split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"date:"))


def lab_of(title: str) -> Lab:
    """Return the ways to read what a web application answers with."""
    lab = Lab(title, build)
    for name, kind in KINDS.items():
        kinds = ("text",) if name in OWN else ("text", "reasoning", "call")
        lab.ways.append(Way(name, partial(read, title, kind), kinds))
    way = partial(read, title, OWN["text"], status=500)
    lab.ways.append(Way("text, as an error", way, ("text",)))
    return lab


LABS = {title: lab_of(title) for title in SERVERS}

ways = [(title, way) for title, lab in LABS.items() for way in lab.ways]


@pytest.fixture(scope="module", autouse=True)
def _served() -> Iterator[None]:
    """Serve both stages."""
    with STAGES["ASGI"].served("ASGI"), STAGES["WSGI"].served("WSGI"):
        yield


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str], Row]:
    """Return the rows that were measured by now."""
    return {}


@pytest.mark.parametrize(("title", "way"), ways, ids=lambda each: getattr(each, "name", each))
async def test_nothing_leaks(
    title: str, way: Way, make_guard: Callable[..., Guard], measured: dict[tuple[str, str], Row]
) -> None:
    """What is blocked is read nowhere, what is rewritten only so, and all else as it is."""
    row = await LABS[title].measure(way, make_guard())
    measured[title, way.name] = row
    assert row.leaks == []


@pytest.mark.parametrize("title", SERVERS)
async def test_the_page_is_current(
    title: str, make_guard: Callable[..., Guard], measured: dict[tuple[str, str], Row]
) -> None:
    """The published table is what is measured."""
    lab = LABS[title]
    for way in lab.ways:
        if (title, way.name) not in measured:
            measured[title, way.name] = await lab.measure(way, make_guard())
    rows = [measured[title, way.name] for way in lab.ways]
    check(title, NOTE.format(SERVERS[title]), rows)
