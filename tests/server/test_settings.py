"""A server's settings: where they come from, and everything that is wrong with them at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from guard.errors import ConfigurationError
from guard.security_class import SecurityClass
from guard.server.configuration import load_settings
from guard.server.keys import hash_of
from guard.server.settings import ServerSettings

if TYPE_CHECKING:
    from pathlib import Path

HASH = hash_of("a-key-that-is-long-enough")


def write(tmp_path: Path, text: str) -> Path:
    """Return a settings file that holds `text`."""
    path = tmp_path / "guard.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(config: Path | None = None, **options: object) -> list[str]:
    """Return what is wrong, each without the file's path."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config, **options)
    return [text.replace(f"{config}:", "") for text in caught.value.problems]


class TestSources:
    """Options, then variables, then the file, then the defaults."""

    def test_the_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is nearer to the caller wins."""
        path = write(tmp_path, "port: 1\nlanguage: de\nmax_queue: 7\n")
        monkeypatch.setenv("GUARD_PORT", "2")
        monkeypatch.setenv("guard_language", "fr")
        settings = load_settings(path, port=3, host=None)
        assert (settings.port, settings.language, settings.max_queue) == (3, "fr", 7)
        assert settings.host == "127.0.0.1"

    def test_the_files_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`GUARD_CONFIG` names the file where no option does."""
        monkeypatch.setenv("GUARD_CONFIG", str(write(tmp_path, "port: 1234\n")))
        assert load_settings().port == 1234

    def test_keys_and_routes(self, tmp_path: Path) -> None:
        """Clients and routes have a class and a model of their own."""
        path = write(
            tmp_path,
            "keys:\n"
            f"  - {{name: desk, hash: '{HASH}', security_class: internal}}\n"
            "routes:\n"
            "  - {path: /v1/, upstream_model: small}\n"
            "  - {path: /v1/messages, security_class: critical}\n",
        )
        settings = load_settings(path)
        assert settings.sources == ("public", "internal", "critical")
        assert settings.keys[0].name == "desk"
        found = {
            path: settings.route(path)
            for path in (
                *("/v1/chat", "/v1", "/v1/messages/count", "/v1/messagesx", "/v10", "/"),
                *("/V1/Messages", "/v1/messages/", "/x/v1/messages"),
            )
        }
        names = {path: rule and rule.path for path, rule in found.items()}
        assert names == {
            "/v1/chat": "/v1/",
            "/v1": "/v1/",
            "/v1/messages/count": "/v1/messages",
            "/v1/messagesx": "/v1/",
            "/v10": None,
            "/": None,
            "/V1/Messages": "/v1/messages",
            "/v1/messages/": "/v1/messages",
            "/x/v1/messages": None,
        }

    @pytest.mark.parametrize(
        ("path", "endpoint", "rules"),
        [
            ("/v1/messages", "/v1/messages", []),
            ("/x/v1/messages", "/v1/messages", ["/v1/messages", "/v1/"]),
            ("/x/V1/Messages", "/v1/messages", ["/v1/messages", "/v1/"]),
            ("/x/v1/messages", None, []),
            ("/messages", "/v1/messages", ["/v1/messages", "/v1/"]),
            ("/x/chat/completions", "/v1/chat/completions", ["/v1/"]),
            ("/xv1/messagesx", None, []),
            ("/shop/v1/messages", "/v1/messages", ["/v1/messages"]),
            ("/shop/v1/chat/completions", "/v1/chat/completions", []),
            ("/tenant/of/v1/messages", "/v1/messages", []),
        ],
    )
    def test_paths(self, path: str, endpoint: str | None, rules: list[str]) -> None:
        """Longer rules hold for what is guarded, whatever stands before it; the path's own do."""
        paths = ("/v1/", "/V1/messages", "/shop", "/tenant/of/v1/messages")
        settings = load_settings(routes=[{"path": each} for each in paths])
        *others, own = settings.paths(path, endpoint)
        assert [each.lower() for each in others] == rules
        assert own == path

    def test_paths_of_any_length(self) -> None:
        """Nobody makes the server slow by a path of many segments."""
        settings = load_settings(routes=[{"path": f"/rule/{n}"} for n in range(50)])
        began = time.perf_counter()
        settings.paths("/a" * 30_000, "/v1/responses")
        assert time.perf_counter() - began < 1

    def test_the_upstream_key_does_not_show(self) -> None:
        """Nobody reads the backend's key out of the settings by printing them."""
        settings = load_settings(upstream="https://models.example", upstream_key="secret-key")
        assert "secret-key" not in f"{settings!r} {settings}"
        assert settings.upstream_key is not None
        assert settings.upstream_key.get_secret_value() == "secret-key"

    def test_frozen(self) -> None:
        """Settings do not change once they are read."""
        with pytest.raises(ValueError, match="frozen"):
            ServerSettings().port = 1  # type: ignore[misc]


