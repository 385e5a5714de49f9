"""The model card: what a model was made from, how well it does, and what it must not be used for.

The card is written from three files and nothing else: the manifest, `calibration.json`, and the
benchmark's `docs/quality.json`. So a test can tell whether it is still what it would be.

    python benchmarks/quality.py --card

This module does not know how a figure was measured: it writes down what it is given.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from guard.categories import CATEGORIES
from guard.sealing import MANIFEST, seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE: Final = "README.md"

_GRAPH: Final = "onnx/model_quantized.onnx"
_CALIBRATION: Final = "calibration.json"

_WEAK_AUROC: Final = 0.85
"""AUROC on test rows below which a source is named among the weak spots."""

_USE: Final = """\
## Intended use

Scores English responses of language models, unit by unit, as one detector of a guard beside
pattern packs and fingerprints. It is a signal for a security class to act upon, not a judge of
people or of truth.

Not for: deciding about people, moderating what people write to each other, checking facts,
other languages than English, or guarding without limits that somebody chose and watches.
"""

_WEAK: Final = """\
## Weak spots

- English only. Other languages, ciphers and noise are outside what it was trained on.
- It knows no facts: `bad_advice` is judged by how advice reads, not by whether it is right.
- Matched good and bad answers by one writer are told apart less well than answers of different
  sources: authorship is a shortcut that validation figures share with training.
- Social-media text is over-represented for hate and harassment; negation and counter-speech can
  be mistaken for what they speak against.
- Experimental categories are scored and never acted upon by a built-in class.
"""

_TEST: Final = (
    "On rows that training, selection and calibration never saw. Every row of every set that is "
    "labelled for the category counts; the error is the expected calibration error at a prior of "
    "one half. Plots and all other figures are in the project's `docs/quality.md`."
)

_SOURCES: Final = (
    "The same rows by source. Sets of pairs by one hand and sets of other authors are the "
    "honest ones; others share their style with training."
)

_NOT_MEASURED: Final = (
    "Not measured for this graph and calibration yet: run `benchmarks/quality.py`, then "
    "`benchmarks/quality.py --card`."
)

_VALIDATION: Final = (
    "On whole responses cut from the training sources by question, judged by the quantised "
    "model; used for calibration, so these are not test figures."
)


def digest(manifest: Mapping[str, Any]) -> str:
    """Return what names a model's scores: a digest of its graph and of what reads them."""
    names = (_GRAPH, f"{_GRAPH}.data", _CALIBRATION, "unfamiliar.npz")
    parts = [manifest["files"][name]["sha256"] for name in names if name in manifest["files"]]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def card(
    facts: Mapping[str, Any],
    calibration: Mapping[str, Any],
    quality: Mapping[str, Any] | None = None,
) -> str:
    """Return the card as Markdown.

    Args:
        facts: the manifest's content without the files' hashes.
        calibration: the content of `calibration.json`.
        quality: the parts of `docs/quality.json` that were measured with this very model.
    """
    parts = quality or {}
    sections = [
        _head(facts),
        _USE,
        _WEAK + "".join(_weak_sources(parts)),
        _experimental(facts),
        _test(parts),
        _validation(facts, calibration),
        _data(facts),
    ]
    return "\n".join(sections)


def regenerated(directory: Path, quality: Mapping[str, Any]) -> str:
    """Return what the card of a sealed model should be now.

    Args:
        directory: the model's.
        quality: the content of `docs/quality.json`. Parts that were measured with another
            graph or calibration are left out.
    """
    manifest = json.loads((directory / MANIFEST).read_text("utf-8"))
    calibration = json.loads((directory / _CALIBRATION).read_text("utf-8"))
    of_this = digest(manifest)
    parts = {
        name: part for name, part in quality.get("parts", {}).items() if part["digest"] == of_this
    }
    facts = {name: value for name, value in manifest.items() if name != "files"}
    return card(facts, calibration, parts)


def write(directory: Path, quality: Mapping[str, Any]) -> None:
    """Write a sealed model's card anew, and seal the model with it."""
    (directory / FILE).write_text(regenerated(directory, quality), "utf-8")
    facts = json.loads((directory / MANIFEST).read_text("utf-8"))
    names = dict.fromkeys([*facts.pop("files"), FILE])
    seal(directory, facts, tuple(names))


def _head(facts: Mapping[str, Any]) -> str:
    stages = "\n".join(f"{n}. {_stage(stage)}" for n, stage in enumerate(facts["training"], 1))
    return (
        f"# {facts['name']} {facts['version']}\n\n"
        f"A 22-million-parameter encoder ({facts['base']}) with one sigmoid head per category, "
        "quantised to int8. Licence: Apache-2.0.\n\n"
        f"Made on {facts['made']}:\n\n{stages}\n\n"
        "The settings and the data's hashes are in `manifest.json`.\n"
    )


