"""Pattern packs: what is found and where, that the gate hides nothing, and what is redacted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guard.detectors.base import Detector, Finding, Passage
from guard.detectors.patterns import Pattern, PatternDetector, redact
from guard.detectors.personal import personal_data_detector
from guard.detectors.secrets import secret_detector
from guard.text.units import CONTEXT, seen_end, unit_end

PACKS = (secret_detector(), personal_data_detector())

MANY = settings(max_examples=max(300, settings().max_examples))
"""At least 300 examples, in every profile."""

NUMBER = Pattern("number", r"(?<!\w)N-\d{4}(?:-\d{4})*", 5.0, r"N-\d{4}")
"""A made-up numbered card in groups of four."""


def pack(*patterns: Pattern, release: str = "1") -> PatternDetector:
    """Return a pack of the given patterns."""
    return PatternDetector("toy", "pii_leak", patterns, release=release)


def found(detector: PatternDetector, text: str) -> list[tuple[str, str]]:
    """Return labels and spans' texts of what `detector` finds in `text`."""
    return [(f.label, text[f.start : f.end]) for f in detector.find(text)]


class TestFinding:
    """What a match becomes."""

    def test_satisfies_the_protocol(self) -> None:
        """A pack is a detector."""
        assert isinstance(pack(NUMBER), Detector)

    def test_says_what_was_found_and_where(self) -> None:
        """A finding carries label, evidence, span, and the pack's name and version."""
        toy = pack(NUMBER)
        expected = Finding("pii_leak", 5.0, 5, 11, "toy", toy.version, "number")
        assert toy(Passage("card N-1234.")) == [expected]

    def test_spans_a_group(self) -> None:
        """The span is the named group, not the words around it."""
        toy = pack(Pattern("pin", r"pin (?P<value>\d{4})", 5.0, group="value"))
        assert found(toy, "the pin 4711 is") == [("pin", "4711")]

    @pytest.mark.parametrize(
        ("text", "span"),
        [
            ("see \uff2e-\uff11234 now", "\uff2e-\uff11234"),
            ("see N-1\u200b2\u00ad34 now", "N-1\u200b2\u00ad34"),
            ("\u0130\u0130 N-1234", "N-1234"),
            ("see N\\-1234 now", "N\\-1234"),
            ("see N&#45;&#x31;234 now", "N&#45;&#x31;234"),
            ("see N&hyphen;1234 now", "N&hyphen;1234"),
            ("see N%2D1234 now", "N%2D1234"),
            ("see N\\u002d1\\x3234 now", "N\\u002d1\\x3234"),
            ("see N<b class='x'>-12</b>34 now", "N<b class='x'>-12</b>34"),
            ("see N\u20111234 now", "N\u20111234"),
            ("<td>N-1234</td>", "N-1234"),
        ],
    )
    def test_sees_through_disguise(self, text: str, span: str) -> None:
        """What shows counts, whatever it is written in; the span is the original's."""
        assert found(pack(NUMBER), text) == [("number", span)]

    @pytest.mark.parametrize("text", ["", "\x00", "\ud800", "\udfff N-1234 \ud800\x00"])
    def test_takes_any_string(self, text: str) -> None:
        """Nothing, NUL and lone surrogates are text like any other."""
        assert len(pack(NUMBER).find(text)) == text.count("N-")

    def test_a_span_may_reach_further(self) -> None:
        """What was confirmed by its beginning ends where it says, and nothing in it is another."""
        toy = pack(
            Pattern("long", r"a\d", 5.0, reach=lambda match: match.string.find(".", match.end()))
        )
        assert found(toy, "a1a2a3. a4.") == [("long", "a1a2a3"), ("long", "a4")]

    def test_ends_where_a_pattern_matches_nothing(self) -> None:
        """A pattern that matches the empty string ends and still finds the rest."""
        spans = found(pack(Pattern("as", "a*", 5.0)), "baab")
        assert ("as", "aa") in spans

    def test_passes_on_a_match_only_if_checked(self) -> None:
        """A check decides on the span's text."""
        toy = pack(Pattern("even", r"\d{3}", 5.0, check=lambda text: int(text) % 2 == 0))
        assert found(toy, "101 102") == [("even", "102")]

    def test_looks_inside_what_was_not_confirmed(self) -> None:
        """A match that fails its check hides no real one that begins inside it."""
        toy = pack(Pattern("pair", r"\d{2} \d{2}", 5.0, check=lambda text: text == "22 33"))
        assert found(toy, "11 22 33") == [("pair", "22 33")]


