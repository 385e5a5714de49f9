"""Refits a model's calibration on labelled rows of one's own; the classifier stays as it is.

A response's evidence under the shipped calibration is moved along a line of its own, which is
held to "as shipped" (slope 1, intercept 0) by a ridge: with few rows little moves, with many
the rows decide. Fewer than `FEWEST` rows of either side change nothing, and neither does a
line that does not predict rows better, by more than noise, that it was not fitted to. The same
text with the same label counts once: a copy is no second observation.

Rows of a journal were chosen by a guard that scored them. Among them the share of what the
evidence lets through is unknown, so they say nothing about likelihoods; but choosing by the
score does not change how likely a row of that score is risky. They are therefore fitted to that:
evidence and the class's prior together should give the share of flags that were right. All of
them lie above a limit of the evidence, and nothing is known of what lies below it: a slope that
is right up there would be drawn out to answers that nobody looked at. Their line therefore keeps
the shipped slope and moves as a whole, upwards by at most `MOST_RISE`.

This module does not know any terminal.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np

from guard.calibration import (
    REFERENCE_PRIOR,
    Bin,
    Error,
    Line,
    Ridge,
    calibration_error_interval,
    fit,
    gain,
    held_out,
    reliability,
    summary,
)
from guard.categories import CATEGORIES
from guard.detectors.classifier import Classifier
from guard.detectors.model_directory import read
from guard.detectors.pooling import Pooling, Scored
from guard.engine import Guard
from guard.errors import InputError, ModelError
from guard.exchange import Exchange
from guard.sealing import MANIFEST, seal
from guard.text.units import CLOSING, CONTEXT, units
from guard.verdict import decide

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from guard.calibration import Confusion
    from guard.detectors.model_directory import Head
    from guard.labelled import Labelled, LabelledRow
    from guard.security_class import SecurityClass

    Floats = NDArray[np.float64]
    Truths = NDArray[np.bool_]

_T = TypeVar("_T")

FEWEST: Final = 20
"""Rows of either side below which a category is left as it is."""

AS_SHIPPED: Final = Line(1.0, 0.0)

HOLD: Final = Ridge(AS_SHIPPED, slope=0.25, intercept=1.0)
"""About what twenty rows of either side can tell: there, rows and hold have equal say."""

LOOSE_HOLD: Final = Ridge(AS_SHIPPED, slope=1.0, intercept=4.0)
"""For a label that nobody has calibrated: what it has is a convention."""

MOST_RISE: Final = 1.0
"""Nats by which rows of a journal may raise evidence, that of ordinary answers included.

