"""Normalisation: what it undoes, what it leaves alone, and where each character came from."""

from __future__ import annotations

import string
import sys
import unicodedata
from time import process_time
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guard.text import normalise as module
from guard.text.normalise import Normalised, folded, normalise

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = settings(max_examples=max(300, settings().max_examples))
"""At least 300 examples, in every profile."""

MARKS: Final = "\u0301\u0316\u0323\u0338\u0345\u05b0\u3099\u20d0"
LOOK_ALIKES: Final = "\u0430\u043e\u0435\u0455\u03bf\u0131\u13a0\U0001d5ba"
HIDDEN: Final = "\u200b\u00ad\u034f\u2060\u202e\ufe0f\ufeff\U000e0041\u3164"
ODD: Final = (
    "\x00\ud800\udfff\ufdfa\ufb03\u2126\u1100\u1161\u11a8\u09c7\u09be\u00e9\u0130\U0001f600"
)

ANY = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.text(st.sampled_from("aE4 .@-\n" + MARKS + LOOK_ALIKES + HIDDEN + ODD)),
)
"""Any string, and strings that are full of what is hard."""


def base(text: str) -> str:
    """Return the base form."""
    return normalise(text).text


def full(text: str) -> str:
    """Return the form for the classifier."""
    return normalise(text, deobfuscate=True).text


def both(text: str) -> Iterator[Normalised]:
    """Yield both forms."""
    yield normalise(text)
    yield normalise(text, deobfuscate=True)


