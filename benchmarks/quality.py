"""How well the shipped model does on rows that it has never seen: tables for docs/quality.md.

    python benchmarks/quality.py --data FOLDER            writes docs/quality.md
    python benchmarks/quality.py --data FOLDER --limit 0  every row instead of a sample

Only rows marked `test` or `meta.holdout` are read, which training, selection and calibration
drop. A response's score is the highest logit over its units, as at runtime. *Acted on* is the
whole guard under a class, all detectors, that rewrites or blocks. Intervals are 95 %: Hanley and
McNeil (1982) for AUROC, Wilson (1927) for shares, percentile bootstrap for the rest.

Every run is logged in benchmarks/quality_runs.jsonl, so that it shows how often test rows were
looked at.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import logging
import math
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog
from sklearn.metrics import average_precision_score, roc_auc_score

from guard import Exchange, Guard
from guard.detectors.classifier import Classifier
from guard.loading import BUNDLED_MODEL
from guard.text.units import CONTEXT, units
from guard.training.calibrate import auroc_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

ROOT: Final = Path(__file__).parent.parent
SEED: Final = 20
BOOTSTRAPS: Final = 300


@dataclass(frozen=True, slots=True)
class Set:
    """One row of the table of ranking figures.

    Attributes:
        file: name of the file in the data folder.
        category: the head that ranks the rows.
        label: the label that says which rows are positive; the category's by default.
        rate: false-positive rate at which recall is given, 0 for none.
        precision: whether average precision (AUPRC) is given.
        keep: which rows count.
        note: what to know about the figure.
    """

    file: str
    category: str
    label: str = ""
    rate: float = 0.0
    precision: bool = False
    keep: Callable[[dict[str, Any]], bool] = lambda _: True
    note: str = ""


SETS: Final = (
    Set("em_judged_answers", "misaligned_persona", rate=0.01, note="unseen questions"),
    Set("em_judged_noisy_ivanicu", "misaligned_persona", rate=0.01, note="noisy labels"),
    Set("own_persona", "misaligned_persona", note="matched pairs"),
    Set("own_persona", "sycophancy", note="matched pairs"),
    Set("sycobench", "sycophancy"),
    Set("spiral_bench_turns", "sycophancy"),
    Set("anthropic_power_seeking", "power_seeking", note="human-written statements"),
    Set("gptfuzz_responses", "harmful_compliance", rate=0.05),
    Set("jbb_artifact_responses", "harmful_compliance", rate=0.05),
    Set("jbb_advbench_artifacts2", "harmful_compliance", rate=0.05, note="adaptive attacks"),
    Set("own_compliance", "harmful_compliance", note="matched pairs"),
    Set("openai_moderation_1680", "unsafe", precision=True),
    Set("openai_moderation_1680", "hate_toxicity", precision=True),
    Set("openai_moderation_1680", "sexual", precision=True),
    Set("openai_moderation_1680", "violence", precision=True),
    Set("xstest_completions", "refusal"),
    Set("orbench_responses", "refusal"),
    Set(
        "code_secure_insecure_pairs",
        "insecure_code",
        keep=lambda row: not row["meta"].get("near_dup_train"),
        note="without near-duplicates",
    ),
    Set("own_code", "insecure_code", note="matched pairs"),
    Set("toxigen_human", "hate_toxicity"),
    Set(
        "hatemoji", "hate_toxicity", keep=lambda row: bool(row["meta"].get("holdout")), note="Check"
    ),
    Set("own_hate", "hate_toxicity", note="contrast pairs"),
    Set("own_style", "bias_stereotype", note="one question, five tones"),
    Set("crows_pairs", "bias_stereotype", note="minimal pairs"),
    Set("own_advice_pairs", "bad_advice", note="both answers by one hand"),
    Set("own_leak", "system_prompt_leak"),
    Set("own_exposure", "exposure"),
    Set("own_action", "unsafe_action"),
    Set("jailbreak_prompts2", "jailbreak"),
    Set("own_injection", "prompt_injection"),
    Set("spikee_indirect_composed", "prompt_injection"),
)

BENIGN: Final = (
    "benign_arena_hard",
    "benign_wildbench_responses",
    "benign_expertqa",
    "benign_counselchat",
    "benign_dolly",
    "own_hard_benign",
    "own_benign_chat",
    "orbench_responses",
)
"""Sets whose rows should pass."""


def rows(folder: Path, name: str, limit: int) -> list[dict[str, Any]]:
    """Return the test rows of a file, a fixed sample of `limit` where there are more."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        every = [json.loads(line) for line in lines]
    kept = [row for row in every if row["split"] == "test" or row["meta"].get("holdout")]
    random.Random(f"{SEED}:{name}").shuffle(kept)
    return kept[:limit] if limit else kept


