"""The classifiers as a decision model, for whatever in the framework asks one.

    from guard.adapters.langchain import RiskDecisions
    from langchain_core.decisions import Noul

    risks = RiskDecisions(guard=guard)
    asked = {"bad_advice": Noul(instructions="Is it bad advice?")}
    risks.invoke({"state": answer, "questions": asked}).nouls["bad_advice"].noul

A question is answered by its identifier, which is a category: with the live risk of the text.
The instructions are not read, since a classifier cannot.

This module does not know how a risk comes about.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import ConfigDict, Field

from guard.errors import InputError, MissingExtraError, did_you_mean

try:
    from langchain_core.decisions import BaseDecisionModel, ClassifierResponse, Noul
except ImportError as error:
    missing = MissingExtraError("langchain-core>=1.8", "langchain")
    missing.add_note("An older version is there: pip install --upgrade 'langchain-core>=1.8'")
    raise missing from error

from langchain_core.messages import BaseMessage

from guard.adapters.langchain_messages import exchange_of, message_of
from guard.engine import Guard  # noqa: TC001  # pydantic reads it
from guard.exchange import Choice, Exchange, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.decisions import Question, State

    from guard.verdict import Verdict

ANY: Final = "is_risky"
"""The question whose answer is the highest risk of all categories with a limit."""


class RiskDecisions(BaseDecisionModel):
    """Answers how risky a text, a message or a tool call is.

    Judged is the state: a text; the last of some messages, the others being what came before;
    or an object with `messages` and a `tool_call`, as `AutoModeMiddleware` gives it.

    Attributes:
        guard: judges; what its class acts upon is journalled as any exchange is.
        model: how it is called in traces.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    guard: Guard = Field(exclude=True, repr=False)
    model: str = "clearance"

    @property
    def _provider(self) -> str:
        return "clearance"

    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        self._require_known(questions)
        return self._answers(questions, self.guard.check(_exchange(state)))

    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        self._require_known(questions)
        return self._answers(questions, await self.guard.acheck(_exchange(state)))

    def _answers(self, questions: Mapping[str, Question], verdict: Verdict) -> ClassifierResponse:
        limited = self.guard.security_class.limits
        risks = dict(verdict.risks)
        # Where a detector failed nothing is known, which is no low risk.
        worst = max((risks[name] for name in limited if name in risks), default=0.0)
        risks[ANY] = worst if verdict.coverage.complete else 1.0
        answers = {name: {"type": "noul", "noul": risks[name]} for name in questions}
        return ClassifierResponse.model_validate({"model": self.model, "answers": answers})

    def _require_known(self, questions: Mapping[str, Question]) -> None:
        """Refuse what no classifier answers.

        Raises:
            InputError: a question is no category's, or is not of yes or no.
        """
        deployment = self.guard.session(Exchange(()), stream=False).deployment
        known = [*deployment.categories, ANY]
        for name, question in questions.items():
            if name not in known:
                raise InputError(
                    f"no category is called `{name}`{did_you_mean(name, known)}: a question's "
                    f"identifier must be one of {', '.join(known)}"
                )
            if not isinstance(question, Noul):
                raise InputError(f"`{name}` must be a `Noul`: a risk is the answer to yes or no")


def _exchange(state: Any) -> Exchange:
    """Return a state as an exchange with the text that is asked about as its answer."""
    if isinstance(state, BaseMessage):
        state = [state]
    if isinstance(state, dict) and isinstance(call := state.get("tool_call"), dict):
        said = json.dumps(call.get("args"), ensure_ascii=False, default=str)
        made = ToolCall(str(call.get("name") or ""), said)
        return replace(_asked(state.get("messages")), choices=(Choice(tool_calls=(made,)),))
    if _is_talk(state):
        answer = Choice(content=message_of(state[-1]).content)
        return replace(_asked(state[:-1]), choices=(answer,))
    text = state if isinstance(state, str) else json.dumps(state, ensure_ascii=False, default=str)
    return Exchange((Choice(content=text),))


def _asked(messages: Any) -> Exchange:
    return exchange_of(messages) if _is_talk(messages) else Exchange(())


def _is_talk(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and bool(value)
    return listed and all(isinstance(each, BaseMessage) for each in value)
