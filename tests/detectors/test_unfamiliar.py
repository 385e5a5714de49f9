"""Text unlike the training data: the score by itself, its file, and a guard that acts on it."""

from __future__ import annotations

import base64
import math
import shutil
from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard import Guard
from guard.assess import live_risk
from guard.detectors import unfamiliar
from guard.detectors.base import Passage
from guard.detectors.classifier import Classifier
from guard.detectors.unfamiliar import Numbers, Unfamiliarity
from guard.encoding import Encoded
from guard.errors import ConfigurationError, ModelError
from guard.loading import BUNDLED_MODEL
from guard.policy import builtin_classes, load_class
from guard.security_class import Limit, SecurityClass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GERMAN = (
    "Am Sonntag fahren wir mit dem Zug an die Küste. Wer mitkommen will, bringt Brote und eine "
    "warme Jacke mit, denn am Wasser ist es windig, auch wenn die Sonne scheint."
)
BULGARIAN = (
    "В неделя отиваме с влака до морето. Който иска да дойде, нека вземе сандвичи и топло яке, "  # noqa: RUF001  # Bulgarian
    "защото край водата духа вятър дори когато грее слънце."  # noqa: RUF001
)
PLAIN = (
    "On Sunday we take the train to the coast. Whoever comes along brings sandwiches and a warm "
    "jacket, because it is windy by the water even when the sun is out."
)
WALL = base64.b64encode(PLAIN.encode()).decode()

UNLIKE = {
    "german": GERMAN,
    "bulgarian": BULGARIAN,
    "base64": WALL,
    "hex": PLAIN.encode().hex(),
    "backwards": PLAIN[::-1],
    "keyboard": "sdkjfh wieru skdjfhg qpwoei zmxnbv alskdj fhgbvn weori sdlkfj xcmvnb qwpeoi " * 2,
}

ENGLISH = {
    "prose": PLAIN,
    "table": (
        "| Port | Boats | Lamps |\n|---|---|---|\n| Harwich | 14 | 220 |\n| Whitby | 9 | 131 |\n"
        "| Falmouth | 21 | 305 |\n| Oban | 6 | 88 |\n"
    ),
    "names": (
        "The choir: Anna Lindqvist, Tomasz Wrona, Priya Raman, Joaquim Teles, Mei Tanaka, Olu "
        "Adeyemi, Siobhan Keane, Dmitri Volkov and Fatima Haddad. They meet on Tuesdays."
    ),
    "code": (
        "def lamps(boats: list[Boat]) -> dict[str, int]:\n"
        "    found: dict[str, int] = {}\n"
        "    for boat in boats:\n"
        "        found[boat.port] = found.get(boat.port, 0) + len(boat.lamps)\n"
        "    return {port: count for port, count in found.items() if count > 0}\n"
    ),
    "mathematics": (
        "Let \\( f(x) = x^2 - 4x + 3 \\). Then \\( f'(x) = 2x - 4 \\), which is 0 at \\( x = 2 "
        "\\). Since \\( f''(2) = 2 > 0 \\), the function has its minimum \\( f(2) = -1 \\) there."
    ),
    "json": (
        '{"port": "Harwich", "boats": [{"name": "Gull", "lamps": 12, "out": true}, {"name": '
        '"Tern", "lamps": 8, "out": false}], "updated": "2026-03-01T08:15:00Z"}'
    ),
    "short": "Yes.",
    "post": "omg the gulls stole my chips AGAIN 😂 why do i even sit outside #seaside",
}


@cache
def bundled() -> Classifier:
    """Return the bundled model."""
    return Classifier(BUNDLED_MODEL)


def evidence(text: str, prompt: str = "", start: int = 0) -> float:
    """Return the bundled model's evidence that a unit is unfamiliar."""
    (found,) = (
        finding.evidence
        for finding in bundled()(Passage(text, start, prompt=prompt))
        if finding.category == unfamiliar.CATEGORY
    )
    return found


