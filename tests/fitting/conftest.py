"""A tiny real model with embeddings: one dimension a word, so that every embedding is known."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel

from guard.detectors.classifier import Classifier
from guard.sealing import seal

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (
    *("rival", "cheaper", "price", "offer", "they", "charge", "plan", "seat"),
    *("boat", "harbour", "lamp", "crate", "pier", "rope", "tide", "mate"),
)


def write_model(path: Path, *, embedding: bool = True, scale: float = 1.0) -> Path:
    """Write a model's directory: the embedding counts words, the one logit is always 0."""
    path.mkdir(parents=True)
    names = [*SPECIAL, *WORDS]
    table = np.zeros((len(names), len(WORDS)), np.float32)
    table[len(SPECIAL) :] = scale * np.eye(len(WORDS))
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("ReduceSum", ["words", "axis"], ["sentence_embedding"], keepdims=0),
        helper.make_node("MatMul", ["sentence_embedding", "nothing"], ["logits"]),
    ]
    tables = {
        "table": table,
        "axis": np.array([1]),
        "nothing": np.zeros((len(WORDS), 1), np.float32),
    }
    outputs: list[tuple[str, list[str | int]]] = [
        ("logits", ["batch", 1]),
        ("sentence_embedding", ["batch", len(WORDS)]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs][
            : 1 + embedding
        ],
        [numpy_helper.from_array(value, name) for name, value in tables.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path / "model.onnx"))
    tokenizer = Tokenizer(
        WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"id2label": {"0": "harassment"}, "problem_type": "multi_label_classification"}
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the tiny model, which is not sealed."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> Classifier:
    """Return the tiny model."""
    return Classifier(tiny_path, verify=False)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Return another model of the same shape, whose embeddings are twice as long."""
    return Classifier(
        write_model(tmp_path_factory.mktemp("models") / "other", scale=2.0), verify=False
    )


@pytest.fixture(scope="session")
def mute(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Return a model that gives no embeddings."""
    return Classifier(
        write_model(tmp_path_factory.mktemp("models") / "mute", embedding=False), verify=False
    )


@pytest.fixture(scope="session")
def tiny_sealed(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the tiny model with a manifest."""
    path = tmp_path_factory.mktemp("sealed") / "tiny"
    shutil.copytree(tiny_path, path)
    seal(path, {"version": "1"}, ("config.json", "tokenizer.json", "model.onnx"))
    return path
