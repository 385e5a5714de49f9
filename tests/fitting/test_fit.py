"""Fitting: what the head learns, what it promises, and what it says about its examples."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.errors import ConfigurationError, ModelError
from guard.fitting import benign, check_name, make_head, sample_of
from guard.fitting.bags import Bag, bags, near_copies
from guard.fitting.benign import Benign
from guard.fitting.examples import Example
from guard.fitting.fit import FEWEST, _folds
from guard.heads import TOLL

if TYPE_CHECKING:
    from pathlib import Path

    from guard.detectors.classifier import Classifier
    from guard.heads import OwnHead

RIVAL = ("rival", "cheaper", "charge", "they")
HARBOUR = ("boat", "harbour", "lamp", "crate", "pier", "rope", "tide", "mate")
FEW = settings(max_examples=12, deadline=None)


def text(rng: random.Random, words: tuple[str, ...]) -> str:
    """Return a text of words that the tiny model knows."""
    return " ".join([*rng.choices(words, k=3), *rng.choices(HARBOUR, k=6)])


def examples(count: int = 24, seed: int = 0, negatives: int = 24) -> list[Example]:
    """Return texts with the words of a rival, and texts with those of a harbour alone."""
    rng = random.Random(seed)
    found = {text(rng, RIVAL): True for _ in range(count)}
    found |= {text(rng, ("price", "plan", "seat")): False for _ in range(negatives)}
    return [Example(t, positive=p, line=n) for n, (t, p) in enumerate(found.items(), start=1)]


def sample(classifier: Classifier, seed: int = 1, units: int = 120) -> Benign:
    """Return embeddings of harbour texts."""
    rng = random.Random(seed)
    texts = [text(rng, HARBOUR) for _ in range(units)]
    found = [classifier.judge("", t).embeddings for t in texts]
    rows = np.concatenate([given for given in found if given is not None])
    return Benign(rows.astype(np.float64), np.zeros(len(rows), bool))


def logit(head: OwnHead, classifier: Classifier, words: str) -> float:
    """Return a head's logit for a text of one window."""
    judged = classifier.judge("", words)
    assert judged.embeddings is not None
    return float((judged.embeddings @ np.array(head.weights) + head.intercept).max())


def evidence(head: OwnHead, classifier: Classifier, words: str) -> float:
    """Return a head's evidence for a text of one window."""
    return head.calibration.evidence(logit(head, classifier, words))


def asked(rows: list[Example], of_it: str, others: str) -> list[Example]:
    """Return the rows with a prompt a side; `{}` in it stands for the row's line."""
    return [
        replace(row, prompt=(of_it if row.positive else others).format(row.line)) for row in rows
    ]


def bag(line: int, copies: int, group: int, *, positive: bool) -> Bag:
    """Return a bag without units."""
    none = np.empty((0, 1))
    return Bag(none, none, positive, copies, group, None, f"{line:04}", line)


@st.composite
def many_bags(draw: st.DrawFn) -> list[Bag]:
    """Return bags with enough different texts of either side, however they hang together."""
    copies = st.integers(0, 15)
    sides = [draw(st.sets(copies, min_size=FEWEST)) for _ in range(2)]
    known = [(side, number) for side in (0, 1) for number in sides[side]]
    again = draw(st.lists(st.sampled_from(known), max_size=20))
    order = draw(st.permutations([*known, *again]))
    group_of = draw(st.lists(st.integers(0, 15), min_size=16, max_size=16))
    return [
        bag(line, number, group_of[number], positive=side == 1)
        for line, (side, number) in enumerate(order)
    ]


@pytest.fixture(scope="module")
def ordinary(tiny: Classifier) -> Benign:
    """Return a benign sample of the tiny model."""
    return sample(tiny)


@pytest.fixture(scope="module")
def head(tiny: Classifier, ordinary: Benign) -> OwnHead:
    """Return a head for talk of rivals."""
    return make_head(tiny, "rival_talk", examples(), sample=ordinary)


