"""How well the shipped model does on rows that it has never seen: tables and plots in docs/.

    python benchmarks/quality.py --data FOLDER            measures, writes docs/quality.{md,json}
    python benchmarks/quality.py --data FOLDER --limit 0  every row instead of a sample
    python benchmarks/quality.py --data FOLDER --part benign,calibration
    python benchmarks/quality.py --card                   writes the model's card and seals it

Only rows marked `test` or `meta.holdout` are read, which training, selection and calibration
drop. Parts that are not run keep their figures. `parity`, and the comparisons of `speed`, need
the 32-bit graph (`--float`), which training leaves in its `--work` folder.

    ranking      AUROC, recall at low false-positive rates, AUPRC per set, per attack, per category
    left_out     AUROC on a file that another model was trained without (`--left-out`)
    benign       what the whole guard does with answers that should pass
    calibration  expected calibration error, reliability
    parity       int8 against the 32-bit graph: ranking, verdicts
    stream       units as in a stream against whole-text passes of the same weights
    obfuscation  what is still caught once the text is hidden in many ways
    formats      what is still caught once the text stands in JSON, HTML, a log
    speed        time per window against the processor's floor and against other graphs
    memory       resident memory, size of the files

Every run is logged in benchmarks/quality_runs.jsonl, so that it shows how often test rows were
looked at. `--smoke` reads training rows instead, logs nothing and writes only to `--out`.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

import quality_machine
import quality_parts
from guard.loading import BUNDLED_MODEL
from guard.training import card
from quality_parts import Bench, say
from quality_plots import plots
from quality_scores import Scorer, float_directory
from quality_sets import Rows
from quality_tables import NO_ROWS, PARTS, report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT: Final = Path(__file__).parent.parent
REPORT: Final = ROOT / "docs" / "quality.md"
LOG: Final = ROOT / "benchmarks" / "quality_runs.jsonl"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write, or write the card."""
    given = _arguments(arguments)
    if given.card:
        card.write(given.model, json.loads(given.out.with_suffix(".json").read_text("utf-8")))
        return
    # What a guard flags here is counted and not logged.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    stamp = _stamp(given)
    if not given.smoke:
        with LOG.open("a", encoding="utf-8") as log:
            log.write(json.dumps(stamp | {"part": _named(given.part)}) + "\n")
    kept = _kept(given.out)
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in _measures(given, Path(folder)).items():
            if name in given.part:
                began = time.monotonic()
                kept[name] = _rounded(stamp | measure())
                say(f"{name}: {time.monotonic() - began:.0f} s")
    facts = stamp | {"runs": _runs(stamp), "parts": {n: kept[n] for n in PARTS if n in kept}}
    write(given.out, facts)


def write(out: Path, facts: Mapping[str, Any]) -> None:
    """Write tables, figures and plots side by side."""
    out.write_text(report(facts), "utf-8")
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    for name, drawing in plots(facts["parts"]).items():
        out.with_name(f"{out.stem}-{name}.svg").write_text(drawing, "utf-8")


def _measures(given: argparse.Namespace, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return how each part is measured; what is not needed is not loaded."""
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": partial(quality_machine.speed, given.model, given.float, given.rounds),
        "memory": partial(quality_machine.memory, given.model, given.name),
    }
    if set(given.part) <= set(NO_ROWS):
        return measures
    scorer = Scorer(given.model, given.name)
    bench = Bench(scorer, Rows(given.data, smoke=given.smoke), given.limit)
    scoring: dict[str, Callable[[], dict[str, Any]]] = {
        "ranking": partial(quality_parts.ranking, bench),
        "benign": partial(quality_parts.benign, bench),
        "calibration": partial(quality_parts.calibration, bench),
        "stream": partial(quality_parts.stream, bench),
        "obfuscation": partial(quality_parts.obfuscation, bench),
        "formats": partial(quality_parts.formats, bench),
    }
    if "parity" in given.part and given.float is None:
        say("parity is left out: name the 32-bit graph with --float")
    elif "parity" in given.part:
        exact = float_directory(given.model, given.float, folder / "exact")
        scoring["parity"] = partial(
            quality_parts.parity, bench, Scorer(exact, given.name, verify=False, like=scorer)
        )
    if "left_out" in given.part and given.left_out is None:
        say("left_out is not measured: name a model trained without that file with --left-out")
    elif "left_out" in given.part:
        other = Scorer(given.left_out, given.name, verify=False)
        scoring["left_out"] = lambda: (
            quality_parts.left_out(bench, other) | _of_model(given.left_out)
        )
    # The machine is measured first, before it is warm.
    return measures | scoring


def _stamp(given: argparse.Namespace) -> dict[str, Any]:
    """Return when, with which model and on how many rows this run measures."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        **_of_model(given.model),
        "limit": given.limit,
        "class": given.name,
    }


def _of_model(directory: Path) -> dict[str, Any]:
    manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
    return {
        "model": manifest["name"],
        "version": manifest["version"],
        "digest": card.digest(manifest),
    }


def _named(parts: Sequence[str]) -> str:
    return "all" if set(parts) == set(PARTS) else ",".join(parts)


def _kept(out: Path) -> dict[str, Any]:
    """Return the parts that were measured before."""
    known = out.with_suffix(".json")
    if not known.is_file():
        return {}
    return dict(json.loads(known.read_text("utf-8")).get("parts", {}))


def _runs(stamp: Mapping[str, Any]) -> dict[str, int]:
    """Return how many logged runs scored test rows, and how many of them with this model."""
    logged = [json.loads(line) for line in LOG.read_text("utf-8").splitlines()]
    scored = [run for run in logged if set(run["part"].split(",")) - set(NO_ROWS)]
    return {
        "all": len(scored),
        "model": sum(run.get("digest") == stamp["digest"] for run in scored),
    }


def _rounded(value: Any) -> Any:
    """Return JSON with numbers of a length that a reader and a diff can bear."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of *.jsonl.gz")
    parser.add_argument("--limit", type=int, default=400, help="rows per set, 0 for all")
    parser.add_argument("--class", dest="name", default="public", help="security class")
    parser.add_argument("--model", type=Path, default=BUNDLED_MODEL, help="model directory")
    parser.add_argument("--float", type=Path, help="the 32-bit graph (model.onnx)")
    parser.add_argument(
        "--left-out", type=Path, help="directory of a model trained without em_bad_advice"
    )
    parser.add_argument(
        "--part", type=lambda text: text.split(","), default=list(PARTS), help="comma-separated"
    )
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each time")
    parser.add_argument("--smoke", action="store_true", help="a trial run on training rows")
    parser.add_argument("--card", action="store_true", help="only write the model's card")
    parser.add_argument("--out", type=Path, default=None, help="docs/quality.md by default")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.part) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if given.smoke and (given.out is None or given.out.resolve() == REPORT):
        parser.error("--smoke needs an --out of its own")
    if given.data is None and not given.card and not set(given.part) <= set(NO_ROWS):
        parser.error("--data is needed for every part but speed and memory")
    given.out = given.out or REPORT
    return given


if __name__ == "__main__":
    main()
