"""`protect`: puts a guard around any callable that turns a prompt into text.

This module does not know what the callable does; it only looks at its shape.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import aclosing, closing
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


def protect(guard: Guard, function: Any, *, on_block: OnBlock) -> Any:
    """Return `function` with every text that it returns or yields judged first.

    The prompt is the argument named `prompt`, else the first argument that is text, else
    unknown. Works as `@guard.protect` and as `@guard.protect(on_block="raise")`, on plain
    and async functions, generators and async generators, methods, partials and objects
    with `__call__`. A stream that is blocked half-way ends with the class's message, or
    with `Blocked` behind what had left.

    Raises:
        InputError: `on_block` is unknown, `function` cannot be called, or it returned
            something but text.
    """
    if on_block not in get_args(OnBlock):
        raise InputError(f"`on_block` must be one of {get_args(OnBlock)}, not `{on_block}`")
    if function is None:
        return functools.partial(protect, guard, on_block=on_block)
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        raise InputError(f"put `@{kind}` above `@guard.protect` and not below")
    if not callable(function):
        raise InputError(f"`protect` takes something to call, not {type(function).__name__}")
    plain = _plain(function)
    wrapper = _wrapper(plain)(guard, function, raising=on_block == "raise")
    functools.update_wrapper(wrapper, plain).__wrapped__ = function
    return wrapper


def _plain(function: Any) -> Any:
    """Return the function or method behind partials and objects with `__call__`."""
    while (inner := _inner(function)) is not None:
        function = inner
    return function


def _inner(function: Any) -> Any:
    """Return what a partial or an object with `__call__` calls, `None` of what is neither."""
    if isinstance(function, functools.partial):
        return function.func
    # Whatever can be bound, as partials from Python 3.14 on, passes for a routine.
    calls = inspect.isfunction(type(function).__call__)
    return function.__call__ if calls or not inspect.isroutine(function) else None


def _wrapper(plain: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(plain):
        return _async_generator
    if inspect.isgeneratorfunction(plain):
        return _generator
    if inspect.iscoroutinefunction(plain):
        return _async_function
    return _function


def _function(guard: Guard, function: Callable[..., Any], *, raising: bool) -> Any:
    prompt = _Prompt(function)

    def call(*args: Any, **kwargs: Any) -> str:
        verdict = guard.check(function(*args, **kwargs), prompt=prompt.among(args, kwargs))
        return _delivered(verdict, raising=raising)

    return call


def _async_function(guard: Guard, function: Callable[..., Any], *, raising: bool) -> Any:
    prompt = _Prompt(function)

    async def call(*args: Any, **kwargs: Any) -> str:
        text = await function(*args, **kwargs)
        verdict = await guard.acheck(text, prompt=prompt.among(args, kwargs))
        return _delivered(verdict, raising=raising)

    return call


def _generator(guard: Guard, function: Callable[..., Any], *, raising: bool) -> Any:
    prompt = _Prompt(function)

    def call(*args: Any, **kwargs: Any) -> Iterator[str]:
        pieces = function(*args, **kwargs)
        with closing(guard.stream(pieces, prompt=prompt.among(args, kwargs))) as stream:
            for text in stream:
                # Where an exception comes, it stands in for the class's message.
                if not (raising and stream.blocked):
                    yield text
        _delivered(stream.verdict, raising=raising)

    return call


def _async_generator(guard: Guard, function: Callable[..., Any], *, raising: bool) -> Any:
    prompt = _Prompt(function)

    async def call(*args: Any, **kwargs: Any) -> AsyncIterator[str]:
        pieces = function(*args, **kwargs)
        async with aclosing(guard.astream(pieces, prompt=prompt.among(args, kwargs))) as stream:
            async for text in stream:
                if not (raising and stream.blocked):
                    yield text
        _delivered(stream.verdict, raising=raising)

    return call


class _Prompt:
    """Finds the prompt among the arguments of a call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the signature once; what a partial has fixed counts as given."""
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}
        if isinstance(function, functools.partial):
            self._args, self._kwargs, function = function.args, function.keywords, function.func
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):  # some callables written in C have none
            self._signature = None

    def among(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the argument named `prompt`, else the first that is text, else `""`."""
        given = self._given((*self._args, *args), self._kwargs | kwargs)
        named = dict(given).get("prompt")
        if named is None and self._signature is not None:
            parameter = self._signature.parameters.get("prompt")
            named = None if parameter is None else parameter.default
        if isinstance(named, str):
            return named
        return next((value for _, value in given if isinstance(value, str)), "")

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        """Return the arguments with their names, in the order of the signature."""
        if self._signature is None:
            return [*(("", value) for value in args), *kwargs.items()]
        given: list[tuple[str, Any]] = []
        for name, value in self._signature.bind(*args, **kwargs).arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                given += [("", item) for item in value]
            elif kind is inspect.Parameter.VAR_KEYWORD:
                given += value.items()
            else:
                given.append((name, value))
        return given


def _delivered(verdict: Verdict, *, raising: bool) -> str:
    if raising and verdict.action == "block":
        raise Blocked(verdict)
    return verdict.delivered
