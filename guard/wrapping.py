"""`guard.wrap`: knows a client by where its class comes from, without importing any SDK.

This module does not know how any of them is guarded: that is in `guard.adapters`.
"""

from __future__ import annotations

from importlib import import_module
from inspect import Parameter, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from guard.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guard.engine import Guard

_Target = TypeVar("_Target")

ADAPTERS: Final = {
    "openai": "guard.adapters.openai",
    "anthropic": "guard.adapters.anthropic",
    "langchain_core": "guard.adapters.langchain",
    "pydantic_ai": "guard.adapters.pydantic_ai",
    "haystack": "guard.adapters.haystack",
    "llama_index": "guard.adapters.llama_index",
    "agents.models.interface": "guard.adapters.openai_agents",
    "litellm": "guard.adapters.litellm",
    "transformers": "guard.adapters.transformers",
    "starlette.applications": "guard.adapters.asgi",
    "flask.app": "guard.adapters.wsgi",
}
"""The adapter's module by the package that a class, what it derives from or its type comes from."""

_GIVEN: Final = ("guard", "app", "inner", "unguardable")
"""What an adapter gives to its `OPTIONS_OF` by itself."""

_CATCH_ALL: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

_CLIENTS: Final = ("litellm",)
"""Packages that are clients themselves, by their functions."""


def wrap(guard: Guard, target: _Target, **options: Any) -> _Target:
    """Return `target`, guarded, of the same type; see `Guard.wrap`."""
    # Some frameworks mark the classes of their components by a type of their own.
    homes = [base.__module__ for base in (*type(target).__mro__, type(type(target)))]
    if isinstance(target, ModuleType) and target.__name__.partition(".")[0] in _CLIENTS:
        homes.insert(0, target.__name__)
    for module in filter(None, map(_adapter, homes)):
        adapter: Any = import_module(module)
        refuse_unknown(options, _options_of(adapter))
        guarded: _Target = adapter.wrap(guard, target, **options)
        return guarded
    raise InputError(
        f"`{type(target).__name__}` is nothing that can be wrapped: give a client or a "
        f"model of {', '.join(ADAPTERS)}, or use `guard.protect` for any callable, "
        "`guard.adapters.asgi.GuardASGI` or `guard.adapters.wsgi.GuardWSGI` for an application"
    )


def refuse_unknown(options: Iterable[str], known: set[str]) -> None:
    """Refuse an option that an adapter does not know; some frameworks would take no notice.

    Raises:
        InputError: it says which options there are.
    """
    for name in options:
        if name not in known:
            taken = ", ".join(f"`{one}`" for one in sorted(known)) or "none"
            hint = did_you_mean(name, known) or f": it takes {taken}"
            raise InputError(f"unknown option `{name}`{hint}")


def _options_of(adapter: Any) -> set[str]:
    """Return the names of the options that an adapter's `wrap` takes, or passes on."""
    own = [*signature(adapter.wrap).parameters.values()][2:]  # behind the guard and the target
    taker = getattr(adapter, "OPTIONS_OF", None)
    more = () if taker is None else signature(taker).parameters.values()
    return {one.name for one in (*own, *more) if one.kind not in _CATCH_ALL} - {*_GIVEN}


def _adapter(module: str) -> str | None:
    """Return the adapter for classes of a module."""
    known = (name for name in ADAPTERS if f"{module}.".startswith(f"{name}."))
    return next((ADAPTERS[name] for name in known), None)
