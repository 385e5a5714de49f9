"""Quantisation-aware training: linear layers compute as the int8 graph will.

Weights are rounded to 7 bits per output channel and activations to 8 bits per window, as
ONNX Runtime's dynamic quantisation with reduced range does; gradients pass through as if
nothing were rounded (straight-through estimator, Bengio, Léonard and Courville, 2013; for
integer arithmetic Jacob et al., CVPR 2018). Parameters keep their names, so weights load with
or without it.

This module does not know attention's own products and the embeddings' rounding: the first
stay in floating point in the graph, and the second has no part in training where the
embeddings are frozen.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

WEIGHT_STEPS: Final = 64
ACTIVATION_STEPS: Final = 255


class RehearsedLinear(nn.Linear):
    """A linear layer that rounds as the quantised graph does."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """Return the layer's output for activations of shape (batch, tokens, features)."""
        # In 16 bits the steps of 8 would be lost.
        with torch.autocast(input.device.type, enabled=False):
            given = rounded_activations(input.float())
            return linear(given, rounded_weights(self.weight), self.bias)


def rehearse(part: nn.Module) -> None:
    """Have every linear layer of `part` round from now on."""
    for module in part.modules():
        if type(module) is nn.Linear:
            module.__class__ = RehearsedLinear


def rounded_weights(weight: Tensor) -> Tensor:
    """Return `weight` (outputs, inputs) on 7 bits per output channel."""
    with torch.no_grad():
        scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-8) / WEIGHT_STEPS
        error = (weight / scale).round_().mul_(scale).sub_(weight)
    return weight + error


def rounded_activations(values: Tensor) -> Tensor:
    """Return `values` (batch, ...) on 8 bits over each window's own range, 0 included."""
    with torch.no_grad():
        flat = values.flatten(1)
        lowest, highest = flat.amin(1).clamp(max=0), flat.amax(1).clamp(min=0)
        shape = (-1, *[1] * (values.dim() - 1))
        scale = ((highest - lowest).clamp(min=1e-8) / ACTIVATION_STEPS).view(shape)
        zero = (-lowest.view(shape) / scale).round()
        error = (values / scale).add_(zero).round_().clamp_(0, ACTIVATION_STEPS)
        error.sub_(zero).mul_(scale).sub_(values)
    return values + error
