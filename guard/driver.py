"""Answers what a session asks for: has passages judged and rows kept.

Detectors run on the guard's own few threads under the class's time limit. Whatever goes
wrong in a detector or in the journal becomes a failure in an `Outcome` and never an
exception or an all-clear.

A stream that is half read when the process ends has its row closed before the interpreter goes
down: later a row cannot be written, and whoever tried may crash.

This module does not know how a unit is judged or mended (`guard.channel_run`).
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import index
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary, ref

from guard.assess import Failure
from guard.errors import JournalError
from guard.journal.record import emit, keep_text
from guard.log import Log
from guard.steps import Judge, Keep, Learn, Outcome, Release
from guard.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from guard.assess import DetectorStatus
    from guard.detectors.base import Detector, Finding, Passage
    from guard.journal.record import Record
    from guard.journal.store import Journal
    from guard.session import Session
    from guard.steps import Ask, Steps
    from guard.workers import Job

_T = TypeVar("_T")

FINDINGS_LIMIT: Final = 10_000
"""Findings of one detector in one passage; more are a fault and would eat all memory."""

_QUOTE: Final = 8
"""Characters in a row that make an error's message a quotation of the text."""

_MESSAGE_LIMIT: Final = 200

_NAMES: Final = ("category", "detector", "version", "label", "channel")
"""Fields of a finding that the assessment is keyed by, and the journal writes."""

_log = Log()


@runtime_checkable
class Live(Protocol):
    """What follows the live risk of a deployment; `guard.live.LiveRisk` is one."""

    def priors(self, conversation: str | None = None) -> Mapping[str, float]:
        """Return the priors before an exchange, in (0, 1)."""
        ...

    def observe(self, evidence: Mapping[str, float], *, conversation: str | None = None) -> object:
        """Take in what an exchange showed."""
        ...

    @property
    def posture(self) -> str:
        """`normal`, `tighten`, `fallback` or `quarantine`."""
        ...