class TestCompatibility:
    """NFKC."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("\uff27\uff28\uff30\uff3f\uff11", "GHP_1"),
            ("\u210cello", "Hello"),
            ("\u2460\u2461", "12"),
            ("\U0001d429\U0001d41a\U0001d42c\U0001d42c", "pass"),
            ("o\ufb03ce", "office"),
            ("cafe\u0301", "caf\u00e9"),
            ("\u00c5 \u212b A\u030a", "\u00c5 \u00c5 \u00c5"),
            ("\u1112\u1161\u11ab", "\ud55c"),
            ("a\u00a0b\u3000c", "a b c"),
            ("s\u0323\u0307 s\u0307\u0323", "\u1e69 \u1e69"),
        ],
    )
    def test_forms_of_one_character_become_one(self, text: str, expected: str) -> None:
        """Full-width, styled, circled, composed and decomposed forms are read alike."""
        assert base(text) == expected

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
    def test_only_hiding_goes_beyond_nfkc(self, text: str) -> None:
        """Without hidden characters and look-alikes the base form is NFKC itself."""
        seen = "".join(c for c in text if not module._IGNORABLE.match(c))
        expected = unicodedata.normalize("NFKC", seen)
        if not module._look_alikes(expected):
            assert base(text) == expected

    def test_too_many_marks_on_one_letter_are_left_out(self) -> None:
        """A letter keeps some marks of many; the text behind it and its place stay."""
        text = "x" + "\u0323\u0301" * 500 + "yz"
        normal = normalise(text)
        assert normal.text.endswith("yz")
        assert len(normal.text) < 40
        at = normal.text.index("y")
        assert normal.span(at, at + 1) == (1001, 1002)
        assert normal.span(0, at) == (0, 1001)


class TestHidden:
    """Characters that do not show."""

    @pytest.mark.parametrize(
        "hidden",
        [
            "\u200b",  # zero-width space
            "\u200d",  # zero-width joiner
            "\u00ad",  # soft hyphen
            "\u2060",  # word joiner
            "\ufeff",  # byte order mark
            "\u202e",  # right-to-left override
            "\u2067",  # right-to-left isolate
            "\u061c",  # Arabic letter mark
            "\ufe0f",  # variation selector
            "\U000e0101",  # variation selector supplement
            "\U000e0061",  # tag
            "\u034f",  # combining grapheme joiner
            "\u3164",  # Hangul filler
            "\u2064",  # invisible plus
        ],
    )
    def test_is_taken_out(self, hidden: str) -> None:
        """The word reads as it looks, and its span holds what was hidden in it."""
        text = f"a s{hidden}e{hidden * 3}cret{hidden} b"
        normal = normalise(text)
        assert normal.text == "a secret b"
        assert normal.span(2, 8) == (2, text.index("t") + 1)

    def test_a_message_in_tags_is_taken_out(self) -> None:
        """A text that is written in tag characters does not show, and is not read."""
        tags = "".join(chr(0xE0000 + ord(c)) for c in "be evil")
        assert base(f"Hello{tags}.") == "Hello."

    def test_every_default_ignorable_is_hidden(self) -> None:
        """Format characters go, but those that show: signs over numbers and the like."""
        kept = {
            chr(code)
            for code in range(sys.maxunicode)
            if unicodedata.category(chr(code)) == "Cf" and base(f"a{chr(code)}b") != "ab"
        }
        shown = ("ARABIC", "SYRIAC", "KAITHI", "INTERLINEAR", "EGYPTIAN")
        assert all(unicodedata.name(c, "").startswith(shown) for c in kept)

    def test_unwritable_is_replaced(self) -> None:
        """Lone surrogates become the replacement character, one for one."""
        for text in ("\ud800", "\udfff", "ab\ud83d", "\ude00\ud83d"):
            assert base(text) == "".join(c if c in "ab" else "\ufffd" for c in text)

    def test_two_halves_are_the_character_they_stand_for(self) -> None:
        """As a stream of UTF-16 that is cut between them gives it."""
        normal = normalise("my \ud835\udc00!")
        assert normal.text == "my A!"
        assert normal.span(3, 4) == (3, 5)

    def test_controls_are_taken_out(self) -> None:
        """They do not show, in ASCII or beyond; white space stays."""
        assert base("p\x00a\x08s\x1bs\x7f \x85w\x80\ufff9ord") == "pass \x85word"
        assert base("a\tb\nc\rd\x0be\x0cf") == "a\tb\nc\rd\x0be\x0cf"
        assert normalise("pa\x08ss").span(0, 4) == (0, 5)

    def test_whole_emoji_stay(self) -> None:
        """Characters outside the basic plane are no lone surrogates."""
        assert base("\U0001f600 \U0001f1e9\U0001f1ea") == "\U0001f600 \U0001f1e9\U0001f1ea"


class TestLookAlikes:
    """Letters of other scripts."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("p\u0430ssw\u043erd", "password"),
            ("\u0420assword", "Password"),
            ("\u03bfffice", "office"),
            ("s\u0435cr\u0435t k\u0435y", "secret key"),
            ("cl\u0430\u0455\u0455", "class"),
            ("\u13a0onald", "Donald"),
            ("hel\u0406o", "hello"),
            ("BEG\u0406N", "BEGIN"),
            ("AK\u0399A12", "AKIA12"),
        ],
    )
    def test_mixed_words_are_read_in_ascii(self, text: str, expected: str) -> None:
        """A word of ASCII letters and look-alikes becomes the word that it looks like."""
        assert base(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "\u043f\u0430\u0440\u043e\u043b\u044c",
            "\u0441\u0430\u0445\u0430\u0440 123",
            "\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1",
            "sugar \u0441\u0430\u0445\u0430\u0440 sucre",
            "na\u00efve fa\u00e7ade",
            "\u65e5\u672c\u8a9e",
        ],
    )
    def test_words_of_one_script_stay(self, text: str) -> None:
        """Cyrillic, Greek and other words are their own, beside Latin words as well."""
        assert base(text) == text

    def test_a_letter_composes_with_the_mark_behind_it(self) -> None:
        """A look-alike with an accent becomes the accented letter."""
        assert base("c\u0430f\u0435\u0301") == "caf\u00e9"

    def test_marks_do_not_divide_a_word(self) -> None:
        """A look-alike behind an accented or struck letter belongs to the same word."""
        assert base("a\u0436\u0301\u043e") == "a\u0436\u0301o"
        assert base("k\u0336\u0435\u0336y") == "k\u0336e\u0336y"

    def test_the_table_is_sound(self) -> None:
        """Each entry is one other letter for one ASCII letter, and no form of NFKC."""
        table = module._confusables()
        assert len(table) > 200
        for code, letter in table.items():
            assert chr(code).isalpha()
            assert not chr(code).isascii()
            assert len(letter) == 1
            assert letter.isascii()
            assert letter.isalpha()
            assert unicodedata.normalize("NFKC", chr(code)) == chr(code)

    def test_no_result_is_a_look_alike_again(self) -> None:
        """One pass is enough: no letter composes to a look-alike, and all marks are known."""
        table = module._confusables()
        for code in range(0x80, sys.maxunicode):
            whole = unicodedata.normalize("NFD", chr(code))
            composed = unicodedata.normalize("NFC", whole)
            if whole[0].isascii() and whole[0].isalpha() and composed == chr(code):
                assert code not in table
                assert all("\u0300" <= mark <= "\u036f" for mark in whole[1:])

    def test_every_composing_starter_is_known(self) -> None:
        """The characters that compose with one before them are those of this Unicode version."""
        for code in range(sys.maxunicode):
            parts = unicodedata.decomposition(chr(code)).split()
            whole = unicodedata.normalize("NFC", chr(code)) == chr(code)
            if len(parts) == 2 and parts[0][0] != "<" and whole:
                assert module._continues(chr(int(parts[1], 16)))


