"""Units: where text is cut, that the cut depends on the text alone, and what is never cut."""

from __future__ import annotations

import re
import time
import unicodedata
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.text.normalise import IGNORABLE, folded, normalise
from guard.text.units import (
    _FULL_STOP,
    BLOCK_LIMIT,
    CONTEXT,
    HIDDEN_LIMIT,
    LOOKAHEAD,
    RUN_LIMIT,
    UNIT_MAXIMUM,
    UNIT_MINIMUM,
    flooded,
    seen_end,
    sentences,
    shown_end,
    unit_end,
    units,
)
from guard.text.wrapped import BREAK

MANY = settings(max_examples=max(300, settings().max_examples))
"""At least 300 examples, in every profile."""

WORDS: Final = "The mill stood still while the rain fell on the weir"
SENTENCE: Final = f"{WORDS}. "
ZERO: Final = "\u200b"
BROKEN: Final = re.compile(rf"{BREAK}+[ \t]*")
HIDDEN: Final = re.compile(f"[{IGNORABLE}\ud800-\udfff]+")
LINE: Final = "abcdefghijklmnopqrstuvwxyz0123456789+/ABCDEFGHIJKLMNOPQRSTUVWXYZab"


WIDE: Final = {code: code + 0xFEE0 for code in b"BEGIND-"}


def ssh2(lines: int) -> str:
    """Return a key as RFC 4716 writes it, of so many lines."""
    body = "\n".join([LINE] * lines)
    kind = "SSH2 ENCRYPTED PRIVATE KEY"
    return f"---- BEGIN {kind} ----\nComment: mill\n{body}\n---- END {kind} ----"


def ppk(lines: int, version: int = 3) -> str:
    """Return a key file of PuTTY's, of so many lines."""
    body = "\n".join([LINE[:64]] * lines)
    mac = "0123456789abcdef" * 4
    return (
        f"PuTTY-User-Key-File-{version}: ssh-rsa\nEncryption: none\nComment: mill\n"
        f"Public-Lines: 1\n{LINE[:64]}\nPrivate-Lines: {lines}\n{body}\n"
        f"Private-MAC: {mac if version == 3 else mac[:40]}"
    )


SIGNS: Final = (
    "-----BEGIN",
    "---- BEGIN SSH2",
    "PuTTY-User-Key-File-",
    "Private-Lines:",
)
"""How blocks begin."""

LOOK_ALIKES: Final = (
    "\uff0d-\ufe63--B\u0415GIN PRIVATE KEY-----",
    "-----\ud835\udc01EGIN PRIVATE KEY-----",
    f"{'-----BEGIN'.translate(WIDE)}\u3000{ZERO}PRIVATE\u00a0KEY-----",
    "-----\U0001d6a9\u13ac\u050cIN PRIVATE KEY-----",
)
"""First lines of PEM blocks that are not what they look like."""


WIDE_SENTENCES: Final = (
    "\u78e8\u574a\u505c\u4e86\uff0c\u96e8\u8fd8\u5728\u4e0b\u3002",
    "\u300c\u6c34\u304c\u5897\u3048\u305f\uff01\u300d",
    "\uff08\u4f60\u770b\u89c1\u4e86\u5417\uff1f\uff09",
    "\u4ed6\u8bf4\u201c\u7b49\u4e00\u7b49\u2026\u2026\u201d",
)
"""Sentences of scripts that put no white space behind them."""


def pem(lines: int, kind: str = "PRIVATE KEY") -> str:
    """Return a block of so many lines."""
    body = "\n".join([LINE] * lines)
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


def shown(text: str) -> str:
    """Return what of a text shows."""
    return HIDDEN.sub("", text)


def is_flooded(text: str, start: int, end: int) -> bool:
    """Return whether a unit has too much hidden, its look-ahead included."""
    return flooded(text[start : seen_end(text, end, final=True)])


