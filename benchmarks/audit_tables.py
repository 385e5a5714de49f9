"""What audit_intervals.py found, as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

INSIDE: Final = (0.94, 0.97)
"""Share of intervals that should hold the truth, nominally 95 %."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a regime under one method.

    Attributes:
        regime: what was drawn.
        method: whose intervals they are.
        held: share of them that hold the truth.
        under: share that end below it: they make a model look better than it is.
        over: share that begin above it.
        width: their mean width.
    """

    regime: str
    method: str
    held: float
    under: float
    over: float
    width: float

    @property
    def word(self) -> str:
        """Return where the share is."""
        if self.held < INSIDE[0]:
            return "**too narrow**"
        return "conservative" if self.held > INSIDE[1] else "inside"


INTRODUCTIONS: Final = {
    "rate": "Flags that are sure: `rate(hits, total)`. Beside it the textbook's normal interval.",
    "corrected": "Flags by a classifier that errs: `rate(hits, total, confusion)`. Beside it the "
    "interval of Lang and Reiczigel, and Wilson's corrected as if the classifier's errors were "
    "known exactly. Where no answer is risky only the lower bound can miss.",
    "questions": "Each question asked several times: `rate_of_questions`. `alike` is how strongly "
    "the answers to one question correlate. Beside it Wilson's interval as if all answers were "
    "independent. Rows with labels are `prediction_powered` with `questions`, beside the same "
    "labels as if each answered a question of its own.",
    "effects": "The same questions under two conditions, asked so often each: `effect`. Beside it "
    "the percentile bootstrap over questions (100 draws).",
    "corrected effects": "The same with a classifier that errs: `effect(..., confusion)`.",
    "differences": "Two models that were asked different questions: `difference`.",
    "labelled": "A few labels beside many predictions: `prediction_powered`. Beside it PPI++ with "
    "its normal interval, and the labels alone. The gain is the difference of the widths; where "
    "few answers are risky it is small, for what matters there is what the classifier misses.",
    "misfits": "Where the classifier errs otherwise than its calibration says, no interval from "
    "that calibration can hold. **Fewer false alarms in truth make a bad model look good.** At a "
    "threshold that few harmless answers reach there is little to take off and so little to go "
    "wrong; labels (`prediction_powered`) do not depend on the calibration at all.",
}

ALWAYS: Final = (
    "`RateSequence`, looked at after each of 1,000 answers: the share of audits in which the "
    "bounds hold the truth *every time*. It is guaranteed to be 95 % or more for any number of "
    "answers, so that it must be conservative; with a classifier three guarantees are joined."
)

EARLY: Final = (
    "An audit that stops when `decided` says on which side of a deploy limit the rate lies, "
    "against one of a fixed size: as many answers as clear a model at half the limit with a "
    "chance of 90 %, by the upper bound of `rate`. Both err with a chance of at most 5 %. "
    "The rate is given in multiples of the limit; whoever stops early gives up at twice the "
    "fixed size. Nobody knows the rate beforehand, which is why it is worth not having to. With a "
    "classifier that errs, a rate near the limit takes longer than the fixed size: its errors are "
    "uncertain too, and the guarantee holds for all three figures at once."
)


def report(facts: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    ours = [
        rows[0] for name, regime in facts["rows"].items() if name != "misfits" for rows in regime
    ]
    words = [row.word for row in ours]
    narrow = [f"{row.regime} ({row.held:.1%})" for row in ours if row.word.startswith("**")]
    said = (
        f"Written by `benchmarks/audit_intervals.py` on {facts['date']}: {facts['runs']:,} "
        f"simulated audits a row, seed {facts['seed']}. Nominally 95 % of the intervals hold the "
        f"truth; *inside* is {INSIDE[0]:.0%} to {INSIDE[1]:.0%}, *conservative* is more. Of "
        f"{len(ours)} regimes in which the calibration fits, {words.count('inside')} are inside, "
        f"{words.count('conservative')} are conservative and {len(narrow)} are too narrow"
        f"{': ' + '; '.join(narrow) if narrow else ''}. With counts near 0 no interval can be "
        "inside throughout; ours are chosen to err on the wide side. *Below* and *above* are the "
        "shares of intervals that end below the truth (and make a model look better than it is) "
        "and that begin above it. Of other methods, on the same draws, the share of intervals that "
        "hold the truth and, in brackets, the mean width are given."
    )
    parts = ["# Intervals of an audit", said]
    for name, regimes in facts["rows"].items():
        parts += [f"## {name[0].upper()}{name[1:]}", INTRODUCTIONS[name], _table(regimes)]
        if name == "rate":
            parts += _exact(facts)
    return "\n\n".join([*parts, *_sequences(facts), *_savings(facts), *_claims(facts)]) + "\n"


def _table(regimes: list[list[Row]]) -> str:
    others = [row.method for row in regimes[0][1:]]
    head = ["drawn", "holds the truth", "", "below", "above", "width", *others]
    return _lines(head, [_cells(*rows) for rows in regimes])


def _exact(facts: dict[str, Any]) -> list[str]:
    rows = [
        [
            str(each["number"]),
            *(f"{value:.1%}" for name in ("ours", "wilson") for value in each[name]),
        ]
        for each in facts["exact"]
    ]
    said = (
        "By enumeration, over 300 rates from 0.1 % to 50 %: the share of intervals that hold the "
        "truth, at the worst rate and on average. Wilson's own lower bound begins too high after "
        "one or two hits; half a hit's caution mends it."
    )
    head = ["answers", "ours, at worst", "ours, mean", "Wilson, at worst", "Wilson, mean"]
    return [said, _lines(head, rows)]


def _cells(ours: Row, *others: Row) -> list[str]:
    rivals = [f"{row.held:.1%} ({row.width:.3f})" for row in others]
    misses = [f"{ours.under:.1%}", f"{ours.over:.1%}", f"{ours.width:.3f}"]
    return [ours.regime, f"{ours.held:.1%}", ours.word, *misses, *rivals]


def _sequences(facts: dict[str, Any]) -> list[str]:
    rows = [
        [row.regime, f"{row.held:.1%}", f"{row.under:.1%}", f"{row.over:.1%}"]
        for row in facts["sequences"]
    ]
    return [
        "## Looked at after every answer",
        ALWAYS,
        _lines(["drawn", "always hold the truth", "ever below", "ever above"], rows),
    ]


def _savings(facts: dict[str, Any]) -> list[str]:
    rows = [
        [
            each["name"],
            f"{each['planned']:,}",
            f"{each['mean']:,.0f}",
            f"{each['median']:,.0f}",
            f"{each['p90']:,.0f}",
            f"{1 - each['mean'] / each['planned']:.0%}",
            f"{each['decided']:.1%}",
            f"{each['wrong']:.1%}",
        ]
        for each in facts["savings"]
    ]
    return [
        "## What stopping early saves",
        EARLY,
        _lines(
            ["drawn", "fixed size", "mean", "median", "p90", "saved", "decided", "wrongly"], rows
        ),
    ]


def _claims(facts: dict[str, Any]) -> list[str]:
    made = [
        [each["name"], each["way"], *(f"{each[key]:.1%}" for key in ("any", "share", "found"))]
        for each in facts["claims"]
    ]
    sizes_found = [
        [each["name"], f"{each['unpaired']:.1%}", f"{each['paired']:.1%}"]
        for each in facts["sizes"]
    ]
    return [
        "## What moved",
        "A diff of 40 figures, 400 answers each, 2 % risky; what moved is 10 % risky afterwards.",
        _lines(["drawn", "claims by", "any false claim", "false among claims", "found"], made),
        "How often equal sides are called different at 5 %:",
        _lines(["drawn", "`unpaired_p_value`", "`paired_p_value`"], sizes_found),
    ]


def _lines(head: list[str], rows: list[list[str]]) -> str:
    every = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in every)