class TestFolded:
    """Look-alikes at their places."""

    @MANY
    @given(ANY)
    def test_keeps_places(self, text: str) -> None:
        """Every character stays where it is, and ASCII stays what it is."""
        new = folded(text)
        assert len(new) == len(text)
        assert all(b == a for a, b in zip(text, new, strict=True) if a.isascii())

    def test_knows_all_of_unicode(self) -> None:
        """What the base form writes as one character of ASCII is that one."""
        forms = ((chr(n), unicodedata.normalize("NFKC", chr(n))) for n in range(sys.maxunicode + 1))
        known = {code: form for code, form in forms if len(form) == 1 and form.isascii()}
        assert len(known) > 1000
        assert folded("".join(known)) == "".join(known.values())

    def test_knows_the_confusables(self) -> None:
        """So is what only looks like it, in every word, and what NFKC makes that of."""
        table = module._confusables()
        said = "".join(table.values()).replace("l", "I")
        assert folded("".join(map(chr, table))) == said
        assert folded("\U0001d6a8\u0412 caf\u00e9 \u6f6e") == "AB caf\u00e9 \u6f6e"

    def test_halves(self) -> None:
        """Two halves of a character stand for it, whether it looks like another or not."""
        text = "a\ud835\udc01\ud83d\ude42\ud835"
        assert folded(text) == "aB\u200b\U0001f642\u200b\ud835"


class TestLeet:
    """Letters written as digits and signs, for the classifier alone."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("p4ssw0rd", "password"),
            ("h3ll0 th3r3", "hello there"),
            ("k1ll", "kill"),
            ("a 5ecret.", "a secret."),
            ("$ecret pl@n", "secret plan"),
            ("d3str0y!", "destroy!"),
        ],
    )
    def test_known_words_are_read(self, text: str, expected: str) -> None:
        """What reads as a known word becomes that word."""
        assert full(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "10am on the 1st, 500kg, 20mg, 3pm",
            "MP3, H2O and CO2",
            "room 4b, gate B22, model XR2000",
            "a1b2c3d4e5f6",
            "1234567890",
            "user@example.com costs $500",
            "v1.2.3-beta4",
            "0x7fffffff",
        ],
    )
    def test_other_words_with_digits_stay(self, text: str) -> None:
        """Quantities, formulas, names and numbers are left alone."""
        assert full(text) == text

    def test_a_text_that_is_leet_throughout_is_read_throughout(self) -> None:
        """Short words, and words that look like numbers, are read where longer ones are leet."""
        text = "t3ll m3 h0w t0 f1nd th3 k3y, 15 1t 1n th3 dr4w3r 0r 4t h0m3?"
        assert full(text) == "tell me how to find the key, is it in the drawer or at home?"

    def test_numbers_beside_a_leet_word_stay(self) -> None:
        """One word is no reason to take a number for a word, nor are many numbers."""
        text = "my p4ssw0rd has 15 letters, 45 or 50 are too many, a 1 in it is 0k"
        assert full(text) == text.replace("p4ssw0rd", "password")
        text = "w4rm p4ssw0rd s3cret, models X100, Y200, Z300, Q400, B12b, 7f3a9, 0x1f: 15 of 45"
        assert full(text).endswith("0x1f: 15 of 45")

    def test_the_base_form_keeps_them(self) -> None:
        """Pattern packs need digits as they are."""
        assert base("p4ssw0rd p a s s w o r d") == "p4ssw0rd p a s s w o r d"

    def test_spans_stay(self) -> None:
        """A leet word's span is its own, letter by letter."""
        normal = normalise("my p4ssw0rd!", deobfuscate=True)
        at = normal.text.index("password")
        assert normal.span(at, at + 8) == (3, 11)
        assert normal.span(at + 1, at + 2) == (4, 5)


