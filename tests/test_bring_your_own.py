"""The recipe of `docs/bring-your-own.md`, run as it stands on models that are built here.

They are real ONNX graphs of other shapes than the bundled one: word embeddings, masked and
summed, and a linear layer on top.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from typer.testing import CliRunner

from guard import canonical
from guard.cli import app
from guard.detectors.base import Passage
from guard.detectors.classifier import Classifier
from guard.errors import ModelError
from guard.sealing import seal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PAGE = Path(__file__).parent.parent / "docs" / "bring-your-own.md"

if not PAGE.is_file():  # the tests of the built wheel run outside the checkout
    pytest.skip("there are no docs beside the tests", allow_module_level=True)

BLOCKS = re.findall(r"```(python|sh|yaml)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

WORDS = ("vile", "rude", "kind", "sweet", "person", "you", "are", "take", "the", "train", "a")
MEANINGS: NDArray[np.float32] = np.zeros((len(WORDS), 2), np.float32)
MEANINGS[:4] = [[1, 0], [1, 0], [0, 1], [0, 1]]
"""How unkind and how kind each word is."""


def graph(
    special: Sequence[str], inputs: Sequence[str], weights: NDArray[np.float32], kind: int
) -> onnx.ModelProto:
    """Return embeddings, a masked sum over the tokens, and a linear layer (2, labels)."""
    table = np.concatenate([np.zeros((len(special), 2), np.float32), MEANINGS])
    constants = {"table": table, "last": np.array([2]), "tokens": np.array([1]), "weights": weights}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["seen", "last"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens"], ["summed"], keepdims=0),
        helper.make_node("MatMul", ["summed", "weights"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info(name, kind, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "labels"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def tokenizer(special: Sequence[str], template: Any) -> Tokenizer:
    """Return a lower-casing tokenizer of whole words."""
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    unknown = next(word for word in special if "unk" in word.lower())
    made = Tokenizer(WordLevel(vocabulary, unk_token=unknown))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(list(special))
    made.post_processor = template
    return made


def roberta(path: Path) -> None:
    """Write a RoBERTa of two labels, one of which is right, as `transformers` exports it."""
    special = ("<s>", "<pad>", "</s>", "<unk>")
    weights = np.array([[-2, 2], [1, -1]], np.float32)
    inputs = ("input_ids", "attention_mask")
    path.mkdir()
    onnx.save(graph(special, inputs, weights, TensorProto.INT64), str(path / "model.onnx"))
    tokenizer(special, processors.RobertaProcessing(("</s>", 2), ("<s>", 0))).save(
        str(path / "tokenizer.json")
    )
    config = {
        "architectures": ["RobertaForSequenceClassification"],
        "model_type": "roberta",
        "id2label": {"0": "neutral", "1": "toxic"},
        "pad_token_id": 1,
        "max_position_embeddings": 66,
    }
    (path / "config.json").write_text(json.dumps(config), "utf-8")


def bert(path: Path) -> None:
    """Write a BERT of three labels side by side, without token types and of 32-bit inputs."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    weights = np.array([[-1, 3, 1], [2, -1, 0]], np.float32)
    inputs = ("attention_mask", "input_ids")
    (path / "onnx").mkdir(parents=True)
    onnx.save(graph(special, inputs, weights, TensorProto.INT32), str(path / "onnx" / "model.onnx"))
    tokenizer(special, processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))).save(
        str(path / "tokenizer.json")
    )
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "problem_type": "multi_label_classification",
        "id2label": {"0": "polite", "1": "toxic", "2": "obscene"},
        "max_position_embeddings": 512,
    }
    (path / "config.json").write_text(json.dumps(config), "utf-8")


