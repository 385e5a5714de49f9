"""The test for change: the height that raises the alarm, against exact computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.live.operating import Null
from guard.live.walks import NEVER, _chances, _scale, walks


def exact_chance(rate: float, slope: int, horizon: int, height: int) -> float:
    """Return the chance to reach `height` within `horizon`, by following every height."""
    at = np.zeros(height)
    at[0], reached = 1.0, 0.0
    for _ in range(horizon):
        up, down = at * rate, at * (1 - rate)
        at = np.zeros(height)
        at[0] += down[0]
        at[:-1] += down[1:]
        at[slope:] += up[: height - slope]
        reached += up[height - slope :].sum()
    return float(reached)


class TestHeight:
    """The bound that thresholds come from."""

    @pytest.mark.parametrize(
        ("rate", "slope", "horizon"),
        [(0.02, 30, 2000), (0.1, 6, 500), (0.3, 2, 300), (0.005, 100, 5000), (0.05, 3, 400)],
    )
    def test_bounds_the_exact_chance(self, rate: float, slope: int, horizon: int) -> None:
        """The bound lies above the exact chance, and not by much where chances are small."""
        chances = _chances(rate, slope, horizon, 24)
        for height in (slope * 4, slope * 8):
            exact, bound = exact_chance(rate, slope, horizon, height), chances[height - slope - 1]
            assert exact <= bound + 1e-12
            if exact < 0.1:
                assert bound <= 3 * exact

    def test_scale_solves_the_walk(self) -> None:
        """From every height, the chance to fall to 0 first satisfies the walk's own equation."""
        rate, slope, top = 0.03, 25, 140
        scale = _scale(rate, slope, top)
        falls = [1.0, *(scale[top - h] / scale[top] for h in range(1, top))]

        for h in range(1, top):
            above = falls[h + slope] if h + slope < top else 0.0
            assert falls[h] == pytest.approx((1 - rate) * falls[h - 1] + rate * above, abs=1e-12)

    @given(st.floats(0.001, 0.2), st.sampled_from([0.05, 0.01, 0.0005]))
    def test_a_smaller_chance_needs_a_greater_height(self, rate: float, alpha: float) -> None:
        """Thresholds never fall as alpha shrinks or the horizon grows."""
        null = [Null(rate, 0.0)]
        base, safer, longer = (
            walks(null, alpha, 2000),
            walks(null, alpha / 10, 2000),
            walks(null, alpha, 20_000),
        )

        for one, other, third in zip(
            base.needed[0], safer.needed[0], longer.needed[0], strict=True
        ):
            assert one <= other
            assert one <= third


class TestAlarm:
    """When the walks are enough."""

    def test_every_null_must_fall(self) -> None:
        """One null that no walk rules out keeps the alarm off."""
        found = walks([Null(0.002, -0.5), Null(0.01, 1.0)], 0.001, 10_000)
        high = [NEVER - 1] * len(found.slopes)
        first = [row if row < NEVER else 0 for row in found.needed[0]]

        assert found.reached(high)
        assert not found.reached([0] * len(found.slopes))
        assert found.reached(first) == all(
            any(peak >= height for peak, height in zip(first, row, strict=True))
            for row in found.needed
        )

    def test_nearness_is_one_at_the_alarm(self) -> None:
        """It reaches 1 exactly where the walks stand high enough."""
        found = walks([Null(0.002, 0.0)], 0.001, 10_000)
        number, height = min(enumerate(found.needed[0]), key=lambda each: each[1])
        heights = [0] * len(found.slopes)

        heights[number] = height
        assert found.nearness(heights, heights) == 1.0
        assert found.reached(heights)
        heights[number] = height - 1
        assert found.nearness(heights, heights) < 1.0
        assert not found.reached(heights)

    def test_nearness_forgets_nothing_that_was_ruled_out(self) -> None:
        """What peaks have ruled out stays so: nearness is 1 exactly where the alarm is."""
        found = walks([Null(0.002, 0.0), Null(0.004, 2.0)], 0.001, 10_000)
        at_rest = [0] * len(found.slopes)
        peaks = [max(row) if max(row) < NEVER else 0 for row in zip(*found.needed, strict=True)]

        assert found.reached(peaks)
        assert found.nearness(at_rest, peaks) == 1.0
        assert found.nearness(at_rest, at_rest) == 0.0

    def test_delay_is_endless_within_what_is_tolerated(self) -> None:
        """A rate that the nulls allow raises no walk."""
        found = walks([Null(0.002, 0.0)], 0.001, 10_000)

        assert found.delay(0.002) == float("inf")
        assert found.delay(0.2) < found.delay(0.05) < found.delay(0.01) < 10_000
