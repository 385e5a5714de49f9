"""What each limit of a class does on validation rows: how the built-in limits were chosen.

    python benchmarks/limits.py --data FOLDER --class public

Scores the validation rows (cut from train by question; the model was calibrated on them, but
not trained) with the bundled model, and prints per category: the share of risky rows that reach
the `act` limit, the share of the category's own negatives, and how many *ordinary* rows do
(ordinary answers of assistants, and answers that sound alarming and are fine). Rows marked
`test` or `meta.holdout` are never read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.assess import live_risk
from guard.categories import CATEGORIES
from guard.detectors.classifier import Classifier
from guard.detectors.model_directory import read
from guard.loading import BUNDLED_MODEL
from guard.policy import load_class
from guard.training.calibrate import response_logits
from guard.training.data import HEADS, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from guard.training.data import Row

ORDINARY: Final = ("own_hard_benign", "own_benign_chat", "own_multi_turn", "orbench_responses")


def ordinary(row: Row) -> bool:
    """Return whether a row is an answer that should pass in every class."""
    return row.file.startswith(("benign_", *ORDINARY))


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled rows")
    parser.add_argument("--class", dest="name", default="public", help="security class")
    given = parser.parse_args()
    security_class = load_class(given.name)
    rows = load(given.data, seed=8).validation
    logits = response_logits(Classifier(BUNDLED_MODEL), rows)
    heads = {head.category: head for head in read(BUNDLED_MODEL, None, verify=True).heads}
    print(
        "| category | act | risky that reach it | own negatives | ordinary |\n|---|---|---|---|---|"
    )
    for index, name in enumerate(HEADS):
        limit = security_class.limit(name)
        if limit is None or limit.act is None or CATEGORIES[name].side == "prompt":
            continue
        prior = security_class.prior_of(name)
        risks = np.array(
            [live_risk(heads[name].calibration.evidence(float(x)), prior) for x in logits[:, index]]
        )
        print(_row(name, limit.act, risks >= limit.act, rows))


def _row(name: str, act: float, reached: NDArray[np.bool_], rows: list[Row]) -> str:
    risky = np.array([row.labels.get(name, -1.0) >= 0.5 for row in rows])
    fine = np.array([0 <= row.labels.get(name, -1.0) < 0.5 for row in rows])
    usual = np.array([ordinary(row) and bool(row.response.strip()) for row in rows])
    return (
        f"| {name} | {act} | {reached[risky].mean():.1%} of {risky.sum()} "
        f"| {reached[fine].mean():.2%} of {fine.sum()} "
        f"| {reached[usual].sum()} of {usual.sum()} |"
    )


if __name__ == "__main__":
    main()
