"""Mixes the weights of runs that began with the same ones.

    python -m guard.training.mix --work W6 W4=0.4 W5=0.6

A model that is trained on for a while gains on what it is shown and loses some of what it had, on
text of other kinds above all. Weights between those before and after keep most of both (Wortsman
et al., Robust fine-tuning of zero-shot models, CVPR 2022). Each argument is the work folder of a
run, or a finished model's directory, and its share. `guard train --work W6 --rebuild` makes a model
of the result.

This module does not know which shares are good: validation rows say (`benchmarks/ablations.py`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from guard.training.pipeline import HISTORY, WEIGHTS, known_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Weights = Mapping[str, torch.Tensor]

_MIXED: Final = "mixed"


def mixed(parts: Sequence[tuple[Weights, float]]) -> dict[str, torch.Tensor]:
    """Return the mean of weights, each with its share.

    Raises:
        ValueError: shares are not positive or do not add up to 1, or the weights are of models
            of different forms.
    """
    shares = [share for _, share in parts]
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares must be positive and add up to 1, not {sum(shares):g}")
    forms = [{name: value.shape for name, value in weights.items()} for weights, _ in parts]
    if any(form != forms[0] for form in forms):
        raise ValueError("the weights are of models of different forms")
    first = parts[0][0]
    return {name: _mean([(w[name], share) for w, share in parts]) for name in first}


def _mean(values: Sequence[tuple[torch.Tensor, float]]) -> torch.Tensor:
    if not values[0][0].is_floating_point():
        return values[0][0]
    total = torch.zeros_like(values[0][0], dtype=torch.float64)
    for value, share in values:
        total += share * value.double()
    return total.to(values[0][0].dtype)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, mix, and keep what came before in the history."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where the mixed weights go")
    parser.add_argument("parts", nargs="+", type=_part, metavar="RUN=SHARE")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    try:
        known = [(known_weights(folder), share) for folder, share in given.parts]
        weights = mixed([(weights, share) for (weights, _), share in known])
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    torch.save(weights, given.work / WEIGHTS)
    stages: list[dict[str, Any]] = max((stages for (_, stages), _ in known), key=len)
    shares = [{"stages": len(stages), "share": share} for (_, stages), share in known]
    (given.work / HISTORY).write_text(
        json.dumps([*stages, {_MIXED: shares}], indent=2), encoding="utf-8"
    )


def _part(text: str) -> tuple[Path, float]:
    folder, _, share = text.rpartition("=")
    if not folder:
        raise argparse.ArgumentTypeError(f"`{text}` is no RUN=SHARE")
    return Path(folder), float(share)


if __name__ == "__main__":
    main()
