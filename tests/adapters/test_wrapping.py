"""`guard.wrap`: what it takes, what of a client stays, what it refuses to send."""

from __future__ import annotations

import asyncio
import gc
import io
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import anthropic
import httpx
import httpx2
import openai
import pytest
from langchain_core.language_models import FakeListChatModel

from guard.errors import InputError
from guard.exchange import Choice
from guard.server.scripted import Delivery, Failure, Reply
from guard.wire.transport import Unguardable
from tests.adapters.shared import PROMPT, Side

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

    Make = Callable[..., Any]

VENDORS: Final = ("openai", "anthropic")
SDK: Final = {"openai": openai, "anthropic": anthropic}
SAID: Final = [{"role": "user", "content": PROMPT}]

vendors = pytest.mark.parametrize("vendor", VENDORS)


async def ask(side: Side, prompt: str = PROMPT) -> str:
    """Return what a vendor's client is answered."""
    said = [{"role": "user", "content": prompt}]
    if hasattr(side.client, "chat"):
        done = await side.settled(side.client.chat.completions.create(model="m", messages=said))
        return str(done.choices[0].message.content)
    create = side.client.messages.create
    done = await side.settled(create(model="m", max_tokens=9, messages=said))
    return str(done.content[0].text)


async def stream(side: Side) -> AsyncIterator[Any]:
    """Yield the events that a vendor's client gets."""
    if hasattr(side.client, "chat"):
        create = side.client.chat.completions.create
        events = await side.settled(create(model="m", messages=SAID, stream=True))
    else:
        create = side.client.messages.create
        events = await side.settled(create(model="m", max_tokens=9, messages=SAID, stream=True))
    async for event in side.each(events):
        yield event


class TestKind:
    """What a guarded client is."""

    @vendors
    def test_class_stays(
        self, new_client: Make, make_guard: Callable[..., Guard], vendor: str
    ) -> None:
        """It is of the very class, and so are its copies."""
        plain = new_client(vendor)
        guarded = make_guard().wrap(plain)
        assert type(guarded) is type(plain)
        assert type(guarded.with_options(timeout=3)) is type(plain)
        assert guarded is not plain

    @vendors
    async def test_the_first_client_stays_unguarded(
        self, new_client: Make, make_guard: Callable[..., Guard], backend: ScriptedApp, vendor: str
    ) -> None:
        """Only the client that is returned is guarded."""
        backend.script(PROMPT, "Say zblock.")
        plain = new_client(vendor)
        guarded = make_guard().wrap(plain)
        assert await ask(Side(plain)) == "Say zblock."
        assert await ask(Side(guarded)) == "[blocked]"

    async def test_subclasses(self, backend: ScriptedApp, make_guard: Callable[..., Guard]) -> None:
        """A subclass stays one, the vendor's own for another cloud too."""

        class Own(openai.OpenAI):
            """Somebody's own client."""

            def greeting(self) -> str:
                """Return a greeting."""
                return "Hello."

        backend.script(PROMPT, "Say zblock.")
        with Own(base_url=f"{backend.url}/v1", api_key="k", max_retries=0) as plain:
            guarded = make_guard().wrap(plain)
            assert (type(guarded), guarded.greeting()) == (Own, "Hello.")
            assert await ask(Side(guarded)) == "[blocked]"
        with openai.AzureOpenAI(
            azure_endpoint="http://a.invalid", api_key="k", api_version="1"
        ) as azure:
            assert type(make_guard().wrap(azure)) is openai.AzureOpenAI

    @vendors
    async def test_copies_are_guarded(
        self, new_client: Make, make_guard: Callable[..., Guard], backend: ScriptedApp, vendor: str
    ) -> None:
        """What `with_options` makes of a guarded client is guarded, too."""
        backend.script(PROMPT, "Say zblock.")
        guarded = make_guard().wrap(new_client(vendor))
        copies = [
            guarded.with_options(timeout=7, max_retries=1),
            guarded.copy(default_headers={"x-own": "1"}),
            guarded.with_options(timeout=7).with_options(max_retries=0),
        ]
        assert [await ask(Side(copy)) for copy in copies] == ["[blocked]"] * 3
        assert backend.requests[1].headers["x-own"] == "1"


