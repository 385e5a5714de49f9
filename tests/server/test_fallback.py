"""Two real backends: while an alarm asks for a `fallback` the second answers; no key crosses."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from typer.testing import CliRunner

from guard.cli.live import app as live_commands
from guard.errors import ConfigurationError
from guard.journal.store import Journal
from guard.server.app import create_app
from guard.server.configuration import load_settings
from guard.server.keys import hash_of
from guard.server.scripted import Reply, ScriptedApp, serve_in_thread
from guard.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROMPT: Final = "What grows in the shade?"
FIRST, SECOND = "Ferns, says the first.", "Ivy, says the second."
SECRET: Final = "The key is AKIAIOSFODNN7EXAMPL2."
UNREADABLE: Final = Reply(changes={"deep": json.loads("[" * 99 + "]" * 99)})
CHAT: Final = "/v1/chat/completions"
DESK: Final = "desk-key-that-is-long-enough"
KEYS: Final = {"first": "key-of-the-first-SENTINEL", "second": "key-of-the-second-SENTINEL"}
POLICY: Final = """\
version: 1
classes:
  - name: watched
    rank: 3
    live: {action: fallback, action_of: {violence: quarantine}}
    limits:
      harassment: {flag: 0.3, act: 0.9999, remedy: block}
      violence: {flag: 0.3, act: 0.9999, remedy: block}
      secret_leak: {flag: 0.3, act: 0.5, remedy: block}
    messages:
      en: {blocked: "[blocked]", replaced: "[replaced]"}