class TestProblems:
    """Everything that is wrong is named at once, with its place and mend."""

    def test_all_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Options, variables and the file are all looked at."""
        path = write(tmp_path, "prot: 1\nmax_queue: -1\nkeys:\n  - {name: a b, hash: abc}\n")
        monkeypatch.setenv("GUARD_GRACE_SECONDS", "soon")
        found = "\n".join(problems(path, port=99_999))
        assert "1: `prot`: unknown key: remove it (did you mean `port`?)" in found
        assert "2: `max_queue`: must be at least 0" in found
        assert "4: `keys[0].name`: is not of the right form" in found
        assert "4: `keys[0].hash`: is not of the right form: write what `guard serve" in found
        assert "`GUARD_GRACE_SECONDS`: must be a number" in found
        assert "`--port`: must be at most 65535" in found

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("- 1\n", "1: must hold `key: value` pairs, not a list"),
            ("port: [", "1: not valid YAML"),
            ("port: 1\nport: 2\n", "2: `port`: stands here twice"),
            ("keys: abc\n", "1: `keys`: stands in the settings file, in parts"),
            ("host: ''\n", "1: `host`: is empty"),
            ("upstream: ftp://x\n", "1: `upstream`: is not of the right form"),
            ("keys: abc\n", "1: `keys`: stands in the settings file, in parts: write a list"),
            ("trust: a.pub\n", "1: `trust`: stands in the settings file, in parts: write a list"),
            ("trust: [1]\n", "1: `trust[0]`: must be a path, as text, not `1`"),
            ("tag: []\n", "1: `tag`: must be a path, as text, not a list"),
            ("other_paths: maybe\n", "1: `other_paths`: must be `refuse` or `pass`"),
        ],
    )
    def test_a_bad_file(self, tmp_path: Path, text: str, problem: str) -> None:
        """A file's mistake is named with its line."""
        assert any(each.startswith(problem) for each in problems(write(tmp_path, text)))

    @pytest.mark.parametrize("name", ["upstream_key", "fallback_key"])
    @pytest.mark.parametrize("key", ["", "sk-SENTINEL\n", " sk-SENTINEL", "sk-SENT\0INEL"])
    def test_a_key_that_no_header_takes(self, name: str, key: str) -> None:
        """Every request would fail: it is refused at the start, and not shown."""
        backends = {"upstream": "https://a.example", "fallback_upstream": "https://b.example"}
        options: dict[str, Any] = {**backends, name: key}
        (found,) = problems(**options)
        assert found.startswith(f"`--{name.replace('_', '-')}`: no header takes it: write the key")
        with pytest.raises(ValidationError) as raised:
            ServerSettings(**options)
        assert "SENT" not in found + str(raised.value)

    @pytest.mark.parametrize("name", ["upstream", "fallback_upstream"])
    def test_no_password_in_a_backends_url(self, name: str) -> None:
        """It would be sent nowhere and shown at the start: it is refused, and not shown."""
        options: dict[str, Any] = {name: "https://ada:p4ss@models.example/v1"}
        found = "\n".join(problems(**options))
        assert f"`--{name.replace('_', '-')}`: is not of the right form" in found
        assert "no user or password" in found
        assert "p4ss" not in found
        paths = load_settings(upstream="http://[::1]:8000/models/@main")
        assert paths.upstream == "http://[::1]:8000/models/@main"

    def test_no_file(self, tmp_path: Path) -> None:
        """A file that is not there is an error, and not the defaults."""
        assert "cannot be read" in problems(tmp_path / "none.yaml")[0]

    def test_an_empty_file(self, tmp_path: Path) -> None:
        """An empty file sets nothing."""
        assert load_settings(write(tmp_path, "# nothing\n")) == ServerSettings()

    def test_values_that_may_be_secrets_are_not_shown(self, tmp_path: Path) -> None:
        """A key that was written in place of its hash, or of its entry, stays where it is."""
        path = write(tmp_path, "keys:\n  - sk-SENTINEL\n  - {name: a, hash: sk-SENTINEL}\n")
        assert "SENTINEL" not in "\n".join(problems(path))

    def test_kubernetes_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Service called `guard` sets `GUARD_PORT`; the message says how to stop it."""
        monkeypatch.setenv("GUARD_PORT", "tcp://10.0.0.1:8080")
        assert "enableServiceLinks" in problems()[0]

    def test_what_disagrees(self) -> None:
        """Settings that are each right and do not go together are named."""
        keys = [{"name": "a", "hash": HASH}, {"name": "a", "hash": HASH}]
        found = "\n".join(
            problems(
                upstream="http://x",
                demo=True,
                keys=keys,
                routes=[{"path": "/v1"}, {"path": "/V1/"}],
                max_buffer_bytes=5,
            )
        )
        assert "`upstream` and `demo`" in found
        assert "`keys[1].name`: stands further up" in found
        assert "`keys[1].hash`: stands further up" in found
        assert "`routes[1].path`: stands further up" in found
        assert "`max_buffer_bytes` is below" in found
        assert "without `upstream`" in problems(upstream_key="k")[0]


class TestClosedByDefault:
    """Without keys a server is for this machine, unless somebody says otherwise."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
    def test_loopback(self, host: str) -> None:
        """This machine alone needs no key."""
        assert load_settings(host=host).loopback

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "guard.example"])
    def test_others(self, host: str) -> None:
        """Other machines need one, or the word `--open`."""
        (problem,) = problems(host=host)
        assert "--hash-key" in problem
        assert "--open" in problem
        assert load_settings(host=host, open=True).host == host
        assert load_settings(host=host, keys=[{"name": "a", "hash": HASH}]).keys


