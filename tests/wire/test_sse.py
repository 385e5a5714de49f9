"""Server-sent events: what a stream of bytes says, however it is written and cut."""

from __future__ import annotations

import json
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guard.wire import sse
from guard.wire.sse import COMMENT, EVENT_LIMIT, Event, Parser, StreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

CORPUS: Final = [
    json.loads(line)
    for line in (Path(__file__).parent / "corpus" / "sse.jsonl").read_text("utf-8").splitlines()
]
"""Streams that are awkward to read, each with what it says."""

FRAGMENTS: Final = (
    *(b"data", b"event", b"id", b"retry", b":", b": ", b" ", b"\n", b"\n\n", b"\r", b"\r\n"),
    *(b"\r\r", b"x", b"[DONE]", b"{}", b"\xef\xbb\xbf", "é\u2028\U0001f642".encode(), b"\x00"),
    *(b"data: x\n\n", b"event: y\r\n", b"\xff", b"\xe2\x82", b"message", b"\x0b\x0c\x85"),
)

streams = st.lists(st.sampled_from(FRAGMENTS), max_size=24).map(b"".join)


def read(pieces: Sequence[bytes]) -> list[Event | str | None]:
    """Return what a parser makes of a stream; an error ends it and is told by its message."""
    parser = Parser()
    said: list[Event | str | None] = []
    try:
        for piece in pieces:
            # Not `extend`: what comes before an error counts.
            for event in parser.feed(piece):
                said.append(event)  # noqa: PERF402
    except StreamError as error:
        said.append(str(error))
    return said


def bytewise(data: bytes) -> list[bytes]:
    """Return the bytes of a stream one by one."""
    return [data[at : at + 1] for at in range(len(data))]


class TestReading:
    """A stream is read as the standard has it."""

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_line_ends(self, end: str) -> None:
        """Lines end in three ways, and so do events at the very end of a stream."""
        data = "event: a\ndata: 1\ndata: 2\n\ndata: 3\n\n".replace("\n", end).encode()
        assert read([data]) == [Event("1\n2", "a"), Event("3")]
        assert read(bytewise(data)) == [Event("1\n2", "a"), Event("3")]

    def test_line_end_cut_in_two(self) -> None:
        """An event counts with the first half of its line end, and the second is no other."""
        parser = Parser()
        assert list(parser.feed(b"data: 1\r\n\r")) == [Event("1")]
        assert list(parser.feed(b"\ndata: 2\r\n\r\n")) == [Event("2")]

    def test_one_space_is_dropped(self) -> None:
        """The space behind the colon is no part of the value, a second one is."""
        assert read([b"data:1\n\ndata: 2\n\ndata:  3\n\n"]) == [Event("1"), Event("2"), Event(" 3")]

    def test_mark_at_the_start(self) -> None:
        """A byte order mark may begin a stream, and only begin it."""
        data = b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n"
        assert read([data]) == [Event("1"), None]
        assert read(bytewise(data)) == [Event("1"), None]

    def test_comments_and_unknown_fields(self) -> None:
        """What says nothing is told as such, so that a connection is kept alive, and no more."""
        assert read([b": hello\n\nid: 7\nretry: 5\nsecret: x\n\n"]) == [None, None]

    def test_event_without_data(self) -> None:
        """A name alone is no event, nor is an empty text."""
        assert read([b"event: ping\n\ndata\n\ndata:\n\ndata: 1\n\n"]) == [
            None,
            None,
            None,
            Event("1"),
        ]

    def test_blank_lines(self) -> None:
        """Blank lines between events are nothing at all."""
        assert read([b"\n\r\n\rdata: 1\n\n\n\n"]) == [Event("1")]

    def test_unfinished_event(self) -> None:
        """An event without its blank line does not count."""
        assert read([b"data: 1\n\ndata: 2\n"]) == [Event("1")]

    def test_not_utf8(self) -> None:
        """A stream that is not UTF-8 is broken, behind what came before; nothing is quoted."""
        assert read([b"data: 1\n\ndata: \xffabc\n\n"]) == [
            Event("1"),
            "the backend sent an event that is not UTF-8",
        ]


