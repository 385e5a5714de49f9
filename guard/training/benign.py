"""Writes `benign.npz`: embeddings of ordinary units, which own categories stand against.

    python -m guard.training.benign guard/models/clearance-minilm

One unit each of this project's own benign rows (CC0-1.0): curated good answers, and the good
sides of pairs, which look like trouble and are none. Every other one is judged without its
prompt. Needs no torch. Write it after the graph and before the seal.

This module does not know how a head is fitted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.detectors.classifier import Classifier
from guard.fitting import benign
from guard.fitting.bags import embeddings
from guard.sealing import MANIFEST, seal
from guard.training.data import OWN

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS: Final = 600
"""Units of the sample: some 0.45 MB."""

_CURATED: Final = 0.5
"""Share of the sample from files of benign rows; the rest are good sides of pairs."""


def write(directory: Path, units: int = UNITS) -> None:
    """Write the sample of a model that has graph, tokenizer and configuration."""
    classifier = Classifier(directory, verify=False)
    found = [_embedded(classifier, row, place) for place, row in enumerate(_sample(units))]
    prompted = np.array([place % 2 == 0 for place in range(len(found))], bool)
    sample = benign.Benign(np.stack(found), prompted)
    benign.write(directory, sample, classifier.digest)


def _embedded(classifier: Classifier, row: dict[str, Any], place: int) -> Any:
    """Return the embedding of one unit of a row: now its first, now a later one."""
    prompt = row["prompt"] or "" if place % 2 == 0 else ""
    every = embeddings(classifier, prompt, row["response"], limit=4)
    return every[place // 2 % len(every)]


def _sample(units: int) -> list[dict[str, Any]]:
    """Return rows in a fixed order that depends on nothing but what they say."""
    curated: list[dict[str, Any]] = []
    paired: list[dict[str, Any]] = []
    for path in sorted(OWN.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        fine = [row for row in rows if (row["response"] or "").strip() and _harmless(row)]
        (curated if "benign" in path.name else paired).extend(fine)
    first = sorted(curated, key=_key)[: round(units * _CURATED)]
    rest = sorted(paired, key=_key)[: units - len(first)]
    return sorted([*first, *rest], key=_key)


def _harmless(row: dict[str, Any]) -> bool:
    return bool(row["labels"]) and not any(row["labels"].values())


def _key(row: dict[str, Any]) -> str:
    said = f"{row['prompt'] or ''}\0{row['response']}"
    return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sample of a finished model, and seal the model again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="the model's directory")
    directory = parser.parse_args(arguments).directory
    write(directory)
    facts = json.loads((directory / MANIFEST).read_text("utf-8"))
    del facts["files"]
    seal(directory, facts)


if __name__ == "__main__":
    main()
