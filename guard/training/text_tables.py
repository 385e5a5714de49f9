"""Makes the tables that normalisation reads: look-alike letters and known words.

    python -m guard.training.text_tables --confusables confusables.json --vocabulary vocab.txt

`--confusables` is Unicode's confusables data as JSON (the package `confusable-homoglyphs`
carries it), `--vocabulary` a WordPiece vocabulary, one entry a line.

This module does not know how the tables are used.
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from pathlib import Path
from typing import Final

_TEXT: Final = Path(__file__).parent.parent / "text"
_KNOWN_WORD: Final = re.compile(r"[a-z]{3,18}")


def confusables(path: Path) -> dict[str, str]:
    """Return single non-ASCII letters whose look-alike is one ASCII letter or digit."""
    data = json.loads(path.read_text("utf-8"))
    table: dict[str, str] = {}
    for source, targets in data.items():
        plain = [t["c"] for t in targets if len(t["c"]) == 1 and t["c"].isascii()]
        letters = [c for c in plain if c.isalpha()]
        single = len(source) == 1 and not source.isascii() and source.isalpha()
        if single and letters and unicodedata.normalize("NFKC", source) == source:
            table[source] = letters[0]
    return dict(sorted(table.items()))


def words(path: Path) -> list[str]:
    """Return the vocabulary's whole words of 3 to 18 letters that have a vowel."""
    entries = path.read_text("utf-8").split("\n")
    return sorted({w for w in entries if _KNOWN_WORD.fullmatch(w) and set(w) & set("aeiouy")})


def main() -> None:
    """Write both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--confusables", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    given = parser.parse_args()
    table = json.dumps(confusables(given.confusables), ensure_ascii=True, indent=0)
    (_TEXT / "confusables.json").write_text(table + "\n", "utf-8")
    (_TEXT / "words.txt").write_text("\n".join(words(given.vocabulary)) + "\n", "utf-8")


if __name__ == "__main__":
    main()
