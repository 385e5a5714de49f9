r"""Untrusted text as a person may be shown it: what hides, reorders or commands is written out.

This module does not know where the text is shown, nor any markup.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

# Line breaks and tabs only move on; emoji and several scripts need the joiners.
_HARMLESS: Final = frozenset("\n\t\u200c\u200d")
# Controls, invisible format marks (direction, zero width, tags), lone surrogates, line separators.
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# What is neither plain ASCII nor a line break or tab; only that is looked up.
_DOUBTFUL: Final = re.compile(r"[^\n\t\x20-\x7e]")


def plain(text: str) -> str:
    r"""Return untrusted `text` as a terminal or a page may show it.

    Whatever could move the cursor, colour the screen, reorder or hide characters is written
    out as an escape (`\x1b`, `\u202e`), so that a reader sees that it is there. Markup stays as
    it is: whoever shows the result must escape that.
    """
    return _DOUBTFUL.sub(lambda match: escape_of(match[0]) or match[0], text.replace("\r\n", "\n"))


def one_line(text: str, width: int) -> str:
    """Return the beginning of untrusted `text` on one line of at most `width` characters."""
    joined = " ".join(text.split())
    # Escapes only lengthen a text, so nothing behind the cut can be shown.
    line = plain(joined[: width + 1])
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


@lru_cache(maxsize=4096)
def escape_of(character: str) -> str | None:
    r"""Return what stands for a character that must not be shown (`\u202e`), else `None`."""
    if character in _HARMLESS or unicodedata.category(character) not in _UNPRINTABLE:
        return None
    return character.encode("unicode_escape").decode("ascii")
