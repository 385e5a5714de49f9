"""What tools say by other ways than a result: failures, and commands with messages in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ToolRetryMiddleware
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.types import Command, Send, interrupt

from guard.adapters.langchain import GuardMiddleware
from guard.adapters.langchain_tools import ToolRun
from guard.errors import InputError
from tests.adapters.langchain.subjects import BlockModel, Ear, Recorder

if TYPE_CHECKING:
    from guard.engine import Guard

BAD = "Ferns zblock shade."
ASKED: Any = {"messages": [HumanMessage("Go.")]}
THREAD: Any = {"configurable": {"thread_id": "garden"}}


def calling(name: str) -> BlockModel:
    """Return a model that calls a tool once."""
    call = {"type": "tool_call", "name": name, "args": {}, "id": "call_0"}
    return BlockModel(answers=[[call], [{"type": "text", "text": "Done."}]])


def failing(error: Exception) -> Any:
    """Return a tool that fails."""

    @tool
    def fail() -> str:
        """Fail."""
        raise error

    return fail


async def events(agent: Any, how: str, *heard: Any) -> list[Any]:
    """Run an agent; return all that it streams."""
    config: Any = THREAD | {"callbacks": list(heard)}
    modes: Any = ["updates", "messages", "values"]
    if how == "sync":
        return list(agent.stream(ASKED, config, stream_mode=modes))
    return [each async for each in agent.astream(ASKED, config, stream_mode=modes)]


how = pytest.mark.parametrize("how", ["sync", "async"])


def quoting(text: str) -> Exception:
    """Return an error that says nothing, raised from one that quotes a text."""
    error = RuntimeError("it did not work")
    error.__cause__ = ValueError(text)
    return error


class RefusedError(Exception):
    """What a client raises for a status, with its response."""

    def __init__(self, said: str) -> None:
        """Keep a response."""
        super().__init__(said)
        self.response = type("Response", (), {"status_code": 404})()


class TestFailures:
    """Errors of tools."""

    @how
    @pytest.mark.parametrize(
        "error",
        [ValueError(BAD), quoting(BAD), RefusedError(BAD), ExceptionGroup("x", [OSError(BAD)])],
    )
    async def test_one_that_another_middleware_makes_a_result_of(
        self, how: str, error: Exception, guard: Guard
    ) -> None:
        """The model reads the class's message, and nobody is told of the error."""
        retry = ToolRetryMiddleware(max_retries=0, on_failure="continue")
        model, ear, recorder = calling("fail"), Ear(), Recorder()
        agent: Any = create_agent(
            model, [failing(error)], middleware=[retry, GuardMiddleware(guard)]
        )
        seen = await events(agent, how, ear, recorder)
        assert "[blocked]" in repr(model.asked)
        assert "zblock" not in repr([seen, model.asked, ear.heard, recorder.heard])

    @how
    @pytest.mark.parametrize("error", [ValueError(BAD), ToolException(BAD)])
    async def test_one_that_stops_the_agent(self, how: str, error: Exception, guard: Guard) -> None:
        """It fails all the same, with the class's message; what a tool means to say goes on."""
        agent: Any = create_agent(
            calling("fail"), [failing(error)], middleware=[GuardMiddleware(guard)]
        )
        if isinstance(error, ToolException):
            assert "[blocked]" in repr(await events(agent, how))
            return
        with pytest.raises(ToolException, match=r"\[blocked\]") as caught:
            await events(agent, how)
        assert caught.value.__context__ is None
        assert caught.value.__cause__ is None

    @how
    async def test_a_harmless_one_stands(self, how: str, guard: Guard) -> None:
        """With its type and what it holds."""
        error = RefusedError("Nothing.")
        agent: Any = create_agent(
            calling("fail"), [failing(error)], middleware=[GuardMiddleware(guard)]
        )
        with pytest.raises(RefusedError) as caught:
            await events(agent, how)
        assert caught.value is error
        assert error.response is not None

    @how
    async def test_one_of_another_middleware(self, how: str, guard: Guard) -> None:
        """No tool was called."""

        class Fails(AgentMiddleware[Any, Any, Any]):
            def wrap_tool_call(self, request: Any, handler: Any) -> Any:
                del request, handler
                raise ValueError(BAD)

            async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
                del request, handler
                raise ValueError(BAD)

        agent: Any = create_agent(
            calling("fail"), [failing(OSError())], middleware=[GuardMiddleware(guard), Fails()]
        )
        with pytest.raises(ToolException, match=r"\[blocked\]"):
            await events(agent, how)

    @how
    async def test_a_halt_is_no_failure(self, how: str, guard: Guard) -> None:
        """A tool may ask a human."""

        @tool
        def ask() -> str:
            """Ask somebody."""
            return str(interrupt("zblock?"))

        agent: Any = create_agent(
            calling("ask"),
            [ask],
            middleware=[GuardMiddleware(guard)],
            checkpointer=MemorySaver(),
        )
        await events(agent, how)
        assert agent.invoke(Command(resume="Yes."), THREAD)["messages"][-1].text == "Done."