class Scorer:
    """Scores rows with the shipped model, each once."""

    def __init__(self, guard: Guard, classifier: Classifier, labels: Sequence[str]) -> None:
        """Score nothing yet; `labels` are the model's, in its order."""
        self.guard = guard
        self._classifier = classifier
        self._known: dict[str, NDArray[np.float32]] = {}
        self._index = {name: i for i, name in enumerate(labels)}

    def scores(self, found: Sequence[dict[str, Any]], category: str) -> NDArray[np.float64]:
        """Return the category's highest logit over each row's units."""
        with ThreadPoolExecutor(2) as pool:
            logits = list(pool.map(self._logits, found))
        return np.array([row[self._index[category]] for row in logits], float)

    def actions(self, found: Sequence[dict[str, Any]]) -> list[tuple[str, tuple[str, ...]]]:
        """Return what the guard does with each row, and why."""
        exchanges = [Exchange.of(row["response"], prompt=row["prompt"] or "") for row in found]
        return [(v.action, v.reasons) for v in self.guard.check_many(exchanges)]

    def _logits(self, row: dict[str, Any]) -> NDArray[np.float32]:
        prompt, response = row["prompt"] or "", row["response"] or ""
        key = hashlib.sha256(f"{prompt}\0{response}".encode("utf-8", "replace")).hexdigest()
        if key not in self._known:
            self._known[key] = self._judge(prompt, response)
        return self._known[key]

    def _judge(self, prompt: str, response: str) -> NDArray[np.float32]:
        if not response.strip():
            return self._classifier.logits("", prompt, "prompt")
        texts = [response[max(0, a - CONTEXT) : b] for a, b in units(response)]
        logits = [self._classifier.logits(prompt, text) for text in texts]
        return np.asarray(np.max(logits, axis=0), np.float32)


def ranking(scorer: Scorer, folder: Path, limit: int) -> Iterator[dict[str, Any]]:
    """Yield one entry per set of `SETS`."""
    for item in SETS:
        label = item.label or item.category
        found = [r for r in rows(folder, item.file, limit) if label in r["labels"] and item.keep(r)]
        truth = np.array([row["labels"][label] >= 0.5 for row in found], bool)
        entry: dict[str, Any] = {"set": item.file, "category": item.category, "note": item.note}
        entry |= {"positive": int(truth.sum()), "negative": int((~truth).sum())}
        if truth.any() and not truth.all():
            entry |= _figures(scorer.scores(found, item.category), truth, item)
        say(f"{item.file} {item.category}: {entry.get('auroc')}")
        yield entry


def _figures(scores: NDArray[np.float64], truth: NDArray[np.bool_], item: Set) -> dict[str, Any]:
    area = float(roc_auc_score(truth, scores))
    entry: dict[str, Any] = {
        "auroc": area,
        "auroc_interval": auroc_interval(area, int(truth.sum()), int((~truth).sum())),
    }
    if item.rate:
        entry["recall_rate"] = item.rate
        entry |= _measured("recall", scores, truth, lambda s, t: recall_at(s, t, item.rate))
    if item.precision:
        entry |= _measured(
            "auprc", scores, truth, lambda s, t: float(average_precision_score(t, s))
        )
    return entry


def _measured(
    name: str,
    scores: NDArray[np.float64],
    truth: NDArray[np.bool_],
    measure: Callable[[NDArray[np.float64], NDArray[np.bool_]], float],
) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    again = []
    for _ in range(BOOTSTRAPS):
        pick = rng.integers(0, len(truth), len(truth))
        if truth[pick].any() and not truth[pick].all():
            again.append(measure(scores[pick], truth[pick]))
    bounds = [float(np.quantile(again, q)) for q in (0.025, 0.975)]
    return {name: measure(scores, truth), f"{name}_interval": bounds}


def recall_at(scores: NDArray[np.float64], truth: NDArray[np.bool_], rate: float) -> float:
    """Return the share of positives above the score that `rate` of the negatives exceed."""
    return float((scores[truth] > np.quantile(scores[~truth], 1 - rate)).mean())


def wilson(hits: int, total: int) -> list[float]:
    """Return the 95 % interval of a share (Wilson, JASA 22, 1927)."""
    z, share = 1.96, hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def benign(scorer: Scorer, folder: Path, limit: int) -> Iterator[dict[str, Any]]:
    """Yield one entry per set whose rows should pass, and one for XSTest's safe prompts."""
    for name in BENIGN:
        yield _acted_on(scorer, name, rows(folder, name, limit))
    safe = [
        r
        for r in rows(folder, "xstest_completions", limit)
        if not r["labels"].get("prompt_harmful")
    ]
    yield _acted_on(scorer, "xstest_completions, safe prompts", safe)


