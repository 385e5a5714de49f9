"""What tests of the vendors' formats share: bytes through a guard, without any HTTP.

- `pass_stream`: a backend's stream, in pieces of any size.
- `pass_body`: a backend's whole response.
- `make_call` and `play`: the same, step by step.
- `heard`: what a reader puts together from a stream, whatever its format.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from guard.wire.detail import DEFAULT_STYLE
from guard.wire.formats import FORMATS, Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from guard.engine import Guard
    from guard.steps import Steps
    from guard.wire.detail import Style
    from guard.wire.relay import Relay


def call_of(
    guard: Guard, form: str, request: dict[str, Any] | None = None, style: Style = DEFAULT_STYLE
) -> Call:
    """Return the walk of a request in the format of a name."""
    found = next(each for each in FORMATS if each.name == form)
    return Call(guard, found, {"model": "m"} if request is None else request, style)


def released(guard: Guard, steps: Steps) -> str:
    """Return what leaves with some steps."""
    texts = []
    while (text := guard.driver.advance(steps)) is not None:
        texts.append(text)
    return "".join(texts)


def relayed(guard: Guard, relay: Relay, pieces: Sequence[bytes]) -> Iterator[str]:
    """Yield what leaves after each piece of a stream, then what leaves at its end."""
    for piece in pieces:
        yield released(guard, relay.feed(piece))
    yield released(guard, relay.finish())


def cut(data: bytes, cuts: Sequence[int] | int) -> list[bytes]:
    """Return `data` in pieces of a size, or cut at some places."""
    if isinstance(cuts, int):
        return [data[at : at + cuts] for at in range(0, len(data), cuts)]
    return [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]


@pytest.fixture(scope="session")
def pass_stream() -> Callable[..., bytes]:
    """Return what sends a backend's stream through a guard."""

    def passed(
        guard: Guard, form: str, data: bytes, *, cuts: Sequence[int] | int = 4096, **options: Any
    ) -> bytes:
        relay = call_of(guard, form, **options).relay()
        return "".join(relayed(guard, relay, cut(data, cuts))).encode()

    return passed


@pytest.fixture(scope="session")
def pass_body() -> Callable[..., bytes]:
    """Return what sends a backend's whole response through a guard."""

    def passed(guard: Guard, form: str, data: bytes, **options: Any) -> bytes:
        body = call_of(guard, form, **options).body(data)
        guard.driver.run(body.judge())
        return body.delivered()

    return passed


@pytest.fixture(scope="session")
def make_call() -> Callable[..., Call]:
    """Return the maker of walks of a request."""
    return call_of


@pytest.fixture(scope="session")
def play() -> Callable[..., list[str]]:
    """Return what feeds a relay; it returns what leaves after each piece, and at the end."""

    def played(guard: Guard, relay: Relay, pieces: Sequence[bytes]) -> list[str]:
        return list(relayed(guard, relay, pieces))

    return played


@pytest.fixture(scope="session")
def heard() -> Callable[[str | bytes], dict[str, str]]:
    """Return what joins the strings of a stream's events by their places."""

    def joined(data: str | bytes) -> dict[str, str]:
        texts: dict[str, str] = {}
        for block in (data if isinstance(data, str) else data.decode()).split("\n\n"):
            line = block.partition("data: ")[2]
            if line and line != "[DONE]":
                for place, text in _strings(json.loads(line), ""):
                    texts[place] = texts.get(place, "") + text
        return texts

    return joined


def _strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield every string with its place, entries of lists by their own index where they have one.

    A key is a string as well.
    """
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        place = f"{place}[{value['index']}]" if isinstance(value.get("index"), int) else place
        for key, inner in value.items():
            yield f"{place}!", key
            yield from _strings(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, place)