A live prior follows ordinary answers: raised by much more, they would raise it themselves."""

MAXIMUM_EVIDENCE: Final = 8.0

_KEPT: Final = 1e-6
"""Hold of a slope that rows may not move."""

_CALIBRATION: Final = "calibration.json"
_CARD: Final = "README.md"
_SUFFIX: Final = "+cal."
_WORKERS: Final = 2


class Track(Protocol):
    """Passes items on and shows how far it is."""

    def __call__(self, items: Iterable[_T], doing: str, total: int) -> Iterable[_T]:
        """Yield `items` as they are."""
        ...


def untracked(items: Iterable[_T], doing: str, total: int) -> Iterable[_T]:  # noqa: ARG001
    """Show nothing."""
    return items


@dataclass(frozen=True, slots=True)
class Measure:
    """How well evidence is calibrated on the given rows.

    Attributes:
        error: expected calibration error.
        bins: predicted and observed.
    """

    error: Error
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one category.

    Attributes:
        category: its name.
        positives: given texts in which it is there.
        negatives: given texts in which it is not.
        old: slope and intercept, as shipped.
        new: as refitted; the same where it was left as it is.
        kept: why it was left as it is, `""` where it was not.
        before: how well the shipped evidence fits, `None` with too few rows to say.
        after: the new evidence on rows that it was not fitted to, `None` likewise.
        moved: given texts that reach another limit of the class for this category.
        entry: what `calibration.json` says of it from now on.
    """

    category: str
    positives: int
    negatives: int
    old: Line
    new: Line
    kept: str
    before: Measure | None
    after: Measure | None
    moved: int
    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to refit.

    Attributes:
        security_class: whose priors and limits count.
        fewest: rows of either side, copies aside, below which a category is left as it is.
    """

    security_class: SecurityClass
    fewest: int = FEWEST


def refit(
    model: Path, labelled: Labelled, settings: Settings, track: Track = untracked
) -> list[Change]:
    """Return what becomes of each category that the rows name and the model has.

    Raises:
        ModelError: the model's directory is wrong, counts of its calibration included, or a row
            has a score that is no number.
        InputError: the rows name no category that the model has.
    """
    found = read(model, None, verify=True)
    named = {name for row in labelled.rows for name in row.labels}
    heads = [head for head in found.heads if head.category in named]
    if named and not heads:
        raise InputError(
            f"the rows label {', '.join(sorted(named))}, which `{model}` does not score: label "
            f"some of {', '.join(sorted({head.category for head in found.heads}))}"
        )
    classifier = Classifier(model)
    with ThreadPoolExecutor(_WORKERS) as pool:
        scored = pool.map(partial(_logits, classifier), labelled.rows)
        logits = list(track(scored, "scoring", len(labelled.rows)))
    _all_numbers(model, found.heads, logits)
    entries = _entries(model)
    fitting = _Fitting(labelled, settings, found.experimental)
    return [fitting.change(head, entries.get(head.category), logits) for head in heads]


def write(model: Path, out: Path, labelled: Labelled, changes: Sequence[Change]) -> str:
    """Write a copy of `model` with the new calibration into `out`, sealed; return its version.

    Raises:
        FileExistsError: `out` is there already.
    """
    manifest = json.loads((model / MANIFEST).read_text("utf-8"))
    files = [*manifest.pop("files"), _CALIBRATION]
    out.mkdir(parents=True)
    for name in dict.fromkeys(files):
        if (model / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model / name, out / name)
    refitted = [change for change in changes if not change.kept]
    content = _content(model)
    labels = content["labels"] | {c.category: dict(c.entry) for c in refitted}
    text = json.dumps({"format": 1, **content, "labels": labels}, indent=1)
    (out / _CALIBRATION).write_text(text + "\n", "utf-8")
    version = str(manifest.get("version", "unknown")).partition(_SUFFIX)[0]
    digest = _rows_digest(labelled)
    facts = {
        "version": f"{version}{_SUFFIX}{digest[:8]}",
        "calibrated": {
            "from": manifest.get("version"),
            "made": time.strftime("%Y-%m-%d", time.gmtime()),
            "rows": len(labelled.rows),
            "rows_sha256": digest,
            "journal": labelled.journal,
            "categories": [change.category for change in refitted],
        },
    }
    if (out / _CARD).is_file():
        # Added and not rewritten: a card may be in any encoding.
        with (out / _CARD).open("ab") as card:
            card.write(_section(facts, refitted).encode())
    seal(out, {**manifest, **facts}, dict.fromkeys(files), limit=None)
    return str(facts["version"])


def verdict_changes(
    models: tuple[Path, Path],
    labelled: Labelled,
    security_class: SecurityClass,
    track: Track = untracked,
) -> Counter[tuple[str, str, bool]]:
    """Return how many rows change their verdict from one model to the other.

    Keys are the action before, the action after, and whether the row is labelled as risky.
    """
    rows = [row for row in labelled.rows if row.response.strip()]
    actions: list[list[str]] = []
    for model, name in zip(models, ("before", "after"), strict=True):
        guard = Guard.load(security_class, model=model, journal=None)
        exchanges = [Exchange.of(row.response, prompt=row.prompt) for row in rows]
        verdicts = track(guard.check_many(exchanges), f"judging {name}", len(rows))
        actions.append([verdict.action for verdict in verdicts])
    risky = [any(row.labels.values()) for row in rows]
    return Counter(change for change in zip(*actions, risky, strict=True) if change[0] != change[1])


class _Fitting:
    """Fits category after category on one file's rows."""

    def __init__(
        self, labelled: Labelled, settings: Settings, experimental: Mapping[str, str]
    ) -> None:
        self._labelled = labelled
        self._settings = settings
        self._experimental = experimental

    def change(
        self, head: Head, entry: Mapping[str, Any] | None, logits: Sequence[Mapping[str, Scored]]
    ) -> Change:
        side = CATEGORIES[head.category].side
        # Copies would feign rows: the hold, the bound and the folds all count them.
        picked = {
            (row.digest, row.labels[head.category]): found[side]
            for row, found in zip(self._labelled.rows, logits, strict=True)
            if head.category in row.labels and side in found
        }
        truth = np.array([label for _, label in picked], bool)
        scores = np.array([_evidence(head, found) for found in picked.values()])
        old = Line(head.calibration.slope, head.calibration.intercept)
        positives, negatives = int(truth.sum()), int((~truth).sum())
        as_it_is = partial(
            Change, head.category, positives, negatives, old, old, moved=0, entry=entry or {}
        )
        if min(positives, negatives) < self._settings.fewest:
            short = f"fewer than {self._settings.fewest} rows of either side"
            return as_it_is(kept=short, before=None, after=None)
        fitted = partial(self._line, head.category, entry)
        maximum = self._maximum(head, entry, negatives)
        crossed = _bounded(
            held_out(scores, truth, [digest for digest, _ in picked], fitted), maximum
        )
        shipped = _bounded(scores, head.calibration.maximum)
        before, after = (self._measure(e, truth, head.category) for e in (shipped, crossed))
        line = fitted(scores, truth)
        if kept := self._why_not(head, line, shipped, crossed, truth):
            return as_it_is(kept=kept, before=before, after=after)
        moved = self._moved(
            head.category, shipped, _bounded(line.slope * scores + line.intercept, maximum)
        )
        new = Line(line.slope * old.slope, line.slope * old.intercept + line.intercept)
        figures = self._figures(head.calibration.confusion, line, maximum, crossed, truth)
        moved_entry = (
            _moved_entry(entry or {}, line)
            | figures
            | {
                "slope": new.slope,
                "intercept": new.intercept,
                "maximum": maximum,
                "refit": {"positives": positives, "negatives": negatives} | asdict(line),
            }
        )
        return Change(
            head.category, positives, negatives, old, new, "", before, after, moved, moved_entry
        )

    def _line(
        self, category: str, entry: Mapping[str, Any] | None, scores: Floats, truth: Truths
    ) -> Line:
        """Return the line from shipped evidence to new; of flagged rows one of slope 1."""
        hold = LOOSE_HOLD if entry is None else HOLD
        if not self._labelled.journal:
            return fit(scores, truth, hold)
        line = fit(scores, truth, replace(hold, slope=_KEPT), prior=self._prior(category))
        return replace(AS_SHIPPED, intercept=line.intercept)

    def _why_not(
        self, head: Head, line: Line, shipped: Floats, crossed: Floats, truth: Truths
    ) -> str:
        """Return why a line is not taken, `""` where it is."""
        prior, weighted = self._judged_at(head.category)
        better, noise = gain(shipped, crossed, truth, prior, weighted=weighted)
        if better <= noise:
            return "no better, noise aside, on rows it was not fitted to"
        # The lowest evidence there is should stay well below none, too.
        most = min(MOST_RISE, head.calibration.maximum / 2)
        if self._labelled.journal and line.intercept > most:
            return (
                f"flags were right so often at a prior of {prior:g} that ordinary answers, which "
                f"a journal lacks, would rise by {line.intercept:.2f} too (at most {most:g}): "
                "raise the class's prior, or label rows that were not flagged"
            )
        return ""

    def _prior(self, category: str) -> float | None:
        """Return the prior that flagged rows are fitted at; rows side by side need none."""
        return self._settings.security_class.prior_of(category) if self._labelled.journal else None

    def _measure(self, evidence: Floats, truth: Truths, category: str) -> Measure:
        prior, weighted = self._judged_at(category)
        return Measure(
            calibration_error_interval(evidence, truth, prior, weighted=weighted),
            reliability(evidence, truth, prior, weighted=weighted),
        )

    def _judged_at(self, category: str) -> tuple[float, bool]:
        prior = self._prior(category)
        return (REFERENCE_PRIOR, True) if prior is None else (prior, False)

    def _maximum(self, head: Head, entry: Mapping[str, Any] | None, negatives: int) -> float:
        """Return the bound: no claim beyond what the rows, old and new, can bear."""
        if head.category in self._experimental:
            return head.calibration.maximum
        known = (entry or {}).get("negatives", 0)
        return min(MAXIMUM_EVIDENCE, math.log(known + negatives + 1))

    def _moved(self, category: str, before: Floats, after: Floats) -> int:
        """Return how many rows reach another limit of the class than before."""
        steps = [
            [
                [
                    reason.step
                    for reason in decide({category: float(e)}, self._settings.security_class)
                ]
                for e in evidence
            ]
            for evidence in (before, after)
        ]
        return sum(old != new for old, new in zip(*steps, strict=True))

    def _figures(
        self,
        confusion: Iterable[Confusion],
        line: Line,
        maximum: float,
        crossed: Floats,
        truth: Truths,
    ) -> dict[str, Any]:
        """Return what stands beside the new line."""
        if not self._labelled.journal:
            return dict(summary(crossed, truth))
        # Flagged rows cannot tell how much is missed; the shipped counts can, at limits that
        # moved with the line. A limit beyond the bound tells nothing apart at runtime.
        moved = [
            replace(each, threshold=line.slope * each.threshold + line.intercept)
            for each in confusion
        ]
        return {"confusion": [asdict(each) for each in moved if each.within(maximum)]}


