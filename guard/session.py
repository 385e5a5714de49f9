"""One exchange on its way through the guard: hold back, judge, mend, release.

All state of an exchange lives in one `Session`, made for it and gone with it. A session
does no work by itself: it is a generator that asks for what it needs (`Judge` a passage,
`Keep` a journal row) and says what may leave (`Release`). `guard.engine` answers, in
threads or on an event loop; both run this one code, and so do a whole text and a stream.

Units are cut by the text (`guard.text.units`) and judged in order, each with what was
delivered before it as left context. So nothing here depends on how text arrived.

This module does not know detectors, threads, event loops or the journal's storage.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from guard.assess import Assessment, Coverage, Failure, live_risk, strongest
from guard.detectors.base import Finding, Passage
from guard.detectors.pooling import Pool
from guard.errors import InputError
from guard.exchange import Channel, Choice, Exchange
from guard.journal.record import Record
from guard.remedies import excisions, redact
from guard.text.units import CONTEXT, seen_end, unit_end
from guard.verdict import (
    ESCALATION,
    Action,
    Reason,
    Step,
    Verdict,
    action_of,
    coverage_dict,
    decide,
    delivers,
    finding_dict,
    worst_action,
    worst_step,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from guard.assess import DetectorStatus
    from guard.detectors.pooling import Pooling
    from guard.journal.record import Delivered
    from guard.policy import Messages, SecurityClass

_REPORTED_RISK: Final = 0.5
"""Live risk from which a finding is reported where the class sets no limit for it."""

_STATUS_ORDER: Final[tuple[DetectorStatus, ...]] = (
    "ok",
    "skipped",
    "failed",
    "invalid",
    "timed_out",
)


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


_UNJUDGED: Final = Outcome(failures=(Failure("judgement", "skipped", "nobody judged the passage"),))
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


Steps = Generator[Judge | Keep | Release, Outcome | None, None]
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
    """

    security_class: SecurityClass
    messages: Messages
    detectors: Mapping[str, str]
    categories: tuple[str, ...]
    journalled: bool
    poolings: Mapping[str, Mapping[str, Pooling]] = field(default_factory=dict)


