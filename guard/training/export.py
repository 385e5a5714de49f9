"""Writes a trained model in the layout that the runtime loads: ONNX, quantised, sealed.

This module does not know how the model was trained or calibrated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from guard.encoding import PROMPT_TOKENS, STRIDE_TOKENS, TEXT_TOKENS
from guard.text.units import CONTEXT, UNIT_MAXIMUM, UNIT_MINIMUM
from guard.training.data import HEADS
from guard.training.model import base_directory

if TYPE_CHECKING:
    from guard.training.model import GuardModel

SIZE_LIMIT: Final = 25_000_000
"""Bytes that a model directory may have in all."""

SEALED: Final = (
    "config.json",
    "tokenizer.json",
    "onnx/model_quantized.onnx",
    "calibration.json",
    "canonical.json",
    "README.md",
)


def export(model: GuardModel, out: Path, *, keep_float: Path | None = None) -> None:
    """Write `config.json`, `tokenizer.json` and the quantised graph into `out`.

    Args:
        model: trained weights.
        out: the model's directory.
        keep_float: where the 32-bit graph is kept for comparison, if anywhere.
    """
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.onnx"
        _to_onnx(model, plain)
        _quantise(plain, out / "onnx" / "model_quantized.onnx")
        if keep_float is not None:
            shutil.copyfile(plain, keep_float)
    shutil.copyfile(base_directory() / "tokenizer.json", out / "tokenizer.json")
    (out / "config.json").write_text(json.dumps(_config(model), indent=2) + "\n", "utf-8")


def seal(out: Path, facts: dict[str, Any]) -> None:
    """Write `manifest.json`: `facts`, and size and SHA-256 of every file.

    Raises:
        ValueError: the directory is larger than `SIZE_LIMIT`.
    """
    files = {name: _entry(out / name) for name in SEALED if (out / name).is_file()}
    total = sum(entry["bytes"] for entry in files.values())
    if total > SIZE_LIMIT:
        raise ValueError(f"the model takes {total:,} bytes, more than {SIZE_LIMIT:,}")
    text = json.dumps(facts | {"files": files}, indent=2, sort_keys=True)
    (out / "manifest.json").write_text(text + "\n", "utf-8")


def _to_onnx(model: GuardModel, path: Path) -> None:
    model.eval()
    ids = torch.randint(5, 1000, (2, 17))
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=512)
    shape = {0: batch, 1: sequence}
    torch.onnx.export(
        model,
        (ids, torch.zeros_like(ids)),
        str(path),
        dynamo=True,
        input_names=["input_ids", "token_type_ids"],
        output_names=["logits", "sentence_embedding"],
        dynamic_shapes=(shape, shape, None)[:2],
        external_data=False,
    )


def _quantise(source: Path, target: Path) -> None:
    """Quantise weights to 7 bits per channel, embeddings included; activations dynamically.

    With 8 bits, processors without VNNI add pairs of products in 16 bits that overflow
    silently, so that scores would depend on the machine.
    """
    quantize_dynamic(
        source,
        target,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["MatMul", "Gather"],
        nodes_to_exclude=_head_nodes(source),
    )


def _head_nodes(path: Path) -> list[str]:
    """Return the nodes of the heads, which stay in floating point: they are small."""
    graph = onnx.load(path).graph
    return [node.name for node in graph.node if "logits" in node.output]


def _config(model: GuardModel) -> dict[str, Any]:
    base = model.encoder.config
    return {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "problem_type": "multi_label_classification",
        "id2label": {str(i): head for i, head in enumerate(HEADS)},
        "label2id": {head: i for i, head in enumerate(HEADS)},
        "hidden_size": base.hidden_size,
        "num_hidden_layers": base.num_hidden_layers,
        "num_attention_heads": base.num_attention_heads,
        "intermediate_size": base.intermediate_size,
        "vocab_size": base.vocab_size,
        "max_position_embeddings": base.max_position_embeddings,
        "pad_token_id": base.pad_token_id,
        "clearance": {
            "format": 1,
            "input": "pair",
            "prompt_tokens": PROMPT_TOKENS,
            "text_tokens": TEXT_TOKENS,
            "stride_tokens": STRIDE_TOKENS,
            "context_characters": CONTEXT,
            "unit_characters": [UNIT_MINIMUM, UNIT_MAXIMUM],
        },
    }


def _entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
