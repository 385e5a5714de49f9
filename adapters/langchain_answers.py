"""A chat model's answers on their way through the guard: whole ones, and chunks of one.

What passes as it is leaves as the very object that came. A choice that is withheld is answered
by the class's message, as content and as a refusal; what it cost stays. Chunks keep their order
and leave once their texts were judged, tool calls only whole. Where something was done, the
response's metadata say so under `guard`.

This module does not know chat models, and not how a text is judged (`guard.session`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from guard.adapters.langchain_messages import Document
from guard.exchange import Channel
from guard.wire.body import added
from guard.wire.detail import detail
from guard.wire.ledger import Ledger
from guard.wire.parts import counts, others, plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from langchain_core.messages.ai import UsageMetadata

    from guard.exchange import ChannelKind
    from guard.session import Session
    from guard.steps import Steps
    from guard.verdict import Verdict
    from guard.wire.ledger import Piece
    from guard.wire.parts import Json

_KEPT: Final = ("id", "object", "created", "service_tier", "system_fingerprint", "model")
"""What is kept of the metadata of an answer that is withheld."""

_NAMED: Final = {"model_name": "model", "model_provider": "model", "output_version": "model"}
"""What is kept of them besides, where it may stand as a name does."""

_REFUSES: Final = {"anthropic": {"stop_reason": "refusal"}}
"""How the metadata of a vendor say that an answer is a refusal."""


@dataclass(slots=True)
class _Held:
    """A generation, or a chunk of one, that waits.

    Attributes:
        document: its texts.
        pieces: those that belong to a channel.
        tainted: whether a text in it that was judged by itself did not pass.
    """

    document: Document
    pieces: list[Piece] = field(default_factory=list)
    tainted: bool = False

    @property
    def last(self) -> bool:
        """Whether nothing may come behind it."""
        return getattr(self.document.message, "chunk_position", None) == "last"


class _Answer:
    """What whole answers and streams share."""

    def __init__(self, session: Session, gated: Collection[ChannelKind]) -> None:
        self.session = session
        self.ledger = Ledger(session, gated)
        self._channels: set[str] = set()

    @property
    def verdict(self) -> Verdict:
        """The verdict, behind the end."""
        return self.session.verdict()

    @property
    def entry(self) -> Json | None:
        """What the response's metadata should say, `None` where nothing was done."""
        verdict = self.verdict
        untouched = verdict.action == "allow" or verdict.shadow
        return None if untouched else detail(verdict)

    def take(self, held: _Held) -> Steps:
        """Have the texts of a generation judged."""
        choice = held.document.choice
        for part in held.document.parts(partial(self._received, choice)):
            piece = yield from self.ledger.take(part)
            if piece is not None:
                held.pieces.append(piece)
                self._channels.add(piece.channel)
            elif self.session.withheld(choice):
                held.tainted = True

    def filled(self, held: _Held, entry: Json | None = None) -> ChatGeneration:
        """Return a generation with what may leave, the very one where that is all of it."""
        document, changed = held.document, False
        for piece in held.pieces:
            if (text := self.ledger.leave(piece)) != piece.given:
                piece.put(text)
                changed = True
        if changed:
            document.forget_tokens()
        if entry is not None:
            document.note(entry)
        pruned = document.altered and not self.session.shadow
        if not (changed or entry or pruned):
            return document.generation
        return document.made(self._rewritten(document.choice))

    def refusal(self, choice: int) -> Json:
        """Return what stands beside the class's message: a refusal, unless it is an answer.

        Whoever wanted a document is refused by any message.
        """
        refuses = self.session.step_of(choice) == "block" or self.ledger.structured
        return {"refusal": self.session.notice(choice)} if refuses else {}

    def _received(self, choice: int) -> str:
        """Return the content that came so far."""
        name = _content(choice)
        return self.session.run(name).received if name in self._channels else ""

    def _rewritten(self, choice: int) -> str | None:
        """Return the content where it reads otherwise now."""
        name = _content(choice)
        if name not in self._channels or not self.session.run(name).edits:
            return None
        return self.session.run(name).text


