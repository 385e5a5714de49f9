"""`protect`: puts a guard around any callable that turns a prompt into text.

This module does not know what the callable does; it only looks at its shape.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Literal, get_args

from guard.errors import Blocked, InputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from guard.engine import Guard
    from guard.verdict import Verdict

OnBlock = Literal["message", "raise"]
"""What a guarded callable does where nothing may be delivered.

`message` returns the class's message for the end user; `raise` raises `Blocked`.
"""


def protect(guard: Guard, function: Any, *, on_block: str) -> Any:
    """Return `function` with every text that it returns or yields judged first.

    The prompt is the argument named `prompt`, else the first argument that is text, else
    unknown. Works as `@guard.protect` and as `@guard.protect(on_block="raise")`, on plain
    and async functions, generators and async generators. A stream that is blocked half-way
    ends with the class's message, or with `Blocked` after what had left.

    Raises:
        InputError: `on_block` is unknown, or the function returned something but text.
    """
    if on_block not in get_args(OnBlock):
        raise InputError(f"`on_block` must be one of {get_args(OnBlock)}, not `{on_block}`")
    if function is None:
        return functools.partial(protect, guard, on_block=on_block)
    wrapper = _wrapper(function)(guard, function, raising=on_block == "raise")
    return functools.update_wrapper(wrapper, function)


def _wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):
        return _async_generator
    if inspect.isgeneratorfunction(function):
        return _generator
    if inspect.iscoroutinefunction(function):
        return _async_function
    return _function


def _function(guard: Guard, function: Callable[..., Any], *, raising: bool) -> Any:
    def call(*args: Any, **kwargs: Any) -> str:
        verdict = guard.check(function(*args, **kwargs), prompt=_prompt(function, args, kwargs))
        return _delivered(verdict, raising=raising)

    return call


def _async_function(guard: Guard, function: Callable[..., Any], *, raising: bool) -> Any:
    async def call(*args: Any, **kwargs: Any) -> str:
        text = await function(*args, **kwargs)
        verdict = await guard.acheck(text, prompt=_prompt(function, args, kwargs))
        return _delivered(verdict, raising=raising)

    return call


def _generator(guard: Guard, function: Callable[..., Any], *, raising: bool) -> Any:
    def call(*args: Any, **kwargs: Any) -> Iterator[str]:
        prompt = _prompt(function, args, kwargs)
        stream = guard.stream(function(*args, **kwargs), prompt=prompt)
        yield from stream
        _delivered(stream.verdict, raising=raising)

    return call


def _async_generator(guard: Guard, function: Callable[..., Any], *, raising: bool) -> Any:
    async def call(*args: Any, **kwargs: Any) -> AsyncIterator[str]:
        prompt = _prompt(function, args, kwargs)
        stream = guard.astream(function(*args, **kwargs), prompt=prompt)
        try:
            async for text in stream:
                yield text
        finally:
            await stream.aclose()
        _delivered(stream.verdict, raising=raising)

    return call


def _prompt(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    bound = inspect.signature(function).bind(*args, **kwargs).arguments
    named = bound.get("prompt")
    if isinstance(named, str):
        return named
    return next((value for value in bound.values() if isinstance(value, str)), "")


def _delivered(verdict: Verdict, *, raising: bool) -> str:
    if raising and verdict.action == "block":
        raise Blocked(verdict)
    return verdict.delivered