def _logits(classifier: Classifier, row: LabelledRow) -> dict[str, Scored]:
    """Return the logits of a row's texts by side, as the runtime reads them."""
    found: dict[str, Scored] = {}
    texts = [
        (row.response[max(0, start - CONTEXT) : end], min(start, CONTEXT))
        for start, end in units(row.response)
        if row.response[start:end].strip()
    ]
    if texts:
        scored = [classifier.logits(row.prompt, text, start=start) for text, start in texts]
        whole = classifier.closing(row.prompt, row.response[-CLOSING:]) if scored[1:] else None
        closing = None if whole is None else np.asarray(whole, np.float64)
        found["response"] = Scored(np.asarray(scored, np.float64), closing)
    if row.prompt.strip() and any(CATEGORIES[name].side == "prompt" for name in row.labels):
        logits = classifier.logits("", row.prompt, "prompt")
        found["prompt"] = Scored(np.asarray([logits], np.float64))
    return found


def _all_numbers(
    model: Path, heads: Sequence[Head], logits: Sequence[Mapping[str, Scored]]
) -> None:
    """Refuse scores that a guard would take for a failure."""
    used = [head.index for head in heads]
    given = [
        [part for scored in row.values() for part in (scored.units, scored.closing)]
        for row in logits
    ]
    broken = sum(
        not all(np.isfinite(part[..., used]).all() for part in row if part is not None)
        for row in given
    )
    if broken:
        text = f"gives scores that are no numbers for {broken:,} of the rows"
        raise ModelError(f"`{model}` {text}: export it again")


