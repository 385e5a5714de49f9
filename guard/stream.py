"""Iterators over what may leave of a response that is still arriving.

This module does not know how text is judged or held back (`guard.session`), and nothing
about where pieces come from.
"""

from __future__ import annotations

from collections.abc import (  # noqa: TC003  # hints are read at run time
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
)
from functools import cached_property
from typing import TYPE_CHECKING, Any

import guard  # noqa: TC001  # hints are read at run time
from guard.errors import InputError
from guard.exchange import Channel

if TYPE_CHECKING:
    from guard.channel_run import ChannelRun
    from guard.driver import Driver
    from guard.session import Session
    from guard.steps import Steps


class GuardedStream:
    """An iterator over what may leave of a stream; afterwards it holds the verdict.

    Close it where it is not read to its end (`contextlib.closing`): what was held back is
    dropped, the journal's row is closed and so is the source of the pieces.
    """

    def __init__(self, driver: guard.Driver, session: guard.Session, pieces: Iterable[str]) -> None:
        """Read nothing from `pieces` yet."""
        if not hasattr(pieces, "__iter__"):
            raise InputError(f"`pieces` must be iterable, not {_kind(pieces)}")
        self._session = session
        self._pieces = pieces
        self._begun = False
        # A generator that knows this object would be a cycle, and a stream that is merely
        # dropped would not close its row until the garbage collector comes by.
        self._texts = _texts(driver, session, pieces)

    @property
    def blocked(self) -> bool:
        """Whether the response was blocked; true as soon as the class's message is delivered."""
        return self._session.blocked

    @cached_property
    def verdict(self) -> guard.Verdict:
        """The verdict; raises `InputError` while the stream has not been read to its end."""
        return _verdict(self._session)

    def close(self) -> None:
        """Stop reading; what was held back is dropped, the journal's row is closed."""
        self._texts.close()
        if not self._begun:
            self._begun = True
            _close(self._pieces)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._begun = True
        return next(self._texts)


class AsyncGuardedStream:
    """As `GuardedStream`, for an asynchronous source (`contextlib.aclosing`)."""

    def __init__(
        self, driver: guard.Driver, session: guard.Session, pieces: AsyncIterable[str]
    ) -> None:
        """Read nothing from `pieces` yet."""
        if not hasattr(pieces, "__aiter__"):
            raise InputError(
                f"`pieces` must be asynchronously iterable, not {_kind(pieces)}: use `stream` for "
                "a plain iterable"
            )
        self._session = session
        self._pieces = pieces
        self._begun = False
        self._texts = _atexts(driver, session, pieces)

    @property
    def blocked(self) -> bool:
        """Whether the response was blocked; true as soon as the class's message is delivered."""
        return self._session.blocked

    @cached_property
    def verdict(self) -> guard.Verdict:
        """The verdict; raises `InputError` while the stream has not been read to its end."""
        return _verdict(self._session)

    async def aclose(self) -> None:
        """Stop reading; what was held back is dropped, the journal's row is closed."""
        await self._texts.aclose()
        if not self._begun:
            self._begun = True
            await _aclose(self._pieces)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        self._begun = True
        return await anext(self._texts)


