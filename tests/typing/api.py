"""The public API as a type checker sees it; checked by mypy and pyright, and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, assert_type

from guard import (
    CATEGORIES,
    NOT_GIVEN,
    Action,
    Assessment,
    AsyncGuardedStream,
    Blocked,
    Category,
    Choice,
    ConfigurationError,
    Coverage,
    Detector,
    Exchange,
    Finding,
    Guard,
    GuardedStream,
    InputError,
    Journal,
    Message,
    ModelError,
    Passage,
    PolicyError,
    ProtectedText,
    SecurityClass,
    ToolCall,
    Verdict,
    builtin_classes,
    load_class,
)


class Shouting:
    """The least that a detector needs."""

    name = "shouting"
    version = "1"
    categories = ("harassment",)

    def __call__(self, passage: Passage) -> list[Finding]:
        """Find units in capitals."""
        if not passage.unit.isupper():
            return []
        return [Finding("harassment", 2.0, passage.start, passage.end, self.name, self.version)]


def loading(journal: Journal) -> None:
    """Every way to get a guard."""
    detector: Detector = Shouting()
    assert_type(Guard.load(), Guard)
    assert_type(Guard.load("public"), Guard)
    assert_type(Guard.load(Path("own.yaml"), "strict"), Guard)
    guard = Guard.load(
        load_class("public"),
        model="models/own",
        detectors=[detector],
        protected=[ProtectedText("manual", "…")],
        journal=None,
        language="de",
    )
    Guard.load(journal=journal)
    Guard.load(journal="sqlite:///own.sqlite3")
    Guard.load(journal=NOT_GIVEN)
    Guard(load_class("public"), [detector], journal=journal, redactor=str.upper)
    assert_type(guard.security_class, SecurityClass)
    assert_type(guard.detectors, Mapping[str, str])
    assert_type(guard.journal, Journal | None)


def verdicts(guard: Guard) -> None:
    """What a check returns."""
    verdict = guard.check("text", prompt="question", system="rules")
    assert_type(verdict, Verdict)
    assert_type(verdict.action, Literal["allow", "flag", "rewrite", "block"])
    action: Action = verdict.action
    assert_type(action, Literal["allow", "flag", "rewrite", "block"])
    assert_type(verdict.text, str | None)
    assert_type(verdict.delivered, str)
    assert_type(verdict.choices, tuple[Choice | None, ...])
    assert_type(verdict.risks, Mapping[str, float])
    assert_type(verdict.reasons, tuple[str, ...])
    assert_type(verdict.findings, tuple[Finding, ...])
    assert_type(verdict.coverage, Coverage)
    assert_type(verdict.assessment, Assessment)
    assert_type(verdict.record, str | None)
    assert_type(verdict.to_dict(), dict[str, Any])
    assert_type(guard.check_many(["a", Exchange.of("b")]), Iterator[Verdict])


def exchanges(guard: Guard, data: Mapping[str, Any]) -> None:
    """Exchanges, made and read."""
    exchange = Exchange(
        choices=(Choice("text", tool_calls=(ToolCall("find", "{}"),)),),
        messages=(Message("system", "rules"), Message("user", "question")),
        model="small",
        metadata={"tenant": "a"},
    )
    assert_type(guard.check(exchange), Verdict)
    assert_type(Exchange.parse(data), Exchange)
    assert_type(exchange.prompt, str)


def streaming(guard: Guard, pieces: Iterator[str]) -> None:
    """A stream, and the verdict behind it."""
    stream = guard.stream(pieces, prompt="question")
    assert_type(stream, GuardedStream)
    for piece in stream:
        assert_type(piece, str)
    assert_type(stream.verdict, Verdict)


async def waiting(guard: Guard, pieces: AsyncIterator[str]) -> None:
    """The same without blocking the event loop."""
    assert_type(await guard.acheck("text"), Verdict)
    stream = guard.astream(pieces, system="rules")
    assert_type(stream, AsyncGuardedStream)
    async for piece in stream:
        assert_type(piece, str)
    await stream.aclose()


def policies() -> None:
    """Classes and the taxonomy."""
    assert_type(builtin_classes(), tuple[SecurityClass, ...])
    assert_type(CATEGORIES, dict[str, Category])
    own = load_class("own.yaml#strict", extra_categories=["brand_voice"])
    limit = own.limit("violence")
    if limit is not None:
        assert_type(limit.act, float | None)
        assert_type(limit.remedy, Literal["redact", "excise", "regenerate", "replace", "block"])
    assert_type(own.messages_in("de").blocked, str)


def errors(guard: Guard) -> str | tuple[str, ...]:
    """What can be caught, and what it holds."""
    try:
        return guard.check("text").delivered
    except InputError as error:
        return str(error)
    except (PolicyError, ModelError, ConfigurationError) as error:
        assert_type(error.problems, tuple[str, ...])
        return error.problems
    except Blocked as error:
        assert_type(error.verdict, Verdict)
        return error.verdict.message