class WholeAnswer(_Answer):
    """A result of a chat model, with every choice.

    Args:
        session: the exchange's state, for a whole response.
        result: what came back.
        gated: kinds of text that are delivered whole or not at all.
    """

    def __init__(
        self, session: Session, result: ChatResult, gated: Collection[ChannelKind]
    ) -> None:
        """Judge nothing yet."""
        super().__init__(session, gated)
        self._output = result.llm_output
        self._held = [_Held(Document(one, at)) for at, one in enumerate(result.generations)]

    @property
    def regenerate(self) -> bool:
        """Whether the class would have the model asked again."""
        return any(self.session.step_of(c) == "regenerate" for c in self.ledger.choices())

    @property
    def usage(self) -> UsageMetadata | None:
        """What the answer cost."""
        messages = [held.document.message for held in self._held]
        return next((m.usage_metadata for m in messages if isinstance(m, AIMessage)), None)

    @property
    def counts(self) -> Json:
        """What the answer cost, as the backend counts it."""
        return counts((self._output or {}).get("token_usage")) or {}

    def judge(self) -> Steps:
        """Judge every text."""
        for held in self._held:
            yield from self.take(held)
        other = Channel("choices[0].other", "content", 0, "")
        for part in others(self._output or {}, other, (*_NAMED, "headers")):
            yield from self.ledger.take(part)
        yield from self.ledger.finish()

    def delivered(self, earlier: Sequence[WholeAnswer] = ()) -> ChatResult:
        """Return what may be delivered.

        Args:
            earlier: answers that were withdrawn; what they cost is added.
        """
        entry = self.entry
        given = [self._delivered(held, entry) for held in self._held]
        output = self._output
        if output is not None and any(map(self.session.withheld, range(len(given)))):
            output = _kept(output) | {"token_usage": self.counts}
        for answer in earlier:
            given[:1] = [_costing(one, answer.usage) for one in given[:1]]
            if output is not None:
                total = added(output.get("token_usage") or {}, answer.counts)
                output = output | {"token_usage": total}
        return ChatResult(generations=given, llm_output=output)

    def _delivered(self, held: _Held, entry: Json | None) -> ChatGeneration:
        choice = held.document.choice
        if not self.session.withheld(choice):
            return self.filled(held, entry)
        message = held.document.message
        metadata = _kept(self._output or {}) | _kept(message.response_metadata)
        entries = metadata | {"guard": entry}
        answer = refused(self.session.notice(choice), entries, self.refusal(choice))
        usage = message.usage_metadata if isinstance(message, AIMessage) else None
        answer = answer.model_copy(update={"id": message.id, "usage_metadata": usage})
        info = _kept(held.document.generation.generation_info or {})
        return ChatGeneration(message=answer, generation_info=info | {"finish_reason": "stop"})


