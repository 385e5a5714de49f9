"""Line ends that somebody put into keys and base64."""

from __future__ import annotations

import string
import time
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.text.normalise import normalise

LINE: Final = "abcdefghijklmnopqrstuvwxyz0123456789+/ABCDEFGHIJKLMNOPQRSTUVWXYZab"


def unwrapped(text: str) -> str:
    """Return what `normalise` joins."""
    return normalise(text, unwrap=True).text


@pytest.mark.parametrize("gap", ["\n", "\r\n", "\r", "\n    ", "\n\t"])
@pytest.mark.parametrize("rest", ["QQ==", "9", "aB", LINE])
def test_broken_lines_are_joined(gap: str, rest: str) -> None:
    """A line end with what indents the next line goes, where more of a key follows."""
    assert unwrapped(f"Key: {LINE}{gap}{rest}\nNow") == f"Key: {LINE}{rest}\nNow"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The mill stood still\nwhile the rain fell 9 times",
        f"{LINE}\n\n{LINE}",
        f"{LINE}\nkeep it well",
        f"{LINE[:-9]}\n{LINE}",
        f"{'a' * 80}\n{LINE}",
        f"{'-' * 80}\n{LINE}",
        f"{LINE}.\n{LINE}",
        f"{'0123456789abcdef' * 4}\n" * 9,
    ],
)
def test_other_lines_stay(text: str) -> None:
    """Words, short lines, rules, blank lines and digests of one case are what they are."""
    assert unwrapped(text) == text


@given(
    st.lists(
        st.sampled_from([LINE, "\n", "\r\n", " ", "9", "\u00e9", "\u200b", "word"]), max_size=30
    )
)
def test_spans_are_the_originals(parts: list[str]) -> None:
    """Each character that stays is where it was."""
    text = "".join(parts)
    form = normalise(text, unwrap=True)
    for at, character in enumerate(form.text):
        start, end = form.span(at, at + 1)
        assert normalise(text[start:end]).text == character


@pytest.mark.parametrize("piece", [f"{LINE}\n", "\n", "\r\n", "a\n", string.ascii_letters + "9"])
def test_work_grows_with_the_length(piece: str) -> None:
    """A hundred thousand hostile characters take seconds at worst."""
    began = time.process_time()
    unwrapped((piece * 100_000)[:100_000])
    assert time.process_time() - began < 5