PIECES: Final = st.one_of(
    st.sampled_from(
        [
            SENTENCE,
            WORDS,
            f"{WORDS} ",
            " ",
            "\n",
            "\r\n",
            "\n\n",
            "\r",
            ". ",
            "?! ",
            '." ',
            ".",
            "\u3002 ",
            *WIDE_SENTENCES,
            WIDE_SENTENCES[0] * 60,
            "\u6f6e" * 300,
            "\u6f6e" * (RUN_LIMIT + 300),
            "\uff01",
            "\uff1f\u300d",
            "\u2026\u2026",
            "x" * 150,
            "x" * 600,
            "y" * (RUN_LIMIT + 300),
            " " * 300,
            " " * (RUN_LIMIT + 300),
            "\U0001f469\u200d\U0001f4bb ",
            "e\u0301",
            "\u0301",
            "\x00",
            "\ud800",
            "-----BEGIN",
            "-----BEGIN ",
            "-----END PRIVATE KEY-----",
            "-----END ",
            "-----",
            pem(2),
            pem(9, "RSA PRIVATE KEY"),
            pem(60),
            pem(150),
            ssh2(3),
            ssh2(40),
            ppk(3),
            ppk(40, 2),
            "\n".join([LINE] * 3),
            f"{LINE}\r\n  " * 9,
            f"{LINE}\r",
            f"{LINE}\n" * 90,
            "---- ",
            "---- BEGIN ",
            "PuTTY-User-Key-File-3",
            ZERO.join(ssh2(3)),
            ZERO * 150,
            ZERO * (HIDDEN_LIMIT + 300),
            f"a{ZERO}" * 600,
            "\x1c",
            f"{WORDS}\x1d",
            ZERO.join("-----BEGIN "),
            ZERO.join(pem(9)),
            pem(60).replace("a", "a\u00ad\u2060"),
            pem(60).translate(WIDE),
            *LOOK_ALIKES,
        ]
    ),
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.text("ab. \n", max_size=200),
    st.text("a\u6f6e\u3002\uff01\uff1f\u2026\u300d\u201d! ", max_size=200),
)
TEXTS: Final = st.lists(PIECES, max_size=14).map("".join)
"""Any text, and texts that are full of what matters for a cut."""


def cut(text: str) -> list[str]:
    """Return the units of a text."""
    return [text[start:end] for start, end in units(text)]


