"""Generation in a thread of its own, and who reads it: only what was judged comes out.

What a model writes goes to the reader's side, and is judged there. A reader that leaves ends the
generation with its next token. The library's own streamers are told by whoever generates.

This module does not know how a text is judged or held back (`guard.stream`).
"""

from __future__ import annotations

import asyncio
import queue
from contextlib import aclosing, closing, contextmanager, suppress
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import StoppingCriteria, TextStreamer

from guard.adapters.transformers_calls import is_due
from guard.adapters.transformers_rows import Growing, begun
from guard.errors import InputError
from guard.stream import AsyncGuardedStream, GuardedStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator

    from guard.adapters.transformers_calls import Call
    from guard.adapters.transformers_rows import Read, Reading
    from guard.session import Session
    from guard.verdict import Verdict

    Put = Callable[["Written"], object]
    Written = str | Exception | None
    """A piece, what went wrong, or `None` for the end."""


class TextStream:
    """An iterator over what may leave of an answer; afterwards it holds the verdict.

    Close it where it is not read to its end (`contextlib.closing`, or `with`): the generation
    ends, what was held back is dropped. It ends so, too, where the stream is merely forgotten.
    """

    def __init__(self, call: Call, timeout: float | None) -> None:
        """Generate nothing yet."""
        self._verdicts: list[Verdict] = []
        # A generator that knows this object would be a cycle, and keep it from being forgotten.
        self._texts = _texts(call, timeout, self._verdicts)

    @property
    def verdict(self) -> Verdict:
        """The verdict; raises `InputError` while the stream has not been read to its end."""
        return _verdict(self._verdicts)

    def close(self) -> None:
        """Stop reading, and end the generation."""
        self._texts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._texts)


class AsyncTextStream:
    """As `TextStream`, without blocking the event loop (`contextlib.aclosing`, or `async with`)."""

    def __init__(self, call: Call, timeout: float | None) -> None:
        """Generate nothing yet."""
        self._verdicts: list[Verdict] = []
        self._texts = _atexts(call, timeout, self._verdicts)

    @property
    def verdict(self) -> Verdict:
        """The verdict; raises `InputError` while the stream has not been read to its end."""
        return _verdict(self._verdicts)

    async def aclose(self) -> None:
        """Stop reading, and end the generation."""
        await self._texts.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await anext(self._texts)


def _verdict(verdicts: list[Verdict]) -> Verdict:
    if not verdicts:
        raise InputError("the stream has no verdict yet: read it to its end first")
    return verdicts[0]


def _texts(
    call: Call, timeout: float | None, verdicts: list[Verdict]
) -> Generator[str, None, None]:
    (refusal,) = call.refusals()
    if refusal is not None:
        verdicts.append(refusal)
        yield refusal.message
        return
    pieces = _pieces(call, timeout)
    with closing(GuardedStream(call.guarding.guard.driver, _session(call), pieces)) as stream:
        yield from stream
    _told(call, stream.verdict, verdicts)


async def _atexts(
    call: Call,
    timeout: float | None,  # noqa: ASYNC109  # it ends a thread
    verdicts: list[Verdict],
) -> AsyncGenerator[str, None]:
    (refusal,) = await asyncio.to_thread(call.refusals)
    if refusal is not None:
        verdicts.append(refusal)
        yield refusal.message
        return
    pieces = _apieces(call, timeout)
    guarded = AsyncGuardedStream(call.guarding.guard.driver, _session(call), pieces)
    async with aclosing(guarded) as stream:
        async for text in stream:
            yield text
    _told(call, stream.verdict, verdicts)


def _session(call: Call) -> Session:
    return begun(call.guarding.guard, call.exchange(0), call.lead(0), stream=True)


def _told(call: Call, verdict: Verdict, verdicts: list[Verdict]) -> None:
    verdicts.append(verdict)
    if call.guarding.on_verdict is not None:
        call.guarding.on_verdict(verdict)