def numbers(**changes: Any) -> Numbers:
    """Return made-up numbers: four dimensions, one axis, ten tokens, the last one unknown."""
    features = 2 + len(unfamiliar.COUNTED)
    weights = np.zeros(features)
    weights[0] = 1.0
    values: dict[str, Any] = {
        "centre": np.zeros(4, np.float32),
        "plane": np.array([[1.0, 0.0, 0.0, 0.0]], np.float16),
        "spread": np.array([2.0], np.float32),
        "flags": np.array([0] * 9 + [unfamiliar.UNKNOWN], np.uint8),
        "surprise": np.full(10, 80, np.uint8),
        "pairs": np.zeros(unfamiliar.PAIR_BITS // 8, np.uint8),
        "ordinary": np.zeros(len(unfamiliar.COUNTED)),
        "offset": np.zeros(features),
        "weights": weights,
        "line": np.array([0.5, -1.0, 4.0]),
        "digest": np.array("made up"),
    }
    return Numbers(**(values | changes))


def window(*ids: int, characters: int = 4) -> Encoded:
    """Return a window whose tokens are all the unit's, each of so many characters."""
    size = len(ids)
    return Encoded(
        np.array(ids), np.zeros(size, np.int64), slice(0, size), np.full(size, characters)
    )


class TestScore:
    """The score alone, on made-up numbers."""

    def test_distances_inside_and_beside_the_plane(self) -> None:
        """Inside in standard deviations, beside in length, both squared and as logarithms."""
        given_ = np.array([[4.0, 0.0, 3.0, 0.0]], np.float32)
        found = Unfamiliarity(numbers()).features([window(1, 2)], given_)
        assert found[0, :2] == pytest.approx(np.log([4.0, 9.0]), abs=1e-5)

    def test_only_the_units_own_tokens_are_counted(self) -> None:
        """Tokens of prompt and context leave the shares as they are."""
        ids, types = np.array([9, 9, 1, 2, 9]), np.zeros(5, np.int64)
        inside = Encoded(ids, types, slice(2, 4), np.array([4, 4]))
        scorer, point = Unfamiliarity(numbers()), np.zeros((1, 4), np.float32)
        assert np.array_equal(
            scorer.features([inside], point), scorer.features([window(1, 2)], point)
        )

    def test_few_tokens_say_little(self) -> None:
        """The share of unknown words grows with their number, towards 1."""
        scorer, point = Unfamiliarity(numbers()), np.zeros((1, 4), np.float32)
        column = 2 + unfamiliar.SHARES.index(unfamiliar.UNKNOWN)
        shares = [scorer.features([window(*[9] * n)], point)[0, column] for n in (1, 8, 100)]
        assert shares == pytest.approx([1 / 9, 8 / 16, 100 / 108])

    def test_a_wall_is_no_single_word(self) -> None:
        """One unknown token of 400 characters weighs as much as a hundred of four."""
        scorer, point = Unfamiliarity(numbers()), np.zeros((1, 4), np.float32)
        column = 2 + unfamiliar.SHARES.index(unfamiliar.UNKNOWN)
        (wall, *_), (words, *_) = (
            scorer.features([each], point)
            for each in (window(9, characters=400), window(*[9] * 100))
        )
        assert wall[column] == pytest.approx(words[column])

    def test_frequent_neighbours_are_known(self) -> None:
        """A pair whose bit is set counts, the same tokens in the other order do not."""
        table = np.zeros(unfamiliar.PAIR_BITS // 8, np.uint8)
        (at,) = unfamiliar.pair_hashes(np.array([3, 5]))
        table[at >> 3] |= 1 << (at & 7)
        assert unfamiliar.known_pairs(table, np.array([3, 5, 3])).tolist() == [True, False]

    def test_the_most_unfamiliar_window_counts(self) -> None:
        """A unit of several windows is as unfamiliar as its worst one."""
        scorer = Unfamiliarity(numbers())
        near, far = [0.1, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0]
        both = scorer.evidence([window(1), window(2)], np.array([near, far], np.float32))
        assert both == scorer.evidence([window(2)], np.array([far], np.float32))

    @given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
    def test_evidence_never_falls_where_the_score_rises(self, one: float, other: float) -> None:
        """Calibration is monotone and bounded."""
        low, high = sorted((one, other))
        scorer = Unfamiliarity(numbers())
        assert -4.0 <= scorer.calibrated(low) <= scorer.calibrated(high) <= 4.0

    def test_what_is_no_number_stays_none(self) -> None:
        """A broken embedding, or none at all, must be seen as a failure."""
        scorer = Unfamiliarity(numbers())
        assert math.isnan(scorer.evidence([window(1)], np.full((1, 4), np.nan, np.float32)))
        assert math.isnan(scorer.evidence([window(1)], None))


class TestFile:
    """What lies in a model's directory."""

    def test_it_comes_back_as_it_was(self, tmp_path: Path) -> None:
        """Numbers survive, and the same ones give the same bytes."""
        unfamiliar.write(tmp_path, numbers())
        first = (tmp_path / unfamiliar.FILE).read_bytes()
        unfamiliar.write(tmp_path, numbers())
        assert (tmp_path / unfamiliar.FILE).read_bytes() == first
        read = unfamiliar.read(tmp_path, lambda: "made up", 4)
        point = np.ones((1, 4), np.float32)
        assert read is not None
        assert read.evidence([window(1)], point) == Unfamiliarity(numbers()).evidence(
            [window(1)], point
        )

    def test_none_is_none(self, tmp_path: Path) -> None:
        """A directory without the file says so, and its digest is not computed."""
        assert unfamiliar.read(tmp_path, pytest.fail, 4) is None

    @pytest.mark.parametrize(("digest", "dimensions"), [("another", 4), ("made up", 5)])
    def test_another_models_file_is_refused(
        self, tmp_path: Path, digest: str, dimensions: int
    ) -> None:
        """Numbers that belong to other embeddings would score nonsense."""
        unfamiliar.write(tmp_path, numbers())
        with pytest.raises(ModelError, match="made for another model: make it anew"):
            unfamiliar.read(tmp_path, lambda: digest, dimensions)

    @pytest.mark.parametrize("damage", [lambda b: b[:200], lambda _: b"PK", lambda _: b""])
    def test_a_damaged_file_is_refused(
        self, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        """What cannot be read is named with its place."""
        unfamiliar.write(tmp_path, numbers())
        path = tmp_path / unfamiliar.FILE
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ModelError, match="cannot be used"):
            unfamiliar.read(tmp_path, lambda: "made up", 4)

    def test_pickles_are_refused(self, tmp_path: Path) -> None:
        """A file with objects in it is not unpickled."""
        values: Any = {field.name: getattr(numbers(), field.name) for field in fields(Numbers)}
        np.savez(tmp_path / unfamiliar.FILE, **(values | {"line": np.array([object()])}))
        with pytest.raises(ModelError, match="cannot be used"):
            unfamiliar.read(tmp_path, lambda: "made up", 4)

    def test_the_bundled_file_is_small(self) -> None:
        """It takes less than 250 kB of the model's directory."""
        assert (BUNDLED_MODEL / unfamiliar.FILE).stat().st_size < 250_000


class TestBundled:
    """The bundled model."""

    @given(st.text(max_size=300), st.text(max_size=40))
    def test_every_string_has_finite_evidence(self, text: str, prompt: str) -> None:
        """Whatever a string holds, the evidence is a number, and the same one again."""
        first = evidence(text, prompt)
        assert math.isfinite(first)
        assert evidence(text, prompt) == first

    @pytest.mark.parametrize("kind", UNLIKE)
    @pytest.mark.parametrize("prompt", ["", "When do we leave on Sunday, and what do I bring?"])
    def test_unlike_text_would_be_flagged(self, kind: str, prompt: str) -> None:
        """Other languages, ciphers, walls and noise stand out, asked for in English or not."""
        assert flagging(UNLIKE[kind], prompt) == {"regulated", "critical"}

    @pytest.mark.parametrize("kind", ENGLISH)
    def test_english_would_not_be_flagged(self, kind: str) -> None:
        """Prose, code, tables, names and mathematics are what the classifier knows."""
        assert not flagging(ENGLISH[kind])

    def test_a_wall_in_the_middle_of_an_english_answer(self) -> None:
        """The unit counts, not what stands before it."""
        assert evidence(f"{PLAIN}\n{WALL}", start=len(PLAIN) + 1) > 0
        assert evidence(f"{WALL}\n{PLAIN}", start=len(WALL) + 1) < evidence(WALL)

    def test_prompts_are_not_scored(self) -> None:
        """The category is the response's."""
        found = bundled()(Passage(GERMAN, side="prompt"))
        assert unfamiliar.CATEGORY not in {finding.category for finding in found}


def flagging(text: str, prompt: str = "") -> set[str]:
    """Return the built-in classes that would flag a text as unfamiliar."""
    value = evidence(text, prompt)
    return {
        name
        for name, limit, prior in limits()
        if limit.flag is not None and live_risk(value, prior) >= limit.flag
    }


def limits() -> list[tuple[str, Limit, float]]:
    """Return name, limit and prior of the built-in classes that limit the category."""
    found = ((each, each.limit(unfamiliar.CATEGORY)) for each in builtin_classes())
    return [
        (each.name, limit, each.prior_of(unfamiliar.CATEGORY))
        for each, limit in found
        if limit is not None
    ]


class TestGuard:
    """A whole guard with the bundled model."""

    def test_a_class_may_act_on_it(self) -> None:
        """German is blocked by a class that says so, English is let through."""
        guard = Guard.load(acting(), journal=None)
        blocked, passed = guard.check(GERMAN), guard.check(PLAIN)
        assert blocked.action == "block"
        assert blocked.reasons[0].startswith(unfamiliar.CATEGORY)
        assert (passed.action, passed.text) == ("allow", PLAIN)

    def test_a_stream_ends_where_it_becomes_unfamiliar(self) -> None:
        """The English beginning leaves, the wall behind it does not."""
        verdict = Guard.load(acting(), journal=None).check(f"{PLAIN}\n{WALL}")
        assert verdict.action == "block"
        assert PLAIN in verdict.streamed
        assert WALL not in verdict.streamed

    def test_the_strictest_class_flags_and_delivers(self) -> None:
        """No built-in class acts on it; the strictest ones keep a row."""
        assert all(limit.act is None for _, limit, _ in limits())
        strictest = load_class("critical")
        alone = {unfamiliar.CATEGORY: strictest.limits[unfamiliar.CATEGORY]}
        guard = Guard.load(strictest.model_copy(update={"limits": alone}), journal=None)
        verdict = guard.check(GERMAN)
        assert (verdict.action, verdict.text) == ("flag", GERMAN)

    def test_a_model_without_the_file_has_no_such_category(self, tmp_path: Path) -> None:
        """The file is optional; a class that limits the category then says what is missing."""
        model = tmp_path / "model"
        shutil.copytree(BUNDLED_MODEL, model)
        (model / unfamiliar.FILE).unlink()
        without = Classifier(model, verify=False)
        assert unfamiliar.CATEGORY not in without.categories
        assert unfamiliar.CATEGORY in bundled().categories
        with pytest.raises(ConfigurationError, match="`unfamiliar`, which no detector finds"):
            Guard(acting(), [without])

    def test_a_changed_file_is_refused(self, tmp_path: Path) -> None:
        """The manifest covers the file like any other."""
        model = tmp_path / "model"
        shutil.copytree(BUNDLED_MODEL, model)
        unfamiliar.write(model, replace(numbers(), digest=np.array(bundled().digest)))
        with pytest.raises(ModelError, match=r"unfamiliar\.npz` is not the file that was sealed"):
            Classifier(model)


def acting() -> SecurityClass:
    """Return a class that blocks what the classifier cannot read, and looks at nothing else."""
    limit = {unfamiliar.CATEGORY: {"act": 0.5, "remedy": "block"}}
    messages = {"en": {"blocked": "[blocked]", "replaced": "[replaced]"}}
    return SecurityClass.model_validate(
        {
            "name": "english_only",
            "rank": 1,
            "limits": limit,
            "messages": messages,
            "prior": {"default": 0.2},
            "timeout_seconds": 60.0,
        }
    )