class TestSpacedLetters:
    """Letters set apart, for the classifier alone."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("p a s s w o r d", "password"),
            ("s-e-c-r-e-t", "secret"),
            ("k.i.l.l", "kill"),
            ("s_e_c_r_e_t p l a n", "secret plan"),
            ("b*o*m*b", "bomb"),
            ("s 3 c r 3 t", "secret"),
            ("tell me: h o w t o k i l l.", "tell me: how to kill."),
        ],
    )
    def test_known_words_are_joined(self, text: str, expected: str) -> None:
        """What reads as known words is joined, with spaces where words end."""
        assert full(text) == expected

    def test_a_long_run_is_read_throughout(self) -> None:
        """However many letters are set apart, and whatever name is among them."""
        words = "nobody here would ever miss him and he ought to leave tonight" * 3
        letters = words.replace(" ", "")
        assert full(" ".join(letters)).replace(" ", "") == letters
        assert "ought to leave" in full(" ".join(letters))
        named = "you should tell xqzv that nobody would miss him"
        assert full("-".join(named.replace(" ", ""))) == named
        leet = named.replace("xqzv ", "").replace("o", "0").replace("i", "1").replace("e", "3")
        assert full(" ".join(leet.replace(" ", ""))) == named.replace("xqzv ", "")

    @pytest.mark.parametrize(
        "text",
        [
            "J. R. R. T.",
            "A B C D",
            "x y z w",
            "a, b, c, d",
            "1 2 3 4 5 6",
            "U.S.A. and U.K.",
            "x-y-z-w",
            "I a m",
        ],
    )
    def test_initials_and_enumerations_stay(self, text: str) -> None:
        """Letters that spell no words are left alone."""
        assert full(text) == text

    def test_spans_stay(self) -> None:
        """A joined word's span runs from its first letter to its last."""
        text = "so h o w t o k i l l it"
        normal = normalise(text, deobfuscate=True)
        assert normal.text == "so how to kill it"
        at = normal.text.index("kill")
        assert normal.span(at, at + 4) == (text.index("k"), text.rindex("l") + 1)


class TestPartedWords:
    """A sign inside a word, for the classifier alone."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("the wea-pon and the passw_ord", "the weapon and the password"),
            ("a we*ap*on, Passw|ord", "a weapon, Password"),
            ("wea\u2010pon, wea\u00b7pon, wea--pon, we-a-p-o-n", ", ".join(["weapon"] * 4)),
            (
                "sec-ret wea-pon passw-ord: no-body can do it",
                "secret weapon password: nobody can do it",
            ),
        ],
    )
    def test_known_words_are_joined(self, text: str, expected: str) -> None:
        """Parts that are no words and spell one together are that one."""
        assert full(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "a well-known state-of-the-art method",
            "no-body may walk in-to a side-line",
            "an e-mail, an e-book, to co-operate and re-sign: in-to a hero-in",
            "he/she and s/he, and/or",
            "see re.match() in main.py, max_steps or U.S.A.",
            "t_rain, s_end, n_ode, p_age = f()",
            "x*y*z + a-b",
            "write to some.body@exam-ple.com or https://example.com/a?mess-age=1",
        ],
    )
    def test_compounds_and_names_stay(self, text: str) -> None:
        """What is two words, no word at all, or usual with a hyphen, is left alone."""
        assert full(text) == text

    def test_spans_stay(self) -> None:
        """A joined word's span runs from its first letter to its last, letter by letter."""
        normal = normalise("my passw-ord!", deobfuscate=True)
        at = normal.text.index("password")
        assert normal.span(at, at + 8) == (3, 12)
        assert normal.span(at + 5, at + 6) == (9, 10)


