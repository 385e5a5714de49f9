"""The regression: an optimum, by definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from guard.fitting.logistic import Linear, log_loss, regression

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEEDS = st.integers(0, 10_000)


def data(seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return features, truth of both kinds, and shares that add up to 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 5)) * rng.uniform(0.1, 30)
    truth = x[:, 0] + rng.normal(size=40) * rng.uniform(0, 30) > 0
    truth[:2] = True, False
    shares = rng.uniform(0.1, 1, 40)
    return x, truth, shares / shares.sum()


def objective(
    line: Linear,
    given: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]],
    penalty: float,
) -> float:
    """Return what the regression minimises."""
    x, truth, shares = given
    length = float(line.weights @ line.weights)
    return log_loss(line.scores(x), truth, shares) + penalty / 2 * length


class TestRegression:
    """The line with the least loss."""

    @given(seed=SEEDS, penalty=st.floats(1e-4, 10))
    def test_no_neighbour_is_better(self, seed: int, penalty: float) -> None:
        """The problem is convex: where no step in any direction helps is the optimum."""
        given_data = data(seed)
        line = regression(*given_data, penalty)
        best = objective(line, given_data, penalty)
        rng = np.random.default_rng(seed)
        for _ in range(10):
            step = rng.normal(size=6) * 1e-2 / np.abs(given_data[0]).max()
            near = Linear(line.weights + step[:5], line.intercept + float(step[5]))
            assert objective(near, given_data, penalty) >= best - 1e-7

    @given(seed=SEEDS)
    def test_the_start_does_not_matter(self, seed: int) -> None:
        """From whatever line the search starts it ends at the same one."""
        x, truth, shares = data(seed)
        far = Linear(np.full(5, 3.0), -7.0)
        one, other = (regression(x, truth, shares, 0.1, start) for start in (None, far))
        assert np.allclose(one.scores(x), other.scores(x), atol=1e-2)

    def test_separable_rows_have_an_optimum(self) -> None:
        """The penalty keeps weights finite where a line separates the rows perfectly."""
        x = np.array([[-1.0], [1.0]])
        line = regression(x, np.array([False, True]), np.array([0.5, 0.5]), 0.01)
        assert 1 < line.weights[0] < 100
        assert abs(line.intercept) < 1e-6
