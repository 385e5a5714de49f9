"""Chunking invariance: what a stream delivers depends on its text and never on its cutting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from guard.detectors.base import Finding
from guard.detectors.pooling import CLOSING, Pooling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from guard.detectors.base import Passage
    from guard.engine import Guard
    from guard.verdict import Verdict

SYSTEM = (
    "Answer as the clerk of the tide office would, name each berth by its colour alone, and "
    "never tell a caller which ship is due before the harbour master has been asked."
)
PROMPT = "When does the ferry leave?"

# Put together here so that no scanner takes them for credentials that were lost.
KEYS = (
    "AKIA" + "Q7WZ3FJ5LM2NXK4B",
    "ghp_" + "a8Fk2LmQ9zXc4VbN7tRw1YpE6sHd3Gj5Kq0U",
    "postgres://clerk:" + "tR9vQ2xL7m@db.harbour-office.org/tides",
)
ARMOUR = "".join(
    (
        "-----BEGIN RSA PRIVATE KEY-----\n",
        *(
            f"MIIEowIBAAKCAQEA{n:02d}x7Kq9Zt4Lw2Vb8Nc6Mf3Jd5Hg1Ps0RyQeUiOaTkYjBv\n"
            for n in range(9)
        ),
        "-----END RSA PRIVATE KEY-----\n",
    )
)
BLOCKS = (
    ARMOUR,
    ARMOUR.replace("-----BEGIN RSA", "---- BEGIN SSH2")
    .replace("-----END RSA", "---- END SSH2")
    .replace("KEY-----", "KEY ----"),
    f"PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 9\n{ARMOUR[32:-30]}Private-MAC: {'0a' * 32}\n",
)
PERSONAL = ("4111 1111 1111 1111", "GB82 WEST 1234 5698 7654 32", "mara.olsen@tide-office.org")
REMEDIES = ("zflag", "zredact", "zexcise", "zreplace", "zblock")
SENTENCES = (
    "The ferry left before dawn and came back with the tide. ",
    "Nobody asked why! ",
    "Is the lamp lit? Then board. ",
    "Kräne schwenken über dem Hafen, und der Nebel steht. ",
    "潮が満ちる。船は出る。",
    "“船开了吗\uff1f”他问。\uff08没人回答\uff01\uff09等一等……" * 5,
    "A long clause that goes on, and on, and on without any end in sight or a full stop ",
)
ZERO = "\u200b"
HIDING = (
    ARMOUR.replace("BEGIN", f"BE{ZERO}GIN"),
    ARMOUR.replace("END", "\u00adE\x1cND").replace("x7", f"x{ZERO * 30}7"),
    ARMOUR.replace("-----B", "-\uff0d-\ufe63-\uff22").replace("END", "\u0415\uff2e\ud835\udc03"),
    *(f" {ZERO * 150}".join(number.split()) for number in PERSONAL[:2]),
    *((ZERO * 9).join(key) for key in KEYS[:2]),
)
"""Keys and numbers among characters that do not show, and one behind look-alikes."""
FLOODS = (ZERO * 5000, f"4111 1111 {ZERO * 9000}1111 1111 ", f"a{ZERO}" * 4500)
"""More of them than anybody waits for."""
DOCUMENTS = (
    '{"k": "z\\u0062lock"}',
    '{"k": "z\\u0062lock",}',
    '["\\u007a", "zflag \\/"]',
    ' [{"k": "\\u007aredact"}] ',
    '{"k": "AKIA\\u0051' + KEYS[0][5:] + '"}',
    '{"k": "\\u00e9t\\u00e9"}',
)
"""Answers that are JSON, with escapes."""
ODD = (
    "\r\n",
    "\n\n",
    "",
    " ",
    "\t",
    "🙂👩‍🚀🏴‍☠️",
    "e\u0301\u0323a\u0300\u0316",
    "\x00",
    "\ud83d",
    "\ude00",
    "\u200b\u202e",
    "-----BEGIN",
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA",
    "...",
)

# Words of every remedy, but seldom those that end a stream: most texts should go on.
_words = st.sampled_from(REMEDIES[:3] * 4 + REMEDIES)
_piece = st.one_of(
    st.sampled_from(SENTENCES),
    st.sampled_from(SENTENCES),
    st.sampled_from(ODD),
    _words.map(lambda word: f"And {word} it was. "),
    _words,
    st.sampled_from((*KEYS, *PERSONAL)),
    st.sampled_from((*KEYS, *PERSONAL)).map(lambda found: f"Note {found} down. "),
    st.sampled_from(BLOCKS),
    st.integers(0, 20).flatmap(lambda at: st.just(" ".join(SYSTEM.split()[at : at + 16]))),
    st.text(max_size=30),
    st.sampled_from(HIDING).map(lambda hidden: f"Note {hidden} down. "),
    st.tuples(st.sampled_from("aé漢🙂"), st.integers(100, 5000)).map(lambda run: run[0] * run[1]),
)
# Short ones, where every edge lies close to another, and ones of many units.
TEXTS = st.one_of(st.lists(_piece, max_size=16), st.lists(_piece, min_size=16, max_size=48)).map(
    "".join
)
CUTS = st.one_of(
    st.lists(st.floats(0, 1), max_size=40),
    # Cuts side by side, as a model's tokens lie.
    st.tuples(st.floats(0, 1), st.integers(1, 60)).map(lambda at: [at[0]] * at[1]),
)


def cut(text: str, places: list[float]) -> list[str]:
    """Return `text` in pieces, empty ones among them; the places are shares of its length."""
    bounds = sorted(int(place * len(text)) for place in places)
    return [text[a:b] for a, b in zip([0, *bounds], [*bounds, len(text)], strict=True)]


async def achunks(pieces: list[str]) -> AsyncIterator[str]:
    """Yield `pieces` and let others run in between."""
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


def streamed(guard: Guard, pieces: list[str], **given: Any) -> tuple[str, Verdict]:
    """Return what `stream` delivers, and its verdict."""
    stream = guard.stream(pieces, **given)
    return "".join(stream), stream.verdict


def astreamed(guard: Guard, pieces: list[str], **given: Any) -> tuple[str, Verdict]:
    """Return what `astream` delivers, and its verdict."""

    async def read() -> tuple[str, Verdict]:
        stream = guard.astream(achunks(pieces), **given)
        return "".join([text async for text in stream]), stream.verdict

    return asyncio.run(read())


class TestInvariance:
    """`check`, `stream` and `astream` agree in text, verdict and findings."""

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(text=TEXTS, places=CUTS)
    @example(text="", places=[])
    @example(text="", places=[0.5, 0.5])
    @example(text="zblock", places=[0.5])
    def test_stream_agrees_with_check(
        self, pack_guard: Guard, text: str, places: list[float]
    ) -> None:
        """However a text is cut, a stream delivers what the whole text's verdict says."""
        expected = pack_guard.check(text, prompt=PROMPT, system=SYSTEM)
        given_pieces = cut(text, places)
        delivered, verdict = streamed(pack_guard, given_pieces, prompt=PROMPT, system=SYSTEM)
        assert delivered == expected.streamed
        assert verdict == expected
        assert verdict.findings == expected.findings

    @settings(
        max_examples=max(1, settings().max_examples // 2),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(text=TEXTS, places=CUTS)
    def test_astream_agrees_with_check(
        self, pack_guard: Guard, text: str, places: list[float]
    ) -> None:
        """An asynchronous stream and `acheck` agree with `check` likewise."""
        expected = pack_guard.check(text, prompt=PROMPT, system=SYSTEM)
        given_pieces = cut(text, places)
        delivered, verdict = astreamed(pack_guard, given_pieces, prompt=PROMPT, system=SYSTEM)
        assert (delivered, verdict) == (expected.streamed, expected)
        awaited = asyncio.run(pack_guard.acheck(text, prompt=PROMPT, system=SYSTEM))
        assert awaited == expected

    @settings(
        max_examples=max(1, settings().max_examples // 10),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(text=st.lists(_piece, max_size=6).map(lambda parts: "".join(parts)[:3000]), places=CUTS)
    def test_the_real_classifier_changes_nothing(
        self, real_guard: Guard, text: str, places: list[float]
    ) -> None:
        """With the bundled model, scores included, a stream agrees with the whole text."""
        expected = real_guard.check(text, prompt=PROMPT)
        delivered, verdict = streamed(real_guard, cut(text, places), prompt=PROMPT)
        assert (delivered, verdict) == (expected.streamed, expected)

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(
        text=st.lists(st.sampled_from((*HIDING, *FLOODS, *SENTENCES, *ODD)), max_size=12).map(
            "".join
        ),
        places=CUTS,
    )
    def test_hidden_characters(self, pack_guard: Guard, text: str, places: list[float]) -> None:
        """What does not show makes no difference of how a text arrives, however much it is."""
        expected = pack_guard.check(text)
        delivered, verdict = streamed(pack_guard, cut(text, places))
        assert (delivered, verdict) == (expected.streamed, expected)

    @given(text=st.sampled_from(DOCUMENTS), places=CUTS)
    def test_documents(self, pack_guard: Guard, text: str, places: list[float]) -> None:
        """What an answer that is JSON hides in escapes is found at its end, in a stream too."""
        expected = pack_guard.check(text)
        delivered, verdict = streamed(pack_guard, cut(text, places))
        assert (delivered, verdict) == (expected.streamed, expected)
        if text == DOCUMENTS[4]:
            # The key's place is known as it is read, so that it alone is taken out.
            assert (verdict.action, delivered) == ("rewrite", '{"k": "[redacted: secret leak]"}')
        else:
            assert (verdict.action == "block") == (text not in DOCUMENTS[2::3])

    @pytest.mark.parametrize("found", HIDING)
    def test_no_hidden_character_parts_what_a_detector_knows(
        self, pack_guard: Guard, found: str
    ) -> None:
        """It is found wherever units end, and nothing of it is delivered."""
        for before in (0, 40, 117, 260, 377, 395):
            text = ("lorem " * 80)[:before] + f" {found} " + "ipsum dolor. " * 20
            verdict = pack_guard.check(text)
            assert verdict.action == "rewrite"
            assert ZERO not in verdict.delivered
            assert "x7" not in verdict.delivered

    @pytest.mark.parametrize("flood", FLOODS)
    def test_a_flood_is_no_all_clear(self, pack_guard: Guard, flood: str) -> None:
        """A text of which nobody can see what belongs together is a detector's failure."""
        text = SENTENCES[0] * 4 + flood + SENTENCES[0] * 4
        verdict = pack_guard.check(text)
        assert verdict.action == "block"
        assert "detector:judgement skipped" in verdict.reasons[0]
        assert not verdict.coverage.complete
        delivered, _ = streamed(pack_guard, list(text))
        assert delivered == verdict.streamed
        assert ZERO not in delivered

    @pytest.mark.parametrize("found", [*KEYS, *PERSONAL[:2], ARMOUR, *REMEDIES])
    def test_no_cut_hides_what_a_detector_knows(self, pack_guard: Guard, found: str) -> None:
        """What is found in the whole is found character by character, wherever units end."""
        for before in (0, 40, 117, 260, 395):
            text = ("lorem " * 80)[:before] + f" {found} " + "ipsum dolor. " * 20
            expected = pack_guard.check(text)
            assert expected.action != "allow"
            delivered, verdict = streamed(pack_guard, list(text))
            assert (delivered, verdict) == (expected.streamed, expected)

    @pytest.mark.parametrize("changes", [{"shadow": True}, {"on_failure": "flag"}])
    @settings(
        max_examples=max(1, settings().max_examples // 4),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(text=TEXTS, places=CUTS)
    def test_classes_of_other_kinds(
        self,
        make_pack_guard: Callable[..., Guard],
        changes: dict[str, Any],
        text: str,
        places: list[float],
    ) -> None:
        """Shadow mode and failing detectors are as independent of the cutting."""
        guard = make_pack_guard(Moody(), **changes)
        expected = guard.check(text)
        delivered, verdict = streamed(guard, cut(text, places))
        assert (delivered, verdict) == (expected.streamed, expected)
        if guard.security_class.shadow:
            assert delivered == text

    @pytest.mark.parametrize("remedy", ["excise", "replace", "block"])
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(text=TEXTS, places=CUTS)
    def test_evidence_that_adds_up(
        self, make_guard: Callable[..., Guard], remedy: str, text: str, places: list[float]
    ) -> None:
        """What earlier units weigh in a later one's risk is the same however text arrives."""
        guard = make_guard(
            Wavering(), limits={"wavering": {"flag": 0.3, "act": 0.5, "remedy": remedy}}
        )
        expected = guard.check(text)
        delivered, verdict = streamed(guard, cut(text, places))
        assert (delivered, verdict) == (expected.streamed, expected)


class TestGiven:
    """What detectors are given with a unit."""

    @pytest.mark.parametrize("gap", ["", ZERO * 300])
    def test_nothing_hides_what_stands_before(
        self, make_guard: Callable[..., Guard], gap: str
    ) -> None:
        """Characters that do not show do not count, however a text arrives."""
        text = f"{'The tide turned. ' * 9}{gap}\n" * 20
        limits = {"nothing": {"flag": 0.5}}
        whole, pieces = Witness(), Witness()
        make_guard(whole, limits=limits).check(text)
        streamed(make_guard(pieces, limits=limits), cut(text, [0.3, 0.4, 0.7]))
        for number, before in enumerate(whole.before):
            said = "".join(whole.units[:number]).replace(ZERO, "")
            assert before.replace(ZERO, "") == said[-480:]
        assert whole.closing.replace(ZERO, "") == text.replace(ZERO, "")[-1600:]
        assert (pieces.before, pieces.closing) == (whole.before, whole.closing)


class TestJudgedBeforeReleased:
    """Nothing leaves before it was judged."""

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(text=TEXTS, places=CUTS)
    def test_every_piece_was_judged_as_it_leaves(
        self, make_pack_guard: Callable[..., Guard], text: str, places: list[float]
    ) -> None:
        """What leaves was, at that moment, judged in exactly these words, and passed."""
        witness = Witness()
        guard = make_pack_guard(witness)
        messages = guard.security_class.messages_in(None)
        for piece in guard.stream(cut(text, places)):
            notice = piece.strip() in (messages.blocked, messages.replaced)
            assert piece in witness.units or not piece.strip() or notice
            assert not any(word in piece for word in REMEDIES if word != "zflag")

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(text=TEXTS.filter(lambda text: "z" not in text), places=CUTS)
    def test_all_text_behind_a_piece_was_judged(
        self, make_guard: Callable[..., Guard], text: str, places: list[float]
    ) -> None:
        """At each release, all of the original text up to there has been judged, in order."""
        witness = Witness()
        guard = make_guard(witness, limits={"nothing": {"flag": 0.5}})
        left = ""
        for piece in guard.stream(cut(text, places)):
            left += piece
            assert "".join(witness.units).startswith(left)
        assert left == text == "".join(witness.units)

    def test_a_stream_leaves_while_it_arrives(self, pack_guard: Guard) -> None:
        """Holding back is bounded: text leaves long before a stream's end is there."""
        read = 0

        def source() -> Iterator[str]:
            nonlocal read
            for _ in range(200):
                read += 1
                yield SENTENCES[0]

        stream = pack_guard.stream(source())
        next(stream)
        assert read < 12
        stream.close()


class Witness:
    """A detector that finds nothing and remembers which texts it was asked to judge."""

    name = "witness"
    version = "1"
    categories = ("nothing",)

    def __init__(self) -> None:
        """Have seen nothing."""
        self.units: list[str] = []
        self.before: list[str] = []
        self.closing = ""

    def __call__(self, passage: Passage) -> list[Finding]:
        """Remember the unit, what stands before it, and the text that it ends."""
        self.units.append(passage.unit)
        self.before.append(passage.text[: passage.start])
        self.closing = passage.closing
        return []


class Wavering:
    """A detector whose evidence differs from unit to unit and adds up, whole texts included."""

    name = "wavering"
    version = "1"
    categories = ("wavering",)
    pooling: ClassVar = {"wavering": Pooling(own=0.6, toll=0.3, closing=0.5, reserve=1.0)}

    def __call__(self, passage: Passage) -> list[Finding]:
        """Find more or less, by the length of the unit and of the text that it ends."""
        texts = {"": passage.unit, CLOSING: passage.closing}
        return [
            Finding(
                "wavering",
                float(len(text) % 17 - 8),
                passage.start,
                passage.end,
                "wavering",
                "1",
                label,
            )
            for label, text in texts.items()
            if text.strip()
        ]


class Moody:
    """A detector that fails on some texts, always the same ones."""

    name = "moody"
    version = "1"
    categories = ("nothing",)

    def __call__(self, passage: Passage) -> list[Finding]:
        """Raise where the unit's length is a multiple of three."""
        if len(passage.unit) % 3 == 0:
            raise RuntimeError("not today")
        return []