class Following:
    """One exchange whose texts arrive side by side, piece by piece.

    Each text is a *channel*: open it, feed it, close it. What `feed` and `close` return may
    leave, and is the text with nothing in place of what is withheld: look at `withheld` and
    show `notice`. A tool call may leave with its end alone. Where `stream` is off, nothing should
    leave before `finish`.

    What a cancelled `afeed` or `aclose` did not return comes with the next call for its channel.

    Not for several threads or tasks at a time: it is the state of one exchange.
    """

    def __init__(self, driver: guard.Driver, session: guard.Session) -> None:
        """Judge nothing yet."""
        self._driver = driver
        self._session = session
        self._closed: set[str] = set()
        self._returned: dict[str, int] = {}
        self._over = False

    def open(self, channel: Channel) -> None:
        """Take a channel whose text is yet to come.

        Raises:
            InputError: it is no channel, has a text already or another's name, or the exchange
                is over.
        """
        if not isinstance(channel, Channel):
            raise InputError(f"`channel` must be `Channel`, not {_kind(channel)}")
        if channel.text:
            raise InputError(f"channel `{channel.name}` has a text: open it without, then feed it")
        self._require_going_on()
        self._session.open(channel)

    def feed(self, channel: str, piece: str) -> str:
        """Take the next piece of a channel; return what of it may leave now.

        Raises:
            InputError: the piece is not text, there is no such channel, it is closed, or the
                exchange is over.
        """
        self._driver.run(self._fed(channel, piece))
        return self._left(channel)

    async def afeed(self, channel: str, piece: str) -> str:
        """As `feed`, without blocking the event loop."""
        await self._driver.arun(self._fed(channel, piece))
        return self._left(channel)

    def close(self, channel: str) -> str:
        """Take the end of a channel; return what of it may leave now.

        Raises:
            InputError: there is no such channel, or the exchange is over.
        """
        self._driver.run(self._ended(channel))
        return self._left(channel)

    async def aclose(self, channel: str) -> str:
        """As `close`, without blocking the event loop."""
        await self._driver.arun(self._ended(channel))
        return self._left(channel)

    def finish(self) -> guard.Verdict:
        """Take the end of the exchange, of every channel that is still open, too.

        Raises:
            InputError: it was abandoned.
        """
        self._driver.run(self._finished())
        return self._session.verdict()

    async def afinish(self) -> guard.Verdict:
        """As `finish`, without blocking the event loop."""
        await self._driver.arun(self._finished())
        return self._session.verdict()

    def abandon(self) -> None:
        """Close the journal's row of an exchange that nobody wants to see to its end."""
        self._over = True
        self._driver.run(self._session.abandon())

    async def aabandon(self) -> None:
        """As `abandon`, without blocking the event loop."""
        self._over = True
        await self._driver.arun(self._session.abandon())

    def withheld(self, choice: int = 0) -> bool:
        """Return whether nothing more of a choice may leave."""
        return self._session.withheld(choice)

    def notice(self, choice: int = 0) -> str:
        """Return what the end user reads in place of a choice that is withheld, else `""`."""
        return self._session.notice(choice)

    def _fed(self, name: str, piece: str) -> Steps:
        self._require_going_on()
        self._run(name)
        if name in self._closed:
            raise InputError(f"channel `{name}` is closed: more of its text would not be judged")
        return self._session.feed(piece, name)

    def _ended(self, name: str) -> Steps:
        self._require_going_on()
        self._run(name)
        self._closed.add(name)
        return self._session.close(name)

    def _finished(self) -> Steps:
        if not self._session.finished:
            self._require_going_on()
            yield from self._session.finish()
            self._over = True

    def _require_going_on(self) -> None:
        if self._over:
            raise InputError("the exchange is over: follow the next one with `Guard.follow`")

    def _run(self, name: str) -> ChannelRun:
        try:
            return self._session.run(name)
        except (KeyError, TypeError):
            raise InputError(f"no channel `{name}` is open: `open` it before it is fed") from None

    def _left(self, name: str) -> str:
        """Return what of a channel may leave and was not returned yet."""
        run = self._run(name)
        whole = run.channel.kind == "tool_call" and not self._session.shadow
        if whole and (name not in self._closed or self._session.withheld(run.channel.choice)):
            return ""
        texts = run.released(self._returned.get(name, 0))
        self._returned[name] = self._returned.get(name, 0) + len(texts)
        return "".join(texts)


def _texts(driver: Driver, session: Session, pieces: Iterable[str]) -> Generator[str, None, None]:
    try:
        for piece in pieces:
            steps = session.feed(piece)
            while (text := driver.advance(steps)) is not None:
                yield text
            if session.stopped:
                break
        steps = session.finish()
        while (text := driver.advance(steps)) is not None:
            yield text
    finally:
        try:
            driver.run(session.abandon())
        finally:
            _close(pieces)


async def _atexts(
    driver: Driver, session: Session, pieces: AsyncIterable[str]
) -> AsyncGenerator[str, None]:
    try:
        async for piece in pieces:
            steps = session.feed(piece)
            while (text := await driver.aadvance(steps)) is not None:
                yield text
            if session.stopped:
                break
        steps = session.finish()
        while (text := await driver.aadvance(steps)) is not None:
            yield text
    finally:
        try:
            await driver.arun(session.abandon())
        finally:
            await _aclose(pieces)


def _verdict(session: Session) -> guard.Verdict:
    if not session.finished:
        raise InputError("the stream has no verdict yet: read it to its end first")
    return session.verdict()


def _close(pieces: Any) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


async def _aclose(pieces: Any) -> None:
    aclose = getattr(pieces, "aclose", None)
    if aclose is not None:
        await aclose()


def _kind(value: object) -> str:
    return type(value).__name__
