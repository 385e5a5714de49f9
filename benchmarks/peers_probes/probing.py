"""What all probes share: the rule, the classifier, and what is measured of a way to guard.

A probe is run by the interpreter of its package's environment, so this module needs nothing
but the standard library; what the classifier needs is found behind the environment's own
packages. A probe says in which ways its package can be used, each with a reader of what its
user gets, and `run` prints the figures as one line of JSON.

This module does not know any package.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from peers_probes.texts import MARKED_LENGTH, PATTERN, plain, seen, text_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

PROMPT: Final = "What should I know about the museum?"
ASKED: Final = [{"role": "user", "content": PROMPT}]

POSITIONS: Final = tuple(range(60, MARKED_LENGTH - 30, 240))
"""Where the marker stands, in a stream of its own each."""

LENGTHS: Final = (1024, 4096)
"""Characters of the streams whose judged text is counted."""

CLEAN: Final = f"clean-{MARKED_LENGTH}"
"""The text that is timed."""

WINDOW: Final = 512
"""Tokens that the classifier takes."""


class Reader(Protocol):
    """Yields what a user gets of the text of a name, streamed or not, as it is released."""

    def __call__(self, name: str, *, stream: bool) -> Iterator[str]: ...  # noqa: D102


class Rule:
    """The trivial rule, which counts what it is given.

    Attributes:
        calls: how often it was asked.
        characters: how many characters it was given in all.
        hits: how often it found the marker.
        classifier: judges as well, where there is one.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.calls = self.characters = self.hits = 0
        self.classifier: Callable[[str], bool] | None = None

    def __call__(self, text: str) -> bool:
        """Return whether the marker, or what the classifier looks for, is in a text."""
        self.calls += 1
        self.characters += len(text)
        found = PATTERN.search(text) is not None
        self.hits += found
        return found or (self.classifier is not None and self.classifier(text))

    def reset(self) -> None:
        """Count from nothing again."""
        self.calls = self.characters = self.hits = 0


RULE: Final = Rule()
"""The one that every probe puts into its package."""


@dataclass(frozen=True)
class Way:
    """One way to use a package.

    Attributes:
        name: what is set in it.
        guarded: reads through the guardrail.
        unguarded: reads through the same client without it.
        classified: reads through the guardrail with the classifier, where the package has a
            place of its own for one; by default it stands beside the rule.
        counted: whether the package asks the rule, rather than one of its own that finds the same.
    """

    name: str
    guarded: Reader
    unguarded: Reader
    classified: Reader | None = None
    counted: bool = True


def classifier(model: Path) -> Callable[[str], bool]:
    """Return the classifier of a directory as a rule that never fires."""
    import numpy as np  # noqa: PLC0415  # found behind the environment's own packages
    import onnxruntime  # noqa: PLC0415
    import tokenizers  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(next((model / "onnx").glob("*.onnx"))), options, providers=["CPUExecutionProvider"]
    )
    encoder = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    encoder.no_padding()
    encoder.enable_truncation(WINDOW)
    wanted = {each.name for each in session.get_inputs()}

    def judge(text: str) -> bool:
        coded = encoder.encode(text)
        given = {
            "input_ids": coded.ids,
            "attention_mask": coded.attention_mask,
            "token_type_ids": coded.type_ids,
        }
        feed = {name: np.array([ids], np.int64) for name, ids in given.items() if name in wanted}
        logits = session.run(["logits"], feed)[0]
        return bool(np.isnan(logits).any())

    return judge


# What is measured.


def leaks(way: Way) -> dict[str, Any]:
    """Return how much of the marker a reader had, per stream, and how the streams ended."""
    had, early, missed, ends = [], False, 0, []
    for position in POSITIONS:
        RULE.reset()
        name, read = f"marked-{position}", ""
        try:
            for piece in way.guarded(name, stream=True):
                early = early or bool(piece and way.counted and not RULE.calls)
                read += piece
            ends.append("unchanged" if read == text_of(name) else "rewritten")
        except Exception as error:  # noqa: BLE001  # a guardrail says no in its own way
            ends.append(type(error).__name__)
        had.append(seen(read))
        missed += way.counted and not RULE.hits
    return {
        "had": had,
        "early": early if way.counted else None,
        "missed": missed,
        "ends": list(dict.fromkeys(ends)),
    }


