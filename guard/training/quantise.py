"""Ways to write a float graph in int8, and what brings the rounded graph near to it.

Weights get 7 bits, or share 8 with a neighbour, and a scale per column; activations get 8 bits and
a scale per window. What is rewritten before changes nothing in floats: neurons that stand out are
split, channels are brought to like sizes (SmoothQuant, Xiao et al., ICML 2023), each word's
embedding gets a scale of its own, and attention becomes one operator, which is faster. Rounded
weights can then make up for each other's errors (GPTQ, Frantar et al., ICLR 2023).

This module does not know what a graph is for, nor which way is the best (`export`).
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from guard.training import parity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from guard.training.parity import Window

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

_PEAK_WINDOWS: Final = 60
"""About how many windows are looked at for the largest activations."""

_OPERATORS: Final = "com.microsoft"
"""The domain of the runtime's own operators."""

_SCALES: Final = "row_scales"
"""What the names of embeddings' scales end with, and of the nodes that look them up."""

PLACES: Final = "places"
"""The table of positions and types: all positions for type 0, then all for type 1."""

_LIMIT: Final = 64
"""Of a weight of 7 bits, as `quantize_dynamic` with `reduce_range` writes it."""

_PAIR: Final = 128
"""Of two neighbours' steps together: times 255, an activation at most, it fits 16 bits."""

_STEP: Final = 127
"""Of a weight of 8 bits."""

_SHARES: Final = (1.0, 0.93, 0.86, 0.8, 0.74)
"""Sizes of a column's step that are tried, by the one at which none of its weights is cut."""

SMOOTHED: Final = 0.75
"""How much of the unevenness of activations weights take over, in [0, 1]."""

SPLIT: Final = 16
"""Neurons that each feed-forward layer of the lower half gets more: 1 % of it."""


_DAMPING: Final = 0.01
"""Share of the mean square of activations that is added to each channel's, as GPTQ does."""

_BLOCK: Final = 128
"""Rows of weights between two updates of all that follow."""


def _plain(source: Path, target: Path, windows: Sequence[Window]) -> None:  # noqa: ARG001
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
        nodes_to_exclude=_kept_in_floats(source),
    )


def _even(source: Path, target: Path, windows: Sequence[Window]) -> None:
    """As `_plain`, after everything that changes nothing but the rounding."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rewritten.onnx"
        onnx.save(rewritten(source, windows), path)
        _plain(path, target, windows)


def _compensated(
    source: Path, target: Path, windows: Sequence[Window], *, paired: bool = False
) -> None:
    """As `_even`, with weights that make up for each other's rounding, and may share 8 bits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rewritten.onnx"
        onnx.save(rewritten(source, windows), path)
        _plain(path, target, windows)
        compensate(path, target, windows, paired=paired)


WAYS: Final[Mapping[str, Callable[[Path, Path, Sequence[Window]], None]]] = {
    "int8": _plain,
    "int8-even": _even,
    "int8-compensated": _compensated,
    "int8-paired": partial(_compensated, paired=True),
}
"""Ways to quantise: from a float graph, to a path, with windows to look at activations in."""


