"""The classifier: the bundled model's contract, and any exported text classifier of one's own.

The models of one's own are real ONNX graphs, built here: a table of scores per word and
label, summed over a window's tokens. So every logit is known, and a token that no window
holds would be missed.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel

from guard.categories import CATEGORIES
from guard.detectors import classifier as module
from guard.detectors.base import Detector, Finding, Passage
from guard.detectors.classifier import Classifier
from guard.detectors.model_directory import (
    ONNX_FILES,
    UNCALIBRATED_LIMIT,
    Calibration,
    verify_hashes,
)
from guard.detectors.pooling import CLOSING
from guard.errors import ModelError
from guard.loading import BUNDLED_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Build = Callable[..., Path]

WORDS = ("rude", "vile", "kind", "sweet", "boat", "harbour")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")

SCORES: Mapping[str, Sequence[float]] = {
    "rude": (3.0, 0.0, -1.0),
    "vile": (1.0, 2.5, -1.0),
    "kind": (-2.0, -2.0, 2.0),
}
"""What each word adds to the three labels' logits; other words add nothing."""

THREE = ("harassment", "hate_toxicity", "refusal")
MULTI = {"problem_type": "multi_label_classification"}


def log_odds_of(logits: Sequence[float], index: int) -> float:
    """Return the log-odds of one label against all others."""
    others = [math.exp(value) for i, value in enumerate(logits) if i != index]
    return logits[index] - math.log(sum(others))


