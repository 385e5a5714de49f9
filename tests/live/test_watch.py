"""Both tests together: false alarms, power, and the choice of a threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guard.live import LiveSettings, Operating, choose
from guard.live.replay import NEVER, first_alarms, first_alarms_at, times_of
from guard.live.watch import Watch, divergence, watch, watches

ALPHA, HORIZON = 0.02, 3000


def sharp_watch() -> Watch:
    """Return the watch of a detector that validation knows well."""
    found = watch(Operating(4.0, 900, 1000, 100, 20_000), 0.002, ALPHA, HORIZON)
    assert found is not None
    return found


def lives(rate: float, count: int, length: int, seed: int = 0) -> np.ndarray:
    """Return exceedances at `rate`."""
    return np.random.default_rng(seed).random((count, length)) < rate


class TestFalseAlarms:
    """While all is well."""

    @pytest.mark.parametrize("dependent", [False, True])
    def test_are_as_rare_as_promised(self, *, dependent: bool) -> None:
        """At the highest tolerated rate, steady or in bursts, at most alpha of lives has one."""
        found = sharp_watch()
        rate = found.operating.exceedance_rate(0.002)
        exceeds = lives(rate, 1500, HORIZON)
        if dependent:
            # Never above the rate, and half the time far below it, as the past decides.
            quiet = np.cumsum(exceeds, axis=1) % 2 == 1
            exceeds &= ~np.roll(quiet, 1, axis=1)

        alarms = first_alarms_at(found, times_of(exceeds)).either != NEVER
        # Three standard deviations above what was promised.
        assert alarms.mean() <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / len(alarms))

    def test_allow_for_what_validation_did_not_see(self) -> None:
        """With validation's own luck drawn anew each time, they are as rare."""
        rng = np.random.default_rng(1)
        false_rate, rows, alarms = 0.004, 1500, 0
        for number in range(120):
            seen = int(rng.binomial(rows, false_rate))
            found = watch(Operating(4.0, 90, 100, seen, rows), 0.002, 0.1, 1000)
            assert found is not None
            exceeds = lives(false_rate + 0.002 * (0.9 - false_rate), 1, 1000, number)
            alarms += first_alarms_at(found, times_of(exceeds)).either[0] != NEVER

        assert alarms <= 120 * 0.1 + 3 * math.sqrt(120 * 0.1 * 0.9)


class TestPower:
    """When all is not well."""

    @pytest.mark.parametrize("drift", [0.02, 0.05, 0.2])
    def test_drift_is_seen_in_about_the_time_that_is_told(self, drift: float) -> None:
        """`delay` is within a factor of two of the median."""
        found = sharp_watch()
        exceeds = lives(found.operating.exceedance_rate(drift), 200, 4000, seed=2)

        median = float(np.median(first_alarms_at(found, times_of(exceeds)).change))
        assert found.delay(drift) / 2 < median < found.delay(drift) * 2

    def test_drift_that_walks_reach_by_chance_alone_is_told_as_well(self) -> None:
        """Where exceedances are less than twice as frequent as they may be, the time is right."""
        found = watch(Operating(4.0, 201, 372, 4, 4892), 0.002, 0.01 / 13, 10_000)
        assert found is not None
        rate = found.operating.exceedance_rate(0.02)
        exceeds = lives(rate, 100, 20_000, seed=3)

        assert rate < 1.8 * found.null_rate
        median = float(np.median(first_alarms_at(found, times_of(exceeds)).change))
        assert found.delay(0.02) / 2 < median < found.delay(0.02) * 2

    def test_what_is_tolerated_is_never_seen(self) -> None:
        """The time to see a tolerated rate is endless."""
        assert sharp_watch().delay(0.002) == math.inf

    def test_more_validation_rows_see_more(self) -> None:
        """At the same rates, more rows never make it slower."""
        delays = []
        for rows in (2_000, 20_000, 2_000_000):
            found = watch(
                Operating(4.0, rows * 9 // 10, rows, rows // 500, rows), 0.001, 0.01, 10_000
            )
            assert found is not None
            delays.append(found.delay(0.05))

        assert delays == sorted(delays, reverse=True)
        assert delays[-1] < 200


class TestReplay:
    """Recorded evidence."""

    def test_counts_what_is_no_number(self) -> None:
        """NaN is an exceedance, as in `observe`."""
        evidence = np.full((2, 50), -3.0)
        evidence[0, :20] = np.nan

        alarms = first_alarms(sharp_watch(), evidence).either
        assert alarms[0] < 20
        assert alarms[1] == NEVER

    def test_of_nothing_is_nothing(self) -> None:
        """Recordings without an exceedance have no alarm."""
        assert (first_alarms(sharp_watch(), np.full((3, 9), -1.0)).either == NEVER).all()


class TestChoice:
    """A threshold for each category."""

    FEW = Operating(1.0, 95, 100, 60, 2000)
    FAIR = Operating(3.0, 80, 100, 6, 2000)
    STRICT = Operating(6.0, 4, 100, 0, 2000)

    def test_falls_on_what_sees_drift_soonest(self) -> None:
        """Neither the most sensitive nor the most silent threshold is the best."""
        assert choose([self.FEW, self.FAIR, self.STRICT], LiveSettings()) == self.FAIR

    def test_falls_on_larger_drift_where_rows_are_few(self) -> None:
        """A threshold that sees one answer in ten is better than none."""
        few = Operating(2.0, 8, 10, 4, 150)
        found = choose([few], LiveSettings())

        assert found == few
        made = watch(few, 0.001, 0.01, 10_000)
        assert made is not None
        assert made.delay(0.02) == math.inf
        assert made.delay(0.5) < math.inf

    def test_is_none_where_nothing_can_be_seen(self) -> None:
        """A handful of rows, or a threshold that nothing reaches, is no use."""
        assert choose([Operating(2.0, 1, 2, 1, 2)], LiveSettings()) is None
        assert choose([Operating(9.0, 0, 100, 0, 2000)], LiveSettings()) is None
        assert choose([], LiveSettings()) is None

    def test_the_chance_of_a_false_alarm_is_shared(self) -> None:
        """The more categories are watched, the more evidence each one needs."""
        one = watches({"a": self.FAIR}, LiveSettings())
        four = watches(dict.fromkeys("abcd", self.FAIR), LiveSettings())

        assert four["a"].wealth.needed == pytest.approx(one["a"].wealth.needed + math.log(4))


def test_divergence_is_that_of_the_counts() -> None:
    """It is 0 for equal rates, and what the definition says otherwise."""
    assert divergence(0.02, 0.02) == pytest.approx(0.0)
    assert divergence(0.5, 0.25) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert divergence(1.0, 0.1) == pytest.approx(math.log(10))
    assert divergence(0.0, 0.1) == pytest.approx(-math.log(0.9))
