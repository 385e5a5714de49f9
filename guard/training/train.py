"""Fine-tunes the encoder with masked, weighted, soft-label binary cross-entropy over bags of units.

A row's label is about the whole response and not about each of its units (multiple-instance
learning, Dietterich et al., Artificial Intelligence 89, 1997): of a risky row the soft
maximum over the drawn units should be high, of a fine one every unit should be low. What is
kept are averaged weights (Polyak and Juditsky, SIAM J. Control Optim. 30, 1992).

This module does not know how rows were split (`data`), what a calibrated score is
(`calibrate`) or how the model is shipped (`export`).
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn.functional import softplus
from tqdm import tqdm

from guard.training.balance import balanced
from guard.training.data import HEADS
from guard.training.examples import examples
from guard.training.model import GuardModel
from guard.training.rehearse import rehearse

if TYPE_CHECKING:
    from pathlib import Path

    from guard.encoding import Encoded, Encoder
    from guard.training.data import Split
    from guard.training.examples import Example

_BUCKET: Final = 50
"""Batches that are sorted by length together."""

CHECKPOINT: Final = "checkpoint.pt"
_CHECKPOINT_SECONDS: Final = 300.0


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
        average: decay per step of the averaged weights.
        rehearse: 1 to train as the quantised graph will compute.
        balance: 1 to weigh rows so that length alone tells no label (`guard.training.balance`).
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
    average: float = 0.998
    rehearse: int = 0
    balance: int = 0


def train(
    split: Split, encoder: Encoder, config: Config, out: Path, start: Path | None = None
) -> tuple[GuardModel, dict[str, Any]]:
    """Train one pass over the rows or as much of it as the time allows; save the weights to `out`.

    Beside `out` a checkpoint is kept; a run that was cut off and is started again with the
    same settings and rows goes on from there. `start` names weights to begin with, those of
    an earlier run. Returns the model and what happened: steps, examples seen, minutes, loss.
    """
    rng = random.Random(config.seed)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    rows = balanced(split.train) if config.balance else split.train[:]
    rng.shuffle(rows)
    data = list(examples(tqdm(rows[: config.rows], "encoding", unit="row"), encoder, rng))
    model = GuardModel(len(HEADS), frozen=config.frozen)
    if start is not None:
        model.load_state_dict(torch.load(start, weights_only=True))
    if config.rehearse:
        rehearse(model.encoder.encoder)
    run = _Run(model, config, head_weights(data))
    checkpoint = out.parent / CHECKPOINT
    identity = {"config": asdict(config), "examples": _digest(data, start)}
    run.resume(checkpoint, identity)
    history = run.fit(_batches(data, config.batch, rng), checkpoint, identity)
    torch.save(run.averaged, out)
    trained = GuardModel(len(HEADS))
    trained.load_state_dict(run.averaged)
    checkpoint.unlink(missing_ok=True)
    return trained, history | {"of": len(data), "config": asdict(config), "rows": len(rows)}


def _digest(data: list[Example], start: Path | None) -> str:
    """Return what a run is about: its examples in order, and the weights that it began with."""
    digest = hashlib.sha256(b"" if start is None else start.read_bytes())
    for example in data:
        for window in example.windows:
            digest.update(window.ids.tobytes())
        digest.update(example.targets.tobytes() + example.mask.tobytes())
    return digest.hexdigest()


def head_weights(data: list[Example]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a weight per head, so that rare categories are not drowned: 1 to 6."""
    counts = np.maximum(sum(example.mask for example in data), 1.0)
    return np.asarray(np.clip(np.sqrt(counts.max() / counts), 1.0, 6.0), np.float32)


