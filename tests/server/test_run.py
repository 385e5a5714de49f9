"""`guard serve` as a process: signals, reloads, keys, and a log that gives nothing away."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import openai
from typer.testing import CliRunner

from guard.cli import app
from guard.errors import MissingExtraError
from guard.policy import BUILTIN
from guard.server.keys import hash_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

CHECK = "/v1/guard/check"
KEY = "client-key-SENTINEL-long-enough"
ENTRY = "from guard.cli import main; main()"
START_SECONDS = 90

serve_module = sys.modules["guard.cli.serve"]  # the name is the command's in the package


class Server:
    """A running `guard serve`."""

    def __init__(self, *options: str, **variables: str) -> None:
        """Start it and wait until it listens."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("GUARD_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENTRY, "serve", "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
            env=clean | {"GUARD_JOURNAL": "none", "COLUMNS": "200", **variables},
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = self.until(r"listens on (http://\S+),")
        self.url = found[1]
        self.client = httpx2.Client(base_url=self.url, timeout=30)

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until the log matches; fail if it never does."""
        ends = time.monotonic() + START_SECONDS
        while not (found := re.search(pattern, "".join(self.log))):
            assert time.monotonic() < ends, "".join(self.log)
            assert self.process.poll() is None, "".join(self.log)
            time.sleep(0.02)
        return found

    def events(self) -> list[dict[str, Any]]:
        """Return the log's events so far."""
        return [json.loads(line) for line in self.log if line.startswith("{")]

    def ended(self, seconds: float = 30) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def close(self) -> None:
        """End it, whatever it does."""
        self.client.close()
        self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(*options: str, **variables: str) -> Iterator[Server]:
    """Run a server while the context lasts."""
    server = Server(*options, **variables)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def half_sent(server: Server, body: bytes) -> Iterator[socket.socket]:
    """Send a request but for its last byte; the server counts it as begun."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST {CHECK} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 30) as line:
        line.sendall(head.encode() + body[:-1])
        ends = time.monotonic() + 10
        while "guard_waiting 1.0" not in server.client.get("/metrics").text:
            assert time.monotonic() < ends
            time.sleep(0.02)
        yield line


class TestStopping:
    """SIGTERM and SIGINT."""

    def test_idle(self) -> None:
        """A server that does nothing stops at once, and well."""
        with running() as server:
            assert server.client.post(CHECK, json={"response": "Hi."}).status_code == 200
            server.process.send_signal(signal.SIGTERM)
            assert server.ended(10) == 0

    def test_what_runs_may_end(self) -> None:
        """What is under way is answered; meanwhile others get a 503, and probes say why."""
        with running() as server, half_sent(server, b'{"response": "Fine."}') as line:
            server.process.send_signal(signal.SIGTERM)
            ends = time.monotonic() + 10
            while server.client.get("/health/ready").status_code == 200:
                assert time.monotonic() < ends
            answer = server.client.post(CHECK, json={"response": "Hi."})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
            assert server.client.get("/health/live").status_code == 200
            line.sendall(b"}")
            assert line.recv(65_536).startswith(b"HTTP/1.1 200")
            assert server.ended(10) == 0

    def test_not_for_ever(self) -> None:
        """What does not end in the grace period is cut off, and the log says so."""
        with (
            running(GUARD_GRACE_SECONDS="0.5") as server,
            half_sent(server, b'{"response": "Fine."}'),
        ):
            server.process.send_signal(signal.SIGTERM)
            server.ended(15)
            events = {event["event"]: event for event in server.events()}
            assert events["guard.cut_off"]["waiting"] == 1

    def test_what_is_cut_off_is_told(self) -> None:
        """A request without an answer reads that the server stops, and so does the log."""
        with (
            running(GUARD_GRACE_SECONDS="0.5") as server,
            half_sent(server, b'{"response": "Fine."}') as line,
        ):
            server.process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(partial(line.recv, 65_536), b"")).decode()
            assert answer.startswith("HTTP/1.1 503 ")
            assert "\r\nretry-after: 1\r\n" in answer
            assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == "draining"
            server.ended(15)
            (seen,) = [e for e in server.events() if e["event"] == "guard.request"]
            assert seen["status"] == 503

    def test_twice(self) -> None:
        """A second signal does not wait."""
        with running() as server, half_sent(server, b'{"response": "Fine."}'):
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert server.process.poll() is None
            server.process.send_signal(signal.SIGINT)
            server.ended(15)


class TestDemo:
    """`guard serve --demo`."""

    def test_what_it_says_to_try_works(self) -> None:
        """The curl line that it prints gets a guarded answer, and so does OpenAI's client."""
        with running("--demo") as server:
            line = shlex.split(server.until(r"Try:  (curl .+)\n")[1])
            done = subprocess.run([*line, "--silent"], capture_output=True, check=True)
            said = json.loads(done.stdout)["choices"][0]["message"]["content"]
            assert "[redacted: pii leak]" in said
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
                asked = json.loads(line[-1])["messages"]
                chunks = client.chat.completions.create(
                    model="scripted", messages=asked, stream=True
                )
                pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
                assert "".join(filter(None, pieces)) == said


