"""Errors of a framework or a package, which may quote an answer that nobody judged.

Who parses an answer says in an error what could not be parsed, if not all of it; so do those that
it was raised from, which tracers keep. What is raised around a model is judged like an answer: an
error in which nothing is found stands as it is.

This module does not know any framework, and not how a text is judged.
"""

from __future__ import annotations

import sys
from contextlib import aclosing, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import ValidationError

from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable

    from guard.engine import Guard
    from guard.verdict import Verdict

_T = TypeVar("_T")


@contextmanager
def masked(guard: Guard) -> Generator[None]:
    """Keep what an error quotes from those who are told of it, unless it may be read.

    Raises:
        InputError: in the place of an error that quotes what may not leave.
    """
    # What was being handled before says nothing of the answer.
    earlier = sys.exception()
    try:
        yield
    except Exception as error:
        if not withholds(guard.check(quoted(behind(error, earlier)))):
            raise
        raise_alone(stand_in(error))


def read_masked(guard: Guard, source: Iterable[_T]) -> Generator[_T]:
    """Yield what `source` has, its errors `masked`; close it with the generator."""
    with masked(guard), _closing(source):
        yield from source


async def aread_masked(guard: Guard, source: AsyncIterable[_T]) -> AsyncGenerator[_T]:
    """As `read_masked`, asynchronous."""
    with masked(guard):
        async with _aclosing(source):
            async for each in source:
                yield each


def stand_in(error: BaseException) -> InputError:
    """Return what is raised in the place of an error."""
    name = type(error).__name__
    return InputError(
        f"the answer could not be read (`{name}`), and the error quotes what may not leave"
    )


def withholds(verdict: Verdict) -> bool:
    """Return whether what was judged may not leave as it is."""
    return verdict.action in ("rewrite", "block") and not verdict.shadow


def told(error: BaseException) -> str:
    """Return everything that can be read of an error, and of those that it was raised from."""
    return quoted(behind(error))


def raise_alone(error: Exception) -> NoReturn:
    """Raise an error with nothing behind it.

    `raise ... from None` says only that nobody should print what is.
    """
    try:
        raise error from None
    finally:
        error.__context__ = None


def behind(error: BaseException, earlier: BaseException | None = None) -> list[BaseException]:
    """Return an error with all that it was raised from and all of its group, each once.

    Args:
        error: the last one.
        earlier: one that was there before, which is left out.
    """
    found: list[BaseException] = []
    seen, waiting = {id(earlier)}, [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        found.append(each)
        group = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        waiting += [one for one in (each.__cause__, each.__context__, *group) if one is not None]
    return found


def quoted(errors: list[BaseException]) -> str:
    """Return everything that can be read of errors."""
    read: list[Any] = []
    for error in errors:
        read += [error, *error.args, *vars(error).values()]
        if isinstance(error, ValidationError):
            read.append(error.errors())
    return "\n".join(dict.fromkeys(map(_spelled, read)))


def _spelled(value: object) -> str:
    """Return what can be read of a value; what reading raised would have the errors behind it."""
    for spell in (str, repr):
        with suppress(Exception):
            return spell(value)
    return ""


def _closing(source: Any) -> Any:
    return closing(source if hasattr(source, "close") else _Open())


def _aclosing(source: Any) -> Any:
    return aclosing(source if hasattr(source, "aclose") else _Open())


class _Open:
    """What cannot be closed, and need not be."""

    def close(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""
