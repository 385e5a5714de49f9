"""The ledger: what of which text may leave, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.exchange import Channel, Exchange
from guard.wire import ledger as module
from guard.wire import lone
from guard.wire.ledger import GATED, Ledger
from guard.wire.parts import BodyError, Part, nowhere

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from guard.detectors.base import Detector, Finding, Passage
    from guard.engine import Guard
    from guard.exchange import ChannelKind
    from guard.steps import Ask, Outcome, Steps
    from guard.wire.ledger import Piece

_T = TypeVar("_T")

ZERO: Final = "\u200b"
KEY: Final = "AKIA" + "Q7WZ3FJ5LM2NXK4B"
CARD: Final = "4111 1111 1111 1111"

CALM: Final = "The pond is still and the reeds are green. " * 8
"""Some units of text that no detector minds."""

STRUCTURED: Final[frozenset[ChannelKind]] = frozenset({"tool_call", "content"})


class Book:
    """A ledger that is driven by hand."""

    def __init__(
        self, guard: Guard, gated: Iterable[ChannelKind] = GATED, *, marked: bool = False
    ) -> None:
        """Begin a stream."""
        self.guard = guard
        self.session = guard.session(Exchange(()), stream=True)
        self.ledger = Ledger(self.session, frozenset(gated), marked=marked)

    def run(self, steps: Generator[Ask, Outcome | None, _T]) -> _T:
        """Answer steps and return what they come to."""
        come: list[_T] = []

        def kept() -> Generator[Ask, Outcome | None, None]:
            come.append((yield from steps))

        self.guard.driver.run(kept())
        return come[0]

    def take(self, text: str, name: str = "content", **fields: Any) -> Piece | None:
        """Take a part of a channel; its kind is its name, without what follows a colon."""
        options = {
            key: fields.pop(key) for key in ("lone", "echo", "leads", "also") if key in fields
        }
        kind: Any = fields.pop("kind", name.partition(":")[0])
        part = Part(
            Channel(name, kind, fields.pop("choice", 0), "", **fields), text, nowhere, **options
        )
        return self.run(self.ledger.echo(part) if part.echo else self.ledger.take(part))

    def piece(self, text: str, name: str = "content", **fields: Any) -> Piece:
        """Take a part of a channel, which is no lone one."""
        piece = self.take(text, name, **fields)
        assert piece is not None
        return piece

    def end(self) -> None:
        """Take the end of all."""
        self.run(self.ledger.end_all())

    @property
    def withheld(self) -> bool:
        """Whether the first choice is withheld."""
        return self.session.withheld(0)


@pytest.fixture
def book(make_guard: Callable[..., Guard]) -> Book:
    """Return a ledger of a format whose texts end where others begin."""
    return Book(make_guard())


@pytest.fixture
def marked(make_guard: Callable[..., Guard]) -> Book:
    """Return a ledger of a format that says where texts end."""
    return Book(make_guard(), marked=True)


class TestReady:
    """A piece leaves once it is decided what stands in its place."""

    def test_with_its_unit(self, book: Book) -> None:
        """A piece waits for its unit's end, with what detectors look ahead."""
        first = book.piece(CALM[:50])
        assert not book.ledger.ready(first)
        second = book.piece(CALM[50:])
        assert book.ledger.ready(first)
        assert not book.ledger.ready(second)
        book.end()
        assert book.ledger.ready(second)
        assert book.ledger.leave(second) == CALM[50:]

    def test_where_another_begins(self, book: Book) -> None:
        """A text ends where another of its choice begins, and not where one of another does."""
        first = book.piece("Hm.", "reasoning")
        book.piece("Yes.", "content:1", choice=1)
        assert not book.ledger.ready(first)
        book.piece("Yes.")
        assert book.ledger.ready(first)

    def test_side_by_side(self, marked: Book) -> None:
        """Where a format marks ends, a text ends only there, and nothing is judged twice."""
        first = marked.piece("Hm.", "reasoning")
        marked.piece("Yes", "content")
        assert not marked.ledger.ready(first)
        second = marked.piece(" Hm.", "reasoning")
        marked.run(marked.ledger.complete("reasoning"))
        assert marked.ledger.ready(first)
        assert marked.ledger.ready(second)
        assert not marked.ledger.gates("reasoning")

    def test_tool_call(self, book: Book) -> None:
        """A call leaves with the end of its choice, however much of it is judged."""
        piece = book.piece(CALM, "tool_call", tool="look")
        book.piece("And now?")
        assert not book.ledger.ready(piece)
        book.end()
        assert book.ledger.ready(piece)

    def test_tool_call_with_an_end(self, marked: Book) -> None:
        """Or with its own end, where the format marks it; nothing else ends with it."""
        first, second = (marked.piece("{}", f"tool_call:{n}.input") for n in (1, 12))
        marked.run(marked.ledger.complete("tool_call:1"))
        assert marked.ledger.ready(first)
        assert not marked.ledger.ready(second)

    def test_what_leads(self, marked: Book) -> None:
        """What stands before a text leaves with some of it."""
        first = marked.piece("", leads=True)
        marked.piece(CALM[:60])
        assert not marked.ledger.ready(first)
        marked.piece(CALM[60:])
        assert marked.ledger.ready(first)

    def test_what_leads_nothing(self, marked: Book) -> None:
        """Where there is no text, it leaves with the end."""
        first = marked.piece("", leads=True)
        marked.run(marked.ledger.complete("content"))
        assert marked.ledger.ready(first)

    def test_empty_text(self, book: Book) -> None:
        """An empty text that begins nothing is no text."""
        assert book.take("") is None
        book.piece("Hm.", "reasoning")
        piece = book.piece("Yes.")
        assert not book.ledger.gates(piece.channel)


