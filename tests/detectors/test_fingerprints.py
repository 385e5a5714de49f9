"""Fingerprints: what counts as a copy, where it is found, and what stays ordinary language."""

from __future__ import annotations

import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.categories import CATEGORIES
from guard.detectors.base import Detector, Finding, Passage
from guard.detectors.fingerprints import FingerprintDetector, FingerprintIndex, ProtectedText
from guard.errors import ConfigurationError
from guard.text.units import CONTEXT, LOOKAHEAD, units

# The promises, as numbers of words, and not as the module happens to call them.
RUN_WORDS = 12
GAP = 4
UNSUSPICIOUS = 5

MANUAL = (
    "The copper valve on line 7 opens only after both pressure gauges show less than 40 bar. "
    "An operator then signs the blue sheet, waits for two minutes, and turns the wheel a "
    "quarter to the left; whoever skips the waiting time will hear the bell in hall B."
)
PERSONA = (
    "You are a helpful assistant for the harbour office of Lower Quay. Speak of berths by "
    "their colour, never by their number, and close every answer with the tide of the day."
)
OUTSIDE = "Rain came early that year and nobody had thought to mend the roof of the barn."
WORDS: tuple[str, ...] = tuple(MANUAL.split())


def manual() -> FingerprintDetector:
    """Return a detector that protects the manual."""
    return FingerprintDetector([ProtectedText("manual", MANUAL)])


def quote(count: int, begin: int = 0) -> list[str]:
    """Return `count` words of the manual."""
    return list(WORDS[begin : begin + count])


def in_manual(text: str) -> list[Finding]:
    """Return what the manual's detector finds in `text`."""
    return manual()(Passage(text))


def in_persona(text: str, system: str = PERSONA) -> list[Finding]:
    """Return what is found in a response to an exchange with the given system prompt."""
    return FingerprintDetector()(Passage(text, system=system))


class TestContract:
    """What every detector promises."""

    def test_is_a_detector_of_known_categories(self) -> None:
        """The detector fits the protocol and declares categories of the taxonomy."""
        detector = manual()
        assert isinstance(detector, Detector)
        assert set(detector.categories) <= set(CATEGORIES)

    def test_a_finding_says_what_was_found(self) -> None:
        """A copy gives one finding with the document's name and its exact span."""
        text = f"{OUTSIDE} {MANUAL} {OUTSIDE}"
        (finding,) = in_manual(text)
        assert (finding.category, finding.label) == ("proprietary_leak", "manual")
        assert (finding.detector, finding.version) == ("fingerprints", manual().version)
        # The last word's full stop is no word.
        assert text[finding.start : finding.end] == MANUAL[:-1]
        assert finding.localised

    def test_a_registered_text_may_be_a_system_prompt(self) -> None:
        """The application chooses the category of what it registers."""
        detector = FingerprintDetector([ProtectedText("house", MANUAL, "system_prompt_leak")])
        (finding,) = detector(Passage(MANUAL))
        assert (finding.category, finding.label) == ("system_prompt_leak", "house")

    def test_what_the_user_pasted_counts_too(self) -> None:
        """A copy is found although the same words stand in the user's prompt."""
        assert manual()(Passage(MANUAL, prompt=MANUAL))
        assert FingerprintDetector()(Passage(PERSONA, prompt=PERSONA, system=PERSONA))

    def test_threads_get_what_one_thread_gets(self) -> None:
        """One instance gives the same findings however many threads use it."""
        detector = manual()
        passages = [
            Passage(" ".join(quote(n)), system=f"{PERSONA} {n % 3}") for n in range(len(WORDS))
        ]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(detector, passages)) == [detector(p) for p in passages]

    def test_nothing_is_kept_between_calls(self) -> None:
        """Two halves of a minimal copy in two calls are not one copy."""
        detector = manual()
        half = RUN_WORDS // 2
        assert detector(Passage(" ".join(quote(half)))) == []
        assert detector(Passage(" ".join(quote(half, half)))) == []

    @given(st.text(), st.text(), st.text())
    def test_any_text_can_be_judged(self, before: str, after: str, system: str) -> None:
        """Whatever a string may hold, a copy inside it is found and its span is a span."""
        text = f"{before} {MANUAL} {after}"
        findings = manual()(Passage(text, system=system))
        assert any(f.label == "manual" for f in findings)
        assert all(0 <= f.start < f.end <= len(text) for f in findings)