def _stage(history: Mapping[str, Any]) -> str:
    count = len(history.get("teachers", ()))
    taught = f", taught by {count} model{'s' * (count > 1)}" if count else ""
    return (
        f"{history['examples']:,} examples of {history['rows']:,} rows in {history['steps']:,} "
        f"steps, {history['minutes']:.1f} minutes on {history['machine']}{taught}."
    )


def _weak_sources(parts: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for what misses its floor, and one for sources that are ranked badly."""
    missed = [
        f"{check['what']} ({check['value']:.3f}, floor {check['floor']:g})"
        for part in parts.values()
        for check in part["checks"]
        if (check["value"] > check["floor"] if check["below"] else check["value"] < check["floor"])
    ]
    if missed:
        yield f"- Below what was aimed at on test rows: {'; '.join(missed)}.\n"
    weak = [
        f"{entry['category']} on {entry['set']} ({entry['auroc']:.3f})"
        for entry in parts.get("ranking", {}).get("entries", ())
        if entry.get("auroc", 1.0) < _WEAK_AUROC
    ]
    if weak:
        yield f"- AUROC below {_WEAK_AUROC} on test rows: {'; '.join(weak)}.\n"


def _experimental(facts: Mapping[str, Any]) -> str:
    head = "## Experimental categories\n\nTheir evidence is bounded, and no built-in class acts"
    if not facts["experimental"]:
        return f"{head} on them. There are none.\n"
    lines = "\n".join(f"- `{name}`: {why}" for name, why in facts["experimental"].items())
    return f"{head} on them.\n\n{lines}\n"


def _test(parts: Mapping[str, Any]) -> str:
    if "ranking" not in parts:
        return f"## Test figures\n\n{_NOT_MEASURED}\n"
    errors = {e["category"]: e for e in parts.get("calibration", {}).get("entries", ())}
    lines = [
        "## Test figures",
        "",
        _TEST,
        "",
        "| category | AUROC | calibration error | positive | negative |",
        "|---|---|---|---|---|",
        *(
            f"| {e['category']} | {_figure(e, 'auroc')} "
            f"| {_figure(errors.get(e['category']), 'ece')} "
            f"| {e['positive']} | {e['negative']} |"
            for e in parts["ranking"]["categories"]
        ),
        "",
        _SOURCES,
        "",
        "| source | category | AUROC | recall at false-positive rate | positive | negative |",
        "|---|---|---|---|---|---|",
        *(
            f"| {e['set']} | {e['category']} | {_figure(e, 'auroc')} | {_recall(e)} "
            f"| {e['positive']} | {e['negative']} |"
            for e in parts["ranking"]["entries"]
        ),
        *_passed(parts),
    ]
    return "\n".join(lines) + "\n"


def _passed(parts: Mapping[str, Any]) -> Iterator[str]:
    if "benign" not in parts:
        return
    yield ""
    yield f"Answers that should pass, under class `{parts['benign']['class']}`:"
    yield ""
    yield "| source | acted on | flagged | rows |"
    yield "|---|---|---|---|"
    for entry in parts["benign"]["entries"]:
        if entry["rows"]:
            low, high = entry["interval"]
            acted = f"{entry['share']:.1%} ({low:.1%}-{high:.1%})"
            flagged = f"{entry['flagged'] / entry['rows']:.1%}"
            yield f"| {entry['set']} | {acted} | {flagged} | {entry['rows']} |"


def _figure(entry: Mapping[str, Any] | None, name: str) -> str:
    if entry is None or entry.get(name) is None:
        return "-"
    low, high = entry[f"{name}_interval"]
    return f"{entry[name]:.3f} ({low:.3f}-{high:.3f})"


def _recall(entry: Mapping[str, Any]) -> str:
    return f"{_figure(entry, 'recall')} at {entry['rate']:.0%}" if "recall" in entry else "-"


def _validation(facts: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    lines = [
        "## Validation figures",
        "",
        _VALIDATION,
        "",
        "| category | AUROC | 95 % interval | positive | negative | |",
        "|---|---|---|---|---|---|",
        *_validation_rows(facts, calibration),
    ]
    return "\n".join(lines) + "\n"


def _validation_rows(facts: Mapping[str, Any], calibration: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in calibration["labels"].items():
        note = "experimental" if name in facts["experimental"] else ""
        note = "auxiliary" if CATEGORIES[name].auxiliary else note
        auroc, interval = entry["auroc"], entry["interval"]
        figures = "- | -" if auroc is None else f"{auroc:.3f} | {interval[0]:.3f}-{interval[1]:.3f}"
        yield f"| {name} | {figures} | {entry['positives']} | {entry['negatives']} | {note} |"


def _data(facts: Mapping[str, Any]) -> str:
    lines = ["## Data", "", "| file | licence |", "|---|---|"]
    lines += [f"| {name} | {', '.join(e['licences'])} |" for name, e in facts["data"].items()]
    return "\n".join(lines) + "\n"
