"""Serving an app in a thread: it starts, it stops, and it says why it does not."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest
from fastapi import FastAPI

from guard.errors import MissingExtraError
from guard.exchange import Choice
from guard.server.scripted import Delivery, Reply, ScriptedApp, serve_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REQUEST = {"input": "Hi.", "stream": True}


def servers() -> set[threading.Thread]:
    """Return the threads that serve now."""
    return {one for one in threading.enumerate() if one.name == "serve_in_thread"}


class TestServing:
    """A loopback port and a thread."""

    def test_leaves_nothing_behind(self) -> None:
        """After the context the thread has ended and the port is closed."""
        before = servers()
        with ScriptedApp().served() as app:
            assert httpx2.get(f"{app.url}/v1/models").status_code == 200
            assert len(servers() - before) == 1
        assert servers() == before
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{app.url}/v1/models")

    @pytest.mark.parametrize("delivery", [Delivery(pause=600.0), Delivery(holds_after=0)])
    def test_stops_while_an_answer_is_on_its_way(self, delivery: Delivery) -> None:
        """Neither a long pause nor a held stream keeps the server."""
        before = servers()
        with httpx2.Client() as client, ScriptedApp().served() as app:
            app.script("Hi.", Reply((Choice("Hello there."),), delivery=delivery))
            with client.stream("POST", f"{app.url}/v1/responses", json=REQUEST) as answer:
                raw = answer.iter_raw()
                next(raw)
                assert app.open_requests == 1
        app.wait_idle()
        assert servers() == before

    def test_counts_connections(self) -> None:
        """A client that keeps its connection counts, and one that closed does not."""
        with serve_in_thread(ScriptedApp()) as server:
            assert server.connections == 0
            with httpx2.Client() as client:
                client.get(f"{server.url}/v1/models")
                assert server.connections == 1

    def test_runs_an_app_s_lifespan(self) -> None:
        """Any ASGI app can be served, with what it does at its start and its end."""
        seen = []

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            seen.append("start")
            yield
            seen.append("end")

        app = FastAPI(lifespan=lifespan)
        with serve_in_thread(app) as server:
            assert httpx2.get(f"{server.url}/openapi.json").status_code == 200
        assert seen == ["start", "end"]

    def test_says_that_an_app_did_not_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """An app whose start fails is an error here, and its own message is in the log."""

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            raise OSError("no tea")
            yield

        app = FastAPI(lifespan=lifespan)
        with pytest.raises(RuntimeError, match="did not start"), serve_in_thread(app):
            pass
        assert "no tea" in caplog.text


class TestLogging:
    """Scripted faults are not worth a line; mistakes in a script are."""

    def test_is_silent_about_a_scripted_death(
        self, backend: ScriptedApp, http: httpx2.Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A connection that dies as its script says leaves no line."""
        backend.script("Hi.", Reply((Choice("Hello there."),), delivery=Delivery(dies_after=1)))
        with pytest.raises(httpx2.RemoteProtocolError):
            http.post("/v1/responses", json=REQUEST)
        backend.wait_idle()
        assert caplog.records == []

    def test_shows_a_mistake(
        self, backend: ScriptedApp, http: httpx2.Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A script that cannot be played is an error with its traceback."""
        backend.script("Hi.", Reply(changes={"output": [{"type": "message"}]}))
        with pytest.raises(httpx2.RemoteProtocolError):
            http.post("/v1/responses", json=REQUEST)
        backend.wait_idle()
        assert "KeyError: 'id'" in caplog.text
        assert backend.requests[0].outcome == "died"

    def test_leaves_the_process_s_logging_alone(self) -> None:
        """The server's loggers keep levels, handlers and propagation."""
        loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.access")]
        before = [(one.level, list(one.handlers), one.propagate) for one in loggers]
        with ScriptedApp().served() as app:
            httpx2.get(f"{app.url}/v1/models")
        assert before == [(one.level, list(one.handlers), one.propagate) for one in loggers]


class TestExtra:
    """The server is an optional dependency."""

    def test_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without uvicorn serving tells what to install."""
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        with (
            pytest.raises(MissingExtraError, match=r"clearance-guard\[server\]"),
            ScriptedApp().served(),
        ):
            pass

    def test_loads_no_server_and_no_sdk_by_itself(self) -> None:
        """The package can be imported where only the core is installed."""
        code = (
            "import sys, guard.server.scripted\n"
            "print([m for m in ('uvicorn', 'fastapi', 'openai', 'anthropic', 'httpx2', 'numpy')"
            " if m in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"
