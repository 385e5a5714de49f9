"""The parts of `benchmarks/peers.py` that could make its figures wrong; nothing is installed."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import peers
import peers_environments
import peers_tables
from guard.engine import Guard
from peers_environments import PEERS, Peer
from peers_probes import probing
from peers_probes.for_clearance import Marker, blocking
from peers_probes.probing import RULE, Way
from peers_probes.texts import MARKER, PATTERN, marked, pieces, plain, seen, text_of
from peers_server import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


def unguarded(name: str, *, stream: bool) -> Iterator[str]:
    """Yield a text as it is."""
    yield from pieces(text_of(name)) if stream else [text_of(name)]


def trusting(name: str, *, stream: bool) -> Iterator[str]:
    """Release every piece and judge all of them at the end."""
    text = ""
    for piece in unguarded(name, stream=stream):
        text += piece
        yield piece
    if RULE(text):
        raise PermissionError


def careful(name: str, *, stream: bool) -> Iterator[str]:
    """Judge all that came with every piece and release it at the end, or another text."""
    text = ""
    for piece in unguarded(name, stream=stream):
        text += piece
        RULE(text)
    yield "No." if RULE(text) else text


def blind(name: str, *, stream: bool) -> Iterator[str]:
    """Judge every piece by itself, so that the marker is never seen as a whole."""
    for piece in unguarded(name, stream=stream):
        RULE(piece)
        yield piece.upper()


def broken(name: str, *, stream: bool) -> Iterator[str]:
    """Fail at the first piece."""
    raise OSError(f"{name} {stream}")
    yield ""


class TestTexts:
    """What is streamed."""

    def test_texts(self) -> None:
        """A clean text has its length and no marker; a marked one has it once, as a word."""
        assert len(text_of("clean-1024")) == 1024
        assert not PATTERN.search(plain(8192))
        for at in probing.POSITIONS:
            before, _, after = text_of(f"openai/marked-{at}").partition(MARKER)
            assert before + after.removeprefix(" ") == plain(1024)
            assert before.endswith(" ")
            assert len(before) >= at
        assert "".join(pieces(marked(300))) == marked(300)

    @pytest.mark.parametrize("name", ["clean", "clean-x", "gpt-5", "marked--3"])
    def test_unknown(self, name: str) -> None:
        """Another name is an error that says what there is."""
        with pytest.raises(ValueError, match="names no text: use"):
            text_of(name)

    def test_seen(self) -> None:
        """The longest beginning of the marker counts, wherever it stands."""
        assert seen(plain(1024)) == 0
        assert [seen(f"so {MARKER[:n]} on") for n in (1, 7, len(MARKER))] == [1, 7, len(MARKER)]


class TestServer:
    """Who answers."""

    @staticmethod
    def _post(url: str, asked: dict[str, Any]) -> str:
        request = urllib.request.Request(f"{url}/chat/completions", json.dumps(asked).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())

    def test_answers(self) -> None:
        """An answer is the same text as a whole and in pieces."""
        with served() as url:
            whole = json.loads(self._post(url, {"model": "marked-60"}))
            lines = self._post(url, {"model": "marked-60", "stream": True}).splitlines()
        assert whole["choices"][0]["message"]["content"] == marked(60)
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        read = [event["choices"][0]["delta"].get("content") or "" for event in events]
        assert "".join(read) == marked(60)
        assert max(map(len, read)) == 4

    def test_unknown(self) -> None:
        """A model that names no text is not found."""
        with served() as url, pytest.raises(urllib.error.HTTPError, match="404") as caught:
            self._post(url, {"model": "gpt-5"})
        caught.value.close()


class TestProbing:
    """What is measured of a way."""

    def test_leaks(self) -> None:
        """A way that judges late lets all of the marker out, one that judges first nothing."""
        late = probing.leaks(Way("", trusting, unguarded))
        streams = len(probing.POSITIONS)
        assert late["had"] == [len(MARKER)] * streams
        assert (late["early"], late["missed"], late["ends"]) == (True, 0, ["PermissionError"])
        first = probing.leaks(Way("", careful, unguarded))
        assert first["had"] == [0] * streams
        assert (first["early"], first["missed"], first["ends"]) == (False, 0, ["rewritten"])

    def test_missed(self) -> None:
        """A marker that the rule never saw as a whole is told apart from one that was found."""
        found = probing.leaks(Way("", blind, unguarded))
        assert found["missed"] == len(probing.POSITIONS)

    def test_not_counted(self) -> None:
        """Where the package does not ask the rule, nothing is said of what it was given."""
        way = Way("", unguarded, unguarded, counted=False)
        found = probing.leaks(way)
        assert (found["early"], found["missed"], found["ends"]) == (None, 0, ["unchanged"])
        assert probing.scanned(way) == {"ratios": [], "altered": 0}

    def test_scanned(self) -> None:
        """Judging all that came with every piece grows with the text; a change is noticed."""
        once = probing.scanned(Way("", trusting, unguarded))
        assert once == {"ratios": [1.0, 1.0], "altered": 0}
        again = probing.scanned(Way("", careful, unguarded))
        assert again["ratios"] == pytest.approx([129.5, 513.5])
        assert probing.scanned(Way("", blind, unguarded))["altered"] == 1

    def test_compared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both take turns in changing order, and the first of each does not count."""
        order, clock = "", count()

        def reader(letter: str, ticks: int) -> Any:
            def read(name: str, *, stream: bool) -> Iterator[str]:
                nonlocal order
                order += letter
                # What does not count takes long.
                for _ in range(ticks if order.count(letter) > 1 else 99):
                    next(clock)
                yield f"{name}{stream}"

            return read

        fake = SimpleNamespace(process_time=lambda: float(next(clock)))
        monkeypatch.setattr(probing, "time", fake)
        found = probing.compared(reader("p", 4), reader("g", 9), stream=True, rounds=3)
        assert order == "gppggppg"
        assert found == {"ms": 5000.0, "ratio": 2.0}

    def test_classifier(self, model: Path) -> None:
        """The classifier of a directory takes texts of any length and never fires."""
        judge = probing.classifier(model)
        assert not judge("Soup.")
        assert not judge(plain(8192))

    def test_with_classifier(self) -> None:
        """The classifier stands beside the rule while it is timed, and only then."""
        asked: list[str] = []

        def judge(text: str) -> bool:
            asked.append(text)
            return False

        found = probing.with_classifier(Way("", trusting, unguarded), judge, 1)
        assert asked == [plain(1024)] * 2
        assert set(found) == {"ms", "ratio"}
        assert RULE.classifier is None
        own = Way("", unguarded, unguarded, counted=False)
        assert probing.with_classifier(own, judge, 1) == {}

    def test_failure(self) -> None:
        """What cannot be measured says why, and does not keep the rest from it."""
        found = probing.measure(Way("w", broken, unguarded), lambda _: False, 1)
        assert set(found["failed"]) == {"scanned", "call", "stream", "classified"}
        assert found["failed"]["call"] == "OSError: clean-1024 False"
        assert found["leaks"]["ends"] == ["OSError"]

    def test_following(self) -> None:
        """An asynchronous stream is made inside its loop and read to its end."""

        async def numbers() -> AsyncIterator[str]:
            for number in "123":
                await asyncio.sleep(0)
                yield number

        def make() -> AsyncIterator[str]:
            asyncio.get_running_loop()
            return numbers()

        loop = asyncio.new_event_loop()
        assert "".join(probing.following(make, loop)) == "123"
        loop.close()

    def test_own_rule(self) -> None:
        """The rule as a detector of ours: nothing of the marker leaves."""
        guard = Guard(blocking(), [Marker()])
        RULE.reset()
        stream = guard.stream(iter(pieces(marked(300))), prompt=probing.PROMPT)
        assert seen("".join(stream)) == 0
        assert stream.verdict.action == "block"
        assert RULE.hits


