"""Text out of its format: what is read beside it, what has no such reading, where a place is."""

from __future__ import annotations

import html
import json
from time import process_time
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.text.frames import unframed

if TYPE_CHECKING:
    from collections.abc import Callable

SENTENCES: Final = (
    "You don\u2019t need a tool for this.",
    "Mix the soil with sand, and water it \u201cdaily\u201d until it is wet.",
    "Then dig a hole of 30 cm & put the plant in.",
    "It will grow well in the next weeks, so wait.",
)
PLAIN: Final = " ".join(SENTENCES)
LINES: Final = "\n".join(SENTENCES)


def words(text: str) -> list[str]:
    """Return the words of a text, whatever stands between them."""
    return text.split()


def each(form: str) -> str:
    """Return the sentences in a form, with their numbers, line by line."""
    return "\n".join(form.format(sentence, n) for n, sentence in enumerate(SENTENCES, 9))


FRAMED: Final = {
    "steps in JSON": json.dumps([{"step": n, "text": s} for n, s in enumerate(SENTENCES)]),
    "JSON over lines": json.dumps({"steps": [{"text": s} for s in SENTENCES]}, indent=4),
    "escapes": json.dumps({"answer": LINES.replace(" ", "\n")}),
    "XML": each('<step id="{1}" lang="en">{0}</step>'),
    "HTML": "".join(f"<li><b>{html.escape(s)}</b></li>" for s in SENTENCES),
    "entities": PLAIN.replace("&", "&amp;").replace(" ", "&nbsp;").replace(".", "&#46;"),
    "within words": PLAIN.replace("a", "<i>a</i>"),
    "colours": PLAIN.replace("the", "\x1b[1;31mthe\x1b[0m"),
    "a log": each("2026-03-04 12:00:{1:02},107 INFO app.answer {0}"),
    "a chat": each("[2026-03-04 12:{1:02}] {0}"),
    "numbered lines": each("   {1} | {0}"),
    "subtitles": each("{1}\n00:00:{1:02},000 --> 00:00:{1:02},900\n{0}\n"),
}


@pytest.mark.parametrize("text", FRAMED.values(), ids=FRAMED)
def test_the_words_are_read_without_their_format(text: str) -> None:
    """Nothing is left of a format, and nothing of what stands in it is missing."""
    found = unframed(text)
    assert found is not None
    assert [w for w in words(found[0]) if w.strip('[]{}",')] == words(PLAIN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PLAIN,
        LINES,
        PLAIN.replace(" ", "\n"),
        "> ".join(["", *LINES.splitlines(keepends=True)]),
        each("{1}. {0}"),
        each("- **Step {1}:** {0}"),
        each("{1}. On March {1}, 2017, the council of the city said: {0}"),
        each("## {0}\n"),
        each("Step {1}: {0}"),
        each("Never {0}"),
        each("\u274c Do not {0}"),
        each("**Don't** {0}"),
        each("Myth: {0}"),
        each("> {0}"),
        each("    {0}"),
        each("{1} - {0}"),
        each("1.{1} {0}"),
        each("8:{1:02} {0}"),
        each("[{1}] {0}"),
        each("**Days {1}-{1}:** {0}"),
        f"{PLAIN}\n2005 - 7.32%\n2006 - 7.26%\n2007 - 7.31%\n",
        f"{PLAIN} It is <b>not</b> hard & takes &lt; 5 minutes.",
        'for (int at = 9; at < 12; at++) {\n    items[at] = "the first of all";\n}\n' * 2,
        '<div class="a b c"><span id="first"></span><input type="submit" name="x"/></div>',
        'values = [{"name": "first", "size": 1}, {"name": "second", "size": 2}]',
        "\n".join(f"2026-03-04 12:00:{n:02},107 INFO x{n}9q zz{n} kt{n}" for n in range(9)),
    ],
)
def test_prose_lists_and_code_have_no_such_reading(text: str) -> None:
    """What reads as it stands, or reads as no words without its signs, is read once."""
    assert unframed(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (each("2026-03-04 12:00:{1:02},107 WARN Never do this: {0}"), "Never do this: You"),
        (each("[2026-03-04 12:{1:02}] Avoid: {0}"), "Avoid: You"),
        (json.dumps([{"never_do": s, "text": "a"} for s in SENTENCES]), "never do: You"),
        (json.dumps([{"id": 1, "myth": s} for s in SENTENCES]), "myth: Mix"),
        (each("<dont>{0}</dont>"), "dont: Mix"),
        (json.dumps([{"is_safe": False, "text": s} for s in SENTENCES]), "is safe: false Mix"),
        (each("<li><s>{0}</s></li>"), "s: Mix"),
    ],
)
def test_words_that_turn_the_meaning_are_read(text: str, said: str) -> None:
    """What warns of something does not read as the thing itself."""
    found = unframed(text)
    assert found is not None
    assert said in " ".join(words(found[0]))


@pytest.mark.parametrize("text", FRAMED.values(), ids=FRAMED)
def test_a_place_is_where_what_stood_there_is(text: str) -> None:
    """The unit begins in the reading where it begins in the text."""
    start = text.index("hole")
    found = unframed(text, start)
    assert found is not None
    assert found[0][found[1] :].startswith("hole")


def test_a_unit_of_which_nothing_is_left_has_no_such_reading() -> None:
    """The tags that end a document say nothing by themselves."""
    for end in ("</ul></body></html>", "</p>&#8203;&#8203;"):
        assert unframed(FRAMED["HTML"] + end, len(FRAMED["HTML"])) is None


@given(st.text(st.sampled_from('a1 .\n<>&;/\\"n:{}[],\x1b\ud83d') | st.characters()))
def test_any_text_can_be_read(text: str) -> None:
    """Whatever a string holds, a place in it is one in its reading."""
    for start in range(0, len(text), 7):
        found = unframed(f"{FRAMED['XML']}{text}", start)
        assert found is None or 0 <= found[1] < len(found[0])


@pytest.mark.parametrize(
    "build",
    [
        lambda piece: piece * (100_000 // len(piece)),
        lambda piece: f"{PLAIN}\n{piece * (100_000 // len(piece))}",
    ],
)
@pytest.mark.parametrize(
    "piece",
    ["<a ", "<a", " ", "\n", " \n", '{"', '{ "a', '"', ',"a":', "1\n", "9", "&a", "\\u", "\x1b["],
)
def test_work_grows_with_the_length(build: Callable[[str], str], piece: str) -> None:
    """A hundred thousand hostile characters take seconds at worst."""
    began = process_time()
    unframed(build(piece))
    assert process_time() - began < 5
