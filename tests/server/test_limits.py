"""Limits over real sockets: bodies, headers, depth, time, and how many are served at a time."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.server.errors import Refused
from guard.server.limits import check_depth
from guard.server.scripted import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2
    from starlette.types import Receive, Scope, Send

    from guard.detectors.base import Finding, Passage
    from guard.server.guards import Judges

PATH = "/v1/guard/check"
JSON = {"content-type": "application/json"}


class Gate:
    """A detector that waits until it is let go, and counts who waits."""

    name, version, categories = "gate", "1", ("to_block",)

    def __init__(self) -> None:
        """Let nobody through yet."""
        self.waiting = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, _: Passage) -> list[Finding]:
        """Wait."""
        self.waiting.release()
        assert self.opened.wait(30)
        return []


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a gate that is open at the end of the test, whatever happens in it."""
    made = Gate()
    yield made
    made.opened.set()


def raw(client: httpx2.Client, data: bytes, *, wait: float = 10.0) -> tuple[int, Any]:
    """Send bytes over a socket; return the answer's status and its body as JSON."""
    with socket.create_connection((client.base_url.host, client.base_url.port), wait) as line:
        line.sendall(data)
        answer = b""
        while chunk := line.recv(65_536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def head(*lines: str) -> bytes:
    """Return a request's head."""
    first = (f"POST {PATH} HTTP/1.1", "host: x", "content-type: application/json")
    return "\r\n".join([*first, *lines, "", ""]).encode()


async def _large(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer whatever is asked with more than all buffers on the way hold."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(512):
        await send({"type": "http.response.body", "body": b" " * 65_536, "more_body": True})
    await send({"type": "http.response.body"})


class TestBodies:
    """Their size and the time that they take."""

    LIMIT = 2000

    @pytest.fixture
    def client(self, serve: Callable[..., httpx2.Client]) -> httpx2.Client:
        """Return a client of a server that takes small bodies, and not for long."""
        return serve(max_body_bytes=self.LIMIT, body_seconds=0.5)

    def body(self, size: int) -> bytes:
        """Return an exchange of exactly `size` bytes."""
        frame = len(b'{"response": ""}')
        return b'{"response": "' + b"x" * (size - frame) + b'"}'

    @pytest.mark.parametrize("way", ["chunked", "whole"])
    def test_size(self, client: httpx2.Client, way: str) -> None:
        """A body of the largest size is served, one byte more is a 413, chunked or not."""
        for size, status in ((self.LIMIT, 200), (self.LIMIT + 1, 413), (500_000, 413)):
            body = self.body(size)
            parts = (body[i : i + 300] for i in range(0, size, 300))
            answer = client.post(PATH, content=parts if way == "chunked" else body, headers=JSON)
            assert answer.status_code == status
        assert answer.json()["error"]["code"] == "body_too_large"

    def test_declared_size(self, client: httpx2.Client) -> None:
        """A length that says too much is refused although the body never comes."""
        for length in (str(self.LIMIT + 1), "9" * 15):
            began = time.monotonic()
            status, body = raw(client, head(f"content-length: {length}"))
            assert (status, body["error"]["code"]) == (413, "body_too_large")
            assert time.monotonic() - began < 8

    def test_slow_body(self, client: httpx2.Client) -> None:
        """A body that does not arrive in time is a 408, and the connection is closed."""
        status, body = raw(client, head("content-length: 100") + b'{"resp')
        assert (status, body["error"]["code"]) == (408, "body_timeout")

    def test_memory(
        self, serve: Callable[..., httpx2.Client], gate: Gate, make_judges: Any
    ) -> None:
        """Bodies that together do not fit into memory are told to come back."""
        judges = make_judges(gate, limits={"to_block": {"act": 0.9}})
        client = serve(judges, max_body_bytes=2000, max_buffer_bytes=3000)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, PATH, content=self.body(2000), headers=JSON)
            gate.waiting.acquire()
            second = client.post(PATH, content=self.body(1500), headers=JSON)
            assert second.status_code == 503
            gate.opened.set()
            assert first.result().status_code == 200
        # What a response held is let go of behind its last byte, which the client may see first.
        until = time.monotonic() + 10
        while client.post(PATH, content=self.body(1500), headers=JSON).status_code != 200:
            assert time.monotonic() < until


class TestHeaders:
    """Their number and their size."""

    def test_too_many(self, serve: Callable[..., httpx2.Client]) -> None:
        """More headers than allowed are a 431, in OpenAI's form."""
        client = serve(max_headers=20)
        many = {f"x-{number}": "1" for number in range(20)}
        answer = client.post(PATH, json={"response": "Hi."}, headers=many)
        assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")
        assert client.post(PATH, json={"response": "Hi."}).status_code == 200

    def test_too_long(self, serve: Callable[..., httpx2.Client]) -> None:
        """So are longer ones, on probes as well."""
        client = serve(max_header_bytes=2000)
        assert client.get("/health/live", headers={"x": "y" * 2000}).status_code == 431

    def test_two_lengths(self, serve: Callable[..., httpx2.Client]) -> None:
        """A body with two ways to find its end is a 400, and nothing behind it is served."""
        body = b'{"response": "Hi."}'
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        behind = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
        lengths = head("content-length: 4", "transfer-encoding: chunked")
        status, answer = raw(serve(), lengths + chunked + behind)
        assert (status, answer["error"]["code"]) == (400, "invalid_request")


class TestDepth:
    """How deep a body may be nested."""

    @pytest.mark.parametrize("depth", [64, 65, 200_000])
    def test_nested(self, serve: Callable[..., httpx2.Client], depth: int) -> None:
        """The deepest that is allowed is read; deeper ones are a 400 before they are read."""
        body = b'{"metadata": {}, "response": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        answer = serve().post(PATH, content=body, headers=JSON)
        code = answer.json()["error"]["code"]
        assert answer.status_code == 400
        assert code == ("invalid_request" if depth == 64 else "json_too_deep")

    @given(
        st.recursive(
            st.none() | st.text(st.sampled_from('[]{}"\\a\ud800é'), max_size=8),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
            max_leaves=20,
        )
    )
    def test_any_json(self, value: Any) -> None:
        """The depth is that of the value, whatever its strings hold."""

        def depth(inner: Any) -> int:
            if not isinstance(inner, list | dict):
                return 0
            parts = inner.values() if isinstance(inner, dict) else inner
            return 1 + max(map(depth, parts), default=0)

        body, actual = json.dumps(value).encode(), depth(value)
        check_depth(body, max(1, actual))
        if actual > 1:
            with pytest.raises(Refused):
                check_depth(body, actual - 1)

    @pytest.mark.parametrize("piece", [b'"', b'\\"', b'"\\', b"[", b"]", b'["', b"{}", b"\\"])
    def test_linear_time(self, piece: bytes) -> None:
        """No body of a megabyte takes long, JSON or not."""
        began = time.process_time()
        with contextlib.suppress(Refused):
            check_depth(piece * (1_000_000 // len(piece)), 64)
        assert time.process_time() - began < 2


class TestAtATime:
    """How many requests are served, how many wait, and what the others are told."""

    def test_bounded(
        self, serve: Callable[..., httpx2.Client], gate: Gate, make_judges: Callable[..., Judges]
    ) -> None:
        """Two are served, one waits, the others are told at once to come back."""
        client = serve(
            make_judges(gate, limits={"to_block": {"act": 0.9}}), max_in_flight=2, max_queue=1
        )

        def ask(number: int) -> httpx2.Response:
            return client.post(PATH, json={"response": f"Number {number}."})

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(ask, number) for number in range(2)]
            for _ in running:
                gate.waiting.acquire()
            more = [pool.submit(ask, number) for number in range(2, 6)]
            refused = [each for each in more if self.answered(each)]
            assert len(refused) == 3
            numbers = client.get("/metrics").text
            assert "guard_in_flight 2.0" in numbers
            assert "guard_waiting 1.0" in numbers
            gate.opened.set()
            answers = [each.result() for each in [*running, *more]]
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 503, 503, 503]
        for each in refused:
            answer = each.result()
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "overloaded"
            assert answer.json()["error"]["type"] == "server_error"
        assert "guard_in_flight 0.0" in client.get("/metrics").text

    @staticmethod
    def answered(each: Any) -> bool:
        """Return whether a request is answered without being served; it is soon where it is."""
        try:
            each.result(timeout=2)
        except TimeoutError:
            return False
        return True

    def test_the_queue_is_not_for_ever(
        self, serve: Callable[..., httpx2.Client], gate: Gate, make_judges: Callable[..., Judges]
    ) -> None:
        """Who waits longer than the queue's time is told to come back."""
        client = serve(
            make_judges(gate, limits={"to_block": {"act": 0.9}}),
            max_in_flight=1,
            queue_seconds=0.2,
        )
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, PATH, json={"response": "One."})
            gate.waiting.acquire()
            assert client.post(PATH, json={"response": "Two."}).status_code == 503
            gate.opened.set()
            assert first.result().status_code == 200

    def test_probes_are_always_answered(
        self, serve: Callable[..., httpx2.Client], gate: Gate, make_judges: Callable[..., Judges]
    ) -> None:
        """Under full load the process still says that it lives."""
        client = serve(
            make_judges(gate, limits={"to_block": {"act": 0.9}}), max_in_flight=1, max_queue=0
        )
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, PATH, json={"response": "One."})
            gate.waiting.acquire()
            assert client.post(PATH, json={"response": "Two."}).status_code == 503
            assert client.get("/health/live").status_code == 200
            assert client.get("/metrics").status_code == 200
            gate.opened.set()
            first.result()

    def test_an_answer_that_takes_too_long(
        self, serve: Callable[..., httpx2.Client], gate: Gate, make_judges: Callable[..., Judges]
    ) -> None:
        """An answer beyond its time is a 504, and its place is free."""
        client = serve(
            make_judges(gate, limits={"to_block": {"act": 0.9}}),
            answer_seconds=0.3,
            max_in_flight=1,
            max_queue=0,
        )
        answer = client.post(PATH, json={"response": "One."})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "answer_timeout")
        gate.opened.set()
        assert client.post(PATH, json={"response": "Two."}).status_code == 200


