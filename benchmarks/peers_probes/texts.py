"""The answers that the scripted server gives, and the made-up marker that a guardrail looks for.

A text is named like a model, so that every client can ask for it: `clean-1024` has so many
characters and no marker, `marked-300` has the marker from that character on.

This module does not know who reads the texts, and needs nothing but the standard library.
"""

from __future__ import annotations

import re
from itertools import cycle
from typing import Final

MARKER: Final = "ZQX-7731-KESTREL-0426"
PATTERN: Final = re.compile(r"ZQX-\d{4}-KESTREL-\d{4}")

PIECE: Final = 4
"""Characters of one piece of a stream, about a token's."""

MARKED_LENGTH: Final = 1024
"""Characters around the marker in a text that has one."""

SENTENCES: Final = (
    "The museum by the river opens at ten and shows old maps on two floors. ",
    "A tram from the main station stops in front of it every twelve minutes. ",
    "Tickets are sold at the entrance, and children under twelve need none. ",
    "The clock room is closed on rainy days, since its roof is being mended. ",
    "In the yard there is a small kitchen with soup, bread and apple cake. ",
    "Bring a coat, because the cellar with the globes is rather cold. ",
)


def plain(length: int) -> str:
    """Return ordinary sentences of so many characters in all."""
    text = ""
    for sentence in cycle(SENTENCES):
        if len(text) >= length:
            return text[:length]
        text += sentence
    raise AssertionError  # a cycle does not end


def marked(at: int) -> str:
    """Return ordinary sentences with the marker as a word, from about a character on."""
    text = plain(MARKED_LENGTH)
    at = text.index(" ", at) + 1
    return f"{text[:at]}{MARKER} {text[at:]}"


def text_of(name: str) -> str:
    """Return the text of a name.

    Raises:
        ValueError: there is no such text.
    """
    kind, _, number = name.rpartition("/")[2].partition("-")
    if kind not in {"clean", "marked"} or not number.isdigit():
        raise ValueError(f"`{name}` names no text: use `clean-1024` or `marked-300`")
    return plain(int(number)) if kind == "clean" else marked(int(number))


def pieces(text: str) -> list[str]:
    """Return a text as a stream brings it."""
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def seen(text: str) -> int:
    """Return how many characters of the marker, from its first on, stand in what was read."""
    return max(n for n in range(len(MARKER) + 1) if MARKER[:n] in text)