def labelled(path: Path) -> None:
    """Write 40 rows of either side; a few are not what they look like."""
    rows = []
    for number in range(80):
        bad = number % 2 == 0
        looks_bad = bad != (number % 20 == 0)
        word = (
            ("vile", "rude")[number % 4 // 2] if looks_bad else ("kind", "sweet")[number % 4 // 2]
        )
        text = f"You are a {word} person, and this is answer number {number}."
        rows.append({"prompt": "", "response": text, "labels": {"harassment": int(bad)}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def command(line: str) -> str:
    """Run a line of a shell block in this process; return what it prints."""
    program, *arguments = shlex.split(line)
    assert program == "guard"
    result = CliRunner().invoke(app, arguments)
    # 1 says that something was held back, which `guard check` is here to do.
    assert result.exit_code in ((0, 1) if arguments[0] == "check" else (0,)), result.output
    return result.output


@pytest.mark.parametrize("build", [roberta, bert], ids=["roberta", "bert"])
def test_the_recipe_runs(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block runs in the order of the page, and the model judges in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUARD_JOURNAL", str(tmp_path / "journal.db"))
    build(tmp_path / "mine")
    labelled(tmp_path / "labelled.jsonl")
    answers = [{"response": "You are a vile, rude person."}, {"response": "Take the train."}]
    lines = "".join(json.dumps(row) + "\n" for row in answers)
    (tmp_path / "answers.jsonl").write_text(lines, "utf-8")

    for number, (language, code) in enumerate(BLOCKS):
        if language == "yaml":
            (tmp_path / "chat.yaml").write_text(code, "utf-8")
        elif language == "sh":
            assert all(command(line) for line in code.strip().splitlines())
        else:
            exec(compile(code, f"block {number}", "exec"), {"__name__": "x"})
            assert capsys.readouterr().out.strip()

    rude, civil = (
        Classifier("mine-calibrated")(Passage(text))[0] for text in ("Vile, rude.", "Kind, sweet.")
    )
    assert rude.category == "harassment"
    assert rude.evidence > 1
    assert civil.evidence < -1


def test_the_recipe_covers_every_step() -> None:
    """The page maps, looks, seals, verifies, calibrates and uses."""
    code = "\n".join(text for _, text in BLOCKS)
    steps = ("unused_labels", "Passage(", "seal(", "model verify", "guard calibrate", "Guard.load")
    assert all(step in code for step in steps)


def break_long_texts(path: Path) -> None:
    """Have a graph give 0 / 0 for texts of more than 20 tokens, as one in float16 may."""
    made = onnx.load(str(path))
    made.graph.node[-1].output[0] = "sound"
    made.graph.initializer.append(numpy_helper.from_array(np.array(20, np.float32), "most"))
    made.graph.node.extend(
        [
            helper.make_node("ReduceSum", ["seen", "tokens"], ["length"]),
            helper.make_node("Sub", ["most", "length"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),
            helper.make_node("Mul", ["sound", "root"], ["higher"]),
            helper.make_node("Div", ["higher", "root"], ["logits"]),
        ]
    )
    onnx.save(made, str(path))


def sealed(path: Path) -> None:
    """Seal all files of a folder."""
    files = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    seal(path, {"name": path.name, "version": "1"}, files, limit=None)


class TestScoresThatAreNoNumbers:
    """A graph that scores a word and overflows on longer texts."""

    @staticmethod
    def mapped(path: Path) -> Path:
        """Return a model whose labels are categories."""
        bert(path)
        config = json.loads((path / "config.json").read_text("utf-8"))
        config["id2label"] = {"0": "bad_advice", "1": "harassment", "2": "sexual"}
        (path / "config.json").write_text(json.dumps(config), "utf-8")
        return path

    def test_it_is_not_sealed(self, tmp_path: Path) -> None:
        """No canonical scores are written that could never be compared."""
        path = self.mapped(tmp_path / "m")
        break_long_texts(path / "onnx" / "model.onnx")
        with pytest.raises(ModelError, match="no numbers"):
            canonical.write(path)
        assert not (path / canonical.FILE).exists()

    def test_verify_says_so(self, tmp_path: Path) -> None:
        """Where a machine computes none, `guard model verify` fails."""
        path = self.mapped(tmp_path / "m")
        canonical.write(path)
        break_long_texts(path / "onnx" / "model.onnx")
        sealed(path)
        result = CliRunner().invoke(app, ["model", "verify", str(path)])
        assert result.exit_code == 2
        assert "no numbers" in result.output

    def test_it_is_not_calibrated(self, tmp_path: Path) -> None:
        """The report says that rows have no scores, and nothing is fitted to the others."""
        path = self.mapped(tmp_path / "m")
        break_long_texts(path / "onnx" / "model.onnx")
        sealed(path)
        labelled(tmp_path / "labelled.jsonl")
        with (tmp_path / "labelled.jsonl").open("a", encoding="utf-8") as file:
            row = {"response": "You are rude. " * 9, "labels": {"harassment": 1}}
            file.write(json.dumps(row) + "\n")
        line = ["calibrate", "--labels", str(tmp_path / "labelled.jsonl"), "--model", str(path)]
        result = CliRunner().invoke(app, [*line, "--dry-run"])
        assert result.exit_code == 2
        assert "no numbers for 1 of the rows" in " ".join(result.output.split())


class TestUnusedLabels:
    """`clearance.unused_labels` of `config.json`."""

    @staticmethod
    def mapped(path: Path, unused: Any) -> Path:
        """Return a model that says which labels are not used."""
        roberta(path)
        config = json.loads((path / "config.json").read_text("utf-8"))
        config["id2label"]["1"] = "harassment"
        config["clearance"] = {"input": "text", "unused_labels": unused}
        (path / "config.json").write_text(json.dumps(config), "utf-8")
        return path

    def test_they_need_no_category(self, tmp_path: Path) -> None:
        """What is named unused has no finding, and the others still compete with it."""
        (finding,) = Classifier(self.mapped(tmp_path / "m", ["neutral"]), verify=False)(
            Passage("rude")
        )
        # Two labels at -2 and 2: log-odds of 4.
        assert finding.category == "harassment"
        assert finding.evidence == pytest.approx(4.0)

    def test_labels_given_in_code_go_first(self, tmp_path: Path) -> None:
        """A mapping in code replaces what the file says."""
        path = self.mapped(tmp_path / "m", ["harassment"])
        classifier = Classifier(path, labels={"harassment": "sexual"}, verify=False)
        assert classifier.categories == ("sexual",)

    @pytest.mark.parametrize(
        ("unused", "problem"),
        [
            ("neutral", "must be a list of labels"),
            ([1], "must be a list of labels"),
            (["neutrl", "neutral"], "names `neutrl`, which is no label"),
            ([], "`neutral`, which is no category"),
            (["neutral", "harassment"], "without any label"),
        ],
    )
    def test_mistakes_are_named(self, tmp_path: Path, unused: Any, problem: str) -> None:
        """What is wrong is an error when the model is loaded."""
        with pytest.raises(ModelError, match=problem):
            Classifier(self.mapped(tmp_path / "m", unused), verify=False)


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    """A calibration could be of one of them alone; with names of their own both count in code."""
    path = tmp_path / "m"
    bert(path)
    config = json.loads((path / "config.json").read_text("utf-8"))
    both = {"toxic": "harassment", "obscene": "harassment"}
    assert len(Classifier(path, labels=both, verify=False)(Passage("rude"))) == 2
    config["id2label"] = {"0": "polite", "1": "harassment", "2": "harassment"}
    config["clearance"] = {"input": "text", "unused_labels": ["polite"]}
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match="several labels `harassment`"):
        Classifier(path, verify=False)
