"""Untrusted text as a person may be shown it."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from guard.text.visible import escape_of, one_line, plain


@given(st.text(st.characters() | st.sampled_from("\r\n\t\u202e\u200b\ud800")))
def test_nothing_hides(text: str) -> None:
    """What is left is printable, a line break, a tab or a joiner; the rest is written out."""
    made = plain(text)
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not [
        c for c in made if unicodedata.category(c) in hidden and c not in "\n\t\u200c\u200d"
    ]
    assert plain(made) == made
    assert made == "".join(escape_of(c) or c for c in text.replace("\r\n", "\n"))


@given(st.text(), st.integers(2, 50))
def test_a_line_is_no_longer_than_asked(text: str, width: int) -> None:
    """And is one line."""
    line = one_line(text, width)
    assert len(line) <= width
    assert "\n" not in line
