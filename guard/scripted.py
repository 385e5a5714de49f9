"""A scripted backend: a public fake that answers known prompts with known texts, in pieces.

For demonstrations and for tests of applications, adapters and servers: everything behind it
is real, only the language model is not. It can pause between pieces like a model, and die
half-way like a connection.

This module does not know the guard, and nothing it says was written by a model.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guard.errors import InputError
from guard.exchange import Choice, Exchange, Message, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

_PIECE: Final = re.compile(r"\s*\S{1,6}|\s+$")
"""Pieces of about the size of a model's tokens."""


def cut(text: str) -> list[str]:
    """Return `text` in pieces of a token's size; joined they are the text."""
    return [match[0] for match in _PIECE.finditer(text)]


class UpstreamError(ConnectionError):
    """What a scripted backend raises where its script says that the connection dies."""


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """One prompt and what comes back.

    Attributes:
        prompt: the user's message that it answers.
        text: the answer's content.
        title: what the answer shows, for people.
        system: the system prompt under which it is given.
        reasoning: reasoning text.
        tool_calls: tool calls that the answer asks for.
        fails_after: pieces of `text` after which the connection dies; `None` for never.
    """

    prompt: str
    text: str = ""
    title: str = ""
    system: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    fails_after: int | None = None

    def pieces(self) -> Iterator[str]:
        """Yield `text` in pieces of a token's size; joined they are the text."""
        for number, piece in enumerate(cut(self.text)):
            if number == self.fails_after:
                raise UpstreamError("the scripted backend closed the connection")
            yield piece

    def exchange(self) -> Exchange:
        """Return the whole exchange."""
        given = (Message("system", self.system), Message("user", self.prompt))
        return Exchange(
            choices=(Choice(self.text, self.reasoning, tool_calls=self.tool_calls),),
            messages=tuple(message for message in given if message.content),
            model=ScriptedBackend.model,
        )


class ScriptedBackend:
    """Answers from a script; safe to share between threads and tasks.

    Args:
        answers: the script; prompts are unique.
        pause: seconds before each piece, 0 for none.

    Raises:
        InputError: two answers have one prompt.
    """

    model: Final = "scripted"

    def __init__(self, answers: Iterable[ScriptedAnswer], *, pause: float = 0.0) -> None:
        """Index the script by prompt."""
        self._answers: dict[str, ScriptedAnswer] = {}
        self._pause = pause
        for answer in answers:
            if answer.prompt in self._answers:
                raise InputError(f"the script answers `{answer.prompt[:60]}` twice")
            self._answers[answer.prompt] = answer

    def __iter__(self) -> Iterator[ScriptedAnswer]:
        return iter(self._answers.values())

    def answer(self, prompt: str) -> ScriptedAnswer:
        """Return the answer to `prompt`.

        Raises:
            InputError: the script has none.
        """
        if prompt not in self._answers:
            raise InputError(f"the script has no answer to `{prompt[:60]}`")
        return self._answers[prompt]

    def stream(self, prompt: str) -> Iterator[str]:
        """Yield the answer's content in pieces."""
        for piece in self.answer(prompt).pieces():
            time.sleep(self._pause)
            yield piece

    async def astream(self, prompt: str) -> AsyncIterator[str]:
        """As `stream`, without blocking the event loop."""
        for piece in self.answer(prompt).pieces():
            await asyncio.sleep(self._pause)
            yield piece
