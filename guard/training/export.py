"""Writes a trained model in the layout that the runtime loads: ONNX, quantised.

This module does not know how the model was trained or calibrated, nor how weights are rounded
(`quantise`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch
from onnx import external_data_helper
from tqdm import tqdm

from guard.detectors import unfamiliar
from guard.sealing import SIZE_LIMIT
from guard.text.units import CONTEXT, UNIT_MAXIMUM, UNIT_MINIMUM
from guard.training import parity
from guard.training.data import HEADS
from guard.training.model import SIZES, base_directory
from guard.training.quantise import WAYS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.training.model import GuardModel
    from guard.training.parity import Scores, Window

GRAPH: Final = "onnx/model_quantized.onnx"

DATA: Final = "model_quantized.onnx.data"

_MAPPED: Final = 5_000_000
"""Bytes from which a tensor has a place in a file of its own: the word embeddings alone."""

OTHER_FILES: Final = 1_400_000
"""Bytes kept for what lies beside the graph: tokenizer, samples, card, manifest."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        report: which ways to quantise were tried, what each costs, and which was taken.
        exact: what the float graph gives for the windows.
        rough: what the graph that was taken gives.
    """

    report: dict[str, Any]
    exact: Scores
    rough: Scores


def export(
    model: GuardModel,
    out: Path,
    windows: Sequence[Window],
    fitted: Sequence[Window],
    keep_float: Path | None = None,
) -> Exported:
    """Write `config.json`, `tokenizer.json` and the best quantised graph into `out`.

    Of the `WAYS` that fit `SIZE_LIMIT` the one is taken whose logits are nearest to the float
    graph's.

    Args:
        model: trained weights.
        out: the model's directory.
        windows: what the graphs are compared on.
        fitted: other windows, whose activations rounding is fitted to.
        keep_float: where the 32-bit graph is kept for comparison, if anywhere.
    """
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    # It belongs to the embeddings of the graph that was here.
    (out / unfamiliar.FILE).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.onnx"
        _to_onnx(model, plain)
        if keep_float is not None:
            shutil.copyfile(plain, keep_float)
        exported = quantise(plain, out / GRAPH, windows, fitted)
    shutil.copyfile(base_directory() / "tokenizer.json", out / "tokenizer.json")
    (out / "config.json").write_text(json.dumps(_config(model), indent=2) + "\n", "utf-8")
    return exported


def quantise(
    plain: Path, target: Path, windows: Sequence[Window], fitted: Sequence[Window]
) -> Exported:
    """Write the best quantised form of a float graph to `target`, its embeddings beside it.

    Raises:
        ValueError: none fits the size limit.
    """
    exact = parity.scores(plain, windows)
    tried: dict[str, dict[str, float]] = {}
    rough: dict[str, Scores] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, way in tqdm(WAYS.items(), "quantising", unit="way"):
            path = Path(folder) / f"{name}.onnx"
            way(plain, path, fitted)
            rough[name] = parity.scores(path, windows)
            tried[name] = parity.errors(exact, rough[name]) | {
                "bytes": path.stat().st_size,
                "milliseconds": round(rough[name].milliseconds, 3),
            }
        fitting = [name for name in WAYS if tried[name]["bytes"] + OTHER_FILES <= SIZE_LIMIT]
        if not fitting:
            raise ValueError(f"no quantised graph fits {SIZE_LIMIT:,} bytes")
        taken = min(fitting, key=lambda name: tried[name]["mean"])
        _store(Path(folder) / f"{taken}.onnx", target)
    return Exported({"taken": taken, "tried": tried}, exact, rough[taken])


def _store(graph: Path, target: Path) -> None:
    """Save a graph with its word embeddings in a file of their own.

    The runtime maps that file instead of reading it: any text touches few of the rows, and the
    others take no memory.
    """
    model = without_origins(onnx.load(graph))
    data = target.with_name(DATA)
    # `onnx` adds to a file that is there.
    data.unlink(missing_ok=True)
    external_data_helper.convert_model_to_external_data(
        model, location=data.name, size_threshold=_MAPPED
    )
    onnx.save(model, target)
    for path in (target, data):
        if path.is_file():
            # It is made for its owner alone, and a package is installed for everybody.
            path.chmod(0o644)


def without_origins(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without the exporter's notes of where in whose files each part is from.

    They are of no use at runtime, and would make a model's hash depend on the folder that it was
    made in.
    """
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
    for stored in graph.initializer:
        del stored.metadata_props[:]
    return model


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
            "input": "unit",
            "prompt_tokens": SIZES.prompt,
            "text_tokens": SIZES.text,
            "stride_tokens": SIZES.stride,
            "closing_tokens": SIZES.closing,
            "closing_prompt_tokens": SIZES.closing_prompt,
            "context_characters": CONTEXT,
            "unit_characters": [UNIT_MINIMUM, UNIT_MAXIMUM],
        },
    }
