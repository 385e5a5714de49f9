"""The folder of an audit: plan, answers, labels, judgements, profile, report.

    plan.json       what is asked of whom, fixed before the first question
    answers.jsonl   the answers, as they came in
    labels.jsonl    what a person says of them
    judged.json     what they show
    profile.json    the risk profile
    report.*        for people

Whoever has plan and answers can make all the rest anew. The folder holds what a model said and
what it was asked, canaries and system prompt included: it is made for its owner alone.

This module does not know a terminal, and not what a report looks like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.audit import answers as answering
from guard.audit import labels as labelling
from guard.audit.answers import AnswerFile
from guard.audit.assemble import Assembled, assemble, walk_of
from guard.audit.errors import AuditError
from guard.audit.judged import Judged
from guard.audit.labels import LabelFile
from guard.audit.plan import Plan
from guard.audit.runner import Runner, rejudge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from guard.audit.answers import Answer
    from guard.audit.backends import Backend
    from guard.audit.judging import Judge
    from guard.audit.walk import Walk


class Folder:
    """An audit on disk.

    Args:
        path: the folder.
        plan: what is asked, see `begin`; read from the folder by default.

    Raises:
        AuditError: there is no plan.
    """

    def __init__(self, path: Path, plan: Plan | None = None) -> None:
        """Read the plan."""
        self.path = path
        self.plan = plan or Plan.read(path / "plan.json")
        self.answers = path / "answers.jsonl"
        self.labels = path / "labels.jsonl"
        self.judged = path / "judged.json"
        self.profile = path / "profile.json"

    @classmethod
    def begin(cls, path: Path, plan: Plan) -> Folder:
        """Return the folder of a new audit, or of one with the same plan that is gone on with.

        Raises:
            AuditError: it holds an audit with other settings, or cannot be written.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AuditError(f"`{path}` cannot be made: {error.strerror}") from error
        if not (path / "plan.json").exists():
            plan.write(path / "plan.json")
            return cls(path, plan)
        there = cls(path)
        if differences := there.plan.differences(plan):
            mend = "go on with the same ones, or take another folder (`--out`):"
            raise AuditError(
                "\n  ".join([f"`{path}` holds an audit with other settings; {mend}", *differences])
            )
        return there

    async def ask(
        self,
        backend: Backend,
        judge: Judge,
        *,
        concurrency: int = 8,
        progress: Callable[[Walk], None] = lambda _: None,
    ) -> Assembled:
        """Ask what is still to be asked, and assemble.

        Args:
            backend: whom.
            judge: judges the answers.
            concurrency: questions at a time.
            progress: called whenever an answer was judged.

        Raises:
            BackendError: the backend cannot be asked; what was answered is kept.
        """
        walk, _ = walk_of(self.plan, judge.instruments)
        with AnswerFile(self.answers, self.plan.digest) as file:
            runner = Runner(self.plan, backend, file, judge, walk, progress=lambda: progress(walk))
            await runner.run(concurrency)
            there = file.answers
        return self._assembled(there, self._keep(judge, walk))

    def take(self, recorded: Mapping[str, Answer]) -> None:
        """Keep answers that were recorded elsewhere.

        Raises:
            AuditError: the folder holds other answers to the same questions.
        """
        with AnswerFile(self.answers, self.plan.digest) as file:
            there = file.answers
            if other := [name for name, one in recorded.items() if there.get(name, one) != one]:
                raise AuditError(
                    f"`{self.path}` holds other answers to {len(other)} of these questions, such "
                    f"as `{other[0]}`: take another folder (`--out`)"
                )
            wanted = [probe.id for probe in self.plan.probes if probe.id in recorded]
            file.add(*(recorded[name] for name in wanted if name not in there))

    async def judge_anew(
        self, judge: Judge, progress: Callable[[Walk], None] = lambda _: None
    ) -> Assembled:
        """Judge the answers that are there, and assemble.

        Raises:
            AuditError: there are none, or too few.
        """
        walk, _ = walk_of(self.plan, judge.instruments)
        there = answering.read(self.answers, self.plan.digest)
        await rejudge(self.plan, there, judge, walk, progress=lambda: progress(walk))
        return self._assembled(there, self._keep(judge, walk))

    def assemble(self) -> Assembled:
        """Assemble from what is there, without any detector.

        Raises:
            AuditError: something is missing.
        """
        there = answering.read(self.answers, self.plan.digest)
        return self._assembled(there, Judged.read(self.judged, self.plan.digest))

    def open_labels(self) -> LabelFile:
        """Open the labels to add to them."""
        return LabelFile(self.labels, self.plan.digest)

    def _keep(self, judge: Judge, walk: Walk) -> Judged:
        judged = Judged(
            self.plan.digest,
            judge.detectors,
            judge.instruments,
            {probe: one for probe, one in walk.counted.items() if one is not None},
            judge.experimental,
        )
        judged.write(self.judged)
        return judged

    def _assembled(self, there: Mapping[str, Answer], judged: Judged) -> Assembled:
        labels = labelling.read(self.labels, self.plan.digest)
        return assemble(self.plan, there, judged, labels)