class TestWithheld:
    """What turns bad is withheld from there on."""

    def test_what_was_judged_before(self, book: Book) -> None:
        """What had passed leaves, a piece that is half bad in half, and the rest does not."""
        first, second = book.piece(CALM[:50]), book.piece(CALM[50:] + "And a zblock. " + CALM)
        third = book.piece("More.")
        assert [book.ledger.passed(piece) for piece in (first, second, third)] == [
            True,
            False,
            False,
        ]
        assert [book.ledger.ready(piece) for piece in (first, second, third)] == [True] * 3
        assert book.ledger.leave(first) == CALM[:50]
        assert book.ledger.leave(third) == ""
        rest = book.ledger.leave(second)
        assert rest
        assert (CALM[50:]).startswith(rest)

    def test_other_choices(self, book: Book) -> None:
        """Another choice goes on."""
        book.piece("A zblock. " + CALM)
        other = book.piece(CALM * 2, "content:1", choice=1)
        assert not book.session.withheld(1)
        book.end()
        assert book.ledger.leave(other) == CALM * 2

    def test_call_is_whole_or_not_at_all(self, book: Book) -> None:
        """Of a call nothing leaves, however much of it was judged."""
        piece = book.piece(CALM + "zblock", "tool_call")
        book.end()
        assert book.ledger.visible(piece) == ""
        assert not book.ledger.passed(piece)

    def test_sealed_text(self, book: Book) -> None:
        """A sealed text is not rewritten: its choice is withheld instead."""
        book.piece("Hm, zredact.", "reasoning", sealed=True)
        book.end()
        assert book.session.step_of(0) == "block"

    def test_rewritten_piece(self, book: Book) -> None:
        """An edit stands whole where it begins; what is around it stays in its own pieces."""
        pieces = [book.piece(text) for text in ("It is zre", "da", "ct, I ", "think.")]
        book.end()
        left = [book.ledger.leave(piece) for piece in pieces]
        assert left == ["It is [redacted: to redact]", "", ", I ", "think."]

    def test_placeholder_like_the_word(self, make_guard: Callable[..., Guard]) -> None:
        """An edit that shares all but one character with the text is still one."""
        messages = {"en": {"blocked": "-", "replaced": "-", "redacted": "zredac"}}
        book = Book(make_guard(messages=messages))
        pieces = [book.piece(text) for text in ("A zredac", "t", ".")]
        book.end()
        assert [book.ledger.leave(piece) for piece in pieces] == ["A zredac", "", "."]