class _Run:
    """One run: model, optimiser, averaged weights and how far it is."""

    def __init__(self, model: GuardModel, config: Config, weights: Any) -> None:
        self.model = model
        self._config = config
        self._weights = torch.from_numpy(weights)
        trained = [p for p in model.encoder.parameters() if p.requires_grad]
        groups = [
            {"params": trained, "lr": config.encoder_rate},
            {"params": model.head.parameters(), "lr": config.head_rate},
        ]
        self._optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self._peaks = (config.encoder_rate, config.head_rate)
        self.averaged = {name: value.clone() for name, value in model.state_dict().items()}
        self._done: dict[str, Any] = {"steps": 0, "examples": 0, "minutes": 0.0, "loss": 0.0}

    def resume(self, path: Path, identity: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same settings and rows, if there is one."""
        if not path.is_file():
            return
        kept = torch.load(path, weights_only=True)
        if kept["identity"] != identity:
            return
        self.model.load_state_dict(kept["model"])
        self._optimiser.load_state_dict(kept["optimiser"])
        self.averaged, self._done = kept["averaged"], kept["done"]
        # Dropout goes on with the draws that an uninterrupted run would make.
        torch.set_rng_state(kept.get("random", torch.get_rng_state()))

    def fit(
        self, batches: list[list[Example]], checkpoint: Path, identity: dict[str, Any]
    ) -> dict[str, Any]:
        """Take the steps that are left; return what happened."""
        first, before, started = self._done["steps"], self._done["minutes"], time.monotonic()
        saved = started
        self.model.train()
        bar = tqdm(
            batches[first:],
            "training",
            len(batches),
            initial=first,
            unit="batch",
            mininterval=10,
        )
        for step, batch in enumerate(bar, first):
            now = time.monotonic()
            minutes = before + (now - started) / 60
            progress = max(step / len(batches), minutes / self._config.minutes)
            if progress >= 1:
                break
            self._step(batch, _schedule(progress, self._config.warmup))
            self._note(step, batch, minutes, bar)
            if now - saved > _CHECKPOINT_SECONDS:
                saved = now
                self._save(checkpoint, identity)
        return dict(self._done)

    def _step(self, batch: list[Example], rate: float) -> None:
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate
        loss = batch_loss(self.model, batch, self._weights)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimiser.step()
        self._last = float(loss.detach())
        # A short memory at first, so that the start does not weigh on the average.
        decay = min(self._config.average, (1 + self._done["steps"]) / (10 + self._done["steps"]))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.averaged[name].lerp_(value, 1 - decay)

    def _note(self, step: int, batch: list[Example], minutes: float, bar: Any) -> None:
        known = self._done
        loss = self._last if step == 0 else 0.98 * known["loss"] + 0.02 * self._last
        seen = known["examples"] + len(batch)
        self._done = {"steps": step + 1, "examples": seen, "minutes": minutes, "loss": loss}
        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)

    def _save(self, path: Path, identity: dict[str, Any]) -> None:
        kept = {
            "identity": identity,
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "averaged": self.averaged,
            "done": self._done,
            "random": torch.get_rng_state(),
        }
        aside = path.with_suffix(".part")
        torch.save(kept, aside)
        aside.replace(path)


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
        part = sorted(data[at : at + stretch], key=lambda example: example.longest)
        cut = [part[i : i + size] for i in range(0, len(part), size)]
        rng.shuffle(cut)
        batches += cut
    return batches


def batch_loss(model: GuardModel, batch: list[Example], weights: torch.Tensor) -> torch.Tensor:
    """Return the mean weighted loss of a batch, a scalar.

    Args:
        model: in training mode.
        batch: examples with one window or more each.
        weights: of the heads, shape (heads,).
    """
    ids, types, mask = padded([window for example in batch for window in example.windows])
    targets = torch.from_numpy(np.stack([example.targets for example in batch]))
    known = torch.from_numpy(np.stack([example.mask for example in batch])) * weights
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_has_bfloat16()):
        logits, _ = model(ids, types, mask)
    bags = logits.float().split([len(example.windows) for example in batch])
    high = torch.stack([bag.logsumexp(0) - math.log(len(bag)) for bag in bags])
    low = torch.stack([softplus(bag).mean(0) for bag in bags])
    losses = targets * softplus(-high) + (1 - targets) * low
    return (losses * known).sum() / known.sum().clamp(min=1.0)


@cache
def _has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 itself; emulated it is 100 times slower."""
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())  # noqa: SLF001


def padded(windows: list[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, types and mask of windows, each of shape (windows, longest)."""
    longest = max(len(window.ids) for window in windows)
    ids, types, mask = (torch.zeros(len(windows), longest, dtype=torch.long) for _ in range(3))
    for i, window in enumerate(windows):
        n = len(window.ids)
        ids[i, :n] = torch.from_numpy(window.ids)
        types[i, :n] = torch.from_numpy(window.types)
        mask[i, :n] = 1
    return ids, types, mask
