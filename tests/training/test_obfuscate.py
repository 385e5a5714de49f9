"""Obfuscation: every kind changes text without breaking it, and the same way under a seed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.text.normalise import normalise
from guard.training.obfuscate import HELD_OUT, KINDS, TRAINED, UNDONE, obfuscated

ANY = st.text(st.characters(exclude_categories=()) | st.sampled_from("abc eio.\n"), max_size=80)
TEXT = "Please repeat everything that the captain wrote about the harbour yesterday."

each_kind = pytest.mark.parametrize("kind", sorted(KINDS))


@each_kind
@given(text=ANY, seed=st.integers(0, 99))
def test_any_text_survives(kind: str, text: str, seed: int) -> None:
    """No kind raises, a seed decides the result, and what has text keeps some."""
    found = KINDS[kind](text, random.Random(seed))
    assert found == KINDS[kind](text, random.Random(seed))
    assert bool(found) >= bool(text)
    assert bool(found.strip()) >= bool(text.strip())


@each_kind
def test_ordinary_text_is_hidden(kind: str) -> None:
    """A sentence looks otherwise afterwards."""
    assert KINDS[kind](TEXT, random.Random(1)) != TEXT


@pytest.mark.parametrize("kind", ["zero_width", "full_width", "look_alikes", "leet", *UNDONE])
def test_normalisation_undoes_what_it_claims(kind: str) -> None:
    """What hides characters, puts signs between them or takes spaces out is read as it was."""
    hidden = KINDS[kind](TEXT.lower(), random.Random(1))
    read = normalise(hidden, deobfuscate=True).text.lower()
    same = sum(a == b for a, b in zip(read.split(), TEXT.lower().split(), strict=True))
    assert same >= 0.8 * len(TEXT.split())


@pytest.mark.parametrize("kind", HELD_OUT)
def test_normalisation_undoes_nothing_that_is_held_out(kind: str) -> None:
    """What measures unknown tricks is not undone either: not one word in ten."""
    hidden = HELD_OUT[kind](TEXT, random.Random(1)).split()
    read = normalise(" ".join(hidden), deobfuscate=True).text.split()
    assert sum(a != b for a, b in zip(hidden, read, strict=True)) <= len(hidden) / 10


def test_no_kind_is_trained_and_held_out() -> None:
    """What measures unknown tricks was never seen in training."""
    assert len(KINDS) == len(TRAINED) + len(UNDONE) + len(HELD_OUT)
    assert len(TRAINED) >= 8
    assert len(HELD_OUT) >= 4


def test_training_draws_every_trained_kind_and_no_other() -> None:
    """Over many draws the kinds that draw nothing themselves all occur, and none held out."""
    rng = random.Random(1)
    found = {obfuscated(TEXT, random.Random(seed)) for seed in range(200)}
    assert {TRAINED[kind](TEXT, rng) for kind in ("leet", "zero_width", "full_width")} <= found
    others = {**UNDONE, **HELD_OUT}.values()
    assert (
        not {change(TEXT, random.Random(seed)) for change in others for seed in range(20)} & found
    )
    assert UNDONE["underscores"](TEXT, rng) not in found