@dataclass
class Graph:
    """How an exported graph looks.

    Attributes:
        special: special tokens, first in the vocabulary.
        inputs: name and element type of each input.
        output: the name of the logits.
        before: an output that stands before them, `""` for none.
        positions: rows of the position table and the first row used, `None` for no table.
        length: the fixed number of tokens, `None` for any.
        scores: per word and label.
    """

    special: Sequence[str] = BERT
    inputs: Mapping[str, int] = field(
        default_factory=lambda: dict.fromkeys(["input_ids", "attention_mask"], TensorProto.INT64)
    )
    output: str = "logits"
    before: str = ""
    positions: tuple[int, int] | None = None
    length: int | None = None
    scores: Mapping[str, Sequence[float]] = field(default_factory=lambda: SCORES)

    def model(self) -> onnx.ModelProto:
        """Return the graph: look up, mask, add positions, sum over the tokens."""
        shape = [1, self.length or "tokens"]
        given = [helper.make_tensor_value_info(n, t, shape) for n, t in self.inputs.items()]
        nodes = [helper.make_node("Gather", ["table", "input_ids"], ["looked_up"])]
        last = "looked_up"
        for name in self.inputs:
            if name != "input_ids":
                nodes += self._used(name, last)
                last = f"{name}_done"
        if self.positions is not None:
            nodes += self._positioned(last)
            last = "positioned"
        nodes.append(helper.make_node("ReduceSum", [last, "axis"], [self.output], keepdims=0))
        outputs = [(self.output, ["batch", "labels"])]
        if self.before:
            nodes.append(helper.make_node("Identity", [last], [self.before]))
            outputs.insert(0, (self.before, ["batch", "tokens", "labels"]))
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs]
        graph = helper.make_graph(nodes, "tiny", given, values, self._tables())
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9)

    def _used(self, name: str, last: str) -> list[onnx.NodeProto]:
        """Return nodes that use an input: the mask hides tokens, the others change nothing."""
        nodes = [
            helper.make_node("Cast", [name], [f"{name}_cast"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{name}_cast", "last_axis"], [f"{name}_wide"]),
        ]
        if name == "attention_mask":
            return [*nodes, helper.make_node("Mul", [last, f"{name}_wide"], [f"{name}_done"])]
        return [
            *nodes,
            helper.make_node("Mul", [f"{name}_wide", "nothing"], [f"{name}_zero"]),
            helper.make_node("Add", [last, f"{name}_zero"], [f"{name}_done"]),
        ]

    def _positioned(self, last: str) -> list[onnx.NodeProto]:
        """Return nodes that look positions up, which fails beyond the table's end."""
        return [
            helper.make_node("Shape", ["input_ids"], ["count"], start=1),
            helper.make_node("Squeeze", ["count"], ["end"]),
            helper.make_node("Range", ["zero", "end", "one"], ["places"]),
            helper.make_node("Add", ["places", "first"], ["shifted"]),
            helper.make_node("Gather", ["position_table", "shifted"], ["position_scores"]),
            helper.make_node("Add", [last, "position_scores"], ["positioned"]),
        ]

    def _tables(self) -> list[onnx.TensorProto]:
        labels = len(next(iter(self.scores.values())))
        table = np.zeros((len(self.special) + len(WORDS), labels), np.float32)
        for word, scores in self.scores.items():
            table[len(self.special) + WORDS.index(word)] = scores
        rows, first = self.positions or (1, 0)
        tables = {
            "table": table,
            "axis": np.array([1]),
            "last_axis": np.array([2]),
            "nothing": np.array(0, np.float32),
            "zero": np.array(0),
            "one": np.array(1),
            "first": np.array(first),
            "position_table": np.zeros((rows, labels), np.float32),
        }
        return [numpy_helper.from_array(value, name) for name, value in tables.items()]


def tokenizer_for(special: Sequence[str]) -> Tokenizer:
    """Return a tokenizer of whole words with the template that goes with its special tokens."""
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    unknown = next(token for token in special if "unk" in token.lower())
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    first, last = ("[CLS]", "[SEP]") if special == BERT else ("<s>", "</s>")
    ends = ((last, vocabulary[last]), (first, vocabulary[first]))
    kind = processors.BertProcessing if special == BERT else processors.RobertaProcessing
    tokenizer.post_processor = kind(*ends)
    return tokenizer


def seal(path: Path, **facts: Any) -> None:
    """Write a manifest of all files."""
    files = {
        file.relative_to(path).as_posix(): {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }
    content = {"name": path.name, "version": "7", "files": files} | facts
    (path / "manifest.json").write_text(json.dumps(content), "utf-8")


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return a function that writes a model's directory, without a manifest."""

    def write(
        labels: Sequence[str] = THREE,
        graph: Graph | None = None,
        *,
        calibration: Any = None,
        file: str = "onnx/model.onnx",
        **config: Any,
    ) -> Path:
        path = tmp_path / "tiny"
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        graph = graph or Graph()
        onnx.save(graph.model(), str(path / file))
        tokenizer_for(graph.special).save(str(path / "tokenizer.json"))
        names = {str(index): label for index, label in enumerate(labels)}
        values = {"id2label": names, "model_type": "bert", **MULTI} | config
        given = {key: value for key, value in values.items() if value is not None}
        (path / "config.json").write_text(json.dumps(given), "utf-8")
        if calibration is not None:
            (path / "calibration.json").write_text(json.dumps(calibration), "utf-8")
        return path

    return write


def own(path: Path, **arguments: Any) -> Classifier:
    """Return a classifier over a directory that nobody sealed."""
    return Classifier(path, verify=False, **arguments)


def evidence(classifier: Classifier, text: str, **passage: Any) -> dict[str, float]:
    """Return the evidence per category."""
    return {f.category: f.evidence for f in classifier(Passage(text, **passage))}


def problems(path: Path, **arguments: Any) -> list[str]:
    """Return what is wrong with a directory, its path left out."""
    with pytest.raises(ModelError) as caught:
        Classifier(path, **arguments)
    return [problem.replace(str(path), "M") for problem in caught.value.problems]


@pytest.fixture(scope="module")
def bundled() -> Classifier:
    """Return the model that comes with the package."""
    return Classifier(BUNDLED_MODEL)


BENIGN = "Rinse the rice twice, then let it rest for ten minutes before you lift the lid. "
GRIM = "You are worthless, nobody could ever like you, and I hate all of your kind. "


class TestBundled:
    """What the bundled model promises, whatever it has learnt."""

    def test_is_a_detector_of_known_categories(self, bundled: Classifier) -> None:
        """It fits the protocol, has a version, and declares categories of the taxonomy."""
        assert isinstance(bundled, Detector)
        assert bundled.name == "clearance-minilm"
        assert bundled.version
        assert not bundled.version.startswith("unverified")
        assert set(bundled.categories) <= set(CATEGORIES)
        assert set(bundled.experimental) <= set(bundled.categories)

    @pytest.mark.parametrize("side", ["response", "prompt"])
    def test_it_answers_for_each_category_of_a_side(self, bundled: Classifier, side: Any) -> None:
        """Each category of the passage's side has one finding, over the unit, and no other has."""
        text = BENIGN * 3
        findings = bundled(Passage(text, 10, 60, side=side))
        expected = [name for name in bundled.categories if CATEGORIES[name].side == side]
        assert [finding.category for finding in findings] == expected
        assert {(f.start, f.end, f.localised) for f in findings} == {(10, 60, False)}
        assert {(f.detector, f.version) for f in findings} == {(bundled.name, bundled.version)}
        assert all(math.isfinite(f.evidence) for f in findings)

    def test_a_model_that_is_used_for_prompts_alone_still_says_what_is_unfamiliar(self) -> None:
        """A category that it declares is judged although no label is about responses."""
        classifier = Classifier(BUNDLED_MODEL, labels={"jailbreak": "jailbreak"})
        assert classifier.categories == ("jailbreak", "unfamiliar")
        assert [f.category for f in classifier(Passage(BENIGN))] == ["unfamiliar"]

    def test_behind_the_last_unit_it_reads_the_whole(self, bundled: Classifier) -> None:
        """The closing read adds a finding over the unit for each category that wants one."""
        text = BENIGN * 3
        start = 2 * len(BENIGN)
        alone = bundled(Passage(text, start))
        findings = bundled(Passage(text, start, closing=text))
        assert findings[: len(alone)] == alone
        added = findings[len(alone) :]
        wanted = [h for h in bundled._heads if h.pooling.closing]
        assert [f.category for f in added] == [head.category for head in wanted]
        assert {(f.label, f.start, f.end) for f in added} == {(CLOSING, start, len(text))}
        logits = bundled.closing("", text)
        assert logits is not None
        assert [f.evidence for f in added] == [
            head.calibration.evidence(float(logits[head.index])) for head in wanted
        ]

    def test_what_comes_later_is_not_read(self, bundled: Classifier) -> None:
        """The look-ahead is for other detectors."""
        end = len(BENIGN)
        assert evidence(bundled, BENIGN + GRIM, end=end) == evidence(bundled, BENIGN)

    def test_prompt_and_context_are_read(self, bundled: Classifier) -> None:
        """The same unit has other scores behind another prompt, and behind other text."""
        plain = bundled.logits("", BENIGN).tolist()
        assert bundled.logits("How do I cook rice?", BENIGN).tolist() != plain
        assert bundled.logits("", GRIM + BENIGN).tolist() != plain

    def test_the_end_of_a_long_text_counts(self, bundled: Classifier) -> None:
        """Of 5,000 characters no window is left out: the last sentence changes the scores."""
        long = BENIGN * 63
        assert len(long) > 5000
        with_grim, with_benign = (bundled.logits("", long + last) for last in (GRIM, BENIGN))
        assert with_grim.tolist() != with_benign.tolist()

    def test_a_long_text_is_never_milder_than_its_parts(self, bundled: Classifier) -> None:
        """Each label has the highest score of all windows."""
        text = BENIGN * 40 + GRIM + BENIGN * 40
        encoded = bundled._encoder.encode("", text)
        assert len(encoded) > 5
        passes = [bundled._graph.run(window.ids, window.types) for window in encoded]
        each = np.stack([given.logits for given in passes])
        assert bundled.logits("", text).tolist() == each.max(axis=0).tolist()

    def test_a_format_hides_nothing(self, bundled: Classifier) -> None:
        """Grim words in JSON, in tags or in a log score at least as high as bare ones nearly do."""
        sentences = [sentence + "." for sentence in (GRIM * 4).split(".") if sentence.strip()]
        plain = evidence(bundled, " ".join(sentences))["harassment"]
        for text in (
            "".join(f'<li class="x{n}"><b>{s}</b></li>' for n, s in enumerate(sentences)),
            json.dumps([{"step": n, "text": s.strip()} for n, s in enumerate(sentences)]),
            "&nbsp;".join(" ".join(sentences).split()),
            "\n".join(f"2026-03-04 12:00:0{n},107 INFO app {s}" for n, s in enumerate(sentences)),
        ):
            assert evidence(bundled, text)["harassment"] > plain - 0.5
            closing = bundled.closing("", text)
            assert closing is not None
            written = bundled._encoder.encode_closing("", text)
            assert written is not None
            assert (closing >= bundled._graph.run(written.ids, written.types).logits).all()

    def test_what_stands_in_a_tag_is_read(self, bundled: Classifier) -> None:
        """The reading without the format stands beside the text and never in its place."""
        text = f'<p title="{GRIM.strip()}">{BENIGN}</p>' * 3
        (window, *_) = bundled._encoder.encode("", text)
        given = bundled._graph.run(window.ids, window.types).logits
        assert len(bundled.judge("", text).windows) > len(bundled._encoder.encode("", text))
        assert (bundled.logits("", text) >= given).all()

    def test_threads_get_what_one_thread_gets(self, bundled: Classifier) -> None:
        """Scores are the same in every thread and in every run, to the last bit."""
        passages = [Passage((BENIGN + GRIM)[n:], prompt="?" * (n % 3)) for n in range(24)]
        alone = [bundled(passage) for passage in passages]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(bundled, passages)) == alone
        assert [Classifier(BUNDLED_MODEL)(passage) for passage in passages[:3]] == alone[:3]

    @given(st.text(st.characters() | st.sampled_from(["\x00", "\ud800", "🙂"]), max_size=40))
    def test_any_text_has_finite_evidence(self, bundled: Classifier, text: str) -> None:
        """Whatever a string holds, the answer is a number for each category."""
        assert all(math.isfinite(value) for value in evidence(bundled, text, prompt=text).values())

    def test_its_files_are_those_that_were_sealed(self) -> None:
        """The package holds the model that its manifest describes."""
        assert verify_hashes(BUNDLED_MODEL) == []


class TestOwnModel:
    """An exported classifier of one's own."""

    CLOSED: ClassVar = {"slope": 1.0, "intercept": 0.0, "maximum": 9.0, "pooling": {"closing": 0.5}}

    def test_a_closing_read(self, build: Build) -> None:
        """A model that says so reads a whole answer's end, for the labels that weigh it."""
        calibration = {"labels": {"harassment": self.CLOSED}}
        sizes = {"input": "text", "text_tokens": 8, "stride_tokens": 8, "closing_tokens": 3}
        classifier = own(build(calibration=calibration, clearance=sizes))
        found = classifier(Passage("kind boat", closing="rude rude rude vile kind boat"))
        assert [(f.category, f.label) for f in found] == [
            *((name, "") for name in THREE),
            ("harassment", CLOSING),
        ]
        # The last three tokens.
        assert found[-1].evidence == 1.0 - 2.0

    def test_a_closing_read_that_the_model_cannot_make(self, build: Build) -> None:
        """What the calibration counts on must be there."""
        path = build(calibration={"labels": {"harassment": self.CLOSED}})
        (problem,) = problems(path, verify=False)
        assert problem.startswith("`M/config.json` `clearance.closing_tokens` must be above 0: ")

    def test_sizes_for_a_closing_read(self, build: Build) -> None:
        """It may be left out, and must not be below 0."""
        path = build(clearance={"closing_tokens": -1})
        assert problems(path, verify=False) == [
            "`M/config.json` `clearance.closing_tokens` must be a whole number 0 or more"
        ]

    def test_independent_labels(self, build: Build) -> None:
        """With `multi_label_classification` a label's logit is its evidence."""
        classifier = own(build())
        assert classifier.categories == THREE
        assert evidence(classifier, "rude boat") == dict(zip(THREE, (3.0, 0.0, -1.0), strict=True))

    def test_exclusive_labels(self, build: Build) -> None:
        """With one right label, the evidence is the log-odds against all the others."""
        classifier = own(build(problem_type="single_label_classification"))
        expected = [log_odds_of((1.0, 2.5, -1.0), index) for index in range(3)]
        assert list(evidence(classifier, "vile").values()) == pytest.approx(expected, rel=1e-5)

    def test_labels_exclude_each_other_by_default(self, build: Build) -> None:
        """A model that does not say what it is was trained for one right label."""
        one = own(build(problem_type="single_label_classification"))
        other = own(build(problem_type=None))
        assert evidence(one, "vile kind") == evidence(other, "vile kind")

    def test_overwhelming_scores_keep_their_order(self, build: Build) -> None:
        """A label that is nearly certain still has finite log-odds, far above the others."""
        graph = Graph(scores={"rude": (60.0, 0.0, 0.0)})
        logits = own(build(THREE, graph, problem_type=None)).logits("", "rude")
        assert logits.tolist() == pytest.approx([60 - math.log(2), -60, -60], rel=1e-5)

    def test_a_single_label(self, build: Build) -> None:
        """A model with one label has a score of its own, and nothing to compare it with."""
        graph = Graph(scores={"rude": (2.0,)})
        assert evidence(own(build(["harassment"], graph)), "rude") == {"harassment": 2.0}
        assert evidence(own(build(["harassment"], graph, problem_type=None)), "rude") == {
            "harassment": 2.0
        }

    def test_scores_that_are_no_logits(self, build: Build) -> None:
        """A regression model's score is taken as it is, for its calibration to translate."""
        calibration = {"labels": {"harassment": {"slope": 2, "intercept": -1, "maximum": 8}}}
        path = build(calibration=calibration, problem_type="regression")
        assert evidence(own(path), "rude")["harassment"] == 5.0

    def test_evidence_without_calibration_is_bounded(self, build: Build) -> None:
        """A label that nobody calibrated cannot claim much, either way."""
        found = evidence(own(build()), "rude rude rude kind kind kind kind")
        assert found["harassment"] == 1.0
        assert found["refusal"] == UNCALIBRATED_LIMIT
        assert found["hate_toxicity"] == -UNCALIBRATED_LIMIT

    def test_calibration(self, build: Build) -> None:
        """A calibrated label's evidence is a line through its logit, within its bound."""
        entry = {"slope": 2.0, "intercept": 0.5, "maximum": 9.0, "auroc": 0.9}
        path = build(calibration={"labels": {"harassment": entry}})
        classifier = own(path)
        assert evidence(classifier, "rude")["harassment"] == 6.5
        assert evidence(classifier, "rude rude")["harassment"] == 9.0
        assert evidence(classifier, "rude rude")["hate_toxicity"] == 0.0

    def test_limits_beyond_the_bound_are_left_out(self, build: Build) -> None:
        """Counts at a limit that bounded evidence never reaches would promise alarms."""
        counts = dict.fromkeys(
            ("true_positives", "false_positives", "true_negatives", "false_negatives"), 9
        )
        confusion = [{"threshold": t, **counts} for t in (-5.0, 0.0, 4.0, 5.0, 8.3)]
        entry = {"slope": 1.0, "intercept": 0.0, "maximum": 4.0, "confusion": confusion}
        found = own(build(calibration={"labels": {"harassment": entry}})).confusions
        assert [each.threshold for each in found["harassment"]] == [0.0, 4.0]

    def test_labels_of_any_name(self, build: Build) -> None:
        """Labels are mapped to categories; those that are left out are not used."""
        path = build(["LABEL_0", "LABEL_1", "LABEL_2"])
        classifier = own(path, labels={"LABEL_0": "harassment", "LABEL_2": "jailbreak"})
        assert classifier.categories == ("harassment", "jailbreak")
        assert evidence(classifier, "rude") == {"harassment": 3.0}
        assert evidence(classifier, "rude", side="prompt") == {"jailbreak": -1.0}

    def test_two_labels_of_one_category(self, build: Build) -> None:
        """Labels that mean the same category each have a finding."""
        labels = {"harassment": "harassment", "hate_toxicity": "harassment"}
        found = own(build(), labels=labels)(Passage("vile"))
        assert [(f.category, f.evidence) for f in found] == [
            ("harassment", 1.0),
            ("harassment", 2.5),
        ]

    def test_two_labels_without_names(self, build: Build) -> None:
        """`transformers` leaves the names of two plain labels out of the file."""
        graph = Graph(scores={"rude": (0.0, 3.0)})
        architectures = ["BertForSequenceClassification"]
        path = build([], graph, id2label=None, architectures=architectures)
        classifier = own(path, labels={"LABEL_1": "harassment"})
        assert evidence(classifier, "rude") == {"harassment": 3.0}

    def test_a_side_without_labels_costs_nothing(self, build: Build) -> None:
        """A model of response categories has nothing to say about a prompt."""
        assert own(build())(Passage("rude", side="prompt")) == []

    def test_the_name_is_the_directorys(self, build: Build) -> None:
        """A detector is called after its directory, or as it is told."""
        path = build()
        assert own(path).name == "tiny"
        assert own(path, name="mine").name == "mine"

    @pytest.mark.parametrize("file", ONNX_FILES)
    def test_each_place_of_the_graph(self, build: Build, file: str) -> None:
        """The graph is found in the places where exporters put it."""
        assert evidence(own(build(file=file)), "rude")["harassment"] == 3.0

    def test_a_quantised_graph_goes_first(self, build: Build) -> None:
        """Of two graphs the quantised one is used."""
        build(THREE, Graph(scores={"rude": (1.0, 1.0, 1.0)}), file="onnx/model.onnx")
        path = build(file="onnx/model_quantized.onnx")
        assert evidence(own(path), "rude")["harassment"] == 3.0


class TestGraphs:
    """Graphs as exporters write them."""

    @pytest.mark.parametrize(
        "names",
        [
            ["input_ids"],
            ["input_ids", "attention_mask"],
            ["input_ids", "attention_mask", "token_type_ids"],
            ["attention_mask", "position_ids", "input_ids"],
        ],
    )
    @pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
    def test_inputs(self, build: Build, names: list[str], kind: int) -> None:
        """A graph gets the inputs that it asks for, in the type that it asks for."""
        path = build(THREE, Graph(inputs=dict.fromkeys(names, kind)))
        assert evidence(own(path), "rude vile")["harassment"] == 4.0

    def test_an_output_of_another_name(self, build: Build) -> None:
        """Where nothing is called `logits`, the first output is taken for it."""
        path = build(THREE, Graph(output="scores"))
        assert evidence(own(path), "rude")["harassment"] == 3.0

    def test_logits_among_several_outputs(self, build: Build) -> None:
        """`logits` is found wherever it stands."""
        path = build(THREE, Graph(before="hidden"))
        assert evidence(own(path), "rude")["harassment"] == 3.0

    def test_roberta(self, build: Build) -> None:
        """Other special tokens and shifted positions: 64 tokens fit where the table has 66 rows."""
        graph = Graph(special=ROBERTA, positions=(66, 2))
        path = build(THREE, graph, model_type="roberta", pad_token_id=1, max_position_embeddings=66)
        classifier = own(path)
        assert evidence(classifier, "boat " * 300 + "rude")["harassment"] == 3.0
        longest = max(len(w.ids) for w in classifier._encoder.encode("", "boat " * 300))
        assert longest == 64

    def test_a_small_model(self, build: Build) -> None:
        """A model of 64 positions reads long texts in windows of 64 tokens."""
        path = build(THREE, Graph(positions=(64, 0)), max_position_embeddings=64)
        classifier = own(path)
        assert evidence(classifier, "boat " * 300 + "rude")["harassment"] == 3.0
        assert max(len(w.ids) for w in classifier._encoder.encode("", "boat " * 300)) == 64

    def test_the_tokenizers_own_limit(self, build: Build) -> None:
        """What the tokenizer's file truncates at is what the model was trained on."""
        path = build()
        tokenizer = tokenizer_for(BERT)
        tokenizer.enable_truncation(32)
        tokenizer.save(str(path / "tokenizer.json"))
        assert len(own(path)._encoder.encode("", "boat " * 300)[0].ids) == 32

    @pytest.mark.parametrize("count", [1, 20, 300])
    def test_a_fixed_length(self, build: Build, count: int) -> None:
        """A graph of fixed length gets padded windows of that length, and padding is masked."""
        # Padding would add to the first label, were it not masked.
        scores = dict(SCORES) | {"boat": (0.0, 0.0, 0.0)}
        path = build(THREE, Graph(length=32, scores=scores), pad_token_id=4)
        assert WORDS[0] == tokenizer_for(BERT).id_to_token(4) == "rude"
        text = "boat " * (count - 1) + "vile"
        assert evidence(own(path), text)["harassment"] == 1.0

    def test_sizes_that_the_model_states(self, build: Build) -> None:
        """A model that says how it reads pairs is given pairs of that size."""
        own_sizes = {
            "input": "pair",
            "prompt_tokens": 4,
            "text_tokens": 10,
            "stride_tokens": 5,
        }
        classifier = own(build(clearance=own_sizes))
        # Summed over the window: the prompt's last four words count, too.
        assert evidence(classifier, "boat", prompt="rude " * 9)["hate_toxicity"] == 0.0
        assert classifier.logits("rude " * 9, "boat").tolist() == [12.0, 0.0, -4.0]
        assert len(classifier._encoder.encode("", "boat " * 30)) == 5

    def test_a_model_that_reads_no_pairs_never_sees_the_prompt(self, build: Build) -> None:
        """For a model of single texts the prompt makes no difference."""
        classifier = own(build())
        assert evidence(classifier, "boat", prompt="rude") == evidence(classifier, "boat")

    @given(st.integers(0, 399), st.sampled_from([16, 64, 512]))
    def test_no_word_is_ever_missed(
        self, tmp_path_factory: pytest.TempPathFactory, at: int, limit: int
    ) -> None:
        """Wherever a telling word stands in a long text, it counts in full."""
        classifier = self._limited(tmp_path_factory, limit)
        words = ["boat"] * 400
        words[at] = "rude"
        assert classifier.logits("", " ".join(words)).tolist() == [3.0, 0.0, 0.0]

    _made: dict[int, Classifier] = {}  # noqa: RUF012  # one model per limit, for all examples

    def _limited(self, factory: pytest.TempPathFactory, limit: int) -> Classifier:
        if limit not in self._made:
            path = factory.mktemp("limited")
            onnx.save(Graph(positions=(limit, 0)).model(), str(path / "model.onnx"))
            tokenizer_for(BERT).save(str(path / "tokenizer.json"))
            names = dict(enumerate(THREE))
            config = {"id2label": names, "max_position_embeddings": limit} | MULTI
            (path / "config.json").write_text(json.dumps(config), "utf-8")
            self._made[limit] = own(path)
        return self._made[limit]


class TestSeal:
    """The manifest and its hashes."""

    @pytest.fixture
    def sealed(self, build: Build) -> Path:
        """Return the directory of a sealed model with a calibration."""
        path = build(calibration={"labels": {}}, file="onnx/model.onnx")
        seal(path)
        return path

    def test_a_sealed_model_has_the_manifests_version(self, sealed: Path) -> None:
        """A model as it was sealed is loaded, and its version is the manifest's."""
        assert Classifier(sealed).version == "7"
        assert verify_hashes(sealed) == []

    def test_experimental_categories_are_told(self, sealed: Path) -> None:
        """What the manifest calls experimental can be asked for."""
        seal(sealed, experimental={"harassment": "few rows"})
        assert Classifier(sealed).experimental == {"harassment": "few rows"}

    def test_nothing_experimental(self, sealed: Path) -> None:
        """`null` names no category."""
        seal(sealed, experimental=None)
        assert Classifier(sealed).experimental == {}

    def test_an_unsealed_version_tells_models_apart(self, sealed: Path) -> None:
        """Unverified models have a version that changes with any of their files."""
        before = own(sealed).version
        assert before == own(sealed).version
        assert before.startswith("unverified-")
        (sealed / "calibration.json").write_text('{"labels": {} }', "utf-8")
        assert own(sealed).version != before

    def test_a_manifest_without_a_version(self, sealed: Path) -> None:
        """Where the manifest names no version, it is a digest of the files."""
        seal(sealed, version=None)
        version = Classifier(sealed).version
        assert len(version) == 12
        seal(sealed, version="")
        assert Classifier(sealed).version == version

    @pytest.mark.parametrize(
        "name", ["config.json", "tokenizer.json", "calibration.json", "onnx/model.onnx"]
    )
    def test_an_altered_file_is_named(self, sealed: Path, name: str) -> None:
        """A file that is not the sealed one is refused, and the mend is named."""
        content = (sealed / name).read_bytes()
        (sealed / name).write_bytes(content.replace(b"\n", b"\n ") + b" ")
        found = problems(sealed)
        assert f"`M/{name}` is not the file that was sealed (SHA-256 differs): reinstall" in found

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "onnx/model.onnx"])
    def test_a_missing_file_is_named(self, sealed: Path, name: str) -> None:
        """A sealed file that is gone is refused."""
        (sealed / name).unlink()
        assert any(f"`M/{name}` is missing" in problem for problem in problems(sealed))

    @pytest.mark.parametrize(
        "name", ["onnx/model_quantized.onnx", "onnx/model.onnx_data", "onnx/model.onnx.data"]
    )
    def test_a_file_that_was_not_sealed_is_not_used(self, sealed: Path, name: str) -> None:
        """A graph or weights that came later are refused, though everything listed is right."""
        shutil.copyfile(sealed / "onnx/model.onnx", sealed / name)
        assert f"`M/{name}` is not in the manifest" in problems(sealed)[0]

    def test_other_files_do_no_harm(self, sealed: Path) -> None:
        """A read-me that nobody sealed is nobody's concern."""
        (sealed / "README.md").write_text("hello", "utf-8")
        assert verify_hashes(sealed) == []

    def test_without_a_manifest(self, sealed: Path) -> None:
        """A model that nobody sealed is refused, and both ways out are named."""
        (sealed / "manifest.json").unlink()
        expected = "`M/manifest.json` is missing: seal the model, or load it with `verify=False`"
        assert problems(sealed) == [expected]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ({}, "lists no files"),
            ({"files": {}}, "lists no files"),
            ({"files": []}, "must hold an object (`{…}`) under `files`"),
            ({"files": {"config.json": "abc"}}, "has no `sha256` for `config.json`"),
            ({"files": {"config.json": {"sha256": 3}}}, "has no `sha256` for `config.json`"),
            ({"files": {"../x": {"sha256": ""}}}, "lists `../x`, which is outside the directory"),
            ({"files": {"/etc/hosts": {"sha256": ""}}}, "outside the directory"),
            ({"files": {"onnx/../../x": {"sha256": ""}}}, "outside the directory"),
            ({"files": {"..\\x": {"sha256": ""}}}, "outside the directory"),
            ({"files": {"C:\\x": {"sha256": ""}}}, "outside the directory"),
            ({"files": {"C:x": {"sha256": ""}}}, "outside the directory"),
            ({"experimental": ["x"]}, "must hold an object (`{…}`) under `experimental`"),
        ],
    )
    def test_a_manifest_that_cannot_be_trusted(self, sealed: Path, content: Any, says: str) -> None:
        """Whatever a manifest lacks or reaches for outside the directory is refused."""
        (sealed / "manifest.json").write_text(json.dumps(content), "utf-8")
        assert any(f"`M/manifest.json` {says}" in p or says in p for p in problems(sealed))

    def test_all_are_named_at_once(self, sealed: Path) -> None:
        """One load finds every wrong file, whatever is wrong with it."""
        (sealed / "config.json").unlink()
        (sealed / "tokenizer.json").write_text("{", "utf-8")
        (sealed / "calibration.json").write_text('{"labels": 3}', "utf-8")
        (sealed / "onnx/model.onnx").unlink()
        named = [problem.split("`")[1].removeprefix("M/") for problem in problems(sealed)]
        assert set(named) == {
            "M",
            "config.json",
            "tokenizer.json",
            "calibration.json",
            "onnx/model.onnx",
        }


