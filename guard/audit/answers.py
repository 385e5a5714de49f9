"""The answers of an audit, kept so that a kill at any moment loses none that was complete.

A file of JSON lines (`guard.audit.lines`): a header that names the plan it belongs to, then a
line per probe with the whole conversation. The order of the lines says nothing: answers come in
as the backend gives them.

This module does not know who asks or what an answer shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guard.audit.errors import AuditError
from guard.audit.lines import LineFile
from guard.exchange import Choice, Message, Role, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

FORMAT: Final = "clearance-audit-answers/1"

CUT_OFF: Final = "length"
"""`Said.finish` of an answer that ended at the limit of tokens."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        content: the text.
        name: the tool's, for what a tool gave back.
        call: the call that it answers.
        reasoning: what the model thought, where the backend tells.
        refusal: what it declined with, where the backend tells refusals apart.
        tool_calls: what the model wants to be done.
        finish: why the model stopped, in the backend's word; `length` for a limit of tokens.
    """

    role: Role
    content: str = ""
    name: str = ""
    call: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = ""

    @property
    def silent(self) -> bool:
        """Whether it gives nothing to whoever asked; what a model only thinks stays inside."""
        return not (self.content.strip() or self.refusal.strip() or self.tool_calls)

    @property
    def message(self) -> Message:
        """What later answers have before them."""
        return Message(self.role, self.content or self.refusal, self.name)

    @property
    def choice(self) -> Choice:
        """What the model said, with every channel."""
        return Choice(self.content, self.reasoning, self.refusal, self.tool_calls)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON-able values, without what is empty."""
        found = {name: getattr(self, name) for name in self.__slots__}
        found["tool_calls"] = [
            {"name": call.name, "arguments": call.arguments, "id": call.id}
            for call in self.tool_calls
        ]
        return {name: value for name, value in found.items() if value}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Return what `plain` gave."""
        calls = tuple(ToolCall(**call) for call in data.get("tool_calls", ()))
        return cls(**{**data, "tool_calls": calls})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one probe.

    Attributes:
        probe: its id.
        said: the conversation, the system prompt left out; empty where there was no answer.
        failure: why there is no answer, `""` where there is one.
    """

    probe: str
    said: tuple[Said, ...] = ()
    failure: str = ""

    @property
    def replies(self) -> tuple[Said, ...]:
        """What the model said, in order."""
        return tuple(said for said in self.said if said.role == "assistant")

    @property
    def silent(self) -> bool:
        """Whether the model gave nothing at all to whoever asked."""
        return not self.failure and all(reply.silent for reply in self.replies)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        if self.failure:
            return {"probe": self.probe, "failure": self.failure}
        return {"probe": self.probe, "said": [said.plain() for said in self.said]}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Return what `plain` gave."""
        said = tuple(Said.of(item) for item in data.get("said", ()))
        return cls(data["probe"], said, data.get("failure", ""))


class AnswerFile:
    """A file of answers that one process at a time may add to; safe to share between threads.

    A probe that was asked twice counts by its last line.

    Args:
        path: is made where it is missing, for its owner alone.
        plan: digest of the plan that the answers belong to.

    Raises:
        AuditError: it belongs to another plan, another process adds to it, or it is damaged.
    """

    def __init__(self, path: Path, plan: str) -> None:
        """Open the file and read what is there."""
        self._file = LineFile(path, {"format": FORMAT, "plan": plan})
        self._answers: dict[str, Answer] = {}
        for number, row in enumerate(self._file.rows, start=2):
            try:
                answer = Answer.of(row)
                self._answers[answer.probe] = answer
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._file.__exit__()
                raise self._file.damaged(number, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    @property
    def answers(self) -> Mapping[str, Answer]:
        """What is there by now, by the probe's id."""
        return dict(self._answers)

    def add(self, *answers: Answer) -> None:
        """Keep answers; they are on the disk when this returns.

        Raises:
            AuditError: they cannot be written; then none of them is there.
        """
        self._file.add(*(answer.plain() for answer in answers))
        self._answers.update({answer.probe: answer for answer in answers})


def read(path: Path, plan: str) -> Mapping[str, Answer]:
    """Return the answers of a plan that is not under way.

    Raises:
        AuditError: see `AnswerFile`; or there are none.
    """
    if not path.exists():
        raise AuditError(f"`{path}` is missing: nothing was asked yet")
    with AnswerFile(path, plan) as file:
        return file.answers
