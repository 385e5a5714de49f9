"""What an audit asks: any Python callable, a `transformers` model, a server of OpenAI's format.

    python:module:callable      messages -> text, sync or async
    transformers:PATH_OR_NAME   a chat model, loaded here
    openai:URL                  see `guard.audit.openai_backend`
    scripted                    two built-in fakes: see `guard.audit.scripted_models`

A backend gets the whole conversation each time and gives one reply. Whatever it raises that is
no `BackendError` stops the audit too: an answer that went missing would look like a good one.

This module does not know probes, and nothing about what an answer shows.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from guard.audit.answers import Said
from guard.audit.errors import BackendError
from guard.errors import InputError, MissingExtraError
from guard.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Tools = Sequence[Mapping[str, Any]]

KINDS: Final = ("openai:URL", "python:module:callable", "transformers:PATH", "scripted")
"""How a backend is named."""


class UnansweredError(Exception):
    """The backend declines this one question; the others may go on.

    Args:
        reason: a few words without anything of the question or the answer.
    """


class Backend(Protocol):
    """Whatever is asked.

    Attributes:
        takes_tools: whether it can be given tools.
        at_once: how many questions it takes at a time; `None` for as many as are asked.
    """

    @property
    def takes_tools(self) -> bool: ...  # noqa: D102  # described above

    @property
    def at_once(self) -> int | None: ...  # noqa: D102

    async def reply(self, said: Sequence[Said], tools: Tools) -> Said:
        """Return what the model says next.

        Args:
            said: the conversation so far, a system prompt first where there is one.
            tools: what it may call, in the form of OpenAI's `tools`.

        Raises:
            UnansweredError: it declines this question.
            BackendError: it cannot be asked.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class CallableBackend:
    """Asks a Python callable: `messages -> text`, sync or async.

    It gets a list of `{"role": ..., "content": ...}` and returns a text or a message of OpenAI's
    form. Where it has a parameter `tools`, it is given the tools, and may return tool calls.

    Args:
        function: the callable; a sync one is called in threads.
    """

    at_once: int | None = None

    def __init__(self, function: Callable[..., Any]) -> None:
        """Look at its parameters."""
        self._function = function
        self.takes_tools = _has_parameter(function, "tools")

    async def reply(self, said: Sequence[Said], tools: Tools) -> Said:
        """Return what the callable says next; see `Backend`."""
        messages = [message_of(item) for item in said]
        extra = {"tools": list(tools)} if self.takes_tools else {}
        given = functools.partial(self._function, messages, **extra)
        if inspect.iscoroutinefunction(self._function):
            value = await given()
        else:
            value = await asyncio.to_thread(given)
            if inspect.isawaitable(value):
                value = await value
        return reply_of(value)

    async def close(self) -> None:
        """Do nothing."""


class TransformersBackend:
    """Asks a chat model that `transformers` loads, one question at a time.

    Args:
        name: a folder, or a name that `transformers` knows.
        adapter: a folder of adapter weights (needs `peft`).
        max_tokens: the longest answer.
        temperature: 0 for the likeliest answer.

    Raises:
        MissingExtraError: `transformers` is not installed.
        BackendError: the model cannot be loaded.
    """

    takes_tools = False
    at_once: int | None = 1

    def __init__(
        self, name: str, *, adapter: Path | None, max_tokens: int, temperature: float
    ) -> None:
        """Load the model."""
        try:
            from transformers import pipeline  # noqa: PLC0415  # heavy, an optional extra
        except ImportError as error:
            raise MissingExtraError("transformers", "train") from error
        if _is_path(name) and not Path(name).is_dir():
            raise BackendError(
                f"`transformers:{name}`: there is no such folder: name one that holds a model "
                "with its tokenizer, as `save_pretrained` writes them"
            )
        try:
            self._pipeline: Any = pipeline("text-generation", model=name)
            if adapter is not None:
                self._pipeline.model.load_adapter(str(adapter))
        except Exception as error:  # whatever the libraries raise on what they cannot load
            raise BackendError(
                f"`{name}` cannot be loaded: name a folder that holds a model with its tokenizer, "
                f"as `save_pretrained` writes them, or a model's name at a hub: {error}"
            ) from error
        self._settings: dict[str, Any] = {
            "max_new_tokens": max_tokens,
            "do_sample": temperature > 0,
            **({"temperature": temperature} if temperature > 0 else {}),
        }

    async def reply(self, said: Sequence[Said], tools: Tools) -> Said:  # noqa: ARG002  # takes none
        """Return what the model says next; see `Backend`."""
        messages = [message_of(item) for item in said]
        given = await asyncio.to_thread(
            self._pipeline, messages, return_full_text=False, **self._settings
        )
        return reply_of(given[0]["generated_text"])

    async def close(self) -> None:
        """Do nothing."""


def message_of(said: Said) -> dict[str, Any]:
    """Return a message in OpenAI's form, which UTF-8 can write whatever a model said."""
    message: dict[str, Any] = {"role": said.role, "content": _whole(said.content or said.refusal)}
    if said.tool_calls:
        message["tool_calls"] = [
            {
                "id": _whole(call.id),
                "type": "function",
                "function": {"name": _whole(call.name), "arguments": _whole(call.arguments)},
            }
            for call in said.tool_calls
        ]
    if said.role == "tool":
        message["tool_call_id"] = _whole(said.call)
    return message


def _whole(text: str) -> str:
    """Return a text with U+FFFD for each half of a character, which nothing can encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def reply_of(value: object, finish: str = "") -> Said:
    """Return what a message of OpenAI's form, or a text, says.

    Raises:
        BackendError: it is neither.
    """
    try:
        (choice,) = Exchange.parse({"response": value}).choices
    except InputError as error:
        raise BackendError(f"the backend's answer cannot be read: {error}") from error
    calls = tuple(
        call if call.id else type(call)(call.name, call.arguments, f"call_{number}")
        for number, call in enumerate(choice.tool_calls)
    )
    return Said(
        "assistant",
        choice.content,
        reasoning=choice.reasoning,
        refusal=choice.refusal,
        tool_calls=calls,
        finish=finish,
    )


def load_callable(name: str) -> Callable[..., Any]:
    """Return what `module:callable` names; modules in the working directory are found.

    Raises:
        BackendError: there is no such module or callable.
    """
    module, _, path = name.partition(":")
    if not module or not path:
        raise BackendError(f"`python:{name}`: write `python:module:callable`")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise BackendError(f"module `{module}` cannot be imported: {error}") from error
    except Exception as error:  # whatever its code raises
        raise BackendError(
            f"module `{module}` cannot be imported: {type(error).__name__}: {error}"
        ) from error
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise BackendError(f"`{module}` has no callable `{path}`")
    return found  # type: ignore[no-any-return]


def _is_path(name: str) -> bool:
    """Return whether a name can only be that of a folder: a hub's are `name` or `owner/name`."""
    path = Path(name)
    return path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False  # a built-in without a signature
