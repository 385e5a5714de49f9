"""Near-verbatim copies of protected text: the system prompt and what an application registers.

Method: fingerprints of word k-grams (Schleimer, Wilkerson, Aiken, "Winnowing", SIGMOD 2003,
with every k-gram kept that is not too common, since protected texts are small beside the
web). A k-gram that a passage shares with a document is a *seed*; from it a *run* grows to
both sides, word by word, over small gaps, so that a changed word, another case, other
punctuation, accents, tags and escapes hide nothing, nor do the misspellings that
`guard.text.spelling` undoes. What counts is how many words of the run are the document's.

This module does not know paraphrase or translation: a text that is told in other words is
the classifier's business. Nor does it know scripts without spaces between words, where it
takes a whole clause for one word.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Final

from guard.categories import CATEGORIES
from guard.detectors.base import Finding
from guard.errors import ConfigurationError
from guard.text.normalise import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from guard.detectors.base import Passage
    from guard.text.normalise import Normalised

SEED: Final = 6
"""Words of one fingerprint: text that shares no six words in a row with a document is no copy."""

RUN_WORDS: Final = 12
"""Matched words from which a run counts as a copy."""

SHORTEST: Final = 8
"""Words that a text needs to be protectable; below RUN_WORDS nearly all must match."""

GAP: Final = 4
"""Words that may be changed, added or left out before a run goes on."""

_RESUME: Final = 3
"""Words in a row that must match behind a gap; two are often chance ("of the")."""

_PLACES: Final = 8
"""Places of one fingerprint that are kept; keeps the work per word constant."""

_REACH: Final = 64
"""Words that a run grows to either side of a seed; the next seed takes it further."""

_WINDOW: Final = RUN_WORDS - SEED + 1
"""Seeds in a run of RUN_WORDS words."""

_MARGIN: Final = GAP + _RESUME
"""Words around and between documents that match nothing, so that no gap leads across."""

_NO_WORD: Final = 0
"""Stands in the margins of documents; known words count from 1."""

_UNKNOWN: Final = -1
"""Stands for words of a passage that are in no document, and in the passage's margins."""

_GAPS: Final = sorted(product(range(GAP + 1), repeat=2), key=lambda gap: (sum(gap), gap))[1:]
"""Words to skip in the passage and in the document, the shortest gaps first."""

_NEARLY_ALL: Final = 0.8
_MINIMUM_EVIDENCE: Final = 4.0
_EVIDENCE_PER_WORD: Final = 0.25
_MAXIMUM_EVIDENCE: Final = 10.0

_MARKS: Final = re.compile("[\u0300-\u036f]+")
_WORD: Final = re.compile(rf"[^\W_](?:[^\W_]|{_MARKS.pattern})*")
"""Letters and digits, with the accents and strokes that are put on them."""


@dataclass(frozen=True, slots=True)
class ProtectedText:
    """A text that must not be repeated.

    Attributes:
        name: becomes the finding's label; no part of the text.
        text: at least 8 words; a word is letters and digits in a row.
        category: `proprietary_leak` or `system_prompt_leak`.
    """

    name: str
    text: str
    category: str = "proprietary_leak"


