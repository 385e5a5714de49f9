"""What a training step on this CPU costs, in four ways to compute the same: ratios.

    python benchmarks/training_speed.py

Each way takes the same steps on the project's own rows, in a process of its own, and the ways
take turns:

    padded    windows padded to the longest of a batch, dropout by torch, memory given back to
              the system at every step: what a plain loop does
    laid      windows end to end, attention alone in a padded table
    drawn     the same, dropout from one long draw
    kept      the same, and memory that is freed is kept for some steps: what `guard train` does

Rows per second are medians, as ratios to `padded`. *in the kernel* is the share of the
processors' time that the system took, most of it to hand out and clear memory; *peak MB* is the
most that was resident.

What it does not know: other batches than those of `guard train`'s defaults for a short stage, and
what teachers cost (`--teachers`).
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

WAYS = ("padded", "laid", "drawn", "kept")

WARM = 5
"""Steps before the clock starts."""


def step_all(way: str, steps: int) -> dict[str, Any]:
    """Take steps in one way; return rows per second and what they took."""
    import torch  # noqa: PLC0415  # in the process that computes alone

    from guard.training import cpu, reading  # noqa: PLC0415
    from guard.training.data import HEADS, OWN, load  # noqa: PLC0415
    from guard.training.model import GuardModel  # noqa: PLC0415
    from guard.training.passes import encoded  # noqa: PLC0415
    from guard.training.pipeline import encoder  # noqa: PLC0415
    from guard.training.train import (  # noqa: PLC0415
        _TRIMMED,
        Config,
        _batches,
        _ordered,
        _Run,
    )

    config = Config(batch=64, dropout=0.1, closing=0.25, rows=64 * (steps + WARM), device="cpu")
    rows = _ordered(load(OWN, seed=config.seed), config, 0)
    data = next(encoded([rows], encoder(), config.seed, closing=config.closing))
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    model = GuardModel(
        len(HEADS), frozen=config.frozen, inner_dropout=config.dropout, attention="eager"
    )
    model.plain = way != "padded"
    if way == "laid":
        reading._dropped = torch.nn.functional.dropout  # type: ignore[assignment]
    if way == "kept":
        cpu.keep_memory()
    run = _Run(model, config, None, None)
    run.model.train()
    run._weights = torch.ones(len(HEADS))
    batches = _batches(data, config.batch, random.Random(1))[: steps + WARM]
    for taken in batches[:WARM]:
        run._step(data, taken, 0, 0.01)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for number, taken in enumerate(batches[WARM:]):
        run._step(data, taken, 0, 0.01)
        if way == "kept" and number % _TRIMMED == 0:
            cpu.trim_memory()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    return {
        "rows": sum(map(len, batches[WARM:])) / seconds,
        "kernel": system / (system + after.ru_utime - before.ru_utime),
        "peak": after.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    }


def in_turn(rounds: int, steps: int) -> dict[str, list[dict[str, Any]]]:
    """Return what each way took in each round, in a process of its own."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            print(f"round {number + 1} of {rounds}: {way}", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--way", way, "--steps", str(steps)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[way].append(json.loads(said.splitlines()[-1]))
    return found


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (default 3)")
    parser.add_argument("--steps", type=int, default=40, help="steps per round (default 40)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(step_all(given.way, given.steps)))
        return
    found = in_turn(given.rounds, given.steps)
    middle = {
        way: {name: statistics.median(one[name] for one in said) for name in said[0]}
        for way, said in found.items()
    }
    import torch  # noqa: PLC0415  # for its version alone

    print(f"{platform.machine()}, torch {torch.__version__}, 2 threads\n")
    print("| way | rows/s | / padded | in the kernel | peak MB |")
    print("|---|---|---|---|---|")
    for way, said in middle.items():
        print(
            f"| {way} | {said['rows']:.0f} | {said['rows'] / middle['padded']['rows']:.2f} "
            f"| {said['kernel']:.0%} | {said['peak']:.0f} |"
        )


if __name__ == "__main__":
    main()
