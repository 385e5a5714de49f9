"""Client keys: who is let in, under which class, and what the hash may be made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from guard.errors import InputError
from guard.server.guards import Guards
from guard.server.keys import SHORTEST, Caller, hash_of, new_key
from guard.server.load import Load
from guard.server.metrics import Metrics
from guard.server.settings import HASH, ClientKey, RouteRule, ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from guard.server.guards import Judges

PATH = "/v1/guard/check"
DESK, SHOP = "desk-key-that-is-long-enough", "shop-key-that-is-long-enough"
KEYS: list[dict[str, Any]] = [
    {"name": "desk", "hash": hash_of(DESK)},
    {"name": "shop", "hash": hash_of(SHOP)},
]


class TestLettingIn:
    """Over a real port."""

    @pytest.fixture
    def client(self, serve: Callable[..., httpx2.Client]) -> httpx2.Client:
        """Return a client without a key, of a server that has two."""
        return serve(keys=KEYS)

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": f"Bearer {DESK}"},
            {"authorization": f"bearer  {SHOP}"},
            {"x-api-key": DESK},
            {"x-guard-key": SHOP},
            {"x-guard-key": SHOP, "authorization": "Bearer the-backends-own-key"},
        ],
    )
    def test_known(self, client: httpx2.Client, headers: dict[str, str]) -> None:
        """A known key is let in by any of the headers; our own header counts before others."""
        assert client.post(PATH, json={"response": "Hi."}, headers=headers).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer"},
            {"authorization": f"Basic {DESK}"},
            {"x-api-key": f"{DESK}x"},
            {"x-api-key": DESK[:-1]},
            {"x-api-key": hash_of(DESK)},
            {"x-guard-key": "wrong", "authorization": f"Bearer {DESK}"},
        ],
    )
    def test_unknown(self, client: httpx2.Client, headers: dict[str, str]) -> None:
        """Anything else is a 401 that names the headers, before the body is looked at."""
        answer = client.post(PATH, content=b"{", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        error = answer.json()["error"]
        assert error["code"] == "invalid_api_key"
        assert "x-guard-key" in error["message"]

    def test_anthropics_form(self, client: httpx2.Client) -> None:
        """The SDK of Anthropic reads its own error."""
        body = client.post("/v1/messages", json={}).json()
        assert body["error"]["type"] == "authentication_error"

    def test_what_needs_none(self, client: httpx2.Client) -> None:
        """Probes need no key; everything else does, the API's schema and unknown paths too."""
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert client.get(path).status_code == 200
        for path in ("/openapi.json", "/nothing", "/health/livex"):
            assert client.get(path).status_code == 401

    def test_no_keys(self, serve: Callable[..., httpx2.Client]) -> None:
        """A server without keys takes any, since SDKs must send one."""
        answer = serve().post(PATH, json={"response": "Hi."}, headers={"x-api-key": "any"})
        assert answer.status_code == 200