class TestLearning:
    """What a head tells apart."""

    def test_unseen_texts(self, head: OwnHead, tiny: Classifier) -> None:
        """Texts of the category that no row held are above texts that are not."""
        rng = random.Random(99)
        of_it = [evidence(head, tiny, text(rng, RIVAL)) for _ in range(30)]
        others = [evidence(head, tiny, text(rng, HARBOUR)) for _ in range(30)]
        assert min(of_it) > 1
        assert max(others) < -1

    def test_later_units_cost(self, head: OwnHead) -> None:
        """A new head takes a toll, so that long answers have no more alarms for being long."""
        assert head.toll == TOLL

    def test_without_a_sample(self, tiny: Classifier) -> None:
        """A model without a benign sample learns from the rows alone."""
        alone = make_head(tiny, "rival_talk", examples(), sample=None)
        assert evidence(alone, tiny, "rival cheaper they") > 0
        assert evidence(alone, tiny, "plan price seat") < 0
        assert "auroc_benign" not in alone.figures
        assert alone.figures["auroc_own"]["value"] > 0.9

    def test_without_negatives(self, tiny: Classifier, ordinary: Benign) -> None:
        """Positive rows alone stand against the sample; that their topic may count is said."""
        alone = make_head(tiny, "rival_talk", examples(negatives=0), sample=ordinary)
        assert evidence(alone, tiny, "rival cheaper they boat lamp") > 0
        assert any("no text has label 0" in sentence for sentence in alone.advice)

    @FEW
    @given(seed=st.integers(0, 1000), questions=st.sampled_from([0, 5]))
    def test_the_order_of_the_rows_does_not_matter(
        self, seed: int, questions: int, tiny: Classifier, ordinary: Benign
    ) -> None:
        """Shuffled rows give the same head, to the last bit."""
        rows = examples(12, seed, 8)
        if questions:
            rows = [
                Example(row.text, row.positive, f"boat {n % questions}", row.line)
                for n, row in enumerate(rows)
            ]
        one = make_head(tiny, "rival_talk", rows, sample=ordinary)
        random.Random(seed).shuffle(rows)
        assert make_head(tiny, "rival_talk", rows, sample=ordinary) == one

    def test_whether_there_is_a_prompt_is_not_learned(
        self, tiny: Classifier, ordinary: Benign
    ) -> None:
        """Positive rows without and negative rows with a prompt do not make one the sign."""
        rows = [
            Example(row.text, row.positive, "" if row.positive else "boat", row.line)
            for row in examples()
        ]
        head = make_head(tiny, "rival_talk", rows, sample=ordinary)
        assert evidence(head, tiny, "they charge cheaper rival") > 0
        assert evidence(head, tiny, "lamp crate pier") < 0

    def test_long_texts(self, tiny: Classifier, ordinary: Benign) -> None:
        """Of an answer of many units each is looked at, and long examples are advised against."""
        rng = random.Random(5)

        def filler() -> str:
            return " ".join(f"word{rng.randrange(10**6)} {rng.choice(HARBOUR)}." for _ in range(40))

        rows = [
            replace(row, text=f"{filler()} {row.text}. {filler()}") if row.positive else row
            for row in examples()
        ]
        found = bags(tiny, rows, lambda: None)
        assert all((len(bag.units) > 4) == bag.positive for bag in found)
        head = make_head(tiny, "rival_talk", rows, sample=ordinary)
        assert any("keep the passages" in sentence for sentence in head.advice)