@dataclass(frozen=True, slots=True)
class _Document:
    """A protected text: what it is called, and how many of its words make a copy."""

    name: str
    category: str
    needed: int


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a passage: its folded form and its span in the original."""

    text: str
    start: int
    end: int


@dataclass(slots=True)
class _Run:
    """Words of a passage, by number, that stand in one document in the same order."""

    first: int
    last: int
    words: set[int]

    def absorb(self, other: _Run) -> None:
        """Take in a run that overlaps this one."""
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        self.words |= other.words


class FingerprintIndex:
    """Fingerprints of many texts. Immutable; a look-up costs the same however many there are.

    Takes about 200 bytes per word, 10 MB for a hundred pages. Where many documents share a
    passage word by word, a few of those registered first stand for all.
    """

    def __init__(self, protected: Iterable[ProtectedText]) -> None:
        """Index `protected`; texts of fewer than 8 words are left out."""
        self._documents: list[_Document] = []
        self._begins: list[int] = []
        self._vocabulary: dict[str, int] = {}
        self._text = array("I", [_NO_WORD] * _MARGIN)
        self._places: dict[int, tuple[int, ...]] = {}
        for item in protected:
            self._add(item)

    def __len__(self) -> int:
        return len(self._documents)

    def runs(self, words: Sequence[_Word]) -> Iterator[tuple[_Document, _Run]]:
        """Yield every run of `words` that is long enough to be a copy, once per document."""
        edge = [_UNKNOWN] * _MARGIN
        passage = [*edge, *(self._vocabulary.get(w.text, _UNKNOWN) for w in words), *edge]
        search = _Search(passage, self._text)
        found: dict[int, list[_Run]] = defaultdict(list)
        for at, place in self._seeds(passage):
            run = search.run(at, place)
            number = bisect_right(self._begins, place) - 1
            if run is not None and len(run.words) >= self._documents[number].needed:
                _join(found[number], run)
        for number, runs in found.items():
            yield from ((self._documents[number], run) for run in runs)

    def _seeds(self, passage: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield where in the passage and where in the documents a run may begin to grow."""
        for at in range(_MARGIN, len(passage) - _MARGIN):
            for size in (SEED, RUN_WORDS):
                for place in self._places.get(_fingerprint(passage, at, size), ()):
                    yield at, place

    def _add(self, item: ProtectedText) -> None:
        words = [word.text for word in _words(_shown(item.text))]
        if len(words) < SHORTEST:
            return
        needed = min(RUN_WORDS, max(SHORTEST - 1, round(_NEARLY_ALL * len(words))))
        self._documents.append(_Document(item.name, item.category, needed))
        self._begins.append(len(self._text))
        numbers = self._vocabulary
        self._text.extend(numbers.setdefault(word, len(numbers) + 1) for word in words)
        self._mark(self._begins[-1], len(self._text))
        self._text.extend([_NO_WORD] * _MARGIN)

    def _mark(self, begin: int, end: int) -> None:
        """Keep the fingerprints of a document's words.

        Common ones are left out. So that no quote of RUN_WORDS words escapes, a stretch of
        that length which is made of common ones alone has a fingerprint of its own.
        """
        kept = begin - 1
        for place in range(begin, end - SEED + 1):
            if self._keep(place, SEED):
                kept = place
            elif place - kept >= _WINDOW:
                self._keep(place - _WINDOW + 1, RUN_WORDS)

    def _keep(self, place: int, size: int) -> bool:
        key = _fingerprint(self._text, place, size)
        known = self._places.get(key, ())
        if len(known) >= _PLACES:
            return False
        self._places[key] = (*known, place)
        return True


class _Search:
    """One passage held against an index's documents; lives for one call."""

    def __init__(self, passage: Sequence[int], text: Sequence[int]) -> None:
        self._passage = passage
        self._text = text
        self._seen: set[tuple[int, int]] = set()

    def run(self, at: int, place: int) -> _Run | None:
        """Return the run through a seed; `None` where an earlier run went through it."""
        last = SEED - 1
        if (at, place) in self._seen and (at + last, place + last) in self._seen:
            return None
        pairs = [*self._walk(at - 1, place - 1, -1), *self._walk(at, place, 1)]
        self._seen.update(pairs)
        words = {word - _MARGIN for word, _ in pairs}
        return _Run(min(words), max(words), words) if words else None

    def _walk(self, at: int, place: int, step: int) -> Iterator[tuple[int, int]]:
        """Yield the matching words in one direction, over gaps."""
        for _ in range(_REACH):
            if self._passage[at] != self._text[place]:
                resumed = self._behind_gap(at, place, step)
                if resumed is None:
                    return
                at, place = resumed
            yield at, place
            at, place = at + step, place + step

    def _behind_gap(self, at: int, place: int, step: int) -> tuple[int, int] | None:
        """Return where enough words in a row match again."""
        for skipped, missing in _GAPS:
            here, there = at + skipped * step, place + missing * step
            if self._agree(here, there, step):
                return here, there
        return None

    def _agree(self, at: int, place: int, step: int) -> bool:
        return all(
            self._passage[at + n] == self._text[place + n] for n in range(0, _RESUME * step, step)
        )