"""


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


class Deployment:
    """A server between two backends, as operators run it."""

    def __init__(self, stack: ExitStack, folder: Path, **settings: Any) -> None:
        """Serve all three."""
        self.first = stack.enter_context(ScriptedApp().served())
        self.second = stack.enter_context(ScriptedApp().served())
        self.first.script(PROMPT, FIRST)
        self.second.script(PROMPT, SECOND)
        self.policy = folder / "watched.yaml"
        self.policy.write_text(POLICY, encoding="utf-8")
        self.store = folder / "live.sqlite3"
        self.journal = folder / "rows.sqlite3"
        values: dict[str, Any] = {
            "security_class": str(self.policy),
            "journal": str(self.journal),
            "live": str(self.store),
            "upstream": self.first.url,
            "upstream_key": KEYS["first"],
            "fallback_upstream": self.second.url,
            "fallback_key": KEYS["second"],
            "keys": [{"name": "desk", "hash": hash_of(DESK)}],
        }
        app = create_app(ServerSettings(**(values | settings)))
        self.judges = app.state.service.guards.default
        url = stack.enter_context(serve_in_thread(app)).url
        headers = {"x-guard-key": DESK, "authorization": "Bearer of-the-client-SENTINEL"}
        self.http = stack.enter_context(httpx2.Client(base_url=url, timeout=30, headers=headers))

    def raise_alarm(self, category: str = "harassment", live: Any = None) -> None:
        """Have a live risk see what it cannot tolerate."""
        live = live or self.judges.guard.live
        for _ in range(5_000):
            if live.observe({category: 9.0}):
                return
        raise AssertionError("no alarm was raised")

    def clear(self, name: str = "watched") -> None:
        """Clear every alarm as a person does, and wait until the server has heard of it."""
        given = ["clear", "all", "--store", str(self.store), "--name", name]
        said = CliRunner().invoke(live_commands, [*given, "--by", "ada", "--reason", "repaired"])
        assert said.exit_code == 0, said.output
        until(lambda: self.posture() == "normal")

    def standing(self) -> set[tuple[str, ...]]:
        """Return the labels of every alarm that the numbers show as standing."""
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        (found,) = [each for each in families if each.name == "guard_alarm_standing"]
        assert {each.value for each in found.samples} <= {1}
        labels = ("name", "category", "action")
        return {tuple(each.labels[label] for label in labels) for each in found.samples}

    def posture(self) -> str:
        """Return how the class stands, as the server says."""
        found: str = self.http.get("/health/ready").json()["postures"]["watched"]
        return found

    def ask(self, **more: Any) -> httpx2.Response:
        """Ask for an answer."""
        body = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
        return self.http.post(CHAT, json=body | more)

    def said(self) -> str:
        """Return the answer's text."""
        answer = self.ask()
        assert answer.status_code == 200, answer.text
        message = answer.json()["choices"][0]["message"]
        text: str = message["content"] or message["refusal"]
        return text

    def answers(self, backend: str) -> float:
        """Return how many answers of a backend were counted."""
        name = f'guard_backend_answers_total{{backend="{backend}"}} '
        return float(self.http.get("/metrics").text.partition(name)[2].partition("\n")[0] or 0)


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Return what starts a server between two backends."""
    with ExitStack() as stack:
        yield lambda **settings: Deployment(stack, tmp_path, **settings)


class TestTheWay:
    """Where requests go."""

    def test_there_and_back(self, deploy: Callable[..., Deployment]) -> None:
        """From the alarm on the second answers, whatever it says, until a person clears it."""
        server = deploy()
        first_live = server.judges.guard.live
        assert server.said() == FIRST
        server.raise_alarm()
        seen = first_live.state().exchanges
        for _ in range(9):
            assert server.said() == SECOND
        assert (len(server.first.requests), len(server.second.requests)) == (1, 9)
        # None of it speaks for or against the first one.
        assert first_live.state().exchanges == seen
        assert first_live.state().alarms.keys() == {"harassment"}
        server.clear()
        assert server.said() == FIRST
        assert (server.answers("primary"), server.answers("fallback")) == (2, 9)

    def test_a_restart_does_not_send_them_back(self, deploy: Callable[..., Deployment]) -> None:
        """The alarm stands in the store; clearing is heard of though the first answers nothing."""
        before = deploy()
        before.raise_alarm()
        before.judges.guard.live.flush()
        server = deploy()
        assert server.said() == SECOND
        server.clear()
        assert server.said() == FIRST

    def test_streams(self, deploy: Callable[..., Deployment]) -> None:
        """A stream comes from the second, too, and says so in its header."""
        server = deploy()
        assert "x-guard-backend" not in server.ask(stream=True).headers
        server.raise_alarm()
        answer = server.ask(stream=True)
        assert answer.headers["x-guard-backend"] == "fallback"
        lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: {")]
        deltas = [json.loads(line)["choices"] for line in lines]
        said = "".join(c[0]["delta"].get("content") or "" for c in deltas if c)
        assert said == SECOND

    def test_what_is_not_guarded_stays(self, deploy: Callable[..., Deployment]) -> None:
        """Embeddings of another model would be of no use."""
        server = deploy()
        server.raise_alarm()
        server.http.post("/v1/embeddings", json={"model": "m", "input": "a"})
        server.http.get("/v1/models")
        assert (len(server.first.requests), len(server.second.requests)) == (2, 0)

    def test_what_no_backend_answered(
        self, deploy: Callable[..., Deployment], tmp_path: Path
    ) -> None:
        """An answer of ours is no backend's: it is not counted, and names none."""
        policy = tmp_path / "input.yaml"
        own = "    input: {limits: {secret_leak: {act: 0.5}}}\n    messages:"
        policy.write_text(POLICY.replace("    messages:", own), encoding="utf-8")
        server = deploy(security_class=str(policy))
        for backend in (server.first, server.second):
            if backend is server.second:
                server.raise_alarm()
            blocked = server.ask(messages=[{"role": "user", "content": SECRET}])
            unread = server.http.post(CHAT, content=b"{")
            assert not backend.requests
            backend.script(PROMPT, UNREADABLE)
            broken = server.ask()
            assert len(backend.requests) == 1
            assert [a.status_code for a in (blocked, unread, broken)] == [200, 400, 502]
            assert blocked.headers["x-guard-action"] == "block"
            assert not any("x-guard-backend" in a.headers for a in (blocked, unread, broken))
        assert (server.answers("primary"), server.answers("fallback")) == (0, 0)

    def test_one_that_is_down_is_an_error(self, deploy: Callable[..., Deployment]) -> None:
        """Nothing goes back to the first because the second cannot be reached."""
        server = deploy(fallback_upstream="http://127.0.0.1:9")
        server.raise_alarm()
        answer = server.ask()
        assert answer.status_code == 502
        assert "fallback" in answer.json()["error"]["message"]
        assert not server.first.requests