class TestRefused:
    """What cannot be wrapped."""

    @pytest.mark.parametrize(
        "target", [None, "a text", object(), print, openai.OpenAI, openai, {"client": 1}]
    )
    def test_unknown(self, make_guard: Callable[..., Guard], target: Any) -> None:
        """The error says what can be wrapped, and what else there is."""
        with pytest.raises(InputError, match=r"nothing that can be wrapped.*openai.*protect"):
            make_guard().wrap(target)

    def test_other_parts_of_an_sdk(self, make_guard: Callable[..., Guard]) -> None:
        """A part of a client is none."""
        with (
            openai.OpenAI(api_key="k") as plain,
            pytest.raises(InputError, match="`Completions` is no OpenAI client"),
        ):
            make_guard().wrap(plain.chat.completions)
        with (
            anthropic.Anthropic(api_key="k") as other,
            pytest.raises(InputError, match="`Messages` is no Anthropic client"),
        ):
            make_guard().wrap(other.messages)

    @vendors
    def test_twice(self, new_client: Make, make_guard: Callable[..., Guard], vendor: str) -> None:
        """A guarded client is not guarded again, and no copy of it is."""
        guarded = make_guard().wrap(new_client(vendor))
        for again in (guarded, guarded.with_options(timeout=3)):
            with pytest.raises(InputError, match="guarded already"):
                make_guard().wrap(again)

    def test_another_http_client(self, make_guard: Callable[..., Guard]) -> None:
        """A client that sends by another library is not taken, and the error says what helps."""
        with (
            httpx.Client() as legacy,
            openai.OpenAI(api_key="k", http_client=legacy) as plain,  # type: ignore[arg-type]
            pytest.raises(InputError, match=r"httpx\.Client.*give it an httpx2 client"),
        ):
            make_guard().wrap(plain)

    @vendors
    def test_options(self, new_client: Make, make_guard: Callable[..., Guard], vendor: str) -> None:
        """An option of an unknown value is named with those that are known."""
        with pytest.raises(InputError, match=r"`refuse` or `pass`, not `maybe`"):
            make_guard().wrap(new_client(vendor), unguarded="maybe")

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("on_verdit", r"unknown option `on_verdit` \(did you mean `on_verdict`\?\)"),
            ("zzz", r"unknown option `zzz`: it takes .*`on_verdict`"),
            ("inner", r"unknown option `inner`"),
        ],
    )
    @pytest.mark.parametrize("vendor", [*VENDORS, "langchain"])
    def test_an_unknown_option(
        self, new_client: Make, make_guard: Callable[..., Guard], vendor: str, name: str, said: str
    ) -> None:
        """It is refused with what was meant: LangChain's models would take no notice of it."""
        target = (
            FakeListChatModel(responses=["Hello."]) if vendor == "langchain" else new_client(vendor)
        )
        with pytest.raises(InputError, match=said):
            make_guard().wrap(target, **{name: print})

    @vendors
    def test_an_unknown_option_of_an_adapter(
        self, new_client: Make, make_guard: Callable[..., Guard], vendor: str
    ) -> None:
        """An adapter that is called by itself says the same as `guard.wrap`."""
        adapter = import_module(f"guard.adapters.{vendor}")
        with pytest.raises(InputError, match=r"`on_verdit` \(did you mean `on_verdict`\?\)"):
            adapter.wrap(make_guard(), new_client(vendor), on_verdit=print)

    @pytest.mark.parametrize("module", ["openai", "anthropic", "httpx2", "tenacity"])
    def test_missing_extra(self, module: str) -> None:
        """Without a package that is needed the error names it and the command that brings it."""
        vendor = module if module in VENDORS else "openai"
        script = (
            f"import sys; sys.modules['{module}'] = None\n"
            "from guard.errors import MissingExtraError\n"
            f"try:\n    import guard.adapters.{vendor}\n"
            "except MissingExtraError as error:\n    print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert f"`{module}" in done.stdout
        assert f"pip install 'clearance-guard[{vendor}]'" in done.stdout


OPENAI_ENDPOINTS: Final[dict[str, Callable[[Any], Any]]] = {
    "legacy completions": lambda c: c.completions.create(model="m", prompt="a"),
    "batches": lambda c: c.batches.create(
        input_file_id="f", endpoint="/v1/responses", completion_window="24h"
    ),
    "batch": lambda c: c.batches.retrieve("b"),
    "file's content": lambda c: c.files.content("f"),
    "speech": lambda c: c.audio.speech.create(model="m", voice="alloy", input="a"),
    "transcription": lambda c: c.audio.transcriptions.create(model="m", file=io.BytesIO(b"a")),
    "images": lambda c: c.images.generate(model="m", prompt="a"),
    "realtime secrets": lambda c: c.realtime.client_secrets.create(),
    "conversation": lambda c: c.conversations.items.retrieve("i", conversation_id="c"),
    "thread": lambda c: c.beta.threads.messages.retrieve("m", thread_id="t"),
    "fine-tuning": lambda c: c.fine_tuning.jobs.retrieve("j"),
    "anything": lambda c: c.post("/decisions", cast_to=object, body={"a": 1}),
}

ANTHROPIC_ENDPOINTS: Final[dict[str, Callable[[Any], Any]]] = {
    "legacy completions": lambda c: c.post("/v1/complete", cast_to=object, body={"a": 1}),
    "batches": lambda c: c.messages.batches.create(requests=[]),
    "batch": lambda c: c.messages.batches.retrieve("b"),
    "file's content": lambda c: c.beta.files.download("f"),
    "anything": lambda c: c.post("/v1/decisions", cast_to=object, body={"a": 1}),
}

ENDPOINTS: Final = [
    pytest.param(vendor, call, id=f"{vendor}-{name}")
    for vendor, calls in (("openai", OPENAI_ENDPOINTS), ("anthropic", ANTHROPIC_ENDPOINTS))
    for name, call in calls.items()
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestUnguardable:
    """Endpoints that answer with a model's words in no format that is known."""

    @pytest.mark.parametrize(("vendor", "call"), ENDPOINTS)
    async def test_refused(
        self,
        new_client: Make,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        vendor: str,
        call: Callable[[Any], Any],
    ) -> None:
        """Nothing is sent, once or again; the error is clear, and one of the SDK's."""
        side = Side(make_guard().wrap(new_client(vendor, max_retries=2)))
        with pytest.raises(Unguardable, match=r"cannot be guarded: use .*`unguarded='pass'`") as e:
            await side.settled(call(side.client))
        base = {"openai": openai.OpenAIError, "anthropic": anthropic.AnthropicError}[vendor]
        assert isinstance(e.value, base)
        assert not backend.requests

    @pytest.mark.parametrize(("vendor", "call"), ENDPOINTS)
    async def test_passed(
        self,
        new_client: Make,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        vendor: str,
        call: Callable[[Any], Any],
    ) -> None:
        """Whoever allows it gets the backend's own answer, here that there is nothing."""
        side = Side(make_guard().wrap(new_client(vendor), unguarded="pass"))
        with pytest.raises(SDK[vendor].NotFoundError):
            await side.settled(call(side.client))
        assert len(backend.requests) == 1

    @pytest.mark.parametrize("connect", ["realtime", "responses"])
    async def test_websockets(
        self, new_openai: Make, make_guard: Callable[..., Guard], connect: str
    ) -> None:
        """A websocket is not opened, from no copy of the client; the error says why."""
        guarded = make_guard().wrap(new_openai())
        for client in (guarded, guarded.with_options(timeout=3)):
            side = Side(client)
            given = {"model": "m"} if connect == "realtime" else {}
            with pytest.raises(Exception, match="websockets-cannot-be-guarded"):
                async with side.opened(getattr(client, connect).connect(**given)):
                    pass

    async def test_websockets_may_be_allowed(
        self, new_openai: Make, make_guard: Callable[..., Guard]
    ) -> None:
        """Whoever allows it keeps the address that websockets lead to."""
        plain = new_openai(websocket_base_url="wss://own.invalid")
        guarded = make_guard().wrap(plain, unguarded="pass")
        assert guarded.websocket_base_url == "wss://own.invalid"

    @vendors
    async def test_open(
        self, new_client: Make, make_guard: Callable[..., Guard], backend: ScriptedApp, vendor: str
    ) -> None:
        """What holds no text of a model's passes without asking."""
        plain = Side(new_client(vendor))
        guarded = Side(make_guard().wrap(plain.client))
        listed = [
            [row.id async for row in side.each(await side.settled(side.client.models.list()))]
            for side in (plain, guarded)
            if isinstance(side.client, openai.OpenAI | anthropic.Anthropic)
        ] or [[row.id async for row in side.client.models.list()] for side in (plain, guarded)]
        assert listed[0] == listed[1] == ["scripted"]
        if vendor == "openai":
            made = [
                await side.settled(side.client.embeddings.create(model="m", input="a"))
                for side in (plain, guarded)
            ]
            assert made[0].data == made[1].data
        assert backend.requests


class TestHttp:
    """The HTTP client below stays the user's own."""

    @vendors
    async def test_options(
        self, new_client: Make, make_guard: Callable[..., Guard], backend: ScriptedApp, vendor: str
    ) -> None:
        """Timeouts, retries, headers and query stay."""
        backend.script(PROMPT, "Ferns.")
        plain = new_client(
            vendor,
            timeout=httpx2.Timeout(21.0, connect=3.0),
            max_retries=4,
            default_headers={"x-own": "yes"},
            default_query={"own": "1"},
        )
        guarded = make_guard().wrap(plain)
        for name in ("timeout", "max_retries", "base_url", "api_key"):
            assert getattr(guarded, name) == getattr(plain, name)
        await ask(Side(plain))
        await ask(Side(guarded))
        first, second = backend.requests
        assert first.query == second.query
        assert first.body == second.body
        expected = dict(first.headers) | {"accept-encoding": "identity"}
        assert dict(second.headers) == expected
        assert (second.headers["x-own"], second.query) == ("yes", "own=1")

    @vendors
    async def test_hooks_and_transports(
        self, kind: str, backend: ScriptedApp, make_guard: Callable[..., Guard], vendor: str
    ) -> None:
        """Event hooks run, cookies are kept, and both transports and mounts are asked."""
        seen: list[str] = []
        is_async = kind == "async"

        async def anoted(event: Any) -> None:
            seen.append(type(event).__name__)

        def noted(event: Any) -> None:
            seen.append(type(event).__name__)

        class Noting(httpx2.AsyncHTTPTransport if is_async else httpx2.HTTPTransport):  # type: ignore[misc]
            """A transport of the user's own."""

            def handle_request(self, request: httpx2.Request) -> httpx2.Response:
                seen.append("transport")
                return super().handle_request(request)  # type: ignore[no-any-return]

            async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
                seen.append("transport")
                return await super().handle_async_request(request)  # type: ignore[no-any-return]

        backend.script(PROMPT, "Say zblock.")
        maker: Any = httpx2.AsyncClient if is_async else httpx2.Client
        sdk: Any = {
            ("openai", False): openai.OpenAI,
            ("openai", True): openai.AsyncOpenAI,
            ("anthropic", False): anthropic.Anthropic,
            ("anthropic", True): anthropic.AsyncAnthropic,
        }[vendor, is_async]
        hook = anoted if is_async else noted
        url = f"{backend.url}/v1" if vendor == "openai" else backend.url
        for transports in (
            {"transport": Noting()},
            {"mounts": {"http://": Noting(), "all://elsewhere.invalid": None}},
        ):
            seen.clear()
            http = maker(
                event_hooks={"request": [hook], "response": [hook]},
                cookies={"own": "1"},
                **transports,
            )
            side = Side(sdk(base_url=url, api_key="k", max_retries=0, http_client=http))
            guarded = Side(make_guard().wrap(side.client))
            assert await ask(guarded) == "[blocked]"
            assert seen == ["Request", "transport", "Response"]
            assert "own=1" in backend.requests[-1].headers["cookie"]
            await side.close()

    @vendors
    async def test_connections_are_shared(
        self,
        new_client: Make,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        vendor: str,
    ) -> None:
        """The guarded client uses the connection that the plain one opened."""
        backend.script(PROMPT, "Ferns.")
        plain = Side(new_client(vendor))
        guarded = Side(make_guard().wrap(plain.client))
        ports = []
        for side in (plain, guarded, plain):
            await ask(side)
            pool = plain.client._client._transport._pool
            ports.append([id(connection) for connection in pool.connections])
        assert ports[0] == ports[1] == ports[2]
        assert len(ports[0]) == 1

    @vendors
    async def test_timeouts(
        self, new_client: Make, make_guard: Callable[..., Guard], backend: ScriptedApp, vendor: str
    ) -> None:
        """A backend that is silent for too long is the SDK's timeout error."""
        backend.script(PROMPT, Reply((Choice("Ferns."),), delivery=Delivery(holds_after=0)))
        side = Side(make_guard().wrap(new_client(vendor, timeout=0.2)))
        with pytest.raises(SDK[vendor].APITimeoutError):
            await ask(side)
        backend.release()
        backend.wait_idle()

    @vendors
    async def test_timeout_in_a_stream(
        self, new_client: Make, make_guard: Callable[..., Guard], backend: ScriptedApp, vendor: str
    ) -> None:
        """One that falls silent in the middle raises what the plain client raises."""
        held = Reply((Choice("Ferns grow here."),), delivery=Delivery(holds_after=2))
        backend.script(PROMPT, held)
        plain = new_client(vendor, timeout=0.3)
        errors = []
        for side in (Side(plain), Side(make_guard().wrap(plain))):
            with pytest.raises(Exception) as caught:  # noqa: PT011  # whichever it is
                [event async for event in stream(side)]
            errors.append(type(caught.value))
        assert errors[0] is errors[1]
        backend.release()
        backend.wait_idle()

    @vendors
    @pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
    async def test_retries(
        self,
        new_client: Make,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        vendor: str,
        status: int,
    ) -> None:
        """The SDK asks again where it would, as often as it would, and the answer is judged."""
        failure = Failure(status, retry_after=0.01)
        backend.script(PROMPT, failure, failure, "Say zblock.")
        side = Side(make_guard().wrap(new_client(vendor, max_retries=2)))
        assert await ask(side) == "[blocked]"
        assert len(backend.requests) == 3

    @vendors
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503])
    async def test_errors(
        self,
        new_client: Make,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        vendor: str,
        status: int,
    ) -> None:
        """A backend's error is the SDK's error, equal to the plain client's but for what is bad."""
        plain = new_client(vendor)
        for word in ("fern", "zblock"):
            backend.script(PROMPT, Failure(status, f"No {word} today."))
            found = []
            for side in (Side(plain), Side(make_guard().wrap(plain))):
                with pytest.raises(SDK[vendor].APIStatusError) as caught:
                    await ask(side)
                error = caught.value
                found.append([type(error), error.status_code, str(error), error.body])
            assert found[0][:2] == found[1][:2]
            assert (found[0] == found[1]) == (word == "fern")
            assert "zblock" not in str(found[1])

    @vendors
    async def test_unreachable(
        self, new_client: Make, make_guard: Callable[..., Guard], vendor: str
    ) -> None:
        """Where nobody listens, the SDK's connection error is raised."""
        side = Side(make_guard().wrap(new_client(vendor, base_url="http://127.0.0.1:9/v1")))
        with pytest.raises(SDK[vendor].APIConnectionError):
            await ask(side)


class TestLife:
    """Clients that are closed or forgotten."""

    @vendors
    async def test_the_first_is_forgotten(
        self, kind: str, backend: ScriptedApp, make_guard: Callable[..., Guard], vendor: str
    ) -> None:
        """A guarded client works when nobody else knows the first one, and so do its copies."""
        backend.script(PROMPT, "Ferns.")
        side = Side(make_guard().wrap(_client(vendor, kind, backend)))
        gc.collect()
        assert await ask(side) == "Ferns."
        copy = Side(side.client.with_options(timeout=3))
        del side
        gc.collect()
        assert await ask(copy) == "Ferns."
        await copy.close()

    @vendors
    async def test_the_guarded_one_is_forgotten(
        self, kind: str, backend: ScriptedApp, make_guard: Callable[..., Guard], vendor: str
    ) -> None:
        """The first client's stream goes on when a guarded one made of it is forgotten."""
        backend.script(PROMPT, Reply((Choice("Ferns grow."),), delivery=Delivery(holds_after=1)))
        plain = Side(_client(vendor, kind, backend))
        events = stream(plain)
        first = [await anext(events)]
        make_guard().wrap(plain.client)
        gc.collect()
        await asyncio.sleep(0.01)
        backend.release()
        rest = [event async for event in events]
        assert len(first + rest) > 3
        assert not plain.client.is_closed()
        await plain.close()

    @vendors
    async def test_closing(
        self, kind: str, backend: ScriptedApp, make_guard: Callable[..., Guard], vendor: str
    ) -> None:
        """A guarded client closes the connections, as a context and by itself."""
        backend.script(PROMPT, "Ferns.")
        plain = _client(vendor, kind, backend)
        side = Side(make_guard().wrap(plain))
        async with side.opened(side.client):
            await ask(side)
            assert len(plain._client._transport._pool.connections) == 1
        assert side.client.is_closed()
        assert not plain._client._transport._pool.connections
        await Side(plain).close()


def _client(vendor: str, kind: str, backend: ScriptedApp) -> Any:
    """Return a client with an HTTP client that the SDK made, so that it is the SDK's to close."""
    makers: dict[tuple[str, str], Any] = {
        ("openai", "sync"): openai.OpenAI,
        ("openai", "async"): openai.AsyncOpenAI,
        ("anthropic", "sync"): anthropic.Anthropic,
        ("anthropic", "async"): anthropic.AsyncAnthropic,
    }
    url = f"{backend.url}/v1" if vendor == "openai" else backend.url
    return makers[vendor, kind](base_url=url, api_key="k", max_retries=0)