class TestGoesOn:
    """A text that goes on after others is judged anew from its start."""

    def test_hidden_in_the_seam(self, book: Book) -> None:
        """What is split around another text is found; what had left stands."""
        first = book.piece("A zbl")
        book.piece("Hm.", "reasoning")
        assert book.ledger.leave(first) == "A zbl"
        second = book.piece("ock.")
        book.end()
        assert book.withheld
        assert book.ledger.visible(second) == ""
        assert book.ledger.left(0)

    def test_waits_for_the_end(self, book: Book) -> None:
        """The rest leaves with its choice, since the text may read otherwise by then."""
        book.piece("A good start")
        book.piece("Hm.", "reasoning")
        second = book.piece(" and " + CALM)
        assert not book.ledger.ready(second)
        book.end()
        assert book.ledger.leave(second) == " and " + CALM

    def test_would_not_join(self, book: Book) -> None:
        """Where the part that had left would be rewritten now, the rest is withheld."""
        book.ledger.leave(book.piece("A zre"))
        book.piece("Hm.", "reasoning")
        book.piece("dact.")
        book.end()
        assert book.withheld

    def test_after_its_end(self, marked: Book) -> None:
        """So is a text that goes on behind its own end."""
        marked.ledger.leave(marked.piece("A zbl"))
        marked.run(marked.ledger.complete("content"))
        second = marked.piece("ock.")
        assert not marked.ledger.ready(second)
        marked.end()
        assert marked.withheld

    def test_seam_of_two_texts(self, marked: Book) -> None:
        """What begins in one text of an answer and ends in the next is found in the next."""
        first = marked.piece("A zbl", "content:1", kind="content")
        marked.run(marked.ledger.complete("content:1"))
        assert marked.ledger.leave(first) == "A zbl"
        second = marked.piece("ock. " + CALM, "content:2", kind="content")
        marked.end()
        assert marked.withheld
        assert marked.ledger.visible(second) == ""

    def test_seam_is_mended(self, marked: Book) -> None:
        """What is redacted across the seam is redacted in the second text."""
        marked.piece("A zre", "content:1", kind="content")
        marked.run(marked.ledger.complete("content:1"))
        second = marked.piece("dact. Good.", "content:2", kind="content")
        marked.end()
        assert marked.ledger.leave(second) == "[redacted: to redact]. Good."

    @pytest.mark.parametrize(
        "before", ["Here it comes", "No. 7", "a-", "b_", "Here:\x1f", "\u200b"]
    )
    def test_seam_hides_nothing(self, make_pack_guard: Callable[..., Guard], before: str) -> None:
        """A key or number that begins the next text is found, whatever it is joined with."""
        for said in (KEY, CARD, "\u200b" + KEY, "\x1f" + KEY):
            book = Book(make_pack_guard(), marked=True)
            book.piece(before, "content:1", kind="content")
            book.run(book.ledger.complete("content:1"))
            second = book.piece(f"{said}. And then?", "content:2", kind="content")
            book.end()
            left = book.ledger.leave(second)
            assert "[redacted: " in left
            assert left.endswith(". And then?")
            assert len(book.session.verdict().findings) == 1

    @pytest.mark.parametrize("hidden", [ZERO * 96, "\u00ad\x1c" * 1500])
    def test_seam_is_as_long_as_it_looks(
        self, make_pack_guard: Callable[..., Guard], hidden: str
    ) -> None:
        """Characters that do not show part no key that one text begins and the next ends."""
        book = Book(make_pack_guard(), marked=True)
        book.piece(f"Note {KEY[:9]}{hidden}", "content:1", kind="content")
        book.run(book.ledger.complete("content:1"))
        second = book.piece(f"{hidden[:99]}{KEY[9:]}. And then?", "content:2", kind="content")
        book.end()
        assert book.ledger.leave(second) == "[redacted: secret leak]. And then?"

    def test_flooded_seam(self, make_pack_guard: Callable[..., Guard]) -> None:
        """More of them than anybody waits for are no all-clear for the next text."""
        book = Book(make_pack_guard(), marked=True)
        book.piece(f"Note {KEY[:9]}{ZERO * 9000}", "content:1", kind="content")
        book.run(book.ledger.complete("content:1"))
        second = book.piece(f"{KEY[9:]}. And then?", "content:2", kind="content")
        book.end()
        assert book.withheld
        assert KEY[9:] not in book.ledger.leave(second)

    @given(before=st.text(max_size=12), white=st.sampled_from(["", " ", "\n"]))
    def test_any_text_before(
        self, make_pack_guard: Callable[..., Guard], before: str, white: str
    ) -> None:
        """What one text hides of the next depends on nothing that stands in it."""
        book = Book(make_pack_guard(), marked=True)
        book.take(before, "content:1", kind="content")
        book.run(book.ledger.complete("content:1"))
        second = book.piece(f"{white}{KEY}.", "content:2", kind="content")
        book.end()
        assert KEY not in book.ledger.leave(second)

    def test_seam_counts_once(self, marked: Book) -> None:
        """What was found in the first text alone is not found in the second."""
        marked.piece("A zredact", "content:1", kind="content")
        second = marked.piece(" is gone.", "content:2", kind="content")
        marked.end()
        assert marked.ledger.leave(second) == " is gone."

    @given(st.lists(st.sampled_from(["A ", "z", "b", "lock", "zblock", ". "]), max_size=8))
    def test_any_seam(self, make_guard: Callable[..., Guard], words: list[str]) -> None:
        """However a text is spread around others, a word that blocks is not in what left."""
        book = Book(make_guard())
        pieces = []
        for word in words:
            pieces.append(book.piece(word))
            book.piece("Hm. ", "reasoning")
        book.end()
        left = "".join(book.ledger.leave(piece) for piece in pieces)
        assert "zblock" not in left
        assert book.withheld == ("zblock" in "".join(words))


