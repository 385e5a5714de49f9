"""What each limit of a class does on validation rows: how the built-in limits were chosen.

    python benchmarks/limits.py --data FOLDER --class public

Scores the validation rows (cut from train by question; the model was calibrated on them, but
not trained) with the bundled model, adds their units up as the runtime does, and prints per
category: the share of risky rows that reach the `act` limit, the share of the category's own
negatives, and how many *ordinary* rows do (ordinary answers of assistants, and answers that
sound alarming and are fine). Rows marked `test` or `meta.holdout` are never read. Scoring takes
minutes: `--cache FILE` keeps it for the next class.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.assess import live_risk
from guard.categories import CATEGORIES
from guard.detectors.classifier import Classifier
from guard.detectors.model_directory import Head, read
from guard.loading import BUNDLED_MODEL
from guard.policy import load_class
from guard.text.units import CONTEXT
from guard.text.units import units as cut
from guard.training.aggregate import unit_logits
from guard.training.data import HEADS, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from guard.security_class import SecurityClass
    from guard.training.data import Row

SEED: Final = 13
"""That of the bundled model's training: of large files the sample that it was calibrated on."""

ORDINARY: Final = ("own_hard_benign", "own_benign_chat", "own_multi_turn", "orbench_responses")


PROMPTS: Final = 700
"""Prompts of ordinary answers that the table of inputs looks at."""


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
    parser.add_argument("--cache", type=Path, help="where units' logits are kept")
    given = parser.parse_args()
    security_class = load_class(given.name)
    rows = load(given.data, seed=SEED).validation
    random.Random(0).shuffle(rows)
    units = cached(rows, given.cache)
    heads = {head.category: head for head in read(BUNDLED_MODEL, None, verify=True).heads}
    print(
        "| category | act | risky that reach it | own negatives | ordinary |\n|---|---|---|---|---|"
    )
    for name in HEADS:
        limit = security_class.limit(name)
        if limit is None or limit.act is None or CATEGORIES[name].side == "prompt":
            continue
        prior = security_class.prior_of(name)
        risks = np.array([live_risk(evidence(heads[name], row), prior) for row in units])
        print(_row(name, limit.act, risks >= limit.act, rows))
    if security_class.input_limits:
        _inputs(security_class, heads, units, rows)


def _inputs(
    security_class: SecurityClass,
    heads: dict[str, Head],
    units: list[NDArray[np.float32]],
    rows: list[Row],
) -> None:
    """Print the table of what a model is given, beside the prompts of ordinary answers."""
    usual = [row.prompt for row in rows if ordinary(row) and row.prompt.strip()][:PROMPTS]
    classifier = Classifier(BUNDLED_MODEL)
    prompts = [_prompt_logits(classifier, text) for text in usual]
    print(
        "\n| input | act | risky that reach it | own negatives | ordinary |\n|---|---|---|---|---|"
    )
    for name, limit in security_class.input_limits.items():
        if limit.act is None or name not in heads:
            continue
        head, prior = heads[name], security_class.prior_of(name)
        reached, passing = (
            np.array([live_risk(evidence(head, each), prior) for each in scored]) >= limit.act
            for scored in (units, prompts)
        )
        risky = np.array([row.labels.get(name, -1.0) >= 0.5 for row in rows])
        fine = np.array([0 <= row.labels.get(name, -1.0) < 0.5 for row in rows])
        print(
            f"| {name} | {limit.act} | {reached[risky].mean():.1%} of {risky.sum()} "
            f"| {reached[fine].mean():.2%} of {fine.sum()} | {passing.sum()} of {len(passing)} |"
        )


def _prompt_logits(classifier: Classifier, prompt: str) -> NDArray[np.float32]:
    """Return the logits of a prompt's units, as at runtime."""
    starts = [(max(0, start - CONTEXT), start, end) for start, end in cut(prompt)]
    return np.array(
        [classifier.logits("", prompt[a:end], "prompt", start - a) for a, start, end in starts]
    )


def cached(rows: list[Row], cache: Path | None) -> list[NDArray[np.float32]]:
    """Return the logits of each row's units, each of shape (units, labels)."""
    if cache is None or not cache.is_file():
        units = unit_logits(Classifier(BUNDLED_MODEL), rows)
        if cache is not None:
            lengths = [len(row) for row in units]
            np.savez_compressed(cache, logits=np.concatenate(units), lengths=lengths)
        return units
    kept = np.load(cache)
    return np.split(kept["logits"], np.cumsum(kept["lengths"])[:-1])


def evidence(head: Head, units: NDArray[np.float32]) -> float:
    """Return the highest pooled evidence over a response's units, as at runtime."""
    logits = units[:, head.index]
    values = [head.calibration.evidence(float(x)) for x in logits if not np.isnan(x)]
    return float(head.pooling.running(np.array(values)).max()) if values else -np.inf


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
