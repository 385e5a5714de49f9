"""Runs a part of the framework so that nothing outside hears of it: no callback, no tracer.

The framework hands callbacks down in a context variable, and LangSmith its tracer in another,
so that whatever a wrapped model or chain calls would tell them its raw text.

This module does not know what is run.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from langchain_core.runnables.config import RunnableConfig, var_child_runnable_config
from langsmith import tracing_context

from guard.adapters.masking import behind, quoted, raise_alone, stand_in, withholds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    from guard.engine import Guard

_T = TypeVar("_T")

_REFUSED: Final = 400
"""HTTP status from which a response holds no answer."""

_OURS: Final = ("callbacks", "run_id", "run_name")
"""Entries of a configuration that are about the run that is heard of."""


@contextmanager
def unheard() -> Generator[None]:
    """Let nothing outside hear of what is run in the context."""
    token = var_child_runnable_config.set(None)
    try:
        with tracing_context(enabled=False, parent=False):
            yield
    finally:
        var_child_runnable_config.reset(token)


@contextmanager
def masked(guard: Guard) -> Generator[None]:
    """Keep what an error quotes from those who are told of it, unless it may be read.

    Packages parse answers, and their error holds what they could not parse, if not the whole
    response; so does what it was raised from, which tracers keep. A backend's own errors stand.

    Raises:
        InputError: in the place of an error that quotes what may not leave.
    """
    # What was being handled before says nothing of the answer.
    earlier = sys.exception()
    try:
        yield
    except Exception as error:
        spoken = [each for each in behind(error, earlier) if not _is_refusal(each)]
        for each in spoken:
            if "response" in vars(each):
                # The framework tells callbacks of it.
                vars(each)["response"] = None
        if not spoken or not withholds(guard.check(quoted(spoken))):
            raise
        raise_alone(stand_in(error))


def _is_refusal(error: BaseException) -> bool:
    """Return whether an error says that the backend gave no answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and status >= _REFUSED


def quiet_iterator(source: Iterator[_T]) -> Generator[_T]:
    """Iterate over `source`, unheard; it is closed with the iterator."""
    done: Any = object()
    try:
        while True:
            with unheard():
                item = next(source, done)
            if item is done:
                return
            yield item
    finally:
        if (close := getattr(source, "close", None)) is not None:
            with unheard():
                close()


async def aquiet_iterator(source: AsyncIterator[_T]) -> AsyncGenerator[_T]:
    """As `quiet_iterator`, asynchronous."""
    done: Any = object()
    try:
        while True:
            with unheard():
                item = await anext(source, done)
            if item is done:
                return
            yield item
    finally:
        if (aclose := getattr(source, "aclose", None)) is not None:
            with unheard():
                await aclose()


def quiet_config(config: RunnableConfig | None) -> RunnableConfig:
    """Return a configuration that tells nobody."""
    given: dict[str, Any] = {
        name: value for name, value in (config or {}).items() if name not in _OURS
    }
    # A graph that is run inside would stream to the one outside, which it finds there.
    configurable = {
        name: value
        for name, value in given.get("configurable", {}).items()
        if not name.startswith("__")
    }
    quiet: Any = given | {"configurable": configurable, "callbacks": []}
    return cast("RunnableConfig", quiet)


def conversation() -> str:
    """Return which conversation the present run is part of, `""` where nobody says."""
    config = var_child_runnable_config.get() or {}
    configurable = config.get("configurable") or {}
    named = (configurable.get(key) for key in ("thread_id", "session_id"))
    return next((str(each) for each in named if each), "")
