"""Reads a server's settings from options, variables and a file, and names all that is wrong.

A variable never says what a response may carry: one that is called like a part of a policy is
refused, and so is one that looks like a slip of a setting.

This module does not know how any setting is used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from guard import yaml_lines
from guard.categories import CATEGORIES
from guard.errors import ConfigurationError, did_you_mean
from guard.live.notify import SHORTEST_SECRET
from guard.log import Log
from guard.policy_problems import given, sentence
from guard.security_class import SecurityClass
from guard.server.settings import (
    FILE_VALUES,
    HASH,
    HOOK_URL,
    HTTP_URL,
    LABEL,
    NOTHING,
    PATH,
    PREFIX,
    SECRET,
    ClientKey,
    Deployed,
    ReviewPages,
    RouteRule,
    Rule,
    ServerSettings,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

CONFIG: Final = "GUARD_CONFIG"
"""The variable that names the settings file."""

_MENDS: Final = {
    HASH: "write what `guard serve --hash-key` prints, never the key itself",
    LABEL: "use letters, digits, `.`, `_` and `-`",
    PATH: "begin with `/`",
    HTTP_URL: (
        "write `http://` or `https://`, a host, no query, and no user or password: a key stands in "
        "`upstream_key` or `fallback_key`, and what a client sends as `authorization` goes on"
    ),
    HOOK_URL: "write `https://` or `http://`, a host, and no fragment",
}

_SLIPS: Final[Mapping[str, str]] = dict.fromkeys(
    ("GUARD_CLASS", "GUARD_POLICY"), " (did you mean `GUARD_SECURITY_CLASS`?)"
)

_log: Final = Log()


def load_settings(config: str | Path | None = None, **options: Any) -> ServerSettings:
    """Read the settings.

    Args:
        config: the settings file; by default the one that `GUARD_CONFIG` names, else none.
        options: settings that were given on the command line; `None` counts as not given.

    Raises:
        ConfigurationError: everything that is wrong, each with its place and mend.
    """
    path = config or os.environ.get(CONFIG)
    document = yaml_lines.read(Path(path)) if path else yaml_lines.Document()
    place = _Place(str(path or ""), document, {k: v for k, v in options.items() if v is not None})
    problems = [*place.of_file(), *_unknown_variables()]
    settings: ServerSettings | None = None
    try:
        settings = _read(place)
    except ValidationError as error:
        problems += [place.problem(each) for each in error.errors(include_url=False)]
    if settings is not None:
        problems += _disagreements(settings)
    if problems or settings is None:
        raise ConfigurationError(problems)
    return settings


class _Place:
    """Where each setting came from, for the sentences about what is wrong with it."""

    def __init__(
        self, path: str, document: yaml_lines.Document, options: Mapping[str, Any]
    ) -> None:
        self.options = options
        self._path = path
        self._document = document

    @property
    def values(self) -> dict[str, Any]:
        """What the file says; nothing where it is no settings file."""
        value = self._document.value
        return value if isinstance(value, dict) else {}

    def of_file(self) -> Iterator[str]:
        """Yield what is wrong with the file as such."""
        for line, at, text in self._document.problems:
            yield f"{self._path}:{line}: {_dotted(at)}{text.replace('policy', 'settings')}"
        value = self._document.value
        if value is not None and not isinstance(value, dict):
            yield f"{self._path}:1: must hold `key: value` pairs, not {given(value)}"

    def problem(self, error: Any) -> str:
        """Return a sentence about one of pydantic's errors."""
        location = tuple(error["loc"])
        text = _sentence(error, _keys_at(location))
        name = str(location[0]) if location else ""
        variable = f"{PREFIX}{name}".upper()
        if name in self.options:
            return f"`--{name.replace('_', '-')}`: {text}"
        if variable in map(str.upper, os.environ):
            return f"`{variable}`: {_of_variable(name, text)}"
        line = self._document.line(location)
        return f"{self._path}:{line}: {_dotted(location)}{text}"


def _read(place: _Place) -> ServerSettings:
    token = FILE_VALUES.set(place.values)
    try:
        return ServerSettings(**place.options)
    finally:
        FILE_VALUES.reset(token)


def _sentence(error: Any, keys: Sequence[str]) -> str:
    """Return what is wrong and its mend, without a value that may be a secret."""
    pattern = error.get("ctx", {}).get("pattern")
    if pattern in _MENDS:
        return f"is not of the right form: {_MENDS[pattern]}"
    kind = error["type"].replace("_parsing", "_type")
    value = "***" if error["loc"] and error["loc"][0] in SECRET else error["input"]
    return sentence({**error, "type": kind, "input": value}, keys)


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    parts: dict[str, type[BaseModel]] = {
        "deployed": Deployed,
        "fallback_deployed": Deployed,
        "keys": ClientKey,
        "review": ReviewPages,
        "routes": RouteRule,
    }
    inside = parts.get(str(location[0])) if len(location) > 1 else None
    return list((inside or ServerSettings).model_fields)


def _of_variable(name: str, text: str) -> str:
    """Add the one cause that nobody would guess: a Service of Kubernetes sets variables, too."""
    if name == "port" and os.environ.get("GUARD_PORT", "").startswith("tcp://"):
        return (
            f"{text}; Kubernetes sets it where a Service is called `guard`: "
            "set `enableServiceLinks: false` in the pod"
        )
    return text


