"""The model card: what a model was made from, how well it does, and what it must not be used for.

This module does not know how a figure was measured: it writes down what it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from guard.categories import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_USE: Final = """\
## Intended use

Scores English responses of language models, unit by unit, as one detector of a guard beside
pattern packs and fingerprints. It is a signal for a security class to act upon, not a judge of
people or of truth.

## Weak spots

- English only. Other languages, ciphers and noise are outside what it was trained on.
- It knows no facts: `bad_advice` is judged by how advice reads, not by whether it is right.
- Matched good and bad answers by one writer are told apart less well than answers of different
  sources: authorship is a shortcut that validation figures share with training.
- Social-media text is over-represented for hate and harassment; negation and counter-speech can
  be mistaken for what they speak against.
- Experimental categories are scored and never acted upon by a built-in class.
"""

_VALIDATION: Final = (
    "On whole responses cut from the training sources by question, judged by the quantised "
    "model; used for calibration, so these are not test figures. Figures on rows that nothing "
    "here has seen are in the project's `docs/quality.md`."
)


def card(facts: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        facts: the manifest's content without the files' hashes.
        calibration: the content of `calibration.json`.
    """
    parts = [_head(facts), _USE, _quality(facts, calibration), _data(facts)]
    return "\n".join(parts)


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
    return (
        f"{history['examples']:,} windows of {history['rows']:,} rows in {history['steps']:,} "
        f"steps, {history['minutes']:.0f} minutes on {history['config']['threads']} CPU threads."
    )


def _quality(facts: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    lines = [
        "## Validation figures",
        "",
        _VALIDATION,
        "",
        "| category | AUROC | 95 % interval | positive | negative | |",
        "|---|---|---|---|---|---|",
        *_quality_rows(facts, calibration),
    ]
    return "\n".join(lines) + "\n"


def _quality_rows(facts: Mapping[str, Any], calibration: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in calibration["labels"].items():
        note = (
            f"experimental: {facts['experimental'][name]}" if name in facts["experimental"] else ""
        )
        note = "auxiliary" if CATEGORIES[name].auxiliary else note
        auroc, interval = entry["auroc"], entry["interval"]
        figures = "- | -" if auroc is None else f"{auroc:.3f} | {interval[0]:.3f}-{interval[1]:.3f}"
        yield f"| {name} | {figures} | {entry['positives']} | {entry['negatives']} | {note} |"


def _data(facts: Mapping[str, Any]) -> str:
    lines = ["## Data", "", "| file | licence |", "|---|---|"]
    lines += [f"| {name} | {', '.join(e['licences'])} |" for name, e in facts["data"].items()]
    return "\n".join(lines) + "\n"
