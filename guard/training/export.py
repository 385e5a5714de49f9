"""Writes a trained model in the layout that the runtime loads: ONNX, quantised.

This module does not know how the model was trained or calibrated.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from onnx import external_data_helper, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from tqdm import tqdm

from guard.detectors import unfamiliar
from guard.sealing import SIZE_LIMIT
from guard.text.units import CONTEXT, UNIT_MAXIMUM, UNIT_MINIMUM
from guard.training import parity
from guard.training.data import HEADS
from guard.training.model import SIZES, base_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from guard.training.model import GuardModel
    from guard.training.parity import Scores, Window

    Floats = NDArray[np.float32]

GRAPH: Final = "onnx/model_quantized.onnx"

DATA: Final = "model_quantized.onnx.data"

_MAPPED: Final = 5_000_000
"""Bytes from which a tensor has a place in a file of its own: the word embeddings alone."""

OTHER_FILES: Final = 1_400_000
"""Bytes kept for what lies beside the graph: tokenizer, samples, card, manifest."""


_PEAK_WINDOWS: Final = 60
"""About how many windows activations are looked at in."""


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
    model: GuardModel, out: Path, windows: Sequence[Window], keep_float: Path | None = None
) -> Exported:
    """Write `config.json`, `tokenizer.json` and the best quantised graph into `out`.

    Of the `WAYS` that fit `SIZE_LIMIT` the one is taken whose logits are nearest to the float
    graph's.

    Args:
        model: trained weights.
        out: the model's directory.
        windows: what the graphs are compared on.
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
        exported = quantise(plain, out / GRAPH, windows)
    shutil.copyfile(base_directory() / "tokenizer.json", out / "tokenizer.json")
    (out / "config.json").write_text(json.dumps(_config(model), indent=2) + "\n", "utf-8")
    return exported


def quantise(plain: Path, target: Path, windows: Sequence[Window]) -> Exported:
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
            way(plain, path, windows)
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
    model = onnx.load(graph)
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


def _per_tensor(source: Path, target: Path, windows: Sequence[Window]) -> None:  # noqa: ARG001
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


def _per_token(source: Path, target: Path, windows: Sequence[Window]) -> None:
    """As `_per_tensor`, with each token's activations in feed-forward layers scaled alike.

    One scale serves a whole window, and few tokens have large activations, so that the others
    get few of the 256 steps. Each token's vector is divided by its largest value before a
    product with weights and multiplied by it afterwards, which changes nothing but the rounding.
    The feed-forward layers are where most of the error comes from.
    """
    _rewritten(source, target, windows, scaled)


def _smooth(source: Path, target: Path, windows: Sequence[Window]) -> None:
    """As `_per_token`, with the channels of activations evened out before.

    SmoothQuant (Xiao et al., ICML 2023): channels with large activations are made smaller and
    the weights that they meet larger, by the square root of what lies between them.
    """
    peaks = _peaks(source, windows[:: max(1, len(windows) // _PEAK_WINDOWS)])
    _rewritten(source, target, windows, lambda model: scaled(smoothed(model, peaks)))


def _rewritten(
    source: Path,
    target: Path,
    windows: Sequence[Window],
    rewrite: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rewritten.onnx"
        onnx.save(rewrite(onnx.load(source)), path)
        _per_tensor(path, target, windows)


def scaled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with the inputs of feed-forward products scaled token by token."""
    graph = model.graph
    axes, least = "token_axes", "token_least"
    nodes: list[onnx.NodeProto] = []
    known: set[str] = set()
    # Attention's weights are square.
    wide = {n.output[0] for n, w in _products(graph) if w.shape[0] != w.shape[1]}
    for node in graph.node:
        if node.output[0] not in wide:
            nodes.append(node)
            continue
        given, result = node.input[0], node.output[0]
        name = f"{given}_token"
        if given not in known:
            known.add(given)
            nodes += [
                helper.make_node("Abs", [given], [f"{name}_size"]),
                helper.make_node("ReduceMax", [f"{name}_size", axes], [f"{name}_most"], keepdims=1),
                helper.make_node("Max", [f"{name}_most", least], [f"{name}_scale"]),
                helper.make_node("Div", [given, f"{name}_scale"], [f"{name}_scaled"]),
            ]
        node.input[0], node.output[0] = f"{name}_scaled", f"{result}_scaled"
        nodes += [node, helper.make_node("Mul", [f"{result}_scaled", f"{name}_scale"], [result])]
    _replace(graph, nodes)
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), axes))
    graph.initializer.append(numpy_helper.from_array(np.array(1e-6, np.float32), least))
    return model


def smoothed(model: onnx.ModelProto, peaks: Mapping[str, Floats]) -> onnx.ModelProto:
    """Return the graph with activations divided, and weights multiplied, channel by channel.

    Args:
        model: a float graph.
        peaks: the largest absolute activation per channel, by the name of a product's input.
    """
    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    together: dict[str, list[tuple[onnx.NodeProto, Floats]]] = {}
    for node, weights in _products(graph):
        together.setdefault(node.input[0], []).append((node, weights))
    nodes = list(graph.node)
    for given, products in together.items():
        largest = np.max([np.abs(weights).max(axis=1) for _, weights in products], axis=0)
        factors = np.sqrt(np.maximum(peaks[given], 1e-3) / np.maximum(largest, 1e-5))
        factors /= np.exp(np.log(factors).mean())
        even, inverse = f"{given}_even", (1 / factors).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(inverse, f"{even}_factors"))
        at = min(nodes.index(node) for node, _ in products)
        nodes.insert(at, helper.make_node("Mul", [given, f"{even}_factors"], [even]))
        for node, weights in products:
            changed = (weights * factors[:, None]).astype(np.float32)
            stored[node.input[1]].CopyFrom(numpy_helper.from_array(changed, node.input[1]))
            node.input[0] = even
    _replace(graph, nodes)
    return model


def _peaks(source: Path, windows: Sequence[Window]) -> dict[str, Floats]:
    """Return the largest absolute activation per channel of each product's input."""
    model = onnx.load(source)
    names = sorted({node.input[0] for node, _ in _products(model.graph)})
    found: dict[str, Floats] = {}
    with tempfile.TemporaryDirectory() as folder:
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        path = Path(folder) / "peaks.onnx"
        onnx.save(model, path)
        for values in parity.outputs(path, names, windows):
            for name, value in zip(names, values, strict=True):
                peak = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
                found[name] = np.maximum(found.get(name, 0.0), peak)
    return found


def _products(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, Floats]]:
    """Return the products with weights, and the weights."""
    stored = {item.name: item for item in graph.initializer}
    return [
        (node, numpy_helper.to_array(stored[node.input[1]]))
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in stored
    ]


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    # What is assigned is copied, so that nodes may be the graph's own.
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


WAYS: Final[Mapping[str, Callable[[Path, Path, Sequence[Window]], None]]] = {
    "int8": _per_tensor,
    "int8-per-token": _per_token,
    "int8-smooth-per-token": _smooth,
}
"""Ways to quantise that are about equally fast; docs/model.md says what others gave."""


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
            "input": "unit",
            "prompt_tokens": SIZES.prompt,
            "text_tokens": SIZES.text,
            "stride_tokens": SIZES.stride,
            "closing_tokens": SIZES.closing,
            "context_characters": CONTEXT,
            "unit_characters": [UNIT_MINIMUM, UNIT_MAXIMUM],
        },
    }
