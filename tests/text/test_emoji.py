"""Emoji: spelled out by name, and nothing else changed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.text.emoji import spelled

EMOJI = "\U0001f600\U0001f437\U0001f525\u2764\u2600\U0001f9e0"
ANY = st.text(st.characters(exclude_categories=()) | st.sampled_from(EMOJI + "\ufe0f\u200d"))


class TestNames:
    """What stands in an emoji's place."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("\U0001f437", ["pig", "face"]),
            ("you \U0001f40d!", ["you", "snake", "!"]),
            ("a\U0001f525b", ["a", "fire", "b"]),
            ("\U0001f525\U0001f525", ["fire", "fire"]),
            ("\u2764\ufe0f", ["heavy", "black", "heart", "\ufe0f"]),
        ],
    )
    def test_it_is_read_as_words(self, text: str, words: list[str]) -> None:
        """Each emoji becomes the words of its name, set apart from what is beside it."""
        assert spelled(text).split() == words

    def test_each_part_of_a_sequence_is_spelled(self) -> None:
        """A flag is two letters, a family its members."""
        assert spelled("\U0001f1e9\U0001f1ea").split().count("letter") == 2
        assert {"man", "woman"} <= set(spelled("\U0001f468\u200d\U0001f469").split())

    @pytest.mark.parametrize(
        "text", ["plain text", "", "\u2022 a bullet \u2192 an arrow \u2500", "na\u00efve \u65e5"]
    )
    def test_other_signs_stay(self, text: str) -> None:
        """Letters, bullets, arrows and lines are no emoji."""
        assert spelled(text) == text

    def test_what_has_no_name_stays(self) -> None:
        """A character of the block that this Python does not know is left as it is."""
        unassigned = "\U0001f8ff"
        assert spelled(f"a{unassigned}b") == f"a{unassigned}b"


class TestAnyText:
    """Whatever a string holds."""

    @given(ANY)
    def test_nothing_but_emoji_changes(self, text: str) -> None:
        """Around the emoji the text is as it was, in the same order."""
        outside = re.split("[\u2600-\u27bf\U0001f000-\U0001faff]", text)
        rest = spelled(text)
        for part in outside:
            assert part in rest
            rest = rest[rest.index(part) + len(part) :]

    @given(ANY, ANY)
    def test_pieces_may_be_spelled_apart(self, one: str, other: str) -> None:
        """A text that is cut anywhere is spelled as a whole is."""
        assert spelled(one) + spelled(other) == spelled(one + other)

    @given(ANY)
    def test_once_is_enough(self, text: str) -> None:
        """What is spelled out has nothing left to spell."""
        assert spelled(spelled(text)) == spelled(text)
