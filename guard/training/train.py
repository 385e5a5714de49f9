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
import random
import time
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn.functional import softplus
from tqdm import tqdm

from guard.errors import did_you_mean
from guard.training.balance import balanced
from guard.training.cpu import trim_memory
from guard.training.data import HEADS
from guard.training.examples import of_side
from guard.training.model import GuardModel, restore, saved
from guard.training.passes import encoded
from guard.training.reading import placed, read
from guard.training.rehearse import rehearse
from guard.training.subwords import Subwords
from guard.training.teachers import WEIGHTS, Fold, Said, Teachers, folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from guard.encoding import Encoder
    from guard.training.data import Row, Split
    from guard.training.passes import Bags

_BUCKET: Final = 50
"""Batches that are sorted by length together."""

CHECKPOINT: Final = "checkpoint.pt"
_CHECKPOINT_SECONDS: Final = 300.0

_SHARES: Final = ("closing", "kept", "subwords", "taught")

_SHOWN: Final = 20
"""Steps between two looks at the loss."""

_TRIMMED: Final = 25
"""Steps after which memory that is kept but not used goes back: batches differ in length."""


@dataclass(frozen=True, slots=True)
class Config:
    """How to train. All of it goes into the model's manifest.

    Attributes:
        epochs: passes over the rows; each draws other windows, and augments them anew.
        draws: how many passes are drawn; later ones read these again, in other batches, and what
            teachers say of them is asked once. `None` to draw each.
        minutes: wall-clock budget; the schedule ends with it or with the last pass.
        batch: rows per step.
        encoder_rate: peak learning rate of the encoder.
        head_rate: peak learning rate of the head.
        warmup: share of the schedule in which the rate rises.
        weight_decay: of AdamW.
        dropout: inside the encoder; a single pass does not overfit without.
        seed: of initial weights, of what is dropped and of the order.
        data_seed: of what is sampled, drawn and augmented; as `seed` by default.
        threads: of torch.
        workers: processes that encode rows, beside this one; 0 to encode them here.
        fold: part of the questions that is not read, `2/4` for the second quarter; as a teacher,
            what it says of these counts before what others say who read them. Empty to read all.
        rows: at most so many rows per pass, `None` for all.
        frozen: how many of the encoder's lowest layers are not trained.
        share: share of each file's rows, for all but the project's own.
        average: decay per step of the averaged weights.
        kept: share of the weights that a run began with in those that it leaves, from 0 to 1, so
            that what a short run learns of few rows costs less of what was known (Wortsman et al.,
            CVPR 2022).
        rehearse: 1 to train as the quantised graph will compute.
        balance: 1 to weigh rows so that length alone tells no label (`guard.training.balance`).
        heads: categories to train alone, comma-separated; empty for all.
        closing: how many of the answers of several units are also read as a whole, as the closing
            read does, from 0 to 1.
        subwords: how many windows have words cut into other pieces, from 0 to 1.
        teachers: `--work` folders of runs whose mean is learnt beside the labels, comma-separated.
        taught: how much what they say weighs against the labels, from 0 to 1.
        device: `cpu`, `cuda`, or `auto` for the latter where there is one.
    """

    epochs: int = 1
    draws: int | None = None
    minutes: float = 40.0
    batch: int = 32
    encoder_rate: float = 6e-5
    head_rate: float = 1e-3
    warmup: float = 0.06
    weight_decay: float = 0.01
    dropout: float = 0.0
    seed: int = 7
    data_seed: int | None = None
    threads: int = 2
    workers: int = 0
    fold: str = ""
    rows: int | None = None
    frozen: int = 2
    share: float = 1.0
    average: float = 0.998
    kept: float = 0.0
    rehearse: int = 0
    balance: int = 0
    heads: str = ""
    closing: float = 0.0
    subwords: float = 0.0
    teachers: str = ""
    taught: float = 0.5
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a share is not from 0 to 1, `fold` is none, one of the `heads` is no
                category that the classifier scores, or `draws` is less than one.
        """
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is a share, from 0 to 1: {getattr(self, name)}")
        Fold.of(self.fold)
        _named_heads(self.heads)
        if self.draws is not None and self.draws < 1:
            raise ValueError(f"`draws` is how many passes are drawn, at least one: {self.draws}")

    @property
    def trained(self) -> tuple[str, ...]:
        """The heads that are trained."""
        return _named_heads(self.heads) or HEADS

    @property
    def drawn(self) -> int:
        """How many passes are drawn."""
        return self.epochs if self.draws is None else min(self.draws, self.epochs)

    @property
    def drawn_with(self) -> int:
        """The seed of what is sampled, drawn and augmented."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def torch_device(self) -> torch.device:
        """Where to train."""
        found = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(found if self.device == "auto" else self.device)


