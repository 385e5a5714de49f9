"""Fits what `guard.detectors.unfamiliar` knows of text unlike the training data.

    python -m guard.training.unfamiliar --data DATA --model guard/models/clearance-minilm

writes `unfamiliar.npz` into the model's directory and seals it again. To be run whenever the
model changed: the numbers belong to its embeddings.

Ordinary are English units of all kinds of training rows: answers, code, tables, tweets. Unlike
them are short paragraphs in other languages, written for this (`own_languages.jsonl`), and what
`MADE` makes of ordinary rows. The languages marked `test` and the kinds of `HELD_OUT` are never
fitted on. Calibration sees each kind scored by a fit without that kind, since what comes in use
will be of kinds that nobody here thought of.

This module does not know torch.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import random
import re
import string
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tokenizers import Tokenizer

from guard import calibration
from guard.detectors import unfamiliar
from guard.detectors.classifier import Classifier
from guard.detectors.unfamiliar import COUNTED, SURPRISE_STEPS, Numbers, Unfamiliarity
from guard.encoding import Encoder
from guard.fitting.logistic import Linear, regression
from guard.sealing import MANIFEST, seal
from guard.text.units import CONTEXT
from guard.training.data import load
from guard.training.examples import response_units
from guard.training.obfuscate import obfuscated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from guard.encoding import Encoded
    from guard.training.data import Row

    Floats = NDArray[np.float64]

UNITS: Final = 1500
"""Ordinary units that are embedded; as many unlike them."""

COUNTED_ROWS: Final = 20_000
"""Rows whose tokens are counted; that takes no pass of the model."""

COUNTED_CHARACTERS: Final = 1500

AXES: Final = 64
"""Directions that count as those of ordinary text."""

FREQUENT_PAIRS: Final = 60_000
"""Neighbours that count as known; more would fill the table with chance hits."""

PENALTY: Final = 1.0

MAXIMUM_EVIDENCE: Final = 8.0

OBFUSCATED: Final = 0.05
"""Share of ordinary units that are hidden in a way the classifier was trained on."""

LISTED: Final = 0.06
"""Share of ordinary units that list names, which are of all languages and yet ordinary."""

FOLDS: Final = 6

LANGUAGES: Final = Path(__file__).parent / "own_languages.jsonl"
"""Paragraphs in other languages, written for this project, CC0-1.0."""

FUNCTION_WORDS: Final = frozenset(
    "the of and to in is that it for as with was on be by at are this have or from an not but "  # noqa: SIM905  # reads best
    "they which you all were there their one has would so if more when will what can some other "
    "about into than its then two only also your we our he she his her them these those my me i "
    "a do does did been being could should may might must because how where who why no yes any "
    "each such after before between while over under up out just very here most many much".split()
)

_OTHERS: Final = frozenset(
    "der das und ist nicht ein eine mit auf für sich dem von zu le la les une dans que pour pas "  # noqa: SIM905  # as above
    "sur avec el los las y en un una por se lo il di che non per è sono della uma não para mais "
    "het een van niet dat op zijn och att som på är bir ve bu için ile na się nie jest że của và "
    "là một".split()
)
"""Frequent words of other languages that are neither English nor names in code."""

_GIVEN_NAMES: Final = (  # noqa: SIM905  # as above
    "Aiko Amara Andrei Astrid Ayşe Bao Beatriz Bjarne Carmen Chidi Chloé Danuta Diego Elif Emeka "
    "Enzo Eszter Farid Freya Giulia Goran Hana Hassan Henrik Ines Ivana Jamal Jasper Jelena Juma "
    "Kaveh Kerstin Kwame Lars Layla Liam Lucía Magda Marek Matteo Mehmet Miguel Minh Nadia Naoko "
    "Noor Oksana Olga Pablo Pavel Pilar Rahul Rania Rosa Ruben Samir Sanjay Selin Seo-yeon Sven "
    "Tariq Thandiwe Ulrike Viktor Wanjiru Wei Xiomara Yara Yusuf Zeynep Zofia Łukasz"
).split()
_FAMILY_NAMES: Final = (  # noqa: SIM905
    "Abebe Achterberg Almeida Andersson Bakker Balogun Banerjee Bergström Bianchi Brennan "
    "Castillo Chaudhry Chen Demir Dlamini Dubois Eriksen Esposito Farouk Ferreira Fischer García "
    "Gupta Haile Hakimi Horvat Hosseini Ito Ivanov Jansen Jovanović Kamau Kaya Kim Kowalczyk "
    "Kuznetsov Larsen Lefèvre Lim Mahlangu Marković Mbeki McAllister Mendoza Moreau Müller Mwangi "
    "Nakamura Nguyen Nowak Núñez Öztürk O'Connor Okafor Olsen Papadopoulos Patel Pereira Petrov "
    "Quispe Rahman Rossi Saito Santos Schneider Sharma Silva Suzuki Tran Vasquez Virtanen Wójcik "
    "Yamamoto Yilmaz Zhang"
).split()
"""Made-up people are drawn from both."""

_WORD: Final = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A unit with what stands before it.

    Attributes:
        prompt: what it answers.
        before: context in the response.
        text: the unit.
        kind: `ordinary`, a language, or a key of `MADE` or `HELD_OUT`.
    """

    prompt: str
    before: str
    text: str
    kind: str


