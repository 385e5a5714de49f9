"""The parts of the quality benchmark that score rows; each returns what is kept as JSON.

A part gives its tables' entries and, under `checks`, its figures beside what is aimed at.

This module does not know how figures are shown, and measures nothing about the machine.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.calibration import (
    REFERENCE_PRIOR,
    auroc,
    calibration_error_interval,
    reliability,
)
from guard.categories import CATEGORIES
from guard.encoding import PROMPT_TOKENS, STRIDE_TOKENS, TEXT_TOKENS, Encoder, Sizes
from guard.training.obfuscate import HELD_OUT, KINDS, TRAINED
from quality_figures import (
    area,
    average_precision,
    bootstrapped,
    recall_at,
    roc,
    share,
    threshold,
)
from quality_formats import FORMATS
from quality_scores import each
from quality_sets import (
    ATTACKS,
    BENIGN,
    BENIGN_TARGETS,
    ERROR_POOLED,
    ERROR_WORST,
    HELD_OUT_KINDS,
    KNOWN_KINDS,
    LEFT_OUT,
    OBFUSCATED,
    OBFUSCATED_BENIGN,
    PAIRS,
    PARITY_AUROC,
    PARITY_FLIPS,
    SAFE_PROMPTS,
    SAFE_PROMPTS_TARGET,
    SEED,
    SETS,
    STREAM,
    STREAM_TARGET,
    TRAFFIC,
    UNKNOWN,
    certain,
    labelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from guard.verdict import Verdict
    from quality_scores import Scorer
    from quality_sets import Row, Rows, Set, Target

_LENGTHS: Final = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 10_000))
"""Numbers of units, for the plot of scores by length."""

_LENGTH_CATEGORY: Final = "harmful_compliance"
_RATE: Final = 0.05
_FEWEST: Final = 10
"""Rows of either side below which nothing is pooled over sets."""

_WIDE: Final = Sizes(PROMPT_TOKENS, 400, 300)
"""Windows nearly as wide as the encoder reads."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts measure with and on.

    Attributes:
        scorer: the model.
        rows: reads the rows.
        limit: rows per set, 0 for all.
    """

    scorer: Scorer
    rows: Rows
    limit: int

    def part(self, divisor: int) -> int:
        """Return the limit of a part that takes `divisor` times as long per row."""
        return max(1, self.limit // divisor) if self.limit else 0


def say(text: str) -> None:
    """Say on standard error how far the run is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def ranking(bench: Bench) -> dict[str, Any]:
    """Measure how well each set is ranked."""
    entries, checks = [], []
    for item in SETS:
        entry = _ranked(bench, item, bench.scorer)
        entries.append(entry)
        checks += _ranking_checks(item, entry)
    return {
        "entries": entries,
        "attacks": _attacks(bench),
        "pairs": _pairs(bench),
        "categories": [_category(bench, name) for name in _pooled_categories(bench)],
        "lengths": _lengths(bench),
        "checks": checks,
    }


def left_out(bench: Bench, other: Scorer) -> dict[str, Any]:
    """Measure how well a model ranks `LEFT_OUT` that was trained without it."""
    entry = _ranked(bench, LEFT_OUT, other)
    return {"entries": [entry], "checks": _ranking_checks(LEFT_OUT, entry)}


def _ranked(bench: Bench, item: Set, scorer: Scorer) -> dict[str, Any]:
    rows, positive = labelled(bench.rows, item, bench.limit)
    truth = np.array(positive, bool)
    scores = scorer.scores(rows, item.category)
    entry = {"set": item.name, "category": item.category} | area(scores, truth)
    if "auroc" in entry:
        entry |= _more(scores, truth, item)
    say(f"{item.name} {item.category}: {entry.get('auroc')}")
    return entry


def _more(scores: NDArray[np.float64], truth: NDArray[np.bool_], item: Set) -> dict[str, Any]:
    """Return recall and average precision where the set asks for them."""
    entry: dict[str, Any] = {}
    if item.rate:
        entry["rate"] = item.rate
        entry["recall"] = recall_at(scores, truth, item.rate)
        entry["recall_interval"] = bootstrapped(
            scores, truth, lambda s, t: recall_at(s, t, item.rate)
        )
    if item.precision:
        entry["auprc"] = average_precision(scores, truth)
        entry["auprc_interval"] = bootstrapped(scores, truth, average_precision)
    return entry