class Told:
    """A streamer of the library, which is told what may leave when it may leave.

    Args:
        streamer: a `TextStreamer`, or what derives from it and hears texts.

    Raises:
        InputError: it hears token ids.
    """

    def __init__(self, streamer: Any) -> None:
        """Tell nothing yet."""
        kind = type(streamer)
        if not isinstance(streamer, TextStreamer) or not (
            kind.put is TextStreamer.put and kind.end is TextStreamer.end
        ):
            raise InputError(
                f"`{kind.__name__}` hears token ids before anybody has judged them: give a "
                "`TextStreamer`, a `TextIteratorStreamer`, or what overrides their "
                "`on_finalized_text` alone"
            )
        self._streamer = streamer
        self._options = {"skip_special_tokens": False} | streamer.decode_kwargs

    def read(self, reading: Reading) -> Read:
        """Return how an answer is shown to it."""
        way = reading.alone if self._streamer.skip_prompt else reading.joined
        return partial(way, **self._options)

    def prompt(self, reading: Reading) -> None:
        """Tell the prompt where it wants it."""
        if not self._streamer.skip_prompt:
            self.say(reading.alone(reading.prompt, **self._options))

    def say(self, text: str) -> None:
        """Tell a text that may leave."""
        self._streamer.on_finalized_text(text)

    def end(self) -> None:
        """Tell the end."""
        self._streamer.on_finalized_text("", stream_end=True)


@contextmanager
def ended_on_error(streamer: object) -> Iterator[None]:
    """End a streamer where an error ends the generation: its reader must not wait for ever."""
    try:
        yield
    except BaseException:
        if isinstance(streamer, TextStreamer):
            with suppress(Exception):  # the first error is the one to tell
                streamer.on_finalized_text("", stream_end=True)
        raise


class _Tap(StoppingCriteria):
    """Tells what is written, and ends the generation once nobody reads."""

    def __init__(self, growing: Growing, start: int, put: Put, left: Event) -> None:
        self._growing = growing
        self._start = start
        self._put = put
        self._left = left
        self._seen = 0

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        del scores, kwargs
        count = input_ids.shape[1] - self._start
        if is_due(count, self._seen):
            self._seen = count
            if piece := self._growing.settled(input_ids[0, self._start :].tolist()):
                self._put(piece)
        ended = self._left.is_set()
        return torch.full((len(input_ids),), ended, dtype=torch.bool, device=input_ids.device)


class _Writer(Thread):
    """Generates, and puts each piece, then `None` or what went wrong."""

    def __init__(self, call: Call, put: Put) -> None:
        super().__init__(name="guard-generate", daemon=True)
        self.left = Event()
        self._call = call
        self._put = put

    def run(self) -> None:
        """Generate until the end, or until the reader has left."""
        try:
            self._generate()
        except Exception as error:  # noqa: BLE001  # it is the reader's
            self._put(error)
        else:
            self._put(None)

    def _generate(self) -> None:
        call = self._call
        growing = Growing(call.shown(call.reading(0)))
        tap = _Tap(growing, call.start, self._put, self.left)
        ids = call.generate(tap)[0, call.start :].tolist()
        self._put(growing.rest(ids))


def _pieces(call: Call, timeout: float | None) -> Generator[str, None, None]:
    """Yield the text as it is written; raises `TimeoutError` where nothing comes in time."""
    written: queue.SimpleQueue[Written] = queue.SimpleQueue()
    writer = _Writer(call, written.put)
    writer.start()
    try:
        while (piece := _opened(_next(written, timeout))) is not None:
            yield piece
    finally:
        writer.left.set()
        writer.join(timeout)


def _next(written: queue.SimpleQueue[Written], timeout: float | None) -> Written:
    try:
        return written.get(timeout=timeout)
    except queue.Empty:
        raise _late(timeout) from None


async def _apieces(call: Call, timeout: float | None) -> AsyncGenerator[str, None]:  # noqa: ASYNC109
    """As `_pieces`, without blocking the event loop."""
    written: asyncio.Queue[Written] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def put(piece: Written) -> None:
        # The loop may be closed already where nobody reads any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(written.put_nowait, piece)

    writer = _Writer(call, put)
    writer.start()
    try:
        while (piece := _opened(await _anext(written, timeout))) is not None:
            yield piece
    finally:
        writer.left.set()
        await asyncio.to_thread(writer.join, timeout)


async def _anext(written: asyncio.Queue[Written], timeout: float | None) -> Written:  # noqa: ASYNC109
    try:
        return await asyncio.wait_for(written.get(), timeout)
    except TimeoutError:
        raise _late(timeout) from None


def _late(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"the model wrote nothing for {timeout} seconds")


def _opened(written: Written) -> str | None:
    if isinstance(written, Exception):
        raise written
    return written
