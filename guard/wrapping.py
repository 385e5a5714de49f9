"""`guard.wrap`: knows a client by where its class comes from, without importing any SDK.

This module does not know how any of them is guarded: that is in `guard.adapters`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from guard.errors import InputError

if TYPE_CHECKING:
    from guard.engine import Guard

_Target = TypeVar("_Target")

ADAPTERS: Final = {
    "openai": "guard.adapters.openai",
    "anthropic": "guard.adapters.anthropic",
}
"""The adapter's module by the package that a class, or one that it derives from, comes from."""


def wrap(guard: Guard, target: _Target, **options: Any) -> _Target:
    """Return `target`, guarded, of the same type; see `Guard.wrap`."""
    for base in type(target).__mro__:
        package = base.__module__.partition(".")[0]
        if package in ADAPTERS:
            adapter: Any = import_module(ADAPTERS[package])
            guarded: _Target = adapter.wrap(guard, target, **options)
            return guarded
    raise InputError(
        f"`{type(target).__name__}` is nothing that can be wrapped: give a client of "
        f"{', '.join(ADAPTERS)}, or use `guard.protect` for any callable"
    )