class Driver:
    """Runs sessions; shared by all of them and immutable.

    Args:
        detectors: asked in this order.
        timeout: seconds that all detectors together may take for one passage.
        journal: where rows go; `None` for nowhere.
        redactor: takes secrets and personal data out of texts that the journal keeps; `None`
            where no class keeps redacted texts.
        live: what follows the live risk; `None` for nothing.
    """

    def __init__(
        self,
        detectors: Iterable[Detector],
        timeout: float,
        journal: Journal | None,
        redactor: Callable[[str], str] | None,
        live: Live | None = None,
    ) -> None:
        """Start no thread yet."""
        self._live = live
        self._journal = journal
        self._detectors = tuple(detectors)
        self._timeout = timeout
        self._redactor = redactor or _unredacted
        self._workers = Workers()
        # The last to register goes first: before what delivers the live risk or closes journals.
        atexit.unregister(_abandon_all)
        atexit.register(_abandon_all)

    def watch(self, session: Session) -> Session:
        """Return `session`; where the process ends before it does, its row is closed first."""
        # Whoever reads the stream keeps the driver: an ended session must not.
        _under_way[session] = (ref(self), os.getpid())
        return session

    def advance(self, steps: Steps) -> str | None:
        """Answer `steps` until some text may leave; return it, `None` at their end."""
        answer: Outcome | None = None
        with contextlib.suppress(StopIteration):
            while True:
                step = steps.send(answer)
                if isinstance(step, Release):
                    return step.text
                answer = self._judge(step) if isinstance(step, Judge) else self._answer(step)
        return None

    async def aadvance(self, steps: Steps) -> str | None:
        """As `advance`, without blocking the event loop."""
        import asyncio  # noqa: PLC0415  # whoever has no event loop need not have its memory

        answer: Outcome | None = None
        with contextlib.suppress(StopIteration):
            while True:
                step = steps.send(answer)
                if isinstance(step, Release):
                    return step.text
                if isinstance(step, Judge):
                    answer = await self._ajudge(step)
                elif self._journal is None or isinstance(step, Learn):
                    answer = self._answer(step)
                else:
                    answer = await _undisturbed(asyncio.to_thread(self._answer, step))
        return None

    def run(self, steps: Steps) -> None:
        """Answer all of `steps`; what may leave is not wanted."""
        while self.advance(steps) is not None:
            pass

    async def arun(self, steps: Steps) -> None:
        """As `run`, without blocking the event loop."""
        while await self.aadvance(steps) is not None:
            pass

    def _judge(self, step: Judge) -> Outcome:
        tally = _Tally(self._detectors, step.passage, self._timeout)
        finished = self._workers.run(tally.fill, self._timeout)
        return tally.outcome(finished=finished)

    async def _ajudge(self, step: Judge) -> Outcome:
        tally = _Tally(self._detectors, step.passage, self._timeout)
        finished = await self._workers.arun(tally.fill, self._timeout)
        return tally.outcome(finished=finished)

    def _answer(self, step: Ask) -> Outcome | None:
        if isinstance(step, Keep):
            return self._keep(step)
        if isinstance(step, Learn) and self._live is not None:
            self._learn(step, self._live)
        return None

    def _learn(self, step: Learn, live: Live) -> None:
        """Take what an exchange showed into the live risk; a failure withholds nothing.

        The exchange was judged already, and a prior that stands still is the one it had.
        """
        try:
            live.observe(step.evidence, conversation=step.conversation or None)
        except Exception as error:  # noqa: BLE001  # stores and notifiers are anybody's
            _try_to_log(_log.error, "guard.live_failed", error=type(error).__name__)

    def _keep(self, step: Keep) -> Outcome | None:
        """Make the row durable, then log its event, where it is the last word on the exchange."""
        failure = None if self._journal is None else self._write(self._journal, step)
        if step.final:
            _try_to_log(emit, step.record)
        return None if failure is None else Outcome(failures=(failure,))

    def _write(self, journal: Journal, step: Keep) -> Failure | None:
        try:
            record = self._kept(step.record)
            if step.new:
                journal.write(record)
            else:
                journal.update(record)
        except Exception as error:  # noqa: BLE001  # metadata and redactors are anybody's
            # Only our own message is known to quote nothing of the exchange.
            detail = str(error) if isinstance(error, JournalError) else type(error).__name__
            _try_to_log(_log.error, "guard.journal_failed", record=step.record.id, error=detail)
            return Failure("journal", "failed", detail)
        return None

    def _kept(self, record: Record) -> Record:
        """Return `record` with its texts as they are to be kept."""
        keep = partial(keep_text, mode=record.text_mode, redactor=self._redactor)
        return replace(
            record,
            prompt=keep(record.prompt or ""),
            response=keep(record.response or ""),
            outcome=keep(record.outcome or ""),
        )


class _Tally:
    """What each detector said about one passage, filled in by a worker thread."""

    def __init__(self, detectors: tuple[Detector, ...], passage: Passage, timeout: float) -> None:
        self._detectors = detectors
        self._passage = passage
        self._timeout = timeout
        self._answers: dict[str, tuple[DetectorStatus, tuple[Finding, ...], str]] = {}

    def fill(self, job: Job) -> None:
        """Run the detectors in turn, until the job is given up."""
        for detector in self._detectors:
            if job.abandoned:
                return
            self._answers[detector.name] = _ask(detector, self._passage)

    def outcome(self, *, finished: bool) -> Outcome:
        """Return what is known now; who has not answered was stopped or never had its turn."""
        answers = dict(self._answers)
        missing = [d.name for d in self._detectors if d.name not in answers]
        answers |= dict.fromkeys(missing, ("skipped", (), ""))
        if missing and not finished:
            # They run in turn: the first without an answer is the one that was waited for.
            answers[missing[0]] = ("timed_out", (), f"no answer in {self._timeout:g} s")
        failures = [
            Failure(name, status, detail, "", self._passage.start, self._passage.end)
            for name, (status, _, detail) in answers.items()
            if status != "ok"
        ]
        return Outcome(
            findings=tuple(f for _, findings, _ in answers.values() for f in findings),
            statuses={name: status for name, (status, _, _) in answers.items()},
            failures=tuple(failures),
        )