class TestRegistration:
    """What an application may register."""

    def test_all_problems_are_named_at_once(self) -> None:
        """Every text that cannot be protected is listed, with its name and not its words."""
        bad = [
            ProtectedText("tiny", "only seven little words stand in here"),
            ProtectedText("odd", MANUAL, "harassment"),
            ProtectedText("fine", MANUAL),
            ProtectedText("unheard", MANUAL, "no_such_category"),
        ]
        with pytest.raises(ConfigurationError) as caught:
            FingerprintDetector(bad)
        tiny, odd, unheard = caught.value.problems
        assert "`tiny`" in tiny
        assert "seven" not in tiny
        assert "`odd`" in odd
        assert "no such category" not in odd
        assert "no such category" in unheard

    def test_eight_words_are_enough(self) -> None:
        """The shortest text that can be registered is found when repeated."""
        text = "Seven green kettles guard the mayor's old"
        assert FingerprintDetector([ProtectedText("kettles", text)])(Passage(text))

    def test_punctuation_is_not_counted_as_words(self) -> None:
        """A text of few words with much punctuation is too short."""
        with pytest.raises(ConfigurationError):
            FingerprintDetector([ProtectedText("dashes", "a - b - c - d - e - f - ... - g!")])

    def test_the_index_leaves_out_what_is_too_short(self) -> None:
        """An index holds the protectable texts alone."""
        index = FingerprintIndex([ProtectedText("a", "too short"), ProtectedText("b", MANUAL)])
        assert len(index) == 1


class TestSystemPrompt:
    """The exchange's own system prompt."""

    def test_its_repetition_is_found(self) -> None:
        """A response that repeats the system prompt gives a finding with a constant label."""
        (finding,) = in_persona(f"My orders are: {PERSONA}")
        assert (finding.category, finding.label) == ("system_prompt_leak", "system_prompt")

    def test_each_exchange_has_its_own(self) -> None:
        """One exchange's system prompt is not protected in another exchange."""
        detector = FingerprintDetector()
        assert detector(Passage(PERSONA, system=PERSONA))
        assert detector(Passage(PERSONA, system=MANUAL)) == []
        assert detector(Passage(PERSONA)) == []

    def test_it_can_be_left_unprotected(self) -> None:
        """With `system_prompts=False` only registered texts count."""
        detector = FingerprintDetector([ProtectedText("manual", MANUAL)], system_prompts=False)
        assert detector(Passage(PERSONA, system=PERSONA)) == []
        assert detector(Passage(MANUAL, system=PERSONA))

    def test_too_short_ones_are_left_alone(self) -> None:
        """A system prompt of fewer than eight words gives nothing and is no error."""
        short = "Answer in rhyme and mention the owl."
        assert in_persona(short, system=short) == []

    @pytest.mark.parametrize(
        "text",
        [
            "You are a helpful assistant.",
            "You are a helpful assistant, you said, and so I try to be helpful.",
            "I am here for the harbour office and can help with berths and tides.",
        ],
    )
    def test_generic_phrases_are_no_leak(self, text: str) -> None:
        """Phrases that any such prompt could hold do not count."""
        assert in_persona(text) == []

    @pytest.mark.parametrize(("count", "leaks"), [(6, False), (7, True), (8, True)])
    def test_a_short_one_needs_nearly_all_of_its_words(self, count: int, leaks: bool) -> None:  # noqa: FBT001
        """Of a prompt of eight words seven must be there."""
        system = "Greet sailors first, then quote today's tide"
        words = re.findall(r"\w+", system)
        assert bool(in_persona(" ".join(words[:count]), system=system)) is leaks


