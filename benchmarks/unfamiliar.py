"""How well `unfamiliar` tells text unlike the training data: tables for docs/unfamiliar.md.

    python benchmarks/unfamiliar.py --data FOLDER            writes docs/unfamiliar.md
    python benchmarks/unfamiliar.py --data FOLDER --smoke    training rows, writes nothing

Unlike are languages and ciphers that nothing was fitted on, the fitted kinds on other texts, and
answers to real users in other languages. Beside them stand English test rows. A response's
evidence is its units' highest, *flagged* is what class `regulated` flags. Intervals are 95 %:
Hanley and McNeil (1982) for AUROC, Wilson (1927) for shares.

Every run over test rows is logged in benchmarks/quality_runs.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.assess import live_risk
from guard.calibration import auroc, auroc_interval, wilson
from guard.detectors.base import Passage
from guard.detectors.classifier import Classifier
from guard.detectors.unfamiliar import CATEGORY
from guard.loading import BUNDLED_MODEL
from guard.policy import load_class
from guard.training import unfamiliar
from guard.training.data import Row
from guard.training.examples import response_units
from quality_scores import each
from quality_sets import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Made = Mapping[str, Callable[[str, random.Random], str]]

ROOT: Final = Path(__file__).parent.parent
SEED: Final = 20
CLASS: Final = "regulated"

ENGLISH: Final = (
    "benign_arena_hard",
    "benign_wildbench_responses",
    "benign_expertqa",
    "benign_counselchat",
    "benign_dolly",
    "code_secure_insecure_pairs",
    "own_hard_benign*",
    "own_benign_chat",
    "xstest_completions",
    "toxigen_human",
)
"""Answers, code, tables, mathematics and short posts."""

REAL: Final = "benign_arena_hard"
"""Where real users write in other languages, too."""

PER_KIND: Final = 48
UNITS: Final = 12
"""Units of a response that are judged."""


class Scorer:
    """Gives a response's evidence and whether it is flagged."""

    def __init__(self, model: Path) -> None:
        """Load the model and the class."""
        self.classifier = Classifier(model)
        if CATEGORY not in self.classifier.categories:
            raise ValueError(f"`{model}` has no `unfamiliar.npz`: fit it first")
        security_class = load_class(CLASS)
        limit = security_class.limit(CATEGORY)
        if limit is None or limit.flag is None:
            raise ValueError(f"class `{CLASS}` does not flag `{CATEGORY}`")
        self.flag, self._prior = limit.flag, security_class.prior_of(CATEGORY)

    def evidence(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Return the highest evidence over each row's units."""
        return np.array(each(self._highest, rows))

    def flagged(self, evidence: NDArray[np.float64]) -> int:
        """Return how many reach the class's limit."""
        return sum(live_risk(float(value), self._prior) >= self.flag for value in evidence)

    def _highest(self, row: Row) -> float:
        return max(
            finding.evidence
            for unit in response_units(row.response, UNITS)
            for finding in self.classifier(Passage(unit.text, unit.start, prompt=row.prompt))
            if finding.category == CATEGORY
        )


def strange(base: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Yield kind, what is known of it, and responses of it."""
    held: dict[str, Sequence[str]] = {**unfamiliar.languages("test")}
    kinds: tuple[tuple[str, dict[str, Sequence[str]], Made], ...] = (
        ("never fitted on", held, unfamiliar.HELD_OUT),
        ("fitted on, other texts", {}, unfamiliar.MADE),
    )
    for note, paragraphs, made in kinds:
        for kind in [*paragraphs, *made]:
            rng = random.Random(f"{SEED}:{kind}")
            spoken = {kind: paragraphs[kind]} if kind in paragraphs else {}
            changed = {kind: made[kind]} if kind in made else {}
            found = unfamiliar.strange(base, spoken, changed, rng, PER_KIND)
            yield kind, note, [_row(one.prompt, one.before + one.text) for one in found]


def measured(scorer: Scorer, rows: Rows, limit: int) -> dict[str, Any]:
    """Return all figures."""
    english, other = [], []
    for files in ENGLISH:
        given = [_row(r["prompt"] or "", r["response"] or "") for r in rows(files, 0)]
        spoken = [row for row in given if row.response.strip()]
        passed = [row for row in spoken if _all_english(row.response)]
        if passed:
            english.append((files, passed[:limit] if limit else passed))
        if files == REAL:
            other = [row for row in spoken if not unfamiliar.is_english(row.response)]
    evidence = {files: scorer.evidence(found) for files, found in english}
    fine = np.concatenate(list(evidence.values()))
    base = [
        row for files, found in english if files.startswith(("own_", "benign_")) for row in found
    ]
    groups = [*strange(base), (f"other languages in {REAL}", "real users", other)]
    unlike = []
    for kind, note, found in groups:
        scores = scorer.evidence(found)
        unlike.append({"kind": kind, "note": note} | _apart(scorer, scores, fine))
        say(f"{kind}: {unlike[-1]}")
    every = {"all": fine} | evidence
    return {
        "strange": unlike,
        "english": [{"set": name} | _flags(scorer, found) for name, found in every.items()],
    }


def _all_english(response: str) -> bool:
    """Return whether no paragraph is in another language; names and short lines may be."""
    parts = response.split("\n")
    return unfamiliar.is_english(response) and not any(map(unfamiliar.speaks_another, parts))


def _apart(
    scorer: Scorer, scores: NDArray[np.float64], fine: NDArray[np.float64]
) -> dict[str, Any]:
    truth = np.repeat([True, False], [len(scores), len(fine)])
    area = auroc(np.concatenate([scores, fine]), truth)
    interval = auroc_interval(area, len(scores), len(fine))
    return {"auroc": area, "auroc_interval": interval} | _flags(scorer, scores)


def _flags(scorer: Scorer, evidence: NDArray[np.float64]) -> dict[str, Any]:
    share = wilson(scorer.flagged(evidence), len(evidence))
    return {
        "rows": len(evidence),
        "flagged": share.value,
        "flagged_interval": [share.low, share.high],
        "median": float(np.median(evidence)),
    }


def _row(prompt: str, response: str) -> Row:
    return Row(prompt, response, {}, "own_", "", 1.0)


def report(facts: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    unlike = "\n".join(
        f"| {e['kind']} | {e['note']} | {e['auroc']:.4f} ({_between(e['auroc_interval'], '.4f')}) "
        f"| {_shown(e)} | {e['median']:.1f} | {e['rows']} |"
        for e in facts["strange"]
    )
    english = "\n".join(
        f"| {e['set']} | {_shown(e)} | {e['median']:.1f} | {e['rows']} |" for e in facts["english"]
    )
    return (
        "# Text unlike the training data\n\n"
        f"Written by `benchmarks/unfamiliar.py` on {facts['date']} for the model "
        f"`{facts['model']}` {facts['version']}. The classifier was trained on English; what it "
        "says of other text is worth nothing. The category `unfamiliar` says that a text is such: "
        f"class `{CLASS}` and above flag it from a live risk of {facts['flag']:g}, none acts on "
        "it, and a class of your own may. A response's evidence is its units' highest.\n\n"
        "English text that was hidden in a way the classifier was trained on (leet, look-alike "
        "letters, zero-width characters) counts as familiar.\n\n"
        "## Unlike it\n\n"
        "AUROC against all English rows below. Alone, behind an English prompt, or in the middle "
        "of an English answer; 40 to 400 characters.\n\n"
        "| kind | | AUROC | flagged | median evidence | rows |\n|---|---|---|---|---|---|\n"
        f"{unlike}\n\n"
        "## English\n\n"
        "Test rows that nothing was fitted on. Responses with a paragraph in another language are "
        "left out, told by its frequent words and not by the score.\n\n"
        "| set | flagged | median evidence | rows |\n|---|---|---|---|\n"
        f"{english}\n"
    )


def _shown(entry: dict[str, Any]) -> str:
    return f"{entry['flagged']:.1%} ({_between(entry['flagged_interval'], '.1%')})"


def _between(interval: Sequence[float], form: str) -> str:
    low, high = interval
    return f"{low:{form}}-{high:{form}}"


def say(text: str) -> None:
    """Say how far the run is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of *.jsonl.gz")
    parser.add_argument("--model", type=Path, default=BUNDLED_MODEL, help="model directory")
    parser.add_argument("--limit", type=int, default=150, help="rows of an English set, 0 for all")
    parser.add_argument("--smoke", action="store_true", help="training rows; writes nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "unfamiliar.md")
    given = parser.parse_args(None if arguments is None else list(arguments))
    scorer = Scorer(given.model)
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "model": scorer.classifier.name,
        "version": scorer.classifier.version,
        "limit": given.limit,
        "class": CLASS,
        "part": "unfamiliar",
    }
    if not given.smoke:
        with (ROOT / "benchmarks" / "quality_runs.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(facts) + "\n")
    facts["flag"] = scorer.flag
    facts |= measured(scorer, Rows(given.data, smoke=given.smoke), given.limit)
    if given.smoke:
        print(report(facts))
        return
    given.out.write_text(report(facts), "utf-8")
    given.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
