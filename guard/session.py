"""One exchange on its way through the guard: hold back, judge, mend, release.

All state of an exchange lives in one `Session`, made for it and gone with it. A session
does no work by itself: it is a generator that asks for what it needs (`Judge` a passage,
`Keep` a journal row) and says what may leave (`Release`). `guard.driver` answers, in
threads or on an event loop; both run this one code, and so do a whole text and a stream.

This module does not know detectors, threads, event loops or the journal's storage, and not
how a single channel is judged (`guard.channel_run`).
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from guard.assess import Assessment, Coverage, Failure, live_risk, strongest
from guard.channel_run import ChannelRun
from guard.detectors.base import Finding, Passage
from guard.errors import InputError
from guard.exchange import Channel, Choice, Exchange, ToolCall, is_json, unescaped
from guard.journal.record import Record
from guard.steps import Deployment, Judge, Keep, Learn, Outcome, Release
from guard.text.units import HIDDEN_LIMIT, flooded, shows
from guard.verdict import (
    ESCALATION,
    QUARANTINE,
    Action,
    Reason,
    Step,
    Verdict,
    action_of,
    coverage_dict,
    decide,
    delivers,
    finding_dict,
    passes,
    worst_action,
    worst_step,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from guard.assess import DetectorStatus
    from guard.exchange import ChannelKind
    from guard.journal.record import Delivered
    from guard.steps import Ask, Steps

CONTENT: Final = "choices[0].content"
"""The channel of a stream that carries one answer's text."""

_REPORTED_RISK: Final = 0.5
"""Live risk from which a finding is reported where the class sets no limit for it."""

_KNOWN_LIMIT: Final = 1024
"""Texts beside an answer that are remembered, so that one that comes often is judged once."""

_STATUS_ORDER: Final[tuple[DetectorStatus, ...]] = (
    "ok",
    "skipped",
    "failed",
    "invalid",
    "timed_out",
)