class TestThisMachine:
    """A server without keys, and the browsers on its machine."""

    EVIL: ClassVar[dict[str, str]] = {"host": "evil.example:8080"}

    @pytest.mark.parametrize(
        "headers",
        [
            EVIL,
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "evil"},
            {"origin": "HTTPS://evil.example"},
            {"origin": "http://[", "host": "localhost"},
            {"origin": "https://evil.example", "content-type": "text/plain"},
            {"host": "127.0.0.1.evil.example"},
            {"host": "evil.internal.example"},
            {"origin": "http://intranet"},
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_pages_of_other_sites(
        self, serve: Callable[..., httpx2.Client], method: str, headers: dict[str, str]
    ) -> None:
        """A page that names another host or origin is refused, with what to do about it."""
        answer = serve().request(method, PATH, json={"response": "Hi."}, headers=headers)
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert error["code"] == "not_local"
        assert "`--open`" in error["message"]

    @pytest.mark.parametrize(
        "headers",
        [
            {"host": "localhost:8080"},
            {"host": "[::1]"},
            {"host": "127.9.9.9:1", "origin": "http://localhost:3000"},
            {"host": "host.docker.internal:8080"},
            {"host": "guard"},
            {"host": "192.0.2.7"},
            {"host": "guard.localhost", "origin": "http://guard.localhost"},
            {"host": "localhost.localdomain", "origin": "vscode-webview://0a1b"},
        ],
    )
    def test_what_is_here(
        self, serve: Callable[..., httpx2.Client], headers: dict[str, str]
    ) -> None:
        """Programs and pages of this machine are served, by any name that no site can have."""
        answer = serve().post(PATH, json={"response": "Hi."}, headers=headers)
        assert answer.status_code == 200

    def test_with_keys_or_open(self, serve: Callable[..., httpx2.Client]) -> None:
        """Who shows a key may come by any name, and so may all where the server is open."""
        for settings in ({"keys": KEYS}, {"open": True}):
            client = serve(**settings)
            headers = {**self.EVIL, "x-api-key": DESK}
            answer = client.post(PATH, json={"response": "Hi."}, headers=headers)
            assert answer.status_code == 200

    def test_probes(self, serve: Callable[..., httpx2.Client]) -> None:
        """Probes may ask by any name."""
        assert serve().get("/health/live", headers=self.EVIL).status_code == 200


class TestClasses:
    """Whose exchanges are judged under which class, and sent to which model."""

    @pytest.fixture
    def guards(self, make_judges: Callable[..., Judges]) -> Guards:
        """Return guards of a low, a middle and a high class."""
        settings = ServerSettings(
            security_class="middle",
            keys=(
                ClientKey(name="low", hash=hash_of(DESK), security_class="low"),
                ClientKey(name="high", hash=hash_of(SHOP), security_class="high"),
            ),
            routes=(RouteRule(path="/v1/messages", security_class="high", upstream_model="big"),),
        )
        ranks = {"low": 1, "middle": 2, "high": 3}
        judges = {name: make_judges(name=name, rank=rank) for name, rank in ranks.items()}
        return Guards(lambda: judges, settings, Metrics(Load(settings)))

    @pytest.mark.parametrize(
        ("caller", "path", "expected"),
        [
            (None, "/v1/responses", "middle"),
            ("low", "/v1/responses", "low"),
            ("low", "/v1/messages", "high"),
            ("high", "/v1/responses", "high"),
            (None, "/v1/messages/count_tokens", "high"),
        ],
    )
    def test_the_stricter_counts(
        self, guards: Guards, caller: str | None, path: str, expected: str
    ) -> None:
        """A key or a route may say less than the server; of both the stricter counts."""
        judges = guards.of(Caller("name", "x-api-key", caller), path)
        assert judges.security_class.name == expected

    def test_the_model(self, guards: Guards) -> None:
        """The key's model comes before the route's."""
        assert guards.upstream_model(Caller(), "/v1/responses") is None
        assert guards.upstream_model(Caller(), "/v1/messages") == "big"
        assert guards.upstream_model(Caller(upstream_model="own"), "/v1/messages") == "own"

    def test_end_to_end(
        self, serve: Callable[..., httpx2.Client], make_judges: Callable[..., Judges]
    ) -> None:
        """The class that judged is in the answer."""
        client = serve(make_judges(name="only"), keys=KEYS)
        answer = client.post(PATH, json={"response": "Hi."}, headers={"x-api-key": DESK})
        assert answer.json()["security_class"] == "only"


class TestHashes:
    """What stands in the settings file."""

    def test_new_keys(self) -> None:
        """A key that is made is long, differs from others, and hashes to the settings' form."""
        assert len(new_key()) > 40
        assert new_key() != new_key()
        settings = ServerSettings(keys=(ClientKey(name="a", hash=hash_of(new_key())),))
        assert settings.keys[0].hash.startswith("sha256:")
        assert HASH

    def test_short_keys(self) -> None:
        """A key that could be guessed from its hash is refused."""
        with pytest.raises(InputError, match=f"at least {SHORTEST}"):
            hash_of("x" * (SHORTEST - 1))
        assert hash_of("x" * SHORTEST)
