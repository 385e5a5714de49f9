"""Text as it shows: escapes and tags undone, with every span known."""

from __future__ import annotations

import html
import json
from time import process_time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.text.normalise import normalise

PLAIN = st.text(st.sampled_from("abc XYZ_019.-@é中\n"), max_size=60)


def shown(text: str) -> str:
    """Return a text as it shows."""
    return normalise(text, unescape=True).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\\_b\\-c\\.d", "a_b-c.d"),
        ("a&#95;b&#x5f;c&lowbar;d&#X5F;e", "a_b_c_d_e"),
        ("a%5Fb%40c", "a_b@c"),
        ("a\\u005fb\\x5fc", "a_b_c"),
        ("https:\\/\\/a.b", "https://a.b"),
        ("a<wbr>b <em>c</em> <A HREF='x'>d</A>", "ab c d"),
        ("<p>a</p><br/>b", " a  b"),
        ("<tr><td>a</td><td class=x>b</td></tr>", "  | a  | b  "),
        ("a\u2011b\u2013c\u2212d", "a-b-c-d"),
        ("a&#8203;b&#x430;", "aba"),
    ],
)
def test_what_shows_is_read(text: str, expected: str) -> None:
    """Escapes stand for characters, and tags for nothing or for a gap."""
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "&; &#; &nothing; & AT&T",
        "100% of 5%, %zz %00 %0a %7F %80",
        '\\n \\t \\\\ \\" \\d \\u12 \\x0a',
        "a < b > c, <token>, <password>, List<String>, <var>",
    ],
)
def test_what_shows_as_it_is_stays(text: str) -> None:
    """What is no escape, no character that shows, or stands for something is left alone."""
    assert shown(text) == text


def test_once_only() -> None:
    """What an escape stands for is no escape."""
    assert shown("&amp;#95; %255F") == "&#95; %5F"


@given(PLAIN)
def test_every_writing_shows_the_same(text: str) -> None:
    """A text reads the same however HTML, an address or JSON writes it."""
    same = shown(text)
    assert shown(html.escape(text)) == same
    assert shown("".join(f"&#{ord(c)};" for c in text)) == same
    assert shown(json.dumps(text)[1:-1].replace("\\n", "\n")) == same
    ascii_only = "".join(c for c in text if c.isascii() and c != "\n")
    assert shown(quote(ascii_only, safe="")) == ascii_only


@given(st.lists(st.sampled_from(["a", "&#95;", "%5F", "\\_", "<b>", "\u2013", "\u0430b", " "])))
def test_spans_are_the_originals(parts: list[str]) -> None:
    """Each character comes from the whole of what it was written in, in order."""
    text = "".join(parts)
    normal = normalise(text, unescape=True)
    spans = [normal.span(i, i + 1) for i in range(len(normal.text))]
    assert spans == sorted(spans)
    assert [shown(text[start:end]) for start, end in spans if text[start:end].isascii()] == [
        one
        for one, (start, end) in zip(normal.text, spans, strict=True)
        if text[start:end].isascii()
    ]


def work(text: str) -> float:
    """Return the processor time that a text takes, in seconds."""
    began = process_time()
    normalise(text, unescape=True)
    return process_time() - began


@pytest.mark.parametrize(
    "piece", ["<b ", "<", "&", "&a", "&#", "%", "\\", "\\u", "%2", "<b a<", "&#95;"]
)
def test_work_grows_with_the_length(piece: str) -> None:
    """Ten times the text takes about ten times the work, and by no means a hundred times."""
    normalise("\u00e9", unescape=True)
    text = piece * (200_000 // len(piece))
    assert any(work(text) < 40 * work(text[:20_000]) + 0.5 for _ in range(3))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\u0061\u0062c", "abc"),
        (r"\\u0061 \u{62} \x63", "a b c"),
        ("&#97;&#x62;&#X63;", "abc"),
        ("&#97&#098 &#00000099;", "ab c"),
        (r"\\\\u0061 \U00000062", "a b"),
        (r"\u0063af\u00e9 \ud83d\ude00", "caf\u00e9 \U0001f600"),
        (r"a\u000ab\u0000c", "a b c"),
        (r"\u006do\u0064el", "model"),
        (
            r"C:\users \u12 \xe9 \x0 &#; &#9999999; &amp;",
            r"C:\users \u12 \xe9 \x0 &#; &#9999999; &amp;",
        ),
    ],
)
def test_readers_of_words_read_characters_for_their_numbers(text: str, expected: str) -> None:
    """As JSON, HTML and code write them, also in prose; and the span is that of the number."""
    form = normalise(text, deobfuscate=True)
    assert form.text == expected
    assert form.span(0, len(expected)) == (0, len(text))
    assert normalise(text).text == text


@given(PLAIN)
def test_numbers_are_read_as_the_characters_are(text: str) -> None:
    """Whatever is written so reads as the text itself, and in JSON within JSON, too."""
    wanted = normalise(text.replace("\n", " "), deobfuscate=True).text
    numbers = "".join(f"\\u{ord(sign):04x}" for sign in text)
    for written in (numbers, numbers.replace("\\", "\\\\")):
        assert normalise(written, deobfuscate=True).text == wanted
