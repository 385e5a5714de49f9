"""Logistic regression with an L2 penalty by Newton's method, and what is measured on its scores.

Small on purpose: some thousand rows, some hundred columns, numpy alone.

This module does not know what a row or a column is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Booleans = NDArray[np.bool_]

_STEPS: Final = 60
_HALVINGS: Final = 30
_SMALL: Final = 1e-8
"""Newton's decrement below which the optimum is reached, in units of the loss."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear score: `x @ weights + intercept`."""

    weights: Floats
    intercept: float

    def scores(self, x: Floats) -> Floats:
        """Return the log-odds of each row of `x`."""
        return np.asarray(x @ self.weights + self.intercept, float)


def regression(
    x: Floats, truth: Booleans, shares: Floats, penalty: float, start: Linear | None = None
) -> Linear:
    """Return the line with the least `sum(shares * log loss) + penalty / 2 * |weights|^2`.

    Args:
        x: features, shape (rows, columns).
        truth: which rows are positive.
        shares: what each row counts, at least 0.
        penalty: above 0, so that separable rows have an optimum, too. The intercept is free.
        start: a line near the optimum.
    """
    wide = np.hstack([x, np.ones((len(x), 1))])
    ridge = np.append(np.full(x.shape[1], penalty), 1e-9)
    line = np.zeros(wide.shape[1])
    if start is not None:
        line = np.append(start.weights, start.intercept)
    loss = _loss(wide, truth, shares, ridge, line)
    for _ in range(_STEPS):
        chance = _sigmoid(wide @ line)
        slope = wide.T @ (shares * (chance - truth)) + ridge * line
        bend = (wide * (shares * chance * (1 - chance))[:, None]).T @ wide
        bend[np.diag_indices_from(bend)] += ridge
        step = np.asarray(np.linalg.solve(bend, slope), float)
        line, less = _descend(wide, truth, shares, ridge, line, step, loss)
        done = loss - less < _SMALL * max(1.0, abs(less))
        loss = less
        if done:
            break
    return Linear(line[:-1], float(line[-1]))


def _descend(  # noqa: PLR0913, PLR0917  # one step of one loop
    wide: Floats,
    truth: Booleans,
    shares: Floats,
    ridge: Floats,
    line: Floats,
    step: Floats,
    loss: float,
) -> tuple[Floats, float]:
    """Go along the step, halved until the loss falls."""
    size = 1.0
    for _ in range(_HALVINGS):
        ahead = line - size * step
        less = _loss(wide, truth, shares, ridge, ahead)
        if less < loss:
            return ahead, less
        size /= 2
    return line, loss


def _loss(wide: Floats, truth: Booleans, shares: Floats, ridge: Floats, line: Floats) -> float:
    return log_loss(wide @ line, truth, shares) + float(ridge @ line**2) / 2


def log_loss(scores: Floats, truth: Booleans, shares: Floats) -> float:
    """Return the weighted log loss of log-odds."""
    return float(shares @ np.logaddexp(0.0, np.where(truth, -scores, scores)))


def _sigmoid(odds: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(odds / 2)), float)
