"""What a detector is: a callable that takes one `Passage` and returns `Finding`s.

Anything that sees risk in text fits: a classifier, a pattern pack, a fingerprint
index. Detectors are pure: the same passage gives the same findings, and they keep
nothing between calls, so that one instance serves all threads.

This module does not know how text is cut into passages, how findings become a live
risk, or what happens when a detector fails.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003  # hints are read at run time
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from guard.categories import Side  # noqa: TC001  # hints are read at run time


@dataclass(frozen=True, slots=True)
class Passage:
    """One unit of text with what surrounds it: the thing that detectors judge.

    Attributes:
        text: left context, unit and look-ahead, as one string. May hold anything
            that a Python string can, lone surrogates and NUL included.
        start: where the unit begins in `text` (zero-based).
        end: where the unit ends in `text` (exclusive). Text before `start` has been
            judged already and text from `end` on will be: they are context.
        prompt: the last user message, `""` where unknown.
        system: the system or developer messages, `""` where there are none.
        tool: the tool's name where the text is a tool call's arguments, else `""`.
        side: whether the text is a response (the usual case) or a prompt.
        closing: where the unit ends a complete text of several units, the end of that text as it
            leaves, the unit included; else `""`. A detector may read it as a whole and add
            findings over the unit with the label `guard.detectors.pooling.CLOSING`.
    """

    text: str
    start: int = 0
    end: int = -1
    prompt: str = ""
    system: str = ""
    tool: str = ""
    side: Side = "response"
    closing: str = ""

    def __post_init__(self) -> None:
        """Let `end=-1` mean the end of `text`."""
        if self.end < 0:
            object.__setattr__(self, "end", len(self.text))

    @property
    def unit(self) -> str:
        """The text that is judged."""
        return self.text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Finding:
    """One detector's evidence for one category.

    Attributes:
        category: a name from `guard.categories.CATEGORIES`, or one that the detector declares.
        evidence: natural log of the likelihood ratio P(seen | risky) / P(seen | fine);
            above 0 speaks for the risk, below 0 against it.
        start: where the span begins, zero-based. A detector counts from the start of
            `Passage.text`; findings in an assessment count from the start of the
            channel's original text.
        end: where the span ends, exclusive.
        detector: the detector's name.
        version: the detector's version.
        label: what exactly was found, such as `aws_access_key`; a constant, never the text.
        channel: the channel's name, such as `choices[0].content`; set by the engine.
        localised: true where the span is the risky text itself, so that a redaction of
            the span mends it; false where it is merely the unit that was judged.
    """

    category: str
    evidence: float
    start: int
    end: int
    detector: str
    version: str
    label: str = ""
    channel: str = field(default="", compare=True)
    localised: bool = True


@runtime_checkable
class Detector(Protocol):
    """The extension point. Implementations must be safe to call from many threads.

    A detector may also have `pooling`, a mapping from category to
    `guard.detectors.pooling.Pooling`: how its evidence adds up over a text's units, and whether
    it reads a whole text once more (`Passage.closing`); and
    `confusions`, a mapping from category to what limits on a response's evidence get right and
    wrong (`guard.calibration.Confusion`), which an audit corrects its rates by.

    Attributes:
        name: unique within a guard.
        version: changes whenever the same passage may give other findings.
        categories: the categories that it can find.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  # described above

    @property
    def version(self) -> str: ...  # noqa: D102

    @property
    def categories(self) -> tuple[str, ...]: ...  # noqa: D102

    def __call__(self, passage: Passage) -> Sequence[Finding]:
        """Return the evidence in the passage's unit.

        Spans count from the start of `passage.text`, begin at or after
        `passage.start` and before `passage.end`, and may run into the look-ahead.
        No finding for a category means no evidence either way. Raise on failure:
        the engine turns that into the class's `on_failure`.
        """
        ...
