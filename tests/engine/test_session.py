"""Sessions driven by hand: what they ask for, in which order, and what they make of answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from guard.assess import Failure
from guard.detectors.base import Finding
from guard.detectors.pooling import CLOSING as CLOSING_LABEL
from guard.exchange import Channel, Choice, Exchange, Message, ToolCall
from guard.journal.store import Journal
from guard.session import CONTENT, Session
from guard.steps import Ask, Deployment, Judge, Keep, Outcome, Release
from guard.text.units import CLOSING, CONTEXT, LOOKAHEAD, units

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

    from guard.detectors.base import Passage
    from guard.engine import Guard
    from guard.security_class import SecurityClass
    from guard.steps import Steps

FINE = "Fine weather today, they say, and the tide is low. "
NOTHING = Outcome()
KEPT_NOT = Outcome(failures=(Failure("journal", "failed"),))


def found(passage: Passage, category: str, evidence: float = 9.0) -> Outcome:
    """Return an outcome with one finding over the whole unit."""
    finding = Finding(category, evidence, passage.start, passage.end, "by hand", "1")
    return Outcome((finding,), {"by hand": "ok"})


def on_word(passage: Passage) -> Outcome:
    """Find `to_X` wherever the unit says `X!`."""
    for remedy in ("flag", "redact", "excise", "replace", "block"):
        if f"{remedy}!" in passage.unit:
            return found(passage, f"to_{remedy}")
    return NOTHING


class Hand:
    """Answers a session's steps and keeps a log of them."""

    def __init__(
        self,
        judge: Callable[[Passage], Outcome] = on_word,
        keep: Callable[[Keep], Outcome | None] = lambda _: None,
    ) -> None:
        """Have asked nothing yet."""
        self.log: list[Ask] = []
        self._judge = judge
        self._keep = keep

    def drive(self, steps: Steps) -> str:
        """Answer `steps` to their end; return what was released."""
        begin = len(self.log)
        answer: Outcome | None = None
        try:
            while True:
                step = steps.send(answer)
                self.log.append(step)
                answer = None
                if isinstance(step, Judge):
                    answer = self._judge(step.passage)
                elif isinstance(step, Keep):
                    answer = self._keep(step)
        except StopIteration:
            return "".join(step.text for step in self.log[begin:] if isinstance(step, Release))

    @property
    def passages(self) -> list[Passage]:
        """What was asked to be judged."""
        return [step.passage for step in self.log if isinstance(step, Judge)]

    @property
    def keeps(self) -> list[Keep]:
        """What was asked to be kept."""
        return [step for step in self.log if isinstance(step, Keep)]

    def stream(self, session: Session, pieces: Iterable[str]) -> str:
        """Feed and finish; return what was released."""
        left = "".join(self.drive(session.feed(piece)) for piece in pieces if not session.stopped)
        return left + self.drive(session.finish())


@pytest.fixture
def new_session(make_class: Callable[..., SecurityClass]) -> Callable[..., Session]:
    """Return the maker of sessions; a text makes a whole one, none a stream."""

    def make(response: str | Exchange | None = None, **changes: Any) -> Session:
        security_class = make_class(**changes)
        deployment = Deployment(
            security_class=security_class,
            messages=security_class.messages_in(None),
            detectors={"by hand": "1"},
            categories=tuple(security_class.limits),
            journalled=True,
        )
        exchange = Exchange.of("" if response is None else response, prompt="Well?")
        if response is not None:
            return Session(exchange, deployment)
        content = Channel(CONTENT, "content", 0, "")
        return Session(exchange, deployment, stream=True, channels=[content])

    return make


