"""What the guard adds to the bare model: one run, one machine, ratios.

    python benchmarks/latency.py

Compares, for texts of several lengths and in turn within one loop:

    bare     tokenizer and `session.run` on one window, nothing else
    detect   the classifier as a detector (normalisation, encoding, windows, calibration)
    check    `Guard.check` with all detectors, verdict included, without a journal
    stream   `Guard.stream` of the same text in pieces of about a token

Long texts are judged in units, so that `bare` runs the same units' windows one by one.
Times are medians; machines are noisy, so quote the ratios.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import onnxruntime
import structlog

from guard import Guard
from guard.detectors.base import Passage
from guard.detectors.classifier import Classifier
from guard.loading import BUNDLED_MODEL
from guard.text.units import CONTEXT, units

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SENTENCE = "The museum by the river opens at ten and shows old maps and clocks on two floors. "
LENGTHS = (1, 4, 16, 64)
"""Sentences per text."""


def bare(classifier: Classifier, text: str) -> None:
    """Run the model on every unit of `text` and nothing else."""
    for start, end in units(text):
        begin = max(0, start - CONTEXT)
        for window in classifier._encoder.encode("", text[begin:end], start=start - begin):
            classifier._graph.run(window.ids, window.types)


def detect(classifier: Classifier, text: str) -> None:
    """Run the detector on every unit of `text`."""
    for start, end in units(text):
        begin = max(0, start - CONTEXT)
        classifier(Passage(text[begin:end], start - begin, end - begin))


def stream(guard: Guard, text: str) -> None:
    """Read the whole guarded stream."""
    for _ in guard.stream(text[i : i + 5] for i in range(0, len(text), 5)):
        pass


def medians(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return each call's median in ms; the calls take turns, so that noise hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= 2:  # the first two warm caches up
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def import_seconds(module: str, runs: int = 5) -> float:
    """Return the median seconds that a fresh interpreter spends on importing `module`."""
    script = (
        f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    )
    return statistics.median(
        float(
            subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout
        )
        for _ in range(runs)
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="counted rounds per length")
    rounds = parser.parse_args().rounds
    classifier = Classifier(BUNDLED_MODEL)
    # What a guard flags here is not logged; the class acts on nothing in these texts.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    guard = Guard.load("research", journal=None)
    print(
        f"{platform.machine()}, onnxruntime {onnxruntime.__version__}, model {classifier.version}"
    )
    print(f"import guard: {import_seconds('guard'):.3f} s (median of 5 fresh interpreters)\n")
    print("| characters | units | bare ms | detect / bare | check / bare | stream / check |")
    print("|---|---|---|---|---|---|")
    for count in LENGTHS:
        text = SENTENCE * count
        calls: dict[str, Callable[[], object]] = {
            "bare": partial(bare, classifier, text),
            "detect": partial(detect, classifier, text),
            "check": partial(guard.check, text),
            "stream": partial(stream, guard, text),
        }
        ms = medians(calls, rounds)
        print(
            f"| {len(text)} | {len(list(units(text)))} | {ms['bare']:.1f} "
            f"| {ms['detect'] / ms['bare']:.2f} | {ms['check'] / ms['bare']:.2f} "
            f"| {ms['stream'] / ms['check']:.2f} |"
        )


if __name__ == "__main__":
    main()
