"""The benign sample: which rows it is made of."""

from __future__ import annotations

from guard.training.benign import _harmless, _sample


def test_only_harmless_rows() -> None:
    """Every row is labelled, and with nothing but zeros."""
    rows = _sample(100)
    assert len(rows) == 100
    assert all(_harmless(row) and row["response"].strip() for row in rows)


def test_the_same_rows_each_time() -> None:
    """The choice depends on what rows say, and a larger sample holds a smaller one's rows."""
    small, large = _sample(40), _sample(100)
    assert small == _sample(40)
    assert all(row in large for row in small)