ORDINARY: Final = "ordinary"


def _base64(text: str, rng: random.Random) -> str:
    del rng
    return base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")


def _reversed(text: str, rng: random.Random) -> str:
    del rng
    return text[::-1]


def _atbash(text: str, rng: random.Random) -> str:
    del rng
    letters = string.ascii_lowercase
    return text.lower().translate(str.maketrans(letters, letters[::-1]))


def _letters(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=len(word))) for word in words)


def _mash(text: str, rng: random.Random) -> str:
    """Return what hands that fall on a keyboard leave."""
    rows = ("qwertyuiop", "asdfghjkl;", "zxcvbnm,.")
    out = []
    for word in text.split():
        row = rng.choice(rows)
        at = rng.randrange(len(row))
        for _ in range(len(word)):
            out.append(row[at])
            at = min(len(row) - 1, max(0, at + rng.choice((-2, -1, 0, 1, 2))))
        out.append(" " if rng.random() < 0.4 else "")
    return "".join(out)


def _soup(text: str, rng: random.Random) -> str:
    """Return pieces of the words in any order."""
    pieces = [word[i : i + 3] for word in text.split() for i in range(0, len(word), 3)]
    rng.shuffle(pieces)
    return "".join(piece + (" " if rng.random() < 0.5 else "") for piece in pieces)


def _rot13(text: str, rng: random.Random) -> str:
    del rng
    low, high = string.ascii_lowercase, string.ascii_uppercase
    turned = low[13:] + low[:13] + high[13:] + high[:13]
    return text.translate(str.maketrans(low + high, turned))


def _hex(text: str, rng: random.Random) -> str:
    return text.encode("utf-8", "replace").hex(*((" ",) if rng.random() < 0.5 else ()))


def _binary(text: str, rng: random.Random) -> str:
    del rng
    return " ".join(f"{byte:08b}" for byte in text.encode("utf-8", "replace"))


def _substituted(text: str, rng: random.Random) -> str:
    letters = list(string.ascii_lowercase)
    rng.shuffle(letters)
    return text.lower().translate(str.maketrans(string.ascii_lowercase, "".join(letters)))


MADE: Final[Mapping[str, Callable[[str, random.Random], str]]] = {
    "base64": _base64,
    "reversed": _reversed,
    "atbash": _atbash,
    "letters": _letters,
    "keyboard": _mash,
    "soup": _soup,
}
"""Kinds that are fitted on."""

HELD_OUT: Final[Mapping[str, Callable[[str, random.Random], str]]] = {
    "rot13": _rot13,
    "hex": _hex,
    "binary": _binary,
    "substitution": _substituted,
}
"""Kinds that nothing here was fitted on."""


def make(directory: Path, rows: Sequence[Row], seed: int, units: int = UNITS) -> None:
    """Fit a model's numbers and write them beside it; the directory must be sealed behind that."""
    (directory / unfamiliar.FILE).unlink(missing_ok=True)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    numbers = fit(Classifier(directory, verify=False), tokenizer, rows, seed, units)
    unfamiliar.write(directory, numbers)


