"""How good a category of one's own is from 20, 50 and 200 examples: docs/own_category.md.

    python benchmarks/own_category.py --data FOLDER                   the bundled model
    python benchmarks/own_category.py --data FOLDER --model DIRECTORY  another one

Every run is logged in benchmarks/quality_runs.jsonl: it looks at test rows.

A known category plays the unknown one: its own head is not used, and a new one is fitted to
examples drawn from rows marked `train`: of the category alone, or half of them with label 0. It is
measured on rows marked `test`, on the project's own pairs that were set aside by question, and on
these pairs' positive sides against ordinary answers (test rows of ORDINARY): pairs are as alike as
they could be written, traffic is not. The figure is the AUROC of an answer's evidence, its units
added up as at runtime and without its bound: the mean over several draws of the examples, with
the 95 % interval that the number of test rows leaves it (Hanley and McNeil, 1982).

A model that was trained with a category has seen it, so its embedding knows more than it would
of a new one. Only a model that was trained without it (`--model`, `--unseen CATEGORY`) shows what
a new category gets; the page keeps the runs apart and says which is which.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.calibration import auroc, auroc_interval
from guard.detectors.classifier import Classifier, own_pooling
from guard.fitting import sample_of
from guard.fitting.bags import bags, embeddings
from guard.fitting.examples import Example
from guard.fitting.fit import fit
from guard.heads import TOLL
from guard.loading import BUNDLED_MODEL
from guard.training.data import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from guard.fitting.bags import Bag
    from guard.fitting.benign import Benign
    from guard.fitting.fit import Fitted

ROOT: Final = Path(__file__).parent.parent
SEED: Final = 20
COUNTS: Final = (20, 50, 200)
WAYS: Final = ("category alone", "half label 0")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a category's rows are.

    Attributes:
        category: the category that is held out.
        files: whose train rows are examples; in the data folder or in `guard/training/own`.
        test: files whose test rows count; the project's own pairs that are set aside come first.
    """

    category: str
    files: tuple[str, ...]
    test: tuple[str, ...] = ()


SOURCES: Final = (
    Source("sexual", ("own_sexual", "own_sexual_text"), ("openai_moderation_1680",)),
    Source("self_harm", ("own_self_harm", "own_self_harm_text"), ("openai_moderation_1680",)),
    Source("unsafe_action", ("own_action", "own_action_more"), ("own_action",)),
    Source("exposure", ("own_exposure", "own_exposure_more"), ("own_exposure",)),
    Source("sycophancy", ("sycobench", "own_sycophancy"), ("sycobench",)),
    Source(
        "insecure_code",
        ("code_secure_insecure_pairs", "own_code", "own_code_more"),
        ("code_secure_insecure_pairs",),
    ),
)

ORDINARY: Final = ("benign_arena_hard", "benign_wildbench_responses")
"""Files of ordinary answers, each of many units."""

POOL: Final = 260
"""Rows of either side from which examples are drawn."""

ASIDE: Final = 0.2
"""Share of the questions of the project's own pairs that are set aside."""


@dataclass(frozen=True, slots=True)
class Test:
    """Rows to measure on: embeddings of each answer's units, and what they are."""

    name: str
    units: list[NDArray[np.float64]]
    truth: NDArray[np.bool_]


def rows(path: Path, category: str) -> list[dict[str, Any]]:
    """Return a file's rows that speak of the category, in a fixed random order."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        every = [json.loads(line) for line in lines]
    kept = [row for row in every if _clear(row, category) and (row["response"] or "").strip()]
    random.Random(f"{SEED}:{path.name}").shuffle(kept)
    return kept


def _place(folder: Path, name: str) -> Path:
    """Return where train rows are: the project's own rows count before the folder's."""
    own = OWN / f"{name}.jsonl"
    return own if own.is_file() else folder / f"{name}.jsonl.gz"


def _clear(row: dict[str, Any], category: str) -> bool:
    """Return whether a row's label says yes or no, and the row is no near-copy of a train row."""
    return row["labels"].get(category) in (0, 1) and not row["meta"].get("near_dup_train")


def _aside(row: dict[str, Any]) -> bool:
    """Return whether a row of the project's own is set aside, by its question."""
    question = str(row["meta"].get("pair") or row["prompt"] or row["response"])
    digest = hashlib.sha256(question.encode("utf-8", "replace")).hexdigest()
    return int(digest[:8], 16) / 0xFFFFFFFF < ASIDE


def example(row: dict[str, Any], category: str) -> Example:
    """Return a row as a user would give it."""
    return Example(row["response"], row["labels"][category] == 1, row["prompt"] or "")