def _evidence(head: Head, found: Scored) -> float:
    """Return a response's evidence without its bound, which a fit must not see."""
    line = replace(head.calibration, maximum=math.inf)
    return found.evidence(head.index, head.pooling, line.evidence)


def _bounded(evidence: Floats, maximum: float) -> Floats:
    return np.clip(evidence, -maximum, maximum)


def _moved_entry(entry: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Return an entry whose pooling fits evidence on the new scale, without old figures."""
    stale = ("ece", "reliability", "confusion")
    moved = {name: value for name, value in entry.items() if name not in stale}
    if "pooling" in moved:
        moved["pooling"] = asdict(Pooling(**moved["pooling"]).scaled(line.slope))
    return moved


def _content(model: Path) -> dict[str, Any]:
    path = model / _CALIBRATION
    content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return {**content, "labels": content.get("labels") or {}}


def _entries(model: Path) -> dict[str, Mapping[str, Any]]:
    """Return what `calibration.json` says of each label; what `read` does not use is checked."""
    entries: dict[str, Mapping[str, Any]] = _content(model)["labels"]
    wrong = [label for label, entry in entries.items() if not _is_count(entry.get("negatives", 0))]
    if wrong:
        text = "`negatives` must be a whole number of 0 or more"
        raise ModelError([f"`{model / _CALIBRATION}` `{label}`: {text}" for label in wrong])
    return entries


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _rows_digest(labelled: Labelled) -> str:
    lines = sorted(
        row.digest + json.dumps(dict(row.labels), sort_keys=True) for row in labelled.rows
    )
    kind = "journal" if labelled.journal else "rows"
    return hashlib.sha256("\n".join([kind, *lines]).encode()).hexdigest()


def _section(facts: Mapping[str, Any], refitted: Sequence[Change]) -> str:
    """Return what the card says about it."""
    made = facts["calibrated"]
    head = (
        f"\n## Calibrated again\n\nOn {made['made']}, from version {made['from']}, on "
        f"{made['rows']:,} labelled rows (SHA-256 of them `{made['rows_sha256']}`). The figures "
        "above are those of the model as it was shipped. Errors are expected calibration errors, "
        "the new one on rows that were held out.\n\n"
        "| category | positive | negative | slope | intercept | error before | error after |\n"
        "|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for change in refitted:
        errors = [f"{m.error.value:.3f}" if m else "-" for m in (change.before, change.after)]
        lines.append(
            f"| {change.category} | {change.positives} | {change.negatives} "
            f"| {change.old.slope:.3f} to {change.new.slope:.3f} "
            f"| {change.old.intercept:.3f} to {change.new.intercept:.3f} "
            f"| {errors[0]} | {errors[1]} |"
        )
    return "\n".join(lines) + "\n"
