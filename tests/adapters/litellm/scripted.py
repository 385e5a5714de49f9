"""LiteLLM's functions and its proxy, asked for what the scripted backend is to answer.

This module does not know how an answer is judged.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import litellm
import openai
from litellm.integrations.custom_logger import CustomLogger

from guard.adapters.turns import plain
from tests.adapters.leak_lab import PROMPT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp
    from tests.adapters.leak_lab import Answers

ASKED: Final = [{"role": "user", "content": PROMPT}]

SCHEMA: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "plant",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
        },
    },
}
"""A document that is asked for, as LiteLLM's `response_format`."""

_VARYING: Final = ("created", "created_at", "completed_at", "id", "item_id", "_hidden_params")
"""Keys whose values differ from call to call."""

_PATIENCE: Final = 30.0
"""Seconds in which callbacks must have been told."""


@dataclass(frozen=True)
class Subject:
    """LiteLLM, plain or guarded, for one script of the backend.

    Attributes:
        answers: what the backend answers.
        guard: `None` for none.
        backend: the backend.
    """

    answers: Answers
    guard: Guard | None
    backend: ScriptedApp

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of a call, for which the backend is made ready."""
        self.backend.script(PROMPT, *self.answers)
        base = {"api_base": f"{self.backend.url}/v1", "api_key": "made-up-key"}
        return {"model": "openai/m", "messages": ASKED, "max_retries": 0} | base | more

    @property
    def llm(self) -> Any:
        """LiteLLM's functions."""
        return litellm if self.guard is None else self.guard.wrap(litellm)

    @property
    def router(self) -> Any:
        """A router's functions."""
        known = {key: value for key, value in self.options().items() if key != "messages"}
        made = litellm.Router(model_list=[{"model_name": "m", "litellm_params": known}])
        return made if self.guard is None else self.guard.wrap(made)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Give a client of OpenAI's SDK, for LiteLLM to send by."""
        url = f"{self.backend.url}/v1"
        with openai.OpenAI(base_url=url, api_key="made-up-key", max_retries=0) as client:
            yield client if self.guard is None else self.guard.wrap(client)


class Recorder(CustomLogger):  # type: ignore[misc]
    """A callback that keeps what it is told of answers."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        super().__init__()
        self.heard: list[Any] = []
        self.ended = 0

    def log_post_api_call(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Keep the provider's own answer."""
        del start_time, end_time
        self.heard.append(("post", response_obj, kwargs.get("original_response")))

    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Keep the answer, and where it stands beside."""
        del start_time, end_time
        beside = [kwargs.get(name) for name in ("complete_streaming_response", "messages")]
        self.heard.append(("success", shown(response_obj), shown(beside)))
        self.ended += 1


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Have LiteLLM tell a callback of the calls inside; wait for the end of one."""
    recorder, before = Recorder(), list(litellm.callbacks)
    litellm.callbacks[:] = [recorder]
    try:
        yield recorder
        ends = time.monotonic() + _PATIENCE
        while not recorder.ended and time.monotonic() < ends:
            time.sleep(0.01)
        assert recorder.ended, "the callback was not told of the end"
    finally:
        litellm.logging_callback_manager.remove_callback_from_all_lists(recorder)
        litellm.callbacks[:] = before


def shown(value: Any) -> Any:
    """Return an answer as data, without what differs from call to call."""
    return _settled(plain(value))


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items() if key not in _VARYING}
    return [_settled(inner) for inner in value] if isinstance(value, list) else value