class TestVariablesAndPolicy:
    """A variable never says what may leave."""

    @pytest.mark.parametrize(
        "name",
        [
            *(
                f"GUARD_{field.upper()}"
                for field in SecurityClass.model_fields
                if field not in ("name", "journal", "language", "live")  # settings of their own
            ),
            "GUARD_LIMITS__VIOLENCE__ACT",
            "GUARD_PUBLIC_SHADOW",
            "GUARD_SECRET_LEAK",
            "guard_on_failure",
            "GUARD_JOURNAL_TEXT",
        ],
    )
    def test_refused(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever is called like a part of a policy is refused, with the mend."""
        monkeypatch.setenv(name, "1")
        (problem,) = problems()
        assert problem.startswith(f"`{name.upper()}`: a policy is not read from variables")

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("GUARD_OPNE", "GUARD_OPEN"),
            ("GUARD_CLASS", "GUARD_SECURITY_CLASS"),
            ("GUARD_POLICY", "GUARD_SECURITY_CLASS"),
            ("GUARD_UPSTRAEM", "GUARD_UPSTREAM"),
        ],
    )
    def test_slips(self, name: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A misspelt setting is refused, with the one that was meant."""
        monkeypatch.setenv(name, "1")
        assert meant in problems()[0]

    def test_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable of some other program is passed over."""
        monkeypatch.setenv("GUARD_NOTIFY_DESKTOP_BANNER", "1")
        assert load_settings() == ServerSettings()

    def test_parts_are_not_read_from_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clients and routes stand in the file, where each has its line."""
        monkeypatch.setenv("GUARD_KEYS", "[]")
        assert problems() == [
            "`GUARD_KEYS`: stands in the settings file, in parts: it is not read from a variable"
        ]
