"""What the guard costs on the wire: a table for docs/benchmarks.md.

    python benchmarks/wire.py               writes its part of docs/benchmarks.md
    python benchmarks/wire.py --smoke       a few seconds' worth, writes nothing

Streams of chat completions come from the scripted backend at 50 tokens a second through the
proxy, guarded and not, which take turns in one run. Backend, proxies and readers are processes of
their own. *Unguarded* is the very server with nothing judged; *packs* has everything but the
classifier; *all* is the class `public` with the bundled model.

    first token    from the request to the first text: a unit and its look-ahead are held back
    CPU            of the proxy's process, per 1,000 tokens
    per core       streams at 50 tokens/s that one core carries: the whole proxy, and what the guard
                   adds to it alone

The last table compares, in this process, a stream through the wire guard with one `check` of its
whole text, and the growth from 256 to 2,048 tokens. Times are medians; machines are noisy, so
quote the ratios. How noisy this one was is printed with them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx2
import structlog
from rich.progress import Progress

from guard.detectors.classifier import Classifier
from guard.exchange import Choice
from guard.loading import load_parts
from guard.policy import load_class
from guard.scripted import cut
from guard.server import proxy
from guard.server.app import create_app
from guard.server.guards import Judges
from guard.server.scripted import (
    Delivery,
    Reply,
    ScriptedApp,
    chat,
    messages,
    responses,
    serve_in_thread,
)
from guard.server.settings import ServerSettings
from guard.wire import transport
from guard.wire.formats import FORMATS, Call
from live_report import stamp, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection
    from typing import Self

    from guard.engine import Guard
    from guard.security_class import SecurityClass
    from guard.server.scripted.formats import Format

PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- wire: begin -->"
END: Final = "<!-- wire: end -->"

RATE: Final = 50
"""Tokens a second of one stream."""

SENTENCE: Final = (
    "The museum by the river opens at ten and shows old maps and clocks on two floors. "
)

FIRST: Final = b'"content":"The"'
"""What is in the first event with a text."""

Way = Literal["direct", "unguarded", "packs", "all"]
WAYS: Final[tuple[Way, ...]] = ("direct", "unguarded", "packs", "all")

SCRIPTED: Final[Mapping[str, Format]] = {
    "chat": chat.FORMAT,
    "responses": responses.FORMAT,
    "messages": messages.FORMAT,
}


def said(tokens: int) -> str:
    """Return a text of so many tokens."""
    return "".join(cut(SENTENCE * tokens)[:tokens])


# Servers, each in a process of its own.


class Server:
    """A server in a process of its own.

    Attributes:
        url: where it is.
    """

    def __init__(self, run: Callable[..., None], *given: Any) -> None:
        """Start it and wait until it can be called."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=run, args=(other, *given), daemon=True)
        self._process.start()
        self.url = str(self._pipe.recv())

    def cpu(self) -> float:
        """Return the CPU seconds that its process has used."""
        self._pipe.send("cpu")
        return float(self._pipe.recv())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send("stop")
        self._process.join(20)


def _wait(pipe: Connection, url: str) -> None:
    """Tell where a server is and what it used, until it is told to stop."""
    pipe.send(url)
    while pipe.recv() != "stop":
        pipe.send(time.process_time())


def run_backend(pipe: Connection, rate: float) -> None:
    """Serve texts of as many tokens as the prompt says."""
    app = ScriptedApp(delivery=Delivery(pause=1 / rate))
    for tokens in (40, 128, 256, 512, 1024, 2048):
        app.script(str(tokens), said(tokens))
    with app.served() as backend:
        _wait(pipe, backend.url)


