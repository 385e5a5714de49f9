"""What `benchmarks/frameworks.py` times: one call of each framework that is installed here.

A `Case` makes the call, plain, beside the framework's own guard, or guarded. Models are scripted
and answer at once, in this process, so that nothing but the frameworks and the guards is timed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from guard.adapters.asgi import Fields, GuardASGI, Text
from guard.adapters.wsgi import GuardWSGI
from guard.exchange import Choice
from guard.scripted import cut
from guard.server.scripted import Delivery, Reply
from guard.server.scripted.chat import FORMAT as CHAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.engine import Guard

PROMPT: Final = "When does the museum open?"


@dataclass(frozen=True)
class Case:
    """One call of a framework.

    Attributes:
        framework: its name.
        call: what is called.
        make: makes the call, of a guard or of `None`.
        own: the framework's own guard, `""` where it has none.
        make_own: makes the call with that guard.
        waits: whether the call gives a coroutine.
    """

    framework: str
    call: str
    make: Callable[[Guard | None], Callable[[], Any]]
    own: str = ""
    make_own: Callable[[], Callable[[], Any]] | None = None
    waits: bool = False


def cases(text: str) -> Iterator[Case]:
    """Yield the cases of every framework that is installed; models answer `text`."""
    for package, listed in _FRAMEWORKS.items():
        if find_spec(package) is not None:
            yield from listed(text)


def _langchain(text: str) -> Iterator[Case]:
    from langchain.agents import create_agent  # noqa: PLC0415
    from langchain.agents.middleware import PIIMiddleware  # noqa: PLC0415
    from langchain_core.language_models import GenericFakeChatModel  # noqa: PLC0415
    from langchain_core.messages import AIMessage  # noqa: PLC0415

    from guard.adapters.langchain import GuardMiddleware  # noqa: PLC0415

    said: Any = {"messages": [("user", PROMPT)]}

    def plain() -> Any:
        return GenericFakeChatModel(messages=itertools.cycle([AIMessage(text)]))

    def model(guard: Guard | None) -> Any:
        return plain() if guard is None else guard.wrap(plain())

    def agent(guard: Guard | None) -> Any:
        guards = [] if guard is None else [GuardMiddleware(guard)]
        return create_agent(plain(), [], middleware=guards)

    def own() -> Any:
        return create_agent(plain(), [], middleware=[PIIMiddleware("email", apply_to_output=True)])

    def asked(made: Any, given: Any) -> Callable[[], Any]:
        return lambda: made.invoke(given)

    def heard(made: Any, given: Any, **options: Any) -> Callable[[], Any]:
        return lambda: list(made.stream(given, **options))

    yield Case("LangChain", "model, `invoke`", lambda guard: asked(model(guard), PROMPT))
    yield Case("LangChain", "model, `stream`", lambda guard: heard(model(guard), PROMPT))
    yield Case(
        "LangChain",
        "`create_agent`, `invoke`",
        lambda guard: asked(agent(guard), said),
        "`PIIMiddleware`",
        lambda: asked(own(), said),
    )
    yield Case(
        "LangChain",
        "`create_agent`, `stream`",
        lambda guard: heard(agent(guard), said, stream_mode="messages"),
        "`PIIMiddleware`",
        lambda: heard(own(), said, stream_mode="messages"),
    )


def _pydantic_ai(text: str) -> Iterator[Case]:
    from pydantic_ai import Agent  # noqa: PLC0415
    from pydantic_ai.messages import ModelResponse, TextPart  # noqa: PLC0415
    from pydantic_ai.models.function import FunctionModel  # noqa: PLC0415

    def agent(guard: Guard | None) -> Any:
        model = FunctionModel(lambda *_: ModelResponse(parts=[TextPart(text)]))
        return Agent(model if guard is None else guard.wrap(model))

    def make(guard: Guard | None) -> Callable[[], Any]:
        made = agent(guard)
        return lambda: made.run(PROMPT)

    def own() -> Callable[[], Any]:
        made = agent(None)
        made.output_validator(_without_mail)
        return lambda: made.run(PROMPT)

    yield Case("pydantic-ai", "`Agent.run`", make, "an output validator", own, waits=True)


def _without_mail(output: str) -> str:
    """Return an answer; one with an address would be refused."""
    if "@" in output:
        raise ValueError("an address")
    return output


def _haystack(text: str) -> Iterator[Case]:
    from haystack import Pipeline, component  # noqa: PLC0415
    from haystack.dataclasses import ChatMessage  # noqa: PLC0415

    def run(
        self: Any,
        messages: list[ChatMessage],
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,
        tools: Any = None,
    ) -> dict[str, Any]:
        del self, messages, streaming_callback, generation_kwargs, tools
        return {"replies": [ChatMessage.from_assistant(text)]}

    decorated = component.output_types(replies=list[ChatMessage])(run)
    scripted: Any = component(type("Scripted", (), {"run": decorated}))

    def make(guard: Guard | None) -> Callable[[], Any]:
        pipeline = Pipeline()
        pipeline.add_component("llm", scripted() if guard is None else guard.wrap(scripted()))
        asked = [ChatMessage.from_user(PROMPT)]
        return lambda: pipeline.run({"llm": {"messages": asked}})

    yield Case("Haystack", "`Pipeline.run`", make)


def _llama_index(text: str) -> Iterator[Case]:
    from llama_index.core.base.llms.types import ChatMessage  # noqa: PLC0415
    from llama_index.core.llms import MockLLM  # noqa: PLC0415

    def make(guard: Guard | None) -> Callable[[], Any]:
        # It says what it is told.
        model = MockLLM() if guard is None else guard.wrap(MockLLM())
        asked = [ChatMessage(content=text)]
        return lambda: model.chat(asked)

    yield Case("LlamaIndex", "`LLM.chat`", make)


def _agents(text: str) -> Iterator[Case]:
    from agents import (  # noqa: PLC0415
        Agent,
        GuardrailFunctionOutput,
        ModelResponse,
        OutputGuardrail,
        Runner,
        set_tracing_disabled,
    )
    from agents.models.interface import Model  # noqa: PLC0415
    from agents.testing import assistant_message  # noqa: PLC0415
    from agents.usage import Usage  # noqa: PLC0415

    set_tracing_disabled(disabled=True)

    async def get_response(*_: Any, **__: Any) -> Any:
        output = [assistant_message(text)]
        return ModelResponse(output=output, usage=Usage(), response_id=None)

    # Only whole answers are timed.
    methods = {"get_response": get_response, "stream_response": get_response}
    scripted: Any = type("Scripted", (Model,), methods)

    def trip(_: Any, __: Any, output: Any) -> Any:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered="@" in str(output))

    def make(guard: Guard | None) -> Callable[[], Any]:
        agent: Any = Agent(
            name="guide", model=scripted() if guard is None else guard.wrap(scripted())
        )
        return lambda: Runner.run(agent, PROMPT)

    def own() -> Callable[[], Any]:
        rail: Any = OutputGuardrail(guardrail_function=trip)
        agent: Any = Agent(name="guide", model=scripted(), output_guardrails=[rail])
        return lambda: Runner.run(agent, PROMPT)

    yield Case("OpenAI Agents SDK", "`Runner.run`", make, "an output guardrail", own, waits=True)


def _openai(text: str) -> Iterator[Case]:
    import httpx2  # noqa: PLC0415
    from openai import OpenAI  # noqa: PLC0415

    def answered(request: httpx2.Request) -> httpx2.Response:
        asked = json.loads(request.content)
        pieces, kind = _chat(text, stream=asked.get("stream") is True)
        return httpx2.Response(200, headers={"content-type": kind}, content=b"".join(pieces))

    def client(guard: Guard | None) -> Any:
        http = httpx2.Client(transport=httpx2.MockTransport(answered))
        made = OpenAI(api_key="none", base_url="http://scripted/v1", http_client=http)
        return made if guard is None else guard.wrap(made)

    said: Any = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}

    def create(guard: Guard | None) -> Callable[[], Any]:
        made = client(guard)
        return lambda: made.chat.completions.create(**said)

    def stream(guard: Guard | None) -> Callable[[], Any]:
        made = client(guard)
        return lambda: list(made.chat.completions.create(**said, stream=True))

    yield Case("OpenAI SDK", "`create`", create)
    yield Case("OpenAI SDK", "`create`, stream", stream)


def _litellm(text: str) -> Iterator[Case]:
    litellm: Any = import_module("litellm")
    said: Any = {"model": "gpt-5.5", "messages": [{"role": "user", "content": PROMPT}]}

    def make(guard: Guard | None) -> Callable[[], Any]:
        made: Any = litellm if guard is None else guard.wrap(litellm)
        return lambda: made.completion(**said, mock_response=text)

    yield Case("LiteLLM", "`completion`", make)


def _chat(text: str, *, stream: bool) -> tuple[list[bytes], str]:
    """Return a chat completion's bytes, and their type."""
    body = CHAT.body({"stream": stream}, "", Reply((Choice(text),)))
    if not stream:
        return [json.dumps(body).encode()], "application/json"
    events = CHAT.events({"stream": True}, body, Delivery())
    return [event.encode("\n") for event in events], "text/event-stream"


