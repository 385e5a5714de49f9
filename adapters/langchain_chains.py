"""A chain that gives text, guarded as a whole.

This module does not know what the chain is made of.
"""

from __future__ import annotations

from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import coerce_to_runnable

from guard.adapters.langchain_messages import exchange_of
from guard.adapters.langchain_quiet import (
    aquiet_iterator,
    conversation,
    masked,
    quiet_config,
    quiet_iterator,
    unheard,
)
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from guard.engine import Guard


class GuardRunnable(Runnable[Any, str]):
    """A chain, such as `prompt | model | parser`, whose text is judged before it leaves.

    To the framework it is one run: what its steps say to callbacks and tracers is not heard,
    since it is raw. Put the whole chain into it, not only its end. What it is given is not judged,
    whatever the class's `input` section says: nobody knows which of it a model will read.

    Args:
        guard: judges.
        chain: gives text, whole or in pieces; anything that can stand in a chain.
    """

    def __init__(self, guard: Guard, chain: Any) -> None:
        """Run nothing yet."""
        self._guard = guard
        self._chain: Runnable[Any, Any] = coerce_to_runnable(chain)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:  # noqa: A002  # the framework's name
        """Return the text that may be delivered."""
        return self._call_with_config(cast("Any", self._answer), input, config, **kwargs)

    async def ainvoke(
        self,
        input: Any,  # noqa: A002  # the framework's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> str:
        """As `invoke`, without blocking the event loop."""
        return await self._acall_with_config(cast("Any", self._aanswer), input, config, **kwargs)

    def stream(
        self,
        input: Any,  # noqa: A002  # the framework's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[str]:
        """Yield what may leave, once it was judged."""
        pieces = cast("Any", self._pieces)
        yield from self._transform_stream_with_config(iter([input]), pieces, config, **kwargs)

    async def astream(
        self,
        input: Any,  # noqa: A002  # the framework's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str]:
        """As `stream`, without blocking the event loop."""
        pieces: Any = self._apieces
        stream: Any = self._atransform_stream_with_config(_one(input), pieces, config, **kwargs)
        async with aclosing(stream) as source:
            async for piece in source:
                yield piece

    def _answer(self, given: Any, config: RunnableConfig, **kwargs: Any) -> str:
        context = _context(given)
        with unheard(), masked(self._guard):
            said = self._chain.invoke(given, quiet_config(config), **kwargs)
        return self._guard.check(_text(said), **context).delivered

    async def _aanswer(self, given: Any, config: RunnableConfig, **kwargs: Any) -> str:
        context = _context(given)
        with unheard(), masked(self._guard):
            said = await self._chain.ainvoke(given, quiet_config(config), **kwargs)
        return (await self._guard.acheck(_text(said), **context)).delivered

    def _pieces(
        self, inputs: Iterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> Iterator[str]:
        for given in inputs:
            said = quiet_iterator(self._chain.stream(given, quiet_config(config), **kwargs))
            stream = self._guard.stream(map(_text, said), **_context(given))
            with masked(self._guard), closing(said), closing(stream):
                yield from stream

    async def _apieces(
        self, inputs: AsyncIterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[str]:
        async for given in inputs:
            said = aquiet_iterator(self._chain.astream(given, quiet_config(config), **kwargs))
            stream = self._guard.astream(_texts(said), **_context(given))
            with masked(self._guard):
                async with aclosing(said), aclosing(stream):
                    async for piece in stream:
                        yield piece


async def _one(given: Any) -> AsyncIterator[Any]:
    yield given


async def _texts(pieces: AsyncIterator[Any]) -> AsyncIterator[str]:
    async for piece in pieces:
        yield _text(piece)


def _text(said: Any) -> str:
    if not isinstance(said, str):
        raise InputError(
            f"the chain gives `{type(said).__name__}`, which is no text: end it with "
            "`StrOutputParser()`, or have its model guarded with `guard.wrap(model)`"
        )
    return said


def _context(given: Any) -> dict[str, str]:
    """Return what is known of the question that a chain is given."""
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, BaseMessage):
        given = [given]
    prompt, system = given if isinstance(given, str) else "", ""
    if isinstance(given, dict):
        prompt = "\n".join(value for value in given.values() if isinstance(value, str))
    elif isinstance(given, list) and all(isinstance(each, BaseMessage) for each in given):
        asked = exchange_of(given)
        prompt, system = asked.prompt, asked.system
    return {"prompt": prompt, "system": system, "conversation": conversation()}
