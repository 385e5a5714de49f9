"""The vendors' own clients against the scripted backend, and plain HTTP for its bytes.

- `backend` (in `tests/conftest.py`): the running backend; `backend.url`, `backend.script(…)`.
- `openai`, `openai_async`, `anthropic`, `anthropic_async`: clients that never retry.
- `http`: a plain HTTP client with the backend's address.
- `stream_events`: posts a request to a path and returns the stream's events as JSON.

Each client lives as long as its test.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic as anthropic_sdk
import httpx2
import openai as openai_sdk
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from guard.server.scripted import ScriptedApp

KEY = "made-up-key"


@pytest.fixture
def openai(backend: ScriptedApp) -> Iterator[openai_sdk.OpenAI]:
    """Return OpenAI's client."""
    with openai_sdk.OpenAI(base_url=f"{backend.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def openai_async(backend: ScriptedApp) -> AsyncIterator[openai_sdk.AsyncOpenAI]:
    """Return OpenAI's asynchronous client."""
    url = f"{backend.url}/v1"
    async with openai_sdk.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(backend: ScriptedApp) -> Iterator[anthropic_sdk.Anthropic]:
    """Return Anthropic's client."""
    with anthropic_sdk.Anthropic(base_url=backend.url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_async(backend: ScriptedApp) -> AsyncIterator[anthropic_sdk.AsyncAnthropic]:
    """Return Anthropic's asynchronous client."""
    url = backend.url
    async with anthropic_sdk.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def http(backend: ScriptedApp) -> Iterator[httpx2.Client]:
    """Return a plain HTTP client."""
    with httpx2.Client(base_url=backend.url, timeout=20.0) as client:
        yield client


@pytest.fixture
def stream_events(http: httpx2.Client) -> Callable[[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return a function that posts a request and returns its stream's events as JSON."""

    def post(path: str, request: dict[str, Any]) -> list[dict[str, Any]]:
        text = http.post(path, json=request | {"stream": True}).text
        lines = [line.removeprefix("data: ") for line in text.split("\n") if line[:5] == "data:"]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    return post