def _ranking_checks(item: Set, entry: dict[str, Any]) -> list[dict[str, Any]]:
    names = {"auroc": "AUROC", "auprc": "AUPRC", "recall": f"recall at {item.rate:.0%} FPR"}
    return [
        target.check(
            f"{item.name}: {names[measure]} {item.category}",
            "share" if measure == "recall" else "auroc",
            entry[measure],
            entry[f"{measure}_interval"],
        )
        for measure, target in item.targets.items()
        if measure in entry
    ]


def _attacks(bench: Bench) -> list[dict[str, Any]]:
    """Return the figures of each attack's positives against all negatives of the file."""
    rows, positive = labelled(bench.rows, ATTACKS, bench.limit)
    scores, truth = bench.scorer.scores(rows, ATTACKS.category), np.array(positive, bool)
    entries = []
    for attack in sorted({str(row["meta"].get("attack")) for row in rows}):
        of_attack = np.array([str(row["meta"].get("attack")) == attack for row in rows])
        picked = of_attack & truth | ~truth
        entry = {"attack": attack} | area(scores[picked], truth[picked])
        if "auroc" in entry:
            entry |= _more(scores[picked], truth[picked], ATTACKS)
        entries.append(entry)
    return entries


def _pairs(bench: Bench) -> dict[str, Any]:
    """Return how often the rejected answer of a pair scores higher, ties counting half."""
    pairs: dict[tuple[str, str], dict[str, Row]] = {}
    for row in bench.rows(PAIRS, 0):
        sides = pairs.setdefault((row["source"], str(row["meta"]["pair"])), {})
        sides[row["meta"]["preference"]] = row
    whole = [pair for _, pair in sorted(pairs.items()) if len(pair) == 2]
    random.Random(SEED).shuffle(whole)
    whole = whole[: bench.limit or None]
    rejected = bench.scorer.scores([pair["rejected"] for pair in whole], "unsafe")
    chosen = bench.scorer.scores([pair["chosen"] for pair in whole], "unsafe")
    right = round(float((rejected > chosen).sum() + (rejected == chosen).sum() / 2))
    return {"set": PAIRS, "category": "unsafe"} | share(right, len(whole))


def _known(bench: Bench, category: str) -> tuple[list[Row], NDArray[np.bool_]]:
    """Return all rows of all sets that say clearly whether they are of a category."""
    keep = {item.files: item.keep for item in reversed(SETS)}
    files = dict.fromkeys([*keep, *BENIGN])
    side = "response" if CATEGORIES[category].side == "response" else "prompt"
    rows = [
        row
        for name in files
        for row in bench.rows(name, bench.limit)
        if certain(row, category)
        and (row[side] or "").strip()
        and (name not in keep or keep[name](row))
    ]
    unique = list({(row["prompt"], row["response"]): row for row in rows}.values())
    return unique, np.array([row["labels"][category] >= 0.5 for row in unique], bool)


def _pooled_categories(bench: Bench) -> list[str]:
    """Return the categories that have enough rows of either side."""
    found = []
    for category in bench.scorer.heads:
        _, truth = _known(bench, category)
        if min(int(truth.sum()), int((~truth).sum())) >= _FEWEST:
            found.append(category)
    return found


def _category(bench: Bench, category: str) -> dict[str, Any]:
    rows, truth = _known(bench, category)
    scores = bench.scorer.scores(rows, category)
    say(f"{category}, all sets: {auroc(scores, truth):.3f}")
    return {"category": category} | area(scores, truth) | {"roc": roc(scores, truth)}


def _lengths(bench: Bench) -> list[dict[str, Any]]:
    """Return quartiles of the evidence by the number of units."""
    rows, truth = _known(bench, _LENGTH_CATEGORY)
    scores = bench.scorer.scores(rows, _LENGTH_CATEGORY)
    units = np.array([len(bench.scorer.scored(row, "response").units) for row in rows])
    found = []
    for low, high in _LENGTHS:
        at = (units >= low) & (units <= high)
        sides = {"positive": scores[at & truth], "negative": scores[at & ~truth]}
        found.append(
            {"from": low, "to": high, "category": _LENGTH_CATEGORY}
            | {side: _quartiles(given) for side, given in sides.items() if len(given)}
        )
    return found


def _quartiles(values: NDArray[np.float64]) -> dict[str, Any]:
    quartiles = [round(float(np.quantile(values, q)), 3) for q in (0.25, 0.5, 0.75)]
    return {"rows": len(values), "quartiles": quartiles}


