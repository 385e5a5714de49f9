"""Where findings lie in the text that a journal kept, which may not be the one that was judged.

Spans count in the original. Kept whole, a text is the original. Kept redacted, it has
`[redacted: label]` in the place of secrets and personal data: where findings say how long those
were, spans behind them can be placed, and the length that was judged says whether that is right.
What cannot be placed for sure is not placed.

This module does not know how a span is shown.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guard.server.review.marks import Span
from guard.session import CONTENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.journal.record import Record

_REDACTED: Final = re.compile(r"\[redacted: ([^\]\n]+)\]")


@dataclass(frozen=True, slots=True)
class Placed:
    """The findings of a row in the text that it kept.

    Attributes:
        spans: in the kept response, each under its category; `None` for a finding, in the order
            of the row's, that cannot be placed.
    """

    spans: tuple[Span | None, ...]

    @property
    def missing(self) -> int:
        """How many findings could not be placed."""
        return sum(span is None for span in self.spans)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A stretch of the kept text and of the original that stand for each other.

    Attributes:
        kept: where it begins in the kept text.
        kept_end: where it ends there.
        start: where it begins in the original.
        end: where it ends there.
    """

    kept: int
    kept_end: int
    start: int
    end: int

    def first(self, place: int) -> int:
        """Return where a span that begins at `place` in the original begins."""
        return self.kept + (place - self.start if self._same else 0)

    def last(self, place: int) -> int:
        """Return where a span that ends at `place` in the original ends."""
        return self.kept + (place - self.start) if self._same else self.kept_end

    @property
    def _same(self) -> bool:
        return self.kept_end - self.kept == self.end - self.start


def placed(record: Record) -> Placed:
    """Return where a row's findings lie in its kept response."""
    found = record.findings
    if record.response is None or record.text_mode not in ("full", "redacted"):
        return Placed((None,) * len(found))
    judged = record.coverage.get("judged", {})
    channels = _channels(record.response, tuple(judged))
    ways = {
        name: _way(record.response[start:end], record.text_mode, judged[name], _of(found, name))
        for name, (start, end) in channels.items()
    }
    return Placed(tuple(_span(finding, channels, ways) for finding in found))


def _of(findings: Sequence[Mapping[str, Any]], channel: str) -> list[Mapping[str, Any]]:
    return [each for each in findings if each.get("channel") == channel and _is_span(each)]


def _is_span(finding: Mapping[str, Any]) -> bool:
    start, end = finding.get("start"), finding.get("end")
    return isinstance(start, int) and isinstance(end, int) and 0 <= start < end


def _span(
    finding: Mapping[str, Any],
    channels: Mapping[str, tuple[int, int]],
    ways: Mapping[str, Sequence[_Stretch]],
) -> Span | None:
    channel = str(finding.get("channel"))
    if channel not in ways or not _is_span(finding):
        return None
    offset, way = channels[channel][0], ways[channel]
    # The stretches lie in order, without gaps.
    first = bisect_right(way, finding["start"], key=lambda each: each.end)
    last = bisect_left(way, finding["end"], key=lambda each: each.end)
    if max(first, last) >= len(way):
        return None
    start, end = way[first].first(finding["start"]), way[last].last(finding["end"])
    return Span(offset + start, offset + end, str(finding.get("category", "")))


def _channels(text: str, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return where each channel's text lies; nothing where that could be read in two ways."""
    if set(names) <= {CONTENT}:
        return {CONTENT: (0, len(text))} if names else {}
    # As `guard.session` joins them.
    whole = f"\n{text}"
    labels = {name: f"\n[{name}]\n" for name in names}
    if any(whole.count(label) != 1 for label in labels.values()):
        return {}
    starts = sorted((whole.index(label), name) for name, label in labels.items())
    if starts[0][0] != 0:
        return {}
    ends = [*(start - 1 for start, _ in starts[1:]), len(text)]
    return {
        name: (start + len(labels[name]) - 1, end)
        for (start, name), end in zip(starts, ends, strict=True)
    }


def _way(
    text: str, mode: str, judged: object, findings: Sequence[Mapping[str, Any]]
) -> list[_Stretch]:
    """Return the stretches of a channel's kept text whose place in the original is known."""
    if mode == "full":
        return [_Stretch(0, len(text), 0, len(text))]
    lengths = {(each["start"], each.get("label")): each["end"] for each in findings}
    way: list[_Stretch] = []
    kept = start = 0
    for match in _REDACTED.finditer(text):
        at = start + match.start() - kept
        way.append(_Stretch(kept, match.start(), start, at))
        end = lengths.get((at, match[1]))
        if end is None:
            # Behind it nothing is known.
            return way
        way.append(_Stretch(match.start(), match.end(), at, end))
        kept, start = match.end(), end
    way.append(_Stretch(kept, len(text), start, start + len(text) - kept))
    return way if way[-1].end == judged else way[:1] if len(way) > 1 else []
