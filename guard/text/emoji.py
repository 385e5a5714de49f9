"""Emoji spelled out by their Unicode names, so that a vocabulary of words can read them.

Covers the blocks in which emoji are encoded; bullets, arrows and box drawing stay as they
are. Names are Unicode's own, as Python's `unicodedata` has them; an emoji that is newer than
the running Python's tables stays a character.

This module does not know sequences: of a family or a flag each part is spelled by itself.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

_EMOJI: Final = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")


def spelled(text: str) -> str:
    """Return `text` with the lower-case name of each emoji, set apart, in its place."""
    if text.isascii():
        return text
    return _EMOJI.sub(lambda match: _name(match[0]), text)


@cache
def _name(character: str) -> str:
    name = unicodedata.name(character, "")
    return f" {name.lower()} " if name else character