def run_proxy(pipe: Connection, way: Way, upstream: str) -> None:
    """Serve the proxy in one of its ways."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    settings = ServerSettings(
        upstream=upstream, journal="none", other_paths="pass", max_in_flight=10_000
    )
    if way == "unguarded":
        # The same server, with no format that it would guard.
        for module in (proxy, transport):
            vars(module)["format_of"] = lambda *_: None
    judges = {"public": judges_of(way)}
    with serve_in_thread(create_app(settings, load=lambda: judges)) as served:
        _wait(pipe, served.url)


def judges_of(way: str) -> Judges:
    """Return who judges: everything, or everything but the classifier."""
    security_class = load_class("public")
    parts = load_parts(security_class, None, None, (), ())
    if way == "all":
        return Judges.of(security_class, parts.detectors, redactor=parts.redactor)
    packs = [each for each in parts.detectors if not isinstance(each, Classifier)]
    return Judges.of(only(security_class, packs), packs, redactor=parts.redactor)


def only(security_class: SecurityClass, detectors: Sequence[Any]) -> SecurityClass:
    """Return a class with the limits alone that some detector can reach."""
    there = {name for detector in detectors for name in detector.categories}
    limits = {name: limit for name, limit in security_class.limits.items() if name in there}
    return security_class.model_copy(update={"limits": limits, "input": None})


# Readers.


@dataclass(frozen=True)
class Sample:
    """One stream.

    Attributes:
        first: seconds from the request to the first text.
        total: seconds from the request to the end.
    """

    first: float
    total: float


async def read(client: httpx2.AsyncClient, url: str, tokens: int) -> Sample:
    """Read one stream."""
    asked = {"model": "m", "stream": True, "messages": [{"role": "user", "content": str(tokens)}]}
    began, first, kept = time.perf_counter(), 0.0, b""
    async with client.stream("POST", f"{url}/v1/chat/completions", json=asked) as answer:
        async for piece in answer.aiter_raw():
            if not first:
                kept += piece
                first = time.perf_counter() - began if FIRST in kept else 0.0
    return Sample(first, time.perf_counter() - began)


async def read_many(url: str, tokens: int, streams: int) -> list[Sample]:
    """Read so many streams at a time, begun a little apart."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:

        async def later(number: int) -> Sample:
            await asyncio.sleep(number / streams / 2)
            return await read(client, url, tokens)

        return await asyncio.gather(*(later(number) for number in range(streams)))


