"""One channel of an exchange on its way: what is pending, what left, what was decided.

Units are cut by the text (`guard.text.units`) and judged in order, each with what was
delivered before it as left context, and the last of several with the whole text's end. So
nothing here depends on how text arrived.

This module does not know the other channels, detectors, threads or event loops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from guard.detectors.pooling import CLOSING, Pool
from guard.remedies import excisions, redact
from guard.steps import UNJUDGED, Judge, Outcome, Release
from guard.text.units import CLOSING as CLOSING_CHARACTERS
from guard.text.units import CONTEXT, seen_end, shown_end, unit_end
from guard.verdict import delivers, passes, worst_step

if TYPE_CHECKING:
    from collections.abc import Generator

    from guard.assess import DetectorStatus
    from guard.detectors.base import Finding
    from guard.exchange import Channel
    from guard.session import Session
    from guard.steps import Ask, Steps
    from guard.verdict import Reason, Step


_APART: Final = frozenset(" \t\r\n")
"""Characters that set two texts apart for every reader."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of a channel that left in other words.

    Attributes:
        start: where the piece begins in the original text, zero-based.
        end: where it ends, exclusive.
        text: what left in its place.
    """

    start: int
    end: int
    text: str

    @classmethod
    def between(cls, start: int, original: str, text: str) -> Edit:
        """Return the edit of `original` at `start` to another text, without what they share.

        It takes the place of one character at least, so that it stands somewhere.
        """
        head = _shared(original[:-1], text)
        tail = _shared(original[:head:-1], text[head:][::-1])
        end = len(original) - tail
        return cls(start + head, start + end, text[head : len(text) - tail])


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _touch(tail: str, text: str) -> bool:
    """Return whether nothing that every reader sees stands between a text and what leads it."""
    return tail[-1:] not in _APART and text[:1] not in _APART


def _both(outcome: Outcome, alone: Outcome, start: int) -> Outcome:
    """Return what two readings of a unit say, `alone` without the `start` characters before it.

    Of what both found the stronger evidence counts.
    """
    moved = [replace(f, start=f.start + start, end=f.end + start) for f in alone.findings]
    # A unit's own findings begin with it, in the seam too.
    own = [replace(f, start=max(f.start, start)) if f.end > start else f for f in outcome.findings]
    found: dict[Finding, Finding] = {}
    for finding in (*own, *moved):
        key = replace(finding, evidence=0.0)
        if key not in found or found[key].evidence < finding.evidence:
            found[key] = finding
    statuses: dict[str, DetectorStatus] = dict(alone.statuses)
    statuses.update((name, s) for name, s in outcome.statuses.items() if s != "ok")
    missed = [replace(f, start=f.start + start, end=f.end + start) for f in alone.failures]
    return Outcome(
        findings=tuple(found.values()),
        statuses={**outcome.statuses, **statuses},
        failures=tuple(dict.fromkeys((*outcome.failures, *missed))),
    )


class ChannelRun:
    """One channel on its way.

    Attributes:
        channel: which one.
        step: the most severe step taken so far.
        stopped: whether nothing more of it is judged.
        complete: whether it was judged to its end.
        judged: characters judged.
        position: characters of the original that have left, perhaps in other words.
        edits: which pieces of them left in other words, in order.
    """

    def __init__(self, session: Session, channel: Channel) -> None:
        """Begin with no text, or with the channel's own yet to be judged."""
        self.channel = channel
        self.step: Step = "allow"
        self.stopped = False
        self.complete = False
        self.judged = 0
        self.position = 0
        self._session = session
        self._pending = ""
        self._at = 0
        self._size: int | None = None
        self.edits: list[Edit] = []
        self._received: list[str] = []
        self._text: list[str] = []
        self._notice = ""
        self._tail = shown_end(channel.lead, CONTEXT)
        self._pool = Pool(session.deployment.poolings)
        self._seen: tuple[Finding, ...] = ()
        self._final = False
        self._decided: tuple[str, str, Step] | None = None

    @property
    def received(self) -> str:
        """All original text that has arrived."""
        return "".join(self._received)

    @property
    def text(self) -> str:
        """What of the channel may leave, without any notice."""
        return "".join(self._text)

    @property
    def streamed(self) -> str:
        """What a stream delivers: the text that left, then the notice, if there is one."""
        return self.text + self._notice

    def released(self, since: int) -> list[str]:
        """Return what was released behind the first `since` pieces, piece by piece."""
        return self._text[since:]

    def visible(self, start: int, original: str) -> str:
        """Return what has left of the channel's `original` text at `start`.

        An edit stands whole where it begins, so that pieces side by side give all that left.
        """
        end = min(start + len(original), self.position)
        left, at = [], start
        for edit in self.edits:
            if edit.end <= start or edit.start >= end:
                continue
            left.append(original[at - start : max(0, edit.start - start)])
            if edit.start >= start:
                left.append(edit.text)
            at = edit.end
        left.append(original[at - start : max(0, end - start)])
        return "".join(left)

    def advance(self, piece: str, *, final: bool) -> Steps:
        """Take a piece; judge and release every unit that is certain."""
        if piece:
            self._received.append(piece)
            # What was judged is dropped here and not unit by unit, which for a long piece
            # would take time quadratic in its length.
            self._pending, self._at = self._pending[self._at :] + piece, 0
        while not self.stopped and self._at < len(self._pending):
            end = self._end(final=final)
            seen = None if end is None else seen_end(self._pending, end, final=final)
            if end is None or seen is None:
                return
            self._final = final
            yield from self._unit(self._pending[self._at : end], self._pending[end:seen])
        if final and not self.stopped:
            self.complete = self.stopped = True

    def withdraw(self, step: Step) -> None:
        """Take back a whole text that was judged, since `step` must be taken instead."""
        self._raise(step)
        self._text.clear()
        self._set_notice()

    def cut(self, step: Step) -> None:
        """Let nothing more leave, since `step` must be taken; what had left stands."""
        self._raise(step)
        self.stopped = True
        self._set_notice()

    def retract(self, position: int) -> None:
        """Note that what was released behind `position` never left: somebody held it back.

        An edit that began before it has left whole.
        """
        self.edits[:] = [edit for edit in self.edits if edit.start < position]
        position = max([position, *(edit.end for edit in self.edits)])
        if position < self.position:
            self._text[:] = [self.visible(0, self.received[:position])]
            self.position = position

    def _raise(self, step: Step) -> None:
        """Take in that `step` was taken, unless a more severe one was."""
        self.step = worst_step((self.step, step))
        self._session.note_step(self.channel.choice, self.step)

    def keep(self, earlier: ChannelRun) -> None:
        """Note that of this text has left what had left of it in an earlier run."""
        self.position, self.edits, self._text = earlier.position, earlier.edits, earlier._text

    def _ends(self, used: int) -> bool:
        """Return whether nothing follows so much of what is pending; certain however it arrives."""
        return self._final and self._at + used == len(self._pending)

    def _end(self, *, final: bool) -> int | None:
        """Return where the pending unit ends, `None` if that is not certain yet.

        It is sought once: where a long look-ahead arrives in small pieces, seeking it again with
        each would take most of the time.
        """
        if self._size is None:
            end = unit_end(self._pending, self._at, final=final)
            self._size = None if end is None else end - self._at
        return None if self._size is None else self._at + self._size

    def _unit(self, unit: str, ahead: str) -> Steps:
        # Whoever waits may be cancelled at any question. The unit counts as taken only behind the
        # last one, and what was decided by then is not decided anew.
        if self._decided is None:
            self._decided = yield from self._decide(unit, ahead)
        text, original, step = self._decided
        kept = yield from self._session.before_release()
        if not self._session.deployment.security_class.shadow:
            step = worst_step((step, kept))
            self._raise(step)
        self._decided = self._size = None
        self._at += len(original)
        yield from self._release(text, original, step)

    def _decide(
        self, unit: str, ahead: str
    ) -> Generator[Ask, Outcome | None, tuple[str, str, Step]]:
        """Return the text to release, the original that it stands for, and the step taken."""
        outcome = yield from self._judge(unit, ahead, last=self._ends(len(unit)))
        reasons = self._reasons(outcome)
        placed = self._placed(outcome)
        text, used, step = yield from self._mend(unit, ahead, outcome, reasons)
        self._session.note(placed, reasons)
        self.judged += used
        self._raise(step)
        return text, (unit + ahead)[:used], step

    def _reasons(self, outcome: Outcome) -> tuple[Reason, ...]:
        """Return what the class does about `outcome` in this channel."""
        whole = {
            f.category
            for f in outcome.findings
            if f.label == CLOSING and self._session.reaches(f, act=True)
        }
        return tuple(
            replace(reason, step=self._for_channel(reason.step, whole=reason.cause in whole))
            for reason in self._session.rule(outcome)
        )

    def _judge(
        self, unit: str, ahead: str, *, last: bool
    ) -> Generator[Ask, Outcome | None, Outcome]:
        start = len(self._tail)
        text = self._tail + unit + ahead
        seam = 0 if self.judged else min(self.channel.seam, start)
        ends = last and self.judged
        closing = shown_end(self.text + unit, CLOSING_CHARACTERS) if ends else ""
        passage = self._session.passage(
            text, start - seam, start + len(unit), self.channel, closing
        )
        outcome = (yield Judge(passage)) or UNJUDGED
        if seam and _touch(self._tail, unit):
            # A reader may as well see two texts, and a key or number at the second one's
            # beginning is none behind a letter.
            alone = self._session.passage(unit + ahead, 0, len(unit), self.channel, closing)
            outcome = _both(outcome, (yield Judge(alone)) or UNJUDGED, start)
        self._seen = tuple(
            replace(f, start=max(f.start, start))
            for f in outcome.findings
            if f.end > start or f.start >= start
        )
        return replace(outcome, findings=self._pool.pooled(self._seen, last=last))

    def _placed(self, outcome: Outcome) -> Outcome:
        """Return `outcome` with spans that count in the channel's original text."""
        shift = self.judged - len(self._tail)
        name = self.channel.name
        return Outcome(
            findings=tuple(
                replace(f, start=f.start + shift, end=f.end + shift, channel=name)
                for f in outcome.findings
            ),
            statuses=outcome.statuses,
            failures=tuple(
                replace(f, start=f.start + shift, end=f.end + shift, channel=name)
                for f in outcome.failures
            ),
        )

    def _mend(
        self, unit: str, ahead: str, outcome: Outcome, reasons: tuple[Reason, ...]
    ) -> Generator[Ask, Outcome | None, tuple[str, int, Step]]:
        """Return the text to release, how much original it uses up, and the step taken."""
        step = worst_step(reason.step for reason in reasons)
        if delivers(step) or self._session.deployment.security_class.shadow:
            return unit, len(unit), "flag" if reasons else "allow"
        if not passes(step):
            return "", len(unit), step
        text, used = self._redacted(unit, ahead, outcome, reasons)
        rest = (unit + ahead)[used:]
        if text != unit:
            verdict = yield from self._try(text, rest, last=self._ends(used))
            if delivers(verdict):
                return text, used, step
            if not passes(verdict):
                return "", used, self._escalated(verdict)
        if self.channel.kind == "tool_call":
            return "", used, self._escalated("block")
        text = yield from self._excised(text, rest)
        return text, used, "excise"

    def _redacted(
        self, unit: str, ahead: str, outcome: Outcome, reasons: tuple[Reason, ...]
    ) -> tuple[str, int]:
        wanted = {reason.cause for reason in reasons if reason.step == "redact"}
        shift = len(self._tail)
        spans = [
            replace(f, start=f.start - shift, end=f.end - shift)
            if f.localised
            else replace(f, start=0, end=len(unit))
            for f in outcome.findings
            if f.category in wanted and self._session.reaches(f, act=True)
        ]
        placeholder = self._session.deployment.messages.redacted
        return redact(unit + ahead, len(unit), spans, placeholder)

    def _excised(self, text: str, rest: str) -> Generator[Ask, Outcome | None, str]:
        # With all its sentences the whole was read and asked for no other remedy: it is not read
        # again for each that is tried.
        alone = self._final and not rest and not self.judged
        for left in excisions(text):
            if not left.strip() or delivers((yield from self._try(left, rest, last=alone))):
                return left
        return ""

    def _try(self, text: str, rest: str, *, last: bool) -> Generator[Ask, Outcome | None, Step]:
        """Judge a proposed text; a detector that fails on it counts."""
        outcome = yield from self._judge(text, rest, last=last)
        self._session.note_failures(replace(self._placed(outcome), findings=()))
        return worst_step(reason.step for reason in self._reasons(outcome))

    def _escalated(self, step: Step) -> Step:
        step = self._for_channel(step)
        self._session.note_escalation(step)
        return step

    def _for_channel(self, step: Step, *, whole: bool = False) -> Step:
        """Return `step`, or a block where it would make another text of one that must stay.

        Args:
            step: what is to be done.
            whole: whether for what the whole text is: to mend its last unit would not mend that.
        """
        step = "replace" if whole and step in ("redact", "excise") else step
        if self.channel.kind == "tool_call":
            # Without a sentence it would be another call, and as a message it is none.
            return "block" if step == "excise" or not passes(step) else step
        rewrites = passes(step) and not delivers(step)
        return "block" if rewrites and self.channel.sealed else step

    def _release(self, text: str, original: str, step: Step) -> Steps:
        """Let `text` leave, or the class's notice in its place, and go on or stop."""
        if not passes(step):
            yield from self._stop()
            return
        if text != original:
            self.edits.append(Edit.between(self.position, original, text))
        self.position += len(original)
        self._text.append(text)
        self._tail = shown_end(self._tail + text, CONTEXT)
        if text.strip():
            # What was last judged is what leaves, mended or not.
            self._pool = self._pool.after(self._seen)
        if text:
            yield Release(text)

    def _stop(self) -> Steps:
        self.stopped = True
        self._set_notice()
        if self._notice:
            yield Release(self._notice)

    def _set_notice(self) -> None:
        """Have the class's message end the text; in a tool call it would be an argument."""
        if self.channel.kind == "tool_call":
            return
        messages = self._session.deployment.messages
        notice = messages.blocked if self.step == "block" else messages.replaced
        self._notice = f"\n\n{notice}" if any(self._text) else notice
