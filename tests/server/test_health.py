"""Probes and numbers, and what they say while the server stops."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from guard.live import Alarm
from guard.server import health
from guard.server.edge import Edge
from guard.server.load import Load
from guard.server.metrics import Metrics
from guard.server.scripted import serve_in_thread
from guard.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.types import Message, Receive, Scope, Send

    from guard.detectors.base import Finding, Passage
    from guard.server.guards import Judges

CHECK = "/v1/guard/check"


class Moody:
    """A detector that counts its calls and fails when it is told to."""

    name, version, categories = "moody", "1", ("to_block",)

    def __init__(self) -> None:
        """Work for now."""
        self.calls = 0
        self.fails = False
        self._lock = threading.Lock()

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return nothing, or fail."""
        with self._lock:
            self.calls += 1
        if self.fails:
            raise RuntimeError(passage.unit)
        return []


@pytest.fixture
def moody() -> Moody:
    """Return the only detector of the server."""
    return Moody()


@pytest.fixture
def client(
    moody: Moody, serve: Callable[..., httpx2.Client], make_judges: Callable[..., Judges]
) -> httpx2.Client:
    """Return a client of a server with that detector."""
    return serve(make_judges(moody, limits={"to_block": {"act": 0.9}}))


class TestReady:
    """`/health/ready`: a self-test through every detector."""

    def test_ready(self, client: httpx2.Client) -> None:
        """A server that can judge says so, and under which class."""
        answer = client.get("/health/ready")
        assert answer.status_code == 200
        body = answer.json()
        assert body["status"] == "ready"
        assert body["detectors"] == {"moody": "ok"}
        assert (body["security_class"], body["policies"]) == ("test", "current")

    def test_failing(
        self, client: httpx2.Client, moody: Moody, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server whose detector fails is not ready, and is again once it works."""
        monkeypatch.setattr(health, "CACHE_SECONDS", 0.0)
        moody.fails = True
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "failing")
        assert answer.json()["detectors"] == {"moody": "failed"}
        assert client.get("/health/live").status_code == 200
        moody.fails = False
        assert client.get("/health/ready").status_code == 200

    def test_every_class_is_tested(
        self,
        moody: Moody,
        make_app: Callable[..., FastAPI],
        make_judges: Callable[..., Judges],
    ) -> None:
        """A server is not ready where a detector of a route's class fails."""
        limits = {"to_block": {"act": 0.9}}
        fine = make_judges(Moody(), limits=limits)
        other = make_judges(moody, limits=limits)
        moody.fails = True
        app = make_app(
            load=lambda: {"public": fine, "critical": other},
            routes=[{"path": "/v1/responses", "security_class": "critical"}],
        )
        with serve_in_thread(app) as served:
            answer = httpx2.get(f"{served.url}/health/ready", timeout=30)
        assert (answer.status_code, answer.json()["status"]) == (503, "failing")
        assert answer.json()["detectors"] == {"moody": "failed"}

    def test_cached(self, client: httpx2.Client, moody: Moody) -> None:
        """However many ask, the test runs about once a second."""
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.get("/health/ready"), range(40)))
        assert {answer.status_code for answer in answers} == {200}
        assert 1 <= moody.calls <= 2 + (time.monotonic() - began) / health.CACHE_SECONDS

    def test_the_real_model(self, serve: Callable[..., httpx2.Client]) -> None:
        """With the bundled model and packs every detector has to answer."""
        from guard.server.guards import Loader
        from guard.server.settings import ServerSettings

        client = serve(load=Loader(ServerSettings(), None))
        detectors = client.get("/health/ready").json()["detectors"]
        assert len(detectors) == 4
        assert set(detectors.values()) == {"ok"}


class TestDraining:
    """A server that stops."""

    def test_what_it_says(self, make_app: Callable[..., FastAPI]) -> None:
        """It lives, it is not ready, and it takes nothing new; what is told to come back closes."""
        app = make_app()
        with serve_in_thread(app) as server, httpx2.Client(base_url=server.url) as client:
            app.state.service.load.draining = True
            assert client.get("/health/live").status_code == 200
            ready = client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            answer = client.post(CHECK, json={"response": "Hi."})
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "draining"
            assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")


class TestMetrics:
    """`/metrics`: well-formed, with few labels."""

    @staticmethod
    def samples(client: httpx2.Client) -> dict[str, dict[tuple[str, ...], float]]:
        """Return every number by name and labels."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(client.get("/metrics").text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
        return found

    def test_counts(self, serve: Callable[..., httpx2.Client]) -> None:
        """Verdicts count by what the class intended, requests by route and status."""
        client = serve()
        for response in ("Fine.", "zblock", "zblock"):
            client.post(CHECK, json={"response": response})
        client.post("/v1/moderations", json={"input": "zblock"})
        client.post(CHECK, json={})
        found = self.samples(client)
        assert found["guard_decisions_total"] == {
            ("allow", CHECK, "test"): 1,
            ("block", CHECK, "test"): 2,
            ("block", "/v1/moderations", "test"): 1,
        }
        assert found["guard_requests_total"][CHECK, "200"] == 3
        assert found["guard_requests_total"][CHECK, "400"] == 1
        assert found["guard_judgement_seconds_count"] == {(CHECK,): 3, ("/v1/moderations",): 1}
        assert 0 < found["guard_request_seconds_sum"][(CHECK,)] < 60

    def test_an_alarm_of_failed_detectors_is_told_from_one_of_the_model(self) -> None:
        """The share of what raised it that nobody could judge stands beside the alarm."""
        metrics = Metrics(Load(ServerSettings()))
        alarm = Alarm("violence", "notify", "life", 1.7e9, 0, 90, 4, 9.5, 0.5, unjudged=3)
        metrics.follow(lambda: [("chat", alarm)])

        labels = '{action="notify",category="violence",name="chat"}'
        assert f"guard_alarm_unjudged_ratio{labels} 0.75" in metrics.text().decode()

    def test_whoever_has_an_answer_finds_it_counted(self) -> None:
        """A request is counted before its answer's end leaves, and once."""
        metrics = Metrics(Load(ServerSettings()))
        read: list[bytes] = []

        async def app(_: Scope, __: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await send({"type": "http.response.body", "body": b"b"})

        async def send(_: Message) -> None:
            read.append(metrics.text())

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        scope = {"type": "http", "path": "/", "method": "GET", "headers": []}
        asyncio.run(Edge(app, metrics, quiet=())(scope, receive, send))
        line = b'guard_requests_total{route="other",status="204"} 1.0'
        assert [line in text for text in (*read, metrics.text())] == [False, False, True, True]

    def test_labels_are_bounded(self, serve: Callable[..., httpx2.Client]) -> None:
        """No client can make a label: unknown paths and methods are one."""
        client = serve()
        for number in range(30):
            client.get(f"/v1/path-{number}")
            client.request(f"VERB{number}", CHECK)
        routes = {labels[0] for labels in self.samples(client)["guard_requests_total"]}
        assert routes <= {"other", CHECK, "/metrics"}

    def test_each_app_has_its_own(self, serve: Callable[..., httpx2.Client]) -> None:
        """Two apps in one process do not count together."""
        first, second = serve(), serve()
        first.post(CHECK, json={"response": "Fine."})
        assert "guard_decisions_total" not in self.samples(second)
