"""Fine-tunes the encoder with masked, weighted, soft-label binary cross-entropy.

This module does not know how rows were split (`data`), what a calibrated score is
(`calibrate`) or how the model is shipped (`export`).
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from guard.training.data import HEADS
from guard.training.examples import examples
from guard.training.model import GuardModel

if TYPE_CHECKING:
    from pathlib import Path

    from guard.encoding import Encoder
    from guard.training.data import Split
    from guard.training.examples import Example

_BUCKET: Final = 50
"""Batches that are sorted by length together."""


@dataclass(frozen=True, slots=True)
class Config:
    """How to train. All of it goes into the model's manifest.

    Attributes:
        minutes: wall-clock budget; the schedule ends with it or with the rows.
        batch: windows per step.
        encoder_rate: peak learning rate of the encoder.
        head_rate: peak learning rate of the head.
        warmup: share of the schedule in which the rate rises.
        seed: of sampling, shuffling and initial weights.
        threads: of torch.
        rows: at most so many rows, `None` for all.
        frozen: how many of the encoder's lowest layers are not trained.
        share: share of each file's rows, for all but the project's own.
    """

    minutes: float = 40.0
    batch: int = 32
    encoder_rate: float = 6e-5
    head_rate: float = 1e-3
    warmup: float = 0.06
    weight_decay: float = 0.01
    seed: int = 7
    threads: int = 2
    rows: int | None = None
    frozen: int = 2
    share: float = 1.0


def train(
    split: Split, encoder: Encoder, config: Config, out: Path, start: Path | None = None
) -> tuple[GuardModel, dict[str, Any]]:
    """Train one pass over the rows or as much of it as the time allows; save the weights to `out`.

    `start` names weights to go on from, those of an earlier run. Returns the model and what
    happened: steps, examples seen, minutes, loss.
    """
    rng = random.Random(config.seed)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    rows = split.train[:]
    rng.shuffle(rows)
    data = list(examples(tqdm(rows[: config.rows], "encoding", unit="row"), encoder, rng))
    model = GuardModel(len(HEADS), frozen=config.frozen)
    if start is not None:
        model.load_state_dict(torch.load(start, weights_only=True))
    history = _fit(model, data, config, rng) | {"config": asdict(config), "rows": len(rows)}
    torch.save(model.state_dict(), out)
    return model, history


def head_weights(data: list[Example]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a weight per head, so that rare categories are not drowned: 1 to 6."""
    counts = np.maximum(sum(example.mask for example in data), 1.0)
    return np.asarray(np.clip(np.sqrt(counts.max() / counts), 1.0, 6.0), np.float32)


def _fit(
    model: GuardModel, data: list[Example], config: Config, rng: random.Random
) -> dict[str, Any]:
    optimiser = torch.optim.AdamW(
        [
            {
                "params": [p for p in model.encoder.parameters() if p.requires_grad],
                "lr": config.encoder_rate,
            },
            {"params": model.head.parameters(), "lr": config.head_rate},
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )
    peaks = [group["lr"] for group in optimiser.param_groups]
    weights = torch.from_numpy(head_weights(data))
    batches = _batches(data, config.batch, rng)
    started, seen, running = time.monotonic(), 0, 0.0
    model.train()
    bar = tqdm(batches, "training", unit="batch", mininterval=10)
    for step, batch in enumerate(bar):
        elapsed = (time.monotonic() - started) / (60 * config.minutes)
        progress = max(step / len(batches), elapsed)
        if progress >= 1:
            break
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * _schedule(progress, config.warmup)
        loss = _step(model, optimiser, batch, weights)
        seen += len(batch)
        running = loss if step == 0 else 0.98 * running + 0.02 * loss
        bar.set_postfix(loss=f"{running:.4f}", refresh=False)
    minutes = (time.monotonic() - started) / 60
    return {
        "steps": step + 1,
        "examples": seen,
        "of": len(data),
        "minutes": minutes,
        "loss": running,
    }


def _schedule(progress: float, warmup: float) -> float:
    """Return the share of the peak rate: a linear rise, then a linear fall to 0."""
    return min(progress / warmup, (1 - progress) / (1 - warmup))


def _batches(data: list[Example], size: int, rng: random.Random) -> list[list[Example]]:
    """Shuffle, then sort by length within stretches, so that little is padded."""
    data = data[:]
    rng.shuffle(data)
    stretch = size * _BUCKET
    batches: list[list[Example]] = []
    for at in range(0, len(data), stretch):
        part = sorted(data[at : at + stretch], key=lambda example: len(example.ids))
        cut = [part[i : i + size] for i in range(0, len(part), size)]
        rng.shuffle(cut)
        batches += cut
    return batches


def _step(model: GuardModel, optimiser: Any, batch: list[Example], weights: torch.Tensor) -> float:
    ids, types, mask = padded(batch)
    targets = torch.from_numpy(np.stack([example.targets for example in batch]))
    known = torch.from_numpy(np.stack([example.mask for example in batch])) * weights
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_has_bfloat16()):
        logits, _ = model(ids, types, mask)
    losses = binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    loss = (losses * known).sum() / known.sum().clamp(min=1.0)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


@cache
def _has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 itself; emulated it is 100 times slower."""
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())  # noqa: SLF001


def padded(batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, types and mask of a batch, each of shape (batch, longest)."""
    longest = max(len(example.ids) for example in batch)
    ids, types, mask = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(3))
    for i, example in enumerate(batch):
        n = len(example.ids)
        ids[i, :n] = torch.from_numpy(example.ids)
        types[i, :n] = torch.from_numpy(example.types)
        mask[i, :n] = 1
    return ids, types, mask