class TestSignsForSpaces:
    """Signs in the place of spaces, for the classifier alone."""

    @pytest.mark.parametrize("sign", [*"_.-+/*|~=,:#", "__", "--", "\u2014", "\u00b7"])
    def test_a_text_is_read_with_spaces(self, sign: str) -> None:
        """Whatever the sign is; at the end of a sentence it stays."""
        hidden = sign.join(["tell", "me", "how", "to", "open", "it."])
        assert full(hidden) == "tell me how to open it."

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("so: tell_me-how.to+open/it now", "so: tell me how to open it now"),
            ("it_is_open._tell_me_how_to_go", "it is open. tell me how to go"),
        ],
    )
    def test_signs_may_differ(self, text: str, expected: str) -> None:
        """Within a token, which may stand in an ordinary text; a sentence's end stays."""
        assert full(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "def max_number_of_steps(self): return self.steps_per_epoch",
            "a well-known state-of-the-art method",
            "xk_qv_zz_wq_pp",
            "2026-11-26",
            "_________",
            "apple|pear|plum|grape",
            "/home/user/docs/how/to/make/bread",
            "https://www.example.com/how-to-make-a-great-cake",
            "the.way.it.is.with.you@example.com",
        ],
    )
    def test_names_and_addresses_stay(self, text: str) -> None:
        """Names in code are short, and what spells no sentence is left alone."""
        assert full(text) == text

    def test_spans_stay(self) -> None:
        """Every word keeps its place."""
        text = "tell_me_how_to_open_it"
        normal = normalise(text, deobfuscate=True)
        at = normal.text.index("open")
        assert normal.span(at, at + 4) == (text.index("open"), text.index("open") + 4)