class TestDocuments:
    """A document stays one, or is withheld."""

    def test_stays_one(self, make_guard: Callable[..., Guard]) -> None:
        """A word in it can be taken out."""
        book = Book(make_guard(), STRUCTURED)
        piece = book.piece('{"a": "zredact"}')
        book.end()
        assert book.ledger.leave(piece) == '{"a": "[redacted: to redact]"}'

    @pytest.mark.parametrize("kind", ["content", "tool_call"])
    def test_would_be_none(
        self,
        kind: ChannelKind,
        make_guard: Callable[..., Guard],
        word_detector: Callable[..., Detector],
    ) -> None:
        """Where its end would go with the word, it is withheld."""

        class Greedy:
            """Points at a word with the quote behind it."""

            name, version, categories = "words", "1", ("to_redact",)

            def __call__(self, passage: Passage) -> list[Finding]:
                return [replace(f, end=f.end + 1) for f in word_detector()(passage)]

        limits = {"to_redact": {"act": 0.9, "remedy": "redact"}}
        book = Book(make_guard(Greedy(), limits=limits), STRUCTURED)
        book.piece('{"a": "zredact"}', kind)
        book.end()
        assert book.session.step_of(0) == "block"

    def test_text_is_no_document(self, book: Book) -> None:
        """What was no document before need not be one."""
        piece = book.piece("a zredact", "tool_call")
        book.end()
        assert book.ledger.leave(piece) == "a [redacted: to redact]"

    @pytest.mark.parametrize(
        "text",
        [
            r'{"a": "z\u0062lock"}',
            r'{"a": "z\u0062lock", "a": "x"}',
            r'["z\u0062lock"]',
            r'{"z\u0062lock": 1}',
        ],
    )
    def test_hidden_in_escapes(self, book: Book, text: str) -> None:
        """What is hidden in a call's escapes is found."""
        book.piece(text, "tool_call")
        book.end()
        assert book.withheld

    def test_harmless_escapes(self, book: Book) -> None:
        """Escapes that hide nothing leave as they are."""
        text = r'{"a": "caf\u00e9 \n \\u", "b": "\/"}'
        piece = book.piece(text, "tool_call")
        book.end()
        assert book.ledger.leave(piece) == text


