"""How a judged unit becomes token ids: one place for training and for the runtime.

A response is encoded as a pair, `[CLS] prompt's tail [SEP] context + unit [SEP]`; a text
on the prompt side (a user message, a tool result) alone, `[CLS] text [SEP]`. Which special
tokens stand where is the tokenizer's own template. Left context fills what the unit leaves
of a window; a unit that is longer than one window is judged in several and never truncated.
Of a whole answer that is read once more when it ends, one window holds the end.

This module does not know the model's weights, its categories or what a score means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.text.emoji import spelled
from guard.text.normalise import normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer

    from guard.categories import Side

PROMPT_TOKENS: Final = 48
"""Tokens of the prompt's end that the model sees before the text."""

PROMPT_CHARACTERS: Final = 600
"""Characters of the prompt's end that are tokenised for them, at least."""

_LONG_TOKEN: Final = 12
"""Characters for which a token stands at most, but for very long words."""

TEXT_TOKENS: Final = 128
"""Tokens of context and unit in one window."""

STRIDE_TOKENS: Final = 96
"""How far apart the windows of a longer unit begin; the last one is aligned to the end."""

_FEWEST: Final = 8
"""Text tokens below which a window is no use."""

_PROBES: Final = ("a", "the", "0", ".")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One window.

    Attributes:
        ids: token ids, shape (tokens,), int64.
        types: 0 for the prompt's tokens and 1 for the text's, same shape.
        unit: which of the tokens are the unit's own, without prompt, context and special ones.
        characters: how many characters each of those stands for, shape (unit's tokens,).
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    unit: slice
    characters: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How windows are cut, in tokens without special ones.

    Attributes:
        prompt: of the prompt's end.
        text: of context and unit in one window.
        stride: how far apart the windows of a longer text begin.
        closing: of the end of a complete answer that is read once more as a whole; 0 for none.
        closing_prompt: of the prompt's end before that; 0 for as many as before a unit.
    """

    prompt: int = PROMPT_TOKENS
    text: int = TEXT_TOKENS
    stride: int = STRIDE_TOKENS
    closing: int = 0
    closing_prompt: int = 0

    def within(self, room: int) -> Sizes:
        """Return the sizes for at most `room` text tokens; windows overlap in proportion."""
        closing = min(self.closing, room)
        # What the answer's end leaves goes to the prompt's.
        before = min(self.closing_prompt, room + self.prompt - closing)
        fitting = replace(self, closing=closing, closing_prompt=before)
        if self.text <= room:
            return fitting
        return replace(fitting, text=room, stride=max(1, room * self.stride // self.text))


class Encoder:
    """Encodes passages; safe to share between threads."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        pair: bool = True,
        marked: bool = False,
        sizes: Sizes | None = None,
        limit: int | None = None,
    ) -> None:
        """Switch the tokenizer's own truncation and padding off.

        Args:
            tokenizer: a `tokenizers.Tokenizer`; its template says which special tokens
                stand around a text and between a pair.
            pair: whether the model was trained on prompt and text as a pair; else the
                prompt is left out.
            marked: whether it was trained to tell the unit from its context by the token
                types: the unit's are those of a pair's second text, the context's of its first.
            sizes: how windows are cut; as the bundled model's by default.
            limit: tokens that the model can read at once, special ones included; `None`
                for any number.

        Raises:
            ValueError: the tokenizer gives no tokens, or a window would hold next to nothing.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # `[SEP]` that stands in a text is that word and not the end of a window.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._alone = _template(tokenizer, pair=False)
        paired = _template(tokenizer, pair=True) if pair else None
        self._paired = replace(paired, marked=marked) if paired else None
        self._sizes = _fitting(sizes or Sizes(), self._paired or self._alone, limit)
        self._prompt_tail = lru_cache(maxsize=256)(self._tail)

    @property
    def sizes(self) -> Sizes:
        """How windows are cut."""
        return self._sizes

    def vocabulary(self) -> dict[str, int]:
        """Return the id of each piece that the tokenizer knows."""
        return self._tokenizer.get_vocab(with_added_tokens=False)

    def recipe(self) -> tuple[str, dict[str, Any]]:
        """Return the tokenizer as JSON, and the settings, of an encoder that does the same."""
        pair = self._paired is not None
        marked = self._paired is not None and self._paired.marked
        settings = {"pair": pair, "marked": marked, "sizes": self._sizes}
        return self._tokenizer.to_str(), settings

    def encode(
        self, prompt: str, text: str, side: Side = "response", start: int = 0
    ) -> list[Encoded]:
        """Return the windows of a unit, at least one.

        Args:
            prompt: the user's message; only its end is used, and only for responses.
            text: left context and unit, as they stand in the response.
            side: which side of the exchange the text is on.
            start: where the unit begins in `text`; what is before it is context and gets
                the room that the unit leaves.
        """
        tokens, context = self._split(text, start)
        template = self._alone if side == "prompt" else self._paired or self._alone
        paired = template is self._paired
        tail = self._prompt(prompt, self._sizes.prompt) if paired else ()
        characters = np.array([end - begin for begin, end in tokens.offsets], np.int64)
        found = []
        for first, last in windows(len(tokens.ids), self._sizes, context):
            own = max(first, context)
            window = template.window(tail, tokens.ids[first:last], own - first)
            found.append(Encoded(*window, characters[own:last]))
        return found

    def encode_closing(self, prompt: str, text: str) -> Encoded | None:
        """Return one window with the end of a complete answer, all of it unit.

        `None` where the sizes have no room for one.
        """
        if not self._sizes.closing:
            return None
        tokens, _ = self._split(text, 0)
        template = self._paired or self._alone
        count = self._sizes.closing_prompt or self._sizes.prompt
        tail = self._prompt(prompt, count) if self._paired else ()
        first = max(0, len(tokens.ids) - self._sizes.closing)
        characters = np.array([end - begin for begin, end in tokens.offsets[first:]], np.int64)
        return Encoded(*template.window(tail, tokens.ids[first:], 0), characters)

    def _prompt(self, prompt: str, count: int) -> tuple[int, ...]:
        """Return the last `count` tokens of a prompt, of which no more is tokenised than needed."""
        return self._prompt_tail(prompt[-max(PROMPT_CHARACTERS, _LONG_TOKEN * count) :], count)

    def _tail(self, prompt: str, count: int) -> tuple[int, ...]:
        return tuple(self._ids(prompt)[-count:])

    def _ids(self, text: str) -> list[int]:
        return self._split(text, 0)[0].ids

    def _split(self, text: str, start: int) -> tuple[Encoding, int]:
        """Return the tokens of `text`, and how many of them are before `start`."""
        plain = normalise(text, deobfuscate=True)
        cut = plain.at(start) if start else 0
        before = spelled(plain.text[:cut])
        given = self._tokenizer.encode(before + spelled(plain.text[cut:]), add_special_tokens=False)
        context = sum(end <= len(before) for _, end in given.offsets) if before else 0
        return given, context


def windows(length: int, sizes: Sizes | None = None, context: int = 0) -> list[tuple[int, int]]:
    """Return `(start, end)` of the windows that cover a unit without a gap, at least one.

    Args:
        length: tokens of context and unit.
        sizes: how windows are cut.
        context: how many of the tokens are context: the unit's window holds as many of the
            last ones as it has room for.
    """
    size = sizes or Sizes()
    if length - context <= size.text:
        return [(max(0, length - size.text), length)]
    starts = [*range(context, length - size.text, size.stride), length - size.text]
    return [(start, start + size.text) for start in starts]


@dataclass(frozen=True, slots=True)
class _Run:
    """Special tokens that stand together, and the type of each."""

    ids: tuple[int, ...] = ()
    types: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Template:
    """What a tokenizer puts around its texts.

    Attributes:
        runs: special tokens before the first text, behind it, and so on.
        types: the type of each text's own tokens.
        marked: whether of the last text's tokens the unit's alone are of its type, and its
            context of the first text's.
    """

    runs: tuple[_Run, ...]
    types: tuple[int, ...]
    marked: bool = False

    @property
    def special(self) -> int:
        """Number of special tokens."""
        return sum(len(run.ids) for run in self.runs)

    def window(
        self, prompt: Sequence[int], text: Sequence[int], context: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], slice]:
        """Return ids, types and unit of a window; `prompt` stands in a pair's template only.

        The first `context` tokens of `text` are not the unit's.
        """
        texts = (prompt, text) if len(self.types) > 1 else (text,)
        ids, types = [*self.runs[0].ids], [*self.runs[0].types]
        for part, kind, run in zip(texts, self.types, self.runs[1:], strict=True):
            ids += [*part, *run.ids]
            types += [*[kind] * len(part), *run.types]
        end = len(ids) - len(self.runs[-1].ids)
        unit = slice(end - len(text) + context, end)
        if self.marked:
            types[unit.start - context : unit.start] = self.types[:1] * context
        return np.array(ids, np.int64), np.array(types, np.int64), unit


def _template(tokenizer: Tokenizer, *, pair: bool) -> _Template:
    """Find out from a probe what the tokenizer puts around one text, or around two."""
    probe = next((word for word in _words(tokenizer) if _known(tokenizer, word)), None)
    if probe is None:
        raise ValueError("the tokenizer gives no tokens for any word")
    given = tokenizer.encode(probe, probe) if pair else tokenizer.encode(probe)
    texts = 2 if pair else 1
    sides = [[i for i, side in enumerate(given.sequence_ids) if side == n] for n in range(texts)]
    cuts = [(side[0], side[-1] + 1) for side in sides]
    bounds = [0, *(bound for cut in cuts for bound in cut), len(given.ids)]
    runs = [slice(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True)]
    return _Template(
        runs=tuple(_Run(tuple(given.ids[r]), tuple(given.type_ids[r])) for r in runs),
        types=tuple(given.type_ids[start] for start, _ in cuts),
    )


def _words(tokenizer: Tokenizer) -> Iterator[str]:
    """Yield words that the tokenizer may know."""
    yield from _PROBES
    yield from islice(tokenizer.get_vocab(with_added_tokens=False), 1000)


def _known(tokenizer: Tokenizer, word: str) -> bool:
    return bool(tokenizer.encode(word, add_special_tokens=False).ids)


def _fitting(sizes: Sizes, template: _Template, limit: int | None) -> Sizes:
    """Return `sizes`, smaller where the model reads less at once."""
    if limit is None:
        return sizes
    prompt = sizes.prompt if len(template.types) > 1 else 0
    room = limit - template.special - prompt
    if room < _FEWEST:
        raise ValueError(f"the model reads {limit} tokens at once, which leaves {room} for text")
    return sizes.within(room)
