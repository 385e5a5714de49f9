"""The server's log: JSON lines, and never a text, a key, a header or a URL of a request."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from guard.server import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.server.guards import Judges

MARKER = "SENTINEL"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Send the process's log to a string while the test runs."""
    root, silent = logging.getLogger(), [logging.getLogger(name) for name in logs._SILENT]
    before = (root.handlers, root.level, [logger.level for logger in silent])
    stream = io.StringIO()
    logs.configure("debug", stream)
    yield stream
    root.handlers, level, levels = before
    root.setLevel(level)
    for logger, old in zip(silent, levels, strict=True):
        logger.setLevel(old)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the log's lines, each of which must be JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail() -> None:
    """Raise an error with a cause, each of which quotes something."""
    try:
        _ = os.environ[MARKER]
    except KeyError as error:
        raise ValueError(MARKER) from error


class TestOwnEvents:
    """Events of this package."""

    def test_json(self, stream: io.StringIO) -> None:
        """An event is one line with level, time and what is bound to the request."""
        with structlog.contextvars.bound_contextvars(request_id="req_1"):
            structlog.get_logger("guard").warning("guard.blocked", record="a", text="é\n\ud800")
        (line,) = lines(stream)
        assert line["event"] == "guard.blocked"
        assert (line["level"], line["request_id"], line["record"]) == ("warning", "req_1", "a")
        assert line["timestamp"].endswith("Z")

    def test_level(self, stream: io.StringIO) -> None:
        """Events below the level are left out."""
        logs.configure("error", stream)
        structlog.get_logger("guard").warning("guard.blocked")
        assert stream.getvalue() == ""

    def test_exceptions(self, stream: io.StringIO) -> None:
        """Of an exception its type, its causes' and its place are logged, never its message."""
        try:
            fail()
        except ValueError:
            structlog.get_logger("guard").exception("guard.request_failed")
        (line,) = lines(stream)
        assert line["error"][:2] == ["ValueError", "KeyError"]
        assert line["raised_at"][-1].startswith("test_logs.py:")
        assert MARKER not in stream.getvalue()


class TestOthers:
    """Log lines of other packages."""

    def test_templates_stay_and_values_go(self, stream: io.StringIO) -> None:
        """A template is kept without its values; a finished message is not kept at all."""
        logger = logging.getLogger("somebody.else")
        logger.warning("read %s in %d s", MARKER, 5)
        logger.error(f"read {MARKER}")  # noqa: G004  # as others do
        first, second = lines(stream)
        assert first["event"] == "read %s in %d s"
        assert second["event"] == "a message that is not logged"
        assert second["at"].startswith("test_logs:")
        assert (first["logger"], second["level"]) == ("somebody.else", "error")
        assert MARKER not in stream.getvalue()

    def test_exceptions(self, stream: io.StringIO) -> None:
        """An exception that another package logs is cut down, too."""
        try:
            fail()
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
        (line,) = lines(stream)
        assert line["event"] == "Exception in ASGI application\n"
        assert line["error"][:2] == ["ValueError", "KeyError"]
        assert MARKER not in stream.getvalue()

    @pytest.mark.parametrize("name", ["httpx2", "httpcore2.http11", "uvicorn.access"])
    def test_those_that_log_requests_are_silent(self, stream: io.StringIO, name: str) -> None:
        """Clients and access logs write addresses, headers and bodies; they write nothing."""
        logging.getLogger(name).error("HTTP Request: %s %s", "GET", f"http://x/?key={MARKER}")
        assert stream.getvalue() == ""

    async def test_tasks_that_nobody_awaits(self, stream: io.StringIO) -> None:
        """The event loop's report quotes the exception; only its place is kept."""
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": f"task {MARKER}", "exception": ValueError(MARKER)})
        (line,) = [each for each in lines(stream) if each["level"] == "error"]
        assert line["logger"] == "asyncio"
        assert line["error"] == ["ValueError"]
        assert MARKER not in stream.getvalue()


class TestSession:
    """A server in which everything that may go wrong does."""

    def test_an_endpoint_that_crashes(
        self,
        stream: io.StringIO,
        serve: Callable[..., Any],
        make_judges: Callable[..., Judges],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The client reads a 500 with an id, the log has the id and the place, nobody the text."""
        from guard.server import checks

        def crash(_: object) -> None:
            raise RuntimeError(MARKER)

        monkeypatch.setattr(checks, "verdict_body", crash)
        client = serve(make_judges())
        answer = client.post("/v1/guard/check", json={"response": MARKER})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        request_id = answer.headers["x-request-id"]
        (line,) = [each for each in lines(stream) if each["event"] == "guard.request_failed"]
        assert line["request_id"] == request_id
        assert line["error"] == ["RuntimeError"]
        assert MARKER not in stream.getvalue() + answer.text
        assert sys.exc_info() == (None, None, None)


class TestEmbedded:
    """An app inside a program that configures its own logging, or none."""

    def test_where_events_go(
        self,
        serve: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """They go to the logger `guard`, without any text, and none to standard output."""
        from guard.server import checks

        def crash(_: object) -> None:
            raise RuntimeError(MARKER)

        caplog.set_level("INFO", "guard")
        monkeypatch.setattr(checks, "verdict_body", crash)
        answer = serve().post("/v1/guard/check", json={"response": MARKER})
        assert answer.status_code == 500
        messages = [each.getMessage() for each in caplog.records if each.name == "guard"]
        events = [message.partition(" ")[0] for message in messages]
        assert events == ["guard.request_failed", "guard.request"]
        assert "error=['RuntimeError']" in messages[0]
        assert f"request_id='{answer.headers['x-request-id']}'" in messages[0]
        assert MARKER not in caplog.text
        assert "guard.request" not in capfd.readouterr().out
