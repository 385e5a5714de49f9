"""Writes the figures down as Markdown: docs/quality.md from docs/quality.json.

This module does not know how a figure came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Part = Mapping[str, Any]

PARTS: Final = (
    "ranking",
    "left_out",
    "benign",
    "calibration",
    "parity",
    "stream",
    "obfuscation",
    "formats",
    "speed",
    "memory",
)
"""In the order in which they are measured and shown."""

NO_ROWS: Final = ("speed", "memory")
"""Parts that look at no row."""

PLOTS: Final = {
    "roc": "Recall over the false-positive rate (log axis), by category, over all sets",
    "lengths": "Evidence by the number of units: quartiles",
    "reliability": "Predicted against observed probability at a prior of one half",
    "obfuscation": "Share of what was caught in the clear that is still caught, by kind",
}
"""Caption of each plot, by the end of its file's name."""


def report(facts: Mapping[str, Any]) -> str:
    """Return docs/quality.md."""
    parts = facts["parts"]
    sections = [_head(facts), _targets(facts)]
    sections += [_SECTIONS[name](parts[name]) for name in PARTS if name in parts]
    return "\n".join(sections)


def _head(facts: Mapping[str, Any]) -> str:
    runs = facts["runs"]
    return (
        "# Quality\n\n"
        f"Written by `benchmarks/quality.py` for the model `{facts['model']}` "
        f"{facts['version']} (digest `{facts['digest'][:12]}`), class `{facts['class']}`. "
        "Only rows that training, selection and calibration never saw; weak figures included. "
        "Intervals are 95 %. Licences of the sets and their sizes: "
        "`guard/models/clearance-minilm/README.md`.\n\n"
        f"Rows of the test split were scored in {runs['all']} runs so far, "
        f"{runs['model']} of them with this very model: `benchmarks/quality_runs.jsonl`.\n\n"
        + _stamps(facts)
    )


def _stamps(facts: Mapping[str, Any]) -> str:
    """Say of each part when it was measured, with which model and on how many rows."""
    lines = ["| part | measured on | rows per set | model |", "|---|---|---|---|"]
    for name in PARTS:
        part = facts["parts"].get(name)
        if part is None:
            lines.append(f"| {name} | not measured | | |")
            continue
        rows = "-" if name in NO_ROWS else f"at most {part['limit']:,}" if part["limit"] else "all"
        same = part["digest"] == facts["digest"]
        model = "this" if same else _other(part)
        lines.append(f"| {name} | {part['date']} | {rows} | {model} |")
    return "\n".join(lines) + "\n"


def _other(part: Part) -> str:
    # Of a model that was trained for one figure alone the digest may not have been kept.
    return f"another: {part['version']}" + (f" (`{part['digest'][:12]}`)" if part["digest"] else "")


def _targets(facts: Mapping[str, Any]) -> str:
    parts = facts["parts"]
    checks = [c for name in PARTS if name in parts for c in parts[name]["checks"]]
    return _section(
        "Against what was aimed at",
        f"{sum(_met(c, 'floor') for c in checks)} of {len(checks)} floors and "
        f"{sum(_met(c, 'goal') for c in checks)} goals are met.",
        "| figure | measured | floor | goal |",
        (
            f"| {c['what']} | {shown(c)} | {_mark(c, 'floor')} | {_mark(c, 'goal')} |"
            for c in checks
        ),
    )


def shown(check: Mapping[str, Any]) -> str:
    """Return a figure with its interval, as its kind is written."""
    value = _written(check["kind"], check["value"])
    if check["interval"] is None:
        return value
    low, high = (_written(check["kind"], bound) for bound in check["interval"])
    return f"{value} ({low}-{high})"


def _mark(check: Mapping[str, Any], name: str) -> str:
    sign = "≤" if check["below"] else "≥"
    bound = _written(check["kind"], check[name])
    return f"{sign} {bound} {'met' if _met(check, name) else '**missed**'}"


def _met(check: Mapping[str, Any], name: str) -> bool:
    if check["below"]:
        return bool(check["value"] <= check[name])
    return bool(check["value"] >= check[name])