class Held:
    """One category that plays the unknown one: a pool of examples, and tests."""

    def __init__(
        self,
        classifier: Classifier,
        source: Source,
        folder: Path,
        limit: int,
        ordinary: list[NDArray[np.float64]],
    ) -> None:
        """Read and embed the rows; `ordinary` are embeddings of ordinary answers."""
        category = source.category
        train = [
            (name, row)
            for name in source.files
            for row in rows(_place(folder, name), category)
            if row["split"] == "train" and not row["meta"].get("holdout")
        ]
        aside = [row for name, row in train if name.startswith("own_") and _aside(row)]
        pool = [row for name, row in train if not (name.startswith("own_") and _aside(row))]
        sides = [[r for r in pool if r["labels"][category] == side][:POOL] for side in (1, 0)]
        distinct = {(r["prompt"] or "", r["response"]): r for side in sides for r in side}
        given = [example(row, category) for row in distinct.values()]
        self.category = category
        self.pool = bags(classifier, given, lambda: None)
        self.tests = [_test(classifier, "own pairs set aside", aside, category, limit)]
        self.tests.append(_against(self.tests[0], ordinary))
        for name in source.test:
            found = [
                row
                for row in rows(folder / f"{name}.jsonl.gz", category)
                if row["split"] == "test" or row["meta"].get("holdout")
            ]
            self.tests.append(_test(classifier, name, found, category, limit))

    def draw(self, way: str, count: int, seed: int) -> list[Bag] | None:
        """Return `count` examples in the pool's order, `None` where there are not so many."""
        rng = random.Random(f"{self.category}:{way}:{seed}")
        sides = [[b for b in self.pool if b.positive == side] for side in (True, False)]
        wanted = (count, 0) if way == WAYS[0] else (count // 2, count // 2)
        if any(len(side) < number for side, number in zip(sides, wanted, strict=True)):
            return None
        chosen = {
            bag.key for side, n in zip(sides, wanted, strict=True) for bag in rng.sample(side, n)
        }
        return [bag for bag in self.pool if bag.key in chosen]


def _test(
    classifier: Classifier, name: str, found: list[dict[str, Any]], category: str, limit: int
) -> Test:
    """Embed at most `limit` rows of either side."""
    sides = [[row for row in found if row["labels"][category] == side] for side in (1, 0)]
    kept = [row for side in sides for row in side[: limit or None]]
    units = _embedded(classifier, kept)
    return Test(name, units, np.array([row["labels"][category] == 1 for row in kept], bool))


def _against(pairs: Test, ordinary: list[NDArray[np.float64]]) -> Test:
    """Return the positive sides of pairs against ordinary answers."""
    positive = [units for units, truth in zip(pairs.units, pairs.truth, strict=True) if truth]
    truth = np.arange(len(positive) + len(ordinary)) < len(positive)
    return Test("own positives against ordinary answers", [*positive, *ordinary], truth)


def ordinary_answers(classifier: Classifier, folder: Path, limit: int) -> list[NDArray[np.float64]]:
    """Return embeddings of test rows of `ORDINARY`, at most `limit` a file."""
    found = []
    for name in ORDINARY:
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            every = [row for row in map(json.loads, lines) if row["split"] == "test"]
        random.Random(f"{SEED}:{name}").shuffle(every)
        found += every[: limit or None]
    return _embedded(classifier, found)


def _embedded(classifier: Classifier, found: Sequence[dict[str, Any]]) -> list[NDArray[np.float64]]:
    def embedded(row: dict[str, Any]) -> NDArray[np.float64]:
        return embeddings(classifier, row["prompt"] or "", row["response"])

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(embedded, found))


def measured(held: Held, sample: Benign | None, draws: int) -> Iterator[dict[str, Any]]:
    """Yield one entry per test and way of giving examples."""
    for way in WAYS:
        areas: dict[tuple[str, int], list[float]] = {}
        for count in COUNTS:
            for seed in range(draws):
                drawn = held.draw(way, count, seed)
                if drawn is None:
                    continue
                head = fit(drawn, sample)
                for test in held.tests:
                    if test.truth.any() and not test.truth.all():
                        areas.setdefault((test.name, count), []).append(_area(head, test))
        for test in held.tests:
            yield _entry(held.category, way, test, areas)


def _area(head: Fitted, test: Test) -> float:
    weights, line, pooling = np.array(head.weights), head.calibration, own_pooling(TOLL)
    evidence = (line.slope * (units @ weights + head.intercept) for units in test.units)
    return auroc(np.array([pooling.response(found) for found in evidence]), test.truth)