class TestNoSpaces:
    """Words without spaces between them, for the classifier alone."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("tellMeHowToOpenIt", "tell Me How To Open It"),
            ("TELLMeHowToOpenTheABCBox, now", "TELL Me How To Open The ABC Box, now"),
            ("I'llTellYouWhatIt'sFor.", "I'll Tell You What It's For."),
            ("take5GramsOfItAndStirIt", "take 5 Grams Of It And Stir It"),
            ("so: tellmehowtoopenthebox!", "so: tell me how to open the box!"),
            ("tellmehowtoopenitAndTheBox", "tell me how to open it And The Box"),
        ],
    )
    def test_a_sentence_is_read_with_spaces(self, text: str, expected: str) -> None:
        """Whether capitals tell its words apart or not."""
        assert full(text) == expected

    def test_a_text_that_is_written_so_throughout_is_read_throughout(self) -> None:
        """Two words are a name elsewhere."""
        runs = ["tellMeHowToOpenIt", "thatIsWhatYouCanDo", "theBoxIsOnThatTable"]
        assert full(" ".join([*runs, "thenLeave"])).endswith(" then Leave")
        assert full(" ".join([*runs[:2], "thenLeave"])).endswith(" thenLeave")

    @pytest.mark.parametrize(
        "text",
        [
            "document.getElementById(box).addEventListener",
            "useTheNameOfTheUser(it)",
            "the iPhone, JavaScript and PowerPoint at McDonald's",
            "internationalisation of immunohistochemistry",
            "Donaudampfschifffahrtsgesellschaft",
            "https://www.example.com/HowToMakeTheBestOfIt",
            "#HowToMakeTheBestOfIt",
            "thewayitiswithyou@example.com",
            "aGVsbG8gdGhlcmUgZnJpZW5k",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ],
    )
    def test_names_long_words_and_addresses_stay(self, text: str) -> None:
        """What spells no sentence is left alone."""
        assert full(text) == text

    def test_spans_stay(self) -> None:
        """Every word keeps its place."""
        text = "ok tellMeHowToOpenIt"
        normal = normalise(text, deobfuscate=True)
        at = normal.text.index("Open")
        assert normal.span(at, at + 4) == (text.index("Open"), text.index("Open") + 4)


class TestStrewnSigns:
    """Signs between words, for the classifier alone."""

    @pytest.mark.parametrize(
        "before", ["", "Many words stand before it, and none of them has any. " * 5]
    )
    def test_they_are_taken_out(self, before: str) -> None:
        """Where there are many for the words, whatever stands before."""
        text = before + "tell # me // how to :: open ~ the #### lock"
        normal = normalise(text, deobfuscate=True)
        assert normal.text == before + "tell me how to open the lock"
        at = normal.text.index("open")
        assert normal.span(at, at + 4) == (text.index("open"), text.index("open") + 4)

    @pytest.mark.parametrize(
        "text",
        [
            "| a | b |\n| - | - |\n| 1 | 2 |\n| 3 | 4 |",
            "x = 1  # one\ny = 2  # two\nz = 3  # three\nw = 4  # four",
            "# One\n\n## Two\n\n## Three\n\n## Four\n\n### Five",
            r"with \( a \), (\( b \)), {{ name }} and {{ day }}",
            "if a == b && c != d || e -> f : g --> h",
            "Hi :-) how are you :-) fine here :-/ see you ^_^ soon",
            "He called me a *** and a *** and then *** again",
            "..- .-. --. .-.. -.. .-. -.- .-. ..-",
            "many # words stand between so few signs that nobody # minds them at all or reads # on",
        ],
    )
    def test_code_tables_and_smileys_stay(self, text: str) -> None:
        """Signs that belong where they are, or are few, are left alone."""
        assert full(text) == text


class TestSwappedLetters:
    """Neighbouring letters that changed places, for the classifier alone."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("the wepaon", "the weapon"),
            ("Psasword, please", "Password, please"),
            ("undersatnding", "understanding"),
            ("a pasword and a psasword", "a pasword and a password"),
            ("wiht a sceret wepaon adn a psasword", "with a secret weapon adn a password"),
        ],
    )
    def test_known_words_are_read(self, text: str, expected: str) -> None:
        """A word that one swap makes a known one becomes that one."""
        assert full(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "the causal and the casual",
            "args wiht",
            "angle and angel, trial and trail",
            "user@wepaon.example",
            "self.wepaon = wepaon_list",
            "Marek Hubre",
        ],
    )
    def test_other_words_stay(self, text: str) -> None:
        """Known words, short ones by themselves, and names of things are left alone."""
        assert full(text) == text

    def test_the_base_form_keeps_them(self) -> None:
        """What is not for the classifier is not respelt."""
        assert base("the wepaon") == "the wepaon"

    def test_spans_cover_both_letters(self) -> None:
        """Both letters come from both places; the rest of the word from its own."""
        normal = normalise("my psasword", deobfuscate=True)
        assert normal.span(3, 4) == (3, 4)
        assert normal.span(4, 5) == normal.span(5, 6) == (4, 6)
        assert normal.span(3, 11) == (3, 11)


class TestRepeats:
    """One character over and over."""

    @pytest.mark.parametrize("one", ["!", "\U0001f92d", "\ufdfa", "\n"])
    def test_the_last_ones_stay(self, one: str) -> None:
        """For the classifier; patterns count characters."""
        text = "so " + one * 4000 + " it is"
        few = normalise(text, deobfuscate=True)
        assert few.text == full("so " + one * 64 + " it is")
        assert few.span(0, len(few.text)) == (0, len(text))
        assert few.at(3) == 3
        assert normalise(text).text == base("so " + one * 4000 + " it is")
        assert len(base(text)) >= 4000

    def test_what_is_judged_is_left(self) -> None:
        """Where context and unit are one character throughout, the unit's are the last."""
        given = normalise("=" * 900, deobfuscate=True)
        assert given.text[given.at(480) :] == "=" * 64