class TestPassages:
    """What detectors are asked to judge."""

    def test_units_in_order_with_context_and_look_ahead(
        self, new_session: Callable[..., Session]
    ) -> None:
        """Each unit comes with what was delivered before it and with what follows it."""
        text = FINE * 30
        hand = Hand()
        hand.drive(new_session(text).whole())
        bounds = list(units(text))
        assert [passage.unit for passage in hand.passages] == [text[a:b] for a, b in bounds]
        for passage, (start, end) in zip(hand.passages, bounds, strict=True):
            assert passage.text[: passage.start] == text[max(0, start - CONTEXT) : start]
            ahead = passage.text[passage.end :]
            assert text[end:].startswith(ahead)
            assert len(ahead) >= min(LOOKAHEAD, len(text) - end)
            assert passage.prompt == "Well?"

    def test_the_context_is_what_was_delivered(self, new_session: Callable[..., Session]) -> None:
        """After a rewrite the next unit's context is the rewritten text and not the original."""
        text = FINE * 3 + "It said redact! then. " + FINE * 6
        hand = Hand()
        session = new_session(text)
        hand.drive(session.whole())
        assert "redact!" in "".join(passage.unit for passage in hand.passages)
        delivered = session.verdict().streamed
        last = hand.passages[-1]
        assert last.start > 0
        assert last.text[: last.start] == delivered[: -len(last.unit)][-CONTEXT:]
        assert "redact!" not in last.text[: last.start]

    def test_the_last_of_several_units_comes_with_the_whole(
        self, new_session: Callable[..., Session]
    ) -> None:
        """So that a text can be read once more; the only unit of a text is the whole already."""
        hand = Hand()
        text = FINE * 40
        hand.drive(new_session(text).whole())
        *before, last = hand.passages
        assert len(before) > 2
        assert {passage.closing for passage in before} == {""}
        assert last.closing == text[-CLOSING:]
        alone = Hand()
        alone.drive(new_session(FINE).whole())
        assert [passage.closing for passage in alone.passages] == [""]

    def test_a_redaction_that_uses_up_the_last_unit_is_judged_with_the_whole(
        self, new_session: Callable[..., Session]
    ) -> None:
        """The whole is read once more all the same: nothing follows that could be read with it."""

        def judge(passage: Passage) -> Outcome:
            at = passage.text.find("redact!")
            if not passage.start <= at < passage.end:
                return NOTHING
            span = Finding("to_redact", 9.0, at, len(passage.text), "by hand", "1")
            return Outcome((span,), {"by hand": "ok"})

        hand = Hand(judge)
        text = FINE * 8 + "It said redact! and then, for a while, no more. " + "Tail."
        *_, (start, end) = units(text)
        assert text.index("redact!") < start
        assert text[start:end] == "Tail."
        hand.drive(new_session(text).whole())
        assert hand.passages[-1].closing.endswith("It said [redacted: to redact]")

    def test_what_a_whole_text_is_is_not_mended_in_its_last_unit(
        self, new_session: Callable[..., Session]
    ) -> None:
        """A local remedy would leave the rest as it is: the text is replaced."""

        def judge(passage: Passage) -> Outcome:
            if not passage.closing:
                return NOTHING
            given = Finding(
                "to_excise", 9.0, passage.start, passage.end, "by hand", "1", label=CLOSING_LABEL
            )
            return Outcome((given,), {"by hand": "ok"})

        session = new_session(FINE * 9)
        Hand(judge).drive(session.whole())
        assert session.verdict().text == "[replaced]"

    def test_sentences_are_taken_out_without_reading_the_whole_again(
        self, new_session: Callable[..., Session]
    ) -> None:
        """Of a last unit with many sentences every one may be tried."""
        hand = Hand()
        hand.drive(new_session(FINE * 9 + "Do excise! that. Do excise! that. Fine.").whole())
        assert sum(bool(passage.closing) for passage in hand.passages) == 1

    def test_the_whole_is_what_was_delivered(self, new_session: Callable[..., Session]) -> None:
        """What was taken out of a text is no part of what is read once more."""
        hand = Hand()
        hand.drive(new_session(FINE * 3 + "It said redact! then. " + FINE * 6).whole())
        assert hand.passages[-1].closing
        assert "redact!" not in hand.passages[-1].closing

    def test_every_channel_of_every_choice(self, new_session: Callable[..., Session]) -> None:
        """Reasoning, content, refusal and tool calls of all choices are judged.

        A tool's name is judged once.
        """
        choice = Choice("Content.", "Reasoning.", "Refusal.", (ToolCall("send", "Arguments."),))
        hand = Hand()
        session = new_session(Exchange((choice, choice), (Message("user", "Well?"),)))
        hand.drive(session.whole())
        said = ["Reasoning.", "Content.", "Refusal.", "Arguments."]
        assert [passage.unit for passage in hand.passages] == [*said, "send", *said]
        tools = ["", "", "", "send"]
        assert [passage.tool for passage in hand.passages] == [*tools, "", *tools]
        assert hand.passages[3].text == "Content.\nsend(Arguments."
        assert session.verdict().coverage.judged == {
            f"choices[{n}].{channel}": len(text)
            for n in (0, 1)
            for channel, text in zip(
                ("reasoning", "content", "refusal", "tool_calls[0].arguments"), said, strict=True
            )
        }

    def test_findings_count_in_the_original(self, new_session: Callable[..., Session]) -> None:
        """However far into a rewritten text, spans are those of the original channel."""
        text = (FINE * 3 + "It said redact! then. ") * 5
        session = new_session(text)
        Hand().drive(session.whole())
        spans = [(f.start, f.end) for f in session.verdict().findings]
        assert spans
        assert all("redact!" in text[start:end] for start, end in spans)
        assert set(spans) <= set(units(text))

    def test_no_answer_is_no_all_clear(self, new_session: Callable[..., Session]) -> None:
        """A driver that does not answer has not judged: the class's `on_failure` is done."""
        session = new_session(FINE)
        for _ in session.whole():
            pass
        verdict = session.verdict()
        assert (verdict.action, verdict.text) == ("block", None)
        assert not verdict.coverage.complete


