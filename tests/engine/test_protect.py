"""`protect`: every shape of callable, guarded and otherwise as it was."""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from typing import TYPE_CHECKING, Any, Self

import pytest

from guard.errors import Blocked, InputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from guard.detectors.base import Finding, Passage
    from guard.engine import Guard

FINE = "Fine weather today, they say, and the tide is low. "
REDACTED = "It was [redacted: to redact] that day."
SAYINGS = {
    "redact": "It was zredact that day.",
    "block": "It was zblock that day.",
    "late": FINE * 3 + "It was zblock that day. " + FINE * 9,
    "replace": FINE * 3 + "It was zreplace that day. " + FINE * 9,
}


def say(prompt: str) -> str:
    """Say something."""
    return SAYINGS[prompt]


async def asay(prompt: str) -> str:
    """Say something, later."""
    await asyncio.sleep(0)
    return SAYINGS[prompt]


def speak(prompt: str) -> Iterator[str]:
    """Say something in pieces."""
    yield from (SAYINGS[prompt][i : i + 5] for i in range(0, len(SAYINGS[prompt]), 5))


async def aspeak(prompt: str) -> AsyncIterator[str]:
    """Say something in pieces, later."""
    for piece in speak(prompt):
        await asyncio.sleep(0)
        yield piece


class Clerk:
    """Says things as methods."""

    motto = "never guess"

    def __init__(self) -> None:
        """Have something of its own."""
        self.name = "clerk"

    def say(self, prompt: str) -> str:
        """Say something."""
        return say(prompt)

    async def asay(self, prompt: str) -> str:
        """Say something, later."""
        return await asay(prompt)

    def speak(self, prompt: str) -> Iterator[str]:
        """Say something in pieces."""
        return (yield from speak(prompt))

    async def aspeak(self, prompt: str) -> AsyncIterator[str]:
        """Say something in pieces, later."""
        async for piece in aspeak(prompt):
            yield piece


class CallSay(Clerk):
    """An object to call."""

    __call__ = Clerk.say


class CallAsay(Clerk):
    """An object to call and await."""

    __call__ = Clerk.asay


class CallSpeak(Clerk):
    """An object to call and iterate over."""

    __call__ = Clerk.speak


class CallAspeak(Clerk):
    """An object to call and iterate over asynchronously."""

    __call__ = Clerk.aspeak


class Bound:
    """An object that can be a method: it is bound where it is an attribute of a class."""

    def __get__(self, instance: object, owner: type) -> Self:
        """Return itself."""
        return self


class BoundSay(Bound, CallSay):
    """An object to call."""


class BoundAsay(Bound, CallAsay):
    """An object to call and await."""


class BoundSpeak(Bound, CallSpeak):
    """An object to call and iterate over."""


class BoundAspeak(Bound, CallAspeak):
    """An object to call and iterate over asynchronously."""


SHAPES: dict[str, tuple[Any, Any, Any, Any]] = {
    "function": (say, asay, speak, aspeak),
    "method": (Clerk().say, Clerk().asay, Clerk().speak, Clerk().aspeak),
    "partial": tuple(map(functools.partial, (say, asay, speak, aspeak))),  # type: ignore[dict-item]
    "object": (CallSay(), CallAsay(), CallSpeak(), CallAspeak()),
    "partial of an object": (
        functools.partial(CallSay()),
        functools.partial(CallAsay()),
        functools.partial(CallSpeak()),
        functools.partial(CallAspeak()),
    ),
}

shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


async def delivered_by(function: Any, prompt: str) -> str:
    """Return what a callable of any kind delivers."""
    result = function(prompt)
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "__aiter__"):
        result = [text async for text in result]
    return "".join(result)


class PromptSpy:
    """A detector that finds nothing and remembers the prompt."""

    name = "spy"
    version = "1"
    categories = ("nothing",)

    def __init__(self) -> None:
        """Have seen nothing."""
        self.prompt = "not asked"

    def __call__(self, passage: Passage) -> list[Finding]:
        """Remember."""
        self.prompt = passage.prompt
        return []


@pytest.fixture
def guard(make_guard: Callable[..., Guard]) -> Guard:
    """Return a guard that fires on words."""
    return make_guard()