class TestContext:
    """Words that must stand before a match."""

    TOY = PatternDetector("toy", "pii_leak", [Pattern("id", r"\d{6}", 5.0, context=r"\bpass\b")])

    @pytest.mark.parametrize(
        "text", ["pass 123456", "My PASS: no. 123456", "pass" + 44 * " " + "123456"]
    )
    def test_near_word_confirms(self, text: str) -> None:
        """The word counts in any case, up to 48 characters before the span."""
        assert len(self.TOY.find(text)) == 1

    @pytest.mark.parametrize(
        "text",
        ["123456", "123456 pass", "passage 123456", "pass" + 45 * " " + "123456"],
    )
    def test_no_or_far_word_rejects(self, text: str) -> None:
        """Without the word, behind it, inside another word or too far: nothing is found."""
        assert self.TOY.find(text) == []


class TestOverlap:
    """Which of several matches at one place count."""

    @staticmethod
    def both(first: float, second: float, inner: str) -> list[str]:
        """Return the labels found where `bcd` and `inner` are looked for in `abcdef`."""
        toy = pack(Pattern("outer", "bcd", first), Pattern("inner", inner, second))
        return [finding.label for finding in toy.find("abcdef")]

    def test_drops_what_lies_inside(self) -> None:
        """A match inside one of at least its evidence says nothing new."""
        assert self.both(6.0, 6.0, "cd") == ["outer"]

    def test_keeps_what_is_stronger(self) -> None:
        """A match inside a weaker one keeps its evidence."""
        assert self.both(6.0, 9.0, "cd") == ["outer", "inner"]

    def test_keeps_what_reaches_out(self) -> None:
        """Of two matches that merely overlap none is dropped: each covers text of its own."""
        assert self.both(9.0, 5.0, "de") == ["outer", "inner"]

    def test_same_span_counts_once(self) -> None:
        """Of two matches of one span only the stronger counts."""
        assert self.both(5.0, 8.0, "bcd") == ["inner"]


class TestOwnership:
    """Which passage a match belongs to."""

    TEXT = "see N-1234-5678 there"

    @pytest.mark.parametrize(("start", "end"), [(4, 21), (4, 5), (0, 9)])
    def test_beginning_decides(self, start: int, end: int) -> None:
        """A match that begins in the unit counts, however far it runs past its end."""
        findings = pack(NUMBER)(Passage(self.TEXT, start, end))
        assert [(f.start, f.end) for f in findings] == [(4, 15)]

    @pytest.mark.parametrize(("start", "end"), [(5, 21), (0, 4), (15, 21)])
    def test_others_are_left_to_their_unit(self, start: int, end: int) -> None:
        """A match that begins before or behind the unit is no finding, nor is a part of it."""
        assert pack(NUMBER)(Passage(self.TEXT, start, end)) == []


class TestVersion:
    """When the version changes."""

    def test_same_pack_same_version(self) -> None:
        """Two packs of the same patterns have one version, known before the first text."""
        assert pack(NUMBER).version == pack(NUMBER).version

    @pytest.mark.parametrize(
        "other",
        [
            Pattern("number", r"N-\d{5}", 5.0),
            Pattern("number", NUMBER.expression, 6.0),
            Pattern("number", NUMBER.expression, 5.0, context="card"),
            Pattern("numbers", NUMBER.expression, 5.0),
        ],
    )
    def test_any_change_shows(self, other: Pattern) -> None:
        """Another expression, evidence, context or label is another version."""
        assert pack(other).version != pack(NUMBER).version

    def test_release_shows(self) -> None:
        """A release tells apart what the digest cannot see."""
        assert pack(NUMBER, release="2").version.startswith("2-")


PLANTED = (
    "ghp_" + "F4k3Zq9Lm2Xw" * 3,
    "AKIA" + "FAKEQ7Z3" * 2,
    "password = 'F4k3-Zq9Lm2Xw'",
    "postgres://app:F4k3Zq9Lm2@db.internal/main",
    "-----BEGIN PRIVATE KEY-----\n" + "F4k3Zq9Lm2Xw" * 9 + "\n-----END PRIVATE KEY-----",
    "Authorization: Bearer F4k3Zq9Lm2XwF4k3",
    "jane.roe@quietmill.dev",
    "+44 20 7946 1234",
    "call me: 030 1234567",
    "4111 1111 1111 1111",
    "GB29 NWBK 6016 1331 9268 19",
    "BSN 111222333",
    "81.2.69.142",
    "2a00:1450:4001:81b::200e",
    "12345678Z",
    "password = 'F4k3;Zq9(Lm2Xw'",
    "password: F4k3Zq9L;m2Xw9Zq",
    'password = "F4k3Zq9Lm2 Xw, k3 and. more"',
    "token = " + "F4k3Zq9Lm2Xw" * 200,
)
"""One of many kinds, each obviously made up or a public test value."""