def high(values: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return sorted(values)[round(0.95 * (len(values) - 1))]


@dataclass
class Run:
    """What was measured of one way.

    Attributes:
        samples: every stream.
        cpu: CPU seconds of its process.
        tokens: of all streams.
    """

    samples: list[Sample]
    cpu: float = 0.0
    tokens: int = 0

    def median(self, part: str) -> float:
        """Return the median of a part of the samples, in seconds."""
        return statistics.median(self._values(part))

    def high(self, part: str) -> float:
        """Return the 95th percentile of a part of the samples, in seconds."""
        return high(self._values(part))

    def _values(self, part: str) -> list[float]:
        return [getattr(sample, part) for sample in self.samples]

    @property
    def cost(self) -> float:
        """CPU milliseconds per 1,000 tokens."""
        return 1e6 * self.cpu / self.tokens


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: turns of each way.
        streams: read at a time.
        tokens: of each stream.
        rate: tokens a second of each stream.
        verify: streams that are read at a time once more, 0 for none.
    """

    rounds: int
    streams: int
    tokens: int
    rate: float
    verify: int


def through_proxies(plan: Plan, bar: Progress) -> list[str]:
    """Return the first table, and how many streams at a time fared."""
    runs: dict[Way, Run] = {way: Run([]) for way in WAYS}
    job = bar.add_task("through proxies", total=plan.rounds * len(WAYS))
    with ExitStack() as stack:
        backend = stack.enter_context(Server(run_backend, plan.rate))
        servers = {"direct": backend} | {
            way: stack.enter_context(Server(run_proxy, way, backend.url)) for way in WAYS[1:]
        }
        for way in WAYS:  # a first stream each, which is not counted
            asyncio.run(read_many(servers[way].url, 40, 1))
        for turn in range(plan.rounds):
            for way in (*WAYS[turn % len(WAYS) :], *WAYS[: turn % len(WAYS)]):
                before = servers[way].cpu()
                samples = asyncio.run(read_many(servers[way].url, plan.tokens, plan.streams))
                runs[way].samples += samples
                runs[way].cpu += servers[way].cpu() - before
                runs[way].tokens += plan.tokens * plan.streams
                bar.advance(job)
        found = [_first_table(runs)]
        if plan.verify:
            found.append(_verified(servers, plan, bar))
    return found


def _first_table(runs: Mapping[Way, Run]) -> str:
    plain = runs["unguarded"]
    head = [
        "way",
        "first token s",
        "added to it",
        "its p95",
        "added to p95",
        "total s",
        "added to total",
    ]
    head += ["CPU ms / 1,000 tokens", "per core", "guard alone"]
    rows = []
    for way, run in runs.items():
        behind = way != "direct"
        own = run.cost - plain.cost
        rows.append(
            [
                way,
                f"{run.median('first'):.3f}",
                f"{run.median('first') - plain.median('first'):+.3f}",
                f"{run.high('first'):.3f}",
                f"{run.high('first') - plain.high('first'):+.3f}",
                f"{run.median('total'):.3f}",
                f"{run.median('total') - plain.median('total'):+.3f}",
                f"{run.cost:.0f}" if behind else "",
                f"{1e6 / RATE / run.cost:.0f}" if behind else "",
                f"{1e6 / RATE / own:.0f}" if own > 0 and behind and way != "unguarded" else "",
            ]
        )
    return table(head, rows)


def _verified(servers: Mapping[str, Server], plan: Plan, bar: Progress) -> str:
    """Return how so many streams at a time fare, against one alone."""
    streams, tokens = plan.verify, plan.tokens
    job = bar.add_task(f"{streams} at a time", total=2 * len(WAYS))
    rows = []
    for way in WAYS:
        alone = Run(asyncio.run(read_many(servers[way].url, tokens, 1)))
        bar.advance(job)
        many = Run(asyncio.run(read_many(servers[way].url, tokens, streams)))
        bar.advance(job)
        slower = many.median("total") / alone.median("total")
        rows.append([way, f"{many.high('first'):.3f}", f"{many.median('total'):.2f}"])
        rows[-1].append(f"{slower:.2f}")
    head = [f"{streams} at a time", "first token p95 s", "total s", "total / one alone"]
    return table(head, rows)


# In this process.


def stream_of(form: str, tokens: int) -> list[bytes]:
    """Return the events of a stream as a backend sends them."""
    scripted = SCRIPTED[form]
    request = {"stream": True}
    body = scripted.body(request, "", Reply((Choice(said(tokens)),)))
    return [event.encode("\n") for event in scripted.events(request, body, Delivery())]


def relay(guard: Guard, form: str, events: Sequence[bytes]) -> None:
    """Send a stream through the wire guard."""
    chosen = next(each for each in FORMATS if each.name == form)
    walk = Call(guard, chosen, {"model": "m", "stream": True}).relay()
    for event in events:
        guard.driver.run(walk.feed(event))
    guard.driver.run(walk.finish())


def against_check(rounds: int, lengths: Sequence[int], bar: Progress) -> str:
    """Return the second table."""
    job = bar.add_task("against check", total=2 * rounds)
    rows = []
    for name in ("all", "packs"):
        guard = judges_of(name).guard
        times: dict[tuple[str, int], list[float]] = {}
        for turn in range(rounds):
            for what, tokens, call in _calls(guard, lengths):
                began = time.perf_counter()
                call()
                if turn or rounds == 1:  # the first warms caches up
                    times.setdefault((what, tokens), []).append(time.perf_counter() - began)
            bar.advance(job)
        ms = {key: 1000 * statistics.median(values) for key, values in times.items()}
        short, long = lengths[0], lengths[-1]
        rows += [
            [
                f"{what}, {name}",
                f"{ms[what, short]:.1f}",
                f"{ms[what, long]:.1f}",
                f"{ms[what, short] / ms['check', short]:.2f}",
                f"{ms[what, long] / ms['check', long]:.2f}",
                f"{ms[what, long] / ms[what, short]:.1f}",
            ]
            for what in ("check", *SCRIPTED)
        ]
    head = ["what", f"{lengths[0]} tokens ms", f"{lengths[-1]} tokens ms"]
    head += [f"/ check at {lengths[0]}", f"/ check at {lengths[-1]}", "growth"]
    return table(head, rows)


def _calls(guard: Guard, lengths: Sequence[int]) -> Iterator[tuple[str, int, Callable[[], object]]]:
    for tokens in lengths:
        text = said(tokens)
        yield "check", tokens, partial(guard.check, text)
        for form in SCRIPTED:
            yield form, tokens, partial(relay, guard, form, stream_of(form, tokens))


def noise(rounds: int = 40) -> float:
    """Return how much longer than its median one and the same work takes at times."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        sum(number * number for number in range(100_000))
        times.append(time.perf_counter() - began)
    return high(times) / statistics.median(times)


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
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--streams", type=int, default=8, help="streams at a time")
    parser.add_argument("--verify", type=int, default=0, help="also read so many at a time")
    parser.add_argument("--smoke", action="store_true", help="very little of it; write nothing")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    plan = Plan(given.rounds, given.streams, 256, float(RATE), given.verify)
    lengths, repeats = (256, 2048), 6
    if given.smoke:
        plan = Plan(1, 2, 128, 4.0 * RATE, given.verify)
        lengths, repeats = (40, 256), 2
    before = noise()
    with Progress() as bar:
        first = through_proxies(plan, bar)
        second = against_check(repeats, lengths, bar)
    about = (
        f"{plan.rounds} turns of {plan.streams} streams at a time, {plan.tokens} tokens each at "
        f"{plan.rate:g} tokens/s. The 95th percentile of one and the same loop was {before:.2f} "
        f"times its median before all this, and {noise():.2f} times after it."
    )
    text = "\n\n".join([stamp("wire.py"), about, *first, second])
    print(text)
    if not given.smoke:
        publish(text)


if __name__ == "__main__":
    main()