class TestQuestions:
    """Rows that share prompts."""

    @pytest.mark.parametrize(
        ("of_it", "others"),
        [
            ("boat", "harbour {}"),
            ("boat {}", "harbour"),
            ("boat", "boat"),
            ("boat", "harbour"),
        ],
    )
    @pytest.mark.parametrize("count", [12, 5])
    def test_a_shared_one_leaves_no_fold_without_a_side(
        self, of_it: str, others: str, count: int, tiny: Classifier, ordinary: Benign
    ) -> None:
        """Whoever answers one question, held-out scores come from fits that saw both sides."""
        rows = asked(examples(count, negatives=70), of_it, others)
        head = make_head(tiny, "rival_talk", rows, sample=ordinary)
        assert head.figures["folds"] == 5
        assert head.figures["auroc_own"]["value"] > 0.9
        assert head.calibration.maximum > 1
        assert not any("check the labels" in sentence for sentence in head.advice)

    def test_a_chain_of_questions_and_near_copies(self, tiny: Classifier, ordinary: Benign) -> None:
        """Pairs whose negatives are near copies would be one group: they are parted."""
        refusal = "the mate will not speak of what any other pier may charge"
        rows = [row for row in examples(12) if row.positive]
        rows += [
            Example(f"{refusal} {row.line}", positive=False, line=100 + row.line) for row in rows
        ]
        rows = [replace(row, prompt=f"boat {row.line % 100}") for row in rows]
        assert len({bag.group for bag in bags(tiny, rows, lambda: None)}) == 1
        head = make_head(tiny, "rival_talk", rows, sample=ordinary)
        assert head.figures["folds"] == 5
        assert head.calibration.maximum > 1
        assert any("a single text has label 0" in sentence for sentence in head.advice)

    @pytest.mark.parametrize(
        ("of_it", "others"),
        [("price offer", "plan seat"), ("price offer", "plan {}"), ("price {}", "plan seat")],
    )
    def test_they_are_not_taken_for_the_category(
        self, of_it: str, others: str, tiny: Classifier, ordinary: Benign
    ) -> None:
        """Labels by chance do not look learned because one side answers one question."""
        rng = random.Random(8)
        rows = [Example(text(rng, HARBOUR), positive=n % 2 == 0, line=n + 1) for n in range(40)]
        head = make_head(tiny, "noise", asked(rows, of_it, others), sample=ordinary)
        assert head.figures["auroc_own"]["value"] < 0.8
        assert head.calibration.maximum < 2
        assert any("may learn the question" in sentence for sentence in head.advice)

    def test_an_even_one_costs_nothing(self, tiny: Classifier, ordinary: Benign) -> None:
        """A question that every row answers changes hardly anything."""
        plain, even = (
            make_head(tiny, "rival_talk", asked(examples(), q, q), sample=ordinary)
            for q in ("", "boat")
        )
        assert even.calibration.maximum == pytest.approx(plain.calibration.maximum, abs=0.3)
        assert not any("may learn the question" in sentence for sentence in even.advice)

    @given(found=many_bags(), sample=st.integers(0, 12))
    def test_every_fold_is_left_both_sides(self, found: list[Bag], sample: int) -> None:
        """Nothing is fitted without positives or negatives, and near copies stay together."""
        fold, count = _folds(found, sample)
        truth = np.array([*(bag.positive for bag in found), *[False] * sample])
        assert count == 5
        for number in range(count):
            left = truth[fold != number]
            assert left.any()
            assert not left.all()
        places = {(bag.copies, place) for bag, place in zip(found, fold.tolist(), strict=False)}
        assert len(places) == len({bag.copies for bag in found})


