"""What the live prior buys, and what talking it down costs: tables for docs/live.md.

    python benchmarks/live_prior.py            writes docs/live.md and docs/live.json
    python benchmarks/live_prior.py --smoke    a few seconds' worth, writes nothing

Evidence is made up, so that the truth is known: scores of risky and of other answers are normal,
so many standard deviations apart that the area under the curve is that of a middling category;
the log likelihood ratio is then exact. With a fixed prior a limit on the live risk is a limit on
the evidence; with the live prior it moves. Both limits are set to the same share of clean answers.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.progress import track

from guard.assess import log_odds
from guard.live.prior import Priors
from guard.live.settings import LiveSettings
from live_report import publish, stamp, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SEED: Final = 7
START: Final = 0.02
APART: Final = 2.8
"""Standard deviations between the two kinds: an AUROC of 0.976."""

BLOCKED: Final = 0.005
"""The share of clean answers above the limit, with and without the live prior."""

DRIFTS: Final = (0.01, 0.02, 0.05, 0.1, 0.3)
_ATTACKS: Final = 100
CONVERSATION: Final = 8
"""Exchanges of a conversation."""


def evidence(rng: np.random.Generator, risky: NDArray[np.bool_]) -> Floats:
    """Return exact log likelihood ratios."""
    scores = rng.normal(np.where(risky, APART, 0.0), 1.0)
    return np.asarray(APART * scores - APART * APART / 2)


def followed(found: Floats, conversations: NDArray[np.int64] | None) -> Floats:
    """Return each answer's log-odds of risk with the prior that stood before it."""
    priors = Priors({"risk": START}, LiveSettings())
    odds = np.empty(len(found))
    for number, value in enumerate(found):
        name = None if conversations is None else str(conversations[number])
        odds[number] = value + log_odds(priors.within(name)["risk"])
        priors.update({"risk": float(value)}, name)
    return odds


def recalls(rng: np.random.Generator, count: int) -> list[dict[str, float]]:
    """Return recall at equal false positives, for every drift and for bad conversations."""
    clean = evidence(rng, np.zeros(count, bool))
    talks = np.arange(count) // CONVERSATION
    limits = {
        "fixed": float(np.quantile(clean + log_odds(START), 1 - BLOCKED)),
        "live": float(np.quantile(followed(clean, None), 1 - BLOCKED)),
        "with conversations": float(np.quantile(followed(clean, talks), 1 - BLOCKED)),
    }
    rows = []
    for drift in DRIFTS:
        for gathered in (False, True):
            risky = _risky(rng, count, drift, talks, gathered=gathered)
            found = evidence(rng, risky)
            odds = {
                "fixed": found + log_odds(START),
                "live": followed(found, None),
                "with conversations": followed(found, talks),
            }
            row = {"drift": drift, "gathered": float(gathered)}
            for kind, values in odds.items():
                above = values >= limits[kind]
                row[kind] = float(above[risky].mean())
                row[f"{kind}, others"] = float(above[~risky].mean())
            rows.append(row)
    return rows


def _risky(
    rng: np.random.Generator, count: int, drift: float, talks: NDArray[np.int64], *, gathered: bool
) -> NDArray[np.bool_]:
    if not gathered:
        return rng.random(count) < drift
    # In bad conversations four of five answers are risky.
    bad = rng.random(int(talks[-1]) + 1) < drift / 0.8
    return np.asarray(bad[talks] & (rng.random(count) < 0.8))


def talked_down(rng: np.random.Generator) -> list[dict[str, float]]:
    """Return what benign traffic before the attack takes off, and how much it takes."""
    rows = []
    for benign in (0, 5, 20, 100, 500, 2_000):
        lost = np.array([_lost(rng, benign) for _ in range(_ATTACKS)])
        rows.append(
            {
                "benign": benign,
                "mean": float(lost.mean()),
                "most": float(lost.max()),
                "recall": float(np.mean([_recall(rng, value) for value in lost])),
            }
        )
    return rows


def _lost(rng: np.random.Generator, benign: int) -> float:
    """Return how many nats a conversation of benign exchanges takes off the prior."""
    priors = Priors({"risk": START}, LiveSettings())
    for value in evidence(rng, np.zeros(benign, bool)):
        priors.update({"risk": float(value)}, "attack")
    return log_odds(START) - log_odds(priors.within("attack")["risk"])


def _recall(rng: np.random.Generator, lost: float) -> float:
    """Return the share of risky answers above the fixed limit once so much is taken off."""
    clean = evidence(rng, np.zeros(40_000, bool))
    risky = evidence(rng, np.ones(40_000, bool))
    return float((risky - lost >= np.quantile(clean, 1 - BLOCKED)).mean())


def measured(count: int, repeats: int) -> dict[str, Any]:
    """Return all figures, recalls as means over repeats."""
    rng = np.random.default_rng(SEED)
    runs = [recalls(rng, count) for _ in track(range(repeats), "live prior")]
    mean = [
        {key: float(np.mean([run[number][key] for run in runs])) for key in runs[0][number]}
        for number in range(len(runs[0]))
    ]
    return {"recall": mean, "talked down": talked_down(rng), "answers": count * repeats}


def report(facts: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    rows = [
        [
            f"{row['drift']:.0%}, {'in bad conversations' if row['gathered'] else 'anywhere'}",
            *(
                f"{row[kind]:.1%} ({row[f'{kind}, others']:.2%})"
                for kind in ("fixed", "live", "with conversations")
            ),
        ]
        for row in facts["recall"]
    ]
    down = [
        [
            f"{row['benign']:,.0f}",
            f"{row['mean']:.2f}",
            f"{row['most']:.2f}",
            f"{row['recall']:.1%}",
        ]
        for row in facts["talked down"]
    ]
    return "\n\n".join(
        [
            stamp("live_prior.py"),
            (
                f"**Recall at equal false positives**: each limit lets {1 - BLOCKED:.1%} of clean "
                "answers pass on clean traffic. In brackets, the share of other answers above the "
                f"limit while traffic drifts. {facts['answers']:,} answers a row; made-up evidence "
                f"of {APART:g} standard deviations, exactly calibrated."
            ),
            table(["risky answers", "fixed prior", "live", "with conversations"], rows),
            (
                "**Talking it down**: an attacker sends benign exchanges in one conversation, then "
                "what he is after. What he gains is bounded by "
                f"{LiveSettings().fall:g} nats; mean and most of {_ATTACKS} attackers, and recall "
                "at the limit of a fixed prior."
            ),
            table(["benign exchanges", "nats lost", "at most", "recall"], down),
        ]
    )


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a few seconds; writes nothing")
    given = parser.parse_args(None if arguments is None else list(arguments))
    facts = measured(2_000, 1) if given.smoke else measured(20_000, 5)
    if given.smoke:
        print(report(facts))
        return
    publish("live_prior", report(facts), facts)


if __name__ == "__main__":
    main()
