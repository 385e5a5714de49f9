"""Length: how well it alone predicts each label, and weights under which it does not.

    python -m guard.training.balance --data FOLDER

shows per head the mean length of positive and negative training rows, and the AUROC of length
alone, as the rows are and as `balanced` weighs them. A model can only learn a shortcut that
the training rows offer (Geirhos et al., "Shortcut learning in deep neural networks", 2020).

Within each band of length positives and negatives get equal shares of their sides' weight
(inverse propensity weights on the overlap of both; Li, Morgan and Zaslavsky, "Balancing
covariates via propensity score weighting", 2018).

This module does not know what a text says.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from guard.categories import CATEGORIES
from guard.training.data import HEADS, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from guard.training.data import Row

BANDS: Final = 10
"""Bands of length, of equal numbers of rows."""

LARGEST: Final = 4.0
"""Bound of a row's factor, and one over it: a rare row must not count for a hundred."""

FEWEST: Final = 2


@dataclass(frozen=True, slots=True)
class Lengths:
    """Length against one head's label, in characters of the text that the head judges.

    Attributes:
        positives: number of rows with a label of .5 and more; negatives: of the others.
        positive_mean: mean length of the positives; negative_mean: of the negatives.
        auroc: of length alone, `None` where one side is (nearly) empty; .5 says nothing,
            and below .5 shorter texts are the positive ones.
    """

    positives: int
    negatives: int
    positive_mean: float
    negative_mean: float
    auroc: float | None


def lengths(rows: Iterable[Row], head: str) -> Lengths:
    """Return how length and label of `head` go together, rows weighted as in the loss."""
    known = [row for row in rows if _judged(row, head)]
    size, truth, weight = _arrays(known, head)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    auroc = None
    if min(positives, negatives) >= FEWEST:
        auroc = float(roc_auc_score(truth, size, sample_weight=weight))
    return Lengths(positives, negatives, _mean(size[truth]), _mean(size[~truth]), auroc)


def balanced(rows: Sequence[Row], heads: Iterable[str] = HEADS) -> list[Row]:
    """Return the rows with an emphasis per head under which length says little of the label.

    Nothing changes for a head with fewer than `FEWEST` rows of either side, or for rows
    whose label is unknown. The mean emphasis of each side stays 1.
    """
    emphasis: list[dict[str, float]] = [dict(row.emphasis) for row in rows]
    for head in heads:
        places = [at for at, row in enumerate(rows) if _judged(row, head)]
        size, truth, weight = _arrays([rows[at] for at in places], head)
        if min(truth.sum(), (~truth).sum()) < FEWEST:
            continue
        for at, factor in zip(places, _factors(size, truth, weight), strict=True):
            emphasis[at][head] = emphasis[at].get(head, 1.0) * float(factor)
    return [replace(row, emphasis=found) for row, found in zip(rows, emphasis, strict=True)]


def _factors(
    size: NDArray[np.float64], truth: NDArray[np.bool_], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a factor per row, so that both sides have the same share in every band."""
    edges = np.quantile(size, np.linspace(0, 1, BANDS + 1)[1:-1])
    band = np.searchsorted(edges, size, side="right")
    shares = np.stack([_shares(band[side], weight[side]) for side in (~truth, truth)])
    # Where only one side has rows there is nothing to weigh them against: they stay few.
    common = shares[0] * shares[1] / np.maximum(shares.sum(0), 1e-12)
    ratio = common / np.maximum(shares, 1e-12)
    factors: NDArray[np.float64] = np.maximum(ratio[truth.astype(int), band], 1e-9)
    for side in (truth, ~truth):
        for _ in range(8):
            factors[side] /= np.average(factors[side], weights=weight[side])
            factors[side] = factors[side].clip(1 / LARGEST, LARGEST)
    return factors


def _shares(band: NDArray[np.int64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.bincount(band, weight, minlength=BANDS)
    return np.asarray(found / found.sum(), np.float64)


def _judged(row: Row, head: str) -> bool:
    return head in row.labels and bool(_text(row, head).strip())


def _text(row: Row, head: str) -> str:
    return row.prompt if CATEGORIES[head].side == "prompt" else row.response


def _arrays(
    rows: Sequence[Row], head: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return length, label and weight in the loss, each of shape (rows,)."""
    size = np.array([len(_text(row, head)) for row in rows], np.float64)
    truth = np.array([row.labels[head] >= 0.5 for row in rows], np.bool_)
    weight = np.array([row.weight * row.emphasis.get(head, 1.0) for row in rows], np.float64)
    return size, truth, weight


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the report of a folder's training rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled *.jsonl.gz")
    rows = load(parser.parse_args(arguments).data, seed=7).train
    after = balanced(rows)
    table = Table(box=None, header_style="bold")
    for name in ("head", "positive", "mean", "negative", "mean", "AUROC of length", "balanced"):
        table.add_column(name, justify="left" if name == "head" else "right")
    for head in HEADS:
        found, other = lengths(rows, head), lengths(after, head)
        table.add_row(
            head,
            f"{found.positives:,}",
            f"{found.positive_mean:,.0f}",
            f"{found.negatives:,}",
            f"{found.negative_mean:,.0f}",
            *["-" if a is None else f"{a:.3f}" for a in (found.auroc, other.auroc)],
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
