"""One answer of a language model on its way: its token ids, read as text, judged as they come.

What is judged is what leaves: a text in the words in which it is shown. Where token ids leave,
every text that they may be read as was judged: by itself, behind its prompt, with its special
tokens. Where the answer was rewritten or withheld, they are the ids of the text that may leave.

This module does not know `generate`, threads, or how a text is judged (`guard.session`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from guard.exchange import Channel
from guard.session import CONTENT
from guard.text.units import LOOKAHEAD
from guard.verdict import delivers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from guard.engine import Guard
    from guard.exchange import Exchange
    from guard.session import Session
    from guard.steps import Steps
    from guard.verdict import Verdict

    Ids = list[int]
    Read = Callable[[Ids], str]

BROKEN: Final = "\ufffd"
"""What stands for bytes that are no character (yet)."""

_UNSETTLED: Final = 8
"""Characters at the end of a text that further tokens may change: a tokenizer's clean-up takes out
spaces before ` n't` and the like."""

_BEFORE: Final = 16
"""Tokens of the prompt that are read with an answer, to see how it goes on behind them."""


@dataclass(frozen=True)
class Reading:
    """The ways to read the ids of one answer.

    Attributes:
        tokenizer: reads and spells.
        prompt: the ids before the answer.
        closing: ids that end or fill an answer and say nothing.
    """

    tokenizer: Any
    prompt: Ids
    closing: Collection[int] = ()

    def alone(self, ids: Ids, **options: Any) -> str:
        """Return an answer as it reads by itself, by default without special tokens."""
        return str(self.tokenizer.decode(ids, **{"skip_special_tokens": True} | options))

    def joined(self, ids: Ids, **options: Any) -> str:
        """Return an answer as it reads behind its prompt."""
        before = self.prompt[-_BEFORE:]
        start, whole = self.alone(before, **options), self.alone(before + ids, **options)
        return whole[len(start) :] if whole.startswith(start) else self.alone(ids, **options)

    def verbatim(self, ids: Ids) -> str:
        """Return an answer with its special tokens, but for those around it."""
        said = [at for at, number in enumerate(ids) if number not in self.closing]
        inner = ids[said[0] : said[-1] + 1] if said else []
        return self.alone(inner, skip_special_tokens=False)

    def all(self, ids: Ids) -> set[str]:
        """Return every text that the ids may be read as."""
        return {self.alone(ids), self.joined(ids), self.verbatim(ids)}

    def spelled(self, text: str) -> Ids:
        """Return the ids of a text, as well as the tokenizer can spell it."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass
class Growing:
    """The text of ids that grow, as far as further ids cannot change it.

    Attributes:
        read: reads ids.
        text: what is settled by now.
    """

    read: Read
    text: str = ""

    def settled(self, ids: Ids) -> str:
        """Return what is settled now and was not before."""
        known = self.read(ids).rstrip(BROKEN)[:-_UNSETTLED]
        if len(known) <= len(self.text) or not known.startswith(self.text):
            return ""
        piece, self.text = known[len(self.text) :], known
        return piece

    def rest(self, ids: Ids) -> str:
        """Return what is left at the end."""
        return self.read(ids)[len(self.text) :]

    def astray(self, ids: Ids) -> bool:
        """Return whether the whole text begins otherwise than what was settled."""
        return not self.read(ids).startswith(self.text)


def _nowhere(_: str) -> None:
    """Take a text that leaves with the end only."""