class TestProblems:
    """Directories that hold no classifier."""

    def test_no_directory(self, tmp_path: Path) -> None:
        """A path that leads nowhere is refused by name."""
        assert problems(tmp_path / "none") == [
            "there is no model directory `M`: give a directory of a model"
        ]

    def test_an_empty_directory(self, tmp_path: Path) -> None:
        """Everything that is missing is named."""
        named = [problem.split("`")[1] for problem in problems(tmp_path)]
        assert named == ["M/config.json", "M/tokenizer.json", "M", "M/manifest.json"]

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "calibration.json"])
    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
    def test_what_is_no_json(self, build: Build, name: str, content: bytes) -> None:
        """A file that JSON, or the tokenizer, cannot read is named."""
        path = build()
        (path / name).write_bytes(content)
        says = "cannot be used" if name == "tokenizer.json" else "is not JSON"
        assert any(f"`M/{name}` {says}" in p for p in problems(path, verify=False))

    @pytest.mark.parametrize("name", ["config.json", "calibration.json"])
    def test_what_is_no_object(self, build: Build, name: str) -> None:
        """JSON of another shape is named, too."""
        path = build()
        (path / name).write_text("[1]", "utf-8")
        assert f"`M/{name}` must hold an object (`{{…}}`)" in problems(path, verify=False)

    @pytest.mark.parametrize(
        "labels", [None, {}, [], {"1": "harassment"}, {"0": 3}, {"x": "harassment"}, "harassment"]
    )
    def test_no_labels(self, build: Build, labels: Any) -> None:
        """A configuration without usable labels is refused with the form that is wanted."""
        found = problems(build(id2label=labels), verify=False)
        assert any("has no usable `id2label`" in problem for problem in found)

    def test_labels_that_are_no_categories(self, build: Build) -> None:
        """Labels of other names are refused, each with the mend and what is close."""
        harasment, neutral = problems(build(["harasment", "neutral", "refusal"]), verify=False)
        text = "which is no category: map it to a category in `labels`"
        assert harasment == (
            f"`M` has a label for `harasment`, {text} (did you mean `harassment`?)"
        )
        assert neutral == f"`M` has a label for `neutral`, {text}"

    def test_a_mapping_that_does_not_fit(self, build: Build) -> None:
        """Labels that the model lacks and categories that nobody knows are named."""
        found = problems(build(), verify=False, labels={"harasment": "x", "refusal": "violense"})
        assert [problem.split("`")[1::2] for problem in found] == [
            ["M", "harasment", "harassment"],
            ["M", "violense", "labels", "violence"],
            ["M", "x", "labels"],
        ]

    def test_an_empty_mapping(self, build: Build) -> None:
        """A classifier that would find nothing is refused."""
        (problem,) = problems(build(), verify=False, labels={})
        assert "without any label" in problem

    @pytest.mark.parametrize(
        ("entry", "named"),
        [
            ({}, ["slope", "intercept", "maximum"]),
            (3, ["slope", "intercept", "maximum"]),
            ({"slope": 1, "intercept": 0}, ["maximum"]),
            ({"slope": 0, "intercept": 0, "maximum": 4}, ["slope"]),
            ({"slope": -1, "intercept": 0, "maximum": 4}, ["slope"]),
            ({"slope": 1, "intercept": 0, "maximum": 0}, ["maximum"]),
            ({"slope": "1", "intercept": None, "maximum": True}, ["slope", "intercept", "maximum"]),
            ({"slope": math.nan, "intercept": math.inf, "maximum": 4}, ["slope", "intercept"]),
            ({"slope": 10**400, "intercept": 0, "maximum": 4}, ["slope"]),
        ],
    )
    def test_calibrations_that_cannot_be_used(
        self, build: Build, entry: Any, named: list[str]
    ) -> None:
        """Missing, non-finite and turned-round numbers are refused, with label and name."""
        path = build(calibration={"labels": {"harassment": entry}})
        (problem,) = problems(path, verify=False)
        assert problem.startswith("`M/calibration.json` `harassment`: ")
        assert [name for name in problem.split(" must be ")[0].split("`")[5::2] if name] == named

    @pytest.mark.parametrize("content", [{"labels": []}, {"labels": {"other": {}}}])
    def test_calibrations_of_another_shape(self, build: Build, content: Any) -> None:
        """A calibration that lists no labels, or labels of another model, is refused."""
        (problem,) = problems(build(calibration=content), verify=False)
        assert problem.startswith("`M/calibration.json` ")

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ([], "under `clearance`"),
            ({"input": "triple"}, "`clearance.input` must be `text`, `pair` or `unit`"),
            ({"text_tokens": 0}, "`clearance.text_tokens` must be a whole number above 0"),
            ({"prompt_tokens": "4"}, "`clearance.prompt_tokens` must be a whole number above 0"),
            ({"stride_tokens": True}, "`clearance.stride_tokens` must be a whole number above 0"),
            ({"text_tokens": 10, "stride_tokens": 11}, "leaves gaps"),
        ],
    )
    def test_sizes_that_cannot_be_used(self, build: Build, content: Any, says: str) -> None:
        """What a model says about its windows must be able to hold."""
        (problem,) = problems(build(clearance=content), verify=False)
        assert problem.startswith("`M/config.json` ")
        assert says in problem

    def test_a_graph_of_another_model(self, build: Build) -> None:
        """A graph that answers for another number of labels is refused."""
        (problem,) = problems(build(["harassment", "refusal"]), verify=False)
        assert "gives 3 scores for a word, and there are 2 labels" in problem

    def test_a_graph_that_wants_other_inputs(self, build: Build) -> None:
        """A graph with inputs that no text classifier has is refused by their names."""
        inputs = {"input_ids": TensorProto.INT64, "pixel_values": TensorProto.FLOAT}
        (problem,) = problems(build(THREE, Graph(inputs=inputs)), verify=False)
        assert "`pixel_values` (tensor(float))" in problem

    def test_a_graph_whose_scores_are_no_numbers(self, build: Build) -> None:
        """A graph that gives NaN for a word is refused at start."""
        path = build(THREE, Graph(positions=(64, 0)), max_position_embeddings=64)
        graph = Graph(positions=(64, 0)).model()
        table = next(t for t in graph.graph.initializer if t.name == "position_table")
        table.CopyFrom(numpy_helper.from_array(np.full((64, 3), np.nan, np.float32), table.name))
        onnx.save(graph, str(path / "onnx/model.onnx"))
        assert "no numbers" in problems(path, verify=False)[0]

    def test_a_graph_that_fails(self, build: Build) -> None:
        """A graph that cannot take a single word is refused at start, and not at the first text."""
        path = build(THREE, Graph(positions=(2, 0)))
        assert "fails on a word" in problems(path, verify=False)[0]

    def test_a_model_too_small_to_read(self, build: Build) -> None:
        """A model of a few positions leaves no room for text."""
        (problem,) = problems(build(max_position_embeddings=6), verify=False)
        assert "reads 6 tokens at once, which leaves 4 for text" in problem

    def test_files_of_another_kind(self, build: Build) -> None:
        """A graph and a tokenizer that their libraries cannot load are both named."""
        path = build()
        (path / "onnx/model.onnx").write_bytes(b"no graph")
        (path / "tokenizer.json").write_text('{"version": "1.0"}', "utf-8")
        graph, tokenizer = problems(path, verify=False)
        assert graph.startswith("`M/onnx/model.onnx` cannot be used: ")
        assert tokenizer.startswith("`M/tokenizer.json` cannot be used: ")