def fit(
    classifier: Classifier,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    seed: int,
    units: int = UNITS,
) -> Numbers:
    """Return the numbers for a classifier.

    Args:
        classifier: gives embeddings.
        tokenizer: its own; a WordPiece one, for others fewer features say something.
        rows: training rows of all kinds.
        seed: of what is drawn.
        units: how many ordinary units are embedded.
    """
    rng = random.Random(seed)
    spoken = [row for row in rows if is_english(_text(row))]
    counts = _counted(tokenizer, spoken[:], rng)
    fine = ordinary(spoken, rng, units)
    unlike = strange(spoken, languages("train"), MADE, rng, units)
    # The plane is laid through other units than the line is drawn with.
    ground = embedded(classifier, fine[::2])
    numbers = _placed(counts, np.concatenate([each.embeddings for each in ground]))
    judged = [*embedded(classifier, fine[1::2]), *embedded(classifier, unlike)]
    found = _drawn(numbers, judged, rng)
    return replace(found, digest=np.array(classifier.digest))


def is_english(text: str) -> bool:
    """Return whether a whole text is English, or has too few words to tell: code, tables."""
    letters = "".join(_WORD.findall(text[:6000]))
    beyond = sum(not letter.isascii() for letter in letters)
    return beyond <= 0.05 * len(letters) and not speaks_another(text)


def speaks_another(text: str) -> bool:
    """Return whether frequent words of other languages outnumber those of English."""
    words = [word.lower() for word in _WORD.findall(text[:6000])]
    found = Counter(words)
    others = sum(found[word] for word in _OTHERS)
    few = max(3, 0.05 * len(words))
    return others >= few and others >= sum(found[word] for word in FUNCTION_WORDS)


def languages(split: str) -> dict[str, list[str]]:
    """Return the paragraphs by language; `split` is `train` or `test`."""
    found = defaultdict(list)
    for line in LANGUAGES.read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["split"] == split:
            found[row["language"]].append(row["text"])
    return dict(found)


def ordinary(rows: Sequence[Row], rng: random.Random, count: int) -> list[Passage]:
    """Return one unit each of `count` rows, from all files alike."""
    files = defaultdict(list)
    for row in rows:
        files[row.file].append(row)
    for found in files.values():
        rng.shuffle(found)
    queues = [iter(found) for _, found in sorted(files.items())]
    turns = chain.from_iterable(_in_turn(queues))
    passages = (_listing(rng) if rng.random() < LISTED else _unit(row, rng) for row in turns)
    return list(islice((each for each in passages if each is not None), count))


def strange(
    rows: Sequence[Row],
    paragraphs: Mapping[str, Sequence[str]],
    made: Mapping[str, Callable[[str, random.Random], str]],
    rng: random.Random,
    count: int,
) -> list[Passage]:
    """Return `count` units unlike the rows, of every language and kind alike.

    They stand alone, behind an English prompt, or in the middle of an English answer.
    """
    base = [row for row in rows if row.file.startswith(("own_", "benign_"))] or list(rows)
    found = []
    for kind in islice(cycle([*paragraphs, *made]), count):
        row = rng.choice(base)
        length = int(40 * 10 ** rng.random())
        if kind in made:
            text = made[kind](_crop(_text(rng.choice(base)), length, rng), rng)[:length]
        else:
            text = _crop(rng.choice(paragraphs[kind]), length, rng)
        prompt = row.prompt if rng.random() < 2 / 3 else ""
        before = _text(row)[:CONTEXT] + "\n" if rng.random() < 1 / 3 else ""
        found.append(Passage(prompt, before, text, kind))
    return found


@dataclass(frozen=True, slots=True)
class Judged:
    """What the classifier read and gave for one unit."""

    kind: str
    windows: tuple[Encoded, ...]
    embeddings: NDArray[np.float32]


