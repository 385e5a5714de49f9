"""A head: its file, its evidence, and its place in the classifier's pass."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.detectors.base import Passage
from guard.detectors.classifier import TOLLED, Classifier, _OwnHeads, own_pooling
from guard.detectors.pooling import Pool
from guard.errors import ModelError
from guard.heads import MAXIMUM_EVIDENCE, TOLL, BelongsTo, HeadCalibration, OwnHead, read

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NUMBERS = st.floats(-1e6, 1e6)
CALIBRATIONS = st.builds(
    HeadCalibration,
    slope=st.floats(1e-3, 1e3),
    intercept=NUMBERS,
    minimum=st.floats(-MAXIMUM_EVIDENCE, 0),
    maximum=st.floats(0, MAXIMUM_EVIDENCE),
)
HEADS = st.builds(
    OwnHead,
    category=st.from_regex(r"\Aown_[a-z0-9_]{1,20}\Z"),
    model=st.builds(BelongsTo, name=st.text(), version=st.text(), digest=st.text()),
    weights=st.lists(NUMBERS, min_size=1, max_size=20).map(tuple),
    intercept=NUMBERS,
    calibration=CALIBRATIONS,
    toll=st.floats(0, MAXIMUM_EVIDENCE),
    advice=st.lists(st.text(), max_size=2).map(tuple),
)
PLAIN = HeadCalibration(slope=1.0, intercept=0.0, minimum=-5.0, maximum=5.0)


def head_for(classifier: Classifier, category: str = "rival_talk", **changes: Any) -> OwnHead:
    """Return a head that gives 2 for each `rival` and takes 1 for each `boat`."""
    weights = np.zeros(classifier.dimensions)
    weights[0], weights[8] = 2.0, -1.0
    values: dict[str, Any] = {
        "category": category,
        "model": BelongsTo(name="tiny", version="1", digest=classifier.digest),
        "weights": tuple(weights.tolist()),
        "intercept": 0.0,
        "calibration": PLAIN,
    }
    return OwnHead(**(values | changes))


class TestEvidence:
    """From a logit to evidence."""

    @given(calibration=CALIBRATIONS, one=NUMBERS, other=NUMBERS)
    def test_it_never_falls(self, calibration: HeadCalibration, one: float, other: float) -> None:
        """A higher logit never means less evidence, and the bounds hold."""
        low, high = (calibration.evidence(logit) for logit in sorted((one, other)))
        assert calibration.minimum <= low <= high <= calibration.maximum

    def test_what_is_no_number_stays_none(self) -> None:
        """NaN is not turned into evidence: the engine takes it for a failure."""
        assert math.isnan(PLAIN.evidence(math.nan))

    @pytest.mark.parametrize("logit", [math.inf, -math.inf])
    def test_a_logit_that_overflowed_is_no_evidence(self, logit: float) -> None:
        """It says nothing, and least of all that a text is fine."""
        assert math.isnan(PLAIN.evidence(logit))

    def test_a_head_without_an_embedding_gives_no_all_clear(self) -> None:
        """What could not be scored is NaN and not left out."""
        head = OwnHead(
            category="rival_talk",
            model=BelongsTo(name="tiny", version="1", digest="d"),
            weights=(1.0,),
            intercept=0.0,
            calibration=PLAIN,
        )
        ((category, evidence),) = _OwnHeads([head]).evidence(None)
        assert category == "rival_talk"
        assert math.isnan(evidence)


class TestLength:
    """Answers of many units."""

    @given(units=st.integers(1, TOLLED), limit=st.floats(1.0, 5.0))
    def test_false_alarms_grow_with_the_log(self, units: int, limit: float) -> None:
        """Where evidence is as likely as it may be in ordinary text, that is what is over it."""
        tolls = -own_pooling(TOLL).running(np.zeros(units))
        assert np.exp(-limit - tolls).sum() <= math.exp(-limit) * (1 + math.log(units)) + 1e-12


class TestFile:
    """The file of a head."""

    @given(head=HEADS)
    def test_it_comes_back(self, head: OwnHead, tmp_path_factory: pytest.TempPathFactory) -> None:
        """What is written is read, to the last bit."""
        path = tmp_path_factory.mktemp("heads") / "head.json"
        head.write(path)
        assert read(path) == head
        assert read(path).digest == head.digest

    def test_the_digest_is_of_what_is_scored(self, tiny: Classifier) -> None:
        """Other weights change the digest, other advice does not."""
        head = head_for(tiny)
        assert head_for(tiny, advice=("Write more.",)).digest == head.digest
        assert head_for(tiny, intercept=0.1).digest != head.digest
        assert head_for(tiny, toll=1.0).digest != head.digest

    def test_a_place_that_cannot_be_written(self, tiny: Classifier, tmp_path: Path) -> None:
        """A folder that is not there is an error that names the file."""
        with pytest.raises(ModelError, match="cannot be written"):
            head_for(tiny).write(tmp_path / "missing" / "head.json")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        """The file is named."""
        with pytest.raises(ModelError, match=r"gone\.json` cannot be read"):
            read(tmp_path / "gone.json")

    @pytest.mark.parametrize("content", ["[]", "{}", '{"kind": "policy"}', "7"])
    def test_something_else(self, content: str, tmp_path: Path) -> None:
        """JSON of another kind is no head."""
        path = tmp_path / "head.json"
        path.write_text(content, "utf-8")
        with pytest.raises(ModelError, match="is no head: make one with `guard model fit`"):
            read(path)

    @pytest.mark.parametrize("content", [b"{", b"\xff", b'{"kind": ' + b"[" * 100_000])
    def test_no_json(self, content: bytes, tmp_path: Path) -> None:
        """What cannot be parsed is an error of ours."""
        path = tmp_path / "head.json"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="is not JSON"):
            read(path)

    def test_too_large(self, tmp_path: Path) -> None:
        """A file that is far too large is not read on."""
        path = tmp_path / "head.json"
        path.write_bytes(b" " * 1_000_001)
        with pytest.raises(ModelError, match="larger than"):
            read(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weights": []}, "`weights` is empty"),
            ({"weights": [1.0, math.nan]}, "`weights.1` must be a finite number"),
            ({"weights": ["1"]}, "`weights.0` must be a number"),
            ({"weights": [1e308]}, r"`weights.0` must be at most 1e\+100"),
            ({"intercept": -1e308}, r"`intercept` must be at least -1e\+100"),
            ({"colour": 1}, "`colour` unknown key"),
            ({"format": 2}, "`format` must be 1, not `2`"),
            ({"category": "sexual"}, "is a category already"),
            ({"category": "Own"}, "`category` must not be"),
            ({"calibration": PLAIN.model_dump() | {"slope": 0.0}}, "`calibration.slope` must be"),
            ({"calibration": PLAIN.model_dump() | {"maximum": 9.0}}, "`calibration.maximum` must"),
            ({"calibration": PLAIN.model_dump() | {"minimum": 1.0}}, "`calibration.minimum` must"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, change: dict[str, Any], message: str, tiny: Classifier, tmp_path: Path
    ) -> None:
        """Each wrong value is refused by its place."""
        path = tmp_path / "head.json"
        value = head_for(tiny).model_dump(mode="json") | change
        path.write_text(json.dumps(value), "utf-8")
        with pytest.raises(ModelError, match=message):
            read(path)


class TestInTheClassifier:
    """Heads in the classifier's pass."""

    def test_they_are_categories(self, tiny: Classifier, tiny_path: Path) -> None:
        """A head's category stands behind the model's own, and in the version."""
        head = head_for(tiny)
        classifier = Classifier(tiny_path, verify=False, heads=[head])
        assert classifier.categories == ("harassment", "rival_talk")
        assert classifier.version == f"{tiny.version}+rival_talk.{head.digest}"

    def test_the_evidence_is_the_heads(self, tiny: Classifier, tiny_path: Path) -> None:
        """Weights, intercept and calibration decide; the finding spans the unit."""
        head = head_for(tiny, intercept=0.5)
        classifier = Classifier(tiny_path, verify=False, heads=[head])
        text = "boat . rival rival boat"
        own = [f for f in classifier(Passage(text, start=7)) if f.category == "rival_talk"]
        # The context counts, too: one `boat` more.
        assert [finding.evidence for finding in own] == [pytest.approx(2 * 2 - 2 + 0.5)]
        assert (own[0].start, own[0].end, own[0].localised) == (7, len(text), False)

    def test_the_models_own_evidence_stays(self, tiny: Classifier, tiny_path: Path) -> None:
        """With and without heads the model's own labels get the same evidence."""
        classifier = Classifier(tiny_path, verify=False, heads=[head_for(tiny)])
        passage = Passage("rival boat tide")
        alone, beside = tiny(passage), classifier(passage)
        assert [f.evidence for f in alone] == [f.evidence for f in beside[: len(alone)]]

    def test_one_pass(
        self, tiny: Classifier, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Heads cost no further run of the graph."""
        heads = [head_for(tiny, name) for name in ("one", "two", "three")]
        classifier = Classifier(tiny_path, verify=False, heads=heads)
        run = classifier._graph.run
        windows: list[int] = []

        def counted(ids: NDArray[np.int64], types: NDArray[np.int64]) -> Any:
            windows.append(len(ids))
            return run(ids, types)

        monkeypatch.setattr(classifier._graph, "run", counted)
        assert len(classifier(Passage("rival boat"))) == 4
        assert windows == [4]

    def test_the_highest_window_counts(self, tiny: Classifier, tiny_path: Path) -> None:
        """In a text of several windows the one that shows the category decides."""
        classifier = Classifier(tiny_path, verify=False, heads=[head_for(tiny)])
        text = "tide " * 400 + "rival rival " + "tide " * 400
        assert len(classifier.judge("", text).windows) > 3
        (_, own) = classifier(Passage(text))
        assert own.evidence == pytest.approx(4.0)

    def test_later_units_count_for_less(self, tiny: Classifier, tiny_path: Path) -> None:
        """A unit's evidence is lowered by the log of its place, and by no more from some on."""
        classifier = Classifier(tiny_path, verify=False, heads=[head_for(tiny, toll=1.0)])
        pool, found = Pool({classifier.name: classifier.pooling}), []
        findings = [f for f in classifier(Passage("rival")) if f.category == "rival_talk"]
        for _ in range(TOLLED + 8):
            found.append(pool.pooled(findings)[0].evidence)
            pool = pool.after(findings)
        places = np.minimum(np.arange(1, TOLLED + 9), TOLLED)
        assert found == pytest.approx(findings[0].evidence - np.log(places))

    def test_a_file_without_a_toll(self, tiny: Classifier, tiny_path: Path) -> None:
        """A head that says nothing of it has every unit count alike."""
        classifier = Classifier(tiny_path, verify=False, heads=[head_for(tiny)])
        running = classifier.pooling["rival_talk"].running(np.ones(30))
        assert running.tolist() == [1.0] * 30

    def test_prompts_are_not_judged(self, tiny: Classifier, tiny_path: Path) -> None:
        """Own categories are of responses."""
        classifier = Classifier(tiny_path, verify=False, heads=[head_for(tiny)])
        assert classifier(Passage("rival", side="prompt")) == []

    def test_a_head_of_another_model(self, tiny: Classifier, other: Classifier) -> None:
        """It is refused, and the message says how to mend it."""
        head = head_for(other)
        path = tiny._model.graph.parent
        with pytest.raises(ModelError, match=r"make it anew .*--category rival_talk"):
            Classifier(path, verify=False, heads=[head])

    def test_a_head_of_another_length(self, tiny: Classifier, tiny_path: Path) -> None:
        """Weights that do not fit the embedding are refused, whatever the digest says."""
        with pytest.raises(ModelError, match="make it anew"):
            Classifier(tiny_path, verify=False, heads=[head_for(tiny, weights=(1.0,))])

    def test_two_of_one_name(self, tiny: Classifier, tiny_path: Path) -> None:
        """Two heads of one category are refused; so is one that the model has itself."""
        with pytest.raises(ModelError, match="two heads find `rival_talk`"):
            Classifier(tiny_path, verify=False, heads=[head_for(tiny), head_for(tiny)])
        with pytest.raises(ModelError, match="two heads find `harassment`"):
            Classifier(tiny_path, verify=False, heads=[head_for(tiny, "harassment")])

    def test_a_model_without_embeddings(self, tiny: Classifier, mute: Classifier) -> None:
        """It takes no heads, and says what it lacks."""
        assert mute.dimensions == 0
        assert mute.judge("", "rival").embeddings is None
        with pytest.raises(ModelError, match="sentence_embedding"):
            Classifier(mute._model.graph.parent, verify=False, heads=[head_for(tiny)])


class TestDigest:
    """What a head belongs to."""

    def test_it_is_of_the_model(self, tiny: Classifier, other: Classifier, tiny_path: Path) -> None:
        """The same files have the same digest, another graph has another."""
        assert Classifier(tiny_path, verify=False).digest == tiny.digest
        assert other.digest != tiny.digest

    def test_a_calibration_changes_nothing(
        self, tiny: Classifier, tiny_path: Path, tmp_path: Path
    ) -> None:
        """Embeddings do not depend on it, so heads outlive a new calibration."""
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in tiny_path.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        labels = {"harassment": {"slope": 2.0, "intercept": 1.0, "maximum": 3.0}}
        (copy / "calibration.json").write_text(json.dumps({"labels": labels}), "utf-8")
        assert Classifier(copy, verify=False).digest == tiny.digest
