"""`Guard`: answers for every response whether it may leave, and in which words.

A `Guard` is immutable after construction and shared by all threads and tasks. It runs
detectors on its own few threads under the class's time limit, so that a detector that
raises, hangs or answers nonsense becomes a failure in the coverage and never an
all-clear, and so that an event loop is never blocked.

This module does not know any SDK, server or framework, and nothing about how a unit is
judged or mended (`guard.session`).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from guard.assess import Failure
from guard.errors import ConfigurationError, InputError, JournalError
from guard.exchange import Exchange
from guard.journal.record import emit
from guard.policy import SecurityClass, check_categories, load_class
from guard.session import Deployment, Judge, Outcome, Release, Session
from guard.workers import Workers

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Callable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    from guard.assess import DetectorStatus
    from guard.detectors.base import Detector, Finding, Passage
    from guard.detectors.fingerprints import ProtectedText
    from guard.journal.record import Record
    from guard.journal.store import Journal
    from guard.session import Keep, Steps
    from guard.verdict import Verdict
    from guard.workers import Job

_log = structlog.get_logger("guard")


class _NotGiven:
    """The type of `NOT_GIVEN`, which differs from `None` where `None` switches off."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = _NotGiven()
"""Stands for "use the default" where `None` means "none"."""


class Guard:
    """Judges responses under one security class. Share one instance; it holds no state.

    Args:
        security_class: the class under which the model is deployed.
        detectors: everything that sees risk; at least one.
        journal: where flagged, rewritten and blocked responses are kept; `None` for nowhere.
        language: the language tag of messages to end users; the class's own by default.
        redactor: takes secrets and personal data out of texts that the journal keeps; needed
            where the class keeps redacted texts.

    Raises:
        ConfigurationError: no detector, two of one name, a limit that no detector can
            reach, or a redacting journal without a redactor; everything at once.
    """

    def __init__(
        self,
        security_class: SecurityClass,
        detectors: Sequence[Detector],
        *,
        journal: Journal | None = None,
        language: str | None = None,
        redactor: Callable[[str], str] | None = None,
    ) -> None:
        """Check that the parts fit together, then freeze them."""
        problems = _problems(security_class, detectors)
        if journal is not None and redactor is None and security_class.journal.text == "redacted":
            problems.append(
                f"class `{security_class.name}` keeps redacted texts in the journal: pass `redactor`"
            )
        if problems:
            raise ConfigurationError(problems)
        self._detectors = tuple(detectors)
        self._journal = journal
        self._workers = Workers()
        self._deployment = Deployment(
            security_class=security_class,
            messages=security_class.messages_in(language),
            detectors={detector.name: detector.version for detector in detectors},
            categories=tuple(_categories(detectors)),
            redactor=redactor or str,
            journalled=journal is not None,
        )

    @classmethod
    def load(  # noqa: PLR0913  # each is one plain part of a deployment
        cls,
        security_class: str | Path | SecurityClass = "public",
        name: str | None = None,
        *,
        model: str | Path | None = None,
        detectors: Sequence[Detector] = (),
        protected: Iterable[ProtectedText] = (),
        journal: Journal | str | Path | None | _NotGiven = NOT_GIVEN,
        language: str | None = None,
    ) -> Guard:
        """Load a guard with the bundled model and pattern packs.

        Args:
            security_class: a built-in class's name, or a path to a policy file.
            name: which class of the policy file, where it has several.
            model: a classifier's directory; the bundled one by default.
            detectors: further detectors, beside the standard ones.
            protected: texts that must not be repeated (system prompts, proprietary texts).
            journal: an open journal, a path or SQLAlchemy URL; `None` for no journal. By
                default `GUARD_JOURNAL`, else a file in the user's state directory.
            language: the language tag of messages to end users.

        Raises:
            ConfigurationError: all that is wrong with class, model and detectors at once.
            JournalError: the journal cannot be opened.
        """
        from guard.loading import load_parts  # noqa: PLC0415  # loads the model's runtime

        parts = load_parts(security_class, name, model, detectors, protected)
        return cls(
            parts.security_class,
            parts.detectors,
            journal=_open_journal(journal),
            language=language,
            redactor=parts.redactor,
        )

    @property
    def security_class(self) -> SecurityClass:
        """The class under which this guard judges."""
        return self._deployment.security_class

    @property
    def detectors(self) -> Mapping[str, str]:
        """Name and version of each detector."""
        return dict(self._deployment.detectors)

    @property
    def journal(self) -> Journal | None:
        """Where flagged, rewritten and blocked responses are kept."""
        return self._journal

    def check(self, response: str | Exchange, *, prompt: str = "", system: str = "") -> Verdict:
        """Judge a whole response.

        Args:
            response: the text, or an exchange with every choice and channel.
            prompt: the user's message that it answers.
            system: the system prompt, which must not be repeated in the response.

        Raises:
            InputError: something is not text.
        """
        session = self._session(response, prompt, system)
        for _ in self._drive(session.whole()):
            pass
        return session.verdict()

    async def acheck(
        self, response: str | Exchange, *, prompt: str = "", system: str = ""
    ) -> Verdict:
        """As `check`, without blocking the event loop."""
        session = self._session(response, prompt, system)
        async for _ in self._adrive(session.whole()):
            pass
        return session.verdict()

    def check_many(
        self, responses: Iterable[str | Exchange], *, workers: int | None = None
    ) -> Iterator[Verdict]:
        """Judge many responses side by side; yield the verdicts in the order given.

        Args:
            responses: texts or exchanges; read lazily, a few ahead of the verdicts.
            workers: how many are judged at a time; the number of cores by default.

        Nothing is batched into one model call: on a CPU that gains nothing, and with
        dynamic int8 scales a text's score would depend on its neighbours.
        """
        waiting: deque[Future[Verdict]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for response in responses:
                    waiting.append(pool.submit(self.check, response))
                    if len(waiting) > 2 * pool._max_workers:  # noqa: SLF001  # no public name
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def stream(self, pieces: Iterable[str], *, prompt: str = "", system: str = "") -> GuardedStream:
        """Judge a response as it arrives; iterate over what may leave.

        Delivers `check(text).streamed`, however the text is cut into pieces. A response
        that turns out bad ends with the class's message. After the last piece,
        `GuardedStream.verdict` holds the verdict.
        """
        return GuardedStream(self, self._session("", prompt, system, stream=True), pieces)

    def astream(
        self, pieces: AsyncIterable[str], *, prompt: str = "", system: str = ""
    ) -> AsyncGuardedStream:
        """As `stream`, for an asynchronous source."""
        return AsyncGuardedStream(self, self._session("", prompt, system, stream=True), pieces)

    def protect(self, function: Any = None, *, on_block: str = "message") -> Any:
        """Guard a callable, async callable, generator or async generator: prompt -> text.

        See `guard.protect.protect`.
        """
        from guard.protect import protect  # noqa: PLC0415  # it imports this module's types

        return protect(self, function, on_block=on_block)

    def _session(
        self, response: str | Exchange, prompt: str, system: str, *, stream: bool = False
    ) -> Session:
        exchange = Exchange.of(response, prompt=prompt, system=system)
        if not exchange.choices:
            raise InputError("the exchange has no choices: there is no response to judge")
        return Session(exchange, self._deployment, stream=stream)

    def _drive(self, steps: Steps) -> Iterator[str]:
        """Answer a session's requests on this thread; yield what may leave."""
        answer: Outcome | None = None
        with suppress(StopIteration):
            while True:
                step = steps.send(answer)
                answer = None
                if isinstance(step, Release):
                    yield step.text
                elif isinstance(step, Judge):
                    answer = self._judge(step.passage)
                else:
                    answer = self._keep(step)

    async def _adrive(self, steps: Steps) -> AsyncIterator[str]:
        """Answer a session's requests on the event loop; yield what may leave."""
        answer: Outcome | None = None
        with suppress(StopIteration):
            while True:
                step = steps.send(answer)
                answer = None
                if isinstance(step, Release):
                    yield step.text
                elif isinstance(step, Judge):
                    answer = await self._ajudge(step.passage)
                else:
                    answer = await asyncio.to_thread(self._keep, step)

    def _judge(self, passage: Passage) -> Outcome:
        tally = _Tally(self._detectors, passage)
        finished = self._workers.run(tally.fill, self.security_class.timeout_seconds)
        return tally.outcome(finished=finished)

    async def _ajudge(self, passage: Passage) -> Outcome:
        tally = _Tally(self._detectors, passage)
        finished = await self._workers.arun(tally.fill, self.security_class.timeout_seconds)
        return tally.outcome(finished=finished)

    def _keep(self, step: Keep) -> Outcome | None:
        """Make the row durable and say so in the log; a failure is an outcome like any other."""
        if self._journal is None:
            return None
        try:
            _write(self._journal, step.record, new=step.new)
        except JournalError as error:
            _log.error("guard.journal_failed", record=step.record.id, error=str(error))
            return Outcome(failures=(Failure("journal", "failed", str(error)),))
        if step.record.complete:
            emit(step.record)
        return None


class _Tally:
    """What each detector said about one passage, filled in by a worker thread."""

    def __init__(self, detectors: tuple[Detector, ...], passage: Passage) -> None:
        self._detectors = detectors
        self._passage = passage
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
        late: DetectorStatus = "skipped" if finished else "timed_out"
        for detector in self._detectors:
            if detector.name not in answers:
                answers[detector.name] = (late, (), "")
                late = "skipped"
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


def _ask(
    detector: Detector, passage: Passage
) -> tuple[DetectorStatus, tuple[Finding, ...], str]:
    """Run one detector; whatever goes wrong in it is an answer too."""
    try:
        findings = tuple(detector(passage))
        problem = next((p for f in findings if (p := _invalid(f, detector, passage))), "")
    except Exception as error:  # noqa: BLE001  # a detector is anybody's code; fail closed
        return "failed", (), f"{type(error).__name__}: {error}"
    return ("invalid", (), problem) if problem else ("ok", findings, "")


def _invalid(finding: Finding, detector: Detector, passage: Passage) -> str:
    """Return how a finding breaks the contract, `""` where it does not."""
    if not math.isfinite(finding.evidence):
        return f"evidence for `{finding.category}` is {finding.evidence}"
    if finding.category not in detector.categories:
        return f"found `{finding.category}`, which it does not declare"
    if not passage.start <= finding.start <= finding.end <= len(passage.text):
        return f"span {finding.start}:{finding.end} is outside the passage"
    return ""


class GuardedStream:
    """An iterator over what may leave of a stream; afterwards it holds the verdict."""

    def __init__(self, guard: Guard, session: Session, pieces: Iterable[str]) -> None:
        """Read nothing from `pieces` yet."""
        self._session = session
        self._guard = guard
        self._texts = self._run(pieces)
        self._verdict: Verdict | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict; raises `InputError` while the stream has not been read to its end."""
        return _ended(self._verdict)

    def close(self) -> None:
        """Stop reading; what was held back is dropped, the journal's row is closed."""
        self._texts.close()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._texts)

    def _run(self, pieces: Iterable[str]) -> Any:
        session, drive = self._session, self._guard._drive  # noqa: SLF001  # one module
        try:
            for piece in pieces:
                yield from drive(session.feed(piece))
                if session.stopped:
                    break
            yield from drive(session.finish())
            self._verdict = session.verdict()
        finally:
            for _ in drive(session.abandon()):
                pass
            close = getattr(pieces, "close", None)
            if close is not None:
                close()


