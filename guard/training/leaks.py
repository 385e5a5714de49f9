"""Leaks: texts that stand, equal or nearly equal, on both sides of a split.

    python -m guard.training.leaks --data FOLDER

counts them between the training, validation and test rows of each pair of files, and never
shows a text; the exit code is 1 where any leak. Texts of `SHORT` words and more are compared
by the Jaccard similarity of their runs of five words: MinHash and LSH (Broder, "On the
resemblance and containment of documents", 1997) find the candidates, the runs themselves
decide. Shorter ones leak only together with their prompt and only if equal, but for case,
white space and punctuation: a stock refusal is no leak.

`clean` leaves such rows out of training. The texts of test rows are only compared, never
learnt from, and nothing of them is kept but hashes.

This module does not know labels, or whether a text that leaks is any help to a model.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import unicodedata
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from datasketch import MinHash, MinHashLSH
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from guard.training.data import paths, question_of, validates
from guard.training.sources import RawRow, read, source, stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from guard.training.data import Split

SIMILAR: Final = 0.8
"""Jaccard similarity from which two texts are near-duplicates."""

RUN: Final = 5
"""Words of a run."""

SHORT: Final = 20
"""Words below which a text is compared as a whole, with its prompt."""

PERMUTATIONS: Final = 64
_BANDS: Final = (16, 4)
"""Bands and rows of the LSH: of pairs at `SIMILAR` it misses 2 in 10,000."""

_FORM: Final = 1
"""Part of the cache's name; to be raised whenever prints are made in another way."""

_WORD: Final = re.compile(r"\w+|[^\x00-\x7f]")
_MIXERS: Final = np.array(
    [
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0xD6E8FEB86659FD93,
        0xA0761D6478BD642F,
    ],
    np.uint64,
)
"""One odd number per place in a run; products are taken modulo 2**64."""

_PLAIN: Final = MinHash(PERMUTATIONS, seed=1, scheme="affine32")

Part = Literal["train", "validation", "test"]
Kind = Literal["question", "equal", "near"]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a row stands: file, endings left out, and its number among the rows from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Prints:
    """What is kept of one file's rows, in order.

    Attributes:
        keys: digest of the normalised text, shape (rows,), uint64.
        questions: beginning of the question's digest, shape (rows,), uint64.
        unseen: whether the row is for testing, shape (rows,), bool.
        long: whether the text has a signature, shape (rows,), bool.
        signatures: MinHash, zeros for short texts, shape (rows, PERMUTATIONS), uint32.
    """

    keys: NDArray[np.uint64]
    questions: NDArray[np.uint64]
    unseen: NDArray[np.bool_]
    long: NDArray[np.bool_]
    signatures: NDArray[np.uint32]

    def part(self, file: str, row: int) -> Part:
        """Return which part of the split a row is in."""
        if self.unseen[row]:
            return "test"
        return "validation" if validates(file, f"{self.questions[row]:016x}") else "train"


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """Two parts of two files between which something leaks."""

    file: str
    part: Part
    other_file: str
    other_part: Part
    kind: Kind


@dataclass(frozen=True, slots=True)
class Leaks:
    """What was found.

    Attributes:
        counts: rows of the first file that leak, per pair.
        train: rows of the training part whose text is in another part.
    """

    counts: Mapping[Pair, int]
    train: frozenset[Place]


def clean(split: Split, folder: Path, cache: Path) -> Split:
    """Return the split without training rows whose text is also one to validate or test on.

    Args:
        split: as `guard.training.data.load` read it from `folder`.
        folder: of labelled rows.
        cache: folder in which hashes of texts are kept, so that the next call is quick.
    """
    found = find(folder, cache).train
    train, *further = (
        [row for row in rows if Place(row.file, row.line) not in found] for rows in split.passes
    )
    return replace(split, train=train, further=tuple(further))


def find(folder: Path, cache: Path) -> Leaks:
    """Compare all rows of a folder, and the project's own; arguments as for `clean`."""
    files = {stem(path): path for path in paths(folder)}
    bar = tqdm(files.items(), "hashing", unit="file")
    prints = {name: _kept(path, cache) for name, path in bar}
    parts = {
        Place(name, row + 1): found.part(name, row)
        for name, found in prints.items()
        for row in range(len(found.keys))
    }
    counts: Counter[Pair] = Counter()
    train: set[Place] = set()
    _count("question", _alike(prints, parts, "questions"), parts, counts, train)
    _count("equal", _alike(prints, parts, "keys"), parts, counts, train)
    _count("near", _near(prints, parts, files), parts, counts, train)
    return Leaks(dict(sorted(counts.items())), frozenset(train))