class TestClientsThatGo:
    """A client that closes its connection frees its place at once."""

    @pytest.mark.parametrize("waits", [0, 1])
    def test_while_it_is_served_or_waits(
        self,
        serve: Callable[..., httpx2.Client],
        gate: Gate,
        make_judges: Callable[..., Judges],
        waits: int,
    ) -> None:
        """Six clients go, one after another; nobody behind them finds the server busy."""
        client = serve(
            make_judges(gate, limits={"to_block": {"act": 0.9}}),
            max_in_flight=1,
            max_queue=waits,
        )
        address = (client.base_url.host, client.base_url.port)
        with ThreadPoolExecutor(1) as pool:
            before = [
                pool.submit(client.post, PATH, json={"response": "First."}) for _ in range(waits)
            ]
            for _ in before:
                gate.waiting.acquire()
            for _ in range(6):
                with socket.create_connection(address, 10) as line:
                    line.sendall(head("content-length: 19") + b'{"response": "Hi."}')
                    self.until(client, waiting=waits, in_flight=1)
                self.until(client, waiting=0, in_flight=waits)
            gate.opened.set()
            assert [each.result().status_code for each in before] == [200] * waits
        assert client.post(PATH, json={"response": "Last."}).status_code == 200

    def test_before_the_body_is_there(self, serve: Callable[..., httpx2.Client]) -> None:
        """A client that goes in the middle of its body leaves nothing behind."""
        client = serve(max_in_flight=1, max_queue=0)
        address = (client.base_url.host, client.base_url.port)
        for _ in range(4):
            with socket.create_connection(address, 10) as line:
                line.sendall(head("content-length: 100") + b"{")
                self.until(client, waiting=1, in_flight=0)
            self.until(client, waiting=0, in_flight=0)
        assert client.post(PATH, json={"response": "Last."}).status_code == 200

    def test_one_that_does_not_read(self, serve: Callable[..., httpx2.Client]) -> None:
        """A client that reads nothing of its answer has its place for a time and no longer."""
        ask = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
        with serve_in_thread(_large) as backend:
            client = serve(upstream=backend.url, send_seconds=0.2, max_in_flight=1, max_queue=0)
            with socket.create_connection((client.base_url.host, client.base_url.port), 10) as line:
                line.sendall(ask)
                assert line.recv(12) == b"HTTP/1.1 200"
                self.until(client, waiting=0, in_flight=0)
                assert client.post(PATH, json={"response": "Last."}).status_code == 200
                until = time.monotonic() + 10
                while backend.connections:
                    assert time.monotonic() < until, "the backend still answers nobody"
                    time.sleep(0.01)

    @staticmethod
    def until(client: httpx2.Client, *, waiting: int, in_flight: int) -> None:
        """Wait until the server counts so many requests; fail if it never does."""
        ends = time.monotonic() + 10
        wanted = (f"guard_waiting {waiting}.0", f"guard_in_flight {in_flight}.0")
        while not all(line in client.get("/metrics").text for line in wanted):
            assert time.monotonic() < ends, wanted
            time.sleep(0.01)
