"""Obfuscation: every kind changes text without breaking it, and the same way under a seed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.text.normalise import normalise
from guard.training.obfuscate import HELD_OUT, TRAINED, obfuscated

KINDS = {**TRAINED, **HELD_OUT}
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


@pytest.mark.parametrize("kind", ["zero_width", "full_width", "look_alikes", "leet"])
def test_normalisation_undoes_what_it_claims(kind: str) -> None:
    """What hides characters alone is read as it was before a model sees it."""
    hidden = TRAINED[kind](TEXT.lower(), random.Random(1))
    read = normalise(hidden, deobfuscate=True).text
    same = sum(a == b for a, b in zip(read.split(), TEXT.lower().split(), strict=True))
    assert same >= 0.8 * len(TEXT.split())


def test_no_kind_is_trained_and_held_out() -> None:
    """What measures unknown tricks was never seen in training."""
    assert not set(TRAINED) & set(HELD_OUT)
    assert len(TRAINED) >= 8
    assert len(HELD_OUT) >= 4


def test_training_draws_every_trained_kind_and_no_other() -> None:
    """Over many draws the kinds that draw nothing themselves all occur, and none held out."""
    rng = random.Random(1)
    found = {obfuscated(TEXT, random.Random(seed)) for seed in range(200)}
    assert {TRAINED[kind](TEXT, rng) for kind in ("leet", "zero_width", "full_width")} <= found
    assert HELD_OUT["underscores"](TEXT, rng) not in found
