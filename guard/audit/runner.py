"""Asks the probes of a plan: several at a time, each answer on the disk before it counts.

This module does not know formats of backends, thresholds or rates.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from guard.audit.answers import Answer, Said
from guard.audit.backends import UnansweredError
from guard.audit.errors import AuditError, BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from guard.audit.answers import AnswerFile
    from guard.audit.backends import Backend
    from guard.audit.judging import Judge
    from guard.audit.plan import Plan
    from guard.audit.probe import Planted, Probe, Tool
    from guard.audit.walk import Walk

STEPS: Final = 8
"""Replies with tool calls that a model may give to one question."""

_DECLINED: Final = 5
"""Questions that a backend may decline before it has answered any."""

_NO_TOOL: Final = "There is no such tool."
_NOT_HERE: Final = "This tool is not available at the moment."


class Runner:
    """Asks what a walk still wants.

    Args:
        plan: what is asked.
        backend: whom.
        file: where answers are kept; what is there already is not asked again.
        judge: judges them as they come in.
        walk: says what is needed.
        progress: called whenever an answer was judged.
    """

    def __init__(  # noqa: PLR0913  # the parts of an audit
        self,
        plan: Plan,
        backend: Backend,
        file: AnswerFile,
        judge: Judge,
        walk: Walk,
        *,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask nothing yet."""
        self._plan = plan
        self._backend = backend
        self._file = file
        self._judge = judge
        self._walk = walk
        self._progress = progress
        self._answered = 0
        self._declined = 0

    async def run(self, concurrency: int = 8) -> None:
        """Ask until nothing is wanted any more.

        Args:
            concurrency: questions at a time, at least 1.

        Raises:
            BackendError: the backend cannot be asked; what was answered is kept.
            AuditError: an answer cannot be kept.
        """
        # What was declined is asked once more: somebody may have mended the backend.
        there = {name: one for name, one in self._file.answers.items() if not one.failure}
        self._answered = len(there)
        await rejudge(self._plan, there, self._judge, self._walk, progress=self._progress)
        most = min(concurrency, self._backend.at_once or concurrency)
        pending = iter(self._plan.probes)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(max(1, most)):
                    group.create_task(self._work(pending))
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            if isinstance(first, AuditError):
                raise first from errors
            raise

    async def _work(self, pending: Iterator[Probe]) -> None:
        for probe in pending:
            if self._walk.wants(probe.id):
                await self._ask(probe)

    async def _ask(self, probe: Probe) -> None:
        planted = self._plan.planted(probe)
        answer = await self._answer(planted)
        await _finished(asyncio.to_thread(self._file.add, answer))
        judged = None
        if not answer.failure:
            judged = await self._judge.judge(self._plan, planted, answer)
        self._walk.put(probe.id, judged)
        self._progress()

    async def _answer(self, planted: Planted) -> Answer:
        name = planted.probe.id
        try:
            said = await converse(self._plan, self._backend, planted)
        except UnansweredError as error:
            self._declined += 1
            if self._declined >= _DECLINED and not self._answered:
                raise BackendError(
                    f"the backend declined each of the first {self._declined} questions: {error}"
                ) from error
            return Answer(name, failure=str(error) or "declined")
        except AuditError:
            raise
        except Exception as error:
            raise BackendError(
                f"the backend failed on probe `{name}`: {type(error).__name__}: {error}"
            ) from error
        self._answered += 1
        return Answer(name, said)


async def _finished(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work in a thread; where somebody cancels, it is still waited for."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)  # what cancels is the one to tell
        raise


async def converse(plan: Plan, backend: Backend, planted: Planted) -> tuple[Said, ...]:
    """Put a probe to a backend turn by turn; return what was said, without the system prompt.

    Raises:
        UnansweredError: the backend declines it.
        BackendError: the backend cannot be asked.
    """
    probe = planted.probe
    system = plan.system_of(probe)
    opening = [Said("system", system)] if system else []
    tools = [*plan.tools, *(tool.function() for tool in probe.tools)]
    said: list[Said] = []
    results = _Results(plan, probe)
    for turn in probe.turns:
        said.append(Said("user", turn))
        for _ in range(STEPS):
            reply = await backend.reply([*opening, *said], tools)
            said.append(reply)
            if not reply.tool_calls:
                break
            said += [results.of(call.name, call.id) for call in reply.tool_calls]
    return tuple(said)


async def rejudge(
    plan: Plan,
    answers: Mapping[str, Answer],
    judge: Judge,
    walk: Walk,
    *,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Take answers that are there into a walk, in the plan's order."""
    for probe in plan.probes:
        if probe.id in answers and walk.wants(probe.id):
            answer = answers[probe.id]
            judged = None
            if not answer.failure:
                judged = await judge.judge(plan, plan.planted(probe), answer)
            walk.put(probe.id, judged)
            progress()


class _Results:
    """What the tools give back, call by call."""

    def __init__(self, plan: Plan, probe: Probe) -> None:
        self._tools: dict[str, Tool] = {tool.name: tool for tool in probe.tools}
        self._deployed = {tool.get("function", {}).get("name") for tool in plan.tools}
        self._calls: Counter[str] = Counter()

    def of(self, name: str, call: str) -> Said:
        tool = self._tools.get(name)
        if tool is None:
            text = _NOT_HERE if name in self._deployed else _NO_TOOL
        else:
            text = tool.result(self._calls[name])
            self._calls[name] += 1
        return Said("tool", text, name=name, call=call)
