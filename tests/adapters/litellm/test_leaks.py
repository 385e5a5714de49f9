"""The leak matrix of LiteLLM: its functions and its proxy, beside the plain ones."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("litellm", reason="litellm is not installed")

import litellm

from tests.adapters.leak_lab import PROMPT, Lab, Way
from tests.adapters.leak_matrix import Row, check
from tests.adapters.litellm.scripted import ASKED, Subject, recorded, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp
    from tests.adapters.litellm.conftest import Proxy

LAB = Lab("LiteLLM", lambda *_: None)

NOTE = (
    "`guard.wrap(litellm)` for programs, `GuardLiteLLM` for the proxy, whose clients read HTTP. "
    "Its loggers are told of an answer that was withheld or rewritten without any text; the "
    "callbacks of LiteLLM's functions too, save for the provider's raw answer in "
    "`log_post_api_call`, which a guarded `client` judges as well."
)

PROXY: list[Proxy] = []
"""The proxy that the ways below read."""

FORMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "gpt-5.5", "messages": ASKED},
    "/v1/responses": {"model": "gpt-5.5", "input": PROMPT},
    "/v1/messages": {"model": "claude", "messages": ASKED, "max_tokens": 99},
}


def asked(subject: Subject, path: str, **more: Any) -> httpx2.Response:
    """Return the proxy's answer."""
    subject.backend.script(PROMPT, *subject.answers)
    names = [] if subject.guard is None else ["words"]
    answer = PROXY[0].ask(path, *names, **FORMS[path], **more)
    assert answer.is_success, answer.text
    return answer


def events(text: str) -> list[Any]:
    """Return the events of a stream as data."""
    lines = [line.removeprefix("data:").strip() for line in text.splitlines()]
    return [shown(json.loads(line)) for line in lines if line.startswith("{")]


@LAB.way("`completion`")
async def _completion(subject: Subject) -> Any:
    return shown(await asyncio.to_thread(subject.llm.completion, **subject.options()))


@LAB.way("`acompletion`")
async def _acompletion(subject: Subject) -> Any:
    return shown(await subject.llm.acompletion(**subject.options()))


@LAB.way("`completion`, stream")
async def _stream(subject: Subject) -> Any:
    given = subject.llm.completion(**subject.options(stream=True))
    return [shown(chunk) for chunk in await asyncio.to_thread(list, given)]


@LAB.way("`acompletion`, stream")
async def _astream(subject: Subject) -> Any:
    given = await subject.llm.acompletion(**subject.options(stream=True))
    return [shown(chunk) async for chunk in given]


@LAB.way("`acompletion`, stream put together by `stream_chunk_builder`")
async def _built(subject: Subject) -> Any:
    given = await subject.llm.acompletion(**subject.options(stream=True))
    return shown(litellm.stream_chunk_builder([chunk async for chunk in given]))


@LAB.way("`Router.acompletion`")
async def _router(subject: Subject) -> Any:
    return shown(await subject.router.acompletion(model="m", messages=ASKED))


@LAB.way("`Router.acompletion`, stream")
async def _router_stream(subject: Subject) -> Any:
    given = await subject.router.acompletion(model="m", messages=ASKED, stream=True)
    return [shown(chunk) async for chunk in given]


@LAB.way("`completion` by a guarded `client`, answer and callbacks")
async def _client(subject: Subject) -> Any:
    def ask() -> Any:
        with recorded() as recorder, subject.client() as client:
            answer = litellm.completion(**subject.options(client=client))
        return shown(answer), recorder.heard

    return await asyncio.to_thread(ask)


for _path in FORMS:

    @LAB.way(f"proxy: `{_path}`")
    async def _whole(subject: Subject, path: str = _path) -> Any:
        return shown((await asyncio.to_thread(asked, subject, path)).json())

    @LAB.way(f"proxy: `{_path}`, stream")
    async def _streamed(subject: Subject, path: str = _path) -> Any:
        return events((await asyncio.to_thread(partial(asked, subject, path, stream=True))).text)


@pytest.fixture(autouse=True)
def _site(backend: ScriptedApp, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LAB, "build", lambda answers, guard: Subject(answers, guard, backend))
    PROXY[:] = [proxy]


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
