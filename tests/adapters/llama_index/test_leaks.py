"""The leak matrix of LlamaIndex: every way to read what a model said, beside the plain LLM."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher

from tests.adapters.leak_lab import PROMPT, Answers, Lab, Way
from tests.adapters.leak_matrix import Row, check
from tests.adapters.llama_index.scripted import ScriptedLLM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.engine import Guard

# The framework reads old attributes of pydantic's, and its memories leave databases open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*aiosqlite:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ASKED = [ChatMessage(role="user", content=PROMPT)]


def build(answers: Answers, guard: Guard | None) -> Any:
    """Return an LLM, plain or guarded."""
    llm = ScriptedLLM(answers=list(answers))
    return llm if guard is None else guard.wrap(llm)


LAB = Lab("LlamaIndex", build)

NOTE = "An LLM in the place of another, alone, in a chat engine and in a `FunctionAgent`."


class Ear(BaseCallbackHandler):
    """A callback handler that remembers what an LLM gave."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        super().__init__([], [])
        self.heard: list[Any] = []

    def on_event_start(self, *args: Any, **kwargs: Any) -> str:
        """Hear nothing: it is what is asked."""
        del args, kwargs
        return ""

    def on_event_end(self, event_type: Any, payload: Any = None, *_: Any, **__: Any) -> None:
        """Remember what was given."""
        known = {k: v for k, v in (payload or {}).items() if k in ("response", "completion")}
        self.heard.append((event_type, known))

    def start_trace(self, trace_id: str | None = None) -> None:
        """Hear nothing."""

    def end_trace(self, *args: Any, **kwargs: Any) -> None:
        """Hear nothing."""


class Events(BaseEventHandler):
    """Remembers events."""

    heard: list[Any] = []  # noqa: RUF012  # pydantic copies it

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Remember what an event says of answers."""
        del kwargs
        name = type(event).__name__
        self.heard.append((name, getattr(event, "response", None)))


class Spans(SimpleSpanHandler):
    """Remembers what spans end with."""

    heard: list[Any] = []  # noqa: RUF012  # pydantic copies it

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> Any:
        """Remember the result."""
        result = kwargs.get("result")
        self.heard.append(result if not hasattr(result, "__next__") else None)
        return super().prepare_to_exit_span(*args, **kwargs)


@contextmanager
def instrumented(handler: Any) -> Iterator[list[Any]]:
    """Let a handler hear of everything."""
    root = get_dispatcher()
    handlers = root.span_handlers if isinstance(handler, Spans) else root.event_handlers
    handlers.append(handler)
    try:
        yield handler.heard
    finally:
        handlers.remove(handler)


def look_up(query: str) -> str:
    """Look something up."""
    return f"Found: {query}"


@LAB.way("`chat`")
async def _chat(llm: Any) -> Any:
    return llm.chat(ASKED)


@LAB.way("`achat`")
async def _achat(llm: Any) -> Any:
    return await llm.achat(ASKED)


@LAB.way("`stream_chat`")
async def _stream_chat(llm: Any) -> Any:
    return list(llm.stream_chat(ASKED))


@LAB.way("`astream_chat`")
async def _astream_chat(llm: Any) -> Any:
    return [each async for each in await llm.astream_chat(ASKED)]


@LAB.way("`complete`", "text")
async def _complete(llm: Any) -> Any:
    return llm.complete(PROMPT), await llm.acomplete(PROMPT)


@LAB.way("`stream_complete`", "text")
async def _stream_complete(llm: Any) -> Any:
    heard = list(llm.stream_complete(PROMPT))
    return heard, [each async for each in await llm.astream_complete(PROMPT)]


@LAB.way("`predict`, `stream`", "text")
async def _predict(llm: Any) -> Any:
    return llm.predict(PromptTemplate(PROMPT)), list(llm.stream(PromptTemplate(PROMPT)))


@LAB.way("callbacks")
async def _callbacks(llm: Any) -> Any:
    ear = Ear()
    llm.callback_manager = CallbackManager([ear])
    llm.chat(ASKED)
    list(llm.stream_chat(ASKED))
    return ear.heard


@LAB.way("callbacks of the LLM that is wrapped")
async def _own_callbacks(llm: Any) -> Any:
    ear = Ear()
    llm.callback_manager.add_handler(ear)
    llm.chat(ASKED)
    await llm.achat(ASKED)
    list(llm.stream_chat(ASKED))
    return ear.heard


@LAB.way("events of the instrumentation")
async def _events(llm: Any) -> Any:
    with instrumented(Events()) as heard:
        llm.chat(ASKED)
        list(llm.stream_chat(ASKED))
    return heard


@LAB.way("spans of the instrumentation")
async def _spans(llm: Any) -> Any:
    with instrumented(Spans()) as heard:
        llm.chat(ASKED)
        await llm.achat(ASKED)
    return [each for each in heard if each is not None]


@LAB.way("chat engine, answer and memory", "text")
async def _engine(llm: Any) -> Any:
    engine = SimpleChatEngine.from_defaults(llm=llm)
    return str(engine.chat(PROMPT)), engine.chat_history


@LAB.way("`FunctionAgent`, events and answer")
async def _agent(llm: Any) -> Any:
    tools = [FunctionTool.from_defaults(look_up)]
    handler = FunctionAgent(llm=llm, tools=tools).run(PROMPT)
    heard: list[Any] = [event.model_dump() for event in await _listed(handler)]
    said = [{k: e.get(k) for k in ("delta", "response", "tool_kwargs")} for e in heard]
    return said, str(await handler)


async def _listed(handler: Any) -> list[Any]:
    return [event async for event in handler.stream_events()]


@pytest.fixture(scope="module")
def measured() -> dict[str, Row]:
    """Return the rows that were measured by now."""
    return {}


@pytest.mark.parametrize("way", LAB.ways, ids=lambda way: way.name)
async def test_nothing_leaks(
    way: Way, make_guard: Callable[..., Guard], measured: dict[str, Row]
) -> None:
    """What is blocked is read nowhere, what is rewritten only so, and all else as it is."""
    measured[way.name] = await LAB.measure(way, make_guard())
    assert measured[way.name].leaks == []


async def test_the_page_is_current(
    make_guard: Callable[..., Guard], measured: dict[str, Row]
) -> None:
    """The published table is what is measured."""
    for way in LAB.ways:
        if way.name not in measured:
            measured[way.name] = await LAB.measure(way, make_guard())
    check(LAB.title, NOTE, [measured[way.name] for way in LAB.ways])