def _named_heads(listed: str) -> tuple[str, ...]:
    """Return the heads that are listed, comma-separated.

    Raises:
        ValueError: one of them is no category that the classifier scores.
    """
    named = tuple(name.strip() for name in listed.split(",") if name.strip())
    for name in named:
        if name not in HEADS:
            raise ValueError(f"`{name}` is no head{did_you_mean(name, HEADS)}")
    return named


def train(  # noqa: PLR0913  # all but the rows and how to read them say where
    split: Split,
    encoder: Encoder,
    config: Config,
    out: Path,
    start: Path | None = None,
    *,
    keep: bool = False,
) -> tuple[GuardModel, dict[str, Any]]:
    """Train on the rows for as many passes as the time allows; save the weights to `out`.

    Beside `out` a checkpoint is kept; a run that was cut off and is started again with the
    same settings and rows goes on from there. `start` names weights to begin with, those of
    an earlier run. Returns the model and what happened: steps, examples seen, minutes, loss.
    With `keep` the checkpoint stays at the end, and the same run begun again is over at once:
    whoever goes on with the weights removes it when that is done, too.

    Passes beyond those of `split` begin with its first again.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    # What is not rounded to bfloat16 on purpose needs no more than a GPU's 19 bits either.
    torch.set_float32_matmul_precision("high")
    passes = [_ordered(split, config, number) for number in range(config.drawn)]
    model = GuardModel(
        len(HEADS),
        frozen=config.frozen,
        inner_dropout=config.dropout,
        # On a CPU the fused kernel's way back takes longer than the matrices it saves.
        attention="eager" if config.torch_device.type == "cpu" else "sdpa",
    )
    if start is not None:
        restore(model, start)
    if config.rehearse:
        rehearse(model.encoder.encoder)
        model.plain = False
    taught_by = folders(config.teachers)
    teachers = Teachers(taught_by, config.torch_device) if taught_by else None
    subwords = Subwords(encoder.vocabulary(), config.subwords) if config.subwords else None
    run = _Run(model.to(config.torch_device), config, teachers, subwords)
    checkpoint = out.parent / CHECKPOINT
    begun_with = [*([] if start is None else [start]), *(f / WEIGHTS for f in taught_by)]
    identity = {"config": asdict(config), "rows": _digest(passes, encoder, begun_with)}
    run.resume(checkpoint, identity)
    data = encoded(passes, encoder, config.drawn_with, config.workers, closing=config.closing)
    history = run.fit(data, checkpoint, identity)
    weights = {name: value.cpu() for name, value in run.averaged.items()}
    if start is not None and config.kept:
        weights = _between(weights, saved(start), config.kept)
    torch.save(weights, out)
    trained = GuardModel(len(HEADS))
    trained.load_state_dict(weights)
    if not keep:
        checkpoint.unlink(missing_ok=True)
    facts = {"config": asdict(config), "rows": sum(map(len, passes)), "machine": _machine(config)}
    return trained, history | facts


def _between(
    trained: dict[str, torch.Tensor], before: dict[str, torch.Tensor], kept: float
) -> dict[str, torch.Tensor]:
    """Return weights on the line from `trained`, at 0, to those `before`, at 1."""
    return {
        name: torch.lerp(value, before[name], kept) if value.is_floating_point() else value
        for name, value in trained.items()
    }


def _machine(config: Config) -> str:
    """Return what a run computes on."""
    if config.torch_device.type == "cuda":
        return torch.cuda.get_device_name(config.torch_device)
    return f"{config.threads} CPU threads"


def _ordered(split: Split, config: Config, number: int) -> list[Row]:
    """Return the rows of a pass in the order in which they are encoded."""
    heads, fold = set(config.trained), Fold.of(config.fold)
    rows = [row for row in split.passes[number % len(split.passes)] if heads & row.labels.keys()]
    if fold is not None:
        left_out = fold.holds(np.array([row.question_number for row in rows], np.uint32))
        rows = [row for row, out in zip(rows, left_out, strict=True) if not out]
    rows = balanced(rows) if config.balance else rows
    random.Random(f"{config.drawn_with}:{number}").shuffle(rows)
    return rows[: config.rows]


def _digest(passes: list[list[Row]], encoder: Encoder, weights: list[Path]) -> str:
    """Return what a run is about: its rows in order, how they are encoded, others' weights."""
    digest = hashlib.sha256()
    for path in weights:
        digest.update(path.read_bytes())
    digest.update(repr(encoder.recipe()).encode())
    for row in chain.from_iterable(passes):
        said = (row.prompt, row.response, row.weight, *row.labels.items(), *row.emphasis.items())
        digest.update(repr(said).encode("utf-8", "replace"))
    return digest.hexdigest()


