"""The scripted server of `benchmarks/peers.py`: chat completions, whole or piece by piece.

The model's name says which text is answered (`peers_probes.texts`). Texts with the marker come
at the pace of a quick model, so that whoever judges beside the stream has the time to; the
others come at once, so that nothing but the client and its guardrail is timed.

This module does not know any guardrail.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from peers_probes.texts import pieces, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PAUSE: Final = 0.002
"""Seconds between two pieces of a text with the marker: 500 tokens a second at most."""

_USAGE: Final = {"prompt_tokens": 8, "completion_tokens": 8, "total_tokens": 16}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer a chat completion."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            text = text_of(asked["model"])
        except ValueError as error:
            self._whole(404, {"error": {"message": str(error), "type": "invalid_request_error"}})
            return
        if asked.get("stream"):
            self._stream(asked["model"], text)
        else:
            self._whole(200, completion(asked["model"], text))

    def _whole(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, model: str, text: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        pause = PAUSE if "marked" in model else 0.0
        for event in events(model, text):
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            time.sleep(pause)
        self.wfile.write(b"0\r\n\r\n")


def completion(model: str, text: str) -> dict[str, Any]:
    """Return a whole answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    facts = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
    return facts | {"choices": [choice], "usage": _USAGE}


def events(model: str, text: str) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    facts = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in pieces(text)]
    deltas += [({}, "stop")]
    for delta, finish in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        yield f"data: {json.dumps(facts | {'choices': [choice]})}\n\n".encode()
    yield b"data: [DONE]\n\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: a guardrail that stops reading hangs up."""


@contextmanager
def served() -> Iterator[str]:
    """Serve while the context is open; its value is the base URL that SDKs are given."""
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
