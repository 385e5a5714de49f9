"""An exchange: what was asked and what came back, with every channel that carries text.

This module does not know any vendor's format beyond the field names of the common
chat-completions shape that `Exchange.parse` reads, and it judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks in a message."""

ChannelKind = Literal["content", "reasoning", "refusal", "tool_call"]
"""What a channel of a choice carries."""

_ROLES: Final = get_args(Role)
_REASONING: Final = ("reasoning", "reasoning_content")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation so far."""

    role: Role
    content: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model asks for; `arguments` is the text it wrote, usually JSON."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers that came back."""

    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Channel:
    """One text of one choice.

    Attributes:
        name: unique within the exchange, such as `choices[0].tool_calls[1].arguments`.
        kind: what it carries.
        choice: index of the choice, zero-based.
        text: the text; empty where a stream has not brought it yet.
        tool: the tool's name for `tool_call`, else `""`.
        lead: text that stands before it, as context and never judged with it.
    """

    name: str
    kind: ChannelKind
    choice: int
    text: str
    tool: str = ""
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was asked (`messages`) and what came back (`choices`).

    Attributes:
        choices: every answer, in the backend's order.
        messages: the conversation so far, the last user message being the prompt.
        model: the backend model's name, `""` where unknown.
        metadata: the application's own facts; kept in the journal, never judged.
    """

    choices: tuple[Choice, ...]
    messages: tuple[Message, ...] = ()
    model: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, response: str | Exchange, *, prompt: str = "", system: str = "") -> Exchange:
        """Make an exchange of one answer, or complete one that has no messages.

        Raises:
            InputError: `response`, `prompt` or `system` is not text.
        """
        for name, value in (("prompt", prompt), ("system", system)):
            _require_text(name, value)
        messages = _messages(prompt, system)
        if isinstance(response, Exchange):
            return replace(response, messages=response.messages or messages)
        _require_text("response", response)
        return cls(choices=(Choice(content=response),), messages=messages)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Exchange:
        """Read one JSON object: `response` (or `choices`) with `prompt`, `system`, `messages`.

        `choices` may hold message objects or chat-completions choices (`{"message": {…}}`).

        Raises:
            InputError: a field is missing or of the wrong type; the message names it.
        """
        problems: list[str] = []
        choices = _parse_choices(data, problems)
        messages = _parse_messages(data, problems)
        model = _text(data, "model", problems)
        metadata = data.get("metadata") or {}
        if not isinstance(metadata, Mapping):
            problems.append("`metadata` must be an object")
        if problems:
            raise InputError("; ".join(problems))
        return cls(choices=choices, messages=messages, model=model, metadata=metadata)

    @property
    def prompt(self) -> str:
        """The last user message, `""` where there is none."""
        users = [message.content for message in self.messages if message.role == "user"]
        return users[-1] if users else ""

    @property
    def system(self) -> str:
        """All system and developer messages, joined by a blank line."""
        return "\n\n".join(m.content for m in self.messages if m.role in ("system", "developer"))

    def channels(self) -> Iterator[Channel]:
        """Yield every text that came back, choice by choice, reasoning first.

        Reasoning comes first because it is written first; empty texts are left out.
        """
        for index, choice in enumerate(self.choices):
            yield from (channel for channel in _channels(index, choice) if channel.text)


def _channels(index: int, choice: Choice) -> Iterator[Channel]:
    at = f"choices[{index}]"
    yield Channel(f"{at}.reasoning", "reasoning", index, choice.reasoning)
    yield Channel(f"{at}.content", "content", index, choice.content)
    yield Channel(f"{at}.refusal", "refusal", index, choice.refusal)
    for number, call in enumerate(choice.tool_calls):
        # The lead reads as the classifiers were trained: prose, then `name({...`.
        lead = f"{choice.content}\n{call.name}("
        name = f"{at}.tool_calls[{number}].arguments"
        yield Channel(name, "tool_call", index, call.arguments, tool=call.name, lead=lead)


def _messages(prompt: str, system: str) -> tuple[Message, ...]:
    given = (Message("system", system), Message("user", prompt))
    return tuple(message for message in given if message.content)


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        kind = type(value).__name__
        mend = " Decode bytes first." if isinstance(value, bytes | bytearray) else ""
        raise InputError(f"`{name}` must be `str` (or `Exchange` for a response), not {kind}.{mend}")


def _text(data: Mapping[str, Any], key: str, problems: list[str]) -> str:
    """Return the text under `key`; absent and null count as empty."""
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        problems.append(f"`{key}` must be text, not {type(value).__name__}")
        return ""
    return value


def _parse_choices(data: Mapping[str, Any], problems: list[str]) -> tuple[Choice, ...]:
    if "choices" not in data:
        if data.get("response") is None:
            problems.append("`response` (text) or `choices` (a list) is missing")
        return (Choice(content=_text(data, "response", problems)),)
    listed = data["choices"]
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        problems.append("`choices` must be a list with at least one choice")
        return ()
    return tuple(_parse_choice(index, item, problems) for index, item in enumerate(listed))


def _parse_choice(index: int, item: object, problems: list[str]) -> Choice:
    if isinstance(item, str):
        return Choice(content=item)
    if isinstance(item, Mapping) and isinstance(item.get("message"), Mapping):
        item = item["message"]
    if not isinstance(item, Mapping):
        problems.append(f"`choices[{index}]` must be text or an object")
        return Choice()
    found: list[str] = []
    reasoning = "".join(_text(item, key, found) for key in _REASONING)
    choice = Choice(
        content=_text(item, "content", found),
        reasoning=reasoning,
        refusal=_text(item, "refusal", found),
        tool_calls=_parse_tool_calls(item.get("tool_calls") or (), found),
    )
    problems.extend(f"`choices[{index}]`: {problem}" for problem in found)
    return choice


def _parse_tool_calls(listed: object, problems: list[str]) -> tuple[ToolCall, ...]:
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        problems.append("`tool_calls` must be a list")
        return ()
    return tuple(_parse_tool_call(item, problems) for item in listed)


def _parse_tool_call(item: object, problems: list[str]) -> ToolCall:
    if not isinstance(item, Mapping):
        problems.append("a tool call must be an object")
        return ToolCall("", "")
    function = item.get("function", item)
    if not isinstance(function, Mapping):
        problems.append("`function` of a tool call must be an object")
        return ToolCall("", "")
    return ToolCall(
        name=_text(function, "name", problems),
        arguments=_text(function, "arguments", problems),
        id=_text(item, "id", problems),
    )


def _parse_messages(data: Mapping[str, Any], problems: list[str]) -> tuple[Message, ...]:
    listed = data.get("messages")
    if listed is None:
        return _messages(_text(data, "prompt", problems), _text(data, "system", problems))
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        problems.append("`messages` must be a list")
        return ()
    return tuple(_parse_message(index, item, problems) for index, item in enumerate(listed))


def _parse_message(index: int, item: object, problems: list[str]) -> Message:
    if not isinstance(item, Mapping) or item.get("role") not in _ROLES:
        problems.append(f"`messages[{index}]` must be an object whose `role` is one of {_ROLES}")
        return Message("user", "")
    found: list[str] = []
    content = _content_text(item, found)
    problems.extend(f"`messages[{index}]`: {problem}" for problem in found)
    return Message(item["role"], content, _text(item, "name", found))


def _content_text(item: Mapping[str, Any], problems: list[str]) -> str:
    """Return a message's content, which may be text or a list of typed parts."""
    content = item.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        texts = [part.get("text", "") for part in content if isinstance(part, Mapping)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return _text(item, "content", problems)