def head_weights(masks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a weight per head, so that rare categories are not drowned: 1 to 6.

    Args:
        masks: weight of each head in each example, shape (examples, heads).
    """
    counts = np.maximum(masks.sum(0, dtype=float), 1.0)
    return np.asarray(np.clip(np.sqrt(counts.max() / counts), 1.0, 6.0), np.float32)


class _Run:
    """One run: model, optimiser, averaged weights and how far it is."""

    def __init__(
        self,
        model: GuardModel,
        config: Config,
        teachers: Teachers | None,
        subwords: Subwords | None,
    ) -> None:
        self.model = model
        self._teachers, self._subwords = teachers, subwords
        self._config = config
        trained = [p for p in model.encoder.parameters() if p.requires_grad]
        groups = [
            {"params": trained, "lr": config.encoder_rate},
            {"params": model.head.parameters(), "lr": config.head_rate},
        ]
        self._optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self._peaks = (config.encoder_rate, config.head_rate)
        self.averaged = {name: value.clone() for name, value in model.state_dict().items()}
        # Kept where it is computed: to read it at every step would have the CPU wait for a GPU.
        self._loss = torch.zeros((), device=config.torch_device)
        self._done: dict[str, Any] = {"pass": 0, "step": 0, "steps": 0, "examples": 0}
        self._minutes = 0.0
        self._said: dict[int, Said] = {}

    def resume(self, path: Path, identity: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same settings and rows, if there is one.

        Raises:
            ModelError: the file is damaged.
        """
        if not path.is_file():
            return
        kept = saved(path, self._config.torch_device)
        if kept["identity"] != identity:
            return
        self.model.load_state_dict(kept["model"])
        self._optimiser.load_state_dict(kept["optimiser"])
        self.averaged, self._done = kept["averaged"], kept["done"]
        self._loss, self._minutes = kept["loss"], kept["minutes"]
        # Dropout goes on with the draws that an uninterrupted run would make.
        torch.set_rng_state(kept["random"].cpu())
        if kept["random_there"]:
            torch.cuda.set_rng_state_all([state.cpu() for state in kept["random_there"]])

    def fit(
        self, passes: Iterator[Bags], checkpoint: Path, identity: dict[str, Any]
    ) -> dict[str, Any]:
        """Take the steps that are left and save a checkpoint; return what happened."""
        if not self._done.get("over"):
            self._go_on(passes, checkpoint, identity)
            self._done["over"] = True
            self._save(checkpoint, identity)
        return self._history()

    def _go_on(self, passes: Iterator[Bags], checkpoint: Path, identity: dict[str, Any]) -> None:
        """Take the steps that are left."""
        before, started = self._minutes, time.monotonic()
        saved = started
        self.model.train()
        for number, data in enumerate(_again(passes, self._config)):
            if number == 0:
                # Passes hardly differ in what they know of each head.
                trained = np.isin(HEADS, self._config.trained)
                self._weights = torch.from_numpy(head_weights(data.mask) * trained)
                self._weights = self._weights.to(self._config.torch_device)
            if number < self._done["pass"]:
                continue
            for step, taken, share in self._steps(data, number):
                now = time.monotonic()
                self._minutes = before + (now - started) / 60
                progress = max(share, self._minutes / self._config.minutes)
                if progress >= 1:
                    return
                self._step(data, taken, number, _schedule(progress, self._config.warmup))
                self._done |= {"pass": number, "step": step + 1}
                if self._done["steps"] % _TRIMMED == 0:
                    trim_memory()
                if now - saved > _CHECKPOINT_SECONDS:
                    saved = now
                    self._save(checkpoint, identity)
            self._done |= {"pass": number + 1, "step": 0}

    def _steps(self, data: Bags, number: int) -> Iterator[tuple[int, list[int], float]]:
        """Yield the steps that are left of a pass: number, examples and share of the schedule."""
        config = self._config
        batches = _batches(data, config.batch, random.Random(f"{config.seed}:{number}:batches"))
        bar = tqdm(
            total=len(batches),
            desc=f"training, pass {number + 1} of {config.epochs}",
            initial=self._done["step"],
            unit="batch",
            mininterval=10,
        )
        with bar:
            for step in range(self._done["step"], len(batches)):
                share = (number + step / len(batches)) / config.epochs
                yield step, batches[step], share
                if step % _SHOWN == 0:
                    bar.set_postfix(loss=f"{float(self._loss):.4f}", refresh=False)
                bar.update()

    def _step(self, data: Bags, taken: list[int], number: int, rate: float) -> None:
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate
        batch, taught = self._shown(data.taken(taken)), self._taught(data, taken, number)
        loss = batch_loss(self.model, batch, self._weights, taught)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimiser.step()
        steps = self._done["steps"]
        self._loss.lerp_(loss.detach(), 0.02 if steps else 1.0)
        # A short memory at first, so that the start does not weigh on the average.
        decay = min(self._config.average, (1 + steps) / (10 + steps))
        with torch.no_grad():
            kept = self.model.state_dict()
            # One kernel for all: on a GPU a hundred would take as long as the encoder.
            torch._foreach_lerp_([self.averaged[n] for n in kept], [*kept.values()], 1 - decay)
        self._done |= {"steps": steps + 1, "examples": self._done["examples"] + len(batch)}

    def _shown(self, batch: Bags) -> Bags:
        """Return a batch as the model reads it."""
        if self._subwords is None:
            return batch
        steps = self._done["steps"]
        return self._subwords.cut(batch, np.random.default_rng((self._config.seed, steps)))

    def _taught(self, data: Bags, taken: list[int], number: int) -> Taught | None:
        """Return what the teachers say of a pass's examples; they read them as they stand."""
        if self._teachers is None:
            return None
        drawn = number % self._config.drawn
        if drawn not in self._said:
            # What is not read again is not kept either.
            again = self._said if self._config.drawn < self._config.epochs else {}
            self._said = {**again, drawn: Said(self._teachers, data)}
        return Taught(self._said[drawn].of(taken), self._config.taught)

    def _history(self) -> dict[str, Any]:
        return {
            "steps": self._done["steps"],
            "examples": self._done["examples"],
            "minutes": self._minutes,
            "loss": float(self._loss),
        }

    def _save(self, path: Path, identity: dict[str, Any]) -> None:
        kept = {
            "identity": identity,
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "averaged": self.averaged,
            "done": self._done,
            "loss": self._loss,
            "minutes": self._minutes,
            "random": torch.get_rng_state(),
            "random_there": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        aside = path.with_suffix(".part")
        torch.save(kept, aside)
        aside.replace(path)


def _schedule(progress: float, warmup: float) -> float:
    """Return the share of the peak rate: a linear rise, then a linear fall to 0."""
    return min(progress / warmup, (1 - progress) / (1 - warmup))


def _again(passes: Iterator[Bags], config: Config) -> Iterator[Bags]:
    """Yield the passes that are drawn, then the same again until there are as many as asked."""
    kept: list[Bags] = []
    for data in passes:
        if config.drawn < config.epochs:
            kept.append(data)
        yield data
    for number in range(config.drawn, config.epochs):
        yield kept[number % config.drawn]


def _batches(data: Bags, size: int, rng: random.Random) -> list[list[int]]:
    """Shuffle, then sort by length within stretches, so that little is padded."""
    order = list(range(len(data)))
    rng.shuffle(order)
    longest = data.longest
    stretch = size * _BUCKET
    batches: list[list[int]] = []
    for at in range(0, len(order), stretch):
        part = sorted(order[at : at + stretch], key=lambda index: int(longest[index]))
        cut = [part[i : i + size] for i in range(0, len(part), size)]
        rng.shuffle(cut)
        batches += cut
    return batches


@dataclass(frozen=True, slots=True)
class Taught:
    """What teachers say of a batch's windows.

    Attributes:
        said: probability per window and head, shape (windows, heads).
        share: of it in the loss, in [0, 1]; the rest is the labels'.
    """

    said: torch.Tensor
    share: float


def batch_loss(
    model: GuardModel, batch: Bags, weights: torch.Tensor, taught: Taught | None = None
) -> torch.Tensor:
    """Return the mean weighted loss of a batch, a scalar.

    Args:
        model: in training mode.
        batch: examples with one window or more each.
        weights: of the heads, shape (heads,), where the model is.
        taught: what is learnt beside the labels: of every window, and of every head that is about
            its side of the exchange.
    """
    logits = read(model, batch, weights.device)
    labelled = _labelled(logits, batch, weights)
    if taught is None:
        return labelled
    heads = np.repeat(of_side(batch.mask), batch.sizes, axis=0)
    known = placed(heads, weights.device) * weights
    apart = softplus(logits) - taught.said * logits
    copied = (apart * known).sum() / known.sum().clamp(min=1.0)
    return taught.share * copied + (1 - taught.share) * labelled


def _labelled(logits: torch.Tensor, batch: Bags, weights: torch.Tensor) -> torch.Tensor:
    """Return how far the windows' logits, shape (windows, heads), are from the labels."""
    targets = placed(batch.targets, weights.device)
    known = placed(batch.mask, weights.device) * weights
    high, low = _pooled(logits, batch.sizes)
    losses = targets * softplus(-high) + (1 - targets) * low
    return (losses * known).sum() / known.sum().clamp(min=1.0)


def _pooled(logits: torch.Tensor, sizes: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each bag's soft maximum and its mean of what a fine unit costs, (bags, heads)."""
    # One padded table: a kernel per bag would take a GPU longer than the encoder.
    bags = np.repeat(np.arange(len(sizes)), sizes)
    places = np.arange(len(bags)) - (np.cumsum(sizes) - sizes)[bags]
    count, bag, place = (placed(part, logits.device) for part in (sizes, bags, places))
    shape = (len(sizes), int(sizes.max()), logits.shape[1])
    table = torch.full(shape, float("-inf"), device=logits.device)
    table = table.index_put((bag, place), logits)
    high = table.logsumexp(1) - torch.log(count).unsqueeze(1)
    low = torch.zeros_like(high).index_add(0, bag, softplus(logits)) / count.unsqueeze(1)
    return high, low