def benign(bench: Bench) -> dict[str, Any]:
    """Measure what the whole guard does with answers that should pass."""
    entries = [_acted_on(bench, name, bench.rows(name, bench.limit)) for name in BENIGN]
    traffic = [entry for entry in entries if entry["set"] in TRAFFIC]
    safe = [
        row
        for row in bench.rows(SAFE_PROMPTS, bench.limit)
        if not row["labels"].get("prompt_harmful")
    ]
    pooled = share(sum(e["hits"] for e in traffic), sum(e["rows"] for e in traffic))
    pooled |= {"flagged": sum(e["flagged"] for e in traffic), "causes": {}}
    entries.append({"set": f"real prompts: the first {len(TRAFFIC)} together"} | pooled)
    entries.append(_acted_on(bench, f"{SAFE_PROMPTS}, safe prompts", safe))
    targets = {**BENIGN_TARGETS, entries[-1]["set"]: SAFE_PROMPTS_TARGET}
    targets[entries[-2]["set"]] = BENIGN_TARGETS[TRAFFIC[0]]
    checks = [
        targets[e["set"]].check(f"{e['set']}: acted on", "share", e["share"], e["interval"])
        for e in entries
        if e["set"] in targets and e["rows"]
    ]
    return {"entries": entries, "checks": checks}


def _acted_on(bench: Bench, name: str, rows: list[Row]) -> dict[str, Any]:
    verdicts = bench.scorer.verdicts([row for row in rows if (row["response"] or "").strip()])
    acted = [verdict.reasons for verdict in verdicts if _acts(verdict)]
    causes: dict[str, int] = {}
    for reasons in acted:
        cause = reasons[0].partition(":")[0]
        causes[cause] = causes.get(cause, 0) + 1
    say(f"{name}: {len(acted)} of {len(verdicts)} acted on {causes}")
    return (
        {"set": name}
        | share(len(acted), len(verdicts))
        | {
            "flagged": sum(verdict.action == "flag" for verdict in verdicts),
            "causes": dict(sorted(causes.items(), key=lambda pair: -pair[1])),
        }
    )


def _acts(verdict: Verdict) -> bool:
    return verdict.action in ("rewrite", "block")


def calibration(bench: Bench) -> dict[str, Any]:
    """Measure how far evidence can be believed, over all sets.

    An experimental category's evidence is bounded on purpose and so is not in the targets.
    """
    entries: list[dict[str, Any]] = []
    pooled = []
    unproven = bench.scorer.classifier.experimental
    for category in _pooled_categories(bench):
        rows, truth = _known(bench, category)
        evidence = bench.scorer.scores(rows, category, bounded=True)
        error = calibration_error_interval(evidence, truth)
        entries.append(
            {
                "category": category,
                "rows": len(rows),
                "experimental": category in unproven,
                "ece": error.value,
                "ece_interval": [error.low, error.high],
                "reliability": [asdict(each) for each in reliability(evidence, truth)],
            }
        )
        if category not in unproven:
            pooled.append((evidence, truth))
    believed = [e for e in entries if not e["experimental"]]
    checks = []
    if believed:
        evidence, truth = (np.concatenate(parts) for parts in zip(*pooled, strict=True))
        error = calibration_error_interval(evidence, truth)
        worst = max(believed, key=lambda entry: entry["ece"])
        name = f"worst category ({worst['category']}): calibration error"
        interval = [error.low, error.high]
        checks = [
            ERROR_POOLED.check("all categories: calibration error", "error", error.value, interval),
            ERROR_WORST.check(name, "error", worst["ece"], worst["ece_interval"]),
        ]
    return {"entries": entries, "prior": REFERENCE_PRIOR, "checks": checks}