class TestWhatIsSent:
    """Keys, headers and models."""

    def test_no_key_crosses(self, deploy: Callable[..., Deployment]) -> None:
        """Each backend gets its own key alone, whatever a client sends and wherever."""
        server = deploy()
        shown = {
            "x-api-key": "of-the-client-SENTINEL",
            "api-key": "of-the-client-SENTINEL",
            "cookie": "session=of-the-client-SENTINEL",
            "openai-organization": "of-the-client-SENTINEL",
            "anthropic-version": "2023-06-01",
        }
        body = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
        query = "?key=of-the-client-SENTINEL"
        server.http.post(CHAT, json=body, headers=shown)
        server.raise_alarm()
        server.http.post(f"{CHAT}{query}", json=body, headers=shown)
        (first,), (second,) = server.first.requests, server.second.requests
        assert first.headers["authorization"] == f"Bearer {KEYS['first']}"
        assert second.headers["authorization"] == f"Bearer {KEYS['second']}"
        assert KEYS["second"] not in str(first)
        assert "SENTINEL" not in str(second).replace(KEYS["second"], "")
        assert DESK not in f"{first}{second}"
        assert second.headers["anthropic-version"] == "2023-06-01"
        assert second.json() == body

    def test_without_keys_of_ours(self, deploy: Callable[..., Deployment]) -> None:
        """A client's own key is for the backend that it asked."""
        server = deploy(upstream_key=None, fallback_key=None)
        server.said()
        server.raise_alarm()
        server.said()
        assert "SENTINEL" in server.first.requests[0].headers["authorization"]
        assert "authorization" not in server.second.requests[0].headers

    def test_the_model(self, deploy: Callable[..., Deployment]) -> None:
        """Another model may be named for it; else it is the one that the first would get."""
        routes = [{"path": "/v1", "upstream_model": "usual"}]
        for given, expected in (("spare", "spare"), (None, "usual")):
            server = deploy(live=None, routes=routes, fallback_model=given)
            server.raise_alarm()
            server.said()
            assert server.second.requests[0].json()["model"] == expected


class TestJudging:
    """The second's answers are judged like any, and followed for themselves."""

    def test_by_the_same_class(self, deploy: Callable[..., Deployment]) -> None:
        """What is bad is blocked, and the journal says which backend it came from."""
        server = deploy()
        server.first.script(PROMPT, SECRET)
        server.second.script(PROMPT, SECRET)
        assert server.said() == "[blocked]"
        server.raise_alarm()
        assert server.said() == "[blocked]"
        with closing(Journal(server.journal)) as journal:
            rows = sorted(journal.list(), key=lambda row: row.created)
        assert [row.metadata.get("backend") for row in rows] == [None, "fallback"]
        assert [row.security_class for row in rows] == ["watched", "watched"]

    def test_an_alarm_of_its_own_blocks(self, deploy: Callable[..., Deployment]) -> None:
        """Nobody stands in for it; clearing its own alarm has it answer again."""
        server = deploy()
        server.raise_alarm()
        server.said()
        own = server.judges.stand_in.live
        server.raise_alarm(live=own)
        assert server.said() == "[blocked]"
        given = ["clear", "all", "--store", str(server.store), "--name", "watched/fallback"]
        CliRunner().invoke(live_commands, [*given, "--by", "ada", "--reason", "repaired"])
        until(lambda: own.posture == "normal")
        assert server.said() == SECOND
        assert server.posture() == "fallback"

    def test_a_quarantine_is_one_for_both(self, deploy: Callable[..., Deployment]) -> None:
        """Whoever blocks everything does not mean all but one."""
        server = deploy()
        server.raise_alarm()
        assert server.said() == SECOND
        server.raise_alarm("violence")
        assert server.said() == "[blocked]"
        assert server.judges.stand_in.check("Fine.").action == "block"

    def test_what_does_not_pass_the_proxy_is_blocked(
        self, deploy: Callable[..., Deployment]
    ) -> None:
        """The server cannot know which model a text is from."""
        server = deploy()
        server.raise_alarm()
        answer = server.http.post("/v1/guard/check", json={"response": "Fine."})
        assert answer.json()["action"] == "block"