class TestShapes:
    """Functions, coroutines, generators and asynchronous generators, in all their wrappings."""

    @shapes
    async def test_it_is_guarded(self, guard: Guard, shape: tuple[Any, ...]) -> None:
        """What it returns or yields is mended."""
        for function in shape:
            assert await delivered_by(guard.protect(function), "redact") == REDACTED

    @shapes
    async def test_it_ends_with_the_message(self, guard: Guard, shape: tuple[Any, ...]) -> None:
        """A whole text that is blocked is replaced by the message, a stream ends with it."""
        left = FINE * 3 + "\n\n[blocked]"
        for function, expected in zip(shape, ["[blocked]"] * 2 + [left] * 2, strict=True):
            assert await delivered_by(guard.protect(function), "late") == expected

    @shapes
    async def test_it_raises(self, guard: Guard, shape: tuple[Any, ...]) -> None:
        """With `on_block="raise"` the exception stands in for the message."""
        for function in shape:
            protected = guard.protect(function, on_block="raise")
            with pytest.raises(Blocked, match="to_block") as caught:
                await delivered_by(protected, "block")
            assert caught.value.verdict.action == "block"
            assert "that day" not in str(caught.value)
            assert await delivered_by(protected, "redact") == REDACTED

    @shapes
    async def test_what_is_replaced_is_not_blocked(
        self, guard: Guard, shape: tuple[Any, ...]
    ) -> None:
        """A replacement is delivered, whatever `on_block` says."""
        left = FINE * 3 + "\n\n[replaced]"
        for function, expected in zip(shape, ["[replaced]"] * 2 + [left] * 2, strict=True):
            protected = guard.protect(function, on_block="raise")
            assert await delivered_by(protected, "replace") == expected

    @shapes
    def test_it_keeps_its_kind(self, guard: Guard, shape: tuple[Any, ...]) -> None:
        """A coroutine function stays one, and so do generators."""
        kinds: tuple[Callable[[Any], bool], ...] = (
            inspect.isfunction,
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
        )
        for function, kind in zip(shape, kinds, strict=True):
            assert kind(guard.protect(function))

    @shapes
    def test_it_keeps_its_signature(self, guard: Guard, shape: tuple[Any, ...]) -> None:
        """Signature, annotations and the original itself can be found on the wrapper."""
        for function, plain in zip(shape, (say, asay, speak, aspeak), strict=True):
            protected = guard.protect(function)
            assert protected.__wrapped__ is function
            assert inspect.signature(protected) == inspect.signature(function)
            assert protected.__annotations__["return"] == plain.__annotations__["return"]
            assert protected.__doc__ == plain.__doc__
        assert typing.get_type_hints(guard.protect(say)) == {"prompt": str, "return": str}

    async def test_objects_that_can_be_methods(self, guard: Guard) -> None:
        """So is an object that a class would bind, as one that wraps methods must be."""
        for function in (BoundSay(), BoundAsay(), BoundSpeak(), BoundAspeak()):
            assert await delivered_by(guard.protect(function), "redact") == REDACTED

    def test_an_object_lends_nothing_else(self, guard: Guard) -> None:
        """What an object to call has of its own is not copied to the wrapper."""
        assert not hasattr(guard.protect(CallSay()), "name")

    def test_streams_that_raise_had_left_what_was_fine(self, guard: Guard) -> None:
        """`Blocked` comes behind what had left, and the message does not come at all."""
        left: list[str] = []
        with pytest.raises(Blocked):
            left.extend(guard.protect(speak, on_block="raise")("late"))
        assert "".join(left) == FINE * 3

    async def test_asynchronous_streams_that_raise(self, guard: Guard) -> None:
        """So it is with an asynchronous generator."""
        left: list[str] = []

        async def read() -> None:
            async for text in guard.protect(aspeak, on_block="raise")("late"):
                left.append(text)  # noqa: PERF401  # a comprehension would be lost

        with pytest.raises(Blocked):
            await read()
        assert "".join(left) == FINE * 3


