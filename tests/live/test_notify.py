"""The webhook: signed, tried again, never in the way; against a real server on loopback."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from structlog.testing import capture_logs

from guard.errors import ConfigurationError
from guard.live.alarms import Alarm, Transition, raised
from guard.live.notify import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    Webhook,
    sign,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "a secret of the tests"


def transition(category: str = "bad_advice") -> Transition:
    """Return the raising of an alarm."""
    alarm = Alarm(category, "tighten", "change", 1.7e9, 0, 900, 12, 4.2, 1.01)
    return raised("chat", alarm, {})


class Receiver:
    """A server that answers with the statuses it is given, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        """Listen on a free port of loopback."""
        self.requests: list[tuple[dict[str, str], bytes]] = []
        left = list(statuses)
        requests = self.requests

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                requests.append((dict(self.headers), body))
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alarms"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    """Return the maker of receivers."""
    made: list[Receiver] = []

    def make(*statuses: int) -> Receiver:
        made.append(Receiver(*statuses))
        return made[-1]

    yield make
    for each in made:
        each.close()


class TestDelivery:
    """What arrives."""

    def test_is_signed_json(self, receiver: Callable[..., Receiver]) -> None:
        """The receiver can verify it and reads the whole transition."""
        server = receiver(204)
        hook = Webhook(server.url, SECRET)
        hook(transition())
        hook.close()

        ((headers, body),) = server.requests
        assert verify(SECRET.encode(), headers[TIME_HEADER], body, headers[SIGNATURE_HEADER])
        assert Transition.from_dict(json.loads(body)) == transition()
        assert headers[ID_HEADER] == "chat/bad_advice/0/raised"

    def test_is_tried_again(self, receiver: Callable[..., Receiver]) -> None:
        """A server that is not well gets it again, once it is well."""
        server = receiver(503, 429, 200)
        hook = Webhook(server.url, SECRET)
        with capture_logs() as events:
            hook(transition())
            hook.close(timeout=20)

        assert len(server.requests) == 3
        assert [e["attempt"] for e in events] == [1, 2]
        assert {body for _, body in server.requests} == {server.requests[0][1]}

    def test_is_not_tried_again_where_it_is_refused(
        self, receiver: Callable[..., Receiver]
    ) -> None:
        """A refusal is final, and is logged as a loss."""
        server = receiver(403)
        hook = Webhook(server.url, SECRET)
        with capture_logs() as events:
            hook(transition())
            hook.close()

        assert len(server.requests) == 1
        assert events[-1]["event"] == "guard.live.webhook_dropped"

    def test_does_not_wait(self) -> None:
        """Telling of an alarm takes no time where nobody listens; a full queue is logged."""
        hook = Webhook("http://127.0.0.1:9/", SECRET, waiting=2, attempts=2)
        with capture_logs() as events:
            begin = time.monotonic()
            for number in range(6):
                hook(transition(f"c{number}"))
            took = time.monotonic() - begin
            hook.close(timeout=20)

        assert took < 0.4
        dropped = [e for e in events if e["event"] == "guard.live.webhook_dropped"]
        assert {e["reason"] for e in dropped} >= {"queue full"}
        assert len(dropped) == 6

    def test_each_end_is_told(self, receiver: Callable[..., Receiver]) -> None:
        """What is counted: deliveries, failed tries, and what is given up."""
        told: list[str] = []
        hook = Webhook(receiver(503, 200, 403).url, SECRET, told=told.append)
        for name in ("first", "second"):
            hook(transition(name))
        hook.close(timeout=20)
        assert told == ["failed", "delivered", "failed", "dropped"]

    def test_what_the_receiver_says_is_not_read(self) -> None:
        """An answer without an end is an answer: it takes no memory, and the next one is sent."""
        ends = threading.Event()

        class Endless(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(200)
                self.end_headers()
                # Until the one who asked goes away.
                with contextlib.suppress(OSError):
                    while not ends.is_set():
                        self.wfile.write(b"x" * 65536)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        told: queue.Queue[str] = queue.Queue()
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            hook = Webhook(f"http://127.0.0.1:{server.server_port}/", SECRET, told=told.put)
            try:
                hook(transition("one"))
                hook(transition("two"))
                assert [told.get(timeout=10) for _ in range(2)] == ["delivered"] * 2
            finally:
                ends.set()
                hook.close()
                server.shutdown()

    def test_no_log_line_shows_the_url(
        self, receiver: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The client logs what it asks for; a webhook's URL may hold a token."""
        caplog.set_level("DEBUG")
        server = receiver(200)
        for path in ("/T0/token-of-the-tests", "/T0?key=token-of-the-tests ü"):
            hook = Webhook(server.url + path, SECRET)
            hook(transition())
            hook.close()
        with httpx2.Client() as other:
            other.post(server.url, content=b"")
        assert len(server.requests) == 3
        assert "token-of-the-tests" not in caplog.text
        assert f"POST {server.url}" in caplog.text

    def test_an_error_of_the_network_does_not_show_the_url(self) -> None:
        """A webhook's URL often holds a token."""
        hook = Webhook("http://127.0.0.1:9/SENTINEL", SECRET, attempts=1)
        with capture_logs() as events:
            hook(transition())
            hook.close()
        assert [e["event"] for e in events] == [
            "guard.live.webhook_failed",
            "guard.live.webhook_dropped",
        ]
        assert "SENTINEL" not in str(events)

    @pytest.mark.parametrize(
        ("url", "secret"),
        [
            ("ftp://host/", SECRET),
            ("https://", SECRET),
            ("https://[h/", SECRET),
            ("https://h:port/", SECRET),
            ("https://h/", "short"),
        ],
    )
    def test_refuses_what_cannot_be_used(self, url: str, secret: str) -> None:
        """A strange URL and a secret that can be guessed are errors."""
        with pytest.raises(ConfigurationError):
            Webhook(url, secret)


