"""Ways to hide text from a filter: to train on, and to measure what recall they cost.

`TRAINED` are mixed into training rows: tricks that `guard.text` undoes more or less, and `edits`,
slips by chance that nothing undoes, so that the model learns to read on. `UNDONE` are not, but
`guard.text.spelling` is made to undo them. `HELD_OUT` are neither: what the model keeps under them
is what it may keep under a trick that nobody here thought of.

This module does not know how well any of them is undone.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

_LEET: Final = str.maketrans({"a": "4", "e": "3", "o": "0", "i": "1", "s": "5"})
_CYRILLIC: Final = str.maketrans(
    {"a": "\u0430", "e": "\u0435", "o": "\u043e", "p": "\u0440", "c": "\u0441", "x": "\u0445"}
)
_WORD: Final = re.compile(r"[A-Za-z]{4,}")
_GAP: Final = re.compile(r"(?<=\w) (?=\w)")
_SLIPS: Final = "abcdefghijklmnopqrstuvwxyz.-'#_"
_VOWEL: Final = re.compile(r"(?<=\w)[aeiou](?=\w)")
_SOUNDS: Final = {
    "tion": "shun",
    "igh": "y",
    "ai": "ay",
    "ck": "k",
    "ea": "ee",
    "er": "ur",
    "oo": "u",
    "ou": "ow",
    "ph": "f",
    "qu": "kw",
    "th": "d",
    "wh": "w",
    "wr": "r",
    "c": "k",
    "f": "ph",
    "s": "z",
    "x": "ks",
}
_SOUND: Final = re.compile("|".join(_SOUNDS), re.IGNORECASE)


def _some_words(
    text: str, rng: random.Random, change: Callable[[str], str], share: float = 0.5
) -> str:
    return _WORD.sub(lambda m: change(m[0]) if rng.random() < share else m[0], text)


def _leet(text: str, rng: random.Random) -> str:
    del rng
    return text.translate(_LEET)


def _zero_width(text: str, rng: random.Random) -> str:
    del rng
    return "\u200b".join(text)


def _mixed_case(text: str, rng: random.Random) -> str:
    return "".join(c.upper() if rng.random() < 0.5 else c for c in text)


def _look_alikes(text: str, rng: random.Random) -> str:
    return "".join(c.translate(_CYRILLIC) if rng.random() < 0.5 else c for c in text)


def _full_width(text: str, rng: random.Random) -> str:
    del rng
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _spaced(text: str, rng: random.Random) -> str:
    return _some_words(text, rng, " ".join)


def _typos(text: str, rng: random.Random) -> str:
    def swapped(word: str) -> str:
        at = rng.randrange(1, len(word) - 1)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _some_words(text, rng, swapped)


def _diacritics(text: str, rng: random.Random) -> str:
    marked = (c + "\u0301" if c.isalpha() and rng.random() < 0.3 else c for c in text)
    return unicodedata.normalize("NFC", "".join(marked))


def _edits(text: str, rng: random.Random) -> str:
    """Return `text` with chance slips: letters lost, added, taken for others; words run on."""
    words, gaps = rng.uniform(0.1, 0.6), rng.uniform(0.0, 0.1)

    def slipped(word: str) -> str:
        at = rng.randrange(len(word))
        # A doubled letter is one of the tricks that are held out.
        other = rng.choice(_SLIPS.replace(word[at].lower(), ""))
        return word[:at] + rng.choice(("", other, other + word[at])) + word[at + 1 :]

    edited = _some_words(text, rng, slipped, words)
    return _GAP.sub(lambda m: "" if rng.random() < gaps else m[0], edited)


def _hyphens(text: str, rng: random.Random) -> str:
    def parted(word: str) -> str:
        at = rng.randrange(2, len(word) - 1)
        return f"{word[:at]}-{word[at:]}"

    return _some_words(text, rng, parted)


def _no_vowels(text: str, rng: random.Random) -> str:
    return _some_words(text, rng, lambda word: _VOWEL.sub("", word))


def _doubled(text: str, rng: random.Random) -> str:
    def doubled(word: str) -> str:
        at = rng.randrange(1, len(word))
        return word[: at + 1] + word[at:]

    return _some_words(text, rng, doubled)


def _masked(text: str, rng: random.Random) -> str:
    return _some_words(text, rng, lambda word: _VOWEL.sub("*", word, count=1))


def _run_together(text: str, rng: random.Random) -> str:
    del rng
    return re.sub(r"(?<=\w) +(\w)", lambda m: m[1].upper(), text)


def _by_sound(text: str, rng: random.Random) -> str:
    def spelt(word: str) -> str:
        return _SOUND.sub(lambda m: _SOUNDS[m[0].lower()], word)

    return _some_words(text, rng, spelt)


def _underscores(text: str, rng: random.Random) -> str:
    del rng
    return re.sub(r" +", "_", text)


def _stuffed(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    marks = ("#", "~", "::", "//")
    return " ".join(f"{word} {rng.choice(marks)}" if rng.random() < 0.5 else word for word in words)


TRAINED: Final[Mapping[str, Callable[[str, random.Random], str]]] = {
    "leet": _leet,
    "zero_width": _zero_width,
    "mixed_case": _mixed_case,
    "look_alikes": _look_alikes,
    "full_width": _full_width,
    "spaced_letters": _spaced,
    "typos": _typos,
    "diacritics": _diacritics,
    "edits": _edits,
}
"""Kinds that training mixes in."""

UNDONE: Final[Mapping[str, Callable[[str, random.Random], str]]] = {
    "hyphens": _hyphens,
    "underscores": _underscores,
    "stuffed_marks": _stuffed,
    "run_together": _run_together,
}
"""Kinds that are never trained on, and undone before a text is judged."""

HELD_OUT: Final[Mapping[str, Callable[[str, random.Random], str]]] = {
    "no_vowels": _no_vowels,
    "doubled_letters": _doubled,
    "masked_vowels": _masked,
    "by_sound": _by_sound,
}
"""Kinds that nothing here was trained on or made for."""

KINDS: Final = {**TRAINED, **UNDONE, **HELD_OUT}
"""All of them."""


def obfuscated(text: str, rng: random.Random) -> str:
    """Return `text` hidden in a trained way that `rng` picks: by half one that nothing undoes."""
    kind = "edits" if rng.random() < 0.5 else rng.choice(sorted(TRAINED))
    return TRAINED[kind](text, rng)