class TestUnits:
    """A whole text."""

    def test_nothing_has_no_units(self) -> None:
        """The empty text has no unit."""
        assert cut("") == []

    @pytest.mark.parametrize("text", ["a", " ", "\n", "Hello. ", "\x00", SENTENCE * 2])
    def test_short_text_is_one_unit(self, text: str) -> None:
        """What is shorter than the smallest unit is one, whatever is in it."""
        assert cut(text) == [text]

    def test_ends_with_a_sentence(self) -> None:
        """A unit takes whole sentences until it is large enough, white space included."""
        assert cut(SENTENCE * 5) == [SENTENCE * 3, SENTENCE * 2]

    @pytest.mark.parametrize(
        "end", [". ", "! ", "? ", "\u2026 ", "\u3002 ", "\uff1f ", '." ', ".\u201d ", ".) ", ".** "]
    )
    def test_every_sentence_end_counts(self, end: str) -> None:
        """Full stops and others end a sentence, in other scripts too, with quotes behind."""
        first = f"{'w ' * 60}w{end}"
        assert cut(f"{first}{'v ' * 60}") == [first, "v " * 60]

    @pytest.mark.parametrize("end", ["\n", "\n\n", ".\r\n", ". \n \n"])
    def test_a_line_end_counts(self, end: str) -> None:
        """A line ends a sentence, with all white space that follows a full stop."""
        first = f"{'w ' * 60}w{end}"
        assert cut(f"{first}{'v ' * 60}") == [first, "v " * 60]

    def test_lines_end_behind_both_their_characters(self) -> None:
        """A carriage return and its line feed stay together."""
        text = f"{WORDS}\r\n{WORDS}\r\n{WORDS}\r\n" * 20
        assert all(unit.endswith("\r\n") for unit in cut(text))
        assert not any(unit.startswith("\n") for unit in cut(text))

    @pytest.mark.parametrize("text", ["3.14159 ", "mill.dev/a ", "e.g.x ", "a?b=c! "])
    def test_a_dot_inside_a_word_does_not_count(self, text: str) -> None:
        """Without white space behind it a full stop ends nothing."""
        start = "w " * 60 + text.rstrip()
        assert cut(f"{start} {'v ' * 40}. {SENTENCE}")[0].startswith(start)

    def test_without_sentences_white_space_ends_it(self) -> None:
        """At its maximum a unit ends with the word that it is in."""
        text = "word " * 200
        first = cut(text)[0]
        assert first == "word " * (UNIT_MAXIMUM // 5 + 1)

    def test_units_have_a_size(self) -> None:
        """In ordinary text all units but the last are of the size that was promised."""
        text = (SENTENCE * 3 + f"{WORDS}, {WORDS}, {WORDS}; " * 3) * 10
        sizes = [len(unit) for unit in cut(text)]
        assert all(UNIT_MINIMUM <= size <= UNIT_MAXIMUM + 10 for size in sizes[:-1])

    @pytest.mark.parametrize("sentence", WIDE_SENTENCES)
    def test_a_full_width_sentence_end_counts(self, sentence: str) -> None:
        """Without white space behind it, too, and with the bracket or quote that closes it."""
        many = UNIT_MINIMUM // len(sentence) + 1
        assert cut(sentence * 200)[:9] == [sentence * many] * 9

    def test_a_full_width_sentence_longer_than_a_unit_is_whole(self) -> None:
        """Behind its maximum a unit ends with the sentence that it is in."""
        sentence = f"{chr(0x6F6E) * 900}\uff01"
        assert cut(sentence * 3) == [sentence] * 3

    @MANY
    @given(TEXTS)
    def test_units_have_no_gaps(self, text: str) -> None:
        """Each unit begins where the one before it ended, none is empty, all make the text."""
        assert "".join(cut(text)) == text
        assert all(cut(text))

    @MANY
    @given(TEXTS)
    def test_units_are_bounded(self, text: str) -> None:
        """No text makes a unit larger than a block, and what may stand before it."""
        longest = UNIT_MAXIMUM + 2 * RUN_LIMIT + BLOCK_LIMIT + 2 * HIDDEN_LIMIT
        assert all(len(unit) <= longest for unit in cut(text))

    @MANY
    @given(TEXTS, st.integers(0, 400))
    def test_a_unit_does_not_depend_on_what_was_before(self, text: str, start: int) -> None:
        """The unit at a place is the first unit of the text from that place on."""
        start = min(start, len(text))
        alone = unit_end(text[start:], 0, final=True)
        assert alone is not None
        assert unit_end(text, start, final=True) == start + alone


class TestPrefix:
    """Text that is still arriving."""

    @MANY
    @given(TEXTS, st.data())
    def test_an_answer_is_final(self, text: str, data: st.DataObject) -> None:
        """Where a unit of a prefix ends, it ends in the whole text."""
        length = data.draw(st.integers(0, len(text)))
        early = unit_end(text[:length], 0, final=False)
        assert early in (None, unit_end(text, 0, final=True))
        assert early in (None, unit_end(text, 0, final=False))

    @pytest.mark.parametrize(
        "text",
        [
            f"{SENTENCE * 3}x",
            f"{WORDS}. \r\n \n. \n{SENTENCE * 6}",
            "b " * 190 + pem(3) + "\n\nc. " * 60,
            f"{SENTENCE * 2}{pem(2)}{pem(2)}\n\n{SENTENCE * 2}",
            f"{'v ' * 198}{ssh2(9)}\n\n{SENTENCE * 2}",
            f"{'v ' * 60}{LINE}\r\n{LINE}\n  {LINE}\n\n{SENTENCE * 2}",
            f"{'v ' * 190}{ppk(9)}\n\n{SENTENCE * 2}",
            f"{'d' * 380} {'e' * 90}   f{' ' * 50}g. h",
            f"{'v ' * 60}v.{chr(34) * 40} {SENTENCE * 3}",
        ],
    )
    def test_every_answer_is_final(self, text: str) -> None:
        """Every prefix gives the whole text's answer, and at some length it does give one."""
        answers = {unit_end(text[:n], 0, final=False) for n in range(len(text) + 1)}
        assert answers == {None, unit_end(text, 0, final=True)}

    @MANY
    @given(TEXTS, st.data())
    def test_what_was_seen_is_final(self, text: str, data: st.DataObject) -> None:
        """How far detectors look behind a unit of a prefix, they look in the whole text."""
        end = unit_end(text, 0, final=True)
        assert end is not None
        whole = seen_end(text, end, final=True)
        length = data.draw(st.integers(0, len(text)))
        if length >= end:
            assert seen_end(text[:length], end, final=False) in (None, whole)

    @MANY
    @given(TEXTS)
    def test_an_answer_comes_in_time(self, text: str) -> None:
        """An unfinished text waits for no more than the longest unit and its look-ahead."""
        long = text + "z" * (UNIT_MAXIMUM + 2 * RUN_LIMIT + BLOCK_LIMIT)
        end = unit_end(long, 0, final=False)
        assert end is not None
        more = f"{long}{'z' * (LOOKAHEAD + RUN_LIMIT)}"
        assert seen_end(more, end, final=False) is not None

    def test_an_answer_needs_the_next_character(self) -> None:
        """White space may go on, so that a unit's end shows with the character behind it."""
        assert unit_end(SENTENCE * 3, 0, final=False) is None
        assert unit_end(f"{SENTENCE * 3}x", 0, final=False) == len(SENTENCE * 3)
        assert unit_end(SENTENCE * 3, 0, final=True) == len(SENTENCE * 3)

    @given(TEXTS)
    def test_pieces_make_the_same_units(self, text: str) -> None:
        """Cut as it arrives, a text has the units that it has as a whole."""
        found: list[str] = []
        pending = ""
        for at in range(0, len(text), 97):
            pending += text[at : at + 97]
            while (end := unit_end(pending, 0, final=False)) is not None:
                found.append(pending[:end])
                pending = pending[end:]
        assert found + cut(pending) == cut(text)


class TestNeverCut:
    """Runs without white space, and armoured keys."""

    @MANY
    @given(TEXTS)
    def test_runs_are_whole(self, text: str) -> None:
        """A unit ends inside a run only if the run is very long or a block has just ended."""
        for start, end in units(text):
            if end == len(text) or text[end - 1].isspace() or text[end].isspace():
                continue
            before = re.search(r"\S*\Z", BROKEN.sub("", text[start:end]))
            after = re.match(r"\S*", BROKEN.sub("", text[end:]))
            assert before is not None
            assert after is not None
            long = len(shown(before[0] + after[0])) >= RUN_LIMIT
            unit = shown(folded(text[start:end]))
            block = min((at for s in SIGNS if (at := unit.find(s)) >= 0), default=-1)
            assert (
                long
                or end in {match.end() for match in _FULL_STOP.finditer(text, start)}
                or (block >= 0 and unit.endswith(("-----", "----", *"0123456789abcdef")))
                or (block >= 0 and len(unit) - block >= BLOCK_LIMIT)
                or is_flooded(text, start, end)
            )

    @pytest.mark.parametrize("before", [0, 1, 119, 120, 399, 400, 401, 1000])
    def test_a_long_key_is_whole(self, before: int) -> None:
        """A run just below the limit is in one unit, wherever a unit would have ended."""
        run = "k" * (RUN_LIMIT - 1)
        text = f"{'v ' * (before // 2)}{run} {SENTENCE * 9}"
        assert any(run in unit for unit in cut(text))

    def test_a_longer_run_is_cut(self) -> None:
        """A run without end does not hold the text for ever."""
        assert len(cut("k" * (3 * RUN_LIMIT))[0]) == UNIT_MAXIMUM + RUN_LIMIT

    @pytest.mark.parametrize("before", [0, 1, 90, 115, 119, 120, 121, 395, 400, 401, 1000])
    @pytest.mark.parametrize("lines", [1, 5, 27, 110])
    def test_a_block_is_whole(self, before: int, lines: int) -> None:
        """An armoured key is in one unit, wherever it stands and however long it is."""
        key = pem(lines)
        text = f"{'v ' * (before // 2)}\n{key}\n{SENTENCE * 9}"
        assert any(key in unit for unit in cut(text))

    @pytest.mark.parametrize("before", [0, 115, 121, 250, *range(385, 405)])
    @pytest.mark.parametrize("key", [ssh2(3), ssh2(40), ppk(1), ppk(40), ppk(40, 2)])
    @pytest.mark.parametrize("gap", ["", ZERO])
    def test_other_keys_are_whole(self, before: int, key: str, gap: str) -> None:
        """What RFC 4716 and PuTTY write is in one unit, too, with its first and last line."""
        key = "\n".join(gap.join(line) for line in key.splitlines())
        text = f"{('v ' * before)[:before]}{key}\n{SENTENCE * 9}"
        assert any(key in unit for unit in cut(text))

    def test_the_private_part_of_a_key_file_is_whole(self) -> None:
        """The file may begin with it."""
        key = ppk(40)[ppk(40).index("Private-Lines") :]
        assert any(key[:-24] in unit for unit in cut(f"{SENTENCE}{key}\n{SENTENCE * 9}"))

    @pytest.mark.parametrize("before", [0, 1, 113, 127, 395, 401])
    @pytest.mark.parametrize("gap", ["\n", "\r\n", "\n    "])
    def test_broken_base64_is_whole(self, before: int, gap: str) -> None:
        """Line ends that tools put into base64 part no run."""
        run = gap.join([LINE] * 20 + ["QQ=="])
        text = f"{('v ' * before)[:before]}\n{run}\n\n{SENTENCE * 9}"
        assert any(run in unit for unit in cut(text))

    @pytest.mark.parametrize("line", ["-" * 80, "=" * 80, "." * 80, "a-path/of-words/" * 5])
    def test_other_lines_end_a_unit(self, line: str) -> None:
        """Rules, leaders and long paths are no base64."""
        text = f"{'v ' * 55}\n{line}\n{SENTENCE * 9}"
        assert cut(text)[0].endswith(f"{line}\n")

    @given(st.lists(st.one_of(st.integers(1, 60), st.just(SENTENCE)), min_size=1, max_size=12))
    def test_several_blocks_are_whole(self, parts: list[int | str]) -> None:
        """Of keys one after the other each is in one unit."""
        keys = [pem(part) if isinstance(part, int) else part for part in parts]
        text = "\n".join(keys)
        for key in keys:
            assert any(key in unit for unit in cut(text))

    def test_an_endless_block_is_cut(self) -> None:
        """A block that is never closed does not hold the text for ever."""
        text = f"{SENTENCE}-----BEGIN PRIVATE KEY-----\n" + "ab cd.\n" * 4000
        assert len(cut(text)[0]) == len(SENTENCE) + BLOCK_LIMIT
        assert len(cut(text)) > 3

    def test_a_cut_block_waits(self) -> None:
        """No unit ends while a key is still arriving."""
        text = f"{SENTENCE * 2}{pem(40)}\n{SENTENCE * 3}"
        end = text.index("-----END")
        for length in range(len(SENTENCE) * 2 + 11, end, 50):
            assert unit_end(text[:length], 0, final=False) is None


class TestSeen:
    """What detectors see behind a unit."""

    def test_some_characters_and_the_rest_of_the_word(self) -> None:
        """The look-ahead ends with the run that it stops in."""
        text = f"{'v ' * 47}{'k' * 500} {SENTENCE}"
        assert seen_end(text, 0, final=False) == text.index("k") + 500

    def test_full_width_sentences_hold_no_stream(self) -> None:
        """The look-ahead ends with the sentence that it stops in."""
        text = WIDE_SENTENCES[0] * 400
        many = LOOKAHEAD // len(WIDE_SENTENCES[0]) + 1
        assert seen_end(text, 0, final=False) == many * len(WIDE_SENTENCES[0])

    def test_the_end_of_the_text(self) -> None:
        """Where the text ends sooner, all of it is seen, once it is complete."""
        assert seen_end("abc", 1, final=False) is None
        assert seen_end("abc", 1, final=True) == 3

    @MANY
    @given(TEXTS, st.integers(0, 1000))
    def test_bounds(self, text: str, end: int) -> None:
        """At least the look-ahead or all, at most the longest run more."""
        end = min(end, len(text))
        seen = seen_end(text, end, final=True)
        assert seen is not None
        longest = LOOKAHEAD + RUN_LIMIT + 2 * HIDDEN_LIMIT
        assert min(len(text), end + LOOKAHEAD) <= seen <= min(len(text), end + longest)
        assert len(shown(text[end:seen])) <= LOOKAHEAD + RUN_LIMIT


class TestHidden:
    """Characters that do not show, and that detectors do not see."""

    GAPS: Final = [ZERO, "\u00ad", "\x00", "\x1c", "\ufe0f\u200d", "\U000e0041", "\udb40\udc41"]

    @pytest.mark.parametrize("gap", [*GAPS, ZERO * 40])
    @pytest.mark.parametrize("kind", ["PRIVATE KEY", "RSA PRIVATE KEY"])
    def test_a_block_is_known_by_its_signs(self, gap: str, kind: str) -> None:
        """Whatever stands between the characters of its first or last line, it is in one unit."""
        first, *lines, last = pem(25, kind).splitlines()
        block = "\n".join([gap.join(first), *lines, gap.join(last)])
        assert any(block in unit for unit in cut(f"{SENTENCE}{block}\n{SENTENCE * 9}"))

    @pytest.mark.parametrize("gap", GAPS)
    def test_a_block_is_as_long_as_it_looks(self, gap: str) -> None:
        """What is hidden in a block does not use its limit up."""
        block = pem(105).replace("klm", f"k{gap * 9}l{gap * 9}m")
        assert len(block) < BLOCK_LIMIT + HIDDEN_LIMIT
        assert block in cut(f"{SENTENCE}{block}\n{SENTENCE * 9}")[0]

    @pytest.mark.parametrize("gap", GAPS)
    def test_a_run_is_as_long_as_it_looks(self, gap: str) -> None:
        """What is hidden in a run does not use its limit up, and parts no run."""
        run = ("k" * 16 + gap) * (RUN_LIMIT // 16 - 1) + "k" * 15
        assert any(run in unit for unit in cut(f"{'v ' * 200}{run} {SENTENCE * 9}"))

    @pytest.mark.parametrize("gap", GAPS)
    def test_the_look_ahead_is_as_long_as_it_looks(self, gap: str) -> None:
        """As many characters as without it are seen, and the rest of the run."""
        text = "v " * 200
        plain = seen_end(text, 4, final=False)
        spaced = (gap * 20).join(text)
        seen = seen_end(spaced, 4 * len(f"v{gap * 20}"), final=False)
        assert plain is not None
        assert shown(spaced[:seen]) == text[:plain]

    def test_a_flood_is_not_waited_for(self) -> None:
        """Behind more than anybody writes, text may be cut, and that is known of it."""
        text = f"{WORDS} 4111 {ZERO * 100_000}1111. {SENTENCE * 9}"
        bounds = list(units(text))
        assert all(end - start < 3 * HIDDEN_LIMIT for start, end in bounds)
        hidden = range(text.index(ZERO), text.rindex(ZERO) + 1)
        cuts = [is_flooded(text, start, end) for start, end in bounds if end in hidden]
        assert len(cuts) > 9
        assert all(cuts)

    @pytest.mark.parametrize("text", ["", WORDS, "\U0001f469\u200d\U0001f4bb\ufe0f " * 2000])
    def test_ordinary_text_is_no_flood(self, text: str) -> None:
        """Not even one of many emoji is."""
        assert not any(is_flooded(text, start, end) for start, end in units(text))

    @pytest.mark.parametrize("first", LOOK_ALIKES)
    def test_a_block_is_known_by_its_looks(self, first: str) -> None:
        """Its lines may be written in characters that detectors read as others."""
        for last in ("-----END PRIVATE KEY-----", "--\uff0d--\uff25\u039dD PRIV\u0410TE KEY-----"):
            block = "\n".join([first, *pem(25).splitlines()[1:-1], last])
            text = f"{SENTENCE}\u6f6e. {block}\n{SENTENCE * 9}"
            assert any(unit.endswith(block) for unit in cut(text))
            assert normalise(block).text.startswith("-----BEGIN PRIVATE KEY-----")

    @pytest.mark.parametrize("gap", ["", *GAPS])
    def test_an_end_is_as_long_as_it_looks(self, gap: str) -> None:
        """As many characters that show as wanted, with those behind and between."""
        text = f"{gap * 3}v\u00e9" * CONTEXT + gap * 9
        end = shown_end(text, CONTEXT)
        assert text.endswith(end)
        assert shown(end) == "v\u00e9" * (CONTEXT // 2)
        assert end.endswith(gap * 9)

    def test_an_end_is_bounded(self) -> None:
        """No flood makes it longer than its limit."""
        text = WORDS * 9 + ZERO * 9999
        assert shown_end(text, CONTEXT) == text[-CONTEXT - HIDDEN_LIMIT :]

    @MANY
    @given(TEXTS, TEXTS)
    def test_the_end_of_an_end(self, one: str, other: str) -> None:
        """It does not matter whether text came at once."""
        end = shown_end(one + other, CONTEXT)
        assert shown_end(shown_end(one, CONTEXT) + other, CONTEXT) == end

    @MANY
    @given(TEXTS)
    def test_ordinary_signs_are_seen_by_detectors(self, text: str) -> None:
        """A unit that ends within what detectors read as a block is one that may be cut there."""
        for start, end in units(text):
            begun = normalise(text[start:end]).text.rpartition("-----BEGIN PRIVATE KEY-----")
            if begun[1] and "-----END" not in begun[2] and end < len(text):
                limit = len(shown(text[start:end])) >= BLOCK_LIMIT
                assert limit or is_flooded(text, start, end)


class TestSentences:
    """The sentences of a unit."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", []),
            ("One", ["One"]),
            ("One. Two.", ["One. ", "Two."]),
            ("One.  Two! \n", ["One.  ", "Two! \n"]),
            ("One\nTwo\n\nThree", ["One\n", "Two\n\n", "Three"]),
            ("One.\r\nTwo.\r\n", ["One.\r\n", "Two.\r\n"]),
            ('He said "No." Then', ['He said "No." ', "Then"]),
            ("**Bold.** Next", ["**Bold.** ", "Next"]),
            ("v1.2 is out. Try", ["v1.2 is out. ", "Try"]),
            ("\u597d\u3002 \u662f", ["\u597d\u3002 ", "\u662f"]),
            (
                "\u597d\u3002\u662f\uff01\u597d\uff1f\u662f",
                ["\u597d\u3002", "\u662f\uff01", "\u597d\uff1f", "\u662f"],
            ),
            ("\u300c\u597d\u3002\u300d\u662f\u3002", ["\u300c\u597d\u3002\u300d", "\u662f\u3002"]),
            (
                "\uff08\u597d\uff01\uff1f\uff09\u201d \u662f",
                ["\uff08\u597d\uff01\uff1f\uff09\u201d ", "\u662f"],
            ),
            ("\u597d\u3002\u3002\u3002\u662f", ["\u597d\u3002\u3002\u3002", "\u662f"]),
            ("\u597d\u2026\u2026\u662f", ["\u597d\u2026\u2026", "\u662f"]),
            ("key=a\u2026b", ["key=a\u2026b"]),
            ("\u597d\u3002\n\n\u662f", ["\u597d\u3002\n\n", "\u662f"]),
            (
                "API\u3002API\uff01\u597d\uff01API",
                ["API\u3002", "API\uff01", "\u597d\uff01", "API"],
            ),
            ("key=a\uff01b\uff1fc\uff01\uff1fd", ["key=a\uff01b\uff1fc\uff01\uff1fd"]),
            ("Wow\uff01 Yes", ["Wow\uff01 ", "Yes"]),
            ("\n\nOne", ["\n\n", "One"]),
            (" ", [" "]),
            ("Hi \U0001f600! e\u0301. x", ["Hi \U0001f600! ", "e\u0301. ", "x"]),
        ],
    )
    def test_known_cuts(self, text: str, expected: list[str]) -> None:
        """White space stays with the sentence before it."""
        assert [text[a:b] for a, b in sentences(text)] == expected

    @pytest.mark.parametrize(
        "text",
        ["\uff01" * 200_000, "a\uff01" + "!\uff01" * 100_000, "\uff01\u300d" * 100_000 + "a"],
    )
    def test_marks_without_end_take_no_time(self, text: str) -> None:
        """No run of them makes anybody wait."""
        began = time.process_time()
        sentences(text)
        assert time.process_time() - began < 5

    @given(TEXTS)
    def test_no_gaps(self, text: str) -> None:
        """All sentences make the text, and none is empty."""
        parts = [text[a:b] for a, b in sentences(text)]
        assert "".join(parts) == text
        assert all(parts)

    @given(st.lists(st.sampled_from([SENTENCE, f"{WORDS}!\n", f"{WORDS}?\r\n"]), max_size=30))
    def test_a_unit_ends_where_a_sentence_does(self, parts: list[str]) -> None:
        """Text of short sentences is cut between sentences alone."""
        text = "".join(parts)
        ends = {end for _, end in sentences(text)}
        assert {end for _, end in units(text)} <= ends


def test_marks_stay_with_their_letters() -> None:
    """Decomposed text and joined emoji are cut between words, not inside a character."""
    text = unicodedata.normalize("NFD", "\u00fcber \u00e9t\u00e9 ") * 60
    text += "\U0001f469\u200d\U0001f4bb\U0001f1e9\U0001f1ea " * 90
    assert len(cut(text)) > 2
    assert all(unit[-1] == " " and unicodedata.combining(unit[0]) == 0 for unit in cut(text))
