"""What each idea of the training gave: per-category AUROC of several models on validation rows.

    python benchmarks/ablations.py --data FOLDER "base=models/a" "bags=runs/b/weights.pt"
    python benchmarks/ablations.py --data FOLDER --pooled "bags, pooled=models/b"
    python benchmarks/ablations.py --table                 only writes docs/model.md's table anew

A model is a directory as the runtime loads it, or weights as training leaves them. Figures are
added to benchmarks/ablations.json, where the table in docs/model.md comes from. Rows are a fixed
sample of those cut from train by question; rows marked `test` or `meta.holdout` are never read.
A response's score is the highest logit over its units, or with `--pooled` what the directory's
pooling makes of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.calibration import auroc
from guard.detectors.classifier import Classifier
from guard.detectors.model_directory import read
from guard.training.data import HEADS, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from guard.categories import Side
    from guard.detectors.pooling import Pooling
    from guard.encoding import Encoded
    from guard.training.data import Row

ROOT: Final = Path(__file__).parent.parent
FIGURES: Final = ROOT / "benchmarks" / "ablations.json"
PAGE: Final = ROOT / "docs" / "model.md"
MARKS: Final = ("<!-- ablations -->\n", "<!-- /ablations -->")

ROWS: Final = 60
"""Rows per file."""

FEWEST: Final = 5
"""Rows of either side below which a category has no figure."""

_UNCERTAIN: Final = (0.3, 0.7)


class Weights:
    """Weights as training leaves them, scored in 32 bits as `Classifier` scores a graph."""

    def __init__(self, path: Path) -> None:
        """Load the weights."""
        import torch  # noqa: PLC0415  # model directories need it not

        from guard.training.model import GuardModel  # noqa: PLC0415
        from guard.training.pipeline import encoder  # noqa: PLC0415

        torch.set_num_threads(1)
        self._torch = torch
        self._encoder = encoder()
        self._model = GuardModel(len(HEADS))
        self._model.load_state_dict(torch.load(path, weights_only=True))
        self._model.eval()

    def logits(
        self, prompt: str, text: str, side: Side = "response", start: int = 0
    ) -> NDArray[np.float32]:
        """Return the highest logit per label over a unit's windows."""
        windows = self._encoder.encode(prompt, text, side, start)
        return np.asarray(np.max([self._scores(window) for window in windows], axis=0), np.float32)

    def closing(self, prompt: str, text: str) -> NDArray[np.float32] | None:
        """Return the logit per label of a whole answer's end."""
        window = self._encoder.encode_closing(prompt, text)
        return None if window is None else self._scores(window)

    def _scores(self, window: Encoded) -> NDArray[np.float32]:
        tensor = self._torch.from_numpy
        with self._torch.inference_mode():
            logits, _ = self._model(tensor(window.ids)[None], tensor(window.types)[None])
        return np.asarray(logits[0].numpy(), np.float32)


def sample(rows: Sequence[Row]) -> list[Row]:
    """Return at most `ROWS` rows of each file, the same ones whatever the order."""
    files: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.question, row.response)):
        files[row.file].append(row)
    return [row for name in sorted(files) for row in files[name][:ROWS]]


def figures(
    model: Any, rows: Sequence[Row], poolings: Mapping[str, Pooling]
) -> dict[str, dict[str, Any]]:
    """Return AUROC and number of positives and negatives per category."""
    from guard.training.aggregate import response_scores, row_logits  # noqa: PLC0415  # slow

    scores = response_scores(row_logits(model, rows), poolings)
    found = {}
    for index, head in enumerate(HEADS):
        known = [i for i, row in enumerate(rows) if _certain(row, head)]
        known = [i for i in known if np.isfinite(scores[i, index])]
        truth = np.array([rows[i].labels[head] >= 0.5 for i in known], bool)
        sides = int(truth.sum()), int((~truth).sum())
        if min(sides) >= FEWEST:
            area = auroc(scores[known, index], truth)
            found[head] = {"auroc": round(area, 4), "positive": sides[0], "negative": sides[1]}
    return found


def table(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as Markdown: a row per category, a column per model."""
    if not kept:
        return "Not measured yet.\n"
    heads = [head for head in HEADS if any(head in entry for entry in kept.values())]
    lines = [f"| category | {' | '.join(kept)} |", "|---|" + "---|" * len(kept)]
    for head in heads:
        cells = (_cell(entry.get(head)) for entry in kept.values())
        lines.append(f"| {head} | {' | '.join(cells)} |")
    means = (_mean(entry, heads) for entry in kept.values())
    lines.append(f"| mean of the categories that all have | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def page(text: str, kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Return docs/model.md with the table of these figures."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table(kept)}\n{MARKS[1]}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, keep, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="NAME=PATH", help="what to score")
    parser.add_argument("--data", type=Path, help="folder of labelled rows")
    parser.add_argument("--pooled", action="store_true", help="pool units as the directories say")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--out", type=Path, default=FIGURES, help="the figures")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page with the table")
    given = parser.parse_args(arguments)
    kept = json.loads(given.out.read_text("utf-8")) if given.out.is_file() else {}
    if not given.table:
        if given.data is None or not given.models:
            parser.error("name --data and at least one NAME=PATH")
        rows = sample(load(given.data, seed=0).validation)
        for item in given.models:
            name, _, path = item.partition("=")
            print(f"{name}: {len(rows)} rows", file=sys.stderr)
            kept[name] = figures(*_loaded(Path(path), pooled=given.pooled, rows=rows))
            given.out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    given.page.write_text(page(given.page.read_text("utf-8"), kept), "utf-8")
    print(table(kept))


def _loaded(
    path: Path, *, pooled: bool, rows: Sequence[Row]
) -> tuple[Any, Sequence[Row], Mapping[str, Pooling]]:
    if path.is_file():
        return Weights(path), rows, {}
    heads = read(path, None, verify=False).heads if pooled else ()
    return Classifier(path, verify=False), rows, {head.category: head.pooling for head in heads}


def _certain(row: Row, head: str) -> bool:
    value = row.labels.get(head)
    return value is not None and not _UNCERTAIN[0] < value < _UNCERTAIN[1]


def _cell(entry: Mapping[str, Any] | None) -> str:
    return "-" if entry is None else f"{entry['auroc']:.3f}"


def _mean(entry: Mapping[str, Any], heads: Sequence[str]) -> str:
    values = [entry[head]["auroc"] for head in heads if head in entry]
    return f"{np.mean(values):.3f}" if len(values) == len(heads) else "-"


if __name__ == "__main__":
    main()
