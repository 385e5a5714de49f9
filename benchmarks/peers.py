"""Beside peers: what a streamed text's reader gets before the verdict, and what a guardrail costs.

    python benchmarks/peers.py --work DIR                 writes its part of docs/benchmarks.md
    python benchmarks/peers.py --work DIR --only litellm  measures some again, keeps the others

Makes an environment per package in DIR, installs it from PyPI as its README says, and runs the
package's probe in it (`peers_probes`): the same text from the same scripted server, the same
trivial rule, a pattern for a made-up marker, and the same classifier in ONNX. Nothing is fetched
while it is measured. Versions are printed; what could not be measured is named with its reason.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import peers_tables
from live_report import stamp
from peers_environments import PEERS, ROOT, probe, ready, shared, weighed
from peers_probes.probing import LENGTHS, POSITIONS
from peers_probes.texts import MARKED_LENGTH, PIECE
from peers_server import served

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peers_environments import Peer

PAGE: Final = ROOT / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- peers: begin -->"
END: Final = "<!-- peers: end -->"

MODEL: Final = ROOT / "guard" / "models" / "clearance-minilm"
"""The classifier that every package is given."""

IMPORTS: Final = 3
"""Fresh interpreters whose median an import's time is."""


def measure(peer: Peer, work: Path, rounds: int) -> dict[str, Any]:
    """Return a package's figures, or why there are none."""
    if failed := ready(peer, work):
        return {"rounds": rounds, "failed": failed, "ways": []}
    weight = weighed(peer, work, IMPORTS)
    with served() as url:
        found = probe(peer, work, url, MODEL, rounds)
    return {"rounds": rounds, "weight": weight, **found}


def noise(rounds: int = 40) -> float:
    """Return how much more than its median one and the same work computes at times."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        sum(number * number for number in range(100_000))
        times.append(time.process_time() - began)
    return sorted(times)[round(0.95 * (rounds - 1))] / statistics.median(times)


def report(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is written into the page."""
    rounds = min(found["rounds"] for found in figures.values())
    about = (
        f"Streams come in pieces of {PIECE} characters; CPU times are of {MARKED_LENGTH} "
        f"characters, medians of at least {2 * rounds} calls and {rounds} streams that take turns "
        f"with and without the guardrail. {len(POSITIONS)} streams have the marker, each "
        f"elsewhere. The longer text has {LENGTHS[-1]} characters. The 95th percentile of one and "
        f"the same loop's CPU time was {noise():.2f} times its median."
    )
    parts = [stamp("peers.py"), about, peers_tables.packages(figures), peers_tables.ways(figures)]
    return "\n\n".join([*parts, "\n".join(peers_tables.notes(figures))]).strip()


def publish(text: str) -> None:
    """Write the tables into the page.

    Raises:
        ValueError: the page has no place for them.
    """
    page = PAGE.read_text("utf-8")
    if BEGIN not in page or END not in page:
        raise ValueError(f"{PAGE} has no marks `{BEGIN}` and `{END}`: put them where it belongs")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{rest.partition(END)[2]}", "utf-8")


def main() -> None:
    """Measure, print, publish."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("--work", type=Path, required=True, help="where the environments go")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each stream")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="of the packages")
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "figures.json"
    figures = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    shared(work)
    for peer in PEERS:
        if peer.name in given.only:
            print(f"measuring {peer.name}", file=sys.stderr)
            figures[peer.name] = measure(peer, work, given.rounds)
            kept.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    text = report({name: figures[name] for name in names if name in figures})
    print(text)
    publish(text)


if __name__ == "__main__":
    main()
