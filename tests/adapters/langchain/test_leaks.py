"""The leak matrix of LangChain and LangGraph: every way to read what a model said.

The plain framework runs beside the guarded one as control, so that a way which shows nothing at
all is no proof of anything.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")
pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

from langchain_core.caches import InMemoryCache
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import HumanMessage
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from guard.exchange import Choice, ToolCall
from tests.adapters.langchain.subjects import (
    PROMPT,
    BlockModel,
    Ear,
    Recorder,
    Subject,
    difference,
    normal,
    shown,
)
from tests.adapters.leak_matrix import BLOCKED, Row, check

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

# Events of version 3 are new, and logs are old.
pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning"),
]

ASKED: Final = {"messages": [HumanMessage(PROMPT)]}
QUESTION: Final = {"question": PROMPT}
THREAD: Final = {"configurable": {"thread_id": "1"}}

FINE: Final = "Ferns grow in the shade. Water them in the morning, and they will thank you for it."


def call(tool: str, /, **given: str) -> Choice:
    """Return an answer that calls a tool."""
    return Choice("One moment.", tool_calls=(ToolCall(tool, json.dumps(given), "call_1"),))


def blocks(*said: tuple[str, str]) -> list[dict[str, Any]]:
    """Return an answer made of blocks."""
    return [{"type": kind, kind: text} for kind, text in said]


@dataclass(frozen=True)
class Case:
    """Answers that a model gives one after another, over HTTP or in blocks."""

    over_http: tuple[str | Choice, ...] = ()
    in_blocks: tuple[Any, ...] = ()


TEXT: Final = Case((f"{FINE} They zblock well.",))
REASONING: Final = Case(in_blocks=(blocks(("reasoning", "I zblock here."), ("text", FINE)),))
CALL: Final = Case((call("look_up", query="they zblock well"), FINE))
RESULT: Final = Case((call("read_page", name="bad"), FINE))
REWRITTEN: Final = Case((f"{FINE} They zredact well.",))
REWRITTEN_CALL: Final = Case((call("look_up", query="they zredact well"), FINE))
BENIGN: Final = Case((FINE,))
BENIGN_CALL: Final = Case((call("look_up", query="ferns"), FINE))


@dataclass(frozen=True)
class Way:
    """A way to read what was said.

    Attributes:
        name: how it is called.
        read: reads all that a subject shows in this way.
        note: what is said of benign answers where they are not compared.
    """

    name: str
    read: Callable[[Subject], Awaitable[Any]]
    note: str = "identical"


@dataclass(frozen=True)
class Target:
    """A kind of subject, the answers that it is tried with and the ways to read it."""

    name: str
    blocked: tuple[Case, ...]
    rewritten: tuple[Case, ...]
    benign: tuple[Case, ...]
    ways: dict[str, Way] = field(default_factory=dict)

    def way(self, name: str, note: str = "identical") -> Callable[[Any], Any]:
        """Register a way to read it."""

        def register(read: Callable[[Subject], Awaitable[Any]]) -> Callable[[Subject], Any]:
            self.ways[name] = Way(f"{self.name}: {name}", read, note)
            return read

        return register


MODEL: Final = Target(
    "model", (TEXT, REASONING, CALL), (REWRITTEN, REWRITTEN_CALL), (BENIGN, BENIGN_CALL)
)
AGENT: Final = Target(
    "agent", (TEXT, REASONING, CALL, RESULT), (REWRITTEN, REWRITTEN_CALL), (BENIGN, BENIGN_CALL)
)
CHAIN: Final = Target("chain", (TEXT,), (REWRITTEN,), (BENIGN,))

UNHEARD: Final = "the same text; its steps are not heard"


# Ways to read a model.


@MODEL.way("`invoke`")
async def _invoke(subject: Subject) -> Any:
    return subject.model.invoke(PROMPT)


@MODEL.way("`ainvoke`")
async def _ainvoke(subject: Subject) -> Any:
    return await subject.model.ainvoke(PROMPT)


@MODEL.way("`batch`")
async def _batch(subject: Subject) -> Any:
    return subject.model.batch([PROMPT])


@MODEL.way("`abatch`")
async def _abatch(subject: Subject) -> Any:
    return await subject.model.abatch([PROMPT])


@MODEL.way("`generate`")
async def _generate(subject: Subject) -> Any:
    return subject.model.generate([[HumanMessage(PROMPT)]])


@MODEL.way("`stream`")
async def _stream(subject: Subject) -> Any:
    return list(subject.model.stream(PROMPT))


@MODEL.way("`astream`")
async def _astream(subject: Subject) -> Any:
    return [chunk async for chunk in subject.model.astream(PROMPT)]


@MODEL.way("`astream_log`")
async def _log(subject: Subject) -> Any:
    said = [patch.ops async for patch in subject.model.astream_log(PROMPT)]
    return [op["value"] for ops in said for op in ops if "streamed" in op["path"]]


@MODEL.way("`astream_events`, version 1")
async def _events_1(subject: Subject) -> Any:
    return await events(subject.model, PROMPT, "v1")


@MODEL.way("`astream_events`, version 2")
async def _events_2(subject: Subject) -> Any:
    return await events(subject.model, PROMPT, "v2")


@MODEL.way("`stream_events`, version 3")
async def _events_3(subject: Subject) -> Any:
    return list(subject.model.stream_events(PROMPT, version="v3"))


@MODEL.way("`astream_events`, version 3")
async def _aevents_3(subject: Subject) -> Any:
    stream = await subject.model.astream_events(PROMPT, version="v3")
    return [event async for event in stream]


@MODEL.way("callbacks")
async def _callbacks(subject: Subject) -> Any:
    ear = Ear()
    subject.model.invoke(PROMPT, {"callbacks": [ear]})
    return ear.heard


@MODEL.way("callbacks of a stream")
async def _stream_callbacks(subject: Subject) -> Any:
    ear = Ear()
    list(subject.model.stream(PROMPT, {"callbacks": [ear]}))
    return ear.heard


@MODEL.way("callbacks of an asynchronous stream")
async def _astream_callbacks(subject: Subject) -> Any:
    ear = Ear()
    _ = [chunk async for chunk in subject.model.astream(PROMPT, {"callbacks": [ear]})]
    return ear.heard


@MODEL.way("callbacks of the model that is wrapped")
async def _own_callbacks(subject: Subject) -> Any:
    ear = Ear()
    subject.inner.callbacks = [ear]
    list(subject.model.stream(PROMPT))
    return ear.heard


@MODEL.way("tracer")
async def _tracer(subject: Subject) -> Any:
    recorder = Recorder()
    list(subject.model.stream(PROMPT, {"callbacks": [recorder]}))
    return recorder.heard


@MODEL.way("cache")
async def _cache(subject: Subject) -> Any:
    cache = InMemoryCache()
    subject.inner.cache = cache
    subject.model.invoke(PROMPT)
    return list(cache._cache.values())


@MODEL.way("message history")
async def _history(subject: Subject) -> Any:
    kept = InMemoryChatMessageHistory()
    told = RunnableWithMessageHistory(subject.model, lambda: kept)
    told.invoke([HumanMessage(PROMPT)])
    return kept.messages


# Ways to read an agent.


@AGENT.way("`invoke`")
async def _agent_invoke(subject: Subject) -> Any:
    return subject.agent().invoke(ASKED)


@AGENT.way("`ainvoke`")
async def _agent_ainvoke(subject: Subject) -> Any:
    return await subject.agent().ainvoke(ASKED)


async def _mode(mode: str, subject: Subject) -> Any:
    agent = subject.agent(checkpointer=MemorySaver())
    return list(agent.stream(ASKED, THREAD, stream_mode=mode))


async def _amode(mode: str, subject: Subject) -> Any:
    agent = subject.agent(checkpointer=MemorySaver())
    return [each async for each in agent.astream(ASKED, THREAD, stream_mode=mode)]


PRIVATE: Final = "identical, but for the track record"
PACKED: Final = "the same messages, and the track record"

for _name in ("values", "updates", "messages", "custom", "debug", "tasks", "checkpoints"):
    _note = "identical" if _name in ("messages", "custom") else PRIVATE
    AGENT.way(f"`stream`, mode `{_name}`", _note)(partial(_mode, _name))
    AGENT.way(f"`astream`, mode `{_name}`", _note)(partial(_amode, _name))


@AGENT.way("`stream` of a graph around it, with subgraphs")
async def _subgraphs(subject: Subject) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("agent", subject.agent())
    graph.add_edge(START, "agent")
    graph.add_edge("agent", END)
    compiled: Any = graph.compile()
    return list(compiled.stream(ASKED, stream_mode="messages", subgraphs=True))


@AGENT.way("`astream_events`, version 1", PRIVATE)
async def _agent_events_1(subject: Subject) -> Any:
    return await events(subject.agent(), ASKED, "v1")


@AGENT.way("`astream_events`, version 2", PRIVATE)
async def _agent_events_2(subject: Subject) -> Any:
    return await events(subject.agent(), ASKED, "v2")


@AGENT.way("`stream_events`, version 3", PRIVATE)
async def _agent_events_3(subject: Subject) -> Any:
    return [_data(event) for event in subject.agent().stream_events(ASKED, version="v3")]


@AGENT.way("`astream_events`, version 3", PRIVATE)
async def _agent_aevents_3(subject: Subject) -> Any:
    stream = await subject.agent().astream_events(ASKED, version="v3")
    return [_data(event) async for event in stream]


@AGENT.way("callbacks", PRIVATE)
async def _agent_callbacks(subject: Subject) -> Any:
    ear = Ear()
    list(subject.agent().stream(ASKED, {"callbacks": [ear]}, stream_mode="messages"))
    return ear.heard


@AGENT.way("tracer", PRIVATE)
async def _agent_tracer(subject: Subject) -> Any:
    recorder = Recorder()
    await subject.agent().ainvoke(ASKED, {"callbacks": [recorder]})
    return recorder.heard


@AGENT.way("state")
async def _state(subject: Subject) -> Any:
    agent = subject.agent(checkpointer=MemorySaver())
    agent.invoke(ASKED, THREAD)
    return agent.get_state(THREAD).values["messages"]


@AGENT.way("history of the state")
async def _state_history(subject: Subject) -> Any:
    agent = subject.agent(checkpointer=MemorySaver())
    agent.invoke(ASKED, THREAD)
    return [state.values.get("messages") for state in agent.get_state_history(THREAD)]


@AGENT.way("checkpoints in memory", PACKED)
async def _checkpoints(subject: Subject) -> Any:
    saver = MemorySaver()
    subject.agent(checkpointer=saver).invoke(ASKED, THREAD)
    return [dict(saver.storage), dict(saver.writes), dict(saver.blobs)]


@AGENT.way("checkpoints in SQLite", PACKED)
async def _sqlite(subject: Subject) -> Any:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite", reason="its extra is not installed")
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        subject.agent(checkpointer=sqlite.SqliteSaver(connection)).invoke(ASKED, THREAD)
        rows = [connection.execute(f"SELECT * FROM {name}") for name in ("checkpoints", "writes")]
        return [cursor.fetchall() for cursor in rows]


# Ways to read a chain.


@CHAIN.way("`invoke`")
async def _chain_invoke(subject: Subject) -> Any:
    return subject.chain.invoke(QUESTION)


@CHAIN.way("`ainvoke`")
async def _chain_ainvoke(subject: Subject) -> Any:
    return await subject.chain.ainvoke(QUESTION)


@CHAIN.way("`batch`")
async def _chain_batch(subject: Subject) -> Any:
    return subject.chain.batch([QUESTION])


@CHAIN.way("`stream`")
async def _chain_stream(subject: Subject) -> Any:
    return "".join(subject.chain.stream(QUESTION))


@CHAIN.way("`astream`")
async def _chain_astream(subject: Subject) -> Any:
    return "".join([piece async for piece in subject.chain.astream(QUESTION)])


@CHAIN.way("`astream_events`, version 1", UNHEARD)
async def _chain_events_1(subject: Subject) -> Any:
    return await events(subject.chain, QUESTION, "v1")


@CHAIN.way("`astream_events`, version 2", UNHEARD)
async def _chain_events_2(subject: Subject) -> Any:
    return await events(subject.chain, QUESTION, "v2")


@CHAIN.way("callbacks", UNHEARD)
async def _chain_callbacks(subject: Subject) -> Any:
    ear = Ear()
    list(subject.chain.stream(QUESTION, {"callbacks": [ear]}))
    return ear.heard


@CHAIN.way("tracer", UNHEARD)
async def _chain_tracer(subject: Subject) -> Any:
    recorder = Recorder()
    await subject.chain.ainvoke(QUESTION, {"callbacks": [recorder]})
    return recorder.heard


@CHAIN.way("message history")
async def _chain_history(subject: Subject) -> Any:
    kept = InMemoryChatMessageHistory()
    keys: Any = {"input_messages_key": "question", "history_messages_key": "history"}
    told = RunnableWithMessageHistory(subject.chain, lambda: kept, **keys)
    told.invoke(QUESTION)
    return kept.messages


async def events(runnable: Any, asked: Any, version: str) -> list[Any]:
    """Return all events of a run."""
    return [
        (event["event"], event["data"])
        async for event in runnable.astream_events(asked, version=version)
    ]


def _data(event: Any) -> Any:
    return (event.get("method"), event.get("params", {}).get("data"))


WAYS: Final = [(target, way) for target in (MODEL, AGENT, CHAIN) for way in target.ways.values()]


class Lab:
    """Measures ways, each once."""

    def __init__(self, backend: ScriptedApp, guard: Guard, new_chat: Callable[..., Any]) -> None:
        """Measure nothing yet."""
        self._backend = backend
        self._guard = guard
        self._new_chat = new_chat

    async def measure(self, target: Target, way: Way) -> Row:
        """Return what a way shows."""
        plain, guarded = partial(self._read, None, way), partial(self._read, self._guard, way)
        benign = ""
        for case in target.benign:
            one, other = normal(await plain(case)), normal(await guarded(case))
            if way.note not in (UNHEARD, PACKED):
                benign = benign or difference(one, other)
        unguarded = ""
        for case in target.blocked:
            unguarded = unguarded if BLOCKED in unguarded else shown(await plain(case))
        return Row(
            way.name,
            unguarded,
            "".join([shown(await guarded(case)) for case in target.blocked]),
            "".join([shown(await guarded(case)) for case in target.rewritten]),
            benign,
            way.note,
        )

    async def _read(self, guard: Guard | None, way: Way, case: Case) -> Any:
        self._backend.reset()
        if case.in_blocks:
            return await way.read(Subject(BlockModel(answers=list(case.in_blocks)), guard))
        self._backend.script(PROMPT, *case.over_http)
        return await way.read(Subject(self._new_chat(), guard))


@pytest.fixture
def lab(backend: ScriptedApp, guard: Guard, new_chat: Callable[..., Any]) -> Lab:
    """Return what measures ways."""
    return Lab(backend, guard, new_chat)


@pytest.fixture(scope="module")
def measured() -> dict[str, Row]:
    """Return the rows that were measured by now."""
    return {}


@pytest.mark.parametrize(("target", "way"), WAYS, ids=[way.name for _, way in WAYS])
async def test_nothing_leaks(target: Target, way: Way, lab: Lab, measured: dict[str, Row]) -> None:
    """What is blocked is read nowhere, what is rewritten only so, and all else as it is."""
    measured[way.name] = await lab.measure(target, way)
    assert measured[way.name].leaks == []


async def test_the_page_is_current(lab: Lab, measured: dict[str, Row]) -> None:
    """The published table is what is measured."""
    for target, way in WAYS:
        if way.name not in measured:
            measured[way.name] = await lab.measure(target, way)
    note = (
        "A chat model in the place of `ChatOpenAI`, `create_agent` with `GuardMiddleware`, and a "
        "chain in `GuardRunnable`. The track record is the middleware's entry in the state."
    )
    check("LangChain and LangGraph", note, [measured[way.name] for _, way in WAYS])
