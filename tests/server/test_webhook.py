"""The server's webhook: told of alarms by the real loader, over a real port, never in the way."""

from __future__ import annotations

import io
import json
import logging
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
import structlog
from pydantic import SecretStr
from typer.testing import CliRunner

from guard.cli.live import app as live_commands
from guard.errors import ConfigurationError
from guard.live import Transition
from guard.live.notify import SIGNATURE_HEADER, TIME_HEADER, verify
from guard.server import logs
from guard.server.app import create_app
from guard.server.configuration import load_settings
from guard.server.scripted import serve_in_thread
from guard.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET: Final = "a-secret-SENTINEL-of-the-tests"
FINE: Final = "Water the basil from below."
POLICY: Final = """\
version: 1
classes:
  - name: watched
    rank: 3
    live: {action: notify}
    limits:
      harassment: {flag: 0.3, act: 0.9999, remedy: block}
    messages:
      en: {blocked: "No.", replaced: "Else."}
"""


class Receiver:
    """An app that keeps what is posted, and answers with the statuses it is given."""

    def __init__(self, *statuses: int) -> None:
        """Keep nothing yet; the last status is for ever."""
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self._statuses = list(statuses or (204,))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        left = self._statuses
        status = left.pop(0) if len(left) > 1 else left[0]
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        self.requests.append((headers, body))

    @property
    def transitions(self) -> list[Transition]:
        """What was accepted, each with a signature that is good."""
        for headers, body in self.requests:
            timestamp, signature = headers[TIME_HEADER.lower()], headers[SIGNATURE_HEADER.lower()]
            assert verify(SECRET.encode(), timestamp, body, signature)
        return [Transition.from_dict(json.loads(body)) for _, body in self.requests]


class Running:
    """A server of a watched class, with what its webhook tells."""

    def __init__(self, stack: ExitStack, folder: Path, url: str) -> None:
        """Serve."""
        policy = folder / "watched.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        self.store = folder / "live.sqlite3"
        settings = ServerSettings(
            security_class=str(policy),
            journal="none",
            live=str(self.store),
            webhook=url,
            webhook_secret=SecretStr(SECRET),
        )
        app = create_app(settings)
        self._judges = app.state.service.guards.default
        self.http = stack.enter_context(
            httpx2.Client(base_url=stack.enter_context(serve_in_thread(app)).url, timeout=30)
        )

    def raise_alarm(self) -> None:
        """Have the live risk see what it cannot tolerate."""
        live = self._judges.guard.live
        for _ in range(5_000):
            if live.observe({"harassment": 9.0}):
                return
        raise AssertionError("no alarm was raised")

    def delivered(self, outcome: str = "delivered") -> float:
        """Return how often the metric says so."""
        text = self.http.get("/metrics").text
        name = f'guard_webhook_deliveries_total{{outcome="{outcome}"}} '
        return float(text.partition(name)[2].partition("\n")[0] or 0)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], tuple[Running, ExitStack]]]:
    """Return what starts a server; closing its stack stops it."""
    with ExitStack() as everything:

        def start(url: str) -> tuple[Running, ExitStack]:
            stack = everything.enter_context(ExitStack())
            return Running(stack, tmp_path, url), stack

        yield start


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Send the process's log to a string, as the server does, while the test runs."""
    root, silent = logging.getLogger(), [logging.getLogger(name) for name in logs._SILENT]
    before = (root.handlers, root.level, [logger.level for logger in silent])
    text = io.StringIO()
    logs.configure("debug", text)
    yield text
    root.handlers, level, levels = before
    root.setLevel(level)
    for logger, old in zip(silent, levels, strict=True):
        logger.setLevel(old)
    structlog.reset_defaults()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


class TestDelivery:
    """What the receiver gets."""

    def test_raised_and_cleared_by_a_person_elsewhere(
        self, run: Callable[[str], tuple[Running, ExitStack]]
    ) -> None:
        """An alarm is told, tried again, signed; so is its clearing by `guard live clear`."""
        receiver = Receiver(503, 204)
        with serve_in_thread(receiver, quiet=True) as there:
            server, _ = run(f"{there.url}/alarms?token=t")
            server.raise_alarm()
            until(lambda: server.delivered() == 1)
            assert server.delivered("failed") == 1
            given = ["clear", "all", "--store", str(server.store), "--name", "watched"]
            said = CliRunner().invoke(
                live_commands, [*given, "--by", "ada", "--reason", "repaired"]
            )
            assert said.exit_code == 0, said.output
            until(lambda: server.delivered() == 2)
        kinds = [(each.kind, each.name, each.by) for each in receiver.transitions]
        # The first one was refused once, and arrived again.
        assert kinds == [
            ("raised", "watched", ""),
            ("raised", "watched", ""),
            ("cleared", "watched", "ada"),
        ]

    def test_a_receiver_that_is_down_disturbs_nobody(
        self, run: Callable[[str], tuple[Running, ExitStack]], log: io.StringIO
    ) -> None:
        """Requests are answered, failures are counted, stopping says what was lost."""
        server, stack = run("http://127.0.0.1:9/SENTINEL")
        server.raise_alarm()
        until(lambda: server.delivered("failed") >= 1)
        answer = server.http.post("/v1/guard/check", json={"response": FINE})
        assert (answer.status_code, answer.json()["action"]) == (200, "allow")
        begin = time.monotonic()
        stack.close()
        assert time.monotonic() - begin < 30
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
        events = [line["event"] for line in lines]
        assert "guard.live.webhook_failed" in events
        assert "guard.live.webhook_dropped" in events
        # Neither the secret nor a token in the URL.
        assert "SENTINEL" not in log.getvalue()

    def test_what_waits_is_told_when_it_stops(
        self, run: Callable[[str], tuple[Running, ExitStack]]
    ) -> None:
        """An alarm of the last moment is delivered before the server is gone."""
        receiver = Receiver()
        with serve_in_thread(receiver, quiet=True) as there:
            server, stack = run(there.url)
            server.raise_alarm()
            stack.close()
        assert [each.kind for each in receiver.transitions] == ["raised"]


class TestSettings:
    """How it is configured."""

    def test_by_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The secret may be a variable, and neither it nor the URL shows."""
        monkeypatch.setenv("GUARD_WEBHOOK", "https://alarms.example/hook?token=SENTINEL")
        monkeypatch.setenv("GUARD_WEBHOOK_SECRET", SECRET)
        settings = load_settings()
        assert settings.webhook_secret is not None
        assert settings.webhook_secret.get_secret_value() == SECRET
        assert "SENTINEL" not in f"{settings!r} {settings}"

    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            ({"webhook": "https://a.example"}, "without `webhook_secret`"),
            ({"webhook_secret": SECRET}, "without `webhook`"),
            ({"webhook": "https://a.example", "webhook_secret": "SENTINEL"}, "at least 16"),
            ({"webhook": "ftp://SENTINEL", "webhook_secret": SECRET}, "not of the right form"),
            ({"webhook": "https://a.example", "webhook_secret": ["SENTINEL"]}, "webhook"),
        ],
    )
    def test_refused(self, given: dict[str, Any], problem: str) -> None:
        """What cannot be used is said at the start, and not quoted."""
        with pytest.raises(ConfigurationError, match=problem) as caught:
            load_settings(**given)
        assert "SENTINEL" not in str(caught.value)