def parity(bench: Bench, exact: Scorer) -> dict[str, Any]:
    """Compare the quantised model with `exact`, the 32-bit graph."""
    limit, entries = bench.part(6), []
    items = [item for item in SETS if item.targets]
    for item in items:
        rows, positive = labelled(bench.rows, item, limit)
        truth = np.array(positive, bool)
        if truth.any() and not truth.all():
            ours, theirs = (
                auroc(scorer.scores(rows, item.category), truth) for scorer in (bench.scorer, exact)
            )
            facts = {"int8": ours, "float": theirs, "lost": theirs - ours, "rows": len(rows)}
            entries.append({"set": item.name, "category": item.category} | facts)
            say(f"parity {item.name}: {theirs - ours:+.4f}")
    files = dict.fromkeys([*(item.files for item in items), *BENIGN])
    rows = [row for name in files for row in bench.rows(name, limit)]
    rows = [row for row in rows if (row["response"] or "").strip()]
    actions = [[v.action for v in scorer.verdicts(rows)] for scorer in (bench.scorer, exact)]
    flips = share(sum(a != b for a, b in zip(*actions, strict=True)), len(rows))
    checks = _lost(entries, PARITY_AUROC, "int8 against float")
    if rows:
        what = "int8 against float: verdicts changed"
        checks.append(PARITY_FLIPS.check(what, "share", flips["share"], flips["interval"]))
    return {"entries": entries, "flips": flips, "checks": checks}


def stream(bench: Bench) -> dict[str, Any]:
    """Compare units, as a stream judges them, with the best of several whole-text passes."""
    first = {item.files: item for item in reversed(SETS)}
    entries = []
    for name in STREAM:
        item = first[name]
        rows, positive = labelled(bench.rows, item, bench.part(5))
        truth = np.array(positive, bool)
        if not truth.any() or truth.all():
            continue
        units = auroc(bench.scorer.scores(rows, item.category), truth)
        passes = _whole_passes(bench.scorer, rows, item.category)
        whole = {name: auroc(scores, truth) for name, scores in passes.items()}
        best = max(whole, key=lambda name: whole[name])
        lost = whole[best] - units
        say(f"stream {item.name}: {units:.3f}, whole text {whole[best]:.3f} ({best})")
        facts = {"units": units, "whole": whole, "best": best, "lost": lost, "rows": len(rows)}
        entries.append({"set": item.name, "category": item.category} | facts)
    checks = _lost(entries, STREAM_TARGET, "units against the best whole-text pass")
    return {"entries": entries, "checks": checks}


def _lost(entries: list[dict[str, Any]], target: Target, what: str) -> list[dict[str, Any]]:
    """Return the mean AUROC that was lost beside its target; nothing where none was measured."""
    if not entries:
        return []
    mean = float(np.mean([entry["lost"] for entry in entries]))
    worst = max(entries, key=lambda entry: entry["lost"])
    text = f"{what}: AUROC lost, mean over sets (most: {worst['lost']:+.3f}, {worst['set']})"
    return [target.check(text, "error", mean)]


def _whole_passes(
    scorer: Scorer, rows: Sequence[Row], category: str
) -> dict[str, NDArray[np.float64]]:
    """Return each row's logit by every way to score a whole text."""
    index, classifier = scorer.heads[category].index, scorer.classifier
    found: dict[str, NDArray[np.float64]] = {}
    for sizes in (Sizes(PROMPT_TOKENS, TEXT_TOKENS, STRIDE_TOKENS), _WIDE):
        encoder = Encoder(classifier._encoder._tokenizer, sizes=sizes)

        def windows(row: Row, encoder: Encoder = encoder) -> NDArray[np.float64]:
            encoded = encoder.encode(row["prompt"] or "", row["response"] or "")
            passes = [classifier._graph.run(window.ids, window.types) for window in encoded]
            return np.array([float(given.logits[index]) for given in passes])

        logits = each(windows, rows)
        found[f"{sizes.text} tokens, highest"] = np.array([x.max() for x in logits])
        found[f"{sizes.text} tokens, mean"] = np.array([x.mean() for x in logits])
        found[f"{sizes.text} tokens, last"] = np.array([x[-1] for x in logits])
    return found