def rewritten(source: Path, windows: Sequence[Window]) -> onnx.ModelProto:
    """Return a float graph that gives the same logits and loses less when it is rounded."""
    few = windows[:: max(1, len(windows) // _PEAK_WINDOWS)]
    model = neurons_split(onnx.load(source), _peaks(source, few))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.onnx"
        onnx.save(model, path)
        peaks = _peaks(path, few)
    return one_attention(embeddings_scaled(places_joined(tanh_taken(smoothed(model, peaks)))))


def smoothed(model: onnx.ModelProto, peaks: Mapping[str, Floats]) -> onnx.ModelProto:
    """Return the graph with activations divided, and weights multiplied, channel by channel.

    SmoothQuant: channels with large activations are made smaller and the weights that they meet
    larger, by more than the square root of what lies between them.

    Args:
        model: a float graph.
        peaks: the largest absolute activation per channel, by the name of a product's input.
    """
    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    uneven = _uneven(graph)
    together: dict[str, list[tuple[onnx.NodeProto, Floats]]] = {}
    for node, weights in _products(graph):
        if node.input[0] in uneven:
            together.setdefault(node.input[0], []).append((node, weights))
    nodes = list(graph.node)
    for given, products in together.items():
        largest = np.max([np.abs(weights).max(axis=1) for _, weights in products], axis=0)
        factors = np.maximum(peaks[given], 1e-3) ** SMOOTHED
        factors /= np.maximum(largest, 1e-5) ** (1 - SMOOTHED)
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


def _uneven(graph: onnx.GraphProto) -> set[str]:
    """Return the names of what is brought to like sizes, and split where it is neurons.

    To do so takes time for each window, and where it gains little it is left out: behind
    attention, and behind the neurons of the upper half of the layers.
    """
    normed, fired = (
        [node.output[0] for node in graph.node if node.op_type == kind]
        for kind in ("LayerNormalization", "Gelu")
    )
    return {*normed, *fired[: (len(fired) + 1) // 2]}


def neurons_split(model: onnx.ModelProto, peaks: Mapping[str, Floats]) -> onnx.ModelProto:
    """Return the graph with the largest neurons of feed-forward layers split into equal parts.

    Outlier channel splitting (Zhao et al., ICML 2019): the lower layers have one neuron that is
    several times larger than all others, for the window's first token alone, and one scale serves a
    whole window, so that the others would get few of the 256 steps. `SPLIT` neurons are added to
    each such layer, each the copy of one that is among the largest then; each copy has its share of
    the weights behind it, which `smoothed` evens out.

    Args:
        model: a float graph.
        peaks: the largest absolute activation per channel, by the name of a product's input.
    """
    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    uneven = _uneven(graph)
    for node, weights in _products(graph):
        before = made.get(node.input[0])
        if before is None or before.op_type != "Gelu" or before.output[0] not in uneven:
            continue
        copies = _copies(peaks[node.input[0]] * np.abs(weights).max(axis=1))
        chosen = np.repeat(np.arange(len(copies)), copies)
        added = made[before.input[0]]
        bias = next(name for name in added.input if name in stored)
        product = made[next(name for name in added.input if name not in stored)]
        first = numpy_helper.to_array(stored[product.input[1]])
        changed = {
            product.input[1]: first[:, chosen],
            bias: numpy_helper.to_array(stored[bias])[chosen],
            node.input[1]: (weights / copies[:, None])[chosen],
        }
        for name, value in changed.items():
            exact = np.ascontiguousarray(value, np.float32)
            stored[name].CopyFrom(numpy_helper.from_array(exact, name))
        wide = {product.output[0], added.output[0], before.output[0], *changed}
        _widen(graph, wide, len(copies), len(chosen))
    return model


def _copies(sizes: Floats) -> NDArray[np.int64]:
    """Return how many of each channel there are once `SPLIT` were added, each to the largest."""
    copies = np.ones(len(sizes), np.int64)
    for _ in range(SPLIT):
        copies[np.argmax(sizes / copies)] += 1
    return copies


def _widen(graph: onnx.GraphProto, names: set[str], before: int, after: int) -> None:
    """Correct what the graph says of the shapes of values."""
    for item in graph.value_info:
        if item.name in names:
            for dimension in item.type.tensor_type.shape.dim:
                if dimension.dim_value == before:
                    dimension.dim_value = after


def tanh_taken(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with GELU by the hyperbolic tangent (Hendrycks and Gimpel, 2016).

    It is faster, and at most .0005 from the exact one, which is far less than rounding.
    """
    for node in model.graph.node:
        if node.op_type == "Gelu":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("approximate", "tanh"))
    return model


def places_joined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with one table for a token's position and type, whose sums it holds.

    A row is looked up, scaled and added once, where two were.

    Raises:
        ValueError: the graph has no such tables.
    """
    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    looked_up = {n.input[0]: n for n in graph.node if n.op_type == "Gather"}
    kind, place = (
        next((node for name, node in looked_up.items() if part in name), None)
        for part in ("token_type_embeddings", "position_embeddings")
    )
    if kind is None or place is None:
        raise ValueError("the graph has no tables of positions and token types to join")
    of_kinds, of_places = (numpy_helper.to_array(stored[n.input[0]]) for n in (kind, place))
    joined = (of_kinds[:, None] + of_places[None]).reshape(-1, of_places.shape[1])
    added = {PLACES: joined, "positions": np.int64(len(of_places))}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in added.items())
    lookup = [
        helper.make_node("Mul", [kind.input[1], "positions"], ["type_offset"]),
        helper.make_node("Add", ["type_offset", place.input[1]], ["place"]),
        helper.make_node("Gather", [PLACES, "place"], [place.output[0]]),
    ]
    total = next(n for n in graph.node if n.op_type == "Add" and kind.output[0] in n.input)
    (left,) = (name for name in total.input if name != kind.output[0])
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == total.output[0]:
                node.input[at] = left
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node == place:
            nodes += lookup
        elif node not in (kind, total):
            nodes.append(node)
    _replace(graph, _needed(graph, nodes))
    return model


def embeddings_scaled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with each embedding divided by its largest value and multiplied again.

    A table is rounded with one scale, and rare words are several times larger than common ones.
    """
    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        table = stored.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.dims) != 2:
            continue
        rows = numpy_helper.to_array(table)
        scale = np.maximum(np.abs(rows).max(1, keepdims=True), 1e-6).astype(np.float32)
        table.CopyFrom(numpy_helper.from_array((rows / scale).astype(np.float32), table.name))
        scales, result = f"{table.name}_{_SCALES}", node.output[0]
        graph.initializer.append(numpy_helper.from_array(scale, scales))
        node.output[0] = f"{result}_unit"
        looked_up = helper.make_node(
            "Gather", [scales, node.input[1]], [f"{result}_scale"], name=f"{result}_{_SCALES}"
        )
        nodes += [
            looked_up,
            helper.make_node("Mul", [f"{result}_unit", f"{result}_scale"], [result]),
        ]
    _replace(graph, nodes)
    return model


def one_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with each attention as one operator of the runtime.

    The exporter writes it as thirty small ones, with masks for what is never masked here.

    Raises:
        ValueError: the graph has no attention of the expected form.
    """
    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}

    def projection(name: str) -> onnx.NodeProto:
        """Return the sum with a bias that a query, a key or a value comes from."""
        node: onnx.NodeProto = made[name]
        while node.op_type != "Add" or not any(i in stored for i in node.input):
            node = made[node.input[0]]
        return node

    ends = {}
    for node in graph.node:
        if node.op_type == "Softmax":
            end, values = _end_of_attention(graph, node)
            product = made[made[node.input[0]].input[0]]
            query, key = (projection(name) for name in product.input)
            given = [query.output[0], key.output[0], projection(values).output[0]]
            heads = _heads(graph, query, stored, made)
            ends[end] = helper.make_node(
                "MultiHeadAttention", given, [end], domain=_OPERATORS, num_heads=heads
            )
    if not ends:
        raise ValueError("the graph has no attention that could be made one operator")
    _replace(graph, _needed(graph, [ends.get(node.output[0], node) for node in graph.node]))
    model.opset_import.append(helper.make_opsetid(_OPERATORS, 1))
    return model


def _end_of_attention(graph: onnx.GraphProto, softmax: onnx.NodeProto) -> tuple[str, str]:
    """Return the name of an attention's result, tokens by channels, and of its values."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def follow(name: str, operator: str) -> onnx.NodeProto:
        return next(node for node in users[name] if node.op_type == operator)

    # The exporter replaces what is not a number, which a row that is masked throughout would be.
    weights = follow(softmax.output[0], "Where").output[0]
    product = follow(weights, "MatMul")
    turned = follow(product.output[0], "Transpose")
    return follow(turned.output[0], "Reshape").output[0], product.input[1]


def _heads(
    graph: onnx.GraphProto,
    query: onnx.NodeProto,
    stored: Mapping[str, onnx.TensorProto],
    made: Mapping[str, onnx.NodeProto],
) -> int:
    """Return how many heads an attention has: the width of its queries over a head's."""
    width = next(stored[name].dims[0] for name in query.input if name in stored)
    reshape = next(node for node in graph.node if query.output[0] in node.input)
    last = made[reshape.input[1]].input[-1]
    return int(width // int(numpy_helper.to_array(stored[last]).item()))


def _needed(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes that lead to the graph's outputs, in order; drop weights of the others."""
    wanted = {output.name for output in graph.output}
    found: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            found.append(node)
            wanted.update(node.input)
    kept = [item for item in graph.initializer if item.name in wanted]
    kept = [onnx.TensorProto.FromString(item.SerializeToString()) for item in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return found[::-1]


def compensate(
    plain: Path, rounded: Path, windows: Sequence[Window], *, paired: bool = False
) -> None:
    """Round the weights of a quantised graph anew, each row making up for those before it.

    GPTQ: what rounding one input's weights adds to a product's result is taken off the weights of
    the inputs that are still to be rounded, as far as their activations go together.

    Args:
        plain: the float graph that was quantised.
        rounded: the quantised graph, which is overwritten.
        windows: what activations are looked at in.
        paired: whether weights have steps of their own size, of which two neighbours share 8 bits
            (`paired_weights`), instead of those of the graph.
    """
    products = {node.input[1]: (node.input[0], w) for node, w in _products(onnx.load(plain).graph)}
    model = onnx.load(rounded)
    stored = {item.name: item for item in model.graph.initializer}
    names = [name for name in products if f"{name}_quantized" in stored]
    moments = _moments(plain, {products[name][0] for name in names}, windows)
    for name in names:
        given, weights = products[name]
        target, sizes = f"{name}_quantized", f"{name}_scale"
        if paired:
            steps, scale = paired_weights(weights, moments[given])
            stored[sizes].CopyFrom(numpy_helper.from_array(scale, sizes))
        else:
            scale = numpy_helper.to_array(stored[sizes])
            steps = rounded_weights(weights, scale, moments[given])
        stored[target].CopyFrom(numpy_helper.from_array(steps, target))
    onnx.save(model, rounded)


def rounded_weights(weights: Floats, scale: Floats, moments: Doubles) -> NDArray[np.int8]:
    """Return weights as whole steps of `scale`, for which the product's error is small.

    No column's squared error, summed over the tokens, is larger than with each weight rounded to
    its nearest step: choosing greedily may lose a little where few inputs are left to make up with.

    Args:
        weights: of a product, shape (inputs, outputs).
        scale: size of a step, shape (outputs,).
        moments: sum over tokens of the outer product of the inputs, shape (inputs, inputs).
    """
    return _steps(weights, scale, moments, lambda steps, _: np.clip(steps, -_LIMIT, _LIMIT))[0]


def paired_weights(weights: Floats, moments: Doubles) -> tuple[NDArray[np.int8], Floats]:
    """Return weights as whole steps, and the steps' size, shape (outputs,).

    Without VNNI a processor adds the products of two neighbouring inputs in 16 bits. Seven bits a
    weight never overflow them, nor do two weights of eight that are no larger together. What is
    large mostly stands beside something smaller, so that steps can be finer. Finer still they are
    where a few large weights are cut and the rest makes up for it: of several sizes each column
    gets the one with the smallest error.

    Args:
        weights: of a product, shape (inputs, outputs).
        moments: sum over tokens of the outer product of the inputs, shape (inputs, inputs).
    """
    inputs, outputs = weights.shape
    sizes = np.abs(np.pad(weights, ((0, inputs % 2), (0, 0))))
    # One less than a pair may have: rounding both up adds as much.
    largest = (sizes[0::2] + sizes[1::2]).max(0) / (_PAIR - 1)
    largest = np.maximum(largest, np.finfo(np.float32).tiny)
    scales = np.concatenate([largest * share for share in _SHARES]).astype(np.float32)
    steps, errors = _steps(np.tile(weights, len(_SHARES)), scales, moments, _beside)
    best = errors.reshape(len(_SHARES), outputs).argmin(0) * outputs + np.arange(outputs)
    return steps[:, best], scales[best]


def _beside(steps: Doubles, before: NDArray[np.int8] | None) -> Doubles:
    """Return steps of one input's weights, cut to what those of its neighbour leave."""
    room = _STEP if before is None else np.minimum(_STEP, _PAIR - np.abs(before.astype(np.int64)))
    return np.clip(steps, -room, room)


def _steps(
    weights: Floats,
    scale: Floats,
    moments: Doubles,
    cut: Callable[[Doubles, NDArray[np.int8] | None], Doubles],
) -> tuple[NDArray[np.int8], Doubles]:
    """Return weights as whole steps, and each column's squared error, summed over the tokens.

    Args:
        weights: of a product, shape (inputs, outputs).
        scale: size of a step, shape (outputs,).
        moments: sum over tokens of the outer product of the inputs, shape (inputs, inputs).
        cut: keeps one input's steps in range; of each second input it is also given its
            neighbour's.
    """
    count = len(weights)
    damped = moments + _DAMPING * np.mean(np.diag(moments)) * np.eye(count)
    # Row i says how what is added at input i is made up for by the inputs behind it.
    shares = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = weights.astype(np.float64)
    found, nearest = (np.zeros(weights.shape, np.int8) for _ in range(2))
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = np.zeros((end - start, weights.shape[1]))
        for i in range(start, end):
            found[i] = cut(np.rint(left[i] / scale), found[i - 1] if i % 2 else None)
            errors[i - start] = (left[i] - found[i] * scale) / shares[i, i]
            left[i + 1 : end] -= np.outer(shares[i, i + 1 : end], errors[i - start])
        left[end:] -= shares[start:end, end:].T @ errors
    for i in range(count):
        nearest[i] = cut(np.rint(weights[i] / scale), nearest[i - 1] if i % 2 else None)
    tried = [_squared_error(steps * scale - weights, moments) for steps in (found, nearest)]
    return np.where(tried[0] <= tried[1], found, nearest), np.minimum(*tried)


def _squared_error(errors: Floats, moments: Doubles) -> Doubles:
    """Return the sum over tokens of each output's squared error, shape (outputs,)."""
    exact = errors.astype(np.float64)
    return np.asarray(((moments @ exact) * exact).sum(0))


def _moments(plain: Path, names: set[str], windows: Sequence[Window]) -> dict[str, Doubles]:
    """Return the sum over tokens of the outer product of the activations of each name."""
    found: dict[str, Doubles] = {}
    for name, value in _activations(plain, names, windows):
        flat = value.reshape(-1, value.shape[-1]).astype(np.float64)
        found[name] = found.get(name, 0.0) + flat.T @ flat
    return found


def _peaks(source: Path, windows: Sequence[Window]) -> dict[str, Floats]:
    """Return the largest absolute activation per channel of each product's input."""
    names = {node.input[0] for node, _ in _products(onnx.load(source).graph)}
    found: dict[str, Floats] = {}
    for name, value in _activations(source, names, windows):
        peak = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
        found[name] = np.maximum(found.get(name, 0.0), peak)
    return found


def _activations(
    source: Path, names: set[str], windows: Iterable[Window]
) -> Iterator[tuple[str, Floats]]:
    """Yield the names' activations, window by window."""
    ordered = sorted(names)
    model = onnx.load(source)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in ordered)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "activations.onnx"
        onnx.save(model, path)
        for values in parity.outputs(path, ordered, windows):
            yield from zip(ordered, values, strict=True)


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


def _kept_in_floats(path: Path) -> list[str]:
    """Return the nodes of the heads and of scales, which stay in floating point: they are small."""
    nodes = onnx.load(path).graph.node
    heads = [node.name for node in nodes if "logits" in node.output]
    # The quantiser makes a product and a sum of a `Gemm` before it looks at names.
    return [
        *heads,
        *[f"{name}_MatMul" for name in heads],
        *[node.name for node in nodes if node.name.endswith(_SCALES)],
    ]
