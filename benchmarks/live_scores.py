"""Recorded answers that the classifier never trained on, and its evidence in each.

Scoring thousands of answers takes minutes; with a cache a later benchmark, or a second try, takes
seconds. What is cached belongs to one text and one version of every detector.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.progress import track

from guard.assess import log_odds
from guard.engine import Guard
from guard.exchange import Choice, Exchange, Message
from guard.loading import load_parts
from guard.security_class import JournalSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from guard.calibration import Confusion

CATEGORY: Final = "misaligned_persona"

JUDGED: Final = "em_judged_answers"
"""Answers of fine-tuned and of base models, with an independent judge's label."""

BENIGN: Final = ("benign_wildbench_responses", "benign_arena_hard", "benign_expertqa")
"""Ordinary answers to real questions."""

BASE: Final = "base and other models"
"""What models are called here that have no name."""

ORDINARY: Final = 1200

_CERTAIN: Final = 1 - 1e-12


def rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the test rows of a file."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["split"] == "test":
                yield row


def ordinary(folder: Path) -> list[dict[str, Any]]:
    """Return ordinary answers to real questions, of several sources in turn."""
    found = [row for name in BENIGN for row in rows(folder, name)]
    random.Random(0).shuffle(found)
    return found[:ORDINARY]


def loaded() -> tuple[Guard, Sequence[Confusion]]:
    """Return a guard that stops at nothing, and what validation says of the category."""
    parts = load_parts("public", None, None, (), ())
    scoring = parts.security_class.model_copy(
        update={"shadow": True, "journal": JournalSettings(actions=())}
    )
    classifier: Any = parts.detectors[-1]
    return Guard(scoring, parts.detectors), classifier.confusions[CATEGORY]


def scored(
    guard: Guard, given: Sequence[dict[str, Any]], what: str, cache: Path | None = None
) -> NDArray[np.float64]:
    """Return the highest evidence of each answer, in nats.

    Args:
        guard: of `loaded`.
        given: rows with `prompt` and `response`.
        what: what the progress bar says.
        cache: a file that keeps the figures, also of a run that was cut off; `None` for none.
    """
    version = json.dumps([CATEGORY, dict(guard.detectors)], sort_keys=True)
    keys = [_key(version, row) for row in given]
    known = _known(cache)
    left = {key: row for key, row in zip(keys, given, strict=True) if key not in known}
    prior = log_odds(guard.security_class.prior_of(CATEGORY))
    exchanges = [
        Exchange((Choice(row["response"]),), (Message("user", row["prompt"] or ""),))
        for row in left.values()
    ]
    verdicts = track(guard.check_many(exchanges), what, total=len(exchanges))
    for key, verdict in zip(left, verdicts, strict=True):
        known[key] = log_odds(min(verdict.risks[CATEGORY], _CERTAIN)) - prior
        if cache is not None:
            with cache.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps([key, known[key]]) + "\n")
    return np.array([known[key] for key in keys])


def surest(known: Sequence[Confusion]) -> Confusion:
    """Return the threshold with the fewest false alarms on validation rows."""
    return min(known, key=lambda c: (c.false_positives, c.threshold))


def _known(cache: Path | None) -> dict[str, float]:
    if cache is None or not cache.exists():
        return {}
    return dict(json.loads(line) for line in cache.read_text("utf-8").splitlines())


def _key(version: str, row: dict[str, Any]) -> str:
    """Return a digest of what an answer's evidence depends on."""
    facts = json.dumps([version, row["prompt"], row["response"]])
    return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()[:32]