def fitting(pattern: Pattern) -> st.SearchStrategy[str]:
    """Return a strategy for what fits a pattern, behind its context word if it needs one."""
    flags = re.DOTALL | re.ASCII
    fits = st.from_regex(re.compile(pattern.expression, flags), fullmatch=True)
    if not pattern.context:
        return fits
    word = st.from_regex(re.compile(pattern.context, flags | re.IGNORECASE), fullmatch=True)
    return st.tuples(word, st.sampled_from([" ", ": ", ""]), fits).map("".join)


EVERY = [pattern for detector in PACKS for pattern in detector._patterns]
LIKE_KEYS = st.sampled_from(EVERY).flatmap(fitting)
"""What fits a pattern, though nothing else about it need be right."""

CHARACTERS = st.characters(exclude_categories=())
"""Lone surrogates and NUL included."""

FRAGMENTS = st.one_of(
    st.sampled_from(PLANTED),
    st.tuples(st.sampled_from(PLANTED), st.integers(1, 60)).map(lambda cut: cut[0][cut[1] :]),
    st.tuples(st.sampled_from(PLANTED), st.integers(1, 60)).map(lambda cut: cut[0][: cut[1]]),
    LIKE_KEYS,
    LIKE_KEYS,
    st.sampled_from(
        ["token: ", "aws ", "tel ", "Phone: ", "ssn=", "N", "+", "00", "://u:", "@", "-", "_", "."]
    ),
    st.text(alphabet="abK019 .:-@/+='\"\n\x00\u200b\ud800", max_size=12),
    st.text(alphabet="\u0661\u06f2\u0967 .-", max_size=12),
    st.text(CHARACTERS, max_size=6),
)
GAPS = st.sampled_from(["", " ", ", ", "\n", "\x00", "\ufeff", "\udfff"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw a text of keys, numbers, halves of them and noise, joined in any way."""
    parts = draw(st.lists(FRAGMENTS, max_size=8))
    return "".join(part + draw(GAPS) for part in parts)


def ungated(detector: PatternDetector) -> PatternDetector:
    """Return the same pack without its gate."""
    return PatternDetector(detector.name, detector.categories[0], detector._patterns, gated=False)


def unchecked(detector: PatternDetector) -> PatternDetector:
    """Return the same pack with nothing but its expressions, so that far more counts."""
    patterns = [replace(pattern, check=None) for pattern in detector._patterns]
    return PatternDetector(detector.name, detector.categories[0], patterns)


COMPARED = [(each, ungated(each)) for each in (*PACKS, *map(unchecked, PACKS))]


class TestGate:
    """hyperscan goes first and must hide nothing."""

    @MANY
    @given(texts())
    def test_gated_and_ungated_agree(self, text: str) -> None:
        """The packs find the same with the gate as with every pattern run by `re`."""
        for gated, reference in COMPARED:
            assert gated.find(text) == reference.find(text)

    @pytest.mark.parametrize("pattern", EVERY, ids=lambda pattern: pattern.name)
    @settings(max_examples=10, suppress_health_check=[HealthCheck.filter_too_much])
    @given(st.data())
    def test_a_gate_lets_its_pattern_pass(self, pattern: Pattern, data: st.DataObject) -> None:
        """Whatever fits a pattern's expression and context passes its gate."""
        alone = pack(replace(pattern, check=None))
        text = data.draw(fitting(pattern))
        assert alone.find(text) == ungated(alone).find(text)

    @pytest.mark.parametrize(
        "text", ["N-\u0661\u0662\u0663\u0664", "n-1234", "N-\u06f1234", "\u00e9N-1234"]
    )
    def test_both_read_ascii(self, text: str) -> None:
        """Digits and letters of other scripts are neither digits nor letters to both."""
        assert pack(NUMBER).find(text) == ungated(pack(NUMBER)).find(text)
        assert bool(pack(NUMBER).find(text)) is text.endswith("\u00e9N-1234")

    def test_the_comparison_sees_a_wrong_gate(self) -> None:
        """A gate that is narrower than its expression makes the two differ."""
        narrow = pack(replace(NUMBER, gate=r"N-\d{4}-"))
        assert narrow.find("N-1234") != ungated(narrow).find("N-1234")

    @pytest.mark.parametrize("text", ["N-1234", "\u0130\u0130 N-1234", "NN-1234 nN-12345 N-1234"])
    def test_heads_hide_nothing(self, text: str) -> None:
        """A pattern that is tried where its matches begin finds them all, whatever is before."""
        headed = pack(replace(NUMBER, heads=("n-", "nn")))
        assert headed.find(text) == ungated(headed).find(text) != []

    @pytest.mark.parametrize("before", ["", "\u0130stanbul. ", "\u1e9e\u03a3\ud83d "])
    def test_heads_in_any_script(self, before: str) -> None:
        """A name that begins with a capital of another script is found behind any letter."""
        text = f"{before}\u041f\u0430\u0440\u043e\u043b\u044c: hunter2Xk93abQ9z"
        assert PACKS[0].find(text) == ungated(PACKS[0]).find(text) != []

    def test_the_comparison_sees_wrong_heads(self) -> None:
        """Where a match begins otherwise it is not found, so that the two differ."""
        headed = pack(replace(NUMBER, heads=("m-",)))
        assert headed.find("N-1234") != ungated(headed).find("N-1234")

    def test_the_gate_is_there(self) -> None:
        """A plain text makes no pattern of the secrets a candidate; without the gate all are."""
        text = "Nothing to see here."
        assert PACKS[0]._candidates(text) == []
        assert len(ungated(PACKS[0])._candidates(text)) == len(PACKS[0]._patterns)

    @pytest.mark.parametrize("text", PLANTED)
    def test_planted_items_are_found(self, text: str) -> None:
        """Every planted item of the comparison is one that a pack finds."""
        assert any(detector.find(text) for detector in PACKS)

    def test_threads_do_not_disturb_each_other(self) -> None:
        """Sixteen threads at once on a fresh pack find what one thread finds."""
        texts = [f"{i} {item} {i}" for i in range(20) for item in PLANTED]
        fresh = PatternDetector("secrets", "secret_leak", PACKS[0]._patterns)
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(fresh.find, texts))
        assert together == [PACKS[0].find(text) for text in texts]

    def test_nothing_is_loaded_before_the_first_text(self) -> None:
        """Importing and making the packs loads no hyperscan."""
        code = (
            "import sys, guard.detectors.secrets as s, guard.detectors.personal as p;"
            "s.secret_detector().version, p.personal_data_detector().version;"
            "sys.exit('hyperscan' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_without_hyperscan_the_packs_run_ungated(self) -> None:
        """Where hyperscan cannot be imported all is found, and said once, at level debug."""
        code = """
            import json, sys
            from concurrent.futures import ThreadPoolExecutor
            from dataclasses import astuple
            from importlib.abc import MetaPathFinder

            from structlog.testing import capture_logs

            class Blocker(MetaPathFinder):
                def find_spec(self, name, path, target=None):
                    if name.partition(".")[0] == "hyperscan":
                        raise ImportError("no hyperscan on this platform")

            sys.meta_path.insert(0, Blocker())
            from guard.detectors.personal import personal_data_detector
            from guard.detectors.secrets import secret_detector

            packs, texts = (secret_detector(), personal_data_detector()), json.load(sys.stdin)
            with capture_logs() as events, ThreadPoolExecutor(8) as pool:
                found = [list(pool.map(pack.find, texts)) for pack in packs]
            rows = [[[astuple(f) for f in findings] for findings in part] for part in found]
            json.dump([rows, events], sys.stdout)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            input=json.dumps(PLANTED),
            capture_output=True,
            text=True,
            check=True,
        )
        rows, events = json.loads(done.stdout)
        found = [[[Finding(*row) for row in findings] for findings in part] for part in rows]
        assert found == [[detector.find(text) for text in PLANTED] for detector in PACKS]
        assert events == [
            {
                "event": "guard.patterns_ungated",
                "log_level": "debug",
                "error": "no hyperscan on this platform",
            }
        ]


def by_units(detector: PatternDetector, text: str) -> list[tuple[str, int, int]]:
    """Return label and span of what `detector` finds in `text` unit by unit."""
    findings: list[tuple[str, int, int]] = []
    start = 0
    while start < len(text):
        end, left = unit_end(text, start, final=True), max(0, start - CONTEXT)
        assert end is not None
        ahead = text[left : seen_end(text, end, final=True)]
        passage = Passage(ahead, start - left, end - left)
        findings += [(f.label, f.start + left, f.end + left) for f in detector(passage)]
        start = end
    return findings


FILLER = st.lists(
    st.sampled_from(
        [
            *("The mill stood still.", "Rain fell", "on the weir", "twice.", "and then,"),
            "\u96e8\u8fd8\u5728\u4e0b\u3002" * 60,
            "\u300c\u6c34\u304c\u5897\u3048\u305f\uff01\u300d" * 20,
        ]
    ),
    max_size=30,
).map(" ".join)


@given(st.lists(st.tuples(FILLER, st.sampled_from(PLANTED)), min_size=1, max_size=6))
def test_units_hide_nothing(parts: list[tuple[str, str]]) -> None:
    """Unit by unit the packs find the same as in the whole text, wherever units are cut."""
    text = " ".join(f"{filler} <{item}>" for filler, item in parts)
    for detector in PACKS:
        whole = [(f.label, f.start, f.end) for f in detector.find(text)]
        assert by_units(detector, text) == whole


class TestRedact:
    """Texts that are kept."""

    def test_every_match_is_replaced(self) -> None:
        """Matches of every pack give way to their labels; the rest stays."""
        text = f"mail {PLANTED[6]}, key {PLANTED[0]}."
        assert (
            redact(text, detectors=PACKS) == "mail [redacted: email], key [redacted: github_token]."
        )

    def test_overlapping_matches_become_one(self) -> None:
        """Text under any of several overlapping matches is gone, and replaced once."""
        first, second = pack(Pattern("first", "bcd", 5.0)), pack(Pattern("second", "def", 5.0))
        assert redact("abcdefg", detectors=(first, second)) == "a[redacted: first]g"

    @pytest.mark.parametrize("text", ["", "Nothing here.", "\ud800"])
    def test_clean_text_is_returned_as_it_is(self, text: str) -> None:
        """Without a match not a character changes."""
        assert redact(text, detectors=PACKS) == text

    @given(texts())
    def test_no_match_survives(self, text: str) -> None:
        """No span that was found is left in the redacted text at its place."""
        spans = [(f.start, f.end) for detector in PACKS for f in detector.find(text)]
        covered = {i for start, end in spans for i in range(start, end)}
        kept = "".join(c for i, c in enumerate(text) if i not in covered)
        redacted = redact(text, detectors=PACKS)
        for label in {f.label for detector in PACKS for f in detector.find(text)}:
            redacted = redacted.replace(f"[redacted: {label}]", "")
        assert redacted == kept


@pytest.mark.parametrize(
    "piece",
    [
        "jane.roe@quietmill.dev ",
        "token=",
        "password=aaaaaaaaaaaaaaaaaaaaaaaa",
        "-----BEGIN PRIVATE KEY-----\n" + "a: " * 40,
        "http://a:",
        "eyJ",
        "1:2:ffffffffffffffffffffffff ",
        "+1 ",
        "4111 ",
        "aws ",
        "a.b-",
        "1.1.1.1.",
        "secret is ",
        "token:1",
        "-----BEGIN PRIVATE KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAA",
        "\u4e2d@",
        "00 1",
        "password='Xk92fLq!ab ",
        "password='Xk92fLq!ab;(",
        "token='" + "\\\\" * 40,
        "password=,1a",
        "token=;k7a;",
        "token=aaaaaaaa1 " + "b" * 40,
        "Authorization: Bearer aaaaaaaaaaaaaaaa",
        "eyJaaaaaaaaaaaa.",
        "eyJaaaaaaaaaaaa.eyJaaaa.",
        "PuTTY-User-Key-File-3: a",
        "Private-Lines: 1\n" + "a" * 64 + "\n",
        "token=a.b.",
        "token=A_",
        "a://test:test@",
        "320 480 1024 ",
    ],
)
def test_time_grows_with_the_length(piece: str) -> None:
    """Fifty thousand hostile characters take seconds of work at worst, gate or no gate."""
    text = (piece * 50_000)[:50_000]
    began = time.process_time()
    for gated, reference in COMPARED[: len(PACKS)]:
        assert gated.find(text) == reference.find(text)
    assert time.process_time() - began < 10