_under_way: Final[WeakKeyDictionary[Session, tuple[ref[Driver], int]]] = WeakKeyDictionary()


def _abandon_all() -> None:
    for known in _under_way.keyrefs():
        # Another thread, which the end will stop, may be in the middle of it.
        with contextlib.suppress(Exception):
            if (session := known()) is not None:
                _end(session, *_under_way[session])


def _end(session: Session, known: ref[Driver], process: int) -> None:
    driver = known()
    if process != os.getpid():
        session.leave()
    elif driver is not None:
        driver.run(session.abandon())


async def _undisturbed(work: Coroutine[None, None, _T]) -> _T:
    """Return what `work` gives; a cancellation waits until it is done.

    A row that is half on its way could neither be closed nor be told from a lost one.
    """
    import asyncio  # noqa: PLC0415  # as above

    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


def _unredacted(_: str) -> str:
    """Refuse to keep a text as it is where it should be redacted; the row's failure counts."""
    raise JournalError("a text is to be redacted, and there is no `redactor`: pass one")


def _try_to_log(log: Callable[..., object], *values: object, **fields: object) -> None:
    """Call `log`; a log that cannot be written, such as a closed pipe, withholds nothing."""
    with contextlib.suppress(Exception):
        log(*values, **fields)


def _ask(detector: Detector, passage: Passage) -> tuple[DetectorStatus, tuple[Finding, ...], str]:
    """Run one detector; whatever goes wrong in it is an answer too."""
    try:
        found = tuple(islice(detector(passage), FINDINGS_LIMIT + 1))
    except BaseException as error:  # noqa: BLE001  # anybody's code, on a thread of ours
        return "failed", (), _detail(error, passage)
    try:
        findings = tuple(_plain(finding) for finding in found)
        problem = next((p for f in findings if (p := _invalid(f, detector, passage))), "")
    except Exception as error:  # noqa: BLE001  # whatever it is, it is no finding
        return "invalid", (), f"not a finding ({type(error).__name__})"
    if len(found) > FINDINGS_LIMIT:
        problem = f"more than {FINDINGS_LIMIT} findings"
    return ("invalid", (), problem) if problem else ("ok", findings, "")


def _plain(finding: Finding) -> Finding:
    """Return a finding with Python's own numbers, where a detector used an array's."""
    evidence, start, end = float(finding.evidence), index(finding.start), index(finding.end)
    return replace(finding, evidence=evidence, start=start, end=end)


def _invalid(finding: Finding, detector: Detector, passage: Passage) -> str:
    """Return how a finding breaks the contract, `""` where it does not."""
    for name in _NAMES:
        if not isinstance(value := getattr(finding, name), str):
            return f"`{name}` of a finding is {type(value).__name__} and no text"
    if not math.isfinite(finding.evidence):
        return f"evidence for `{finding.category}` is {finding.evidence}"
    if finding.category not in detector.categories:
        return f"found `{finding.category}`, which it does not declare"
    begins = finding.start == passage.start or passage.start < finding.start < passage.end
    if not begins or not finding.start <= finding.end <= len(passage.text):
        return f"span {finding.start}:{finding.end} does not begin in the unit or runs out of sight"
    return ""


def _detail(error: BaseException, passage: Passage) -> str:
    """Return an error's type and message, without one that quotes the exchange."""
    name = type(error).__name__
    try:
        message = str(error)[:_MESSAGE_LIMIT]
    except Exception:  # noqa: BLE001  # the message is anybody's code as well
        message = ""
    parts = [message[i : i + _QUOTE] for i in range(max(1, len(message) - _QUOTE + 1))]
    texts = (passage.text, passage.prompt, passage.system)
    if any(part in text for part in parts for text in texts):
        return name
    return f"{name}: {message}"