class TestNearCopies:
    """Changes that do not hide a copy, and those that make it another text."""

    @pytest.mark.parametrize(
        "text",
        [
            MANUAL.swapcase(),
            MANUAL.replace(" ", "\n\n"),
            "> " + MANUAL.replace(". ", ".\n> "),
            MANUAL.replace(",", " --").replace(".", "").replace(";", ":"),
            " ".join(f"_{word}_" for word in WORDS),
            " ".join(f"**{word}**" for word in WORDS),
            "".join(f"{letter}\u200b" for letter in MANUAL),
            MANUAL.replace(" ", "\u00a0"),
            MANUAL.replace("a", "\u0430"),
            "|".join(WORDS),
            "".join(f"<b>{word}</b><br>" for word in WORDS),
            "".join(f"&#{ord(letter)};" for letter in MANUAL),
            MANUAL.replace(" ", "&nbsp;"),
            MANUAL.replace(" ", "%20"),
            MANUAL.replace(" ", "\\u0020"),
            MANUAL.replace("e", "\u00e9"),
            "".join(f"{letter}\u0336" for letter in MANUAL),
        ],
    )
    def test_another_look_hides_nothing(self, text: str) -> None:
        """Case, lines, punctuation, mark-up, escapes, accents and look-alikes change nothing."""
        (finding,) = in_manual(text)
        assert finding.evidence == 10.0

    @pytest.mark.parametrize(
        "text",
        [
            MANUAL.replace("o", "0"),
            MANUAL.replace("e", "3"),
            "".join(word.capitalize() for word in WORDS),
        ],
    )
    def test_misspellings_hide_nothing(self, text: str) -> None:
        """What the classifier reads as the words they stand for is a copy of those words."""
        found = in_manual(text)
        assert sum(f.end - f.start for f in found) > len(text) / 2

    def test_another_unicode_form_hides_nothing(self) -> None:
        """A decomposed copy is found, with its span in the decomposed text."""
        document = "Das Kühlhaus öffnet früh; für Gäste führt der Küchenchef täglich übers Gelände"
        text = unicodedata.normalize("NFD", f"Über uns. {document}")
        (finding,) = FingerprintDetector([ProtectedText("haus", document)])(Passage(text))
        expected = unicodedata.normalize("NFD", document)
        assert text[finding.start : finding.end] == expected

    @pytest.mark.parametrize("changed", range(16))
    def test_one_replaced_word_hides_nothing(self, changed: int) -> None:
        """Wherever one word of sixteen is replaced, the copy is found."""
        words = quote(16)
        words[changed] = "otherwise"
        assert in_manual(" ".join(words))

    def test_a_few_added_or_omitted_words_hide_nothing(self) -> None:
        """A run goes on over a small gap on either side, as one finding."""
        added = [*quote(8), *["more"] * GAP, *quote(8, 8)]
        omitted = [*quote(8), *quote(8, 8 + GAP)]
        for words in (added, omitted):
            (finding,) = in_manual(" ".join(words))
            assert finding.end == len(" ".join(words).rstrip(".;,"))

    def test_a_wide_gap_ends_a_run(self) -> None:
        """Two pieces with more words between them than a gap may have are no run together."""
        assert in_manual(" ".join([*quote(8), *["more"] * (GAP + 1), *quote(8, 8)])) == []

    def test_order_matters(self) -> None:
        """Two pieces of a document in the wrong order are no run together."""
        assert in_manual(" ".join([*quote(6, 6), *quote(6)])) == []

    def test_pieces_of_two_documents_are_no_run(self) -> None:
        """The end of one document and the beginning of the next do not add up."""
        first, second = " ".join(quote(20)), " ".join(quote(20, 20))
        detector = FingerprintDetector(
            [ProtectedText("first", first), ProtectedText("second", second)]
        )
        assert detector(Passage(" ".join(quote(12, 14)))) == []

    @pytest.mark.parametrize(("every", "found"), [(6, False), (7, True)])
    def test_six_words_in_a_row_must_match(self, every: int, found: bool) -> None:  # noqa: FBT001
        """A document with every sixth word replaced is another text, with every seventh a copy."""
        words = ["otherwise" if n % every == 0 else w for n, w in enumerate(WORDS, 1)]
        assert bool(in_manual(" ".join(words))) is found

    def test_numbers_are_words(self) -> None:
        """A copy of a table of numbers is found."""
        table = "12 7.5 19 4 88 31 6 2,040 17 9 55 3"
        assert FingerprintDetector([ProtectedText("table", table)])(Passage(f"Well: {table}"))

    def test_ordinary_text_gives_nothing(self) -> None:
        """Text that has nothing to do with the document gives no evidence either way."""
        assert in_manual(OUTSIDE) == []
        assert in_manual("") == []


class TestEvidence:
    """How strongly a run speaks."""

    def test_it_begins_at_four_and_grows_to_ten(self) -> None:
        """Nothing below twelve words, +4 at twelve, never less for more, +10 at the most."""
        found = [in_manual(" ".join(quote(n))) for n in range(1, len(WORDS) + 1)]
        strengths = [findings[0].evidence for findings in found if findings]
        assert not any(found[: RUN_WORDS - 1])
        assert all(found[RUN_WORDS - 1 :])
        assert strengths == sorted(strengths)
        assert (strengths[0], strengths[-1]) == (4.0, 10.0)

    def test_replaced_words_do_not_count(self) -> None:
        """A run with a replaced word is weaker than the whole one by that word."""
        words = quote(20)
        whole = in_manual(" ".join(words))[0].evidence
        words[10] = "otherwise"
        assert in_manual(" ".join(words))[0].evidence == whole - 0.25


