"""How far a quantised graph is from the float graph that it was made from.

This module does not know how a graph was quantised.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tqdm import tqdm

from guard.calibration import auroc, wilson
from guard.categories import CATEGORIES
from guard.detectors.classifier import session
from guard.detectors.model_directory import read
from guard.training.data import HEADS
from guard.training.examples import response_units
from guard.verdict import decide

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from guard.encoding import Encoded, Encoder
    from guard.security_class import SecurityClass
    from guard.training.data import Row

    Floats = NDArray[np.float64]

_UNITS: Final = 8


@dataclass(frozen=True, slots=True)
class Window:
    """What both graphs read, and what is known of the row that it was cut from."""

    tokens: Encoded
    labels: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a graph gave.

    Attributes:
        logits: shape (windows, labels).
        milliseconds: processor time of a window.
    """

    logits: Floats
    milliseconds: float


def windows(rows: Sequence[Row], encoder: Encoder, count: int, seed: int = 3) -> tuple[Window, ...]:
    """Return up to `count` windows, each of a unit of another response."""
    rng = random.Random(seed)
    drawn = [row for row in rows if row.response.strip()]
    rng.shuffle(drawn)
    found = []
    for row in drawn[:count]:
        unit = rng.choice(response_units(row.response, _UNITS))
        (tokens, *_) = encoder.encode(row.prompt, unit.text, start=unit.start)
        found.append(Window(tokens, row.labels))
    return tuple(found)


def scores(graph: Path, given: Sequence[Window]) -> Scores:
    """Return what a graph gives for each window, on one thread."""
    began = time.process_time()
    shown = tqdm(given, graph.stem, unit="window", mininterval=10)
    logits = [found[0][0] for found in outputs(graph, ["logits"], shown)]
    spent = time.process_time() - began
    return Scores(np.asarray(logits, np.float64), 1e3 * spent / max(1, len(given)))


def outputs(graph: Path, names: list[str], given: Iterable[Window]) -> Iterator[list[Any]]:
    """Yield what a graph gives under `names` for each window, on one thread as at runtime."""
    ready = session(graph)
    for window in given:
        tokens = window.tokens
        feed = {"input_ids": tokens.ids[None], "token_type_ids": tokens.types[None]}
        yield ready.run(names, feed)


def errors(exact: Scores, rough: Scores) -> dict[str, float]:
    """Return mean, 99 % quantile and largest of the absolute error of a logit."""
    off = np.abs(rough.logits - exact.logits)
    return {
        "mean": float(off.mean()),
        "p99": float(np.quantile(off, 0.99)),
        "largest": float(off.max()),
    }


def auroc_lost(exact: Scores, rough: Scores, given: Sequence[Window]) -> dict[str, float | None]:
    """Return the AUROC that each category of the response's side loses, `None` where unknown."""
    found: dict[str, float | None] = {}
    for index, head in enumerate(HEADS):
        if CATEGORIES[head].side != "response":
            continue
        known = [i for i, window in enumerate(given) if head in window.labels]
        truth = np.array([given[i].labels[head] >= 0.5 for i in known], bool)
        if truth.any() and not truth.all():
            lost = auroc(exact.logits[known, index], truth) - auroc(
                rough.logits[known, index], truth
            )
            found[head] = float(lost)
        else:
            found[head] = None
    return found


def flips(
    exact: Scores, rough: Scores, model: Path, security_class: SecurityClass
) -> dict[str, float]:
    """Return how many windows reach other limits of a class under a model's calibration."""
    heads = [
        head
        for head in read(model, None, verify=False).heads
        if CATEGORIES[head.category].side == "response"
    ]

    def steps(logits: Floats) -> set[tuple[str, str]]:
        evidence = {h.category: h.calibration.evidence(float(logits[h.index])) for h in heads}
        return {(reason.cause, reason.step) for reason in decide(evidence, security_class)}

    pairs = zip(exact.logits, rough.logits, strict=True)
    count = sum(steps(a) != steps(b) for a, b in pairs)
    share = wilson(count, len(exact.logits))
    return {"windows": count, "low": share.low, "high": share.high}