def _entry(
    category: str, way: str, test: Test, areas: dict[tuple[str, int], list[float]]
) -> dict[str, Any]:
    positive, negative = int(test.truth.sum()), int((~test.truth).sum())
    entry: dict[str, Any] = {"category": category, "way": way, "test": test.name}
    entry |= {"positive": positive, "negative": negative, "auroc": {}}
    for count in COUNTS:
        if found := areas.get((test.name, count)):
            mean = float(np.mean(found))
            entry["auroc"][str(count)] = {
                "value": mean,
                "interval": auroc_interval(mean, positive, negative),
                "draws": [round(area, 4) for area in found],
            }
    say(f"{category}, {way}, {test.name}: {entry['auroc']}")
    return entry


def report(runs: Sequence[dict[str, Any]]) -> str:
    """Return the tables as Markdown, a run on unseen categories before one on seen ones."""
    parts = [_section(run) for run in sorted(runs, key=lambda run: not run["unseen"])]
    return (
        "# Own categories from few examples\n\n"
        "Written by `benchmarks/own_category.py`: a known category plays the unknown one, its own "
        "head is not used, and a new one is fitted to 20, 50 or 200 examples. Mean AUROC over "
        "draws of the examples, with the 95 % interval that the number of test rows leaves it.\n\n"
        + "\n".join(parts)
    )


def _section(run: dict[str, Any]) -> str:
    unseen = ", ".join(f"`{name}`" for name in run["unseen"])
    head = (
        f"## A model that was trained without {unseen}\n\n"
        "No row that is positive in one of them was trained on, and no label of theirs: this is "
        "what a new category gets."
        if unseen
        else "## A model that knows the categories\n\n"
        "It was trained with every one of them, so its embedding knows them already: these "
        "figures are an upper bound."
    )
    lines = "\n".join(_line(entry) for entry in run["entries"])
    return (
        f"{head} Measured on {run['date']} with `{run['model']}` {run['version']}, {run['draws']} "
        f"draws; {_added(run)}.\n\n"
        "| category | examples | test rows | 20 | 50 | 200 | positive / negative |\n"
        f"|---|---|---|---|---|---|---|\n{lines}\n"
    )


def _added(run: dict[str, Any]) -> str:
    """Return how the units of an answer were added up."""
    if "toll" not in run:
        return "an answer's highest unit counted, as it did at runtime then"
    return "units add up as at runtime: a later one counts for less"


def _line(entry: dict[str, Any]) -> str:
    cells = [_shown(entry["auroc"].get(str(count))) for count in COUNTS]
    return (
        f"| {entry['category']} | {entry['way']} | {entry['test']} | {' | '.join(cells)} "
        f"| {entry['positive']} / {entry['negative']} |"
    )


def merged(path: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs that a page shows, this one in the place of one like it."""
    kept = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return [*(run for run in kept if run["unseen"] != facts["unseen"]), facts]


def _shown(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    low, high = figure["interval"]
    return f"{figure['value']:.3f} ({low:.3f}-{high:.3f})"


def say(text: str) -> None:
    """Say on standard error how far the run is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of *.jsonl.gz")
    parser.add_argument("--model", type=Path, default=BUNDLED_MODEL, help="model directory")
    parser.add_argument(
        "--unseen", action="append", default=[], help="a category the model was trained without"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="only this category; by default the unseen ones"
    )
    parser.add_argument("--limit", type=int, default=150, help="test rows per side, 0 for all")
    parser.add_argument("--draws", type=int, default=3, help="draws of the examples")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "own_category.md")
    given = parser.parse_args(None if arguments is None else list(arguments))
    classifier = Classifier(given.model)
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "model": classifier.name,
        "version": classifier.version,
        "limit": given.limit,
        "draws": given.draws,
        "unseen": given.unseen,
        "part": "own_category",
        "toll": TOLL,
    }
    with (ROOT / "benchmarks" / "quality_runs.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(facts) + "\n")
    sample = sample_of(given.model, classifier)
    ordinary = ordinary_answers(classifier, given.data, given.limit)
    facts["entries"] = []
    wanted = given.only or given.unseen
    for source in SOURCES:
        if not wanted or source.category in wanted:
            held = Held(classifier, source, given.data, given.limit, ordinary)
            facts["entries"] += measured(held, sample, given.draws)
    runs = merged(given.out.with_suffix(".json"), facts)
    given.out.with_suffix(".json").write_text(json.dumps(runs, indent=1) + "\n", "utf-8")
    given.out.write_text(report(runs), encoding="utf-8")


if __name__ == "__main__":
    main()
