"""`Guard`: answers for every response whether it may leave, and in which words.

A `Guard` is immutable after construction and shared by all threads and tasks.

This module does not know any SDK, server or framework, nothing about how a unit is judged
or mended (`guard.session`), and nothing about threads (`guard.driver`).
"""

from __future__ import annotations

import sys
from collections.abc import (
    AsyncIterable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn, Self, TypeVar, overload

import guard  # noqa: TC001  # hints are read at run time
from guard.batch import Verdicts
from guard.categories import CATEGORIES, Side
from guard.detectors.base import Detector
from guard.driver import Driver, Live
from guard.errors import ConfigurationError, InputError
from guard.exchange import Channel, Choice, Exchange, Message, ToolCall
from guard.policy import check_categories
from guard.protect import OnBlock, protect
from guard.security_class import SecurityClass  # noqa: TC001  # hints are read at run time
from guard.session import CONTENT, Session
from guard.steps import Deployment
from guard.stream import AsyncGuardedStream, Following, GuardedStream
from guard.verdict import Verdict  # noqa: TC001  # hints are read at run time

_T = TypeVar("_T")
_F = TypeVar("_F", bound="Callable[..., Any]")


class _NotGiven:
    """The type of `NOT_GIVEN`, which differs from `None` where `None` switches off."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = _NotGiven()
"""Stands for "use the default" where `None` means "none"."""


class Guard:
    """Judges responses under one security class. Share one instance; it holds no state.

    Args:
        security_class: the class under which the model is deployed.
        detectors: everything that sees risk; at least one.
        journal: where flagged, rewritten and blocked responses are kept; `None` for nowhere.
        language: the language tag of messages to end users; the class's own by default.
        redactor: takes secrets and personal data out of texts that the journal keeps; needed
            where the class, or the stricter one, keeps redacted texts.
        live: what follows the live risk, such as `guard.live.LiveRisk`; by default the priors
            are the class's and stay.
        stricter: the class that judges while an alarm asks to tighten.
        metadata: facts about the deployment that every row of the journal has.

    Raises:
        ConfigurationError: no detector, two of one name, something that is no detector, a
            limit that no detector can reach where it stands, or a redacting journal without a
            redactor; everything at once.
    """

    def __init__(  # noqa: PLR0913  # each is one plain part of a deployment
        self,
        security_class: SecurityClass,
        detectors: Iterable[Detector],
        *,
        journal: guard.Journal | None = None,
        language: str | None = None,
        redactor: Callable[[str], str] | None = None,
        live: Live | None = None,
        stricter: SecurityClass | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Check that the parts fit together, then freeze them."""
        detectors = _given(detectors)
        problems = _problems(security_class, detectors)
        if stricter is not None and not problems:
            problems = check_categories(stricter, _found(detectors))
        if journal is not None and redactor is None:
            problems += _unredacted(security_class, stricter)
        if isinstance(journal, str | Path):
            problems.append(
                f"`journal` is the path `{journal}`: pass `Journal({str(journal)!r})`, or use "
                "`Guard.load`, which takes paths"
            )
        if problems:
            raise ConfigurationError(problems)
        self._journal = journal
        self._driver = Driver(detectors, security_class.timeout_seconds, journal, redactor, live)
        self._live = live
        self._deployment = Deployment(
            security_class=security_class,
            messages=security_class.messages_in(language),
            detectors={detector.name: detector.version for detector in detectors},
            categories=tuple(_categories(detectors)),
            journalled=journal is not None,
            poolings={d.name: getattr(d, "pooling", {}) for d in detectors},
            finds={detector.name: _of_responses(detector) for detector in detectors},
            learns=live is not None,
            metadata=dict(metadata or {}),
        )
        tightened = stricter or security_class
        self._tightened = replace(
            self._deployment,
            security_class=tightened,
            messages=tightened.messages_in(language),
        )
        self._input = replace(
            self._deployment, security_class=security_class.of_input(), learns=False
        )

    @classmethod
    def load(  # noqa: PLR0913  # each is one plain part of a deployment
        cls,
        security_class: str | Path | SecurityClass = "public",
        name: str | None = None,
        *,
        model: str | Path | None = None,
        detectors: Iterable[Detector] = (),
        protected: Iterable[guard.ProtectedText] = (),
        journal: guard.Journal | str | Path | _NotGiven | None = NOT_GIVEN,
        language: str | None = None,
        tag: guard.Tag | bytes | str | Path | None = None,
        trust: guard.PublicKey | str | Path | Iterable[guard.PublicKey | str | Path] = (),
        fingerprint: guard.Fingerprint | None = None,
        live: Live | guard.Store | bool = False,
        notify: Sequence[guard.Notifier] = (),
    ) -> Guard:
        """Load a guard with the bundled model and pattern packs.

        Args:
            security_class: a built-in class's name, a path to a policy file, or a class.
            name: which class of the policy file, where it has several.
            model: a classifier's directory; the bundled one by default.
            detectors: further detectors, beside the standard ones.
            protected: texts that must not be repeated (system prompts, proprietary texts).
            journal: an open journal, a path or SQLAlchemy URL; `None` for no journal. By
                default `GUARD_JOURNAL`, else a file in the user's state directory.
            language: the language tag of messages to end users.
            tag: the signed tag that says up to which class the model may be deployed.
            trust: the public keys, or their files, of those whose signature counts; a single one
                may stand alone.
            fingerprint: which model, system prompt, adapter and tools are deployed; needed
                with a tag (`guard.audit.profile.Fingerprint.of`).
            live: whether the live risk is followed as the class's `live` section says, so that
                priors move and verdicts depend on what was seen before; or a store of
                `guard.live` that keeps its state, or what follows it.
            notify: who is told of every alarm that is raised or cleared: callables that take a
                `guard.live.Transition` and return soon, such as a `guard.live.notify.Webhook`.

        Raises:
            ConfigurationError: all that is wrong with class, model and detectors at once; or
                `notify` is given and nothing here follows the live risk, or `live` is no store.
            JournalError: the journal cannot be opened.
            guard.audit.errors.TagError: the tag is not good for this deployment; a
                `DeploymentRefused` lists every figure that is above its limit.
        """
        from guard import loading  # noqa: PLC0415  # loads the runtime

        parts = loading.load_parts(security_class, name, model, _given(detectors), protected)
        deployed = loading.admitted(parts, tag, trust, fingerprint)
        stricter = None if live is False else loading.stricter(deployed)
        return cls(
            deployed,
            parts.detectors,
            journal=_open_journal(journal),
            language=language,
            redactor=parts.redactor,
            live=_followed(live, deployed, parts.detectors, notify),
            stricter=stricter,
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # What never changes needs no second: whatever holds a guard may be copied with it.
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a `Guard` holds a model and threads and cannot be sent to another process: load one "
            "there, once, with `Guard.load`"
        )

    @property
    def security_class(self) -> SecurityClass:
        """The class under which this guard judges."""
        return self._deployment.security_class

    @property
    def detectors(self) -> Mapping[str, str]:
        """Name and version of each detector."""
        return dict(self._deployment.detectors)

    @property
    def posture(self) -> str:
        """How the deployment stands: `normal`, or what the worst standing alarm asks for.

        That is `tighten`, `fallback` or `quarantine`.
        """
        return "normal" if self._live is None else self._live.posture

    @property
    def live(self) -> Live | None:
        """What follows the live risk, `None` where nothing does."""
        return self._live

    @property
    def driver(self) -> Driver:
        """What answers a session's requests; for adapters."""
        return self._driver

    @property
    def journal(self) -> guard.Journal | None:
        """Where flagged, rewritten and blocked responses are kept."""
        return self._journal

    def check(
        self,
        response: str | Exchange,
        *,
        prompt: str = "",
        system: str = "",
        conversation: str = "",
    ) -> Verdict:
        """Judge a whole response.

        Args:
            response: the text, or an exchange with every choice and channel.
            prompt: the user's message that it answers.
            system: the system prompt, which must not be repeated in the response.
            conversation: which conversation it is part of, for the live risk.

        Raises:
            InputError: something is not text.
        """
        session = self._session(response, prompt, system, conversation)
        self._driver.run(session.whole())
        return session.verdict()

    async def acheck(
        self,
        response: str | Exchange,
        *,
        prompt: str = "",
        system: str = "",
        conversation: str = "",
    ) -> Verdict:
        """As `check`, without blocking the event loop."""
        session = self._session(response, prompt, system, conversation)
        await self._driver.arun(session.whole())
        return session.verdict()

    def check_input(self, exchange: Exchange) -> Verdict:
        """Judge what a model is about to be given, by the class's `input` section.

        Args:
            exchange: its messages; what it answered so far is not looked at. Judged are the
                last user message and the tool results since the last answer. Where the class
                has no `input` section, nothing is judged.

        A blocked verdict says that the backend must not be asked.

        Raises:
            InputError: it is no exchange, or something in it is not text.
        """
        session = self.input_session(exchange)
        self._driver.run(session.whole())
        return session.verdict()

    async def acheck_input(self, exchange: Exchange) -> Verdict:
        """As `check_input`, without blocking the event loop."""
        session = self.input_session(exchange)
        await self._driver.arun(session.whole())
        return session.verdict()

    def check_many(
        self, responses: Iterable[str | Exchange], *, workers: int | None = None
    ) -> Iterator[Verdict]:
        """Judge many responses side by side; yield the verdicts in the order given.

        Args:
            responses: texts or exchanges; read lazily, a few ahead of the verdicts.
            workers: how many are judged at a time; the number of cores by default.

        A response that cannot be judged raises `InputError` in its place; `next` goes on
        behind it. Nothing is batched into one model call: on a CPU that gains nothing, and
        with dynamic int8 scales a text's score would depend on its neighbours.
        """
        return Verdicts(self.check, responses, workers)

    def stream(
        self, pieces: Iterable[str], *, prompt: str = "", system: str = "", conversation: str = ""
    ) -> GuardedStream:
        """Judge a response as it arrives; iterate over what may leave.

        Delivers `check(text).streamed`, however the text is cut into pieces. A response
        that turns out bad ends with the class's message. After the last piece,
        `GuardedStream.verdict` holds the verdict.
        """
        session = self._session("", prompt, system, conversation, stream=True)
        return GuardedStream(self._driver, session, pieces)

    def astream(
        self,
        pieces: AsyncIterable[str],
        *,
        prompt: str = "",
        system: str = "",
        conversation: str = "",
    ) -> AsyncGuardedStream:
        """As `stream`, for an asynchronous source."""
        session = self._session("", prompt, system, conversation, stream=True)
        return AsyncGuardedStream(self._driver, session, pieces)

    def wrap(self, target: _T, **options: Any) -> _T:
        """Return a client of an SDK or a model of a framework, guarded; its type stays.

        Args:
            target: an `OpenAI`, `AsyncOpenAI`, `Anthropic` or `AsyncAnthropic` client.
            options: of the adapter: `guard.adapters.openai.wrap`, `guard.adapters.anthropic.wrap`.

        Raises:
            InputError: nobody here knows how to guard it.
            MissingExtraError: the adapter's extra is not installed.
        """
        from guard.wrapping import wrap  # noqa: PLC0415  # it imports this module's types

        return wrap(self, target, **options)

    def follow(self, exchange: Exchange, *, stream: bool = True) -> Following:
        """Judge an exchange whose texts arrive side by side, piece by piece; for adapters.

        Args:
            exchange: what was asked; its choices are yet to come.
            stream: whether text leaves while more is coming. Otherwise nothing of it should
                leave before the verdict.

        Raises:
            InputError: it is no exchange, or something in it is not text.
        """
        return Following(self._driver, self.session(exchange, stream=stream))

    def session(self, exchange: Exchange, *, stream: bool) -> Session:
        """Return the state of an exchange whose channels are yet to be opened; see `follow`.

        Args:
            exchange: what was asked.
            stream: whether text leaves while more is coming.

        Raises:
            InputError: it is no exchange, or something in it is not text.
        """
        _require_usable(exchange)
        deployment = self._now(exchange.conversation)
        session = Session(exchange, deployment, stream=stream, channels=())
        return self._driver.watch(session) if stream else session

    def input_session(self, exchange: Exchange) -> Session:
        """Return the state of a judgement of what a model is given; see `check_input`."""
        _require_usable(exchange)
        judged = self._input.security_class.limits
        channels = tuple(exchange.input_channels()) if judged else ()
        return Session(replace(exchange, choices=()), self._input, channels=channels)

    @overload
    def protect(self, function: _F, *, on_block: OnBlock = "message") -> _F: ...

    @overload
    def protect(
        self, function: None = None, *, on_block: OnBlock = "message"
    ) -> Callable[[_F], _F]: ...

    def protect(self, function: Any = None, *, on_block: OnBlock = "message") -> Any:
        """Guard a callable, async callable, generator or async generator: prompt -> text.

        See `guard.protect.protect`.
        """
        return protect(self, function, on_block=on_block)

    def _now(self, conversation: str) -> Deployment:
        """Return the deployment as the live risk has it now."""
        if self._live is None:
            return self._deployment
        posture = self._live.posture
        return replace(
            self._tightened if posture == "tighten" else self._deployment,
            priors=self._live.priors(conversation or None),
            # This guard's model is the one that an alarm would have another stand in for.
            quarantined=posture in ("quarantine", "fallback"),
        )

    def _session(
        self,
        response: str | Exchange,
        prompt: str,
        system: str,
        conversation: str,
        *,
        stream: bool = False,
    ) -> Session:
        if isinstance(response, Exchange):
            if not response.choices:
                raise InputError("the exchange has no choices: there is no response to judge")
            _require_usable(response)
        if not isinstance(conversation, str):
            raise InputError(f"`conversation` must be `str`, not {type(conversation).__name__}")
        exchange = Exchange.of(response, prompt=prompt, system=system)
        if conversation:
            exchange = replace(exchange, conversation=conversation)
        channels = [Channel(CONTENT, "content", 0, "")] if stream else None
        deployment = self._now(exchange.conversation)
        session = Session(exchange, deployment, stream=stream, channels=channels)
        return self._driver.watch(session) if stream else session


def _require_usable(exchange: Exchange) -> None:
    """Raise `InputError` for all that cannot be judged; Python does not check fields' types."""
    given = (
        _fields(exchange) if isinstance(exchange, Exchange) else [("exchange", exchange, Exchange)]
    )
    problems = [
        f"`{place}` must be `{kind.__name__}`, not {type(value).__name__}"
        for place, value, kind in given
        if not isinstance(value, kind)
    ]
    if problems:
        raise InputError("; ".join(problems))


def _fields(exchange: Exchange) -> Iterator[tuple[str, object, type]]:
    """Yield every value that is used, with its place and the type that it must have."""
    yield "metadata", exchange.metadata, Mapping
    yield "model", exchange.model, str
    yield "conversation", exchange.conversation, str
    for at, message in _listed("messages", exchange.messages):
        yield at, message, Message
        yield f"{at}.content", getattr(message, "content", ""), str
    for at, choice in _listed("choices", exchange.choices):
        yield at, choice, Choice
        for name in ("content", "reasoning", "refusal"):
            yield f"{at}.{name}", getattr(choice, name, ""), str
        for place, call in _listed(f"{at}.tool_calls", getattr(choice, "tool_calls", ())):
            yield place, call, ToolCall
            yield f"{place}.name", getattr(call, "name", ""), str
            yield f"{place}.arguments", getattr(call, "arguments", ""), str
            yield f"{place}.id", getattr(call, "id", ""), str


def _listed(at: str, values: object) -> Iterator[tuple[str, object]]:
    """Yield a tuple's or list's items with their places; anything else is one wrong item."""
    if not isinstance(values, tuple | list):
        yield at, values
        return
    for number, value in enumerate(values):
        yield f"{at}[{number}]", value


def _open_journal(journal: guard.Journal | str | Path | _NotGiven | None) -> guard.Journal | None:
    if journal is None:
        return None
    from guard.journal.store import Journal as Store  # noqa: PLC0415  # loads SQLAlchemy

    if isinstance(journal, Store):
        return journal
    if not isinstance(journal, str | Path | _NotGiven):
        raise ConfigurationError(
            f"`journal` must be a `Journal`, a path, a URL or `None`, not `{journal!r}`: leave it "
            "out for the default place"
        )
    return Store(None if isinstance(journal, _NotGiven) else journal)


def _followed(
    live: Live | guard.Store | bool,  # noqa: FBT001  # as `Guard.load` was given it
    security_class: SecurityClass,
    detectors: Sequence[Detector],
    notify: Sequence[guard.Notifier],
) -> Live | None:
    if callable(notify):
        raise ConfigurationError("`notify` must be a list: put a single notifier in brackets")
    if notify and (live is False or isinstance(live, Live)):
        raise ConfigurationError(
            "`notify` needs `live=True` or a store: without it nothing is followed, and what "
            "follows the live risk already has been told whom to notify"
        )
    if live is False:
        return None
    if isinstance(live, Live):
        return live
    if isinstance(live, str | Path):
        raise ConfigurationError(
            "`live` must be `True` or a store, not a path or an address: "
            "`guard.live.sqlite_store.SQLiteStore(path)` or "
            "`guard.live.redis_store.RedisStore(url)`"
        )
    from guard.live.deployed import follow  # noqa: PLC0415  # most guards do without

    return follow(security_class, detectors, store=None if live is True else live, notify=notify)


def _of_responses(detector: Detector) -> tuple[str, ...]:
    """Return the categories that a detector finds in responses, own ones included."""
    names = detector.categories
    return tuple(n for n in names if n not in CATEGORIES or CATEGORIES[n].side == "response")


def _categories(detectors: Sequence[Detector]) -> list[str]:
    return list(dict.fromkeys(name for detector in detectors for name in detector.categories))


def found_on(detectors: Sequence[Detector], side: Side) -> list[str]:
    """Return the categories that some detector can find on a side of the exchange."""
    found = [n for each in detectors for n in each.categories if _looks(each, n, side)]
    return list(dict.fromkeys(found))


def _looks(detector: Detector, category: str, side: Side) -> bool:
    """Return whether a detector may look for one of its categories on a side of the exchange.

    The classifier looks for each on one side alone. What any other detector looks at only its
    maker knows, so that it is taken to look everywhere.
    """
    if not _is_classifier(detector):
        return True
    return (category in _of_responses(detector)) == (side == "response")


def _found(detectors: Sequence[Detector]) -> dict[Side, list[str]]:
    return {"response": found_on(detectors, "response"), "prompt": found_on(detectors, "prompt")}


def _is_classifier(detector: Detector) -> bool:
    # Where its module was never loaded nothing is one, and loading it takes the model's runtime.
    module = sys.modules.get("guard.detectors.classifier")
    # One that was derived from it may look elsewhere.
    return module is not None and type(detector) is module.Classifier


def _given(detectors: Iterable[Detector]) -> tuple[Detector, ...]:
    """Return the detectors as a tuple: an iterator gives them once, and they are wanted often.

    Raises:
        ConfigurationError: it holds something else, or is nothing that holds any.
    """
    try:
        given = iter(detectors)
    except TypeError as error:
        kind = type(detectors).__name__
        raise ConfigurationError(
            f"`detectors` must be a list of detectors, not `{kind}`: put even a single one in "
            "brackets, as in `detectors=[mine]`"
        ) from error
    listed = tuple(given)
    if problems := [text for item in listed if (text := _unfit(item))]:
        raise ConfigurationError(problems)
    return listed


def _unfit(item: object) -> str:
    """Return why something is no detector that can be used, with its mend; `""` where it is one."""
    if isinstance(item, type):
        return f"`{item.__name__}` is a class and no detector: call it to make one"
    if not isinstance(item, Detector):
        return f"{item!r} is no detector: it needs `name`, `version`, `categories` and a call"
    for field in ("name", "version"):
        if not isinstance(getattr(item, field), str):
            return f"`{field}` of detector {item!r} must be `str`"
    if not _are_names(item.categories):
        return (
            f"`categories` of detector `{item.name}` must be a tuple of names, not "
            f'`{item.categories!r}`: a single one needs a comma, as in `("violence",)`'
        )
    return ""


def _are_names(names: object) -> bool:
    """Return whether something holds several texts; a lone text would count by its letters."""
    if isinstance(names, str) or not isinstance(names, Collection):
        return False
    return all(isinstance(name, str) for name in names)


def _unredacted(*classes: SecurityClass | None) -> list[str]:
    """Return a problem for each class under which a journal needs a redactor."""
    return [
        f"class `{item.name}` journals redacted texts: pass a `redactor`"
        for item in classes
        if item is not None and item.journal.text == "redacted"
    ]


def _problems(security_class: SecurityClass, detectors: Sequence[Detector]) -> list[str]:
    """Return why these parts cannot guard anything, each with its mend."""
    if not detectors:
        return ["no detector: a guard that judges nothing would let everything pass"]
    names = [detector.name for detector in detectors]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems = [f"two detectors are named `{name}`: rename one" for name in twice]
    return problems + check_categories(security_class, _found(detectors))