def updates(said: str) -> dict[str, Any]:
    """Return commands that say a text, by how."""
    answer = ToolMessage("Fine.", tool_call_id="call_0")
    call: Any = {"name": "go", "args": {"where": said}, "id": "call_9"}
    return {
        "dict": {"messages": [{"role": "tool", "content": said, "tool_call_id": "call_0"}]},
        "tuple": {"messages": (ToolMessage(said, tool_call_id="call_0"),)},
        "human": {"messages": [answer, HumanMessage(said)]},
        "human as a pair": {"messages": [answer, ("user", said)]},
        "model": {"messages": [answer, AIMessage("", tool_calls=[call])]},
        "pairs": (("messages", [answer, HumanMessage(said)]),),
    }


class TestCommands:
    """What tools would have in the state."""

    @how
    @pytest.mark.parametrize("kind", list(updates("")))
    async def test_messages_of_any_form(self, how: str, kind: str, guard: Guard) -> None:
        """Each is judged, in the state and in every stream, and stays what it is."""

        @tool
        def order() -> Any:
            """Command."""
            return Command(update=updates(BAD)[kind])

        model, ear = calling("order"), Ear()
        agent: Any = create_agent(model, [order], middleware=[GuardMiddleware(guard)])
        seen = await events(agent, how, ear)
        assert "zblock" not in repr([seen, model.asked, ear.heard])
        assert "[blocked]" in repr(seen)

    @pytest.mark.parametrize("kind", list(updates("")))
    def test_harmless_ones_stay(self, kind: str, guard: Guard) -> None:
        """With all that they hold."""
        run = ToolRun(_request(), ())
        given: Any = updates("Moss.")[kind]
        mended = _mended(
            guard, run, Command(update=given | {"more": BAD} if kind == "dict" else given)
        )
        assert "Moss." in repr(mended)
        assert "blocked" not in repr(mended)
        assert isinstance(mended.update, dict | tuple)

    def test_a_state_that_is_messages(self, guard: Guard) -> None:
        """A list is the messages themselves."""
        command: Command[Any] = Command(update=[HumanMessage(BAD, id="1"), RemoveMessage(id="2")])
        mended = _mended(guard, ToolRun(_request(), ()), command)
        assert [type(each) for each in mended.update] == [HumanMessage, RemoveMessage]
        assert (mended.update[0].content, mended.update[0].id) == ("[blocked]", "1")
        assert mended.update[0].response_metadata["guard"]["action"] == "block"

    def test_messages_that_a_node_is_sent(self, guard: Guard) -> None:
        """They enter the graph beside the state."""
        goto: Any = [Send("model", {"messages": [("user", BAD)]}), Send("other", 1), "end"]
        mended = _mended(guard, ToolRun(_request(), ()), Command(goto=goto))
        assert mended.goto[0].arg["messages"][0].content == "[blocked]"
        assert mended.goto[1:] == goto[1:]
        assert goto[0].arg == {"messages": [("user", BAD)]}
        assert _mended(guard, ToolRun(_request(), ()), Command(goto="end")) == Command(goto="end")

    def test_a_list_of_all_kinds(self, guard: Guard) -> None:
        """What stands beside a message is judged as well."""
        given = [ToolMessage("Fine.", tool_call_id="call_0"), BAD, Command()]
        mended = _mended(guard, ToolRun(_request(), ()), given)
        assert mended[0] is given[0]
        assert mended[1].content == "[blocked]"

    def test_messages_that_nobody_can_read(self, guard: Guard) -> None:
        """The error does not quote them."""
        command: Command[Any] = Command(update={"messages": [{"zblock": BAD}]})
        with pytest.raises(InputError, match="cannot be read") as caught:
            _mended(guard, ToolRun(_request(), ()), command)
        assert caught.value.__context__ is None


def _request() -> Any:
    """Return what the framework says of a call."""
    call = {"name": "order", "args": {}, "id": "call_0"}
    return type("Request", (), {"tool_call": call, "state": {}, "tool": None})()


def _mended(guard: Guard, run: ToolRun, result: Any) -> Any:
    """Return what may be seen of a result."""
    return GuardMiddleware(guard)._mend(run.mended(result))
