"""`check_many`: side by side, in order, lazily, and no error loses other work."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

from guard.errors import InputError
from guard.exchange import Choice, Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.detectors.base import Finding, Passage
    from guard.engine import Guard


class Meeting:
    """A detector that finds nothing and waits until several texts are judged at a time."""

    name = "meeting"
    version = "1"
    categories = ("nothing",)

    def __init__(self, count: int) -> None:
        """Wait for `count`."""
        self._barrier = threading.Barrier(count)

    def __call__(self, _: Passage) -> list[Finding]:
        """Wait for the others."""
        self._barrier.wait(60)
        return []


@pytest.fixture
def guard(make_guard: Callable[..., Guard]) -> Guard:
    """Return a guard that fires on words."""
    return make_guard()


class TestOrder:
    """Verdicts come as the responses came."""

    def test_like_check_one_by_one(self, guard: Guard) -> None:
        """The verdicts are those of `check`, in order, for texts and exchanges alike."""
        words = ("fine", "zflag", "zredact", "zblock")
        responses: list[str | Exchange] = [f"{n} {words[n % 4]}. " * (n % 7 + 1) for n in range(60)]
        responses[30] = Exchange((Choice("zredact"), Choice("zreplace")))
        assert list(guard.check_many(responses)) == [guard.check(r) for r in responses]
        assert list(guard.check_many(iter(responses), workers=1)) == [
            guard.check(r) for r in responses
        ]

    def test_none(self, guard: Guard) -> None:
        """No responses give no verdicts."""
        assert list(guard.check_many([])) == []

    def test_side_by_side(self, make_guard: Callable[..., Guard]) -> None:
        """Two workers judge two responses at a time."""
        guard = make_guard(Meeting(2), limits={"nothing": {"flag": 0.5}})
        verdicts = guard.check_many(["one", "two"] * 3, workers=2)
        assert [verdict.text for verdict in verdicts] == ["one", "two"] * 3

    def test_context_variables(self, guard: Guard) -> None:
        """What a caller has bound to its context is bound where its responses are judged."""
        variable = contextvars.ContextVar("variable", default="")
        seen: list[str] = []
        check = guard.check

        def spy(response: str | Exchange) -> Any:
            seen.append(variable.get())
            return check(response)

        from guard.batch import Verdicts

        variable.set("bound")
        list(Verdicts(spy, ["one", "two"]))
        assert seen == ["bound", "bound"]


class TestLazy:
    """Responses are read as verdicts are taken."""

    def test_a_few_ahead(self, guard: Guard) -> None:
        """An endless source is no problem; reading stays a few ahead of the verdicts."""
        read: list[int] = []

        def source() -> Iterator[str]:
            while True:
                read.append(len(read))
                yield f"number {read[-1]}"

        verdicts = guard.check_many(source(), workers=2)
        assert read == []
        for number in range(20):
            assert next(verdicts).text == f"number {number}"
            assert len(read) <= number + 6
        verdicts.close()  # type: ignore[attr-defined]

    def test_early_close(self, guard: Guard) -> None:
        """After `close` nothing is read and nothing comes."""
        read: list[int] = []

        def source() -> Iterator[str]:
            for number in range(100):
                read.append(number)
                yield f"number {number}"

        verdicts: Any = guard.check_many(source(), workers=2)
        next(verdicts)
        count = len(read)
        verdicts.close()
        verdicts.close()
        assert list(verdicts) == []
        assert len(read) == count


class TestErrors:
    """What cannot be judged."""

    def test_in_its_place(self, guard: Guard) -> None:
        """A bad response raises where its verdict would come; the others are all judged."""
        bad: Any = None
        responses = [bad if number % 3 == 1 else f"number {number}" for number in range(12)]
        verdicts = guard.check_many(responses, workers=2)
        got: list[str | None] = []
        for number in range(12):
            if number % 3 == 1:
                with pytest.raises(InputError, match="`response` must be `str`"):
                    next(verdicts)
            else:
                got.append(next(verdicts).text)
        with pytest.raises(StopIteration):
            next(verdicts)
        assert got == [f"number {number}" for number in range(12) if number % 3 != 1]

    def test_of_the_source(self, guard: Guard) -> None:
        """A source that raises does so behind the verdicts of what it gave before."""

        def source() -> Iterator[str]:
            yield from (f"number {number}" for number in range(3))
            raise OSError("the disk is gone")

        verdicts = guard.check_many(source(), workers=4)
        assert [next(verdicts).text for _ in range(3)] == [f"number {n}" for n in range(3)]
        with pytest.raises(OSError, match="the disk is gone"):
            next(verdicts)
        assert list(verdicts) == []
