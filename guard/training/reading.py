"""How the network reads a batch while it is trained: padded windows, or windows end to end.

Windows are laid end to end, and all is computed in bfloat16 where the processor multiplies it: no
padding, a third of the kernels, and nothing that a step has to wait for. Attention is computed
inside each window alone: on a GPU by a kernel for sequences of several lengths (Dao,
"FlashAttention-2", 2023), on a CPU in one table in which windows are padded to the longest. What
is computed is the same up to rounding. Layers that round as the int8 graph does are asked
themselves, on padded windows.

This module does not know labels, losses or how weights change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout, embedding, gelu, layer_norm, linear

from guard.training.cpu import dropped
from guard.training.model import GuardModel

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from guard.training.passes import Bags


@dataclass(frozen=True, slots=True)
class Laid:
    """Windows end to end, where they are computed.

    Attributes:
        ids: token ids of all windows, shape (tokens,).
        types: token types, same shape.
        places: of each token in its window, from 0, same shape.
        windows: which window each token is of, same shape.
        starts: where each window begins, and the end, 32 bits, shape (windows + 1,).
        lengths: of the windows, in tokens.
    """

    ids: Tensor
    types: Tensor
    places: Tensor
    windows: Tensor
    starts: Tensor
    lengths: tuple[int, ...]


def placed(values: NDArray[Any], place: torch.device) -> Tensor:
    """Return an array's values where they are computed."""
    given = torch.from_numpy(values)
    if place.type == "cpu":
        return given
    # From memory that can be paged out, a copy would wait for all that the GPU has yet to do.
    return given.pin_memory().to(place, non_blocking=True)


def read(model: nn.Module, batch: Bags, place: torch.device) -> Tensor:
    """Return the logits of a batch's windows, shape (windows, heads), in 32 bits.

    Args:
        model: a `GuardModel`, or a network of its interface.
        batch: examples of one window or more.
        place: where the model is.
    """
    if isinstance(model, GuardModel) and model.plain and _lays(place.type):
        return laid_logits(model, laid(batch, place), _kind(place.type))
    with _rounded(place.type):
        logits: Tensor = model(*(part.to(place) for part in padded(batch)))[0]
    return logits.float()


def padded(batch: Bags) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, types and mask of a batch's windows, each of shape (windows, longest)."""
    lengths = np.diff(batch.windows)
    there = np.arange(lengths.max())[None] < lengths[:, None]
    ids, types = (np.zeros(there.shape, np.int64) for _ in range(2))
    ids[there], types[there] = batch.ids, batch.types
    return torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(there.astype(np.int64))


def laid(batch: Bags, place: torch.device) -> Laid:
    """Return a batch's windows end to end."""
    lengths = np.diff(batch.windows)
    windows = np.repeat(np.arange(len(lengths)), lengths)
    return Laid(
        placed(batch.ids.astype(np.int64), place),
        placed(batch.types.astype(np.int64), place),
        placed(np.arange(len(batch.ids)) - batch.windows[:-1][windows], place),
        placed(windows, place),
        placed(batch.windows.astype(np.int32), place),
        tuple(lengths.tolist()),
    )


def laid_logits(model: GuardModel, given: Laid, kind: torch.dtype = torch.bfloat16) -> Tensor:
    """Return the logits of windows that lie end to end, shape (windows, heads), in 32 bits.

    Args:
        model: its layers as they were made: what rounds as the int8 graph does (`rehearse`) is
            not asked.
        given: the windows.
        kind: what the encoder computes in.
    """
    encoder = model.encoder
    rate = encoder.config.hidden_dropout_prob if model.training else 0.0
    hidden = _embedded(encoder.embeddings, given, kind, rate)
    for layer in encoder.encoder.layer:
        hidden = _layer(layer, hidden, given, rate)
    pooled = _pooled(hidden.float(), given)
    logits: Tensor = model.head(model.dropout(pooled))
    return logits


def _embedded(embeddings: Any, given: Laid, kind: torch.dtype, rate: float) -> Tensor:
    found = (
        embedding(given.ids, embeddings.word_embeddings.weight)
        + embedding(given.places, embeddings.position_embeddings.weight)
        + embedding(given.types, embeddings.token_type_embeddings.weight)
    )
    return _dropped(_normed(embeddings.LayerNorm, found.to(kind)), rate)


