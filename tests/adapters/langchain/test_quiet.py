"""Errors that quote an answer, wherever in them it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")

from langchain_core.language_models import FakeListChatModel

from guard.adapters.langchain_quiet import masked
from guard.errors import InputError
from tests.adapters.langchain.subjects import PROMPT, Ear, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard

RAW = "They zblock."


def read(*_: Any) -> None:
    """Fail to read an answer, and quote it."""
    raise ValueError(f"no JSON: {RAW}")


def from_cause() -> None:
    """Fail from an error that quotes an answer."""
    try:
        read()
    except ValueError as error:
        raise RuntimeError("the answer could not be read") from error


def in_context() -> None:
    """Fail while an error that quotes an answer is handled."""
    try:
        read()
    except ValueError:
        raise RuntimeError("the answer could not be read") from None


def in_group() -> None:
    """Fail in several ways, one of which quotes an answer."""
    raise ExceptionGroup("two errors", [OSError("x"), ExceptionGroup("y", [ValueError(RAW)])])


def far_behind() -> None:
    """Fail from an error that was raised from another."""
    try:
        from_cause()
    except RuntimeError as error:
        raise OSError("down") from error


def behind_a_refusal() -> None:
    """Fail as for a status, from an error that quotes an answer."""
    refusal: Any = RuntimeError("status 400")
    refusal.response = type("Response", (), {"status_code": 400})()
    try:
        read()
    except ValueError as error:
        raise refusal from error


@pytest.mark.parametrize("fail", [from_cause, in_context, in_group, far_behind, behind_a_refusal])
def test_what_is_behind_an_error_is_judged(fail: Callable[[], None], guard: Guard) -> None:
    """Nothing of it is left behind the error that stands for it."""

    class Failing(FakeListChatModel):
        def _generate(self, *_: Any, **__: Any) -> Any:
            fail()

    ear, recorder = Ear(), Recorder()
    with pytest.raises(InputError, match="could not be read") as caught:
        guard.wrap(Failing(responses=[""])).invoke(PROMPT, {"callbacks": [ear, recorder]})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "zblock" not in repr([ear.heard, recorder.heard])


def test_a_harmless_chain_stands(guard: Guard) -> None:
    """With all that is behind it, also where that goes in a ring."""
    first, second = ValueError("one"), RuntimeError("two")
    first.__context__ = second
    with pytest.raises(RuntimeError) as caught, masked(guard):
        raise second from first
    assert caught.value is second
    assert caught.value.__cause__ is first


def test_what_was_handled_before_is_not_the_answers(guard: Guard) -> None:
    """An error that the application is about to handle is its own."""
    try:
        read()
    except ValueError:
        with pytest.raises(OSError, match="down"), masked(guard):
            raise OSError("down")  # noqa: B904  # as a library would


def test_a_part_that_cannot_be_read(guard: Guard) -> None:
    """The rest of the error is judged, and what reading it raises is nobody's to see."""

    class Mute:
        def __str__(self) -> str:
            raise RuntimeError(RAW)

    with pytest.raises(InputError, match="could not be read") as caught, masked(guard):
        raise ValueError(RAW, Mute())
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
