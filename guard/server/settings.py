"""The settings of a server's process: where it listens, what stands behind it, its limits.

They come from options, then `GUARD_*` variables, then a YAML file. None of them says what a
response may carry: that is a policy file's alone, and a variable that looks as if it did is
refused (`guard.server.configuration`).

This module does not know how any setting is used, and loads no policy.
"""

from __future__ import annotations

import ipaddress
import re
from contextvars import ContextVar
from pathlib import Path  # noqa: TC003  # pydantic reads it
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource  # noqa: TC002  # read at runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "GUARD_"
"""What the variables begin with."""

HASH: Final = r"^sha256:[0-9a-f]{64}$"
"""What a hashed key looks like; `guard serve --hash-key` prints one."""

LABEL: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
PATH: Final = r"^/[\x21-\x7e]*$"
HTTP_URL: Final = r"^https?://[^\s?#/@]+(/[^\s?#]*)?$"
HOOK_URL: Final = r"^https?://[^\s?#]+(\?[^\s#]*)?$"

SECRET: Final = ("fallback_key", "keys", "review", "upstream_key", "webhook", "webhook_secret")
"""Settings whose values no message shows; webhooks often have a token in their URL."""

_BY_FILE: Final = ("deployed", "fallback_deployed", "keys", "review", "routes", "trust")
"""Settings with parts; they are read from the file alone."""

_IN_PARTS: Final = "write a list or `key: value` pairs, not one text"

_SENDABLE: Final = r"[\x21-\x7e]+"
"""A key that backends can be sent; a file's last line break is none of it."""

NOTHING: Final = "none"
"""What the settings `journal` and `live` say for nowhere."""

FILE_VALUES: Final[ContextVar[Mapping[str, Any]]] = ContextVar(
    "file_values", default=MappingProxyType({})
)
"""What the settings file says, while settings are read."""

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Label = Annotated[str, StringConstraints(pattern=LABEL)]
Source = Annotated[str, StringConstraints(min_length=1)]


class Rule(BaseModel):
    """What holds for some of the requests.

    Attributes:
        security_class: under which they are judged; the server's by default.
        upstream_model: the model that they are sent to, whichever they ask for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    security_class: Source | None = None
    upstream_model: Source | None = None


class ClientKey(Rule):
    """A client that may call the server, known by the hash of its key.

    Attributes:
        name: what logs call the client.
        hash: `sha256:` and the digest of the key; `guard serve --hash-key` prints it.
    """

    name: Label
    hash: Annotated[str, StringConstraints(pattern=HASH)]


class RouteRule(Rule):
    """What holds for requests whose path is or begins with `path`.

    Attributes:
        path: such as `/v1/responses`, in any case; whole segments count, and the longest rule
            that fits.
    """

    path: Annotated[str, StringConstraints(pattern=PATH)]

    def fits(self, path: str) -> bool:
        """Return whether the rule is about `path`."""
        return f"{path}/".casefold().startswith(self._begins)

    def within(self, path: str) -> bool:
        """Return whether the rule is about what `path` ends with, behind any prefix."""
        return self._begins in f"{path}/".casefold()

    @property
    def _begins(self) -> str:
        return f"{self.path.rstrip('/')}/".casefold()


class Deployed(BaseModel):
    """Which model stands behind the server; a tag is good for this one alone.

    Attributes:
        model: its id; every request is sent to it, whichever it asks for.
        system_prompt: a file with the exact text that applications send; none by default.
        adapter: the file or directory of its adapter's weights; none by default.
        tools: a file with its tools, a JSON list as the backend gets them; none by default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Source
    system_prompt: Path | None = None
    adapter: Path | None = None
    tools: Path | None = None