class StreamedAnswer(_Answer):
    """The chunks of one answer.

    Args:
        session: the exchange's state, for a stream.
        gated: kinds of text that leave only with the end.
        patient: whether nothing leaves before some text was judged, so that the model can be
            asked again where the first text is bad.
    """

    def __init__(
        self, session: Session, gated: Collection[ChannelKind], *, patient: bool = False
    ) -> None:
        """Begin at the start of a stream."""
        super().__init__(session, gated)
        self._queue: deque[_Held] = deque()
        self._rest: list[ChatGenerationChunk] = []
        self._patient = patient
        self._tainted = False
        self._refused = False
        self._blocks = False
        self._id: str | None = None
        self._from: Json = {}

    @property
    def regenerate(self) -> bool:
        """Whether nothing has left and the class would have the model asked again."""
        return self._patient and self.session.step_of(0) == "regenerate"

    def feed(self, chunk: ChatGenerationChunk) -> Steps:
        """Take a chunk."""
        held, message = _Held(Document(chunk)), chunk.message
        self._blocks = self._blocks or (isinstance(message.content, list) and bool(message.content))
        self._id = message.id or self._id
        named = {n: message.response_metadata.get(n) for n in ("model_provider", "output_version")}
        self._from |= _kept({name: value for name, value in named.items() if value})
        yield from self.take(held)
        self._queue.append(held)
        self._tainted |= held.tainted

    def ready(self) -> Iterator[ChatGenerationChunk]:
        """Yield what may leave by now."""
        if self._patient:
            if self.regenerate or not (self._tainted or self.ledger.speaks):
                return
            self._patient = False
        while self._queue and not self._queue[0].last and self._decided(self._queue[0]):
            yield from self._emitted(self._queue.popleft())

    def finish(self) -> Steps:
        """Take the end of the stream; what is left of it waits in `rest`."""
        yield from self.ledger.end_all()
        if not self.regenerate:
            self._rest = list(self._remaining())
        # The row says what has left, so that it is closed behind the last of it.
        self.ledger.account()
        yield from self.ledger.finish()

    def rest(self) -> Iterator[ChatGenerationChunk]:
        """Yield what leaves behind the end: what was held back, and what was done."""
        entry = None if self.regenerate else self.entry
        told = [self._chunk("", {"guard": entry})] if entry else []
        at = next((i for i, chunk in enumerate(self._rest) if _is_last(chunk)), len(self._rest))
        yield from [*self._rest[:at], *told, *self._rest[at:]]

    def abandon(self) -> Steps:
        """Close the journal's row of a stream whose reader or backend went away."""
        self.ledger.account()
        yield from self.session.abandon()

    def _decided(self, held: _Held) -> bool:
        return all(self.ledger.ready(piece) for piece in held.pieces)

    def _remaining(self) -> Iterator[ChatGenerationChunk]:
        self._patient = False
        while self._queue:
            yield from self._emitted(self._queue.popleft())
        if self.session.withheld(0) and not self._refused:
            yield self._refusal()

    def _emitted(self, held: _Held) -> Iterator[ChatGenerationChunk]:
        """Yield what leaves in the place of a chunk."""
        passed = all(self.ledger.passed(piece) for piece in held.pieces)
        over = self._refused or held.tainted
        if not self.session.withheld(0) or (passed and not over):
            yield cast("ChatGenerationChunk", self.filled(held))
            return
        if not self._refused:
            if not held.tainted and (said := self._said(held)):
                yield self._chunk(said)
            yield self._refusal()
        yield from self._cost(held)

    def _said(self, held: _Held) -> str:
        """Return what of a chunk's content leaves before it is broken off."""
        pieces = [piece for piece in held.pieces if piece.channel == _content(0)]
        return "".join(self.ledger.leave(piece) for piece in pieces)

    def _refusal(self) -> ChatGenerationChunk:
        """Return the class's message, behind what had left."""
        self._refused = True
        before = "\n\n" if self.ledger.left(0) else ""
        said = self.refusal(0)
        metadata = _refusing(self._from.get("model_provider")) if said else {}
        return self._chunk(before + self.session.notice(0), metadata, said)

    def _cost(self, held: _Held) -> Iterator[ChatGenerationChunk]:
        """Yield what stays of a chunk of a stream that is withheld: its usage and the end."""
        message, ends = held.document.message, held.document.ends
        usage = message.usage_metadata if isinstance(message, AIMessageChunk) else None
        if usage is None and not ends and not held.last:
            return
        chunk = self._chunk("", _kept(message.response_metadata)).message
        info = _kept(held.document.generation.generation_info or {})
        position = "last" if held.last else None
        yield ChatGenerationChunk(
            message=chunk.model_copy(update={"usage_metadata": usage, "chunk_position": position}),
            generation_info=info | ({"finish_reason": "stop"} if ends else {}) or None,
        )

    def _chunk(
        self, text: str, metadata: Json | None = None, beside: Json | None = None
    ) -> ChatGenerationChunk:
        """Return a chunk of our own, in the shape of the others."""
        content: Any = text
        if self._blocks:
            content = [{"type": "text", "text": text, "index": "lc_guard"}] if text else []
        message = AIMessageChunk(
            content=content,
            additional_kwargs=beside or {},
            response_metadata=self._from | (metadata or {}),
            id=self._id,
        )
        return ChatGenerationChunk(message=message)


def refused(notice: str, metadata: Json, beside: Json) -> AIMessage:
    """Return a message that says the class's words in the place of an answer.

    Args:
        notice: the words.
        metadata: what the response's metadata say.
        beside: the refusal, if it is one.
    """
    content: Any = notice
    if metadata.get("output_version") == "v1":
        blocks = [{"type": "refusal", **beside}] if beside else []
        content = [{"type": "text", "text": notice}, *blocks]
    if beside:
        metadata = metadata | _refusing(metadata.get("model_provider"))
    return AIMessage(content=content, additional_kwargs=beside, response_metadata=metadata)


def _refusing(provider: object) -> Json:
    return _REFUSES.get(provider, {}) if isinstance(provider, str) else {}


def _kept(metadata: Json) -> Json:
    """Return what is kept of metadata where the answer is withheld."""
    named = {
        name: metadata[name]
        for name, like in _NAMED.items()
        if name in metadata and plain({like: metadata[name]}, (like,))
    }
    return plain(metadata, _KEPT) | named


def _costing(generation: ChatGeneration, usage: UsageMetadata | None) -> ChatGeneration:
    """Return a generation that costs more."""
    message = generation.message
    if usage is None or not isinstance(message, AIMessage):
        return generation
    total = add_usage(message.usage_metadata, usage)
    return ChatGeneration(
        message=message.model_copy(update={"usage_metadata": total}),
        generation_info=generation.generation_info,
    )


def _is_last(chunk: ChatGenerationChunk) -> bool:
    return getattr(chunk.message, "chunk_position", None) == "last"


def _content(choice: int) -> str:
    return f"choices[{choice}].content"