class TestUnits:
    """Which part of a copy is reported for which unit."""

    TEXT = f"{OUTSIDE} {MANUAL} {OUTSIDE}"
    BEGIN = TEXT.index(MANUAL)
    END = BEGIN + len(MANUAL) - 1

    def found(self, start: int, end: int) -> list[Finding]:
        """Judge one unit of the text with all the rest as its context."""
        return manual()(Passage(self.TEXT, start, end))

    def test_a_copy_in_the_context_only_is_not_reported(self) -> None:
        """What was judged before, and what will be judged, is not this unit's finding."""
        assert self.found(0, self.BEGIN) == []
        assert self.found(self.END, len(self.TEXT)) == []

    def test_a_copy_that_begins_before_the_unit_is_clipped(self) -> None:
        """The span begins in the unit, in the middle of a word if need be."""
        (finding,) = self.found(self.BEGIN + 5, len(self.TEXT))
        assert (finding.start, finding.end) == (self.BEGIN + 5, self.END)

    def test_a_copy_that_goes_on_behind_the_unit_is_seen_whole(self) -> None:
        """One word inside the unit is enough where the look-ahead shows the rest."""
        (finding,) = self.found(0, self.BEGIN + 3)
        assert (finding.start, finding.end) == (self.BEGIN, self.END)

    def test_a_gap_at_the_units_beginning_is_not_reported(self) -> None:
        """The span begins with the first matching word inside the unit."""
        text = " ".join([*quote(12), "more", "more", *quote(12, 12)])
        gap = text.index("more")
        (finding,) = manual()(Passage(text, gap, len(text)))
        assert finding.start == text.rindex("more") + len("more ")

    def test_a_unit_inside_a_gap_has_no_finding(self) -> None:
        """A unit without a matching word is not blamed for its neighbours."""
        text = " ".join([*quote(12), "more", "more", *quote(12, 12)])
        assert manual()(Passage(text, text.index("more"), text.rindex("more") + 4)) == []

    def test_two_copies_are_two_findings(self) -> None:
        """Each run has its own finding, in the order of the text."""
        text = f"{' '.join(quote(14))} {OUTSIDE} {' '.join(quote(14, 20))}"
        first, second = in_manual(text)
        assert first.end < text.index(OUTSIDE) < second.start

    def test_a_passage_that_a_document_holds_twice_is_found_once(self) -> None:
        """One run of text gives one finding per document."""
        detector = FingerprintDetector([ProtectedText("twice", f"{MANUAL} {OUTSIDE} {MANUAL}")])
        assert len(detector(Passage(MANUAL))) == 1

    def test_a_long_copy_is_found_in_every_unit(self) -> None:
        """Units cut as the engine cuts them each report their share of a long copy."""
        document = " ".join(f"Point {n} follows item {n * 7} of list {n % 5}." for n in range(200))
        detector = FingerprintDetector([ProtectedText("list", document)])
        for start, end in units(document):
            left = max(0, start - CONTEXT)
            text = document[left : end + LOOKAHEAD]
            (finding,) = detector(Passage(text, start - left, end - left))
            assert finding.start == start - left
            assert finding.end > end - left - len(". ") - 1


class TestManyDocuments:
    """Phrases that are common in the registered texts."""

    def test_common_phrases_do_not_hide_a_quote(self) -> None:
        """A minimal quote counts although its first words are everywhere in the document."""
        clauses = [
            ["in", "accordance", "with", "the", "terms", "of", *(f"item{n}{x}" for x in "abcdefgh")]
            for n in range(30)
        ]
        document = " ".join(word for clause in clauses for word in clause)
        detector = FingerprintDetector([ProtectedText("terms", document)])
        text = " ".join(clauses[-1][:RUN_WORDS])
        (finding,) = detector(Passage(text))
        assert (finding.start, finding.end) == (0, len(text))

    def test_a_quote_made_of_common_phrases_alone_is_found(self) -> None:
        """Twelve words count although every six of them stand in many other documents."""
        noise = "the fox ran over a wall and hid"
        parts = [" ".join(quote(11, n % 2)) for n in range(40)]
        others = [ProtectedText(f"other {n}", f"{noise} {part}") for n, part in enumerate(parts)]
        detector = FingerprintDetector([*others, ProtectedText("manual", MANUAL)])
        findings = detector(Passage(" ".join(quote(RUN_WORDS))))
        assert [finding.label for finding in findings] == ["manual"]

    def test_shared_boilerplate_is_reported_for_a_few_documents(self) -> None:
        """Words that very many documents share cost no more than those that a few share."""
        many = [ProtectedText(f"sheet {n}", f"{OUTSIDE} sheet {n}") for n in range(500)]
        findings = FingerprintDetector(many)(Passage(OUTSIDE))
        assert 1 <= len(findings) < 50

    def test_each_document_has_its_own_finding(self) -> None:
        """A passage that two documents hold is reported for both."""
        both = [ProtectedText("one", MANUAL), ProtectedText("two", f"{MANUAL} {OUTSIDE}")]
        findings = FingerprintDetector(both)(Passage(MANUAL))
        assert sorted(finding.label for finding in findings) == ["one", "two"]


