"""The vendors' clients, as tests of the adapters use them.

- `kind`: whether a test runs with synchronous or asynchronous clients; most run with both.
- `new_openai`, `new_anthropic`: makers of clients of that kind for the scripted backend, which
  never retry unless told to.
- `openai_sides`, `anthropic_sides`: two such clients, a plain and a guarded one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest

from tests.adapters.shared import Side

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

KEY = "made-up-key"

CERTIFICATES = httpx2.create_ssl_context()
"""Read once: it takes longer than a test."""

MAKERS = {
    ("openai", "sync"): (openai.OpenAI, openai.DefaultHttpxClient),
    ("openai", "async"): (openai.AsyncOpenAI, openai.DefaultAsyncHttpxClient),
    ("anthropic", "sync"): (anthropic.Anthropic, anthropic.DefaultHttpxClient),
    ("anthropic", "async"): (anthropic.AsyncAnthropic, anthropic.DefaultAsyncHttpxClient),
}


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return which kind of clients a test runs with."""
    return str(request.param)


@pytest.fixture
async def new_client(kind: str, backend: ScriptedApp) -> AsyncIterator[Callable[..., Any]]:
    """Return the maker of a vendor's clients for the scripted backend, closed in the end."""
    made: list[Side] = []

    def make(vendor: str, **options: Any) -> Any:
        maker, http_maker = MAKERS[vendor, kind]
        url = f"{backend.url}/v1" if vendor == "openai" else backend.url
        given = {"base_url": url, "api_key": KEY, "max_retries": 0} | options
        if "http_client" not in given:
            given["http_client"] = http_maker(verify=CERTIFICATES)
        made.append(Side(maker(**given)))
        return made[-1].client

    yield make
    for side in made:
        await side.close()


@pytest.fixture
def new_openai(new_client: Callable[..., Any]) -> Callable[..., Any]:
    """Return the maker of OpenAI's clients."""
    return partial(new_client, "openai")


@pytest.fixture
def new_anthropic(new_client: Callable[..., Any]) -> Callable[..., Any]:
    """Return the maker of Anthropic's clients."""
    return partial(new_client, "anthropic")


@pytest.fixture
def openai_sides(
    new_openai: Callable[..., Any], make_guard: Callable[..., Guard]
) -> tuple[Side, Side]:
    """Return a plain and a guarded client of OpenAI's."""
    return Side(new_openai()), Side(make_guard().wrap(new_openai()))


@pytest.fixture
def anthropic_sides(
    new_anthropic: Callable[..., Any], make_guard: Callable[..., Guard]
) -> tuple[Side, Side]:
    """Return a plain and a guarded client of Anthropic's."""
    return Side(new_anthropic()), Side(make_guard().wrap(new_anthropic()))