def _acted_on(scorer: Scorer, name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    actions = scorer.actions(found)
    acted = [reasons for action, reasons in actions if action in ("rewrite", "block")]
    causes: dict[str, int] = {}
    for reasons in acted:
        cause = reasons[0].partition(":")[0]
        causes[cause] = causes.get(cause, 0) + 1
    say(f"{name}: {len(acted)} of {len(found)} acted on {causes}")
    return {
        "set": name,
        "rows": len(found),
        "acted": len(acted),
        "interval": wilson(len(acted), len(found)),
        "flagged": sum(action == "flag" for action, _ in actions),
        "causes": dict(sorted(causes.items(), key=lambda pair: -pair[1])),
    }


def report(facts: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    head = (
        "# Quality\n\n"
        f"Written by `benchmarks/quality.py` on {facts['date']} for the model "
        f"`{facts['model']}` {facts['version']}. "
        f"{_size(facts['limit'])} Only rows that training, selection and calibration never saw; "
        "weak figures included. What the sets are: `guard/models/clearance-minilm/README.md`.\n"
    )
    ranked = "\n".join(_ranked(entry) for entry in facts["ranking"])
    passed = "\n".join(_passed(entry) for entry in facts["benign"])
    return (
        f"{head}\n## Ranking\n\nA response's score is the highest logit over its units.\n\n"
        "| set | category | AUROC | recall at false-positive rate | AUPRC | positive / negative |\n"
        f"|---|---|---|---|---|---|\n{ranked}\n\n## Acted on although benign\n\n"
        f"The whole guard under class `{facts['class']}`: rewritten or blocked.\n\n"
        "| set | acted on | flagged | rows | causes |\n|---|---|---|---|---|\n"
        f"{passed}\n"
    )


def _size(limit: int) -> str:
    return f"At most {limit:,} rows of a set, a fixed sample." if limit else "Every row."


def _ranked(entry: dict[str, Any]) -> str:
    def shown(name: str) -> str:
        if name not in entry:
            return "-"
        low, high = entry[f"{name}_interval"]
        return f"{entry[name]:.3f} ({low:.3f}-{high:.3f})"

    recall = f"{shown('recall')} at {entry['recall_rate']:.0%}" if "recall" in entry else "-"
    name = f"{entry['set']}, {entry['note']}" if entry["note"] else entry["set"]
    return (
        f"| {name} | {entry['category']} | {shown('auroc')} | {recall} | {shown('auprc')} "
        f"| {entry['positive']} / {entry['negative']} |"
    )


def _passed(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    share = entry["acted"] / entry["rows"]
    causes = ", ".join(f"{name} {count}" for name, count in entry["causes"].items()) or "-"
    flagged = entry["flagged"] / entry["rows"]
    return (
        f"| {entry['set']} | {share:.1%} ({low:.1%}-{high:.1%}) | {flagged:.1%} "
        f"| {entry['rows']} | {causes} |"
    )


def say(text: str) -> None:
    """Say on standard error how far the run is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of *.jsonl.gz")
    parser.add_argument("--limit", type=int, default=800, help="rows per set, 0 for all")
    parser.add_argument("--class", dest="name", default="public", help="security class")
    parser.add_argument("--model", type=Path, default=BUNDLED_MODEL, help="model directory")
    parser.add_argument(
        "--benign", action="store_true", help="only the second table; keep the first as it is"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "quality.md")
    given = parser.parse_args(None if arguments is None else list(arguments))
    # What a guard flags here is counted and not logged.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    classifier = Classifier(given.model)
    names = json.loads((given.model / "config.json").read_text("utf-8"))["label2id"]
    scorer = Scorer(
        Guard.load(given.name, model=given.model, journal=None), classifier, list(names)
    )
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "model": classifier.name,
        "version": classifier.version,
        "limit": given.limit,
        "class": given.name,
        "part": "benign" if given.benign else "all",
    }
    with (ROOT / "benchmarks" / "quality_runs.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(facts) + "\n")
    known = given.out.with_suffix(".json")
    if given.benign:
        facts["ranking"] = json.loads(known.read_text("utf-8"))["ranking"]
    else:
        facts["ranking"] = list(ranking(scorer, given.data, given.limit))
    facts["benign"] = list(benign(scorer, given.data, given.limit))
    given.out.write_text(report(facts), "utf-8")
    known.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
