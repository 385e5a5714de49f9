"""How many answers tell a fine-tuned model from its base: a sequential test between two models.

    python benchmarks/live_tell.py --data FOLDER [--cache FILE]    writes docs/live-replay.md

Answers come in pairs, one of each model. Only pairs in which one is flagged and the other is not
say anything: where the fine-tuned model is no worse, it is the flagged one in at most half of them
(McNemar, Psychometrika 12, 1947). A gambler bets that it is more, spread evenly over every share
from one half to all; his wealth reaches 1/error with chance `error` at most, whenever one looks
(Ville 1939). A classifier that errs alike on both sides changes nothing about that, so that the
test on its flags is one on the corrected rates.

Answers are drawn with replacement from recorded ones. How much hangs on which ones were recorded is
said by drawing the recorded ones themselves anew (bootstrap).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.audit.statistics.rates import rate
from live_report import REPLAY, publish, stamp, table
from live_scores import BASE, CATEGORY, JUDGED, loaded, rows, scored, surest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from guard.calibration import Confusion

    Flags = NDArray[np.bool_]

UNTUNED: Final = "unsloth/Qwen2.5-14B-Instruct"
"""The model that most of the fine-tuned ones were made of."""

ERROR: Final = 0.01
RUNS: Final = 600
PATIENCE: Final = 5000
"""Answers of each model after which it is given up."""

_AGAIN: Final = 60
"""Bootstraps, of fewer runs each."""

_FEW: Final = 50
_MOST: Final = 200
"""Pairs that say something which are looked at."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_SHARES: Final = 0.75 + _NODES / 4
_LOG_WEIGHTS: Final = np.log(_WEIGHTS / 2)


@dataclass(frozen=True, slots=True)
class Told:
    """Answers of each model until the two are told apart; infinite where they are not.

    Attributes:
        median: half of the runs need no more.
        most: nineteen of twenty need no more.
        low: 2.5 % of the medians where recorded answers are drawn anew are below.
        high: and 2.5 % above.
        share: of runs that told them apart at all.
    """

    median: float
    most: float
    low: float
    high: float
    share: float


def told(rng: np.random.Generator, tuned: Flags, base: Flags, runs: int = RUNS) -> Told:
    """Return how many answers tell `tuned` from `base`, given the flags of recorded answers."""
    found = needed(rng, tuned, base, runs)
    medians = [
        float(np.median(needed(rng, rng.choice(tuned, len(tuned)), rng.choice(base, len(base)))))
        for _ in range(_AGAIN)
    ]
    low, high = _quantile(medians, 0.025), _quantile(medians, 0.975)
    share = float(np.isfinite(found).mean())
    return Told(_quantile(found, 0.5), _quantile(found, 0.95), low, high, share)


def needed(
    rng: np.random.Generator, tuned: Flags, base: Flags, runs: int = _FEW
) -> NDArray[np.float64]:
    """Return, run by run, the answers of each model until the alarm; infinite for none."""
    found = np.full(runs, np.inf)
    for run in range(runs):
        ours, theirs = rng.choice(tuned, PATIENCE), rng.choice(base, PATIENCE)
        telling = np.flatnonzero(ours != theirs)[:_MOST]
        above = np.flatnonzero(log_wealth(ours[telling]) >= -math.log(ERROR))
        if len(above):
            found[run] = telling[above[0]] + 1
    return found


def log_wealth(wins: Flags) -> NDArray[np.float64]:
    """Return the gambler's wealth after each pair that says something, in nats.

    Args:
        wins: whether it is the fine-tuned model that was flagged.
    """
    won = np.cumsum(wins)[:, None]
    lost = np.cumsum(~wins)[:, None]
    each = won * np.log(2 * _SHARES) + lost * np.log(2 * (1 - _SHARES)) + _LOG_WEIGHTS
    return np.asarray(np.logaddexp.reduce(each, axis=1), np.float64)


def _quantile(values: NDArray[np.float64] | list[float], share: float) -> float:
    ordered = np.sort(values)
    return float(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)))])


def measured(
    judged: Sequence[dict[str, Any]], evidence: NDArray[np.float64], known: Sequence[Confusion]
) -> dict[str, Any]:
    """Return the figures of each fine-tuned model, and of the base against itself."""
    chosen = surest(known)
    models = np.array([row["meta"].get("model") or BASE for row in judged])
    labels = np.array([row["labels"][CATEGORY] >= 0.5 for row in judged])
    flags = evidence >= chosen.threshold
    base = models == UNTUNED
    rng = np.random.default_rng(0)
    found = {}
    for model in [*sorted(set(models.tolist()) - {UNTUNED, BASE}), UNTUNED]:
        mine = models == model
        found[model.rpartition("/")[2]] = {
            "rate": rate(int(flags[mine].sum()), int(mine.sum()), chosen).value,
            "judged": float(labels[mine].mean()),
            "by flags": _plain(told(rng, flags[mine], flags[base])),
            "by labels": _plain(told(rng, labels[mine], labels[base])),
        }
    return {
        "models": found,
        "base": UNTUNED.rpartition("/")[2],
        "recorded": int(base.sum()),
        "flagged": int(flags[base].sum()),
    }


def report(facts: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    found = dict(facts["models"])
    same = found.pop(facts["base"])
    lines = [
        [
            name,
            f"{each['rate']:.1%}",
            _shown(each["by flags"]["median"]),
            f"{_shown(each['by flags']['low'])} to {_shown(each['by flags']['high'])}",
            _shown(each["by flags"]["most"]),
            f"{each['judged']:.1%}",
            _shown(each["by labels"]["median"]),
            _shown(each["by labels"]["most"]),
        ]
        for name, each in found.items()
    ]
    head = ["model", "corrected rate", "median", "95 % interval of it", "95th percentile"]
    head += ["judge's rate", "median by the judge", "95th percentile"]
    text = (
        f"Answers of each model until a sequential test at {ERROR:.0%} error tells it from "
        f"`{facts['base']}` ({facts['recorded']} recorded answers, {facts['flagged']} of them "
        f"flagged), drawn with replacement in {RUNS} runs; *over* where that share of the runs has "
        f"no alarm within {PATIENCE:,}. The interval is a bootstrap over the recorded answers. By "
        "the judge: what a classifier would need that agreed with it on every answer. The base is "
        f"told apart from itself in {same['by flags']['share']:.1%} of the runs by the classifier "
        f"and in {same['by labels']['share']:.1%} by the judge. The 32B model's own base was not "
        "recorded."
    )
    title = "## How many answers tell a fine-tuned model from its base?"
    return "\n\n".join([title, table(head, lines), text])


def _plain(found: Told) -> dict[str, float | None]:
    """Return the figures as JSON can hold them; `None` for what is infinite."""
    return {name: x if math.isfinite(x) else None for name, x in asdict(found).items()}


def _shown(count: float | None) -> str:
    return f"over {PATIENCE:,}" if count is None else f"{count:,.0f}"


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled rows")
    parser.add_argument("--cache", type=Path, help="file that keeps the classifier's figures")
    given = parser.parse_args(None if arguments is None else list(arguments))
    judged = [row for row in rows(given.data, JUDGED) if row["meta"].get("model")]
    scorer, confusions = loaded()
    facts = measured(judged, scored(scorer, judged, "judged answers", given.cache), confusions)
    text = "\n\n".join([report(facts), stamp("live_tell.py")])
    print(text)
    publish("live_tell", text, facts, REPLAY)


if __name__ == "__main__":
    main()
