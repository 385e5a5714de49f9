"""An exchange: what was asked and what came back, with every channel that carries text.

This module does not know any vendor's format (`guard.exchange_json` reads the common ones),
and it judges nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping  # noqa: TC003  # hints are read at run time
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from guard.categories import Side  # noqa: TC001  # hints are read at run time
from guard.errors import InputError

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks in a message."""

ChannelKind = Literal["content", "reasoning", "refusal", "tool_call", "prompt", "tool_result"]
"""What a channel carries; the last two are what a model is given, the others its answer."""

_TRUSTED: Final = frozenset({"system", "developer", "assistant"})
"""Roles whose messages are no input to be judged."""

_HIDING: Final = re.compile(r"\\[u/bf]")
"""Escapes of JSON that may stand for characters which need none."""

_ESCAPES: Final = re.compile(r'((?:\\u[0-9A-Fa-f]{4})+)|\\(["\\/bfnrt])')
_MEANT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
"""What the letter of an escape stands for; a sign stands for itself."""


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
    """One text of one choice, or one that the model is given.

    Attributes:
        name: unique within the exchange, such as `choices[0].tool_calls[1].arguments`.
        kind: what it carries.
        choice: index of the choice, zero-based.
        text: the text; empty where a stream has not brought it yet.
        tool: the tool's name for `tool_call`, else `""`.
        lead: text that stands before it, as context and never judged with it.
        seam: characters at the end of `lead` that readers may join with it, so that what begins
            in them and ends in the text counts.
        sealed: whether it leaves as it is or not at all, such as text under a signature.
    """

    name: str
    kind: ChannelKind
    choice: int
    text: str
    tool: str = ""
    lead: str = ""
    seam: int = 0
    sealed: bool = False

    @property
    def side(self) -> Side:
        """Which side of the exchange the text is on."""
        return "prompt" if self.kind in ("prompt", "tool_result") else "response"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was asked (`messages`) and what came back (`choices`).

    Attributes:
        choices: every answer, in the backend's order.
        messages: the conversation so far, the last user message with a text being the prompt.
        model: the backend model's name, `""` where unknown.
        metadata: the application's own facts; kept in the journal, never judged.
        conversation: which conversation it is part of, for the live risk; `""` for none.
    """

    choices: tuple[Choice, ...]
    messages: tuple[Message, ...] = ()
    model: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    conversation: str = ""

    @classmethod
    def of(cls, response: str | Exchange, *, prompt: str = "", system: str = "") -> Exchange:
        """Make an exchange of one answer, or complete one with what it lacks.

        A user message of an exchange's own stands; every system prompt counts.

        Raises:
            InputError: `response`, `prompt` or `system` is not text.
        """
        for name, value in (("prompt", prompt), ("system", system)):
            _require_text(name, value)
        if isinstance(response, Exchange):
            return replace(response, messages=completed(response.messages, prompt, system))
        _require_text("response", response)
        return cls(choices=(Choice(content=response),), messages=completed((), prompt, system))

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Exchange:
        """Read one JSON object: `response` or `choices`, and `prompt`, `system` or `messages`.

        A choice is text, a message object or a chat-completions choice (`{"message": {…}}`);
        its content is text or a list of typed parts, its tool calls' arguments are text or an
        object. Null counts as absent, unknown keys are passed over.

        Raises:
            InputError: fields are missing, of the wrong type or hold what cannot be judged;
                the message names each.
        """
        from guard.exchange_json import parse  # noqa: PLC0415  # it imports this module

        return parse(data)

    @property
    def prompt(self) -> str:
        """The last user message that says something, `""` where there is none.

        One without text, such as an image alone, leaves open what was asked before it.
        """
        users = (m.content for m in reversed(self.messages) if m.role == "user")
        return next((text for text in users if text.strip()), "")

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

    def input_channels(self) -> Iterator[Channel]:
        """Yield what the model was given since its last answer: tool results, user messages.

        An assistant's message behind all of them is no answer to them: a caller may begin the
        model's next one, with an empty text, too.
        """
        given = [i for i, m in enumerate(self.messages) if _is_input(m) and m.content.strip()]
        before = self.messages[: given[-1]] if given else ()
        spoke = [i for i, message in enumerate(before) if message.role == "assistant"]
        first = spoke[-1] + 1 if spoke else 0
        for number, message in enumerate(self.messages[first:], first):
            if message.content and _is_input(message):
                kind: ChannelKind = "tool_result" if message.role == "tool" else "prompt"
                yield Channel(f"messages[{number}]", kind, 0, message.content, message.name)


def _channels(index: int, choice: Choice) -> Iterator[Channel]:
    at = f"choices[{index}]"
    yield Channel(f"{at}.reasoning", "reasoning", index, choice.reasoning)
    yield Channel(f"{at}.content", "content", index, choice.content)
    yield Channel(f"{at}.refusal", "refusal", index, choice.refusal)
    content = _read_before(choice.content) if choice.tool_calls else ""
    for number, call in enumerate(choice.tool_calls):
        # The lead reads as the classifiers were trained: prose, then `name({...`.
        lead = f"{content}\n{call.name}("
        name = f"{at}.tool_calls[{number}].arguments"
        yield Channel(name, "tool_call", index, call.arguments, tool=call.name, lead=lead)


def _read_before(content: str) -> str:
    """Return what of a content is read before a tool call: a long one may have many calls."""
    from guard.text.units import CONTEXT, shown_end  # noqa: PLC0415  # few exchanges need it

    return shown_end(content, CONTEXT)


def is_json(text: str) -> bool:
    """Return whether a text is one JSON value."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def unescaped(text: str) -> str | None:
    """Return JSON without escapes that hide characters, `None` where it has none.

    What cannot be parsed here, such as with a comma too many or a very long number, others may
    still read: all its escapes are undone where they stand.
    """
    if not _HIDING.search(text):
        return None
    try:
        plain = json.dumps(json.loads(text, object_pairs_hook=_every), ensure_ascii=False)
    except (ValueError, RecursionError):
        plain = _ESCAPES.sub(_meant, text)
    return None if plain == text else plain


def _meant(escape: re.Match[str]) -> str:
    """Return what an escape stands for, or several side by side, which may be halves of one."""
    codes, sign = escape.groups()
    if codes is None:
        return _MEANT.get(sign, sign)
    units = bytes.fromhex(codes.replace("\\u", ""))
    return units.decode("utf-16-be", "surrogatepass")


def _every(pairs: list[tuple[str, Any]]) -> object:
    """Return an object, or its pairs where a key stands twice."""
    given = dict(pairs)
    return given if len(given) == len(pairs) else pairs


def _is_input(message: Message) -> bool:
    """Return whether a message is what a model is given; so is one in an unknown role."""
    return message.role not in _TRUSTED


def completed(messages: tuple[Message, ...], prompt: str, system: str) -> tuple[Message, ...]:
    """Return `messages` with a system prompt in front and, where no user speaks, the prompt."""
    said = [(message.role, message.content) for message in messages]
    first = Message("system", system)
    last = Message("user", prompt)
    return (
        *((first,) if system and ("system", system) not in said else ()),
        *messages,
        *((last,) if prompt and not any(r == "user" and text.strip() for r, text in said) else ()),
    )


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        kind = type(value).__name__
        mend = " Decode bytes first." if isinstance(value, bytes | bytearray) else ""
        raise InputError(
            f"`{name}` must be `str` (or `Exchange` for a response), not {kind}.{mend}"
        )