class TestReload:
    """SIGHUP."""

    def test_good_and_bad(self, tmp_path: Path) -> None:
        """The signal loads the file anew; a bad one is refused, named, and the old one goes on."""
        text = (BUILTIN / "internal.yaml").read_text(encoding="utf-8")
        path = tmp_path / "own.yaml"
        path.write_text(text.replace("name: internal", "name: first"), encoding="utf-8")
        with running("--class", str(path), GUARD_RELOAD_SECONDS="0") as server:
            assert self.name(server) == "first"
            path.write_text(text.replace("name: internal", "name: second"), encoding="utf-8")
            server.process.send_signal(signal.SIGHUP)
            server.until("guard.policies_loaded")
            assert self.name(server) == "second"
            path.write_text(text.replace("rank: 2", "rank: high"), encoding="utf-8")
            server.process.send_signal(signal.SIGHUP)
            server.until("guard.policies_refused")
            assert self.name(server) == "second"
            (event,) = [e for e in server.events() if e["event"] == "guard.policies_refused"]
            assert f"{path}:" in event["problems"][0]
            assert "rank" in event["problems"][0]

    @staticmethod
    def name(server: Server) -> str:
        """Return the class in use."""
        answer = server.client.post(CHECK, json={"response": "Hi."})
        return str(answer.json()["security_class"])