class TestPromises:
    """What evidence can be relied on for."""

    def test_more_rows_bear_more(self, tiny: Classifier, ordinary: Benign) -> None:
        """The bound of the evidence grows with the rows, and stays below the models' own."""
        small, large = (
            make_head(tiny, "rival_talk", examples(n), sample=ordinary).calibration for n in (8, 60)
        )
        assert 0 < small.maximum < large.maximum <= 8
        assert 0 > small.minimum > large.minimum >= -8

    @FEW
    @given(seed=st.integers(0, 1000))
    def test_labels_by_chance_bear_nothing(
        self, seed: int, tiny: Classifier, ordinary: Benign
    ) -> None:
        """Rows that are not of one kind give evidence too weak to act on, and say so."""
        rng = random.Random(seed)
        rows = [Example(text(rng, HARBOUR), positive=n % 2 == 0, line=n + 1) for n in range(40)]
        head = make_head(tiny, "noise", rows, sample=ordinary)
        assert head.calibration.maximum < 2
        assert any("bear evidence of at most" in sentence for sentence in head.advice)

    def test_copies_do_not_count_as_rows(self, tiny: Classifier, ordinary: Benign) -> None:
        """Near copies of a few texts bear no more than the few texts, and it is said."""
        rows = examples(6)
        copies = [
            Example(f"{row.text} {word}", positive=True, line=100 + n)
            for n, word in enumerate(("a", "b", "c"))
            for row in rows
            if row.positive
        ]
        few = make_head(tiny, "rival_talk", rows, sample=ordinary)
        many = make_head(tiny, "rival_talk", [*rows, *copies], sample=ordinary)
        assert many.figures["positives"] == 4 * few.figures["positives"]
        assert many.figures["different"] == few.figures["different"]
        assert many.calibration.maximum <= few.calibration.maximum + 0.5
        assert any("near copies" in sentence for sentence in many.advice)

    def test_the_figures_are_there(self, head: OwnHead) -> None:
        """Areas and recall come with intervals that hold them."""
        for name in ("auroc_own", "auroc_benign", "recall"):
            figure = head.figures[name]
            low, high = figure["interval"]
            assert 0 <= low <= figure["value"] <= high <= 1


class TestAdvice:
    """What is said about the examples."""

    def test_good_examples_need_none(self, tiny: Classifier) -> None:
        """Enough rows of both kinds that can be told apart: nothing to mend."""
        many = sample(tiny, units=500)
        found = make_head(tiny, "rival_talk", examples(60, 3, 60), sample=many).advice
        assert [sentence for sentence in found if "lines" not in sentence] == []

    def test_wrong_labels_are_pointed_at(self, tiny: Classifier, ordinary: Benign) -> None:
        """A row with the other side's words is named by its line."""
        rows = [*examples(), Example("rival rival they charge cheaper", positive=False, line=777)]
        head = make_head(tiny, "rival_talk", rows, sample=ordinary)
        assert any("777" in sentence for sentence in head.advice)


class TestProblems:
    """What cannot be fitted."""

    @pytest.mark.parametrize("count", [0, 1, 4])
    def test_too_few(self, count: int, tiny: Classifier, ordinary: Benign) -> None:
        """Below five different texts there is no head."""
        rows = [row for row in examples(count or 1) if count or not row.positive]
        with pytest.raises(ConfigurationError, match=f"^{count} different texts have label 1"):
            make_head(tiny, "rival_talk", rows, sample=ordinary)

    def test_near_copies_alone(self, tiny: Classifier, ordinary: Benign) -> None:
        """That texts are many but alike is named as the reason."""
        words = "they charge more than a rival of ours at the other pier would ever"
        rows = [Example(f"{words} {n}", positive=True, prompt="boat") for n in range(12)]
        with pytest.raises(ConfigurationError, match=r"^1 different texts .* \(11 more are near"):
            make_head(tiny, "rival_talk", [*rows, *examples(0)], sample=ordinary)

    @pytest.mark.parametrize("units", [0, 4])
    def test_a_sample_too_small_to_be_parted(
        self, units: int, tiny: Classifier, ordinary: Benign
    ) -> None:
        """It is as good as none."""
        few = Benign(ordinary.embeddings[:units], ordinary.prompted[:units])
        with pytest.raises(ConfigurationError, match="0 different texts have label 0"):
            make_head(tiny, "rival_talk", examples(negatives=0), sample=few)

    def test_one_side_alone(self, tiny: Classifier) -> None:
        """Without a sample negative rows are needed."""
        with pytest.raises(ConfigurationError, match="0 different texts have label 0"):
            make_head(tiny, "rival_talk", examples(negatives=0), sample=None)

    def test_no_embeddings(self, mute: Classifier) -> None:
        """A model without embeddings is refused with what it lacks."""
        with pytest.raises(ModelError, match="sentence_embedding"):
            make_head(mute, "rival_talk", examples(), sample=None)

    @pytest.mark.parametrize("name", ["sexual", "Rival", "", "rival-talk", "9lives", "a" * 49])
    def test_names(self, name: str) -> None:
        """A name is free and looks like a category's."""
        with pytest.raises(ConfigurationError):
            check_name(name)
        check_name("rival_talk")