class TestAlone:
    """A string of nobody knows what is judged by itself."""

    @pytest.mark.parametrize("word", ["zblock", "zredact", "zexcise", "zreplace"])
    def test_must_pass_as_it_is(self, book: Book, word: str) -> None:
        """Whatever would be done to it, its choice is withheld."""
        assert book.take(f"a {word}", "other", kind="content", lone=True) is None
        assert book.withheld

    def test_flagged(self, book: Book) -> None:
        """What is only flagged passes."""
        book.take("a zflag", "other", kind="content", lone=True)
        assert not book.withheld
        assert book.session.verdict().action == "flag"

    def test_comes_in_pieces(self, book: Book) -> None:
        """A text of nobody knows what that comes in pieces is judged as one."""
        book.take("a zbl", "other.note", kind="content", lone=True)
        book.take("ock", "other.more", kind="content", lone=True)
        assert not book.withheld
        book.take("ock", "other.note", kind="content", lone=True)
        assert book.withheld

    def test_comes_again(
        self, make_guard: Callable[..., Guard], word_detector: Callable[..., Detector]
    ) -> None:
        """What comes with every event is judged once, and leaves nothing behind."""
        calls = []

        class Counting:
            """Counts how often it is asked."""

            name, version, categories = "counting", "1", ("to_block",)

            def __call__(self, passage: Passage) -> list[Finding]:
                calls.append(passage.text)
                return []

        limits = {"to_block": {"act": 0.9, "remedy": "block"}}
        book = Book(make_guard(word_detector(words=("block",)), Counting(), limits=limits))
        for _ in range(20):
            book.take("Provider", "other.provider", kind="content", lone=True)
        assert calls == ["Provider"]
        book.run(book.ledger.finish())
        verdict = book.session.verdict()
        assert verdict.assessment.coverage.judged == {}
        assert (verdict.action, verdict.text) == ("allow", None)

    @pytest.mark.parametrize("text", [KEY, CARD])
    @given(before=st.lists(st.text(max_size=8), max_size=3))
    def test_stands_alone(
        self, make_pack_guard: Callable[..., Guard], text: str, before: list[str]
    ) -> None:
        """A string is found bad for itself, whatever came before it under its key."""
        book = Book(make_pack_guard())
        for each in (*before, "Weather", text):
            book.take(each, "other.title", kind="content", lone=True)
        assert book.withheld

    def test_goes_on(self, book: Book) -> None:
        """And for what it makes with those before it."""
        for text in ("A z", "bloc", "k."):
            assert not book.withheld
            book.take(text, "other.title", kind="content", lone=True)
        assert book.withheld

    def test_goes_on_behind_what_does_not_show(self, make_pack_guard: Callable[..., Guard]) -> None:
        """However much came between, up to a flood."""
        book = Book(make_pack_guard())
        for text in (f"Note {KEY[:9]}", ZERO * 600, f"{KEY[9:]}. And then?"):
            assert not book.withheld
            book.take(text, "other.title", kind="content", lone=True)
        assert book.withheld

    def test_of_another_kind(
        self, make_guard: Callable[..., Guard], word_detector: Callable[..., Detector]
    ) -> None:
        """What passed as what a model is given is judged anew as its answer."""
        words = word_detector()

        class Answers:
            """Minds words in answers alone."""

            name, version, categories = words.name, words.version, words.categories

            def __call__(self, passage: Passage) -> Sequence[Finding]:
                """Return the findings in an answer."""
                return words(passage) if passage.side == "response" else []

        book = Book(make_guard(Answers()))
        book.take("A zblock.", "other", kind="tool_result", lone=True)
        assert not book.withheld
        book.take("A zblock.", "another", kind="content", lone=True)
        assert book.withheld

    def test_many_names(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        """Behind the names that are remembered, strings are judged still."""
        monkeypatch.setattr(lone, "KNOWN_LIMIT", 2)
        for number in range(4):
            book.take("fine", f"other.{number}", kind="content", lone=True)
        book.take("a zblock", "other.9", kind="content", lone=True)
        assert book.withheld


class TestTwins:
    """One text that comes under two names."""

    def test_goes_on_alone(self, book: Book) -> None:
        """Where one of the names goes on alone, it is judged with what came before."""
        book.piece("zbl", "reasoning", also=("thinking",))
        book.take("ock", "thinking", kind="reasoning")
        assert book.withheld

    def test_rests_meanwhile(self, book: Book) -> None:
        """And where one of them rests while the other goes on."""
        book.piece("zbl", "reasoning", also=("thinking",))
        book.piece("x", "reasoning")
        assert not book.withheld
        book.piece("ock", "reasoning", also=("thinking",))
        assert book.withheld

    def test_stay_together(self, book: Book) -> None:
        """As long as they are the same, they cost nothing."""
        pieces = [book.piece(text, "reasoning", also=("thinking",)) for text in ("A ", CALM)]
        book.end()
        assert [book.ledger.leave(piece) for piece in pieces] == ["A ", CALM]


class TestEcho:
    """A text that is repeated whole."""

    def test_says_the_same(self, book: Book) -> None:
        """It is rewritten as the pieces were."""
        book.piece("A zre")
        book.piece("dact.")
        echo = book.piece("A zredact.", echo=True)
        book.end()
        assert book.ledger.leave(echo) == "A [redacted: to redact]."

    @pytest.mark.parametrize("text", ["A zblock.", "zblock", ""])
    def test_says_something_else(self, book: Book, text: str) -> None:
        """One that says something else is made to say what the pieces said."""
        book.piece("A robin.")
        echo = book.piece(text, echo=True)
        book.end()
        assert book.ledger.leave(echo) == "A robin."

    def test_brings_the_text(self, book: Book) -> None:
        """One that no piece came before is the text."""
        book.piece("A zblock.", echo=True)
        book.end()
        assert book.withheld


class TestBounds:
    """What a stream may take."""

    def test_text(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        """A choice with too much text is withheld, and no more of it is kept."""
        monkeypatch.setattr(module, "TEXT_LIMIT", 1000)
        first = book.piece(CALM)
        book.ledger.leave(first)
        for _ in range(50):
            book.piece(CALM)
        assert book.withheld
        assert len(book.session.run("content").received) <= 1000

    def test_lone_text(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        """Strings of nobody knows what count too."""
        monkeypatch.setattr(module, "TEXT_LIMIT", 1000)
        for _ in range(3):
            book.take(CALM, "other", kind="content", lone=True)
        assert book.withheld

    def test_channels(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        """A text too many is an error, while those that are known go on."""
        monkeypatch.setattr(module, "CHANNEL_LIMIT", 3)
        for number in range(3):
            book.piece("{", f"tool_call:{number}")
        with pytest.raises(BodyError, match="more than 1024 texts"):
            book.take(CALM, "content")
        book.piece("}", "tool_call:1")
        book.end()
        assert not book.withheld

    def test_channels_in_shadow(
        self, make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A shadow class lets it pass and tells what would have been."""
        monkeypatch.setattr(module, "CHANNEL_LIMIT", 1)
        book = Book(make_guard(shadow=True))
        book.piece(CALM)
        assert book.take("{}", "tool_call") is None
        book.run(book.ledger.finish())
        assert book.session.verdict().intended == "block"

    def test_withheld_at_the_limit(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lone text that does not pass still withholds its choice, by a text that is known."""
        monkeypatch.setattr(module, "CHANNEL_LIMIT", 1)
        book.piece(CALM)
        book.take("a zblock", "other", kind="content", lone=True)
        assert book.withheld
        with pytest.raises(BodyError, match="more than 1024 texts"):
            book.take("a zblock", "other", kind="content", lone=True, choice=1)

    def test_linear(
        self, make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The end of a text is found by its place, without a look at every other text."""
        book = Book(make_guard(), marked=True)
        names = [f"output[{n}].{part}" for n in range(12) for part in ("a", "content[0].text")]
        for name in names:
            book.piece("{}", name, kind="tool_call")
        looked: list[str] = []
        close = book.session.close

        def noted(name: str) -> Steps:
            looked.append(name)
            return close(name)

        monkeypatch.setattr(book.session, "close", noted)
        for place in ("output[1]", "output[1].content", "output[7].a", "output[70]"):
            book.run(book.ledger.complete(place))
        assert looked == [*names[2:4], names[3], names[14]]
        assert not any(book.ledger.gates(name) for name in looked)


class TestShadow:
    """A shadow class withholds and changes nothing."""

    def test_everything_leaves(self, make_guard: Callable[..., Guard]) -> None:
        """Texts, calls, strings of nobody knows what, too much of all: it leaves, and is told."""
        book = Book(make_guard(shadow=True), STRUCTURED)
        book.take("a zblock", "other", kind="content", lone=True)
        pieces = [book.piece("A zblock, zredact."), book.piece('{"a": "zexcise"}', "tool_call")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "TEXT_LIMIT", 0)
            pieces.append(book.piece(" More."))
        book.end()
        assert all(book.ledger.ready(piece) for piece in pieces)
        assert [book.ledger.leave(piece) for piece in pieces] == [piece.text for piece in pieces]
        book.ledger.account()
        book.run(book.ledger.finish())
        verdict = book.session.verdict()
        assert (verdict.action, verdict.intended) == ("flag", "block")


class TestAccount:
    """The journal's row says how much has left."""

    def test_what_was_held_back(self, book: Book) -> None:
        """What was judged and never left counts as held back, in every text."""
        first, second = book.piece(CALM), book.piece(CALM)
        book.piece("{}", "tool_call")
        book.ledger.leave(first)
        assert not book.ledger.left(1)
        book.end()
        book.ledger.account()
        run = book.session.run("content")
        assert (run.position, run.text) == (len(CALM), CALM)
        assert book.session.run("tool_call").position == 0
        book.ledger.leave(second)

    def test_what_left_in_other_words(self, book: Book) -> None:
        """An edit has left whole with the piece that it begins in."""
        first = book.piece("A zredact ")
        book.piece("and a zredact. ")
        book.end()
        left = book.ledger.leave(first)
        book.ledger.account()
        run = book.session.run("content")
        assert (run.position, run.text) == (len("A zredact and a zredact"), left)

    def test_nothing_was_held_back(self, book: Book) -> None:
        """What left whole stays as it is."""
        book.ledger.leave(book.piece("A zredact."))
        book.end()
        book.ledger.account()
        assert book.session.run("content").text == ""