class TestCalibration:
    """From a logit to evidence."""

    @given(
        st.floats(allow_nan=False, allow_infinity=False),
        st.floats(allow_nan=False, allow_infinity=False),
    )
    def test_order_stays_and_the_bound_holds(self, one: float, two: float) -> None:
        """More logit is never less evidence, and no evidence exceeds the maximum."""
        calibration = Calibration(slope=1.5, intercept=-2.0, maximum=5.0)
        low, high = (calibration.evidence(value) for value in sorted([one, two]))
        assert -5.0 <= low <= high <= 5.0

    @given(
        logit=st.floats(),
        slope=st.floats(1e-300, 1e308),
        intercept=st.floats(-1e308, 1e308),
        maximum=st.floats(0.1, 9.0),
    )
    def test_evidence_is_finite_or_none(
        self, logit: float, slope: float, intercept: float, maximum: float
    ) -> None:
        """A logit that overflowed is no evidence, on neither side; any other is within bounds."""
        found = Calibration(slope, intercept, maximum).evidence(logit)
        if math.isfinite(logit):
            assert -maximum <= found <= maximum
        else:
            assert math.isnan(found)

    def test_a_finding_keeps_no_text(self, build: Build) -> None:
        """A finding says where and how strong, and never what."""
        found = own(build())(Passage("rude boat"))
        assert isinstance(found[0], Finding)
        assert "boat" not in repr(found)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_window_without_a_number_is_a_failure(bad: float) -> None:
    """However high the others are: what could not be judged is not passed."""
    found = module._highest(np.array([[2.0, bad], [1.0, 3.0]], np.float32))
    assert found[0] == 2.0
    assert math.isnan(found[1])
