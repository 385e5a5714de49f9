"""What is remembered of the calls of a LiteLLM proxy, so that each unit is judged once.

While an answer streams, LiteLLM sends all of it so far again and again. A call remembers what
the detectors said about each passage, what was asked, what may have reached the client and the
journal's row; it is forgotten after a while, and the oldest first where there are too many.
What it showed is taken into the live risk once, when no turn has come for a while: where a
detector failed that nobody asked again with success, as something that nobody knows. Another
attempt of the backend is an exchange of its own.

This module does not know HTTP or what a verdict does.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from guard.steps import Judge, Keep, Learn, Outcome

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from guard.detectors.base import Passage
    from guard.exchange import Message
    from guard.journal.record import Record
    from guard.server.guards import Judges
    from guard.steps import Ask, Steps

MOST_CALLS: Final = 2_000
"""Calls that are remembered at a time."""

AGE_SECONDS: Final = 600.0
"""How long a call is remembered after it was last heard of."""

QUIET_SECONDS: Final = 30.0
"""After which a call counts as over, and what it showed is learnt."""

MOST_CHARACTERS: Final = 32 << 20
"""Characters that are held for all calls together."""


@dataclass(slots=True)
class Sent:
    """One text of a call.

    Attributes:
        received: all of it that had arrived.
        delivered: what the client may have of it, or in its place.
        original: whether that is the backend's own text, perhaps mended, and not a message.
    """

    received: str
    delivered: str = ""
    original: bool = False


@dataclass(slots=True)
class Call:
    """What is known of one call.

    Attributes:
        judges: who judges it, to its end even if policies change.
        messages: what was asked.
        row: the journal's row, where there is one.
        used: when it was last heard of, on the monotonic clock.
    """

    judges: Judges
    messages: tuple[Message, ...] = ()
    row: Record | None = None
    used: float = 0.0
    _sent: list[Sent] = field(default_factory=list)
    _outcomes: dict[Passage, Outcome] = field(default_factory=dict)
    _remembered: int = 0
    _lesson: Learn | None = None
    _taught: dict[str, float] | None = None
    _timer: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """About how many characters are held for it."""
        asked = sum(len(message.content) for message in self.messages)
        return asked + self._remembered + sum(2 * len(each.received) for each in self._sent)

    def texts(self, received: Iterable[str]) -> list[Sent]:
        """Return what is known of each of the texts that have arrived.

        A text that does not go on from one that is known, such as that of another attempt, is
        a new one; what the attempt before showed is learnt now.
        """
        left, found = self._sent, []
        for text in received:
            begun = [each for each in left if text.startswith(each.received)]
            known = max(begun, key=lambda each: len(each.received), default=Sent(text))
            left = [each for each in left if each is not known]
            known.received = text
            found.append(known)
        if left:
            self.learn()
            self._lesson = self._taught = None
        self._sent = found
        return found

    def recall(self, steps: Steps) -> Steps:
        """Yield of `steps` only what is not known yet; keep one row, however often it is told."""
        answer: Outcome | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            if isinstance(step, Judge):
                answer = yield from self._judged(step)
            elif isinstance(step, Keep):
                answer = yield from self._kept(step)
            elif isinstance(step, Learn):
                self._lesson, answer = step, None
            else:
                answer = yield step

    def learn_later(self) -> None:
        """Learn what the call showed once it has been quiet for a while."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self.learn)

    def learn(self) -> None:
        """Take what the call showed into the live risk, unless that was done.

        Of a call that goes on after a long silence only what is graver than before is learnt.
        """
        if self._timer is not None:
            self._timer.cancel()
        lesson, taught = self._lesson, self._taught
        if lesson is None:
            return
        news = {
            name: shown
            for name, shown in lesson.evidence.items()
            if taught is None or _graver(shown, taught.get(name, -math.inf))
        }
        if taught is None or news:
            self.judges.guard.driver.run(_only(replace(lesson, evidence=news)))
        self._taught = {**(taught or {}), **news}
        self._lesson = None

    def _judged(self, step: Judge) -> Generator[Ask, Outcome | None, Outcome | None]:
        known = self._outcomes.get(step.passage)
        if known is not None:
            return known
        answer = yield step
        if answer is not None and not answer.failures:
            self._outcomes[step.passage] = answer
            self._remembered += len(step.passage.text)
        return answer

    def _kept(self, step: Keep) -> Generator[Ask, Outcome | None, Outcome | None]:
        row, known = step.record, self.row
        if known is not None:
            row = replace(row, id=known.id, created=known.created)
        # One event for each turn that the call takes, and not for each time that it is told.
        news = known is None or (row.action, row.reasons) != (known.action, known.reasons)
        answer = yield Keep(row, new=known is None, final=step.final and news)
        if answer is None or not answer.failures:
            self.row = row
        return answer


class Calls:
    """The calls that are remembered, the one heard of last at the end."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._calls: OrderedDict[tuple[str, str], Call] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def find(self, caller: str, call_id: str | None, judges: Judges) -> Call:
        """Return the call of a client, a new one where it is not known or has no id."""
        self._forget()
        call = Call(judges)
        if call_id is not None:
            call = self._calls.setdefault((caller, call_id), call)
            self._calls.move_to_end((caller, call_id))
        call.used = time.monotonic()
        return call

    def _forget(self) -> None:
        """Drop what is too old or too much."""
        eldest = time.monotonic() - AGE_SECONDS
        size = sum(call.size for call in self._calls.values())
        for key, call in list(self._calls.items()):
            if call.used >= eldest and len(self._calls) < MOST_CALLS and size <= MOST_CHARACTERS:
                return
            size -= call.size
            self._calls.pop(key).learn()

    def close(self) -> None:
        """Learn what every call showed, since the server ends."""
        for call in self._calls.values():
            call.learn()


def _graver(shown: float, before: float) -> bool:
    """Return whether evidence is above what was shown before; no number is above all others."""
    return not math.isnan(before) and not shown <= before


def _only(step: Learn) -> Steps:
    yield step