class Session:
    """The state of one exchange."""

    def __init__(self, exchange: Exchange, deployment: Deployment, *, stream: bool = False) -> None:
        """Prepare `exchange`; with `stream`, its first choice's content is yet to come."""
        self.exchange = exchange
        self.deployment = deployment
        self._class = deployment.security_class
        self._stream = stream
        self._evidence: dict[str, float] = {}
        self._findings: list[Finding] = []
        self._failures: list[Failure] = []
        self._statuses: dict[str, DetectorStatus] = {}
        self._reasons: dict[str, Reason] = {}
        self._units = 0
        self._id = uuid4().hex if deployment.journalled else ""
        self._record: Record | None = None
        self._noted: frozenset[tuple[str, Step]] = frozenset()
        self._ended = False
        self._finished = False
        self._system = exchange.system
        self._prompt = exchange.prompt
        channels = (
            [Channel("choices[0].content", "content", 0, "")] if stream else exchange.channels()
        )
        self._runs = [_ChannelRun(self, channel) for channel in channels]

    @property
    def stopped(self) -> bool:
        """Whether judging has ended and no more text is wanted."""
        return self._ended or all(run.stopped for run in self._runs)

    @property
    def finished(self) -> bool:
        """Whether the exchange was seen to its end, so that there is a verdict."""
        return self._finished

    @property
    def blocked(self) -> bool:
        """Whether some text was blocked by now."""
        return any(run.step == "block" for run in self._runs)

    def whole(self) -> Steps:
        """Judge every channel of the exchange."""
        for run in self._runs:
            yield from run.advance(run.channel.text, final=True)
        yield from self._end(complete=True)

    def feed(self, piece: str) -> Steps:
        """Take the next piece of the stream."""
        if not isinstance(piece, str):
            raise InputError(f"a stream's pieces must be `str`, not {type(piece).__name__}")
        yield from self._runs[0].advance(piece, final=False)

    def finish(self) -> Steps:
        """Take the end of the stream."""
        yield from self._runs[0].advance("", final=True)
        yield from self._end(complete=True)

    def abandon(self) -> Steps:
        """Close the row of an exchange whose reader or backend went away."""
        if not self._ended and self._record is not None:
            yield from self._end(complete=False)
        self._ended = True

    def verdict(self) -> Verdict:
        """Return the decision; call it after `whole` or `finish`."""
        intended = self._intended()
        shadow = self._class.shadow
        action: Action = ("allow" if intended == "allow" else "flag") if shadow else intended
        choices = tuple(self._choice(i, choice) for i, choice in enumerate(self.exchange.choices))
        text = choices[0].content if action != "block" and choices and choices[0] else None
        return Verdict(
            action=action,
            text=text,
            message=self._message(),
            choices=choices,
            assessment=Assessment(self._risks(), tuple(self._findings), self._coverage()),
            reasons=tuple(str(reason) for reason in self._sorted_reasons()),
            intended=intended,
            shadow=shadow,
            security_class=self._class.name,
            streamed=self._streamed(),
            record=self._id if self._id and self._record else None,
        )

    # What a channel's run calls.

    def passage(self, text: str, start: int, end: int, channel: Channel) -> Passage:
        """Return the passage for a unit of `channel` at `text[start:end]`."""
        return Passage(text, start, end, self._prompt, self._system, channel.tool)

    def rule(self, outcome: Outcome) -> tuple[Reason, ...]:
        """Return what the class does about `outcome`, most severe first."""
        failed = [
            Reason(f"detector:{f.detector}", self._class.on_failure, 1.0, status=f.status)
            for f in outcome.failures
        ]
        return tuple(
            sorted(
                [*failed, *decide(strongest(outcome.findings), self._class)],
                key=lambda reason: -reason.severity,
            )
        )

    def reaches(self, finding: Finding, *, act: bool) -> bool:
        """Return whether a finding alone reaches its category's limit."""
        limit = self._class.limit(finding.category)
        risk = live_risk(finding.evidence, self._class.prior_of(finding.category))
        if limit is None:
            return not act and risk >= _REPORTED_RISK
        bounds = [limit.act] if act else [limit.flag, limit.act]
        return any(bound is not None and risk >= bound for bound in bounds)

    def note(self, outcome: Outcome, reasons: Iterable[Reason]) -> None:
        """Take the judgement of one unit into the assessment."""
        self._units += 1
        self.note_failures(outcome)
        for category, value in strongest(outcome.findings).items():
            self._evidence[category] = max(value, self._evidence.get(category, value))
        self._findings += [f for f in outcome.findings if self.reaches(f, act=False)]
        for reason in reasons:
            self.note_reason(reason)

    def note_reason(self, reason: Reason) -> None:
        """Keep `reason` if it is the gravest of its cause so far."""
        known = self._reasons.get(reason.cause)
        if known is None or (reason.severity, reason.risk) > (known.severity, known.risk):
            self._reasons[reason.cause] = reason

    def note_escalation(self, step: Step) -> None:
        """Take in that no rewrite passed, so that `step` was taken instead."""
        self.note_reason(Reason(ESCALATION, step, 1.0))

    def note_failures(self, outcome: Outcome) -> None:
        """Take the detectors' statuses into the coverage."""
        self._failures += outcome.failures
        for name, status in outcome.statuses.items():
            known = self._statuses.get(name, "ok")
            worse = _STATUS_ORDER.index(status) > _STATUS_ORDER.index(known)
            self._statuses[name] = status if worse else known

    def before_release(self) -> Generator[Judge | Keep | Release, Outcome | None, Step]:
        """Have the row durable before flagged text of a stream leaves; return the step to take.

        It is written anew for each new reason, so not for each unit. A whole text leaves
        only after its verdict: its row is written once, at the end.
        """
        if not self._stream or self._causes() <= self._noted:
            return "allow"
        return (yield from self._keep(complete=False, final=False))

    # Private parts.

    def _end(self, *, complete: bool) -> Steps:
        self._ended = True
        step = yield from self._keep(complete=complete, final=True)
        if not self._stream and not self._class.shadow and not delivers(step):
            for run in self._runs:
                run.withdraw(step)
        self._finished = complete

    def _keep(
        self, *, complete: bool, final: bool
    ) -> Generator[Judge | Keep | Release, Outcome | None, Step]:
        """Write or update the row where the class wants one; return the step on failure."""
        known = self._record
        if known is None and self._intended() not in self._class.journal.actions:
            return "allow"
        self._record = self._row(complete=complete)
        self._noted = self._causes()
        answer = yield Keep(self._record, new=known is None, final=final)
        if answer is None or not answer.failures:
            return "allow"
        self._record = known
        # Once a stream has ended there is no text left to hold back.
        step = "flag" if self._stream and final else self._class.on_failure
        self.note_reason(Reason("journal", step, 1.0, status="failed"))
        self._noted = self._causes()
        return step

    def _row(self, *, complete: bool) -> Record:
        known = self._record
        return Record(
            id=self._id,
            created=known.created if known else datetime.now(UTC),
            action=self._intended(),
            delivered=self._delivered(),
            complete=complete,
            security_class=self._class.name,
            rank=self._class.rank,
            shadow=self._class.shadow,
            model=self.exchange.model,
            risks=dict(self._risks()),
            reasons=tuple(str(reason) for reason in self._sorted_reasons()),
            coverage=coverage_dict(self._coverage()),
            findings=tuple(finding_dict(finding) for finding in self._findings),
            detectors=dict(self.deployment.detectors),
            prompt=self._prompt,
            response=_labelled((run.channel.name, run.received) for run in self._runs),
            outcome=self._outcome(),
            text_mode=self._class.journal.text,
            released=sum(run.position for run in self._runs if self._stream),
            metadata=dict(self.exchange.metadata),
        )

    def _causes(self) -> frozenset[tuple[str, Step]]:
        """Return why a row is due, without the risks, which may rise with every unit."""
        return frozenset((reason.cause, reason.step) for reason in self._reasons.values())

    def _intended(self) -> Action:
        steps: list[Step] = [reason.step for reason in self._reasons.values()]
        steps.extend(run.step for run in self._runs)
        return worst_action(map(action_of, steps))

    def _sorted_reasons(self) -> list[Reason]:
        return sorted(self._reasons.values(), key=lambda r: (-r.severity, -r.risk, r.cause))

    def _risks(self) -> dict[str, float]:
        """Return the live risk of every category that could have been found."""
        return {
            name: live_risk(self._evidence.get(name, 0.0), self._class.prior_of(name))
            for name in self.deployment.categories
        }

    def _coverage(self) -> Coverage:
        complete = all(run.complete for run in self._runs) and not self._failures
        return Coverage(
            judged={run.channel.name: run.judged for run in self._runs if run.received},
            units=self._units,
            detectors=dict(self._statuses),
            failures=tuple(self._failures),
            complete=complete,
        )

    def _step_of(self, choice: int) -> Step:
        return worst_step(run.step for run in self._runs if run.channel.choice == choice)

    def _choice(self, index: int, choice: Choice) -> Choice | None:
        step = self._step_of(index)
        if step == "block":
            return None
        if step == "replace":
            return Choice(content=self.deployment.messages.replaced)
        mended = {run.channel.name: run.text for run in self._runs if run.channel.choice == index}
        at = f"choices[{index}]"
        return Choice(
            content=mended.get(f"{at}.content", ""),
            reasoning=mended.get(f"{at}.reasoning", ""),
            refusal=mended.get(f"{at}.refusal", ""),
            tool_calls=tuple(
                replace(call, arguments=mended.get(f"{at}.tool_calls[{i}].arguments", ""))
                for i, call in enumerate(choice.tool_calls)
            ),
        )

    def _message(self) -> str:
        steps = [run.step for run in self._runs]
        if "block" in steps:
            return self.deployment.messages.blocked
        return self.deployment.messages.replaced if "replace" in steps else ""

    def _first(self) -> Iterator[_ChannelRun]:
        return (run for run in self._runs if run.channel.name == "choices[0].content")

    def _streamed(self) -> str:
        return "".join(run.streamed for run in self._first())

    def _outcome(self) -> str:
        """Return what was delivered in place of the response, for the journal."""
        if self._stream:
            return self._streamed()
        notice = Choice(content=self.deployment.messages.blocked)
        choices = [self._choice(i, c) or notice for i, c in enumerate(self.exchange.choices)]
        channels = Exchange(tuple(choices)).channels()
        return _labelled((channel.name, channel.text) for channel in channels)

    def _delivered(self) -> Delivered:
        if self._class.shadow or all(delivers(run.step) for run in self._runs):
            return "full"
        # Of a whole choice that is blocked or replaced nothing is delivered, of a stream
        # what had left by then.
        left = [
            run.text
            for run in self._runs
            if self._stream or self._step_of(run.channel.choice) not in ("replace", "block")
        ]
        return "part" if any(left) else "none"