class TestNumbers:
    """`/metrics`, by which operators are woken."""

    def test_alarms_that_stand(self, deploy: Callable[..., Deployment]) -> None:
        """Each is a number of its own, of either backend, from the alarm on until it is cleared."""
        server = deploy()
        assert server.standing() == set()
        server.raise_alarm()
        server.raise_alarm(live=server.judges.stand_in.live)
        first = ("watched", "harassment", "fallback")
        assert server.standing() == {first, ("watched/fallback", "harassment", "fallback")}
        server.judges.guard.live.clear("all", by="ada", reason="repaired")
        assert server.standing() == {("watched/fallback", "harassment", "fallback")}

    def test_one_that_only_notifies(self, deploy: Callable[..., Deployment]) -> None:
        """The posture stays normal, so that the number is what tells of it."""
        server = deploy(security_class="public")
        server.raise_alarm("violence")
        assert server.standing() == {("public", "violence", "notify")}


class TestWithoutOne:
    """A class whose alarm asks for another backend where there is none."""

    def test_it_blocks_and_says_so(self, deploy: Callable[..., Deployment]) -> None:
        """At the start, to operators, and to whoever asks."""
        with capture_logs() as events:
            server = deploy(fallback_upstream=None, fallback_key=None)
        said = [event for event in events if event["event"] == "guard.no_fallback"]
        assert [event["classes"] for event in said] == [["watched"]]
        assert server.http.get("/health/ready").json()["fallback"] == "missing"
        server.raise_alarm()
        assert server.said() == "[blocked]"
        assert len(server.first.requests) == 1

    def test_with_one_nothing_is_said(self, deploy: Callable[..., Deployment]) -> None:
        """There is nothing to warn of."""
        with capture_logs() as events:
            server = deploy()
        assert "guard.no_fallback" not in [event["event"] for event in events]
        ready = server.http.get("/health/ready").json()
        assert (ready["fallback"], ready["postures"]) == ("configured", {"watched": "normal"})

    def test_where_no_alarm_asks_for_one(self, deploy: Callable[..., Deployment]) -> None:
        """A class that only notifies needs none."""
        assert deploy(security_class="public").http.get("/health/ready").json()["fallback"] == (
            "unused"
        )


class TestSettings:
    """What is said about settings that do not go together."""

    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            ({"fallback_key": "k"}, "`fallback_key` is given without"),
            ({"fallback_model": "m"}, "`fallback_model` is given without"),
            ({"fallback_deployed": {"model": "m"}}, "`fallback_deployed` is given without"),
            ({"fallback_upstream": "http://b"}, "without `upstream`"),
            ({"upstream": "http://a/", "fallback_upstream": "http://a"}, "it would stand in for"),
            (
                {"upstream": "http://a", "fallback_upstream": "http://b", "fallback_tag": "t"},
                "without `fallback_deployed`",
            ),
            (
                {
                    "upstream": "http://a",
                    "fallback_upstream": "http://b",
                    "fallback_model": "m",
                    "fallback_deployed": {"model": "n"},
                },
                "is another model",
            ),
            ({"upstream": "http://a", "fallback_upstream": "ftp://b"}, "not of the right form"),
        ],
    )
    def test_refused(self, given: dict[str, Any], problem: str) -> None:
        """Each is named with its mend."""
        with pytest.raises(ConfigurationError, match=problem):
            load_settings(**given)

    def test_the_same_backend_with_another_model(self) -> None:
        """One host may serve both."""
        settings = load_settings(
            upstream="http://a", fallback_upstream="http://a", fallback_model="spare"
        )
        assert settings.stand_in_model == "spare"

    def test_the_key_by_a_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is a secret, and does not show."""
        monkeypatch.setenv("GUARD_FALLBACK_KEY", "SENTINEL")
        settings = load_settings(upstream="http://a", fallback_upstream="http://b")
        assert settings.fallback_key is not None
        assert "SENTINEL" not in f"{settings!r}"