def _dotted(location: Iterable[str | int]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    place = "".join(parts).removeprefix(".")
    return f"`{place}`: " if place else ""


def _unknown_variables() -> Iterator[str]:
    """Yield a problem for each unknown variable that would be missed: a slip, or a policy's."""
    known = [f"{PREFIX}{name}".upper() for name in ServerSettings.model_fields]
    for name in sorted(map(str.upper, os.environ)):
        if not name.startswith(PREFIX) or name in (*known, CONFIG):
            continue
        if _is_of_policy(name.removeprefix(PREFIX)):
            yield (
                f"`{name}`: a policy is not read from variables, which could weaken it unseen: "
                "change the policy file and unset the variable"
            )
        elif hint := _SLIPS.get(name) or did_you_mean(name, known):
            yield f"`{name}`: unknown setting: unset it{hint}"
        else:
            _log.warning("guard.unknown_variable", name=name)


def _is_of_policy(name: str) -> bool:
    """Return whether a variable is called like something that only a policy file says."""
    words = {word.upper() for word in (*SecurityClass.model_fields, *CATEGORIES)} - {"NAME"}
    # `GUARD_LIMITS__VIOLENCE__ACT` and `GUARD_PUBLIC_SHADOW` are meant as well.
    return any(f"_{word}_" in f"_{name}_" for word in words)


def _disagreements(settings: ServerSettings) -> Iterator[str]:
    """Yield what is wrong with settings that are each right by themselves."""
    if settings.upstream and settings.demo:
        yield "`upstream` and `demo` are both given: leave one out"
    if settings.upstream_key and not settings.upstream:
        yield "`upstream_key` is given without `upstream`: add the backend's URL"
    if not settings.keys and not settings.loopback and not settings.open:
        yield (
            f"`host` {settings.host} can be reached from other machines and there are no client "
            "keys: add `keys` to the settings file (`guard serve --hash-key`), listen on "
            "127.0.0.1, or say `--open` if whoever can reach it may call it"
        )
    if settings.max_buffer_bytes < settings.max_body_bytes:
        yield "`max_buffer_bytes` is below `max_body_bytes`: no such body could be served"
    if settings.tag and not settings.deployed:
        yield "`tag` is given without `deployed`: say in the settings file which model it is for"
    yield from _of_fallback(settings)
    yield from _of_webhook(settings)
    yield from _other_models(settings)
    yield from _of_review(settings)
    yield from _twice("keys", "name", [key.name for key in settings.keys])
    yield from _twice("keys", "hash", [key.hash for key in settings.keys])
    paths = [rule.path.rstrip("/").casefold() for rule in settings.routes]
    yield from _twice("routes", "path", paths)


def _of_fallback(settings: ServerSettings) -> Iterator[str]:
    """Yield what is wrong about the backend that an alarm may ask for."""
    if settings.fallback_upstream is None:
        for name in ("fallback_key", "fallback_model", "fallback_deployed", "fallback_tag"):
            if getattr(settings, name) is not None:
                yield f"`{name}` is given without `fallback_upstream`: add that backend's URL"
        return
    if not settings.upstream and not settings.demo:
        yield "`fallback_upstream` is given without `upstream`: it stands in for nothing"
    same = (settings.upstream or "").rstrip("/") == settings.fallback_upstream.rstrip("/")
    if same and settings.stand_in_model is None:
        yield (
            "`fallback_upstream` is the backend that it would stand in for: name another, or "
            "another model of it (`fallback_model`)"
        )
    deployed = settings.fallback_deployed
    if settings.fallback_tag and not deployed:
        yield "`fallback_tag` is given without `fallback_deployed`: say which model it is for"
    if deployed and settings.fallback_model not in (None, deployed.model):
        yield (
            "`fallback_model`: `fallback_deployed` is another model, and every request is sent to "
            "that: remove it"
        )


def _of_webhook(settings: ServerSettings) -> Iterator[str]:
    secret = settings.webhook_secret
    if settings.webhook is None:
        if secret is not None:
            yield "`webhook_secret` is given without `webhook`: add the URL that is told of alarms"
        return
    if secret is None:
        yield (
            "`webhook` is given without `webhook_secret`: its receiver could not tell our alarms "
            "from anybody's; set it here or as `GUARD_WEBHOOK_SECRET`"
        )
    elif len(secret.get_secret_value().encode()) < SHORTEST_SECRET:
        yield f"`webhook_secret` needs at least {SHORTEST_SECRET} characters: make a longer one"


def _of_review(settings: ServerSettings) -> Iterator[str]:
    """Yield what is wrong about the pages for people."""
    if settings.review is None:
        return
    if settings.journal == NOTHING:
        yield "`review` is given and `journal` is `none`: there would be nothing to read"
    if not settings.review.keys:
        yield "`review.keys` is empty, so that nobody could sign in: `guard serve --hash-key`"
    clients = {key.hash for key in settings.keys}
    for number, given_hash in enumerate(settings.review.keys):
        if given_hash in clients:
            yield (
                f"`review.keys[{number}]`: is a client's key, too, which must not open the pages: "
                "make one of its own with `guard serve --hash-key`"
            )
        if given_hash in settings.review.keys[:number]:
            yield f"`review.keys[{number}]`: stands further up, too: remove one"


def _other_models(settings: ServerSettings) -> Iterator[str]:
    """Yield a problem for each rule that would send requests past the model that is deployed."""
    parts: dict[str, Sequence[Rule]] = {"keys": settings.keys, "routes": settings.routes}
    deployed = settings.deployed.model if settings.deployed else None
    for name, rules in parts.items():
        for number, rule in enumerate(rules):
            if deployed and rule.upstream_model not in (None, deployed):
                yield (
                    f"`{name}[{number}].upstream_model`: `deployed` is another model, and every "
                    "request is sent to that: remove it"
                )


def _twice(setting: str, part: str, values: Sequence[str]) -> Iterator[str]:
    for number, value in enumerate(values):
        if value in values[:number]:
            yield f"`{setting}[{number}].{part}`: stands further up, too: remove one"
