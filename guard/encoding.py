"""How a judged unit becomes token ids: one place for training and for the runtime.

A response is encoded as a pair, `[CLS] prompt's tail [SEP] context + unit [SEP]`; a text
on the prompt side (a user message, a tool result) alone, `[CLS] text [SEP]`. Whatever is
longer than one window is judged in several windows and never truncated.

This module does not know the model's weights, its categories or what a score means.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.text.normalise import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from guard.categories import Side

PROMPT_TOKENS: Final = 48
"""Tokens of the prompt's end that the model sees before the text."""

PROMPT_CHARACTERS: Final = 600
"""Characters of the prompt's end that are tokenised for them."""

TEXT_TOKENS: Final = 176
"""Tokens of context and unit in one window."""

STRIDE_TOKENS: Final = 128
"""How far apart the windows of a longer text begin; the last one is aligned to the end."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One window.

    Attributes:
        ids: token ids, shape (tokens,), int64.
        types: 0 for the prompt's tokens and 1 for the text's, same shape.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]


class Encoder:
    """Encodes passages with a WordPiece tokenizer; safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, *, pair: bool = True) -> None:
        """Switch the tokenizer's own truncation and padding off.

        Args:
            tokenizer: a `tokenizers.Tokenizer` that knows `[CLS]` and `[SEP]` (or `<s>`, `</s>`).
            pair: whether the model was trained on prompt and text as a pair; else the
                prompt is left out.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._pair = pair
        self._first = _special(tokenizer, "[CLS]", "<s>")
        self._last = _special(tokenizer, "[SEP]", "</s>")
        self._prompt_tail = lru_cache(maxsize=256)(self._tail)

    def encode(self, prompt: str, text: str, side: Side = "response") -> list[Encoded]:
        """Return the windows of `text`, at least one, each at most 227 tokens long.

        Args:
            prompt: the user's message; only its end is used, and only for responses.
            text: left context and unit, as they stand in the response.
            side: which side of the exchange the text is on.
        """
        ids = self._ids(text)
        head = [self._first]
        if self._pair and side == "response":
            head += [*self._prompt_tail(prompt[-PROMPT_CHARACTERS:]), self._last]
        kind = 1 if self._pair and side == "response" else 0
        return [self._window(head, ids[start:end], kind) for start, end in windows(len(ids))]

    def _window(self, head: list[int], text: list[int], kind: int) -> Encoded:
        ids = [*head, *text, self._last]
        types = [0] * len(head) + [kind] * (len(text) + 1)
        return Encoded(np.array(ids, np.int64), np.array(types, np.int64))

    def _tail(self, prompt: str) -> tuple[int, ...]:
        return tuple(self._ids(prompt)[-PROMPT_TOKENS:])

    def _ids(self, text: str) -> list[int]:
        plain = normalise(text, deobfuscate=True).text
        return self._tokenizer.encode(plain, add_special_tokens=False).ids


def windows(length: int) -> list[tuple[int, int]]:
    """Return `(start, end)` of the windows that cover `length` tokens without a gap."""
    if length <= TEXT_TOKENS:
        return [(0, length)]
    starts = [*range(0, length - TEXT_TOKENS, STRIDE_TOKENS), length - TEXT_TOKENS]
    return [(start, start + TEXT_TOKENS) for start in starts]


def _special(tokenizer: Tokenizer, *names: str) -> int:
    """Return the id of the first special token that the tokenizer has."""
    found = [i for name in names if (i := tokenizer.token_to_id(name)) is not None]
    if not found:
        raise ValueError(f"the tokenizer has none of the special tokens {names}")
    return int(found[0])