class TestBags:
    """Examples as the classifier sees them."""

    def test_near_copies(self) -> None:
        """A word that is changed makes a near copy, another sentence does not."""
        one = "the mate counts the crates on the pier before the tide turns in the evening"
        found = near_copies([one, "quite another text about ropes", one.replace("crates", "ropes")])
        assert found[0] == found[2] != found[1]

    def test_answers_to_one_question_stay_together(self, tiny: Classifier) -> None:
        """They share a group, unless half of the rows have the same prompt."""
        rows = [
            Example(f"{word} {word} {n}", positive=True, prompt=prompt)
            for n, (word, prompt) in enumerate(
                zip(HARBOUR, ["a", "a", "b", "c", "d", "e", "f", "g"], strict=True)
            )
        ]
        found = {bag.key: bag.group for bag in bags(tiny, rows, lambda: None)}
        assert len(set(found.values())) == 7
        common = [Example(row.text, row.positive, "the same") for row in rows]
        assert len({bag.group for bag in bags(tiny, common, lambda: None)}) == 8

    def test_what_one_side_shares_binds_nothing(self, tiny: Classifier) -> None:
        """A question is common where much of one side answers it, rare as that side may be."""
        rows = asked(examples(5, negatives=60), "boat", "harbour {}")
        found = bags(tiny, rows, lambda: None)
        assert len({bag.group for bag in found if bag.positive}) == 5
        assert len({bag.question for bag in found if bag.positive}) == 1

    def test_each_is_reported(self, tiny: Classifier) -> None:
        """Progress is told once an example."""
        told: list[Any] = []
        bags(tiny, examples(5), lambda: told.append(1))
        assert len(told) == len(examples(5))


class TestSample:
    """The benign sample's file."""

    def test_it_comes_back(self, tiny: Classifier, ordinary: Benign, tmp_path: Path) -> None:
        """Eight bits keep every number to half a step, and the same sample the same bytes."""
        benign.write(tmp_path, ordinary, tiny.digest)
        first = (tmp_path / benign.FILE).read_bytes()
        found = sample_of(tmp_path, tiny)
        assert found is not None
        spread = np.abs(ordinary.embeddings - ordinary.embeddings.mean(axis=0)).max(axis=0)
        assert (np.abs(found.embeddings - ordinary.embeddings) <= spread / 127 + 1e-6).all()
        assert (found.prompted == ordinary.prompted).all()
        benign.write(tmp_path, ordinary, tiny.digest)
        assert (tmp_path / benign.FILE).read_bytes() == first

    def test_there_may_be_none(self, tiny: Classifier, tmp_path: Path) -> None:
        """A model of one's own has none."""
        assert sample_of(tmp_path, tiny) is None

    def test_of_another_model(self, tiny: Classifier, ordinary: Benign, tmp_path: Path) -> None:
        """Embeddings of another model are refused, and the command that mends it is named."""
        benign.write(tmp_path, ordinary, "another")
        with pytest.raises(ModelError, match=r"guard\.training\.benign"):
            sample_of(tmp_path, tiny)

    @pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
    def test_a_damaged_file(self, content: bytes, tiny: Classifier, tmp_path: Path) -> None:
        """What is no archive is an error of ours."""
        (tmp_path / benign.FILE).write_bytes(content)
        with pytest.raises(ModelError, match="cannot be used"):
            sample_of(tmp_path, tiny)