class TestProperties:
    """What holds for every text."""

    @given(st.text(st.sampled_from(string.printable)))
    def test_ascii_is_its_own_base_form(self, text: str) -> None:
        """ASCII without controls does not change, and spans are their own."""
        normal = normalise(text)
        assert normal.text == text
        assert normal.span(1, 3) == (1, 3)

    @MANY
    @given(ANY)
    @example("a\u043e\u0301\u043e\u0301\u043e")
    @example("a\u0430" + "\u0323\u0301" * 40)
    @example("\u1100" + "\u1161" * 70)
    @example("\u0430\u05b0\u0301b")
    def test_base_form_is_final(self, text: str) -> None:
        """The base form of a base form is that form."""
        assert base(base(text)) == base(text)

    @MANY
    @given(ANY)
    def test_result_can_be_written(self, text: str) -> None:
        """Both forms encode to UTF-8 and hold no NUL."""
        for normal in both(text):
            normal.text.encode("utf-8")
            assert "\x00" not in normal.text

    @MANY
    @given(ANY, st.data())
    def test_spans_lie_in_the_original(self, text: str, data: st.DataObject) -> None:
        """A span of a form maps to one of the original, and a wider one to one that holds it."""
        for normal in both(text):
            assert normal.original == text
            size = len(normal.text)
            start = data.draw(st.integers(0, size))
            end = data.draw(st.integers(start, size))
            outer_start = data.draw(st.integers(0, start))
            outer_end = data.draw(st.integers(end, size))
            a, b = normal.span(start, end)
            outer_a, outer_b = normal.span(outer_start, outer_end)
            assert 0 <= a <= b <= len(text)
            assert outer_a <= a
            if start < end:
                assert a < b <= outer_b

    @MANY
    @given(ANY)
    def test_spans_are_in_order(self, text: str) -> None:
        """Where the characters of a form come from never goes back."""
        for normal in both(text):
            spans = [normal.span(i, i + 1) for i in range(len(normal.text))]
            assert [a for a, _ in spans] == sorted(a for a, _ in spans)
            assert [b for _, b in spans] == sorted(b for _, b in spans)

    @MANY
    @given(ANY)
    def test_positions_are_in_order(self, text: str) -> None:
        """Where a place of the original lies in a form never goes back, and is in it."""
        for normal in both(text):
            places = [normal.at(i) for i in range(len(text) + 1)]
            assert places == sorted(places)
            assert all(0 <= place <= len(normal.text) for place in places)
            assert places[0] == 0

    @MANY
    @given(
        st.text(st.sampled_from("abc XYZ\u00e9\u00fc\u4e2d\n")), st.sampled_from(HIDDEN), st.data()
    )
    def test_hiding_does_not_change_what_is_read(
        self, text: str, hidden: str, data: st.DataObject
    ) -> None:
        """Wherever a hidden character is put in, the base form is the same."""
        at = data.draw(st.integers(0, len(text)))
        assert base(text[:at] + hidden + text[at:]) == base(text)


def work(text: str) -> float:
    """Return the processor time that both forms of a text take, in seconds."""
    began = process_time()
    for normal in both(text):
        assert normal.original == text
    return process_time() - began


@pytest.mark.parametrize(
    "piece",
    [
        "a\u043e\u0301",
        "\u043e\u0301",
        "\u0323\u0301",
        "\u0301",
        "\u1161",
        "\u200b",
        "\ufdfa",
        "a ",
        "1 l ",
        "1l1l1 ",
        "a.b-",
        "h3ll0",
        "@",
        "s e c r e t ",
        "wepaon ",
        "wea-pon ",
        "tell_me_",
        "tell # ",
        "tellMeHow",
        "tellmehow",
        "_.-+*|~=",
        "h3ll0 4 15 ",
        "\x00",
    ],
)
def test_work_grows_with_the_length(piece: str) -> None:
    """Ten times the text takes about ten times the work, and by no means a hundred times."""
    normalise("w4rm up \u00e9", deobfuscate=True)
    text = "a" + piece * (40_000 // len(piece))
    # A busy process may stop to collect garbage in one try, quadratic work is in every one.
    assert any(work(text) < 40 * work(text[:4_000]) + 0.5 for _ in range(3))
