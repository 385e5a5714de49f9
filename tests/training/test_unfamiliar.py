"""Fitting what is unfamiliar: what is held out, what is made, and a fit on the bundled model."""

from __future__ import annotations

import base64
import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from guard.detectors import unfamiliar as runtime
from guard.detectors.classifier import Classifier
from guard.loading import BUNDLED_MODEL
from guard.training import unfamiliar
from guard.training.data import Row
from guard.training.unfamiliar import HELD_OUT, LANGUAGES, MADE, ORDINARY, is_english, languages

if TYPE_CHECKING:
    from pathlib import Path

TOPICS = ("ferry", "garden", "library", "kitchen", "bicycle", "choir", "harbour", "market")
ROWS = [
    Row(
        f"What about the {topic} on day {day}?",
        f"The {topic} is open until six on day {day}, and you can bring a friend if you like. "
        f"There is tea in the back room, and the people at the {topic} will show you around.",
        {},
        f"own_{topic}",
        "CC0-1.0",
        1.0,
    )
    for topic in TOPICS
    for day in range(6)
]


class TestLanguages:
    """The paragraphs in other languages."""

    def test_they_are_as_described(self) -> None:
        """Each has a language, a text of a unit's size, and the project's licence."""
        for line in LANGUAGES.read_text("utf-8").splitlines():
            row = json.loads(line)
            assert set(row) == {"language", "text", "split", "license"}
            assert 80 <= len(row["text"]) <= 400
            assert row["license"] == "CC0-1.0"

    def test_whole_languages_are_held_out(self) -> None:
        """No language is fitted on and tested on; each has eight paragraphs, all different."""
        fitted, held = languages("train"), languages("test")
        assert not fitted.keys() & held.keys()
        assert len(fitted) == 12
        assert len(held) == 4
        every = [text for texts in [*fitted.values(), *held.values()] for text in texts]
        assert len(set(every)) == len(every) == 16 * 8

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_none_counts_as_english(self, split: str) -> None:
        """What is left out of ordinary rows leaves all of them out."""
        for language, texts in languages(split).items():
            assert not is_english(" ".join(texts)), language

    @pytest.mark.parametrize(
        "text",
        [
            ROWS[0].response,
            "import os\n\ndef walk(path, con):\n    for a, b, c in os.walk(path):\n        del a\n",
            "| a | b |\n|---|---|\n| 1 | 2 |",
            "",
        ],
    )
    def test_english_code_and_tables_do(self, text: str) -> None:
        """English counts, and so does what has too few words to tell."""
        assert is_english(text)


class TestMade:
    """Ciphers, walls and noise."""

    def test_kinds_are_fitted_on_or_held_out(self) -> None:
        """No kind is both."""
        assert not MADE.keys() & HELD_OUT.keys()

    @pytest.mark.parametrize("kind", [*MADE, *HELD_OUT])
    @given(text=st.text(max_size=60))
    def test_any_text_can_be_changed(self, kind: str, text: str) -> None:
        """Lone surrogates and empty texts included; the same seed gives the same text."""
        change = {**MADE, **HELD_OUT}[kind]
        assert change(text, random.Random(1)) == change(text, random.Random(1))

    def test_what_they_are(self) -> None:
        """Each is what it is called."""
        rng = random.Random(0)
        assert base64.b64decode(MADE["base64"]("tide", rng)) == b"tide"
        assert MADE["reversed"]("tide", rng) == "edit"
        assert MADE["atbash"]("Tide", rng) == "grwv"
        assert HELD_OUT["rot13"]("Tide", rng) == "Gvqr"
        assert HELD_OUT["hex"]("tide", rng).replace(" ", "") == "74696465"
        assert HELD_OUT["binary"]("ti", rng) == "01110100 01101001"
        assert sorted(MADE["soup"]("abcdef", rng).replace(" ", "")) == list("abcdef")


class TestUnits:
    """What is drawn."""

    def test_ordinary_units_come_from_all_files(self) -> None:
        """One unit a row, files in turn, until there are enough."""
        found = unfamiliar.ordinary(ROWS, random.Random(0), 16)
        topics = [topic for each in found for topic in TOPICS if topic in each.before + each.text]
        assert sorted(topics) == sorted(TOPICS * 2)
        assert {each.kind for each in found} == {ORDINARY}

    def test_strange_units_are_of_every_kind(self) -> None:
        """Languages and made kinds alike; some behind a prompt, some inside an answer."""
        found = unfamiliar.strange(ROWS, languages("train"), MADE, random.Random(0), 180)
        kinds = [each.kind for each in found]
        assert {kinds.count(kind) for kind in [*languages("train"), *MADE]} == {10}
        assert 0 < sum(bool(each.prompt) for each in found) < 180
        assert 0 < sum(bool(each.before) for each in found) < 180

    def test_folds_keep_a_kind_together(self) -> None:
        """So that calibration sees each kind as a fit without it does."""
        kinds = [ORDINARY, "de", "fr", "de", ORDINARY, "fr", "hex"] * 5
        folds = unfamiliar._folds(kinds, random.Random(0))
        for kind in ("de", "fr", "hex"):
            assert len({fold for fold, of in zip(folds, kinds, strict=True) if of == kind}) == 1
        assert len({f for f, of in zip(folds, kinds, strict=True) if of == ORDINARY}) > 1


class TestFit:
    """A fit on the bundled model, small."""

    def test_it_tells_apart_what_it_was_fitted_on(self, tmp_path: Path) -> None:
        """The numbers can be written and read, and a language scores above English."""
        classifier = Classifier(BUNDLED_MODEL)
        tokenizer = Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json"))
        numbers = unfamiliar.fit(classifier, tokenizer, ROWS, seed=3, units=36)
        runtime.write(tmp_path, numbers)
        scorer = runtime.read(tmp_path, lambda: classifier.digest, classifier.dimensions)
        assert scorer is not None

        def evidence(text: str) -> float:
            judged = classifier.judge("", text)
            return scorer.evidence(judged.windows, judged.embeddings)

        english = [evidence(row.response) for row in ROWS[::9]]
        other = [evidence(texts[0]) for texts in languages("train").values()]
        assert np.median(other) > 0 > np.median(english)
        assert max(english) < min(other)

    def test_the_plane_is_right_angled(self) -> None:
        """Directions have length 1 and none lies along another."""
        rng = np.random.default_rng(0)
        empty: dict[str, Any] = dict.fromkeys(
            ("flags", "surprise", "pairs", "ordinary"), np.zeros(1)
        )
        numbers = unfamiliar._placed(empty, rng.normal(size=(80, 12)).astype(np.float32))
        plane = numbers.plane.astype(float)
        assert plane @ plane.T == pytest.approx(np.eye(len(plane)), abs=5e-3)