class TestClosing:
    """What becomes of deliveries where the process ends."""

    def test_what_waits_is_delivered(self, receiver: Callable[..., Receiver]) -> None:
        """Everything that was told before is delivered, in order."""
        server = receiver(200)
        hook = Webhook(server.url, SECRET)
        names = [f"c{number}" for number in range(20)]
        for name in names:
            hook(transition(name))
        hook.close(timeout=20)
        assert [json.loads(body)["alarm"]["category"] for _, body in server.requests] == names

    def test_a_server_that_is_down_does_not_keep_it(self) -> None:
        """Closing takes its time and no more, and says what was lost, a full queue included."""
        told: list[str] = []
        hook = Webhook("http://127.0.0.1:9/", SECRET, waiting=3, told=told.append)
        with capture_logs() as events:
            for number in range(4):
                hook(transition(f"c{number}"))
            begin = time.monotonic()
            hook.close(timeout=0.2)
            took = time.monotonic() - begin
        lost = {e["id"] for e in events if e["event"] == "guard.live.webhook_dropped"}
        assert lost == {f"chat/c{number}/0/raised" for number in range(4)}
        assert told.count("dropped") == 4
        assert took < 10

    def test_nothing_is_taken_afterwards(self, receiver: Callable[..., Receiver]) -> None:
        """What comes too late is a loss that is logged; closing again does nothing."""
        server = receiver(200)
        hook = Webhook(server.url, SECRET)
        hook.close()
        with capture_logs() as events:
            hook(transition())
            hook.close()
        assert [e["reason"] for e in events] == ["closed"]
        assert not server.requests


class TestFork:
    """A server that makes its webhook and then forks."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no `fork` on this system")
    def test_the_child_delivers_what_is_its_own(self, receiver: Callable[..., Receiver]) -> None:
        """Its alarms arrive although its parent's thread is not there; its parent's come once."""
        server = receiver(200)
        script = """
import os, sys
from guard.live.alarms import Alarm, raised
from guard.live.notify import Webhook

hook = Webhook(sys.argv[1], sys.argv[2])

def tell(category):
    hook(raised("chat", Alarm(category, "tighten", "change", 1.7e9, 0, 900, 12, 4.2, 1.01), {}))

tell("bad_advice")
child = os.fork()
if not child:
    tell("violence")
    hook.close()
    os._exit(0)
os.waitpid(child, 0)
hook.close()
"""
        subprocess.run([sys.executable, "-c", script, server.url, SECRET], check=True, timeout=60)
        told = sorted(json.loads(body)["alarm"]["category"] for _, body in server.requests)
        assert told == ["bad_advice", "violence"]


class TestSignature:
    """What a receiver accepts."""

    def test_covers_time_and_body(self) -> None:
        """Neither can be changed, and an old delivery is refused."""
        body, now = b'{"kind": "raised"}', 1_700_000_000
        good = sign(SECRET.encode(), str(now), body)

        def accepted(timestamp: str, body: bytes, signature: str, at: float = now) -> bool:
            return verify(SECRET.encode(), timestamp, body, signature, clock=lambda: at)

        assert accepted(str(now), body, good)
        assert not accepted(str(now + 1), body, good)
        assert not accepted(str(now), body + b" ", good)
        assert not accepted(str(now), body, good, at=now + 301)
        assert not accepted(str(now), body, "v1=é")
        assert not accepted("soon", body, sign(SECRET.encode(), "soon", body))
        assert not verify(b"another secret!!", str(now), body, good, clock=lambda: now)