@dataclass
class Row:
    """One answer: `take` its ids as they come, then `finish`.

    Attributes:
        guard: judges.
        exchange: what was asked.
        reading: the ways to read the ids.
        read: the one way in which the text is shown.
        lead: what readers see right before the answer.
        say: told what may leave, where it leaves while more is coming.
        stopped: whether nothing more of it is wanted.
        text: what was delivered, behind the end.
        ids: the token ids of what was delivered, behind the end.
    """

    guard: Guard
    exchange: Exchange
    reading: Reading
    read: Read
    lead: str = ""
    say: Callable[[str], None] | None = None
    stopped: bool = False
    text: str = ""
    ids: Ids = field(default_factory=list)
    _readings: int = 0

    def __post_init__(self) -> None:
        """Judge nothing yet."""
        self._begin()

    @property
    def verdict(self) -> Verdict:
        """The decision, behind the end."""
        return self._session.verdict()

    def take(self, ids: Ids) -> None:
        """Have what is certain of the ids' text judged; say what may leave."""
        if not self.stopped and (piece := self._growing.settled(ids)):
            self._feed(piece)

    def finish(self, ids: Ids) -> None:
        """Take the end of the answer, with all of its ids."""
        if self.say is None and not self.stopped and self._growing.astray(ids):
            # Nothing has left yet, so that the text can be judged anew as it reads now.
            self._begin()
        if not self.stopped:
            self._feed(self._growing.rest(ids))
        self._pass(self._session.close())
        withheld = self._withheld
        self._deliver(ids)
        self._pass(self._session.finish())
        # A reading, or the journal, may have failed behind the end of the text.
        if self._withheld and not withheld:
            self._deliver_text(self._session.notice(0))

    def abandon(self) -> None:
        """Close the journal's row of an answer that comes to no end."""
        self.guard.driver.run(self._session.abandon())

    # Private parts.

    @property
    def _withheld(self) -> bool:
        return self._session.withheld(0)

    def _begin(self) -> None:
        self._growing = Growing(self.read)
        self._session = begun(self.guard, self.exchange, self.lead, stream=self.say is not None)

    def _feed(self, piece: str) -> None:
        self._pass(self._session.feed(piece))
        self.stopped = self._withheld

    def _pass(self, steps: Steps) -> None:
        say = self.say or _nowhere
        while (text := self.guard.driver.advance(steps)) is not None:
            say(text)

    def _deliver(self, ids: Ids) -> None:
        """Settle what of the answer is delivered, as text and as ids."""
        run = self._session.run(CONTENT)
        if not self._withheld and run.text == run.received:
            self.text, self.ids = run.text, ids
        elif self.say is not None:
            self._deliver_text(run.streamed)
        else:
            self._deliver_text(self._session.notice(0) if self._withheld else run.text)
        if not self._withheld and not self._session.shadow:
            self._judge_readings()

    def _deliver_text(self, text: str) -> None:
        self.text, self.ids = text, self.reading.spelled(text)

    def _judge_readings(self) -> None:
        """Judge whatever else the ids may be read as; unless all passes, withhold the answer."""
        for text in sorted(self.reading.all(self.ids)):
            if text.strip() not in self.text and not self._passes(text):
                self._session.note_escalation("block")
                return

    def _passes(self, text: str) -> bool:
        """Judge a text by itself; return whether it passes as it is."""
        self._readings += 1
        name = f"choices[0].reading#{self._readings}"
        self._session.open(Channel(name, "content", 0, ""))
        for steps in (self._session.feed(text, name), self._session.close(name)):
            self.guard.driver.run(steps)
        run = self._session.run(name)
        if delivers(run.step) and not run.edits:
            self._session.forget(name)
            return True
        run.retract(0)
        run.cut("block")
        return False


@dataclass(frozen=True)
class Unasked:
    """The place of an answer that the model must not give."""

    verdict: Verdict
    reading: Reading
    stopped: bool = True

    @property
    def text(self) -> str:
        """The class's message."""
        return self.verdict.message

    @property
    def ids(self) -> Ids:
        """Its token ids."""
        return self.reading.spelled(self.text)

    def take(self, ids: Ids) -> None:
        """Pass over what the model says in a batch with others."""

    def finish(self, ids: Ids) -> None:
        """Pass over it."""

    def abandon(self) -> None:
        """Do nothing: there is no row to close."""


def begun(guard: Guard, exchange: Exchange, lead: str, *, stream: bool) -> Session:
    """Return the state of an exchange with one text to come, behind what its readers see."""
    session = guard.session(exchange, stream=stream)
    session.open(Channel(CONTENT, "content", 0, "", lead=lead, seam=len(lead)))
    return session


def lead_of(prompt: str) -> str:
    """Return what a text begins in where it goes on in the prompt's last word."""
    words = prompt.split()
    return words[-1][-LOOKAHEAD:] if words and not prompt[-1].isspace() else ""


def closing_of(tokenizer: Any, *further: int | Sequence[int] | None) -> frozenset[int]:
    """Return the ids that end or fill an answer."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *further)
    lists = (each if isinstance(each, list | tuple) else [each] for each in known)
    return frozenset(number for each in lists for number in each if number is not None)
