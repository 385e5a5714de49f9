"""What tests of the SDKs' clients say, ask and compare; `Side` uses a client of any kind.

This module does not know any vendor.
"""

from __future__ import annotations

import inspect
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from guard.exchange import Choice, ToolCall
from guard.server.scripted import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

PROMPT: Final = "What grows in the shade?"

LONG: Final = (
    "Ferns do well in the shade, and so does ivy. Water them in the morning. “Hosta” is another; "
    "snails like it, too. 🌿 In a dry corner, plant barrenwort!\n\n- ferns\n- ivy\n\n"
) * 2
"""A text of several units."""

DOCUMENT: Final = '{"name": "fern", "months": 7, "notes": ["likes shade", "no sun"]}'
"""A structured answer."""

_OF_THE_GUARD: Final = ("x-guard-class", "x-guard-action")
_OF_THE_BYTES: Final = ("date", "content-length", "transfer-encoding", "connection")


class Plant(BaseModel):
    """What `DOCUMENT` is a document of."""

    name: str
    months: int
    notes: list[str]


@dataclass(frozen=True)
class Side:
    """A client, and how to wait for what it gives, whether it is asynchronous or not."""

    client: Any

    async def settled(self, value: Any) -> Any:
        """Return a value, waited for where that is needed."""
        return await value if inspect.isawaitable(value) else value

    async def each(self, values: Any) -> AsyncIterator[Any]:
        """Yield the items of any iterable."""
        if hasattr(values, "__aiter__"):
            async for value in values:
                yield value
        else:
            for value in values:
                yield value

    async def listed(self, values: Any) -> list[Any]:
        """Return the items of any iterable."""
        return [value async for value in self.each(values)]

    @asynccontextmanager
    async def opened(self, manager: Any) -> AsyncIterator[Any]:
        """Enter any context manager."""
        if hasattr(manager, "__aenter__"):
            async with manager as value:
                yield value
        else:
            with manager as value:
                yield value

    async def close(self) -> None:
        """Close the client."""
        await self.settled(self.client.close())


Sides = tuple[Side, Side]
"""A plain and a guarded client."""


def call(query: str, **given: Any) -> ToolCall:
    """Return a call of a tool."""
    return ToolCall("look_up", json.dumps({"query": query} | given, ensure_ascii=False))


def benign(path: str) -> str:
    """Return a harmless text that names its channel."""
    return f"Fine {path}, naïve."


def bad_at(place: str) -> Callable[[str], str]:
    """Return what makes a bad text for one channel and harmless ones for all others."""
    return lambda path: "Say zblock." if path == place else benign(path)


def dump(value: Any) -> Any:
    """Return any of an SDK's objects as plain data."""
    return value.model_dump(warnings=False)


def headers(answer: Any) -> dict[str, str]:
    """Return a raw response's headers without those that say how its bytes came."""
    uncompared = _OF_THE_GUARD + _OF_THE_BYTES
    return {name: value for name, value in answer.headers.items() if name not in uncompared}


def lines(listed: list[str]) -> list[str]:
    """Return the lines of a stream that say something."""
    return [line for line in listed if line and not line.startswith(":")]


def said(choice: Choice | str, usage: Mapping[str, Any]) -> Reply:
    """Return a reply whose usage does not depend on what is said."""
    return Reply((Choice(choice) if isinstance(choice, str) else choice,), {"usage": usage})


FORMS: Final = ("chat", "responses", "messages")
"""The formats, by the names that the guard has for them."""

VENDOR_OF: Final = {"chat": "openai", "responses": "openai", "messages": "anthropic"}


async def answer(side: Side, form: str, *, mode: str = "json", **extra: Any) -> Any:
    """Return the SDK's final object of an answer to `PROMPT`, whole or put together from events."""
    said: Any = [{"role": "user", "content": PROMPT}]
    if form == "chat":
        api, asked = side.client.chat.completions, {"model": "m", "messages": said}
    elif form == "responses":
        api, asked = side.client.responses, {"model": "m", "input": PROMPT}
    else:
        api, asked = side.client.messages, {"model": "m", "max_tokens": 9, "messages": said}
    if mode == "json":
        return await side.settled(api.create(**asked, **extra))
    final = {"chat": "completion", "responses": "response", "messages": "message"}[form]
    async with side.opened(api.stream(**asked, **extra)) as events:
        async for _ in side.each(events):
            pass
        return await side.settled(getattr(events, f"get_final_{final}")())


def told(given: Any, form: str) -> str:
    """Return all that a reader is told by the final object of an answer."""
    if form == "chat":
        return str(given.choices[0].message.content)
    if form == "messages":
        return "".join(block.text for block in given.content if block.type == "text")
    parts = [part for item in given.output for part in getattr(item, "content", None) or ()]
    return "".join(getattr(part, "text", "") or getattr(part, "refusal", "") for part in parts)