class TestStream:
    """Text that arrives in pieces."""

    def test_nothing_is_asked_before_a_unit_is_certain(
        self, new_session: Callable[..., Session]
    ) -> None:
        """Short pieces are held back without a question."""
        session, hand = new_session(), Hand()
        assert hand.drive(session.feed("Fine ")) == ""
        assert hand.drive(session.feed("")) == ""
        assert hand.log == []
        assert hand.drive(session.finish()) == "Fine "

    def test_it_stops_at_a_block(self, new_session: Callable[..., Session]) -> None:
        """After a block no text is wanted and none is judged."""
        session, hand = new_session(), Hand()
        left = hand.drive(session.feed(FINE * 3 + "block! " + FINE * 20))
        assert session.stopped
        assert session.blocked
        assert left.endswith("\n\n[blocked]")
        count = len(hand.passages)
        assert hand.drive(session.finish()) == ""
        assert len(hand.passages) == count
        assert session.finished
        assert session.verdict().coverage.judged["choices[0].content"] < len(FINE) * 23

    @pytest.mark.parametrize(
        ("word", "notice"), [("block", "[blocked]"), ("replace", "[replaced]")]
    )
    def test_a_notice_at_the_very_beginning_stands_alone(
        self, new_session: Callable[..., Session], word: str, notice: str
    ) -> None:
        """Where nothing had left, the class's message has no gap before it."""
        session = new_session()
        assert Hand().stream(session, [f"{word}!"]) == notice
        assert session.blocked == (word == "block")

    def test_its_time_is_linear(self, new_session: Callable[..., Session]) -> None:
        """Sixteen times the text takes about sixteen times the time, in one piece or in many."""

        def seconds(length: int, size: int) -> float:
            # Wide characters, since copying is what a quadratic session would do too much of.
            text = ("🙂🙂🙂🙂🙂 " * (length // 6 + 1))[:length]
            session, hand = new_session(), Hand(lambda _: NOTHING)
            began = time.process_time()
            assert len(hand.stream(session, (text[i : i + size] for i in range(0, length, size))))
            return time.process_time() - began

        for size in (50, 10**9):
            seconds(50_000, size)
            short = min(seconds(50_000, size) for _ in range(3))
            # A busy machine may slow one try down, a quadratic session every one.
            assert any(seconds(800_000, size) < 48 * short for _ in range(3))

    def test_many_choices_take_linear_time(self, new_session: Callable[..., Session]) -> None:
        """Eight times the choices take about eight times the time until there is a verdict."""

        def seconds(count: int) -> float:
            session = new_session(Exchange((Choice("Fine."),) * count))
            Hand(lambda _: NOTHING).drive(session.whole())
            began = time.process_time()
            assert len(session.verdict().choices) == count
            return time.process_time() - began

        short = min(seconds(1000) for _ in range(3))
        assert any(seconds(8000) < 24 * short for _ in range(3))

    def test_a_script_without_white_space_takes_as_little_time(
        self, new_session: Callable[..., Session]
    ) -> None:
        """Its look-aheads are long, and a unit's end is not sought again while one arrives."""

        def seconds(text: str) -> float:
            session, hand = new_session(), Hand(lambda _: NOTHING)
            began = time.process_time()
            assert hand.stream(session, text) == text
            return time.process_time() - began

        latin = min(seconds("a" * 12_000) for _ in range(3))
        assert any(seconds("潮が満ちる。" * 2000) < 6 * latin for _ in range(3))


class TestRows:
    """When a row is asked for."""

    def test_a_whole_text_asks_once(self, new_session: Callable[..., Session]) -> None:
        """The row of a whole text is written once, complete, before anybody has the verdict."""
        hand = Hand()
        hand.drive(new_session(f"It said flag! then. {FINE * 9} And redact! too.").whole())
        (keep,) = hand.keeps
        assert (keep.new, keep.final, keep.record.complete) == (True, True, True)
        assert keep.record.action == "rewrite"
        assert hand.log[-1] is keep

    def test_a_stream_asks_before_flagged_text_leaves(
        self, new_session: Callable[..., Session]
    ) -> None:
        """Of a stream the row comes before the text, and again at the end."""
        session, hand = new_session(), Hand()
        hand.stream(session, [FINE * 3, "It said flag! then. ", FINE * 9])
        before = "".join(
            step.text
            for step in hand.log[: hand.log.index(hand.keeps[0])]
            if isinstance(step, Release)
        )
        assert "flag!" not in before
        first, last = hand.keeps
        assert (first.new, first.final, first.record.complete) == (True, False, False)
        assert (last.new, last.final, last.record.complete) == (False, True, True)
        assert first.record.id == last.record.id == session.verdict().record

    def test_each_new_reason_is_durable_before_its_text_leaves(
        self, new_session: Callable[..., Session]
    ) -> None:
        """A second reason is written as well; a second time of the first is not."""
        session, hand = new_session(), Hand()
        flagged = f"It said flag! then. {FINE * 3}"
        hand.stream(session, [flagged, flagged, f"It said redact! then. {FINE * 3}", flagged])
        first, second, last = hand.keeps
        assert [reason.split(":")[0] for reason in first.record.reasons] == ["to_flag"]
        assert sorted(r.split(":")[0] for r in second.record.reasons) == ["to_flag", "to_redact"]
        assert last.final

    def test_nothing_found_nothing_kept(self, new_session: Callable[..., Session]) -> None:
        """An allowed response has no row."""
        session, hand = new_session(), Hand()
        hand.stream(session, [FINE * 9])
        assert hand.keeps == []
        assert session.verdict().record is None

    def test_only_the_actions_that_the_class_wants(
        self, new_session: Callable[..., Session]
    ) -> None:
        """A class that journals blocks alone has no row for a flag."""
        only = {"journal": {"actions": ["block"]}}
        hand = Hand()
        hand.drive(new_session("flag!", **only).whole())
        assert hand.keeps == []
        hand.drive(new_session("block!", **only).whole())
        assert len(hand.keeps) == 1

    def test_a_row_once_begun_is_kept_up(self, new_session: Callable[..., Session]) -> None:
        """A row is closed even where the exchange became of an action without rows."""
        session = new_session(journal={"actions": ["flag"]})
        hand = Hand()
        hand.stream(session, [f"It said flag! then. {FINE * 3}", f"And redact! then. {FINE * 3}"])
        assert hand.keeps[-1].final
        assert (hand.keeps[-1].record.action, hand.keeps[-1].record.complete) == ("rewrite", True)

    def test_the_row_says_how_far_it_got(self, new_session: Callable[..., Session]) -> None:
        """A stream's row counts the original characters that had left."""
        session, hand = new_session(), Hand()
        hand.stream(session, [FINE * 3 + "flag! " + FINE * 3])
        first, last = hand.keeps
        assert first.record.released < last.record.released == len(FINE) * 6 + len("flag! ")

    def test_abandoned(self, new_session: Callable[..., Session]) -> None:
        """An exchange that breaks off closes its row once; without a row there is no question."""
        session, hand = new_session(), Hand()
        left = hand.drive(session.feed(f"It said flag! then. {FINE * 6}"))
        hand.drive(session.abandon())
        hand.drive(session.abandon())
        assert [keep.final for keep in hand.keeps] == [False, True]
        last = hand.keeps[-1]
        assert not last.record.complete
        assert last.record.outcome == left
        assert not session.finished
        fine = new_session()
        hand.drive(fine.feed(FINE * 6))
        hand.drive(fine.abandon())
        assert len(hand.keeps) == 2

    def test_a_failed_write_is_tried_again_for_new_reasons_only(
        self, new_session: Callable[..., Session]
    ) -> None:
        """A journal that is down is not asked for each unit anew, and has its chance at the end."""
        session = new_session(on_failure="flag")
        hand = Hand(keep=lambda _: KEPT_NOT)
        text = f"It said flag! then. {FINE * 3}" * 10
        assert hand.stream(session, [text]) == text
        assert [keep.final for keep in hand.keeps] == [False, True]
        assert all(keep.new for keep in hand.keeps)
        assert session.verdict().record is None


class TestRowContent:
    """What a row says was delivered."""

    @pytest.mark.parametrize(
        ("text", "delivered", "outcome"),
        [
            ("flag!", "full", "flag!"),
            (FINE * 3 + "redact! " + FINE * 3, "part", None),
            (FINE * 3 + "replace! " + FINE * 3, "none", "[replaced]"),
            (FINE * 3 + "block! " + FINE * 3, "none", "[blocked]"),
        ],
    )
    def test_whole(
        self, new_session: Callable[..., Session], text: str, delivered: str, outcome: str | None
    ) -> None:
        """Of a whole text that is blocked or replaced nothing was delivered but the message."""
        session, hand = new_session(text), Hand()
        hand.drive(session.whole())
        (keep,) = hand.keeps
        assert keep.record.delivered == delivered
        assert keep.record.outcome == (outcome or session.verdict().text)
        assert keep.record.response == text

    @pytest.mark.parametrize("word", ["replace!", "block!"])
    def test_stream(self, new_session: Callable[..., Session], word: str) -> None:
        """Of a stream what had left by then was delivered, and the message."""
        session, hand = new_session(), Hand()
        left = hand.stream(session, [FINE * 3 + word + FINE * 3])
        last = hand.keeps[-1].record
        assert (last.delivered, last.outcome) == ("part", left)

    def test_shadow(self, new_session: Callable[..., Session]) -> None:
        """In shadow mode everything was delivered, and the row says what was due."""
        session, hand = new_session("block!", shadow=True), Hand()
        hand.drive(session.whole())
        (keep,) = hand.keeps
        row = keep.record
        assert (row.action, row.delivered, row.outcome) == ("block", "full", "block!")

    def test_one_choice_of_several(self, new_session: Callable[..., Session]) -> None:
        """Where one choice is blocked and another is not, a part was delivered."""
        exchange = Exchange((Choice("block!"), Choice("Fine.", reasoning="Also fine.")))
        session, hand = new_session(exchange), Hand()
        hand.drive(session.whole())
        (keep,) = hand.keeps
        assert keep.record.delivered == "part"
        assert keep.record.outcome == (
            "[choices[0].content]\n[blocked]\n"
            "[choices[1].reasoning]\nAlso fine.\n"
            "[choices[1].content]\nFine."
        )

    def test_a_message_is_never_put_into_a_tool_call(
        self, new_session: Callable[..., Session]
    ) -> None:
        """The row of a blocked tool call shows the message as content."""
        exchange = Exchange((Choice("Fine.", tool_calls=(ToolCall("send", "block!"),)),))
        session, hand = new_session(exchange), Hand()
        released = hand.drive(session.whole())
        assert "[blocked]" not in released
        (keep,) = hand.keeps
        assert keep.record.outcome == "[blocked]"


class TestDurable:
    """The real journal, read by somebody else while a stream runs."""

    @pytest.mark.parametrize("word", ["zflag", "zredact", "zexcise", "zreplace", "zblock"])
    @pytest.mark.parametrize("way", ["stream", "astream"])
    async def test_the_row_is_there_as_the_text_leaves(
        self, make_guard: Callable[..., Guard], tmp_path: Path, word: str, way: str
    ) -> None:
        """With the first text behind a finding, another connection already reads the row."""
        path = tmp_path / "journal.sqlite3"
        guard = make_guard(journal=Journal(path))
        reader = Journal(path)
        text = FINE * 3 + f"It said {word} then. " + FINE * 9
        position = 0
        seen: list[str] = []

        def look(piece: str) -> None:
            nonlocal position
            position += len(piece)
            rows = list(reader.list())
            # What is behind the finding's unit may only leave once the row is there.
            assert rows or position <= text.index(word)
            seen.extend(row.action for row in rows[:1])

        if way == "astream":

            async def source() -> AsyncIterator[str]:
                for piece in pieces(text):
                    yield piece

            async for piece in guard.astream(source()):
                look(piece)
        else:
            for piece in guard.stream(pieces(text)):
                look(piece)
        assert seen
        assert [row.complete for row in reader.list()] == [True]


def pieces(text: str) -> Iterator[str]:
    """Yield `text` in pieces of a token's size."""
    yield from (text[i : i + 5] for i in range(0, len(text), 5))