def _web(text: str) -> Iterator[Case]:
    document = [json.dumps({"answer": text}).encode()]
    pieces = [piece.encode() for piece in cut(text)]
    for name, said, kind, form in (
        ("JSON", document, "application/json", Fields("answer")),
        ("text, stream", pieces, "text/plain", Text()),
    ):
        yield Case("ASGI", name, _asgi(said, kind, form), waits=True)
        yield Case("WSGI", name, _wsgi(said, kind, form))


def _asgi(pieces: list[bytes], kind: str, form: Any) -> Callable[..., Callable[[], Any]]:
    async def app(_: Any, __: Any, send: Any) -> None:
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def make(guard: Guard | None) -> Callable[[], Any]:
        made: Any = app if guard is None else GuardASGI(app, guard, {"/": form})
        return lambda: asgi_body(made)

    return make


async def asgi_body(app: Any) -> bytes:
    """Return what an ASGI application answers with."""
    said: list[bytes] = []
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return asked.pop() if asked else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        said.append(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return b"".join(said)


def _wsgi(pieces: list[bytes], kind: str, form: Any) -> Callable[..., Callable[[], Any]]:
    def app(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", kind)])
        return iter(pieces)

    def make(guard: Guard | None) -> Callable[[], Any]:
        made: Any = app if guard is None else GuardWSGI(app, guard, {"/": form})
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
        return lambda: b"".join(made(environ, lambda *_: None))

    return make


_FRAMEWORKS: Final[dict[str, Callable[[str], Iterator[Case]]]] = {
    "langchain": _langchain,
    "pydantic_ai": _pydantic_ai,
    "haystack": _haystack,
    "llama_index": _llama_index,
    "agents": _agents,
    "litellm": _litellm,
    "openai": _openai,
    "guard": _web,
}
"""The cases by the package that they need."""
