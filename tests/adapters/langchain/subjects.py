"""What the tests of LangChain's adapter talk to, and what they hear of it.

- `Subject`: a model, an agent or a chain, plain or guarded, built alike.
- `BlockModel`: a model that answers in blocks, with reasoning, which `ChatOpenAI` drops.
- `Ear`, `Recorder`: a callback handler and a tracer that remember all that they are told.

This module does not know how an answer is judged.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from langgraph.config import get_stream_writer
from langgraph.types import Command

from guard.adapters.langchain import GuardMiddleware, GuardRunnable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_core.messages import BaseMessage
    from langchain_core.tracers.schemas import Run

    from guard.engine import Guard

PROMPT: Final = "What grows in the shade?"


@tool
def look_up(query: str) -> str:
    """Look something up."""
    get_stream_writer()(query)
    return f"Found: {query}"


@tool
def read_page(name: str) -> str:
    """Read a page; some pages hold what nobody should read."""
    return {"fern": "Ferns like the shade.", "bad": "Ferns zblock shade."}.get(name, "Nothing.")


class BlockModel(BaseChatModel):
    """Gives answers made of blocks, one after another; the last one repeats.

    Attributes:
        answers: each a list of content blocks in the framework's own form.
        asked: what it was asked, call by call.
    """

    answers: list[Any]
    asked: list[Any] = []  # noqa: RUF012  # pydantic copies it

    @property
    def _llm_type(self) -> str:
        return "blocks"

    def _next(self, messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
        self.asked.append(list(messages))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [dict(block) for block in answer]

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Bind tools, which it does not look at."""
        return self.bind(tools=[str(each) for each in tools], **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        del stop, run_manager, kwargs
        blocks = self._next(messages)
        calls = [block for block in blocks if block["type"] == "tool_call"]
        content: list[Any] = [block for block in blocks if block["type"] != "tool_call"]
        message = AIMessage(content=content, tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        del stop, run_manager, kwargs
        for index, block in enumerate(self._next(messages)):
            for chunk in _chunks(block, index):
                yield ChatGenerationChunk(message=chunk)


def _chunks(block: dict[str, Any], index: int) -> Iterator[AIMessageChunk]:
    if block["type"] == "tool_call":
        call: Any = {"name": block["name"], "id": block["id"], "index": index}
        given = json.dumps(block["args"])
        yield AIMessageChunk(content="", tool_call_chunks=[call | {"args": ""}])
        for piece in re.findall(r"\s*\S{1,6}|\s+$", given):
            part: Any = {"name": None, "id": None, "index": index, "args": piece}
            yield AIMessageChunk(content="", tool_call_chunks=[part])
        return
    for piece in re.findall(r"\s*\S{1,6}|\s+$", block[block["type"]]):
        said = {"type": block["type"], block["type"]: piece, "index": index}
        yield AIMessageChunk(content=[said])


_TOLD: Final = ("chunk", "outputs", "response")
"""What callbacks are told by name of what was said."""


@dataclass(eq=False)
class Ear(BaseCallbackHandler):
    """Remembers everything that callbacks are told but what the model is asked."""

    heard: list[Any] = field(default_factory=list)

    def _hear(self, *said: Any, **more: Any) -> None:
        self.heard += [said, {key: more[key] for key in _TOLD if key in more}]

    on_llm_new_token = on_llm_end = on_llm_error = _hear
    on_chain_end = on_chain_error = on_agent_action = on_agent_finish = _hear
    on_tool_end = on_tool_error = on_text = on_custom_event = _hear

    def on_tool_start(self, serialized: Any, input_str: str, **more: Any) -> None:
        """Remember what a tool is given."""
        self.heard += [serialized, input_str, more.get("inputs")]


class Recorder(BaseTracer):
    """A tracer that keeps what it would send."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)

    @property
    def heard(self) -> list[Any]:
        """Everything that it would send."""
        return [_sent(run) for run in self.runs]


def _sent(run: Run) -> list[Any]:
    said = [run.run_type, run.inputs, run.outputs, run.error]
    events = [event.get("kwargs") for event in run.events if event["name"] == "new_token"]
    return [*said, events, [_sent(child) for child in run.child_runs]]


@dataclass
class Subject:
    """What is asked: built from one model, plain (`guard` is `None`) or guarded."""

    inner: BaseChatModel
    guard: Guard | None

    @property
    def model(self) -> BaseChatModel:
        """The model."""
        return self.inner if self.guard is None else self.guard.wrap(self.inner)

    @property
    def chain(self) -> Any:
        """A chain that gives text."""
        prompt = ChatPromptTemplate.from_messages(
            [("placeholder", "{history}"), ("human", "{question}")]
        )
        chain = prompt | self.inner | StrOutputParser()
        return chain if self.guard is None else GuardRunnable(self.guard, chain)

    def agent(self, **options: Any) -> Any:
        """Return an agent with two tools."""
        middleware = [] if self.guard is None else [GuardMiddleware(self.guard)]
        return create_agent(self.inner, [look_up, read_page], middleware=middleware, **options)


_VARYING: Final = (
    (r"GuardedChatModel|ChatOpenAI", "Model"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\b[0-9a-f]{32}\b", "UUID"),
    (r"\d{4}-\d\d-\d\dT[\d:.+]+", "TIME"),
    (r"datetime\.datetime\([^)]*\)", "TIME"),
    (r"\d\.\d{16,}", "NUMBER"),
    (r" at 0x[0-9a-f]+", ""),
)


def shown(read: Any) -> str:
    """Return everything that was read as text."""
    return repr(read)


def normal(read: Any) -> str:
    """Return what was read without what differs from run to run."""
    text = shown(_without_record(read))
    for pattern, name in _VARYING:
        text = re.sub(pattern, name, text)
    return text


def _without_record(read: Any) -> Any:
    """Return what was read without the middleware's track record."""
    if isinstance(read, dict):
        kept = {key: inner for key, inner in read.items() if key != "guard_record"}
        return {key: _without_record(inner) for key, inner in kept.items()}
    if isinstance(read, list | tuple):
        return [_without_record(inner) for inner in read if not _is_record(inner)]
    return read


def _is_record(read: Any) -> bool:
    return read == "guard_record" or (
        isinstance(read, Command) and list(read.update or ()) == ["guard_record"]
    )


def difference(one: str, other: str) -> str:
    """Return where two texts part, `""` where they are the same."""
    if one == other:
        return ""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return f"…{one[max(0, at - 60) : at + 60]}… / …{other[max(0, at - 60) : at + 60]}…"