class TestLog:
    """What the log of a whole session holds, at the lowest level."""

    def test_nothing_of_any_request(self, tmp_path: Path) -> None:
        """Markers in prompts, answers, keys, headers, paths and queries are nowhere."""
        config = tmp_path / "guard.yaml"
        key = f"keys:\n  - {{name: desk, hash: '{hash_of(KEY)}'}}\n"
        config.write_text(key + "upstream_key: upstream-SENTINEL\nupstream: http://127.0.0.1:9\n")
        with running(
            "--config", str(config), "--class", "critical", GUARD_LOG_LEVEL="debug"
        ) as server:
            self.session(server)
            server.process.send_signal(signal.SIGTERM)
            server.ended()
            log = "".join(server.log)
        assert "SENTINEL" not in log
        events = [event["event"] for event in server.events()]
        assert events.count("guard.request") > 15
        assert "guard.blocked" in events
        assert {event.get("client") for event in server.events()} >= {"desk", ""}

    @staticmethod
    def session(server: Server) -> None:
        """Ask for everything, rightly and wrongly."""
        secret = "my password is SENTINEL-hunter2, the key AKIAIOSFODNN7EXAMPL2"
        client = server.client
        client.post(CHECK, json={"response": "SENTINEL"}, headers={"x-api-key": "wrong-SENTINEL"})
        client.headers.update({"authorization": f"Bearer {KEY}", "x-note": "SENTINEL"})
        bodies: list[tuple[str, Any]] = [
            (CHECK, {"prompt": "SENTINEL", "system": "SENTINEL", "response": secret}),
            (CHECK, {"response": {"SENTINEL": 1}}),
            (CHECK, {"choices": [{"tool_calls": [{"name": "SENTINEL"}]}]}),
            (CHECK, {"response": secret, "metadata": {"SENTINEL": "SENTINEL"}}),
            ("/v1/moderations", {"input": secret}),
            ("/v1/moderations", {"input": {"SENTINEL": 1}}),
            ("/api/v1/text/contents", {"contents": [secret]}),
            ("/beta/litellm_basic_guardrail_api", {"input_type": "response", "texts": [secret]}),
            ("/beta/litellm_basic_guardrail_api", {"input_type": "SENTINEL"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": secret}]}),
            ("/v1/messages?key=SENTINEL", {"messages": [{"role": "user", "content": secret}]}),
            ("/SENTINEL/path", {}),
        ]
        for path, body in bodies:
            client.post(path, json=body)
        for content in (b'{"SENTINEL', b"\xff SENTINEL", b"[" * 100 + b'"SENTINEL"'):
            client.post(CHECK, content=content, headers={"content-type": "application/json"})
        client.request("SENTINEL", CHECK)
        client.get("/health/ready?SENTINEL")
        client.get("/openapi.json", headers={"x-request-id": "SENTINEL"})
        with socket.create_connection((client.base_url.host, client.base_url.port), 10) as line:
            line.sendall(b"SENTINEL is no HTTP\r\n\r\n")
            line.recv(65_536)


class TestStart:
    """What is refused before anything is served."""

    def run(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a server that cannot start."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("GUARD_")}
        return subprocess.run(
            [sys.executable, "-c", ENTRY, "serve", "--port", "0", *options],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            env=clean | {"GUARD_JOURNAL": "none", **variables},
            check=False,
        )

    def test_settings(self) -> None:
        """Wrong settings end with 2 and every mend."""
        done = self.run("--host", "0.0.0.0", GUARD_LIMITS="1", GUARD_MAX_QUEUE="-1")
        assert done.returncode == 2
        assert "GUARD_LIMITS" in done.stderr
        assert "GUARD_MAX_QUEUE" in done.stderr
        assert "Traceback" not in done.stderr

    def test_policy(self, tmp_path: Path) -> None:
        """So does a wrong policy."""
        path = tmp_path / "bad.yaml"
        path.write_text("version: 1\nclasses: []\n", encoding="utf-8")
        done = self.run("--class", str(path))
        assert done.returncode == 2
        assert f"{path}:2" in done.stderr


class TestCommand:
    """The command's help, and hashing keys."""

    def test_help(self) -> None:
        """The help says how to try it, what is served, and how it is stopped."""
        shown = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["serve", "--help"]).stdout
        for word in ("--upstream", "--demo", "--class", "/v1/guard/check", "SIGHUP", "GUARD_PORT"):
            assert word in shown

    def test_hash_of_a_given_key(self) -> None:
        """A key from standard input is hashed, and not shown."""
        done = CliRunner().invoke(app, ["serve", "--hash-key"], input=f"{KEY}\n")
        assert done.stdout == f"{hash_of(KEY)}\n"
        assert KEY not in done.output

    def test_hash_of_a_new_key(self) -> None:
        """Without one, a key is made and shown this once, apart from its hash."""
        done = CliRunner().invoke(app, ["serve", "--hash-key"], input="\n")
        key = re.search(r"gk-\S+", done.stderr)
        assert key
        assert done.stdout == f"{hash_of(key[0])}\n"

    def test_a_missing_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the extra the command says how to install it."""
        monkeypatch.setattr(serve_module, "_EXTRA", ("fastapi", "not_installed_here"))
        done = CliRunner().invoke(app, ["serve"])
        assert isinstance(done.exception, MissingExtraError)
        assert "clearance-guard[server]" in str(done.exception)

    def test_a_short_key(self) -> None:
        """A key that could be guessed is refused."""
        done = CliRunner().invoke(app, ["serve", "--hash-key"], input="short\n")
        assert done.exit_code