class FingerprintDetector:
    """Finds copies of registered texts and of the exchange's own system prompt.

    Args:
        protected: texts that the application registers.
        system_prompts: whether the exchange's own system prompt is protected too.

    Raises:
        ConfigurationError: a registered text is too short or of another category.
    """

    name = "fingerprints"
    version = "2"
    categories = ("system_prompt_leak", "proprietary_leak")

    def __init__(
        self, protected: Iterable[ProtectedText] = (), *, system_prompts: bool = True
    ) -> None:
        """Index the registered texts."""
        given = tuple(protected)
        problems = [problem for item in given if (problem := _problem(item))]
        if problems:
            # The letters of one text that was given for a list of texts are one problem.
            raise ConfigurationError(list(dict.fromkeys(problems)))
        self._index = FingerprintIndex(given)
        self._system_prompts = system_prompts

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return a finding per copy, clipped to begin in the passage's unit.

        Where the text as it shows holds none, it is read once more with misspellings undone.
        """
        indexes = [self._index] if self._index else []
        if self._system_prompts and passage.system:
            indexes.append(_system_index(passage.system))
        if not indexes:
            return []
        normal = _shown(passage.text)
        if found := self._copies(indexes, normal, passage):
            return found
        respelt = normalise(passage.text, unescape=True, deobfuscate=True)
        return [] if respelt.text == normal.text else self._copies(indexes, respelt, passage)

    def _copies(
        self, indexes: Sequence[FingerprintIndex], normal: Normalised, passage: Passage
    ) -> list[Finding]:
        """Return a finding per copy in one reading of a passage."""
        words = _words(normal)
        return [
            finding
            for index in indexes
            for document, run in index.runs(words)
            if (finding := self._finding(document, run, words, passage)) is not None
        ]

    def _finding(
        self, document: _Document, run: _Run, words: list[_Word], passage: Passage
    ) -> Finding | None:
        inside = [
            i for i in run.words if words[i].end > passage.start and words[i].start < passage.end
        ]
        if not inside:
            return None
        surplus = len(run.words) - document.needed
        return Finding(
            category=document.category,
            evidence=min(_MAXIMUM_EVIDENCE, _MINIMUM_EVIDENCE + _EVIDENCE_PER_WORD * surplus),
            start=max(passage.start, words[min(inside)].start),
            end=max(words[i].end for i in run.words),
            detector=self.name,
            version=self.version,
            label=document.name,
        )


def _problem(item: object) -> str:
    if not isinstance(item, ProtectedText):
        kind = type(item).__name__
        return (
            f"protected texts must be a list of `ProtectedText(name, text, category)`, not `{kind}`"
        )
    if item.category not in FingerprintDetector.categories:
        known = " or ".join(f"`{name}`" for name in FingerprintDetector.categories)
        hint = "" if item.category in CATEGORIES else " (there is no such category)"
        return f"protected text `{item.name}`: `category` must be {known}{hint}"
    if len(_words(_shown(item.text))) < SHORTEST:
        return (
            f"protected text `{item.name}` has fewer than {SHORTEST} words: too little to tell "
            "from ordinary language; register a longer text"
        )
    return ""


@lru_cache(maxsize=64)
def _system_index(system: str) -> FingerprintIndex:
    return FingerprintIndex([ProtectedText("system_prompt", system, "system_prompt_leak")])


def _join(runs: list[_Run], run: _Run) -> None:
    """Add a run to those before it, as one with those that it overlaps."""
    while runs and runs[-1].last >= run.first:
        earlier = runs.pop()
        earlier.absorb(run)
        run = earlier
    runs.append(run)


def _shown(text: str) -> Normalised:
    return normalise(text, unescape=True)


def _words(normal: Normalised) -> list[_Word]:
    return [
        _Word(_fold(match[0]), *normal.span(*match.span())) for match in _WORD.finditer(normal.text)
    ]


def _fold(word: str) -> str:
    """Return a word without regard to case and accents."""
    plain = word if word.isascii() else _MARKS.sub("", unicodedata.normalize("NFD", word))
    return plain.casefold()


def _fingerprint(words: Sequence[int], at: int, size: int) -> int:
    """Return a 64-bit fingerprint of `size` words; alike ones are told apart by `_Search`."""
    return hash(tuple(words[at : at + size]))
