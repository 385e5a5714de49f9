"""Reads trained weights back from a model's quantised graph, to go on training from it.

A directory that the runtime loads has no 32-bit weights. What its graph has is multiplied back:
steps by their scale, smoothed channels by their factors, embeddings by their rows' scales; the
parts of a split neuron are joined, and tables of positions and types are parted. What rounding
lost stays lost; the scores are those of the graph but for the rounding of activations.

This module does not know how a graph is quantised beyond the forms that `quantise` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from guard.training.data import HEADS
from guard.training.export import GRAPH
from guard.training.model import GuardModel
from guard.training.quantise import PLACES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_STEPS = "_quantized"
_EMBEDDINGS = "encoder.embeddings."
_HEAD = "head."
_NEURONS = "intermediate.dense.weight"


def recovered(directory: Path) -> dict[str, torch.Tensor]:
    """Return the state of a `GuardModel` that scores as the graph of a model's directory does.

    Raises:
        ValueError: the graph is of another form than `guard train` writes.
    """
    graph = _Graph(onnx.load(directory / GRAPH).graph)
    found = _joined(graph.plain() | graph.embeddings() | graph.products() | graph.head())
    model = GuardModel(len(HEADS))
    state = {name: torch.from_numpy(np.array(value)) for name, value in found.items()}
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    if {name: value.shape for name, value in state.items()} != wanted:
        raise ValueError(f"{directory / GRAPH} has other weights than `guard train` writes")
    return state


def _joined(found: dict[str, Floats]) -> dict[str, Floats]:
    """Return weights with the parts of each split neuron as one again: neighbours, all equal."""
    joined = dict(found)
    for name in [name for name in found if name.endswith(_NEURONS)]:
        layer = name.removesuffix(_NEURONS)
        bias, behind = f"{layer}intermediate.dense.bias", f"{layer}output.dense.weight"
        given = np.column_stack([found[name], found[bias]])
        first = np.flatnonzero([True, *(given[1:] != given[:-1]).any(axis=1)])
        joined[name], joined[bias] = found[name][first], found[bias][first]
        joined[behind] = np.add.reduceat(found[behind], first, axis=1)
    return joined


class _Graph:
    """A quantised graph's weights, by the names that training gives them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = graph.node
        self._stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)

    def plain(self) -> dict[str, Floats]:
        """Return what was never rounded: biases and normalisations."""
        return {
            name: value
            for name, value in self._stored.items()
            if name.startswith("encoder.") and name.endswith((".bias", "LayerNorm.weight"))
        }

    def embeddings(self) -> dict[str, Floats]:
        """Return the tables of embeddings."""
        names = [n.removesuffix(_STEPS) for n in self._stored if n.endswith(_STEPS)]
        found = {
            name: self._exact(name) * self._stored.get(f"{name}_row_scales", np.float32(1))
            for name in names
            if name.startswith(_EMBEDDINGS) or name == PLACES
        }
        if PLACES in found:
            # What is of the type and what of the position cannot be told, and need not be.
            both = found.pop(PLACES).reshape(2, -1, next(iter(found.values())).shape[1])
            offsets = (both - both[0]).mean(axis=1)
            found[f"{_EMBEDDINGS}token_type_embeddings.weight"] = offsets
            found[f"{_EMBEDDINGS}position_embeddings.weight"] = (both - offsets[:, None]).mean(0)
        return found

    def products(self) -> dict[str, Floats]:
        """Return the weights of the encoder's products, each by its bias's name."""
        found = {}
        for node in self._nodes:
            bias = self._bias(node.output[0]) if node.op_type == "MatMulInteger" else None
            if bias is not None and not bias.startswith(_HEAD):
                given = node.input[0].removesuffix(_STEPS)
                factors = self._stored.get(f"{given}_factors", np.float32(1))
                weights = self._exact(node.input[1].removesuffix(_STEPS))
                scaled = weights * np.reshape(factors, (-1, 1))
                found[bias.removesuffix("bias") + "weight"] = scaled.T
        return found

    def head(self) -> dict[str, Floats]:
        """Return the heads' weights and biases, which stay in floating point."""
        names = [name for name in self._stored if name.startswith(f"{_HEAD}weight")]
        if len(names) != 1:
            raise ValueError("the graph's heads are of another form than `guard train` writes")
        weights = self._stored[names[0]]
        turned = weights.T if names[0].endswith("Transposed") else weights
        return {f"{_HEAD}weight": turned, f"{_HEAD}bias": self._stored[f"{_HEAD}bias"]}

    def _exact(self, name: str) -> Floats:
        """Return what rounded weights stand for."""
        steps = self._stored[f"{name}{_STEPS}"].astype(np.float32)
        zero = self._stored[f"{name}_zero_point"].astype(np.float32)
        return np.asarray((steps - zero) * self._stored[f"{name}_scale"], np.float32)

    def _bias(self, name: str) -> str | None:
        """Return the bias that is added to a product once it is scaled."""
        while users := self._users.get(name):
            biases: list[str] = [
                i for i in users[0].input if i.endswith(".bias") and i in self._stored
            ]
            if biases:
                return biases[0]
            name = users[0].output[0]
        return None