class ReviewPages(BaseModel):
    """Pages on which people read the journal and say which flags were right.

    Attributes:
        keys: the hashes of the keys that open them; `guard serve --hash-key` prints one.
        labels: the file that labels are added to; without it the pages are for reading only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[Annotated[str, StringConstraints(pattern=HASH)], ...]
    labels: Path | None = None


class ServerSettings(BaseSettings):
    """Everything about the process and nothing about what a response may carry.

    Attributes:
        host: the address to listen on.
        port: the port; 0 for any that is free.
        security_class: a built-in class's name or a policy file (`file.yaml#name`).
        model: a classifier's directory; the bundled one by default.
        journal: a path or SQLAlchemy URL; `none` for no journal; by default a file in the
            user's state directory.
        live: a path or Redis URL where the live risk is kept; `none` not to follow it; by default
            in memory. Only classes with a `live` section are followed.
        language: the language tag of messages to end users.
        upstream: the base URL of the backend to guard, such as `https://api.openai.com`.
        upstream_key: sent to the backend in place of what the client sent.
        demo: answer from the scripted backend.
        fallback_upstream: the base URL of the backend that answers in place of the other while an
            alarm of the live risk asks for a `fallback`; without it everything is blocked then.
        fallback_key: sent to that backend; nothing that a client sent as a key is.
        fallback_model: the model that requests to it are sent to, whichever they ask for.
        fallback_deployed: which model stands there; a class that demands a tag demands one of it.
        fallback_tag: the file of its signed tag.
        webhook: a URL that is told of every alarm that is raised or cleared.
        webhook_secret: signs what the webhook gets; shared with its receiver.
        deployed: which model stands behind the server.
        tag: the file of the signed tag that says up to which class it may be deployed.
        trust: the files of the public keys of those whose signature counts.
        other_paths: whether the proxy refuses or passes paths that it cannot guard.
        open: serve without client keys, whoever can reach the address.
        keys: the clients that may call.
        routes: what holds for single paths.
        review: pages at `/guard/review` on which people read the journal; none by default.
        max_body_bytes: of one request's body.
        max_buffer_bytes: of the bodies of all requests that are being served or wait.
        max_headers: header fields of a request.
        max_header_bytes: names and values together.
        max_json_depth: how deep arrays and objects of a body may be nested.
        max_in_flight: requests that are served at a time; streams count until they end.
        max_queue: requests that wait for their turn; more are told to come back.
        queue_seconds: how long a request waits for its turn.
        body_seconds: how long a request's body may take to arrive.
        answer_seconds: how long an answer of the service's own may take.
        send_seconds: how long a client may read nothing of its answer.
        upstream_seconds: how long the backend may be silent.
        grace_seconds: how long running requests may go on after SIGTERM.
        reload_seconds: how often policy files are looked at for changes; 0 for on SIGHUP alone.
        log_level: of the server's own events.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        enable_decoding=False,
        hide_input_in_errors=True,
    )

    host: Annotated[str, StringConstraints(min_length=1)] = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    security_class: Source = "public"
    model: Path | None = None
    journal: Source | None = None
    live: Source | None = None
    language: Source | None = None
    upstream: Annotated[str, StringConstraints(pattern=HTTP_URL)] | None = None
    upstream_key: SecretStr | None = None
    demo: bool = False
    fallback_upstream: Annotated[str, StringConstraints(pattern=HTTP_URL)] | None = None
    fallback_key: SecretStr | None = None
    fallback_model: Source | None = None
    fallback_deployed: Deployed | None = None
    fallback_tag: Path | None = None
    webhook: Annotated[str, StringConstraints(pattern=HOOK_URL)] | None = Field(
        default=None, repr=False
    )
    webhook_secret: SecretStr | None = None
    deployed: Deployed | None = None
    tag: Path | None = None
    trust: tuple[Path, ...] = ()
    other_paths: Literal["refuse", "pass"] = "refuse"
    open: bool = False
    keys: tuple[ClientKey, ...] = ()
    routes: tuple[RouteRule, ...] = ()
    review: ReviewPages | None = None
    max_body_bytes: int = Field(default=8 << 20, ge=1, le=1 << 30)
    max_buffer_bytes: int = Field(default=256 << 20, ge=1, le=1 << 36)
    max_headers: int = Field(default=100, ge=1, le=10_000)
    max_header_bytes: int = Field(default=32 << 10, ge=1, le=1 << 20)
    max_json_depth: int = Field(default=64, ge=1, le=500)
    max_in_flight: int = Field(default=256, ge=1, le=100_000)
    max_queue: int = Field(default=256, ge=0, le=100_000)
    queue_seconds: Seconds = 10.0
    body_seconds: Seconds = 30.0
    answer_seconds: Seconds = 60.0
    send_seconds: Seconds = 60.0
    upstream_seconds: Seconds = 120.0
    grace_seconds: Seconds = 30.0
    reload_seconds: float = Field(default=2.0, ge=0, le=86_400, allow_inf_nan=False)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # there is no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, the first that has one counts."""
        file = InitSettingsSource(settings_cls, dict(FILE_VALUES.get()))
        return init_settings, env_settings, file

    @field_validator(*_BY_FILE, mode="before")
    @classmethod
    def _only_by_file(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            in_file = FILE_VALUES.get().get(info.field_name or "") == value
            mend = _IN_PARTS if in_file else "it is not read from a variable"
            text = f"stands in the settings file, in parts: {mend}"
            raise ValueError(text)  # noqa: TRY004  # pydantic takes no other
        return value

    @field_validator("upstream_key", "fallback_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(_SENDABLE, value.get_secret_value()):
            text = "no header takes it: write the key alone, without spaces and line breaks"
            raise ValueError(text)
        return value

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every security class that some request may be judged under, the default first."""
        rules: tuple[Rule, ...] = (*self.keys, *self.routes)
        named = [rule.security_class for rule in rules]
        return tuple(dict.fromkeys([self.security_class, *filter(None, named)]))

    @property
    def stand_in_model(self) -> str | None:
        """The model that requests to the fallback are sent to; `None` for as to the other."""
        return self.fallback_deployed.model if self.fallback_deployed else self.fallback_model

    def route(self, path: str) -> RouteRule | None:
        """Return the longest rule that fits `path`, `None` where none does."""
        fitting = [rule for rule in self.routes if rule.fits(path)]
        return max(fitting, key=lambda rule: len(rule.path), default=None)

    def paths(self, path: str, endpoint: str | None = None) -> tuple[str, ...]:
        """Return the paths whose rules hold for a request: its own, and those it may be taken for.

        Backends serve what is guarded behind prefixes or without `/v1`, too. A rule about that is
        not evaded by another way of writing it: it holds unless a rule that is as long fits the
        path itself.

        Args:
            path: of the request.
            endpoint: the vendor's own path of what it asks for; `None` where it is not guarded.
        """
        if endpoint is None:
            return (path,)
        own = self.route(path)
        longest = len(own.path) if own else 0
        also = [rule for rule in self.routes if rule.within(path) or rule.fits(endpoint)]
        longer = sorted({rule.path for rule in also}, key=len, reverse=True)
        return (*(each for each in longer if len(each) > longest), path)


def is_loopback(host: str) -> bool:
    """Return whether a host is reached from this machine alone; names are not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