def scanned(way: Way) -> dict[str, Any]:
    """Return how many characters the rule was given per character of a clean stream.

    Also by how many characters a clean stream differed from what the server sent.
    """
    found, altered = [], []
    for length in LENGTHS:
        RULE.reset()
        read = "".join(way.guarded(f"clean-{length}", stream=True))
        found.append(RULE.characters / length)
        altered.append(0 if read == plain(length) else abs(len(read) - length) or 1)
    return {"ratios": found if way.counted else [], "altered": max(altered)}


def compared(one: Reader, other: Reader, *, stream: bool, rounds: int) -> dict[str, float]:
    """Return the milliseconds that one computes, and how many times as long the other does.

    CPU time, of all threads: on a shared machine it says more than what a clock shows, and the
    scripted server, in a process of its own, is not in it. The two take turns, in changing
    order, after one call each that does not count.
    """
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds + 1):
        for second in (turn % 2 == 0, turn % 2 == 1):
            began = time.process_time()
            for _ in (other if second else one)(CLEAN, stream=stream):
                pass
            if turn:
                times[second].append(time.process_time() - began)
    before, after = statistics.median(times[False]), statistics.median(times[True])
    return {"ms": 1000 * before, "ratio": after / before}


def with_classifier(way: Way, judge: Callable[[str], bool], rounds: int) -> dict[str, float]:
    """Return how many times as much a stream computes with the classifier as plain."""
    if way.classified is not None:
        return compared(way.unguarded, way.classified, stream=True, rounds=rounds)
    if not way.counted:
        return {}
    RULE.classifier = judge
    try:
        return compared(way.unguarded, way.guarded, stream=True, rounds=rounds)
    finally:
        RULE.classifier = None


def measure(way: Way, judge: Callable[[str], bool], rounds: int) -> dict[str, Any]:
    """Return the figures of a way; what could not be measured says why."""
    parts: dict[str, Callable[[], Any]] = {
        "leaks": lambda: leaks(way),
        "scanned": lambda: scanned(way),
        "call": lambda: compared(way.unguarded, way.guarded, stream=False, rounds=2 * rounds),
        "stream": lambda: compared(way.unguarded, way.guarded, stream=True, rounds=rounds),
        "classified": lambda: with_classifier(way, judge, max(3, rounds // 3)),
    }
    figures: dict[str, Any] = {"way": way.name, "failed": {}}
    for name, part in parts.items():
        try:
            figures[name] = part()
        except Exception as error:  # noqa: BLE001  # belongs into the report
            figures["failed"][name] = f"{type(error).__name__}: {error}"[:300]
    return figures


# What probes are built from.


def following(
    make: Callable[[], AsyncIterator[str]], loop: asyncio.AbstractEventLoop
) -> Iterator[str]:
    """Yield what an asynchronous iterator brings, which is made inside the loop."""

    async def made() -> AsyncIterator[str]:
        return make()

    stream = loop.run_until_complete(made())
    try:
        while True:
            yield loop.run_until_complete(anext(stream))
    except StopAsyncIteration:
        return


def sdk_reader(client: Any, **options: Any) -> Reader:
    """Return the reader of a client with the interface of OpenAI's SDK."""

    def read(name: str, *, stream: bool) -> Iterator[str]:
        answer = client.chat.completions.create(
            model=name, messages=ASKED, stream=stream, **options
        )
        if not stream:
            yield answer.choices[0].message.content or ""
            return
        for chunk in answer:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    return read


@dataclass(frozen=True)
class Given:
    """What a probe is told.

    Attributes:
        url: the scripted server's base URL.
        model: the classifier's directory.
        place: a folder of the probe's own for what it writes.
    """

    url: str
    model: Path
    place: Path


def run(ways: Callable[[Given], Sequence[Way]]) -> None:
    """Measure the ways of a package and print the figures, which end the output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--extras", required=True, help="packages of the probes alone")
    parser.add_argument("--rounds", type=int, required=True)
    told = parser.parse_args()
    sys.path.append(told.extras)
    judge = classifier(told.model)
    given = Given(told.url, told.model, told.place)
    print("\n" + json.dumps([measure(way, judge, told.rounds) for way in ways(given)]), flush=True)