class _ChannelRun:
    """One channel on its way: what is pending, what left, what was decided."""

    def __init__(self, session: Session, channel: Channel) -> None:
        self.channel = channel
        self.step: Step = "allow"
        self.stopped = False
        self.complete = False
        self.judged = 0
        self.position = 0
        self._session = session
        self._pending = ""
        self._at = 0
        self._received: list[str] = []
        self._text: list[str] = []
        self._notice = ""
        self._tail = channel.lead[-CONTEXT:]
        self._pool = Pool(session.deployment.poolings)
        self._seen: tuple[Finding, ...] = ()

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

    def advance(self, piece: str, *, final: bool) -> Steps:
        """Take a piece; judge and release every unit that is certain."""
        if piece:
            self._received.append(piece)
            # What was judged is dropped here and not unit by unit, which for a long piece
            # would take time quadratic in its length.
            self._pending, self._at = self._pending[self._at :] + piece, 0
        while not self.stopped and self._at < len(self._pending):
            end = unit_end(self._pending, self._at, final=final)
            seen = None if end is None else seen_end(self._pending, end, final=final)
            if end is None or seen is None:
                return
            yield from self._unit(self._pending[self._at : end], self._pending[end:seen])
        if final and not self.stopped:
            self.complete = self.stopped = True

    def withdraw(self, step: Step) -> None:
        """Take back a whole text that was judged, since `step` must be taken instead."""
        self.step = worst_step((self.step, step))
        self._text.clear()
        self._set_notice()

    def _unit(self, unit: str, ahead: str) -> Steps:
        outcome = yield from self._judge(unit, ahead)
        reasons = tuple(
            replace(reason, step=self._for_channel(reason.step))
            for reason in self._session.rule(outcome)
        )
        self._session.note(self._placed(outcome), reasons)
        text, used, step = yield from self._mend(unit, ahead, outcome, reasons)
        self.judged += used
        self._at += used
        self.step = worst_step((self.step, step))
        kept = yield from self._session.before_release()
        if not self._session.deployment.security_class.shadow:
            step = worst_step((step, kept))
            self.step = worst_step((self.step, step))
        yield from self._release(text, used, step)

    def _judge(
        self, unit: str, ahead: str
    ) -> Generator[Judge | Keep | Release, Outcome | None, Outcome]:
        start = len(self._tail)
        text = self._tail + unit + ahead
        passage = self._session.passage(text, start, start + len(unit), self.channel)
        outcome = yield Judge(passage)
        if outcome is None:
            return _UNJUDGED
        self._seen = outcome.findings
        return replace(outcome, findings=self._pool.pooled(outcome.findings))

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
    ) -> Generator[Judge | Keep | Release, Outcome | None, tuple[str, int, Step]]:
        """Return the text to release, how much original it uses up, and the step taken."""
        step = worst_step(reason.step for reason in reasons)
        if delivers(step) or self._session.deployment.security_class.shadow:
            return unit, len(unit), "flag" if reasons else "allow"
        if step in ("replace", "block"):
            return "", len(unit), step
        text, used = self._redacted(unit, ahead, outcome, reasons)
        rest = (unit + ahead)[used:]
        if text != unit:
            verdict = yield from self._try(text, rest)
            if delivers(verdict):
                return text, used, step
            if verdict in ("replace", "block"):
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

    def _excised(
        self, text: str, rest: str
    ) -> Generator[Judge | Keep | Release, Outcome | None, str]:
        for left in excisions(text):
            if not left.strip() or delivers((yield from self._try(left, rest))):
                return left
        return ""

    def _try(self, text: str, rest: str) -> Generator[Judge | Keep | Release, Outcome | None, Step]:
        """Judge a proposed text; a detector that fails on it counts."""
        outcome = yield from self._judge(text, rest)
        self._session.note_failures(replace(self._placed(outcome), findings=()))
        return worst_step(reason.step for reason in self._session.rule(outcome))

    def _escalated(self, step: Step) -> Step:
        step = self._for_channel(step)
        self._session.note_escalation(step)
        return step

    def _for_channel(self, step: Step) -> Step:
        """Return `step`, or a block where it would make another tool call or a message of one."""
        cuts = step in ("excise", "replace") and self.channel.kind == "tool_call"
        return "block" if cuts else step

    def _release(self, text: str, used: int, step: Step) -> Steps:
        """Let `text` leave, or the class's notice in its place, and go on or stop."""
        if step in ("replace", "block"):
            yield from self._stop()
            return
        self.position += used
        self._text.append(text)
        self._tail = (self._tail + text)[-CONTEXT:]
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


def _labelled(texts: Iterable[tuple[str, str]]) -> str:
    """Join channels for the journal; a lone content channel stands without a label."""
    given = [(name, text) for name, text in texts if text]
    if all(name == "choices[0].content" for name, _ in given):
        return "".join(text for _, text in given)
    return "\n".join(f"[{name}]\n{text}" for name, text in given)
