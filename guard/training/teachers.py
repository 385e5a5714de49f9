"""What models that were trained before say of a window, to be learnt beside the labels.

A mean of several models, which differ by seed alone, is righter than each, and one model can
learn it (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015). It also
says something of every category where a row is labelled for few, and of every unit where a label
is about the whole answer. Where each has left out a part of the questions (`--fold`), what it says
of these is no memory of labels, noisy ones among them, and counts alone (cross-fitting; for
distillation Dao et al., "Knowledge Distillation as Semiparametric Inference", ICLR 2021).

This module does not know how teachers were trained, or how their say is weighed (`train`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from guard.training.data import HEADS
from guard.training.model import GuardModel, restore
from guard.training.reading import placed, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from guard.training.passes import Bags

WEIGHTS: Final = "weights.pt"
"""Of a run, in its work folder."""

HISTORY: Final = "history.json"
"""Of a run, in its work folder: what each stage was."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A part of the questions.

    Attributes:
        part: which, from 0.
        parts: of how many.
    """

    part: int
    parts: int

    @classmethod
    def of(cls, named: str) -> Fold | None:
        """Return what a setting such as `2/4` names; empty names none.

        Raises:
            ValueError: it is no such part.
        """
        if not named:
            return None
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", named, re.ASCII)
        if not found or not 1 <= int(found[1]) <= int(found[2]) or int(found[2]) < 2:
            raise ValueError(f"`fold` is a part of at least two, as `2/4` is: {named}")
        return cls(int(found[1]) - 1, int(found[2]))

    def holds(self, questions: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return which questions are of this part, by their numbers, same shape."""
        found: NDArray[np.bool_] = questions % self.parts == self.part
        return found


class Teachers:
    """Several trained models; their mean is what they say.

    Args:
        folders: what runs left their weights in, at least one.
        place: where to compute.
    """

    def __init__(self, folders: Sequence[Path], place: torch.device) -> None:
        """Load all of them."""
        self._models = [_loaded(folder / WEIGHTS).to(place) for folder in folders]
        self._folds = [_fold(folder) for folder in folders]
        self.place = place

    def __call__(self, batch: Bags) -> Tensor:
        """Return the mean probability per window and head, shape (windows, heads).

        It is the mean of those that have not read an example's question, if there are any.

        Args:
            batch: what they read.
        """
        found = torch.zeros((len(batch.windows) - 1, len(HEADS)), device=self.place)
        for model, weights in zip(self._models, self._weights(batch).T, strict=True):
            # Whose say does not count is not asked.
            asked = np.flatnonzero(weights)
            if len(asked):
                share = placed(np.repeat(weights[asked], batch.sizes[asked]), self.place)
                with torch.no_grad():
                    said = torch.sigmoid(read(model, batch.taken(asked), self.place))
                found[placed(batch.windows_of(asked), self.place)] += share[:, None] * said
        return found

    def _weights(self, batch: Bags) -> NDArray[np.float32]:
        """Return how much each counts, shape (examples, teachers); of an example it sums to 1."""
        unread = np.zeros((len(batch), len(self._folds)), np.float32)
        for number, fold in enumerate(self._folds):
            if fold is not None:
                unread[:, number] = fold.holds(batch.questions)
        unread[~unread.any(1)] = 1
        weights: NDArray[np.float32] = unread / unread.sum(1, keepdims=True)
        return weights


class Said:
    """What teachers say of the windows of a pass; each is asked about once.

    Args:
        teachers: these.
        data: the pass.
    """

    def __init__(self, teachers: Teachers, data: Bags) -> None:
        """Know nothing yet."""
        self._teachers, self._data = teachers, data
        count = len(data.windows) - 1
        self._known = np.zeros(count, bool)
        self._table = torch.zeros((count, len(HEADS)), device=teachers.place)

    def of(self, taken: Sequence[int]) -> Tensor:
        """Return it for the windows of some of the examples, in order, shape (windows, heads)."""
        windows = self._data.windows_of(taken)
        places = placed(windows, self._teachers.place)
        if not self._known[windows].all():
            self._table[places] = self._teachers(self._data.taken(taken))
            self._known[windows] = True
        return self._table[places]


def folders(named: str) -> list[Path]:
    """Return the work folders that are named, comma-separated.

    Raises:
        FileNotFoundError: one has no weights.
    """
    found = [Path(name.strip()) for name in named.split(",") if name.strip()]
    for folder in found:
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(f"{folder} has no {WEIGHTS}: name the `--work` of a run")
    return found


def _fold(folder: Path) -> Fold | None:
    """Return what a run did not read."""
    path = folder / HISTORY
    if not path.is_file():
        return None
    stages = json.loads(path.read_text("utf-8"))
    named = {stage.get("config", {}).get("fold", "") for stage in stages}
    # What one stage has read is read.
    return Fold.of(named.pop()) if len(named) == 1 else None


def _loaded(path: Path) -> GuardModel:
    model = GuardModel(len(HEADS))
    restore(model, path)
    return model.eval().requires_grad_(requires_grad=False)