def _written(kind: str, value: float) -> str:
    if kind == "share":
        return f"{100 * value:.2f}%" if 0 < value < 0.01 else f"{100 * value:.1f}%"
    if kind == "ratio":
        return f"{value:.2f}"
    if kind == "megabytes":
        return f"{value:.0f}"
    return f"{value:.3f}" if kind == "auroc" else f"{value:.4f}"


def _section(
    title: str, text: str, head: str, lines: Iterable[str], plots: Iterable[str] = ()
) -> str:
    columns = head.count("|") - 1
    table = "\n".join([head, "|" + "---|" * columns, *lines])
    images = "".join(f"\n![{PLOTS[name]}](quality-{name}.svg)\n" for name in plots)
    return f"## {title}\n\n{text}\n\n{table}\n{images}"


def _value(entry: Mapping[str, Any], name: str) -> str:
    if name not in entry:
        return "-"
    low, high = entry[f"{name}_interval"]
    return f"{entry[name]:.3f} ({low:.3f}-{high:.3f})"


def _share(entry: Mapping[str, Any]) -> str:
    if not entry["rows"]:
        return "-"
    low, high = entry["interval"]
    return f"{entry['share']:.1%} ({low:.1%}-{high:.1%})"


def _recall(entry: Mapping[str, Any]) -> str:
    return f"{_value(entry, 'recall')} at {entry['rate']:.0%}" if "recall" in entry else "-"


def _ranking(part: Part) -> str:
    head = (
        "| set | category | AUROC | recall at false-positive rate | AUPRC | positive / negative |"
    )
    lines = [
        f"| {e['set']} | {e['category']} | {_value(e, 'auroc')} | {_recall(e)} "
        f"| {_value(e, 'auprc')} | {e['positive']} / {e['negative']} |"
        for e in part["entries"]
    ]
    text = (
        "A response's score is its evidence at runtime: pooled over its units so far and, where "
        "it has several, with the closing read of the whole, the "
        "highest counts. Evidence is compared without its bound."
    )
    pairs = part["pairs"]
    below = (
        f"\nOf {pairs['rows']} pairs of `{pairs['set']}` the rejected answer scores higher for "
        f"`{pairs['category']}` in {_share(pairs)}.\n"
    )
    attacks = _section(
        "Per attack",
        "Positives of each attack in `jbb_advbench_artifacts2` against all of its negatives.",
        "| attack | AUROC | recall at false-positive rate | positive |",
        (
            f"| {e['attack']} | {_value(e, 'auroc')} | {_recall(e)} | {e['positive']} |"
            for e in part["attacks"]
        ),
    )
    pooled = _section(
        "Per category, over all sets",
        "Every row of every set above and of the benign sets that is labelled for the category.",
        "| category | AUROC | positive / negative |",
        (
            f"| {e['category']} | {_value(e, 'auroc')} | {e['positive']} / {e['negative']} |"
            for e in part["categories"]
        ),
        plots=("roc", "lengths"),
    )
    return "\n".join([_section("Ranking", text, head, lines) + below, attacks, pooled])


def _left_out(part: Part) -> str:
    return _section(
        "A source that was left out of training",
        f"By a model that was trained for this figure alone: {part['version']}.",
        "| set | category | AUROC | positive / negative |",
        (
            f"| {e['set']} | {e['category']} | {_value(e, 'auroc')} "
            f"| {e['positive']} / {e['negative']} |"
            for e in part["entries"]
        ),
    )


def _benign(part: Part) -> str:
    return _section(
        "Acted on although benign",
        "The whole guard: rewritten or blocked, and flagged.",
        "| set | acted on | flagged | rows | causes |",
        (
            f"| {e['set']} | {_share(e)} | {e['flagged'] / max(1, e['rows']):.1%} | {e['rows']} "
            f"| {', '.join(f'{name} {n}' for name, n in e['causes'].items()) or '-'} |"
            for e in part["entries"]
        ),
    )


def _calibration(part: Part) -> str:
    return _section(
        "Calibration",
        f"Expected calibration error at a prior of {part['prior']:g}, where an error shows in "
        "full, on rows of all sets. The evidence of experimental categories is bounded on "
        "purpose, and is not in the targets.",
        "| category | error | rows | |",
        (
            f"| {e['category']} | {_value(e, 'ece')} | {e['rows']} "
            f"| {'experimental' if e['experimental'] else ''} |"
            for e in part["entries"]
        ),
        plots=("reliability",),
    )


