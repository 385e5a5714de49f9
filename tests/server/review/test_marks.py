"""A text with spans marked in it: it says what the text says, and nothing of it is markup."""

from __future__ import annotations

import sys
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from guard.server.review.marks import Span, marked
from guard.text.visible import plain
from tests.server.review.conftest import HOSTILE, Reader

TEXTS = st.text(
    st.characters() | st.sampled_from([*"<>&\"'\r\n\t", "\u202e", "\u200b", "\x1b", "\ud800"])
)


@st.composite
def texts_with_spans(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """Return a text and spans, some of which lie outside of it."""
    text = draw(TEXTS)
    places = st.integers(-2, len(text) + 3)
    names = st.sampled_from(["one", "two", "<three>"])
    return text, draw(st.lists(st.builds(Span, places, places, names), max_size=8))


def box(text: str, *spans: Span) -> Reader:
    """Return what a browser makes of a text in its box."""
    return Reader(f'<div class="text">{marked(text, spans)}</div>')


@given(texts_with_spans())
def test_any_text_with_any_spans(given_: tuple[str, list[Span]]) -> None:
    """The page's text is the original with escapes, tags are nested, and marks cover the spans."""
    text, spans = given_
    page = box(text, *spans)
    assert page.boxes == [plain(text)]
    assert not page.open
    assert set(page.tags) <= {"div", "mark", "span"}
    inside = [each for each in spans if 0 <= each.start < each.end <= len(text)]
    covered = {place for each in inside for place in range(each.start, each.end)}
    dropped = {i for i in range(len(text) - 1) if text[i : i + 2] == "\r\n"}
    shown = "".join(plain(text[place]) for place in sorted(covered - dropped))
    assert "".join(page.marks) == shown


def test_spans_that_overlap_are_cut() -> None:
    """Each piece names all spans that cover it, and no mark lies within another."""
    made = str(marked("abcdef", [Span(0, 4, "a"), Span(2, 6, "b"), Span(2, 6, "b")]))
    assert unescape(made) == (
        '<mark class="one" title="a">ab</mark><mark class="several" title="a, b">cd</mark>'
        '<mark class="one" title="b">ef</mark>'
    )


def test_markup_and_what_hides_are_shown() -> None:
    """A script is text, a mark of direction an escape."""
    page = box(HOSTILE, Span(0, 9, "x"))
    assert page.boxes == [plain(HOSTILE)]
    assert "\\u202eevil" in page.boxes[0]
    assert "script" not in page.tags
    assert "img" not in page.tags


def test_the_work_grows_with_the_text_and_the_spans_alone() -> None:
    """Ten times the text and the spans cost ten times the calls, also where all overlap."""

    def calls(size: int) -> int:
        count = 0

        def note(_: object, event: str, __: object) -> None:
            nonlocal count
            count += event in {"call", "c_call"}

        spans = [Span(each, size, "same") for each in range(0, size, 10)]
        sys.setprofile(note)
        try:
            marked("<\u202ex" * (size // 3), spans)
        finally:
            sys.setprofile(None)
        return count

    assert calls(30_000) < 15 * calls(3_000)


def test_a_title_is_no_markup() -> None:
    """A category's name is whatever somebody called it."""
    assert 'title="&#34;&gt;"' in str(marked("a", [Span(0, 1, '">')]))


def test_a_title_hides_nothing() -> None:
    """What reorders a name or cannot be sent is written out, as in the text."""
    assert r'title="\u202e\udc80"' in str(marked("a", [Span(0, 1, "\u202e\udc80")]))