class Session:
    """The state of one exchange.

    Args:
        exchange: what was asked, and what came back as far as it is known.
        deployment: the guard that it runs for.
        stream: whether text leaves while more is coming, so that it cannot be taken back.
        channels: the channels that are known by now; those of `exchange` by default. Others
            may be opened as they arrive (`open`).
    """

    def __init__(
        self,
        exchange: Exchange,
        deployment: Deployment,
        *,
        stream: bool = False,
        channels: Sequence[Channel] | None = None,
    ) -> None:
        """Judge nothing yet."""
        self.exchange = exchange
        self.deployment = deployment
        self._class = deployment.security_class
        self._stream = stream
        self._evidence: dict[str, float] = {}
        self._findings: list[Finding] = []
        self._failures: list[Failure] = []
        self._statuses: dict[str, DetectorStatus] = {}
        self._reasons: dict[str, Reason] = {}
        self._steps: dict[int, Step] = {}
        self._known: dict[Channel, bool] = {}
        self._beside: set[str] = set()
        self._whole: set[str] = set()
        self._lone = 0
        self._units = 0
        self._id = uuid4().hex if deployment.journalled else ""
        self._record: Record | None = None
        self._noted: frozenset[tuple[str, Step]] = frozenset()
        self._ended = False
        self._finished = False
        quarantine = Reason(QUARANTINE, "block", 1.0)
        self._standing = (quarantine,) if deployment.quarantined else ()
        self._system = exchange.system
        self._prompt = exchange.prompt
        self._open = channels is not None
        known = exchange.channels() if channels is None else channels
        self._runs = {channel.name: ChannelRun(self, channel) for channel in known}

    @property
    def stopped(self) -> bool:
        """Whether judging has ended and no more text is wanted."""
        return self._ended or all(run.stopped for run in self._runs.values())

    @property
    def finished(self) -> bool:
        """Whether the exchange was seen to its end, so that there is a verdict."""
        return self._finished

    @property
    def shadow(self) -> bool:
        """Whether everything is delivered as it is, whatever is found."""
        return self._class.shadow

    @property
    def blocked(self) -> bool:
        """Whether some text was blocked by now."""
        return "block" in self._steps.values()

    def whole(self) -> Steps:
        """Judge every channel of the exchange."""
        for name, run in tuple(self._runs.items()):
            yield from _advanced(run, run.channel.text, final=True)
            yield from self._end_text(name)
        yield from self.names(self.exchange)
        yield from self._end(complete=True)

    def names(self, exchange: Exchange) -> Steps:
        """Judge what stands beside the arguments of tool calls, which need not have any.

        Args:
            exchange: whose tool calls; the session's own, or what came of its answer meanwhile.
        """
        for channel in _named(exchange):
            yield from self._judge_beside(channel)

    def open(self, channel: Channel) -> None:
        """Take a channel whose text is yet to come.

        Raises:
            InputError: there is one of its name.
        """
        if channel.name in self._runs:
            raise InputError(f"channel `{channel.name}` is open already: names must differ")
        self._open = True
        self._runs[channel.name] = ChannelRun(self, replace(channel, text=""))

    def reopen(self, name: str) -> Steps:
        """Begin a channel that was closed anew, since more of it comes: judge it from its start.

        What it had let go stands; whoever relays it must see that it stays as it was.
        """
        known = self._runs[name]
        self._whole.discard(name)
        self._runs[name] = ChannelRun(self, known.channel)
        yield from self.feed(known.received, name)

    def forget(self, name: str) -> None:
        """Keep nothing of a channel that was judged and is no text of the answer."""
        del self._runs[name]
        self._beside.discard(name)

    def alone(self, channel: Channel) -> Generator[Ask, Outcome | None, bool]:
        """Judge a text that stands beside the answer's; return whether it passes as it is.

        Args:
            channel: what it carries, with its text; its name need not be new.

        Nothing is released meanwhile, since it is nothing of the answer. A choice is not withheld
        for it by itself: that is for the caller to do.
        """
        key = replace(channel, name="", choice=0)
        known = self._known.get(key)
        if known is not None:
            return known
        self._lone += 1
        name = f"{channel.name}#{self._lone}"
        run = self._runs[name] = ChannelRun(self, replace(channel, name=name, text=""))
        self._beside.add(name)
        yield from _advanced(run, channel.text, final=True, leaves=False)
        passed = delivers(run.step) and not run.edits
        if run.step == "allow":
            self.forget(name)
        elif not passed:
            run.retract(0)
        if len(self._known) < _KNOWN_LIMIT:
            self._known[key] = passed
        return passed

    def feed(self, piece: str, name: str = CONTENT) -> Steps:
        """Take the next piece of a channel; nothing more of a choice that was stopped is judged."""
        if not isinstance(piece, str):
            raise InputError(f"a stream's pieces must be `str`, not {type(piece).__name__}")
        run = self._runs[name]
        if not self.passes_over(run.channel.choice):
            yield from _advanced(run, piece, final=False)

    def close(self, name: str = CONTENT) -> Steps:
        """Take the end of a channel; a tool call is withheld whole for what it hides.

        So is a document in an answer's content, as far as it has not left.
        """
        run = self._runs[name]
        if not self.passes_over(run.channel.choice):
            yield from _advanced(run, "", final=True)
            yield from self._end_text(name)

    def finish(self) -> Steps:
        """Take the end of every channel."""
        for name in tuple(self._runs):
            yield from self.close(name)
        yield from self._end(complete=True)

    def run(self, name: str) -> ChannelRun:
        """Return how far a channel is."""
        return self._runs[name]

    def withheld(self, choice: int) -> bool:
        """Return whether nothing more of a choice may leave."""
        return not self._class.shadow and not passes(self.step_of(choice))

    def passes_over(self, choice: int) -> bool:
        """Return whether nothing more of a choice is judged: of a stream that is withheld.

        A whole answer is judged to its end, so that its verdict is the gravest whatever came first.
        """
        return self._stream and self.withheld(choice)

    def step_of(self, choice: int) -> Step:
        """Return the most severe step taken on a choice so far."""
        return self._steps.get(choice, "allow")

    def notice(self, choice: int) -> str:
        """Return what the end user reads in place of a choice that is withheld, else `""`."""
        step = self.step_of(choice)
        messages = self.deployment.messages
        if step == "block":
            return messages.blocked
        return "" if passes(step) else messages.replaced

    def abandon(self) -> Steps:
        """Close the row of an exchange whose reader or backend went away."""
        if not self._ended and (self._record is not None or self.deployment.learns):
            yield from self._end(complete=False)
        self._ended = True

    def leave(self) -> None:
        """Write nothing more: the exchange goes on in the process from which this one forked."""
        self._ended = True

    def verdict(self) -> Verdict:
        """Return the decision; call it after `whole` or `finish`."""
        intended = self._intended()
        shadow = self._class.shadow
        action: Action = ("allow" if intended == "allow" else "flag") if shadow else intended
        choices = self._choices()
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

    def passage(
        self, text: str, start: int, end: int, channel: Channel, closing: str = ""
    ) -> Passage:
        """Return the passage for a unit of `channel` at `text[start:end]`."""
        side = channel.side
        of_response = side == "response"
        prompt, closing = (self._prompt, closing) if of_response else ("", "")
        return Passage(text, start, end, prompt, self._system, channel.tool, side, closing)

    def rule(self, outcome: Outcome) -> tuple[Reason, ...]:
        """Return what the class does about `outcome`, most severe first."""
        prior = self.deployment.prior
        failed = [
            Reason(f"detector:{f.detector}", self._class.on_failure, 1.0, status=f.status)
            for f in outcome.failures
        ]
        return tuple(
            sorted(
                [
                    *self._standing,
                    *failed,
                    *decide(strongest(outcome.findings), self._class, prior),
                ],
                key=lambda reason: -reason.severity,
            )
        )

    def reaches(self, finding: Finding, *, act: bool) -> bool:
        """Return whether a finding alone reaches its category's limit."""
        limit = self._class.limit(finding.category)
        risk = live_risk(finding.evidence, self.deployment.prior(finding.category))
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

    def note_step(self, choice: int, step: Step) -> None:
        """Take in that `step` was taken on a text of `choice`."""
        self._steps[choice] = worst_step((self._steps.get(choice, "allow"), step))

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

    def before_release(self) -> Generator[Ask, Outcome | None, Step]:
        """Have the row durable before flagged text of a stream leaves; return the step to take.

        It is written anew for each new reason, so not for each unit. A whole text leaves
        only after its verdict: its row is written once, at the end.
        """
        if not self._stream or self._causes() <= self._noted:
            return "allow"
        return (yield from self._keep(complete=False, final=False))

    # Private parts.

    def _end_text(self, name: str) -> Steps:
        """See to what a text is as a whole, once."""
        run = self._runs[name]
        if name in self._whole or name in self._beside:
            return
        if run.channel.kind == "tool_call":
            yield from self._end_call(run)
        elif run.channel.kind == "content":
            yield from self._end_content(run)
        self._whole.add(name)

    def _end_call(self, run: ChannelRun) -> Steps:
        """See to it that a tool call stays a document, and hides nothing in escapes or its name."""
        channel = run.channel
        if run.edits and is_json(run.received) and not is_json(run.text):
            self._withhold(channel.choice)
        place = channel.name.rpartition(".")[0] or channel.name
        yield from self._judge_beside(
            Channel(f"{place}.name", "content", channel.choice, channel.tool)
        )
        yield from self._judge_unescaped(run)

    def _end_content(self, run: ChannelRun) -> Steps:
        """See to it that a document hides nothing in escapes; prose means what it says.

        What of a stream has left by then stands, and the class's message ends it.
        """
        choice = run.channel.choice
        before = self.withheld(choice)
        if self.passes_over(choice) or not _is_document(run.text):
            return
        yield from self._judge_unescaped(run)
        if self.withheld(choice) and not before:
            run.cut("block")
            if notice := run.streamed.removeprefix(run.text):
                yield Release(notice)

    def _judge_unescaped(self, run: ChannelRun) -> Steps:
        name, plain = f"{run.channel.name}.unescaped", unescaped(run.text)
        yield from self._judge_beside(replace(run.channel, name=name, text=plain or ""))

    def _judge_beside(self, channel: Channel) -> Steps:
        """Judge a text of a choice that must stay as it is; otherwise the choice is withheld."""
        if channel.text and not self.passes_over(channel.choice):
            passed = yield from self.alone(channel)
            if not passed:
                self._withhold(channel.choice)

    def _withhold(self, choice: int) -> None:
        self.note_escalation("block")
        if not self._class.shadow:
            self.note_step(choice, "block")

    def _end(self, *, complete: bool) -> Steps:
        # One that was cancelled in its last words has taught what it showed.
        taught, self._ended = self._ended, True
        if self.deployment.learns and self._units and not taught:
            yield Learn(self._shown(), self.exchange.conversation)
        step = yield from self._keep(complete=complete, final=True)
        if not self._stream and not self._class.shadow and not delivers(step):
            for run in self._runs.values():
                run.withdraw(step)
        self._finished = complete

    def _keep(self, *, complete: bool, final: bool) -> Generator[Ask, Outcome | None, Step]:
        """Write or update the row where the class wants one; return the step on failure."""
        known = self._record
        if known is None and self._intended() not in self._class.journal.actions:
            return "allow"
        self._record, causes = self._row(complete=complete), self._causes()
        answer = yield Keep(self._record, new=known is None, final=final)
        # Without an answer, as where the task was cancelled, nobody knows that the row is durable.
        if answer is None or not answer.failures:
            self._noted = causes
            return "allow"
        self._record = known
        # Once a stream has ended there is no text left to hold back.
        step = "flag" if self._stream and final else self._class.on_failure
        self.note_reason(Reason("journal", step, 1.0, status="failed"))
        self._noted = self._causes()
        return step

    def _shown(self) -> dict[str, float]:
        """Return what the exchange showed; a detector that failed showed no all-clear."""
        failed = {failure.detector for failure in self._failures}
        unknown = [name for detector in failed for name in self.deployment.finds.get(detector, ())]
        return {**self._evidence, **dict.fromkeys(unknown, math.nan)}

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
            response=_labelled((run.channel.name, run.received) for run in self._runs.values()),
            outcome=self._outcome(),
            text_mode=self._class.journal.text,
            released=sum(run.position for run in self._runs.values() if self._stream),
            metadata={**self.exchange.metadata, **self.deployment.metadata},
        )

    def _causes(self) -> frozenset[tuple[str, Step]]:
        """Return why a row is due, without the risks, which may rise with every unit."""
        return frozenset((reason.cause, reason.step) for reason in self._reasons.values())

    def _intended(self) -> Action:
        steps: list[Step] = [reason.step for reason in self._reasons.values()]
        steps.extend(run.step for run in self._runs.values())
        return worst_action(map(action_of, steps))

    def _sorted_reasons(self) -> list[Reason]:
        return sorted(self._reasons.values(), key=lambda r: (-r.severity, -r.risk, r.cause))

    def _risks(self) -> dict[str, float]:
        """Return the live risk of every category that could have been found."""
        return {
            name: live_risk(self._evidence.get(name, 0.0), self.deployment.prior(name))
            for name in self.deployment.categories
        }

    def _coverage(self) -> Coverage:
        complete = all(run.complete for run in self._runs.values()) and not self._failures
        return Coverage(
            judged={name: run.judged for name, run in self._runs.items() if run.received},
            units=self._units,
            detectors=dict(self._statuses),
            failures=tuple(self._failures),
            complete=complete,
        )

    def _count(self) -> int:
        """Return how many choices there are."""
        opened = [run.channel.choice + 1 for run in self._runs.values()] if self._open else []
        return max([len(self.exchange.choices), *opened])

    def _choices(self) -> tuple[Choice | None, ...]:
        """Return every choice as it may be delivered whole."""
        runs: dict[int, list[ChannelRun]] = {}
        for name, run in self._runs.items():
            if name not in self._beside:
                runs.setdefault(run.channel.choice, []).append(run)
        return tuple(self._choice(index, runs.get(index, [])) for index in range(self._count()))

    def _choice(self, index: int, runs: Sequence[ChannelRun]) -> Choice | None:
        step = self.step_of(index)
        if step == "block":
            return None
        if not passes(step):
            return Choice(content=self.deployment.messages.replaced)
        return Choice(
            content=_joined(runs, "content"),
            reasoning=_joined(runs, "reasoning"),
            refusal=_joined(runs, "refusal"),
            tool_calls=self._tool_calls(index, runs),
        )

    def _tool_calls(self, index: int, runs: Iterable[ChannelRun]) -> tuple[ToolCall, ...]:
        calls = {run.channel.name: run for run in runs if run.channel.kind == "tool_call"}
        if self._open:
            return tuple(ToolCall(run.channel.tool, run.text) for run in calls.values())
        # A call without arguments has no channel.
        names = [
            f"choices[{index}].tool_calls[{i}].arguments"
            for i in range(len(self.exchange.choices[index].tool_calls))
        ]
        texts = [calls[name].text if name in calls else "" for name in names]
        known = self.exchange.choices[index].tool_calls
        return tuple(replace(call, arguments=text) for call, text in zip(known, texts, strict=True))

    def _message(self) -> str:
        notices = [self.notice(index) for index in range(self._count())]
        blocked = self.deployment.messages.blocked
        return blocked if blocked in notices else next((text for text in notices if text), "")

    def _streamed(self) -> str:
        first = [run for name, run in self._runs.items() if name == CONTENT]
        return "".join(run.streamed for run in first)

    def _outcome(self) -> str:
        """Return what was delivered in place of the response, for the journal."""
        if self._stream:
            return _labelled((name, run.streamed) for name, run in self._runs.items())
        notice = Choice(content=self.deployment.messages.blocked)
        choices = tuple(choice or notice for choice in self._choices())
        channels = Exchange(choices).channels()
        return _labelled((channel.name, channel.text) for channel in channels)

    def _delivered(self) -> Delivered:
        runs = self._runs.values()
        if self._class.shadow or all(delivers(run.step) for run in runs):
            return "full"
        # Of a whole choice that is blocked or replaced nothing is delivered, of a stream
        # what had left by then.
        left = [
            run.text for run in runs if self._stream or passes(self.step_of(run.channel.choice))
        ]
        return "part" if any(left) else "none"