class TestEnvironments:
    """Where it is measured."""

    def test_reason(self) -> None:
        """The last line that says `ERROR` is the reason, else the last line."""
        text = "WARNING: old\nERROR: no\nERROR: No matching distribution\n  hint"
        assert peers_environments.reason(text) == "ERROR: No matching distribution"
        assert peers_environments.reason("Traceback\nOSError: gone\n") == "OSError: gone"
        assert peers_environments.reason("") == "no message"

    def test_ready(self, tmp_path: Path) -> None:
        """An environment that was made is not made again, and keeps why it could not be."""
        place = tmp_path / "name"
        place.mkdir()
        (place / "made.json").write_text('{"failed": "ERROR: conflict"}', "utf-8")
        assert peers_environments.ready(Peer("name", "name", "none"), tmp_path) == "ERROR: conflict"

    def test_megabytes(self, tmp_path: Path) -> None:
        """Packages are weighed without pip, and with or without bytecode."""
        packages = tmp_path / "lib" / "python3.11" / "site-packages"
        for name, size in (("a.py", 2), ("__pycache__/a.pyc", 3)):
            for package in ("mine", "pip"):
                path = packages / package / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * size * 1_000_000)
        weights = [peers_environments.megabytes(tmp_path, bytecode=b) for b in (False, True)]
        assert weights == [2.0, 5.0]

    def test_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process in an environment sees nothing of this one's Python, and fetches nothing."""
        monkeypatch.setenv("PYTHONPATH", "elsewhere")
        monkeypatch.setenv("VIRTUAL_ENV", "elsewhere")
        found = peers_environments.environment(tmp_path)
        assert "elsewhere" not in found.values()
        assert (found["HF_HUB_OFFLINE"], found["DO_NOT_TRACK"]) == ("1", "1")
        assert found["HOME"] == str(tmp_path / "home")

    def test_probes(self) -> None:
        """Every package has its probe."""
        for peer in PEERS:
            assert (peers_environments.PROBES / f"{peer.probe}.py").exists()