class TestDecorator:
    """As people write it."""

    def test_bare_and_with_arguments(self, guard: Guard) -> None:
        """`@protect`, `@protect()` and `@protect(on_block=...)` all work."""

        @guard.protect
        def one(prompt: str) -> str:
            return say(prompt)

        @guard.protect()
        def two(prompt: str) -> str:
            return say(prompt)

        @guard.protect(on_block="raise")
        def three(prompt: str) -> str:
            return say(prompt)

        assert [f("redact") for f in (one, two, three)] == [REDACTED] * 3
        assert one.__name__ == "one"
        with pytest.raises(Blocked):
            three("block")

    def test_methods(self, guard: Guard) -> None:
        """Methods, static methods and class methods can be decorated in their class."""

        class Desk:
            @guard.protect
            def say(self, prompt: str) -> str:
                return say(prompt)

            @staticmethod
            @guard.protect
            def say_statically(prompt: str) -> str:
                return say(prompt)

            @classmethod
            @guard.protect
            def say_as_class(cls, prompt: str) -> str:
                return say(prompt)

        desk = Desk()
        said = [desk.say("redact"), desk.say_statically("redact"), Desk.say_as_class("redact")]
        assert said == [REDACTED] * 3

    @pytest.mark.parametrize("kind", [staticmethod, classmethod])
    def test_the_wrong_order(self, guard: Guard, kind: Any) -> None:
        """Decorators in the wrong order are refused with the mend."""
        with pytest.raises(InputError, match=f"put `@{kind.__name__}` above"):
            guard.protect(kind(say))

    def test_what_cannot_be_guarded(self, guard: Guard) -> None:
        """What cannot be called and unknown settings are refused."""
        wrong: Any = 7
        with pytest.raises(InputError, match="something to call, not int"):
            guard.protect(wrong)
        unknown: Any = "ignore"
        with pytest.raises(InputError, match="`on_block` must be one of"):
            guard.protect(say, on_block=unknown)
        with pytest.raises(InputError, match="`on_block` must be one of"):
            guard.protect(on_block=unknown)

    def test_what_is_no_text(self, guard: Guard) -> None:
        """A callable that returns something but text is refused when it does."""
        with pytest.raises(InputError, match="`response` must be `str`"):
            guard.protect(lambda _: 7)("prompt")

    def test_errors_pass(self, guard: Guard) -> None:
        """What the callable raises is raised, wrong arguments included."""
        with pytest.raises(KeyError, match="unknown"):
            guard.protect(say)("unknown")
        for function in (say, speak):
            with pytest.raises(TypeError, match="missing 1 required positional argument: 'prompt'"):
                list(guard.protect(function)())  # type: ignore[call-arg]

    async def test_early_ends(self, guard: Guard) -> None:
        """Closing a guarded generator closes the generator behind it."""
        closed: list[str] = []

        @guard.protect
        def one(prompt: str) -> Iterator[str]:
            try:
                yield from speak(prompt)
            finally:
                closed.append("one")

        @guard.protect
        async def two(prompt: str) -> AsyncIterator[str]:
            try:
                async for piece in aspeak(prompt):
                    yield piece
            finally:
                closed.append("two")

        sync: Any = one("late")
        next(sync)
        sync.close()
        later: Any = two("late")
        await anext(later)
        await later.aclose()
        assert closed == ["one", "two"]


def named(other: str, prompt: str) -> str:
    """Take the prompt by its name."""
    return f"{other} {prompt}"


def first(count: int, question: str, style: str) -> str:
    """Take the prompt as the first text."""
    return f"{count} {question} {style}"


def anything(*args: Any, **kwargs: Any) -> str:
    """Take anything."""
    return f"{args} {kwargs}"


def default(prompt: str = "the usual", style: str = "plain") -> str:
    """Have a prompt of its own."""
    return f"{prompt} {style}"


def without(count: int = 3) -> str:
    """Take no text."""
    return str(count)


class TestPrompt:
    """Which argument is taken for the prompt."""

    @pytest.mark.parametrize(
        ("function", "args", "kwargs", "expected"),
        [
            (named, ("other", "the prompt"), {}, "the prompt"),
            (named, (), {"prompt": "the prompt", "other": "other"}, "the prompt"),
            (first, (3, "the question", "plain"), {}, "the question"),
            (first, (3,), {"style": "plain", "question": "the question"}, "the question"),
            (anything, (3, "the first", "plain"), {}, "the first"),
            (anything, ("other",), {"prompt": "the prompt"}, "the prompt"),
            (anything, (), {"question": "the question"}, "the question"),
            (default, (), {}, "the usual"),
            (default, (), {"style": "bold"}, "the usual"),
            (default, ("the prompt",), {}, "the prompt"),
            (without, (), {}, ""),
            (without, (3,), {}, ""),
            (functools.partial(named, "other"), ("the prompt",), {}, "the prompt"),
            (functools.partial(named, prompt="fixed"), ("other",), {}, "fixed"),
            (functools.partial(first, 3, "fixed"), ("plain",), {}, "fixed"),
            ("{}".format, ("the prompt",), {}, "the prompt"),
            (Clerk().say, ("late",), {}, "late"),
        ],
    )
    def test_it_is_found(
        self,
        make_guard: Callable[..., Guard],
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        expected: str,
    ) -> None:
        """The argument named `prompt`, else the first text in the order of the signature."""
        spy = PromptSpy()
        guard = make_guard(spy, limits={"nothing": {"flag": 0.5}})
        guard.protect(function)(*args, **kwargs)
        assert spy.prompt == expected

    async def test_in_every_kind(self, make_guard: Callable[..., Guard]) -> None:
        """Coroutines and generators find it likewise."""
        spy = PromptSpy()
        guard = make_guard(spy, limits={"nothing": {"flag": 0.5}})
        for function in (asay, speak, aspeak):
            spy.prompt = ""
            await delivered_by(guard.protect(function), "late")
            assert spy.prompt == "late"
