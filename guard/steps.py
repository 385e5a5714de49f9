"""What a session asks for and is answered with, and what it must know about its guard.

This module does not know how an exchange is judged (`guard.session`) or who answers
(`guard.driver`).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from guard.assess import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.assess import DetectorStatus
    from guard.detectors.base import Finding, Passage
    from guard.detectors.pooling import Pooling
    from guard.journal.record import Record
    from guard.security_class import Messages, SecurityClass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the detectors said about one passage.

    Attributes:
        findings: all evidence; spans count from the start of the passage's text.
        statuses: how each detector fared.
        failures: one per detector that gave no usable answer.
    """

    findings: tuple[Finding, ...] = ()
    statuses: Mapping[str, DetectorStatus] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()


UNJUDGED: Final = Outcome(failures=(Failure("judgement", "skipped", "nobody judged the passage"),))
"""Stands for no answer, which must not be taken for an all-clear."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Asks for an `Outcome` of `passage`."""

    passage: Passage


@dataclass(frozen=True, slots=True)
class Keep:
    """Asks for `record` to be durable; the answer is an outcome with a failure if it is not.

    Attributes:
        record: the row, its texts still as they are.
        new: whether it is there for the first time.
        final: whether it is the last of its exchange.
    """

    record: Record
    new: bool
    final: bool


@dataclass(frozen=True, slots=True)
class Release:
    """Says that `text` may leave."""

    text: str


@dataclass(frozen=True, slots=True)
class Learn:
    """Asks that what an exchange showed be taken into the live risk.

    Attributes:
        evidence: the strongest of each category, as log likelihood ratio; no number where a
            detector of the category failed, so that nobody knows.
        conversation: which conversation it belongs to, `""` for none.
    """

    evidence: Mapping[str, float]
    conversation: str


Ask = Judge | Keep | Learn | Release
"""One thing that a session asks for."""

Steps = Generator[Ask, Outcome | None, None]
"""What a session asks for, one thing at a time."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a session must know about the guard that it runs for.

    Attributes:
        security_class: the class under which the model is deployed.
        messages: its messages in the language to use.
        detectors: name and version of each detector.
        categories: every category that some detector can find.
        journalled: whether there is a journal.
        poolings: how the units of a text add up, by detector and category.
        priors: the live priors, in (0, 1); of a category that is not there, the class's.
        finds: the categories that each detector finds in responses, by its name.
        learns: whether what an exchange shows is taken into the live risk.
        quarantined: whether everything is blocked, whatever it says.
        metadata: facts about the deployment that every row of the journal has.
    """

    security_class: SecurityClass
    messages: Messages
    detectors: Mapping[str, str]
    categories: tuple[str, ...]
    journalled: bool
    poolings: Mapping[str, Mapping[str, Pooling]] = field(default_factory=dict)
    priors: Mapping[str, float] = field(default_factory=dict)
    finds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    learns: bool = False
    quarantined: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    def prior(self, category: str) -> float:
        """Return the live prior of `category`, in (0, 1)."""
        known = self.priors.get(category)
        return self.security_class.prior_of(category) if known is None else known
