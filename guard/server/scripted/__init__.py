"""A scripted backend that speaks the vendors' HTTP formats, on a real port.

    with ScriptedApp().served() as backend:
        backend.script("Hi.", "Hello there.")
        OpenAI(base_url=f"{backend.url}/v1", api_key="none")
        Anthropic(base_url=backend.url, api_key="none")

`/v1/chat/completions`, `/v1/responses` and `/v1/messages` answer whole or as a stream of events;
`/v1/models` and `/v1/embeddings` are there, too. What is said is a text, a `Choice`, a `Reply`
(several choices, any of the vendor's own fields, a `Delivery` with its faults) or a `Failure`.

This package does not know the guard.
"""

from guard.server.scripted.app import ScriptedApp
from guard.server.scripted.play import Recorded
from guard.server.scripted.script import BROKEN_LINE, Delivery, Failure, Reply, event_bytes
from guard.server.scripted.serving import Served, serve_in_thread

__all__ = [
    "BROKEN_LINE",
    "Delivery",
    "Failure",
    "Recorded",
    "Reply",
    "ScriptedApp",
    "Served",
    "event_bytes",
    "serve_in_thread",
]