def words(text: str) -> list[str]:
    """Return a text's words, and every sign that is not ASCII as one, in lower case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def runs(words: Sequence[str]) -> NDArray[np.uint32]:
    """Return the hashes of all runs of `RUN` words, sorted, each once."""
    given = [zlib.crc32(word.encode("utf-8", "replace")) for word in words]
    ids = np.array(given, np.uint64)
    count = len(ids) - RUN + 1
    if count < 1:
        return np.empty(0, np.uint32)
    mixed = np.stack([ids[at : at + count] * mixer for at, mixer in enumerate(_MIXERS)]).sum(0)
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def similarity(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """Return the Jaccard similarity of two texts' runs."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / max(1, len(one) + len(other) - common)


def compared(row: RawRow) -> list[str]:
    """Return the words by which a row is compared: its response, else its prompt, else both."""
    found = words(row.response or row.prompt or "")
    if len(found) >= SHORT or not row.response:
        return found
    return [*words(row.prompt or ""), "\n", *found]


# Prints of a file.


def _kept(path: Path, cache: Path) -> Prints:
    """Return a file's prints, from the cache where the same file was read before."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    place = cache / f"{stem(path)}-{digest[:16]}-{_FORM}{source(stem(path)).question}.npz"
    if place.is_file():
        with np.load(place) as known:
            return Prints(**known)
    prints = _prints(stem(path), read(path))
    cache.mkdir(parents=True, exist_ok=True)
    aside = place.with_suffix(".part")
    with aside.open("wb") as file:
        np.savez(file, **{name: getattr(prints, name) for name in Prints.__slots__})
    aside.replace(place)
    return prints


def _prints(file: str, rows: list[RawRow]) -> Prints:
    keys, questions, long = [], [], []
    signatures = np.zeros((len(rows), PERMUTATIONS), np.uint32)
    for at, row in enumerate(rows):
        text = compared(row)
        keys.append(_key(row, text))
        question = question_of(file, row.prompt or "", row.response or "", row.meta)
        questions.append(int(question[:16], 16))
        long.append(len(text) >= SHORT and "\n" not in text)
        if long[-1]:
            signatures[at] = _signature(runs(text))
    return Prints(
        keys=np.array(keys, np.uint64),
        questions=np.array(questions, np.uint64),
        unseen=np.array([row.unseen for row in rows], np.bool_),
        long=np.array(long, np.bool_),
        signatures=signatures,
    )


def _key(row: RawRow, text: Sequence[str]) -> int:
    # What has no words is compared as it stands.
    plain = " ".join(text) if set(text) - {"\n"} else f"{row.prompt}\n{row.response}"
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest())


def _signature(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    made = _minhash()
    made.update_batch(hashes.tolist())
    return np.asarray(made.hashvalues, np.uint32)


def _minhash(values: NDArray[np.uint32] | None = None) -> Any:
    """Return a MinHash; the permutations are made once, which is most of the work."""
    return MinHash(
        PERMUTATIONS,
        scheme="affine32",
        hashfunc=int,
        hashvalues=values,
        permutations=_PLAIN.permutations,
    )


# Pairs of rows.


def _alike(
    prints: Mapping[str, Prints], parts: Mapping[Place, Part], what: str
) -> Iterator[tuple[Place, Place]]:
    """Yield rows of different parts that have the same key, or the same question.

    Of each file and part on the other side one row is named.
    """
    places: dict[int, dict[tuple[str, Part], list[Place]]] = defaultdict(lambda: defaultdict(list))
    for name, found in prints.items():
        for row, value in enumerate(getattr(found, what).tolist()):
            place = Place(name, row + 1)
            places[value][name, parts[place]].append(place)
    for groups in places.values():
        for mine in groups.values() if len(groups) > 1 else ():
            for others in groups.values():
                yield from ((place, others[0]) for place in mine)


def _near(
    prints: Mapping[str, Prints], parts: Mapping[Place, Part], files: Mapping[str, Path]
) -> Iterator[tuple[Place, Place]]:
    """Yield rows of different parts whose texts are similar but not equal."""
    texts: dict[int, dict[tuple[str, Part], list[Place]]] = defaultdict(lambda: defaultdict(list))
    signatures: dict[int, NDArray[np.uint32]] = {}
    for name, found in prints.items():
        for row in np.flatnonzero(found.long).tolist():
            place, key = Place(name, row + 1), int(found.keys[row])
            texts[key][name, parts[place]].append(place)
            signatures[key] = found.signatures[row]
    candidates = _candidates(texts, signatures)
    shown = _runs_of((key for pair in candidates for key in pair), texts, files)
    for one, other in tqdm(candidates, "comparing", unit="pair"):
        if similarity(shown[one], shown[other]) >= SIMILAR:
            for mine in texts[one].values():
                for others in texts[other].values():
                    yield from ((place, others[0]) for place in mine)


def _candidates(
    texts: Mapping[int, Mapping[tuple[str, Part], list[Place]]],
    signatures: Mapping[int, NDArray[np.uint32]],
) -> list[tuple[int, int]]:
    """Return pairs of a text and one of validation or test that LSH holds for similar."""
    held = {key for key, groups in texts.items() if any(part != "train" for _, part in groups)}
    index = MinHashLSH(num_perm=PERMUTATIONS, params=_BANDS)
    for key in tqdm(sorted(held), "indexing", unit="text"):
        index.insert(key, _minhash(signatures[key]))
    pairs = []
    for key in tqdm(sorted(texts), "searching", unit="text"):
        pairs += [(key, other) for other in index.query(_minhash(signatures[key])) if other != key]
    return pairs


def _runs_of(
    keys: Iterable[int],
    texts: Mapping[int, Mapping[tuple[str, Part], list[Place]]],
    files: Mapping[str, Path],
) -> dict[int, NDArray[np.uint32]]:
    """Return the runs of texts, read once more from their files."""
    wanted: dict[str, dict[int, int]] = defaultdict(dict)
    for key in set(keys):
        place = next(iter(texts[key].values()))[0]
        wanted[place.file][key] = place.line
    found: dict[int, NDArray[np.uint32]] = {}
    for name in tqdm(sorted(wanted), "reading", unit="file"):
        rows = read(files[name])
        found |= {key: runs(compared(rows[line - 1])) for key, line in wanted[name].items()}
    return found


_ORDER: Final[Mapping[Part, int]] = {"train": 0, "validation": 1, "test": 2}


def _count(
    kind: Kind,
    pairs: Iterable[tuple[Place, Place]],
    parts: Mapping[Place, Part],
    counts: Counter[Pair],
    train: set[Place],
) -> None:
    """Count each row once per file and part that it leaks to; a test row leaks nowhere."""
    seen: dict[Pair, set[Place]] = defaultdict(set)
    for place, other in pairs:
        if _ORDER[parts[place]] < _ORDER[parts[other]]:
            pair = Pair(place.file, parts[place], other.file, parts[other], kind)
            seen[pair].add(place)
    for pair, places in seen.items():
        counts[pair] = len(places)
        if pair.part == "train" and kind != "question":
            train |= places


# The command.


def table(leaks: Leaks) -> Table:
    """Return the counts, one line per pair of files and parts."""
    shown = Table(box=None, header_style="bold")
    for name in ("file", "part", "leaks to", "part"):
        shown.add_column(name, no_wrap=True)
    for name in ("same question", "equal", "near"):
        shown.add_column(name, justify="right")
    lines: dict[tuple[str, str, str, str], dict[Kind, int]] = defaultdict(dict)
    for pair, count in leaks.counts.items():
        lines[pair.file, pair.part, pair.other_file, pair.other_part][pair.kind] = count
    for names, found in lines.items():
        kinds: tuple[Kind, ...] = ("question", "equal", "near")
        shown.add_row(*names, *[f"{found.get(kind, 0):,}" for kind in kinds])
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Report the leaks of a folder; return 1 where there are any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled *.jsonl.gz")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/training/leaks"), help="for hashes of texts"
    )
    given = parser.parse_args(arguments)
    leaks = find(given.data, given.cache)
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(table(leaks))
    console.print(f"{len(leaks.train):,} training rows leak and are left out of training")
    return 1 if leaks.counts else 0


if __name__ == "__main__":
    sys.exit(main())