def _parity(part: Part) -> str:
    flips = part["flips"]
    return _section(
        "int8 against the 32-bit graph",
        f"{flips['hits']} of {flips['rows']} verdicts differ: {_share(flips)}.",
        "| set | category | AUROC int8 | AUROC float | lost | rows |",
        (
            f"| {e['set']} | {e['category']} | {e['int8']:.4f} | {e['float']:.4f} "
            f"| {e['lost']:+.4f} | {e['rows']} |"
            for e in part["entries"]
        ),
    )


def _stream(part: Part) -> str:
    return _section(
        "A stream against whole texts",
        "Units and closing read as in a stream, against the best of six ways to score the whole "
        "text with the same weights; the best is picked on these rows, which favours it.",
        "| set | category | units | best whole-text pass | which | lost | rows |",
        (
            f"| {e['set']} | {e['category']} | {e['units']:.3f} | {e['whole'][e['best']]:.3f} "
            f"| {e['best']} | {e['lost']:+.3f} | {e['rows']} |"
            for e in part["entries"]
        ),
    )


def _obfuscation(part: Part) -> str:
    return _section(
        "Hidden text",
        "Of the risky rows that are caught in the clear, how many are still caught once their "
        "text is hidden: at the score that "
        f"{part['rate']:.0%} of the clear negatives exceed, and at the class's act limit. "
        f"Benign answers in the clear are acted on in {_share(part['benign_clean'])}.",
        f"| kind | | kept at {part['rate']:.0%} FPR | kept at the act limit | benign acted on |",
        (
            f"| {e['kind']} | {e['group']} "
            f"| {_share(e['rate'])} | {_share(e['act'])} | {_share(e['benign'])} |"
            for e in part["entries"]
        ),
        plots=("obfuscation",),
    )


def _formats(part: Part) -> str:
    return _section(
        "Formats",
        "The same for texts that nobody hides, in formats in which products hand them out. Benign "
        f"answers in the clear are acted on in {_share(part['benign_clean'])}.",
        f"| format | kept at {part['rate']:.0%} FPR | kept at the act limit | benign acted on |",
        (
            f"| {e['format']} | {_share(e['rate'])} | {_share(e['act'])} | {_share(e['benign'])} |"
            for e in part["entries"]
        ),
    )


def _speed(part: Part) -> str:
    names = list(part["entries"][0]["milliseconds"])
    peaks = part["peaks"]
    return _section(
        "Speed",
        f"One window, one thread; medians of {part['rounds']} rounds in turn, ms. "
        f"{part['machine']}. The floor is what the window's operations take at the peak of this "
        f"processor, measured in the same run: {peaks['int8']:.0f} GOP/s in int8, "
        f"{peaks['float']:.0f} GFLOP/s in fp32.",
        f"| tokens | {' | '.join(names)} | floor | int8's share of the floor |",
        (
            f"| {e['tokens']} | {_times(e, names)} | {e['floor']:.2f} | {e['floor_share']:.0%} |"
            for e in part["entries"]
        ),
    )


def _times(entry: Mapping[str, Any], names: Iterable[str]) -> str:
    return " | ".join(f"{entry['milliseconds'][name]:.2f}" for name in names)


def _memory(part: Part) -> str:
    return _section(
        "Memory",
        f"Resident MB of a fresh process. The model's files take {part['megabytes']:.1f} MB.",
        "| what | loaded | after a text of 2,000 tokens |",
        (f"| {e['what']} | {e['loaded']:.0f} | {e['after']:.0f} |" for e in part["entries"]),
    )


_SECTIONS: Final[Mapping[str, Callable[[Part], str]]] = {
    "ranking": _ranking,
    "left_out": _left_out,
    "benign": _benign,
    "calibration": _calibration,
    "parity": _parity,
    "stream": _stream,
    "obfuscation": _obfuscation,
    "formats": _formats,
    "speed": _speed,
    "memory": _memory,
}