def _layer(layer: Any, hidden: Tensor, given: Laid, rate: float) -> Tensor:
    kind = hidden.dtype
    own = layer.attention.self
    parts = (own.query, own.key, own.value)
    weight = torch.cat([part.weight for part in parts]).to(kind)
    bias = torch.cat([part.bias for part in parts]).to(kind)
    shape = (-1, 3, own.num_attention_heads, own.attention_head_size)
    seen = _attended(linear(hidden, weight, bias).view(shape), given).flatten(1)
    after = _dropped(_through(layer.attention.output.dense, seen), rate) + hidden
    hidden = _normed(layer.attention.output.LayerNorm, after)
    wide = gelu(_through(layer.intermediate.dense, hidden))
    after = _dropped(_through(layer.output.dense, wide), rate) + hidden
    return _normed(layer.output.LayerNorm, after)


def _attended(parts: Tensor, given: Laid) -> Tensor:
    """Return attention inside each window, shape (tokens, attention heads, features).

    Args:
        parts: what asks, what is asked and what is taken, shape (tokens, 3, heads, features).
        given: the windows.
    """
    if parts.device.type == "cuda":
        # Versions of torch that train on CPUs as well have none.
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415

        longest, starts = max(given.lengths), given.starts
        asked, keys, values = parts.unbind(1)
        found = varlen_attn(asked, keys, values, starts, starts, longest, longest)
        return cast("Tensor", found)
    return _attended_in_table(parts, given)


def _attended_in_table(parts: Tensor, given: Laid) -> Tensor:
    """Return the same, by products over all windows at once, each padded to the longest."""
    count, longest = len(given.lengths), max(given.lengths)
    _, _, heads, features = parts.shape
    places = given.windows * longest + given.places
    table = parts.new_zeros(count * longest, *parts.shape[1:]).index_copy(0, places, parts)
    asked, keys, values = table.view(count, longest, 3, heads, features).permute(2, 0, 3, 1, 4)
    lengths = torch.tensor(given.lengths, device=parts.device)
    behind = torch.arange(longest, device=parts.device)[None] >= lengths[:, None]
    closed = parts.new_zeros(count, longest).masked_fill(behind, float("-inf"))
    # Scaled before the product, and masked by a sum: both are small beside the table of scores.
    scores = (asked / math.sqrt(features)) @ keys.transpose(-1, -2) + closed[:, None, None]
    seen: Tensor = (scores.softmax(-1) @ values).transpose(1, 2)
    seen = seen.reshape(count * longest, heads, features)
    return seen.index_select(0, places)


def _dropped(hidden: Tensor, rate: float) -> Tensor:
    return dropped(hidden, rate) if hidden.device.type == "cpu" else dropout(hidden, rate)


def _pooled(hidden: Tensor, given: Laid) -> Tensor:
    """Return the mean of each window's own tokens beside its first one, (windows, 2 * hidden)."""
    count = len(given.lengths)
    own = hidden.new_zeros(count).index_add(0, given.windows, given.types.to(hidden.dtype))
    # The unit's tokens are of type 1; a text that stands alone is all type 0.
    weights = torch.where(own[given.windows] == 0, 1.0, given.types.to(hidden.dtype))
    total = hidden.new_zeros(count).index_add(0, given.windows, weights)
    zeros = hidden.new_zeros(count, hidden.shape[1])
    mean = zeros.index_add(0, given.windows, hidden * weights[:, None]) / total[:, None]
    return torch.cat([mean, hidden[given.starts[:-1].long()]], 1)


def _through(part: Any, hidden: Tensor) -> Tensor:
    return linear(hidden, part.weight.to(hidden.dtype), part.bias.to(hidden.dtype))


def _normed(part: Any, hidden: Tensor) -> Tensor:
    weight, bias = part.weight.to(hidden.dtype), part.bias.to(hidden.dtype)
    return layer_norm(hidden, part.normalized_shape, weight, bias, part.eps)


@cache
def _lays(device: str) -> bool:
    """Return whether windows can be laid end to end there."""
    if device == "cpu":
        return True
    there = device == "cuda" and find_spec("torch.nn.attention.varlen") is not None
    # The kernels ask for the same generation of chips that multiplies bfloat16.
    return there and _has_bfloat16(device)


def _kind(device: str) -> torch.dtype:
    """Return what windows that lie end to end are computed in."""
    return torch.bfloat16 if _has_bfloat16(device) else torch.float32


def _rounded(device: str) -> torch.autocast:
    """Return a context that computes in bfloat16 where the processor does."""
    return torch.autocast(device, torch.bfloat16, enabled=_has_bfloat16(device))


@cache
def _has_bfloat16(device: str) -> bool:
    """Return whether the processor multiplies bfloat16 itself; emulated it is 100 times slower."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())  # noqa: SLF001
