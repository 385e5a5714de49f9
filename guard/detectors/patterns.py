"""Pattern packs: many patterns over one text, gated by one engine and confirmed by `re`.

One hyperscan database holds all patterns of a pack and says which may match; `re` then
confirms only those, with its groups, look-arounds and a checksum where there is one. A text is
read in up to six ways where they differ: as it stands, as it shows and with broken lines joined,
each also with values set apart from what is around. The gate over-approximates, so that gated
and ungated findings are the same. Where hyperscan cannot be imported every pattern runs by `re`:
the same findings, more slowly.

This module does not know any pattern, and nothing about what is done with a finding.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

from guard.detectors.base import Finding
from guard.log import Log
from guard.text.normalise import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from guard.detectors.base import Passage

_ESCAPE: Final = re.compile(r"(?<=\\)[bfnrtv]")
_EMPHASIS: Final = re.compile(
    r"""(?:(?<=[\s"'`(\[{<>,;:=|])|^)[_*~-]{1,3}(?=[A-Za-z0-9])"""
    r"""|(?<=[A-Za-z0-9])[_*~]{1,3}(?=[\s"'`)\]}<>.,;:!?|\\]|$)"""
)
"""Signs around a word, not within a key."""

_log = Log()
_loading: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Pattern:
    r"""One thing to look for.

    Attributes:
        name: what it is, such as `aws_access_key`; becomes the finding's label.
        expression: a regular expression for `re`.
        evidence: log likelihood ratio of a confirmed match.
        gate: what hyperscan looks for: matches whenever `expression` can; by default the
            expression itself. Has no look-arounds.
        check: confirms a match, such as a checksum; gets the text of the span.
        group: which group is the span.
        context: a regular expression that must match within `within` characters before the
            span, without regard to case.
        within: how many; less than `guard.text.units.CONTEXT`.
        reach: tells where the span of a confirmed match ends, where that may be behind the
            group. An expression that may begin anywhere must have a limit, or it would take
            time that grows quadratically; what was confirmed is passed over and needs none.
        heads: what each match begins with, in lower case, where `re` seeks slowly by itself, as
            it does without regard to case; empty where it may be tried everywhere.

    In `expression` and `context` the classes `\w`, `\d`, `\s` and `\b` mean ASCII and `.`
    includes the line end, as in `gate`. What matches must be short enough to be seen whole:
    a run without white space, or at most `guard.text.units.LOOKAHEAD` characters.
    """

    name: str
    expression: str
    evidence: float
    gate: str = ""
    check: Callable[[str], bool] | None = None
    group: int | str = 0
    context: str = ""
    within: int = 48
    reach: Callable[[re.Match[str]], int] | None = None
    heads: tuple[str, ...] = ()


class PatternDetector:
    """A pack of patterns of one category; safe to share between threads.

    Args:
        name: the detector's name.
        category: what all its findings are evidence for.
        patterns: the pack.
        release: names the state of the pack's checks, which the version's digest cannot see.
        gated: whether hyperscan and heads say where to look; without them every pattern runs by
            `re` and everywhere, which is what the tests compare with.
    """

    def __init__(
        self,
        name: str,
        category: str,
        patterns: Iterable[Pattern],
        *,
        release: str = "1",
        gated: bool = True,
    ) -> None:
        """Compile nothing yet: that waits for the first text."""
        self.name = name
        self.categories = (category,)
        self._patterns = tuple(patterns)
        self._release = release
        self._gated = gated
        self._local = threading.local()
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        """The pack's release and a digest that changes whenever a pattern does."""
        return self._version

    @cached_property
    def _version(self) -> str:
        parts = [
            (p.name, p.expression, p.evidence, p.group, p.context, p.within) for p in self._patterns
        ]
        return f"{self._release}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return a finding per match that begins in the passage's unit.

        A match that begins before the unit was judged with an earlier one, even where it
        reaches into this one.
        """
        return [f for f in self.find(passage.text) if passage.start <= f.start < passage.end]

    def find(self, text: str) -> list[Finding]:
        """Return the matches in a whole text, by position.

        Of matches that lie inside another one of at least their evidence only the outer
        one counts; matches that merely overlap all count.
        """
        read = (normalise(text), normalise(text, unescape=True), normalise(text, unwrap=True))
        forms = {form.text: form for form in read}
        readings = {r: form for t, form in forms.items() for r in (t, set_apart(t))}
        return _outermost(
            [
                self._finding(pattern, *form.span(*span))
                for reading, form in readings.items()
                for pattern, span in self._matches(reading)
            ]
        )

    def _finding(self, pattern: Pattern, start: int, end: int) -> Finding:
        category = self.categories[0]
        return Finding(
            category, pattern.evidence, start, end, self.name, self.version, pattern.name
        )

    def _matches(self, text: str) -> Iterator[tuple[Pattern, tuple[int, int]]]:
        small = _small(text)
        for index in self._candidates(text):
            pattern = self._patterns[index]
            for span in self._confirmed_spans(index, text, small):
                yield pattern, span

    def _confirmed_spans(self, index: int, text: str, small: str) -> Iterator[tuple[int, int]]:
        position = 0
        while match := self._next(index, text, small, position):
            # What was not confirmed uses nothing up: a real match may begin inside it.
            position = match.start() + 1
            if self._confirmed(index, match):
                start, end = self._span(index, match)
                position = max(position, match.end(), end)
                yield start, end

    def _next(self, index: int, text: str, small: str, position: int) -> re.Match[str] | None:
        """Return the first match from a position on; `small` is the text in lower case."""
        expression, heads = self._expressions[index], self._heads[index]
        if heads is None:
            return expression.search(text, position) if position <= len(text) else None
        while head := heads.search(small, position):
            if match := expression.match(text, head.start()):
                return match
            position = head.start() + 1
        return None

    def _span(self, index: int, match: re.Match[str]) -> tuple[int, int]:
        pattern = self._patterns[index]
        start, end = match.span(pattern.group)
        return start, end if pattern.reach is None else pattern.reach(match)

    def _confirmed(self, index: int, match: re.Match[str]) -> bool:
        pattern = self._patterns[index]
        context = self._contexts[index]
        if context is not None:
            start = match.start(pattern.group)
            if not context.search(match.string, max(0, start - pattern.within), start):
                return False
        return pattern.check is None or pattern.check(match[pattern.group])

    def _candidates(self, text: str) -> Sequence[int]:
        """Return the patterns that may match, in the pack's order."""
        database = self._database if self._gated else None
        if database is None:
            return range(len(self._patterns))
        found: set[int] = set()

        def note(index: int, *_: Any) -> None:
            found.add(index)

        # hyperscan's scratch space serves one scan at a time: each thread has its own.
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = _hyperscan().Scratch(database)
        database.scan(text.encode("utf-8"), match_event_handler=note, scratch=scratch)
        return sorted(found)

    @cached_property
    def _database_built(self) -> Any:
        hyperscan = _hyperscan()
        if hyperscan is None:
            return None
        flags = (
            hyperscan.HS_FLAG_SINGLEMATCH
            | hyperscan.HS_FLAG_DOTALL
            | hyperscan.HS_FLAG_UTF8
            | hyperscan.HS_FLAG_PREFILTER
            | hyperscan.HS_FLAG_ALLOWEMPTY
        )
        database = hyperscan.Database()
        gates = [(p.gate or p.expression).encode("utf-8") for p in self._patterns]
        database.compile(expressions=gates, ids=list(range(len(gates))), flags=flags)
        return database

    @property
    def _database(self) -> Any:
        """The patterns' gates, compiled once; `None` where there is no hyperscan."""
        with self._lock:
            return self._database_built

    @cached_property
    def _expressions(self) -> list[re.Pattern[str]]:
        # ASCII classes, as hyperscan reads them: gate and confirmation must agree.
        flags = re.DOTALL | re.ASCII
        return [re.compile(pattern.expression, flags) for pattern in self._patterns]

    @cached_property
    def _heads(self) -> list[re.Pattern[str] | None]:
        used = [pattern.heads if self._gated else () for pattern in self._patterns]
        return [re.compile("|".join(map(re.escape, heads))) if heads else None for heads in used]

    @cached_property
    def _contexts(self) -> list[re.Pattern[str] | None]:
        flags = re.IGNORECASE | re.ASCII
        return [re.compile(p.context, flags) if p.context else None for p in self._patterns]


def _small(text: str) -> str:
    """Return `text` in lower case, of the same length: the one letter that grows is put aside."""
    return text.replace("\u0130", "\u0131").lower()


def _hyperscan() -> Any:
    """Return the engine's module, or `None` where the platform has none."""
    with _loading:
        return _hyperscan_loaded()


@cache
def _hyperscan_loaded() -> Any:
    try:
        import hyperscan  # noqa: PLC0415  # loads a shared library
    except ImportError as error:
        _log.debug("guard.patterns_ungated", error=str(error))
        return None
    return hyperscan


def set_apart(text: str) -> str:
    r"""Return `text`, of the same length, with spaces for what joins a value to its surroundings.

    That are the letters of escapes, since raw JSON writes a line end as `\n` and a key behind it
    would seem to begin with an n, and the signs of emphasis around a word (`_4111 ..._`), which
    are characters of keys and numbers elsewhere.
    """
    return _EMPHASIS.sub(lambda m: " " * len(m[0]), _ESCAPE.sub(" ", text))


def redact(text: str, *, detectors: Iterable[PatternDetector]) -> str:
    """Return `text` with every match of every pack replaced by `[redacted: label]`.

    For texts that are kept; what may be delivered is rewritten by `guard.remedies`.
    """
    found = [finding for detector in detectors for finding in detector.find(text)]
    out: list[str] = []
    done = 0
    for finding in sorted(found, key=lambda f: (f.start, -f.end)):
        if finding.start >= done:
            out += [text[done : finding.start], f"[redacted: {finding.label}]"]
        done = max(done, finding.end)
    return "".join([*out, text[done:]])


def _outermost(findings: list[Finding]) -> list[Finding]:
    """Return the findings by position without those inside one of at least their evidence."""
    kept: list[Finding] = []
    reaching: list[Finding] = []
    for finding in sorted(findings, key=lambda f: (f.start, -f.end, -f.evidence)):
        reaching = [k for k in reaching if k.end > finding.start]
        if not any(k.end >= finding.end and k.evidence >= finding.evidence for k in reaching):
            kept.append(finding)
            reaching.append(finding)
    return kept