WAY = {
    "way": "default",
    "failed": {},
    "leaks": {"had": [0, 21, 7, 0], "early": True, "missed": 1, "ends": ["Blocked"]},
    "scanned": {"ratios": [2.17, 5.54], "altered": 10},
    "call": {"ms": 9.6, "ratio": 1.524},
    "stream": {"ms": 140.2, "ratio": 2.0},
    "classified": {"ms": 141.0, "ratio": 3.456},
}
WEIGHT = {
    "version": "1.2",
    "packages": 36,
    "megabytes": 234.6,
    "with_bytecode": 286.4,
    "import": 0.021,
}


class TestTables:
    """What is made of it."""

    def test_tables(self) -> None:
        """Every figure stands in its column."""
        figures = {"ours": {"failed": "", "weight": WEIGHT, "ways": [WAY]}}
        assert peers_tables.packages(figures).endswith("| ours 1.2 | 235 | 286 | 36 | 0.02 |")
        assert peers_tables.ways(figures).endswith(
            "| ours, default | yes | 21 of 21, in 2 of 4 streams | Blocked | 2.17 | 5.54 "
            "| 10 | 1.52 | 140 | 2.00 | 3.46 |"
        )
        assert peers_tables.notes(figures) == [
            "- ours, default: the rule was not given the whole marker in 1 of 4 streams.",
            "- ours, default: an answer without the marker came back changed (by 10 characters).",
        ]

    def test_gaps(self) -> None:
        """What was not measured is a dash and has a note, never a figure."""
        lost = {"way": "own", "failed": {"call": "OSError: gone"}, "scanned": {"ratios": []}}
        figures: dict[str, Any] = {
            "one": {"failed": "", "ways": [lost]},
            "two": {"failed": "ERROR: conflict", "ways": []},
        }
        assert peers_tables.packages(figures).count(" - ") == 8
        assert peers_tables.ways(figures).splitlines()[-1] == "| one, own " + "| - " * 10 + "|"
        assert peers_tables.notes(figures) == [
            "- one, own: `call` not measured: OSError: gone",
            "- two: not measured: ERROR: conflict",
        ]

    def test_report(self) -> None:
        """The report says who wrote it and how much was measured."""
        one = {"failed": "", "weight": WEIGHT, "ways": [WAY]}
        text = peers.report({"ours": one | {"rounds": 5}, "theirs": one | {"rounds": 9}})
        assert text.startswith("Written by `benchmarks/peers.py` on ")
        assert "medians of at least 10 calls and 5 streams" in text
        assert peers.noise(3) >= 1

    def test_publish(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tables stand between their marks, once; a page without marks is an error."""
        page = tmp_path / "page.md"
        monkeypatch.setattr(peers, "PAGE", page)
        page.write_text(f"a\n{peers.BEGIN}\n{peers.END}\nb\n", "utf-8")
        for text in ("one", "two"):
            peers.publish(text)
        assert page.read_text("utf-8") == f"a\n{peers.BEGIN}\ntwo\n{peers.END}\nb\n"
        page.write_text("a\n", "utf-8")
        with pytest.raises(ValueError, match="has no marks"):
            peers.publish("three")

    def test_page(self) -> None:
        """The page has a place for them."""
        assert peers.BEGIN in peers.PAGE.read_text("utf-8")
