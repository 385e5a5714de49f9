"""A text that is being rewritten and knows where each of its characters came from.

This module does not know why anything is rewritten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Edit = tuple[int, int, str, list[int] | None]


class Draft:
    """A text on its way, with the original span of every character."""

    __slots__ = ("ends", "starts", "text")

    def __init__(self, text: str, starts: Sequence[int], ends: Sequence[int]) -> None:
        """Begin with a text, and where each of its characters begins and ends in the original."""
        self.text = text
        self.starts = starts
        self.ends = ends

    def replaced(self, edits: Sequence[Edit]) -> Draft:
        """Return the draft with `(start, end, new, sources)` edits made, in order.

        `sources` names, for each new character, the character of this draft that it came
        from; without it every new character came from the whole edited span.
        """
        if not edits:
            return self
        texts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for start, end, new, sources in edits:
            texts += [self.text[done:start], new]
            starts += self.starts[done:start]
            ends += self.ends[done:start]
            if sources is None:
                starts += [self.starts[start]] * len(new)
                ends += [self.ends[end - 1]] * len(new)
            else:
                starts += [self.starts[i] for i in sources]
                ends += [self.ends[i] for i in sources]
            done = end
        texts.append(self.text[done:])
        starts += self.starts[done:]
        ends += self.ends[done:]
        return Draft("".join(texts), starts, ends)
