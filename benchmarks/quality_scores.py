"""Scores rows with a model as the runtime does, each unit once.

This module does not know which rows there are or what becomes of a score.
"""

from __future__ import annotations

import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from guard import Exchange, Guard
from guard.assess import live_risk
from guard.categories import CATEGORIES
from guard.detectors.classifier import Classifier
from guard.detectors.fingerprints import FingerprintDetector
from guard.detectors.model_directory import read
from guard.detectors.personal import personal_data_detector
from guard.detectors.pooling import Scored
from guard.detectors.secrets import secret_detector
from guard.loading import BUNDLED_MODEL
from guard.policy import load_class
from guard.text.units import CLOSING
from guard.training.examples import response_units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from guard.categories import Side
    from guard.detectors.classifier import Judged
    from guard.detectors.model_directory import Head
    from guard.verdict import Verdict

WORKERS: Final = 2
"""Rows scored side by side; a model's session runs one thread each."""

_T = TypeVar("_T")
_U = TypeVar("_U")


def each(function: Callable[[_T], _U], items: Iterable[_T]) -> list[_U]:
    """Return what `function` gives for each item, a few at a time."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(function, items))


class Remembering(Classifier):
    """The classifier, which runs on a unit once however often it is asked.

    So a guard's verdicts after the scores of the same rows cost next to nothing.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Load the model; nothing is known yet."""
        self._known: dict[tuple[str, str, Side, int], Judged] = {}
        self._ends: dict[tuple[str, str], NDArray[np.float32] | None] = {}
        super().__init__(*arguments, **options)

    @property
    def passes(self) -> int:
        """Number of units that were run."""
        return len(self._known)

    def judge(self, prompt: str, text: str, side: Side = "response", start: int = 0) -> Judged:
        """As the classifier's."""
        key = (prompt, text, side, start)
        if key not in self._known:
            self._known[key] = super().judge(prompt, text, side, start)
        return self._known[key]

    def closing(self, prompt: str, text: str) -> NDArray[np.float32] | None:
        """As the classifier's."""
        if (prompt, text) not in self._ends:
            self._ends[prompt, text] = super().closing(prompt, text)
        return self._ends[prompt, text]


class Scorer:
    """A model and a guard with that model.

    Args:
        model: the model's directory.
        name: the security class of the guard.
        verify: whether the directory must be sealed.
        like: the model that this one is another graph of: what is unfamiliar is then judged by
            that one's numbers.
    """

    def __init__(
        self, model: Path, name: str, *, verify: bool = True, like: Scorer | None = None
    ) -> None:
        """Load the model."""
        self.classifier = Remembering(model, verify=verify, name=BUNDLED_MODEL.name)
        if like is not None:
            self.classifier._unfamiliar = like.classifier._unfamiliar
            self.classifier.categories = like.classifier.categories
        self.heads: dict[str, Head] = {
            head.category: head for head in read(model, None, verify=verify).heads
        }
        self.security_class = load_class(name)
        self._known: dict[tuple[str, str, Side], Scored] = {}

    @cached_property
    def guard(self) -> Guard:
        """The whole guard, with this model as its classifier."""
        packs = (secret_detector(), personal_data_detector(), FingerprintDetector(()))
        return Guard(self.security_class, [*packs, self.classifier], redactor=str)

    def scores(
        self, rows: Sequence[dict[str, Any]], category: str, *, bounded: bool = False
    ) -> NDArray[np.float64]:
        """Return each row's evidence for a category: the running pooled evidence's highest.

        Without `bounded`, evidence may be larger than calibration lets it count: that bound
        says how far it is believed and not how texts are ordered.
        """
        head, side = self.heads[category], CATEGORIES[category].side
        scored = each(lambda row: self.scored(row, side), rows)
        return np.array([evidence(head, given, bounded=bounded) for given in scored])

    def risks(self, rows: Sequence[dict[str, Any]], category: str) -> NDArray[np.float64]:
        """Return each row's live risk under the guard's class."""
        prior = self.security_class.prior_of(category)
        found = self.scores(rows, category, bounded=True)
        return np.array([live_risk(float(evidence), prior) for evidence in found])

    def scored(self, row: dict[str, Any], side: Side) -> Scored:
        """Return the logits of a row's units on a side, and of its closing read."""
        key = (row["prompt"] or "", row["response"] or "", side)
        if key not in self._known:
            self._known[key] = self._scored(*key)
        return self._known[key]

    def _scored(self, prompt: str, response: str, side: Side) -> Scored:
        if side == "prompt":
            return Scored(self.classifier.logits("", prompt or response, "prompt")[None])
        units = [unit for unit in response_units(response) if unit.text[unit.start :].strip()]
        if not units:
            return Scored(self.classifier.logits(prompt, response)[None])
        logits = [self.classifier.logits(prompt, u.text, start=u.start) for u in units]
        closing = self.classifier.closing(prompt, response[-CLOSING:]) if units[1:] else None
        return Scored(np.stack(logits), closing)

    def verdicts(self, rows: Sequence[dict[str, Any]]) -> list[Verdict]:
        """Return what the whole guard does with each row."""
        each(lambda row: self.scored(row, "response"), rows)
        exchanges = [Exchange.of(row["response"], prompt=row["prompt"] or "") for row in rows]
        return list(self.guard.check_many(exchanges, workers=WORKERS))


def evidence(head: Head, scored: Scored, *, bounded: bool) -> float:
    """Return a response's evidence for one category, as at runtime."""
    calibration = head.calibration if bounded else replace(head.calibration, maximum=math.inf)
    return scored.evidence(head.index, head.pooling, calibration.evidence)


def float_directory(model: Path, graph: Path, place: Path) -> Path:
    """Return a copy of a model's directory with the 32-bit graph in place of the quantised one."""
    (place / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "calibration.json"):
        shutil.copyfile(model / name, place / name)
    shutil.copyfile(graph, place / "onnx" / "model.onnx")
    return place