class TestCutting:
    """What comes out does not depend on how bytes arrive."""

    @given(streams, st.lists(st.integers(0, 80), max_size=6))
    def test_any_cut(self, data: bytes, cuts: list[int]) -> None:
        """Cut anywhere, a stream says the same, and breaks at the same place."""
        bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        assert read([data[a:b] for a, b in pairwise(bounds)]) == read([data])

    @given(streams)
    def test_byte_by_byte(self, data: bytes) -> None:
        """So does one that comes byte by byte."""
        assert read(bytewise(data)) == read([data])

    @given(streams, st.integers(len(b"\xef\xbb\xbf"), 12))
    def test_limit(self, data: bytes, limit: int) -> None:
        """And one with an event too large for it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sse, "EVENT_LIMIT", limit)
            assert read(bytewise(data)) == read([data])

    @pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["about"])
    def test_corpus(self, case: dict[str, Any]) -> None:
        """Streams that once were, or may be, read wrongly are read right at every cut."""
        data = case["stream"].encode()
        said = [None if event is None else Event(*event) for event in case["events"]]
        for at in range(len(data) + 1):
            assert read([data[:at], data[at:]]) == said


class TestFuzz:
    """Bytes that nobody would send."""

    def test_mutations(self) -> None:
        """Mutated streams are read alike whole and cut; nothing but `StreamError` comes of them.

        `GUARD_FUZZ` says how many: `GUARD_FUZZ=1000000 pytest tests/wire/test_sse.py -k Fuzz`.
        """
        rng = random.Random(0)
        seeds = [case["stream"].encode() for case in CORPUS]
        for _ in range(int(os.environ.get("GUARD_FUZZ", "2000"))):
            data = mutated(rng.choice(seeds), rng)
            at = rng.randint(0, len(data))
            assert read([data[:at], data[at:]]) == read([data]), data


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return a stream with some pieces dropped, doubled, put in or replaced."""
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(data))
        end = rng.randint(at, min(len(data), at + 12))
        put = rng.choice((b"", data[at:end] * 2, rng.choice(FRAGMENTS), rng.randbytes(3)))
        data = data[:at] + put + data[end:]
    return data


class TestLimit:
    """The memory of a stream is bounded."""

    @pytest.mark.parametrize("field", [b"data: ", b": ", b""])
    def test_line_without_end(self, field: bytes) -> None:
        """A line that never ends is given up, whatever it is."""
        pieces = [field, *[b"x" * 2**20] * 17]
        assert read(pieces) == [f"the backend sent an event of more than {EVENT_LIMIT} bytes"]

    def test_event_without_end(self) -> None:
        """So is an event of ever more lines."""
        assert read([b"data: " + b"x" * 2**10 + b"\n"] * 2**14 * 2)[-1:] == [
            f"the backend sent an event of more than {EVENT_LIMIT} bytes"
        ]

    def test_many_events(self) -> None:
        """Many events are no large event."""
        assert len(read([b"data: " + b"x" * 2**16 + b"\n\n"] * 300)) == 300


class TestWriting:
    """Events are written as they are read."""

    @given(
        st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), min_size=1),
        st.text(st.sampled_from("abc._"), max_size=8),
    )
    def test_there_and_back(self, data: str, name: str) -> None:
        """What is written reads as it was."""
        assert read([Event(data, name).text().encode()]) == [Event(data, name)]

    def test_comment(self) -> None:
        """The comment that keeps a connection alive says nothing."""
        assert read([COMMENT.encode()]) == [None]


class TestAgainstAnother:
    """The decoder that SDKs' clients come with reads the same."""

    @given(streams.map(lambda data: data.rstrip(b"\r")))
    def test_same_events(self, data: bytes) -> None:
        """Both find the same texts under the same names.

        It knows no byte order mark, takes a carriage return at the very end for a blank line, too,
        and tells events without data, which carry no text.
        """
        try:
            marked = data.decode().startswith("\ufeff")
        except UnicodeDecodeError:
            marked = True
        assume(not marked)
        source = httpx2.EventSource(
            httpx2.Response(
                200,
                headers={"content-type": "text/event-stream; charset=utf-8"},
                content=data,
                request=httpx2.Request("GET", "http://backend"),
            )
        )
        theirs = [(event.event, event.data) for event in source if event.data]
        ours = [event for event in read([data]) if isinstance(event, Event)]
        assert [(event.name or "message", event.data) for event in ours] == theirs
