"""What tests of LangChain's adapter share: models that talk to the scripted backend, a guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

CERTIFICATES = httpx2.create_ssl_context()


@pytest.fixture
async def new_chat(backend: ScriptedApp) -> AsyncIterator[Callable[..., Any]]:
    """Return the maker of `ChatOpenAI` models for the scripted backend, closed in the end."""
    from langchain_openai import ChatOpenAI

    client = httpx2.Client(verify=CERTIFICATES)
    async_client = httpx2.AsyncClient(verify=CERTIFICATES)

    def make(**options: Any) -> Any:
        given: dict[str, Any] = {
            "model": "scripted",
            "base_url": f"{backend.url}/v1",
            "api_key": "none",
            "max_retries": 0,
            "http_client": client,
            "http_async_client": async_client,
        }
        return ChatOpenAI(**given | options)

    yield make
    client.close()
    await async_client.aclose()


@pytest.fixture
def guard(make_guard: Callable[..., Guard]) -> Guard:
    """Return a guard that acts upon words, in answers and in what tools give back."""
    return make_guard(input={"limits": {"to_block": {"act": 0.9}}})