def embedded(classifier: Classifier, passages: Iterable[Passage]) -> list[Judged]:
    """Return what the classifier gives for each passage; those without a token are left out."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda each: _judged(classifier, each), passages)
        return [each for each in found if each.windows[0].unit.stop > each.windows[0].unit.start]


def _judged(classifier: Classifier, passage: Passage) -> Judged:
    text = passage.before + passage.text
    given = classifier.judge(passage.prompt, text, start=len(passage.before))
    if given.embeddings is None:
        raise ValueError("the model gives no embeddings: export it with `sentence_embedding`")
    return Judged(passage.kind, given.windows, given.embeddings)


def _text(row: Row) -> str:
    return row.response if row.response.strip() else row.prompt


def _in_turn(queues: list[Iterator[Row]]) -> Iterator[list[Row]]:
    while queues:
        taken = [(queue, next(queue, None)) for queue in queues]
        yield [row for _, row in taken if row is not None]
        queues = [queue for queue, row in taken if row is not None]


def _listing(rng: random.Random) -> Passage:
    """Return names in one of the ways in which answers list them."""
    count = rng.randint(3, 14)
    names = [f"{rng.choice(_GIVEN_NAMES)} {rng.choice(_FAMILY_NAMES)}" for _ in range(count)]
    numbers = [rng.randint(1, 2030) for _ in names]
    pairs = list(zip(names, numbers, strict=True))
    form = rng.randrange(5)
    if form == 0:
        text = ", ".join(names) + "\n"
    elif form == 1:
        text = f"Present were {', '.join(names[:-1])} and {names[-1]}. "
    elif form == 2:
        text = "".join(f"| {name} | {number} |\n" for name, number in pairs)
    elif form == 3:
        text = "".join(f"{at}. {name} ({number})\n" for at, (name, number) in enumerate(pairs, 1))
    else:
        families = rng.sample(_FAMILY_NAMES, count)
        text = "".join(f"- {name}\n" for name in families)
    return Passage("", "", text, ORDINARY)


def _unit(row: Row, rng: random.Random) -> Passage | None:
    text = _text(row)
    if rng.random() < OBFUSCATED:
        text = obfuscated(text, rng)
    found = response_units(text, 12)
    if not found:
        return None
    unit = rng.choice(found)
    prompt = row.prompt if row.response.strip() and rng.random() < 0.85 else ""
    return Passage(prompt, unit.text[: unit.start], unit.text[unit.start :], ORDINARY)


def _crop(text: str, length: int, rng: random.Random) -> str:
    if len(text) <= length:
        return text
    start = rng.randrange(len(text) - length)
    return text[start : start + length]


def _counted(tokenizer: Tokenizer, rows: list[Row], rng: random.Random) -> dict[str, Any]:
    """Return the parts of the numbers that need no embedding."""
    rng.shuffle(rows)
    encoder, size = Encoder(tokenizer), tokenizer.get_vocab_size()
    counted = rows[:COUNTED_ROWS]
    windows = [
        window
        for row in counted
        for window in encoder.encode("", _text(row)[:COUNTED_CHARACTERS], "prompt")
    ]
    tokens, pairs = np.zeros(size, np.int64), Counter[int]()
    for window in windows:
        ids = window.ids[window.unit]
        tokens += np.bincount(ids, minlength=size)
        pairs.update((ids[:-1] * size + ids[1:]).tolist())
    bits = -np.log2((tokens + 0.5) / (tokens.sum() + 0.5 * size))
    parts = {
        "flags": _flags(tokenizer),
        "surprise": np.minimum(np.rint(SURPRISE_STEPS * bits), 255).astype(np.uint8),
        "pairs": _frequent(pairs, size),
    }
    return parts | {"ordinary": _means(windows, **parts)}


def _means(
    windows: Iterable[Encoded],
    flags: NDArray[np.uint8],
    surprise: NDArray[np.uint8],
    pairs: NDArray[np.uint8],
) -> Floats:
    """Return the mean of each of `COUNTED` over all tokens."""
    table = unfamiliar.token_table(flags, surprise)
    total = np.zeros(1 + len(COUNTED))
    for window in windows:
        ids = window.ids[window.unit]
        total[:-1] += unfamiliar.tallies(table[ids], window.characters).sum(axis=0)
        total[-1] += unfamiliar.known_pairs(pairs, ids).sum()
    return np.asarray(total[1:] / max(1.0, total[0]))


def _frequent(pairs: Counter[int], size: int) -> NDArray[np.uint8]:
    """Return the table of frequent neighbours."""
    table = np.zeros(unfamiliar.PAIR_BITS // 8, np.uint8)
    for pair, count in pairs.most_common(FREQUENT_PAIRS):
        if count > 1:
            (at,) = unfamiliar.pair_hashes(np.array(divmod(pair, size)))
            table[at >> 3] |= 1 << (at & 7)
    return table


def _flags(tokenizer: Tokenizer) -> NDArray[np.uint8]:
    """Return what each token is."""
    flags = np.zeros(tokenizer.get_vocab_size(), np.uint8)
    unknown = getattr(tokenizer.model, "unk_token", None)
    for token, index in tokenizer.get_vocab().items():
        body = token.removeprefix("##")
        flags[index] |= unfamiliar.CONTINUATION * (body != token)
        flags[index] |= unfamiliar.UNKNOWN * (token == unknown)
        flags[index] |= unfamiliar.FUNCTION_WORD * (token.lower() in FUNCTION_WORDS)
        flags[index] |= unfamiliar.FOREIGN * (not body.isascii())
        flags[index] |= unfamiliar.SINGLE * (len(body) == 1 and body.isalnum())
    return flags


def _placed(counts: Mapping[str, Any], embeddings: NDArray[np.float32]) -> Numbers:
    """Lay a plane through ordinary embeddings; what is fitted later is 0."""
    wide = embeddings.astype(np.float64)
    centre = wide.mean(axis=0)
    _, sizes, directions = np.linalg.svd(wide - centre, full_matrices=False)
    axes = min(AXES, len(wide) // 8)
    features = 2 + len(COUNTED)
    return Numbers(
        centre=centre.astype(np.float32),
        plane=directions[:axes].astype(np.float16),
        spread=(sizes[:axes] / math.sqrt(len(wide))).astype(np.float32),
        offset=np.zeros(features),
        weights=np.zeros(features),
        line=np.array([1.0, 0.0, MAXIMUM_EVIDENCE]),
        digest=np.array(""),
        **counts,
    )


def _drawn(numbers: Numbers, judged: Sequence[Judged], rng: random.Random) -> Numbers:
    """Draw the line between ordinary and strange units, and calibrate it."""
    scorer = Unfamiliarity(numbers)
    features = np.concatenate([scorer.features(each.windows, each.embeddings) for each in judged])
    kinds = [each.kind for each in judged for _ in each.windows]
    truth = np.array([kind != ORDINARY for kind in kinds])
    offset, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    scaled = (features - offset) / spread
    fold = _folds(kinds, rng)
    apart = np.empty(len(kinds))
    for number in range(FOLDS):
        inside = fold == number
        apart[inside] = _line(scaled[~inside], truth[~inside]).scores(scaled[inside])
    line = _line(scaled, truth)
    evidence = calibration.fit(apart - line.intercept, truth)
    bound = min(MAXIMUM_EVIDENCE, math.log((~truth).sum() + 1))
    return replace(
        numbers,
        offset=offset,
        weights=line.weights / spread,
        line=np.array([evidence.slope, evidence.intercept, bound]),
    )


def _line(features: Floats, truth: NDArray[np.bool_]) -> Linear:
    shares = np.where(truth, (~truth).sum() / max(1, truth.sum()), 1.0)
    return regression(features, truth, shares, PENALTY)


def _folds(kinds: Sequence[str], rng: random.Random) -> NDArray[np.int64]:
    """Return a fold per unit; a kind of strange ones is in one fold only."""
    others = sorted(set(kinds) - {ORDINARY})
    rng.shuffle(others)
    of_kind = {kind: number % FOLDS for number, kind in enumerate(others)}
    return np.array([of_kind.get(kind, number % FOLDS) for number, kind in enumerate(kinds)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, fit, write and seal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled *.jsonl.gz")
    parser.add_argument("--model", type=Path, required=True, help="the model's directory")
    parser.add_argument("--units", type=int, default=UNITS, help="ordinary units to embed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    make(given.model, load(given.data, seed=given.seed).train, given.seed, given.units)
    facts = json.loads((given.model / MANIFEST).read_text("utf-8"))
    facts.pop("files", None)
    seal(given.model, facts)


if __name__ == "__main__":
    main()