def _advanced(run: ChannelRun, piece: str, *, final: bool, leaves: bool = True) -> Steps:
    """Have a channel take a piece; no answer about a unit with too much hidden is an all-clear.

    Args:
        run: the channel.
        piece: the piece of its text.
        final: whether it is the last one.
        leaves: whether the text is of the answer, so that what passed may leave.
    """
    steps = run.advance(piece, final=final)
    answer: Outcome | None = None
    with suppress(StopIteration):
        while True:
            step = steps.send(answer)
            answer = (yield step) if leaves or not isinstance(step, Release) else None
            if answer is not None and isinstance(step, Judge):
                answer = _doubted(answer, step.passage)


def _doubted(outcome: Outcome, passage: Passage) -> Outcome:
    """Return an outcome with a failure where what does not show may part what belongs together."""
    # Where nothing shows, not even before the unit, there is nothing that could be parted.
    if not flooded(passage.text[passage.start :]) or not shows(passage.text):
        return outcome
    detail = f"more than {HIDDEN_LIMIT} characters that do not show"
    failure = Failure("judgement", "skipped", detail, "", passage.start, passage.end)
    return replace(outcome, failures=(*outcome.failures, failure))


def _is_document(text: str) -> bool:
    """Return whether a text as a whole looks like JSON, perhaps of a kind that Python refuses."""
    text = text.strip()
    return (text[:1], text[-1:]) in (("{", "}"), ("[", "]"))


def _named(exchange: Exchange) -> Iterator[Channel]:
    """Yield what stands beside the arguments of tool calls, which need not have any.

    An identifier does only where it may be read as a text.
    """
    for index, choice in enumerate(exchange.choices):
        for number, call in enumerate(choice.tool_calls):
            place = f"choices[{index}].tool_calls[{number}]"
            yield Channel(f"{place}.name", "content", index, call.name)
            if not call.id.isascii() or any(map(str.isspace, call.id)):
                yield Channel(f"{place}.id", "content", index, call.id)


def _joined(runs: Iterable[ChannelRun], kind: ChannelKind) -> str:
    """Return the texts of the channels of one kind; where there are several, in paragraphs."""
    return "\n\n".join(run.text for run in runs if run.channel.kind == kind and run.text)


def _labelled(texts: Iterable[tuple[str, str]]) -> str:
    """Join channels for the journal; a lone content channel stands without a label."""
    given = [(name, text) for name, text in texts if text]
    if all(name == CONTENT for name, _ in given):
        return "".join(text for _, text in given)
    return "\n".join(f"[{name}]\n{text}" for name, text in given)
