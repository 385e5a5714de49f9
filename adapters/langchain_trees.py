"""The chat models in what the framework builds: each is changed where it stands.

Models are found in the fields of runnables, in alternatives that are made at the call, and in
what a model becomes by fields that are set at the call. What holds a model in any other way, such
as a function or a graph, is refused: it would answer unguarded beside those that were changed.

This module does not know what a model is changed into.
"""

# ruff: noqa: SLF001  # the framework's own classes override these methods

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.configurable import (
    RunnableConfigurableAlternatives,
    RunnableConfigurableFields,
)
from langchain_core.runnables.utils import get_function_nonlocals
from pydantic import BaseModel, Field

from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GRAPHS: Final = "langgraph.pregel"
"""Where graphs come from, whose nodes may call any model."""

_MAKER: Final = "_ConfigurableModel"
"""What `init_chat_model` returns where the model is named only at the call."""


class Tree:
    """Changes the chat models in runnables.

    Args:
        change: returns what stands in the place of a model.
        closed: types of what is guarded, into which nobody looks.
    """

    def __init__(
        self,
        change: Callable[[BaseChatModel], BaseChatModel],
        closed: tuple[type[Runnable[Any, Any]], ...],
    ) -> None:
        """Look at nothing yet."""
        self._change = change
        self._closed = closed

    def changed(self, value: Any) -> Any:
        """Return `value` with each chat model in it changed, the same object where there is none.

        Raises:
            InputError: there is a model in it that cannot be changed.
        """
        if isinstance(value, BaseChatModel):
            return self._change(value)
        if isinstance(value, RunnableConfigurableFields):
            return self._configurable(value)
        if isinstance(value, RunnableConfigurableAlternatives):
            return self._alternatives(value)
        if isinstance(value, dict | list | tuple):
            return self._collected(value)
        if _has_fields(value):
            return self._runnable(value)
        self._require_guarded(value)
        return value

    def later(self, made: Any) -> Any:
        """As `changed`, for what is made at a call: a model that is guarded by then stays."""
        change = self._change

        def kept(model: BaseChatModel) -> BaseChatModel:
            return model if isinstance(model, self._closed) else change(model)

        return Tree(kept, self._closed).changed(made)

    def _collected(self, value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Any:
        if isinstance(value, dict):
            changed = {key: self.changed(inner) for key, inner in value.items()}
            return changed if any(changed[key] is not value[key] for key in value) else value
        items = [self.changed(inner) for inner in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)

    def _runnable(self, value: Any) -> Any:
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        self._require_guarded([value.__pydantic_private__, value.__pydantic_extra__])
        changes = {n: new for n, old in fields.items() if (new := self.changed(old)) is not old}
        return value.model_copy(update=changes) if changes else value

    def _alternatives(self, value: RunnableConfigurableAlternatives[Any, Any]) -> Any:
        """Return alternatives with those changed that are made at the call, too."""
        given = value.alternatives
        changed = {
            key: self.changed(each) if isinstance(each, Runnable) else self._made(each)
            for key, each in given.items()
        }
        default = self.changed(value.default)
        if default is value.default and all(changed[key] is given[key] for key in given):
            return value
        return value.model_copy(update={"default": default, "alternatives": changed})

    def _made(self, make: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: self.later(make())

    def _configurable(self, value: RunnableConfigurableFields[Any, Any]) -> Any:
        """Return what sets its fields at the call, and has the outcome changed."""
        default = self.changed(value.default)
        options = [dict(getattr(spec, "options", {})) for spec in value.fields.values()]
        if default is value.default and self.later(options) is options:
            return value
        return _Configurable(
            default=default, fields=value.fields, config=value.config, bare=value, tree=self
        )

    def _require_guarded(self, value: Any) -> None:
        """Raise `InputError` if a model can be reached by way of what cannot be changed."""
        for found in self._bare(value, {}):
            raise InputError(_refusal(found))

    def _bare(self, value: Any, seen: dict[int, Any]) -> Iterator[Any]:
        """Yield what answers unguarded in what is held by `value`."""
        if id(value) in seen or isinstance(value, self._closed):
            return
        # The object is kept, so that no other one comes by its identifier.
        seen[id(value)] = value
        if isinstance(value, BaseLanguageModel) or _is_graph(value) or _is_maker(value):
            yield value
            return
        for inner in _held(value):
            yield from self._bare(inner, seen)


class _Configurable(RunnableConfigurableFields):  # type: ignore[type-arg]  # as pydantic wants
    """Fields that are set at the call of what is guarded.

    Attributes:
        bare: the same unguarded, which has the fields.
        tree: guards what comes of it.
    """

    bare: Any = Field(exclude=True, repr=False)
    tree: Any = Field(exclude=True, repr=False)

    @property
    def config_specs(self) -> Any:
        """What can be set."""
        return self.bare.config_specs

    def configurable_fields(self, **kwargs: Any) -> Any:
        """Have more fields set at the call."""
        return self.tree.later(self.bare.configurable_fields(**kwargs))

    def _prepare(
        self, config: RunnableConfig | None = None
    ) -> tuple[Runnable[Any, Any], RunnableConfig]:
        made, prepared = self.bare._prepare(config)
        found = self.default if made is self.bare.default else self.tree.later(made)
        return found, prepared


def _has_fields(value: Any) -> bool:
    """Return whether a runnable can be copied with other fields."""
    is_model = isinstance(value, BaseLanguageModel)
    return isinstance(value, Runnable) and isinstance(value, BaseModel) and not is_model


def _is_graph(value: Any) -> bool:
    homes = [base.__module__ for base in type(value).__mro__]
    return any(f"{home}.".startswith(f"{_GRAPHS}.") for home in homes)


def _is_maker(value: Any) -> bool:
    return isinstance(value, Runnable) and type(value).__name__ == _MAKER


def _held(value: Any) -> list[Any]:
    """Return what may hold a model in an object, or be one."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, BaseModel):
        return [*vars(value).values(), value.__pydantic_private__, value.__pydantic_extra__]
    return list(vars(value).values()) if isinstance(value, Runnable) else _named(value)


def _named(function: Any) -> list[Any]:
    """Return what a function may call: what it is bound to, and what it names.

    Not what other functions name, which is all of the libraries that are called.
    """
    if isinstance(function, partial):
        return [function.func, *function.args, *function.keywords.values()]
    if inspect.ismethod(function):
        owner = function.__self__
        return [*([owner] if isinstance(owner, Runnable) else []), function.__func__]
    named = get_function_nonlocals(function) if inspect.isfunction(function) else []
    return [each for each in named if not inspect.isfunction(each)]


def _refusal(found: Any) -> str:
    """Return why something cannot be guarded, and how that is mended."""
    name = type(found).__name__
    if _is_maker(found):
        return (
            "a model that `init_chat_model` makes at each call cannot be guarded: name the model "
            "when you make it, without `configurable_fields`, wrap that, and let "
            "`configurable_alternatives` choose between such models"
        )
    if isinstance(found, BaseLanguageModel) and not isinstance(found, BaseChatModel):
        return (
            f"`{name}` completes texts and is no chat model, so that it cannot be guarded in its "
            "place: use a chat model, or put the whole chain into `GuardRunnable`"
        )
    return (
        f"there is a `{name}` that cannot be guarded where it stands, in a function, a graph or "
        "an object that is no chain: wrap the model before you build with it, give an agent "
        "`GuardMiddleware`, or put the whole chain into `GuardRunnable`"
    )