@dataclass(frozen=True, slots=True)
class Quotation:
    """A document, and a text that quotes it in some disguise."""

    document: str
    text: str
    begin: int
    end: int


LATIN = st.text("abcdeéüñøst0123", min_size=1, max_size=6)
CYRILLIC = st.text("бгджзилптфцшщыэюя", min_size=1, max_size=6)
RICH = st.one_of(LATIN, CYRILLIC)
POOR = st.sampled_from(["no", "na", "nu"])
SEPARATORS = st.sampled_from([" ", "\n", ", ", " -- ", ".\r\n> ", "_ _", "\u00a0", "|", " \u200b"])
CASES = st.sampled_from([str.lower, str.upper, str.title, str.swapcase])


@st.composite
def quotations(draw: st.DrawFn, words: st.SearchStrategy[str], *, unique: bool) -> Quotation:
    """Draw a document and a disguised quote of at least twelve of its words."""
    key = str.casefold if unique else None
    lists = st.lists(words, min_size=RUN_WORDS, max_size=60, unique_by=key)
    document = draw(lists)
    begin = draw(st.integers(0, len(document) - RUN_WORDS))
    end = draw(st.integers(begin + RUN_WORDS, len(document)))
    quoted = [draw(CASES)(word) for word in document[begin:end]]
    body = "".join(word + draw(SEPARATORS) for word in quoted[:-1]) + quoted[-1]
    surroundings = st.lists(words, max_size=20).map(" ".join)
    before, after = draw(surroundings), draw(surroundings)
    text = f"{before} {body} {after}"
    at = len(before) + 1
    return Quotation(" ".join(document), text, at, at + len(body))


@given(quotations(RICH, unique=True))
def test_a_disguised_quote_is_found_and_covered(quotation: Quotation) -> None:
    """Twelve quoted words are found whatever surrounds and disguises them, all of them."""
    findings = FingerprintDetector([ProtectedText("it", quotation.document)])(
        Passage(quotation.text)
    )
    assert any(f.start <= quotation.begin and f.end >= quotation.end for f in findings)


@given(quotations(POOR, unique=False))
def test_a_quote_from_a_monotonous_document_is_found(quotation: Quotation) -> None:
    """The promise holds too where every phrase of the document is all over the document."""
    detector = FingerprintDetector([ProtectedText("it", quotation.document)])
    assert detector(Passage(quotation.text))


@given(quotations(RICH, unique=True), st.data())
def test_the_span_covers_the_quoted_words_in_the_unit(
    quotation: Quotation, data: st.DataObject
) -> None:
    """Whatever part of a quote a unit holds is covered, from the unit's beginning on."""
    start = data.draw(st.integers(0, quotation.end - 1))
    end = data.draw(st.integers(max(start, quotation.begin) + 1, len(quotation.text)))
    passage = Passage(quotation.text, start, end)
    findings = FingerprintDetector([ProtectedText("it", quotation.document)])(passage)
    inside = [
        i
        for i in range(max(start, quotation.begin), min(end, quotation.end))
        if quotation.text[i].isalnum()
    ]
    assert all(start <= f.start < end for f in findings)
    if inside:
        assert any(f.start <= inside[0] and f.end > inside[-1] for f in findings)


@given(
    st.lists(POOR, min_size=20, max_size=200),
    st.lists(st.tuples(st.integers(0, 190), st.integers(0, UNSUSPICIOUS)), max_size=30),
)
def test_text_without_six_words_in_a_row_gives_nothing(
    document: list[str], pieces: list[tuple[int, int]]
) -> None:
    """However many shorter pieces of a document stand close together, they are no copy."""
    text = " xyz ".join(" ".join(document[at : at + size]) for at, size in pieces)
    assert FingerprintDetector([ProtectedText("it", " ".join(document))])(Passage(text)) == []