def obfuscation(bench: Bench) -> dict[str, Any]:
    """Measure what is still caught of what was caught, once the text is hidden."""
    kept: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    changes = {kind: partial(hidden, kind=kind) for kind in KINDS}
    for files, category in OBFUSCATED:
        for kind, entry in _hidden(bench, files, category, changes).items():
            kept[kind].append({"set": files, "category": category} | entry)
        say(f"obfuscation {files}")
    calm = [row for name in OBFUSCATED_BENIGN for row in bench.rows(name, bench.part(16))]
    entries = []
    for kind in KINDS:
        verdicts = bench.scorer.verdicts([hidden(row, kind) for row in calm])
        acted = share(sum(map(_acts, verdicts)), len(verdicts))
        entry = {"kind": kind, "group": _group(kind), "sets": kept[kind], "benign": acted}
        entries.append(entry | _summed(kept[kind]))
    clean = bench.scorer.verdicts(calm)
    checks = []
    for known, target in ((True, KNOWN_KINDS), (False, HELD_OUT_KINDS)):
        of_group = [e for e in entries if (e["group"] == UNKNOWN) != known]
        name = f"{len(of_group)} obfuscations {'known' if known else UNKNOWN}"
        for measure, where in (("rate", f"at {_RATE:.0%} FPR"), ("act", "at the act limit")):
            all_kept = share(
                sum(e[measure]["hits"] for e in of_group), sum(e[measure]["rows"] for e in of_group)
            )
            if all_kept["rows"]:
                checks.append(
                    target.check(
                        f"{name}: recall kept {where}",
                        "share",
                        all_kept["share"],
                        all_kept["interval"],
                    )
                )
    return {
        "entries": entries,
        "benign_clean": share(sum(map(_acts, clean)), len(clean)),
        "rate": _RATE,
        "checks": checks,
    }


def _group(kind: str) -> str:
    if kind in HELD_OUT:
        return UNKNOWN
    return "trained" if kind in TRAINED else "undone, never trained"


def formats(bench: Bench) -> dict[str, Any]:
    """Measure what is still caught of what was caught, once it stands in a format."""
    kept: dict[str, list[dict[str, Any]]] = {name: [] for name in FORMATS}
    changes = {name: partial(formatted, name=name) for name in FORMATS}
    for files, category in OBFUSCATED:
        for name, entry in _hidden(bench, files, category, changes, 25).items():
            kept[name].append({"set": files, "category": category} | entry)
        say(f"formats {files}")
    calm = [row for name in OBFUSCATED_BENIGN for row in bench.rows(name, bench.part(16))]
    calm = [row for row in calm if (row["response"] or "").strip()]
    entries = []
    for name in FORMATS:
        verdicts = bench.scorer.verdicts([formatted(row, name) for row in calm])
        acted = share(sum(map(_acts, verdicts)), len(verdicts))
        entry = {"format": name, "sets": kept[name], "benign": acted}
        entries.append(entry | _summed(kept[name]))
    clean = bench.scorer.verdicts(calm)
    return {
        "entries": entries,
        "benign_clean": share(sum(map(_acts, clean)), len(clean)),
        "rate": _RATE,
        "checks": [],
    }


def _hidden(
    bench: Bench,
    files: str,
    category: str,
    changes: Mapping[str, Callable[[Row], Row]],
    divisor: int = 10,
) -> dict[str, dict[str, Any]]:
    """Return per change how many of the rows that are caught in the clear are still caught."""
    scorer = bench.scorer
    rows = [row for row in bench.rows(files, bench.part(2)) if certain(row, category)]
    risky = [row for row in rows if row["labels"][category] >= 0.5][: bench.part(divisor) or None]
    fine = [row for row in rows if row["labels"][category] < 0.5]
    if not risky or not fine:
        return {}
    bar = threshold(scorer.scores(fine, category), _RATE)
    limit = scorer.security_class.limit(category)
    act = None if limit is None else limit.act
    found = {}
    above = scorer.scores(risky, category) > bar
    acted = _reached(scorer.risks(risky, category), act)
    for kind, change in changes.items():
        changed = [change(row) for row in risky]
        still = scorer.scores(changed, category) > bar
        still_acted = _reached(scorer.risks(changed, category), act)
        found[kind] = {
            "rate": share(int((above & still).sum()), int(above.sum())),
            "act": share(int((acted & still_acted).sum()), int(acted.sum())),
        }
    return found


def _reached(risks: NDArray[np.float64], act: float | None) -> NDArray[np.bool_]:
    return risks >= act if act is not None else np.zeros(len(risks), bool)


def _summed(kept: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        measure: share(sum(e[measure]["hits"] for e in kept), sum(e[measure]["rows"] for e in kept))
        for measure in ("rate", "act")
    }


def formatted(row: Row, name: str) -> Row:
    """Return a row whose response stands in a format."""
    return row | {"response": FORMATS[name](row["response"] or "")}


def hidden(row: Row, kind: str) -> Row:
    """Return a row whose response is hidden in one way, the same one each time."""
    rng = random.Random(f"{SEED}:{kind}:{row['response']}")
    return row | {"response": KINDS[kind](row["response"] or "", rng)}
