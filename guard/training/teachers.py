"""What models that were trained before say of a window, to be learnt beside the labels.

A mean of several models, which differ by seed alone, is righter than each, and one model can
learn it (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015). It also
says something of every category where a row is labelled for few, and of every unit where a label
is about the whole answer.

This module does not know how teachers were trained, or how their say is weighed (`train`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from guard.training.data import HEADS
from guard.training.model import GuardModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

WEIGHTS: Final = "weights.pt"
"""Of a run, in its work folder."""


class Teachers:
    """Several trained models; their mean is what they say.

    Args:
        weights: files that runs left, at least one.
        place: where to compute.
    """

    def __init__(self, weights: Sequence[Path], place: torch.device) -> None:
        """Load all of them."""
        self._models = [_loaded(path).to(place) for path in weights]

    def __call__(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """Return the mean probability per window and head, shape (windows, heads).

        Args:
            ids: see `GuardModel.forward`; so are the others.
            types: token types.
            mask: 1 for tokens.
        """
        with torch.no_grad():
            said = [torch.sigmoid(model(ids, types, mask)[0].float()) for model in self._models]
        return torch.stack(said).mean(0)


def paths(named: str) -> list[Path]:
    """Return the weights of the work folders that are named, comma-separated.

    Raises:
        FileNotFoundError: a folder has no weights.
    """
    found = [Path(name.strip()) / WEIGHTS for name in named.split(",") if name.strip()]
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"{path.parent} has no {WEIGHTS}: name the `--work` of a run")
    return found


def _loaded(path: Path) -> GuardModel:
    model = GuardModel(len(HEADS))
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval().requires_grad_(requires_grad=False)