class AsyncGuardedStream:
    """An asynchronous iterator over what may leave of a stream; then it holds the verdict."""

    def __init__(self, guard: Guard, session: Session, pieces: AsyncIterable[str]) -> None:
        """Read nothing from `pieces` yet."""
        self._session = session
        self._guard = guard
        self._texts = self._run(pieces)
        self._verdict: Verdict | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict; raises `InputError` while the stream has not been read to its end."""
        return _ended(self._verdict)

    async def aclose(self) -> None:
        """Stop reading; what was held back is dropped, the journal's row is closed."""
        await self._texts.aclose()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await anext(self._texts)

    async def _run(self, pieces: AsyncIterable[str]) -> Any:
        session, drive = self._session, self._guard._adrive  # noqa: SLF001  # one module
        try:
            async for piece in pieces:
                async for text in drive(session.feed(piece)):
                    yield text
                if session.stopped:
                    break
            async for text in drive(session.finish()):
                yield text
            self._verdict = session.verdict()
        finally:
            async for _ in drive(session.abandon()):
                pass
            aclose = getattr(pieces, "aclose", None)
            if aclose is not None:
                await aclose()


def _ended(verdict: Verdict | None) -> Verdict:
    if verdict is None:
        raise InputError("the stream has no verdict yet: read it to its end first")
    return verdict


def _write(journal: Journal, record: Record, *, new: bool) -> None:
    if new:
        journal.write(record)
    else:
        journal.update(record)


def _open_journal(journal: Journal | str | Path | None | _NotGiven) -> Journal | None:
    from guard.journal.store import Journal as Store  # noqa: PLC0415  # loads SQLAlchemy

    if journal is None or isinstance(journal, Store):
        return journal
    return Store(None if isinstance(journal, _NotGiven) else journal)


def _categories(detectors: Sequence[Detector]) -> list[str]:
    return list(dict.fromkeys(name for detector in detectors for name in detector.categories))


def _problems(security_class: SecurityClass, detectors: Sequence[Detector]) -> list[str]:
    """Return why these parts cannot guard anything, each with its mend."""
    if not detectors:
        return ["no detector: a guard that judges nothing would let everything pass"]
    known = _categories(detectors)
    names = [detector.name for detector in detectors]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems = [f"two detectors are named `{name}`: rename one" for name in twice]
    problems += check_categories(security_class, known)
    return problems
