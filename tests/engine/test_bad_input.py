"""Bad input: everything is judged or refused by `InputError`; nothing else ever comes out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import InputError
from guard.exchange import Channel, Choice, Exchange, Message, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from guard.engine import Guard

MEGABYTE = 1_000_000
HUNDRED = 100_000
GENEROUS_SECONDS = 120
"""For a long text on a slow and busy machine; quadratic work would take far longer."""

PROSE = "The ferry left before dawn and came back with the tide. "
LONG: dict[str, str] = {
    "prose": PROSE * (MEGABYTE // len(PROSE)),
    "one run": "a" * MEGABYTE,
    "one wide run": "🙂" * HUNDRED,
    "white space": " \n" * (HUNDRED // 2),
    "sentences of nothing": ". " * (HUNDRED // 2),
    "open armour": "-----BEGIN KEY-----\n" + "a\n" * (HUNDRED // 2),
    "much armour": "-----BEGIN " * (HUNDRED // 11),
    "NUL": "\x00" * HUNDRED,
    "combining": "e" + "\u0301" * HUNDRED,
}
NO_TEXT = (None, b"bytes", bytearray(b"bytes"), 7, 1.5, ["a list"], {"a": "dict"}, object())

no_text = pytest.mark.parametrize("value", NO_TEXT, ids=[type(v).__name__ for v in NO_TEXT])


def wrong(value: Any) -> Any:
    """Return `value` with the type checker looking away."""
    return value


class TestOddText:
    """Text that is odd and still text."""

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "\n",
            "\x00",
            "\ud800",
            "\ud83d\ude00",
            "a\x00b\ud800c",
            "\ufeff",
            "🙂",
        ],
    )
    async def test_it_is_judged(self, real_guard: Guard, text: str) -> None:
        """Empty text, NUL and lone surrogates are judged in full, by all detectors."""
        stream = real_guard.stream([text])
        delivered = "".join(stream)
        for verdict in (real_guard.check(text), await real_guard.acheck(text), stream.verdict):
            assert verdict.streamed == delivered
            assert sum(verdict.coverage.judged.values()) == len(text)
            assert set(verdict.coverage.detectors.values()) <= {"ok"}
            assert verdict.action != "allow" or verdict.text == text

    @given(text=st.text(st.characters() | st.sampled_from("\x00\ud800\udfff\u202e🙂")))
    def test_any_text_is_judged(self, pack_guard: Guard, text: str) -> None:
        """Whatever a string holds, in response, prompt or system prompt, it gets a verdict."""
        verdict = pack_guard.check(text, prompt=text, system=text)
        assert sum(verdict.coverage.judged.values()) == len(text)


class TestLongText:
    """A megabyte."""

    @pytest.mark.parametrize("text", LONG.values(), ids=LONG)
    def test_it_is_judged_to_its_end(self, pack_guard: Guard, text: str) -> None:
        """Every character is judged, in bounded time."""
        began = time.monotonic()
        verdict = pack_guard.check(text)
        assert time.monotonic() - began < GENEROUS_SECONDS
        assert verdict.coverage.judged == {"choices[0].content": len(text)}
        assert verdict.coverage.complete

    def test_its_last_word_counts(self, pack_guard: Guard) -> None:
        """What stands at the end of a megabyte is found there."""
        text = LONG["prose"] + "zredact"
        verdict = pack_guard.check(text)
        assert verdict.text == LONG["prose"] + "[redacted: to redact]"
        assert verdict.findings[0].start == len(LONG["prose"])

    @pytest.mark.parametrize("word", ["zexcise", "zredact", "zblock"])
    def test_mending_stays_bounded(self, pack_guard: Guard, word: str) -> None:
        """A long block of tiny sentences with something to take out is mended in bounded time."""
        text = "-----BEGIN KEY-----\n" + f"a.\n{word}\n" + "a.\n" * 4000
        began = time.monotonic()
        verdict = pack_guard.check(text)
        assert time.monotonic() - began < GENEROUS_SECONDS
        assert verdict.action in ("rewrite", "block")
        assert word not in verdict.delivered


class TestNoText:
    """What is no text is refused, and the message says what to do."""

    @no_text
    def test_response(self, pack_guard: Guard, value: Any) -> None:
        """A response that is neither text nor an exchange is refused."""
        with pytest.raises(InputError, match="`response` must be `str`"):
            pack_guard.check(value)

    def test_bytes_name_the_mend(self, pack_guard: Guard) -> None:
        """Whoever passes bytes is told to decode them."""
        with pytest.raises(InputError, match="Decode bytes first"):
            pack_guard.check(wrong(b"bytes"))

    @no_text
    async def test_prompt_and_system(self, pack_guard: Guard, value: Any) -> None:
        """So are prompts and system prompts, before anything is read of a stream."""
        with pytest.raises(InputError, match="`prompt`"):
            pack_guard.check("fine", prompt=value)
        with pytest.raises(InputError, match="`system`"):
            await pack_guard.acheck("fine", system=value)
        with pytest.raises(InputError, match="`prompt`"):
            pack_guard.stream(["fine"], prompt=value)
        with pytest.raises(InputError, match="`system`"):
            pack_guard.astream(wrong(None), system=value)

    @pytest.mark.parametrize("value", [None, 7, object()])
    def test_pieces(self, pack_guard: Guard, value: Any) -> None:
        """A source that cannot be iterated over is refused at once."""
        with pytest.raises(InputError, match="`pieces` must be"):
            pack_guard.stream(value)
        with pytest.raises(InputError, match="`pieces` must be asynchronously iterable"):
            pack_guard.astream(value)

    def test_a_plain_iterable_for_astream(self, pack_guard: Guard) -> None:
        """Whoever passes a list to `astream` is told of `stream`."""
        with pytest.raises(InputError, match="use `stream`"):
            pack_guard.astream(wrong(["text"]))

    @pytest.mark.parametrize("value", [v for v in NO_TEXT if not isinstance(v, str)])
    async def test_a_piece(self, pack_guard: Guard, value: Any) -> None:
        """A piece that is no text ends the stream; nothing behind it is read."""
        read: list[int] = []

        def source() -> Iterator[Any]:
            yield "It was zflag that day. " * 20
            yield value
            read.append(1)

        async def asource() -> AsyncIterator[Any]:
            for piece in source():
                yield piece

        with pytest.raises(InputError, match="pieces must be `str`"):
            list(pack_guard.stream(source()))
        with pytest.raises(InputError, match="pieces must be `str`"):
            _ = [text async for text in pack_guard.astream(asource())]
        assert read == []

    def test_a_string_is_its_characters(self, pack_guard: Guard) -> None:
        """A stream over a string delivers it."""
        assert "".join(pack_guard.stream("All is well.")) == "All is well."

    def test_check_many_takes_several(self, pack_guard: Guard) -> None:
        """One text in place of many is refused: it would be judged letter by letter."""
        with pytest.raises(InputError, match="use `check`"):
            pack_guard.check_many("All is well.")
        with pytest.raises(InputError, match="use `check`"):
            pack_guard.check_many(wrong(None))

    def test_check_many_takes_no_object_of_json(self, pack_guard: Guard) -> None:
        """A mapping is refused: its keys would be judged, and what it holds would not."""
        with pytest.raises(InputError, match="not be one dict: use `check`"):
            pack_guard.check_many({"response": "zblock"})

    @pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
    def test_check_many_needs_a_worker(self, pack_guard: Guard, workers: Any) -> None:
        """What is no number of workers, or one below one, is refused."""
        with pytest.raises(InputError, match="`workers` must be at least 1"):
            pack_guard.check_many(["fine"], workers=workers)


class TestExchange:
    """Exchanges whose parts are of wrong types, as Python does not prevent."""

    @pytest.mark.parametrize(
        ("exchange", "place"),
        [
            (Exchange(()), "no choices"),
            (Exchange(wrong("text")), "`choices`"),
            (Exchange(wrong(["text"])), r"`choices\[0\]`"),
            (Exchange((Choice(wrong(None)),)), r"`choices\[0\].content`"),
            (Exchange((Choice(wrong(b"x")),)), r"`choices\[0\].content`"),
            (Exchange((Choice(), Choice(reasoning=wrong(1)))), r"`choices\[1\].reasoning`"),
            (Exchange((Choice(refusal=wrong([])),)), r"`choices\[0\].refusal`"),
            (Exchange((Choice(tool_calls=wrong(None)),)), r"`choices\[0\].tool_calls`"),
            (Exchange((Choice(tool_calls=wrong(["x"])),)), r"`choices\[0\].tool_calls\[0\]`"),
            (
                Exchange((Choice(tool_calls=(ToolCall("send", wrong({"to": "all"})),)),)),
                r"`choices\[0\].tool_calls\[0\].arguments` must be `str`, not dict",
            ),
            (
                Exchange((Choice(tool_calls=(ToolCall(wrong(None), "{}"),)),)),
                r"`choices\[0\].tool_calls\[0\].name`",
            ),
            (
                Exchange((Choice(tool_calls=(ToolCall("send", "{}", wrong(5)),)),)),
                r"`choices\[0\].tool_calls\[0\].id`",
            ),
            (Exchange((Choice(),), messages=wrong(["hello"])), r"`messages\[0\]`"),
            (Exchange((Choice(),), messages=wrong(5)), "`messages`"),
            (
                Exchange((Choice(),), messages=(Message("user", wrong(None)),)),
                r"`messages\[0\].content`",
            ),
            (Exchange((Choice(),), model=wrong(None)), "`model`"),
            (Exchange((Choice(),), metadata=wrong(None)), "`metadata`"),
        ],
    )
    def test_the_place_is_named(self, pack_guard: Guard, exchange: Exchange, place: str) -> None:
        """The message names the field that is wrong; nothing is judged."""
        with pytest.raises(InputError, match=place):
            pack_guard.check(exchange)
        with pytest.raises(InputError, match=place):
            asyncio.run(pack_guard.acheck(exchange))

    def test_all_at_once(self, pack_guard: Guard) -> None:
        """Everything that is wrong with an exchange is told together."""
        exchange = Exchange((Choice(wrong(None), wrong(1)),), model=wrong(2))
        with pytest.raises(InputError, match=r"`model`.*`choices\[0\].content`.*reasoning`"):
            pack_guard.check(exchange)

    @pytest.mark.parametrize("value", [None, "text", [], Choice()])
    def test_no_exchange(self, pack_guard: Guard, value: Any) -> None:
        """What is no exchange has neither an input nor an answer to follow."""
        for ask in (pack_guard.check_input, pack_guard.follow):
            with pytest.raises(InputError, match="`exchange` must be `Exchange`"):
                ask(value)

    @no_text
    def test_asked_without_text(self, pack_guard: Guard, value: Any) -> None:
        """A message of what is no text is refused before there is any answer."""
        exchange = Exchange((), messages=(Message("user", value),))
        for ask in (pack_guard.check_input, pack_guard.follow):
            with pytest.raises(InputError, match=r"`messages\[0\].content` must be `str`"):
                ask(exchange)

    def test_a_conversation(self, pack_guard: Guard) -> None:
        """What names a conversation is text."""
        with pytest.raises(InputError, match="`conversation` must be `str`, not int"):
            pack_guard.check("fine", conversation=wrong(5))

    def test_lists_will_do(self, pack_guard: Guard) -> None:
        """Lists in place of tuples are as good."""
        exchange = Exchange(wrong([Choice("All is well.")]), wrong([Message("user", "Well?")]))
        assert pack_guard.check(exchange).text == "All is well."


class TestFollowing:
    """Calls that do not fit what was opened."""

    OPEN = Channel("open", "content", 0, "")

    @pytest.mark.parametrize("value", [None, "open", Channel("full", "content", 0, "Some text.")])
    def test_open(self, pack_guard: Guard, value: Any) -> None:
        """A channel comes without its text, which would not be judged."""
        with pytest.raises(InputError, match=r"must be `Channel`|has a text"):
            pack_guard.follow(Exchange(())).open(value)

    @pytest.mark.parametrize("name", ["another", None, 5, []])
    def test_unknown(self, pack_guard: Guard, name: Any) -> None:
        """A channel has to be opened first."""
        following = pack_guard.follow(Exchange(()))
        following.open(self.OPEN)
        for call in (following.close, lambda name: following.feed(name, "text")):
            with pytest.raises(InputError, match="is open"):
                call(name)

    async def test_closed(self, pack_guard: Guard) -> None:
        """More of a text behind its end is refused and not dropped."""
        following = pack_guard.follow(Exchange(()))
        following.open(self.OPEN)
        assert following.feed("open", "Fine.") + following.close("open") == "Fine."
        with pytest.raises(InputError, match="closed"):
            following.feed("open", "More.")
        with pytest.raises(InputError, match="closed"):
            await following.afeed("open", "More.")
        assert following.close("open") == ""
        assert following.finish().text == "Fine."

    @pytest.mark.parametrize("end", ["finish", "abandon"])
    def test_over(self, pack_guard: Guard, end: str) -> None:
        """So is everything behind the end of the exchange."""
        following = pack_guard.follow(Exchange(()))
        following.open(self.OPEN)
        getattr(following, end)()
        for call in (
            lambda: following.open(Channel("late", "content", 0, "")),
            lambda: following.feed("open", "More."),
            lambda: following.close("open"),
        ):
            with pytest.raises(InputError, match="over"):
                call()

    def test_finished_twice(self, pack_guard: Guard) -> None:
        """A second `finish` gives the same verdict; there is none of what was abandoned."""
        following = pack_guard.follow(Exchange(()))
        following.open(self.OPEN)
        following.feed("open", "Fine.")
        assert following.finish() == following.finish()
        dropped = pack_guard.follow(Exchange(()))
        dropped.abandon()
        with pytest.raises(InputError, match="over"):
            dropped.finish()
