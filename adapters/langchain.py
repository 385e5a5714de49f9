"""LangChain and LangGraph, guarded: no callback, tracer, stream or state sees a raw answer.

    from guard import Guard
    from langchain_openai import ChatOpenAI

    model = Guard.load("public").wrap(ChatOpenAI(model="gpt-5.5"))

`GuardedChatModel` is a chat model like the one that it wraps, and `GuardRunnable` a chain that
gives text; `GuardMiddleware` guards the model and the tools of `create_agent`, and
`RiskDecisions` gives the classifiers as a decision model. The last two load on first use, since
they need more of the framework.

This module does not know how a message is read (`guard.adapters.langchain_messages`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from guard.errors import InputError, MissingExtraError

try:
    from langchain_core.runnables import Runnable

    from guard.adapters.langchain_chains import GuardRunnable
    from guard.adapters.langchain_models import GuardedChatModel, guarded_tree
except ImportError as error:
    raise MissingExtraError(error.name or "langchain-core", "langchain") from error

if TYPE_CHECKING:
    from guard.adapters.langchain_agents import GuardMiddleware
    from guard.adapters.langchain_decisions import RiskDecisions
    from guard.engine import Guard

__all__ = ["GuardMiddleware", "GuardRunnable", "GuardedChatModel", "RiskDecisions", "wrap"]

_Target = TypeVar("_Target")

OPTIONS_OF: Final = GuardedChatModel
"""Whose parameters the further options of `wrap` are."""

_LATER = {
    "GuardMiddleware": "guard.adapters.langchain_agents",
    "RiskDecisions": "guard.adapters.langchain_decisions",
}


def wrap(guard: Guard, target: _Target, **options: Any) -> _Target:
    """Return a chat model, guarded, or a chain with each of its chat models guarded.

    Args:
        guard: judges.
        target: a chat model, or a chain of runnables with one in it.
        options: fields of `GuardedChatModel`.

    Raises:
        InputError: there is no chat model in it that could be seen, or it is guarded already.
    """
    if isinstance(target, Runnable):
        guarded: _Target | None = guarded_tree(guard, target, options)
        if guarded is not None:
            return guarded
    raise InputError(
        f"there is no chat model to be seen in `{type(target).__name__}`: wrap the model before "
        "you build with it, give an agent `GuardMiddleware`, or put a chain that gives text into "
        "`GuardRunnable`"
    )


def __getattr__(name: str) -> Any:
    """Load what needs more of the framework than its core."""
    if name not in _LATER:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    from importlib import import_module  # noqa: PLC0415  # needed here alone

    return getattr(import_module(_LATER[name]), name)
