"""The framework's own tests of chat models: the guarded model passes what the plain one passes.

Both talk to one backend over HTTP through `ChatOpenAI`. The classes named `Plain` are the
control: what the backend cannot do is skipped in both.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

pytest.importorskip("langchain_core", reason="langchain is not installed")
pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from guard.adapters.langchain import GuardedChatModel
from guard.exchange import Choice, ToolCall
from guard.server.scripted import Reply, ScriptedApp
from tests.conftest import new_guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from guard.server.scripted import Failure

# The framework's tests try what it warns of: methods that are new, and schemas that are old.
pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

MADE_UP: dict[str, Any] = {"integer": 3, "number": 3.0, "boolean": True, "array": [], "null": None}
"""A value of each of JSON's types but text."""

CERTIFICATES = httpx2.create_ssl_context()


class Obliging(ScriptedApp):
    """A backend that calls the tools it is given, and fills in the schemas it is asked for."""

    def _find(self, record: Any, style: Any, request: Any) -> Reply | Failure | Any:
        if record.path != "/v1/chat/completions" or request is None:
            return super()._find(record, style, request)
        return Reply((obliging(request),))


def obliging(request: dict[str, Any]) -> Choice:
    """Return what a willing model would say."""
    said = str(request["messages"][-1].get("content"))
    quoted = re.search("'(.+?)'", said)
    word = quoted[1] if quoted else "fern"
    shape = request.get("response_format") or {}
    if shape.get("type") == "json_schema":
        return Choice(json.dumps(filled(shape["json_schema"]["schema"], word)))
    if shape.get("type") == "json_object":
        return Choice('{"setup": "Why?", "punchline": "Because."}')
    tools = [tool["function"] for tool in request.get("tools") or () if "function" in tool]
    answered = request["messages"][-1]["role"] == "tool"
    if tools and not answered and request.get("tool_choice") != "none":
        wanted = request.get("tool_choice")
        name = wanted["function"]["name"] if isinstance(wanted, dict) else tools[0]["name"]
        tool = next(each for each in tools if each["name"] == name)
        given = json.dumps(filled(tool["parameters"], word), ensure_ascii=False)
        return Choice(tool_calls=(ToolCall(name, given),))
    return Choice(f"Hello there. You said: {said}")


def filled(schema: dict[str, Any], word: str, root: dict[str, Any] | None = None) -> Any:
    """Return something that fits a schema, with `word` for each text."""
    root = root or schema
    if "$ref" in schema:
        return filled(root["$defs"][schema["$ref"].rpartition("/")[2]], word, root)
    if "anyOf" in schema:
        return filled(schema["anyOf"][0], word, root)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        fields = schema.get("properties", {}).items()
        return {name: filled(inner, word, root) for name, inner in fields}
    return MADE_UP.get(schema.get("type", "string"), word)


@pytest.fixture(scope="module")
def server() -> Iterator[Obliging]:
    """Serve the backend."""
    with Obliging().served() as app:
        yield app


@pytest.fixture(autouse=True)
async def _connected(request: pytest.FixtureRequest, server: Obliging) -> AsyncIterator[None]:
    """Tell the test's class where the backend is; close what it has opened."""
    clients: list[httpx2.AsyncClient] = []
    settings: Any = request.cls
    settings.url, settings.clients = f"{server.url}/v1", clients
    yield
    for client in clients:
        await client.aclose()


class Plain:
    """The plain model."""

    url: str
    clients: list[httpx2.AsyncClient]
    supports_json_mode = True
    has_tool_choice = True
    supports_model_override = True
    model_override_value = "another"

    @property
    def chat_model_class(self) -> Any:
        """Return the model's class."""
        return ChatOpenAI

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """Return no parameters beside ours."""
        return {}

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Return what the model is made of."""
        client = httpx2.AsyncClient(verify=CERTIFICATES)
        self.clients.append(client)
        named = {"model": "scripted", "base_url": self.url, "api_key": "none"}
        return named | {"stream_usage": True, "http_async_client": client}


class Guarded(Plain):
    """The guarded model."""

    @property
    def chat_model_class(self) -> Any:
        """Return the model's class."""
        return GuardedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Return what the model is made of."""
        return {"guard": new_guard(), "inner": ChatOpenAI(**super().chat_model_params)}


class TestPlainUnit(Plain, ChatModelUnitTests):
    """The control of the unit tests."""

    @pytest.mark.xfail(reason="compares with a file of langchain-openai's own repository")
    def test_serdes(self, model: Any, snapshot: Any) -> None:
        """The plain model is written and read back."""
        super().test_serdes(model, snapshot)


class TestGuardedUnit(Guarded, ChatModelUnitTests):
    """The unit tests."""


class TestPlainIntegration(Plain, ChatModelIntegrationTests):
    """The control of the integration tests."""


class TestGuardedIntegration(Guarded, ChatModelIntegrationTests):
    """The integration tests."""
