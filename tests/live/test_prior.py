"""The live prior: its bounds, its monotony, what an attacker can and cannot do to it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.assess import live_risk, log_odds
from guard.live import LiveSettings
from guard.live.ledger import MICRO, State
from guard.live.prior import Priors, bounds, priors_of

EVIDENCE = st.floats(allow_nan=True, allow_infinity=True)
SETTINGS = st.builds(
    LiveSettings,
    rise=st.floats(0, 4),
    fall=st.floats(0, 2),
    strength=st.floats(0.1, 500),
    half_life=st.floats(0.5, 5000),
    conversation_strength=st.floats(0.1, 50),
    conversation_half_life=st.floats(0.5, 50),
)


def after(
    settings: LiveSettings, start: float, evidence: list[float], conversation: str | None = None
) -> Priors:
    """Return the priors of one category behind its evidence."""
    priors = Priors({"harm": start}, settings)
    for value in evidence:
        priors.update({"harm": value}, conversation)
    return priors


class TestBounds:
    """Within `start - fall` and `start + rise`, whatever comes."""

    @given(SETTINGS, st.floats(0.001, 0.5), st.lists(EVIDENCE, max_size=40))
    def test_hold_for_any_evidence(
        self, settings: LiveSettings, start: float, evidence: list[float]
    ) -> None:
        """Neither the deployment's nor a conversation's prior ever leaves them."""
        priors = after(settings, start, evidence, "c")

        for conversation in (None, "c", "another"):
            odds = log_odds(priors.within(conversation)["harm"])
            assert -settings.fall - 1e-9 <= odds - log_odds(start) <= settings.rise + 1e-9

    @given(st.floats(0.001, 0.3), st.floats(0, 2))
    def test_are_what_the_settings_say(self, start: float, fall: float) -> None:
        """The lowest prior lies `fall` nats below the start."""
        low, high = bounds(start, LiveSettings(fall=fall, rise=1.0))

        assert log_odds(start) - log_odds(low) == pytest.approx(fall, abs=1e-9)
        assert log_odds(high) - log_odds(start) == pytest.approx(1.0, abs=1e-9)


class TestMonotony:
    """More suspicious evidence never lowers a prior."""

    @given(
        SETTINGS,
        st.floats(0.001, 0.5),
        st.lists(st.floats(-12, 12), min_size=1, max_size=30),
        st.data(),
    )
    def test_holds_from_then_on(
        self, settings: LiveSettings, start: float, evidence: list[float], data: st.DataObject
    ) -> None:
        """Raising one exchange's evidence lowers nothing, then or later, anywhere."""
        place = data.draw(st.integers(0, len(evidence) - 1))
        worse = list(evidence)
        worse[place] += data.draw(st.floats(0, 10))
        one = Priors({"harm": start}, settings)
        other = Priors({"harm": start}, settings)

        for mild, grave in zip(evidence, worse, strict=True):
            one.update({"harm": mild}, "c")
            other.update({"harm": grave}, "c")
            for conversation in (None, "c"):
                mildly, gravely = one.within(conversation), other.within(conversation)
                assert gravely["harm"] >= mildly["harm"] - 1e-12

    def test_what_is_no_number_counts_as_the_worst(self) -> None:
        """NaN moves the prior as the strongest evidence does."""
        settings = LiveSettings()

        unknown, worst = (after(settings, 0.02, [value]) for value in (math.nan, math.inf))
        assert unknown.rates == worst.rates
        assert unknown.rates[0] > 0.02


class TestTalkDown:
    """An attacker sends benign traffic, then what he is after."""

    def test_gains_no_more_than_the_bound(self) -> None:
        """However much he sends, evidence counts for at most `fall` nats less."""
        settings = LiveSettings(fall=0.5)
        priors = after(settings, 0.02, [-8.0] * 30_000, "attack")

        talked_down = priors.within("attack")["harm"]
        assert live_risk(3.0, talked_down) >= live_risk(3.0 - 0.5, 0.02) - 1e-9

    def test_costs_more_the_stronger_the_start(self) -> None:
        """Reaching the bound takes about as many exchanges as the start counts for."""
        low, _ = bounds(0.02, LiveSettings())

        def needed(strength: float) -> int:
            priors = Priors({"harm": 0.02}, LiveSettings(strength=strength))
            for number in range(10_000):
                if priors.rates[0] <= low:
                    return number
                priors.update({"harm": -8.0}, None)
            return 10_000

        assert 50 < needed(100) < needed(200) < needed(400)

    def test_is_undone_at_once(self) -> None:
        """At the bound nothing is stored up: the first risky answers lift the prior again."""
        priors = after(LiveSettings(), 0.02, [-8.0] * 30_000)
        before = priors.rates[0]

        for _ in range(100):
            priors.update({"harm": 6.0}, None)

        assert priors.rates[0] > before * 1.5


class TestBound:
    """How a prior that traffic has held at a bound leaves it; docs/live.md says so."""

    def test_is_left_slowly(self) -> None:
        """The mass that is there must come or go first."""
        low, high = bounds(0.02, LiveSettings())
        priors = after(LiveSettings(), 0.02, [-3.0] * 20_000)
        rising = 0
        while priors.rates[0] <= low:
            priors.update({"harm": 6.0}, None)
            rising += 1

        priors = after(LiveSettings(), 0.02, [-3.0] * 2000 + [6.0] * 500)
        falling, raised = 0, 0
        while priors.rates[0] > 0.02:
            priors.update({"harm": -3.0}, None)
            falling += priors.rates[0] >= high
            raised += 1
        assert rising == 39
        assert falling == pytest.approx(360, abs=10)
        assert raised == pytest.approx(6400, abs=50)


class TestEstimate:
    """What the prior settles at."""

    @pytest.mark.parametrize("rate", [0.01, 0.05, 0.15])
    def test_is_the_rate_of_risky_answers(self, rate: float) -> None:
        """With calibrated evidence and a weak start it finds the true rate."""
        rng = random.Random(5)
        settings = LiveSettings(
            rise=5, fall=5, strength=1.0, half_life=3_000.0, evidence_bound=20.0
        )
        priors = Priors({"harm": 0.02}, settings)
        for _ in range(15_000):
            # Of two normal scores at distance 3 the log likelihood ratio is known.
            score = rng.gauss(3.0, 1.0) if rng.random() < rate else rng.gauss(0.0, 1.0)
            priors.update({"harm": 3.0 * score - 4.5}, None)

        assert priors.rates[0] == pytest.approx(rate, rel=0.35)

    def test_stays_where_nothing_is_found(self) -> None:
        """A category that is never found keeps the prior it began with."""
        priors = Priors({"harm": 0.02}, LiveSettings())
        for _ in range(1000):
            priors.update({}, "c")

        assert priors.rates[0] == pytest.approx(0.02)
        assert priors.within("c")["harm"] == pytest.approx(0.02)

    def test_forgets(self) -> None:
        """Long after the last risky answer the prior is back at where benign traffic holds it."""
        risky = [6.0] * 50
        priors = after(LiveSettings(half_life=100.0), 0.02, risky + [-8.0] * 3000)

        quiet = after(LiveSettings(half_life=100.0), 0.02, [-8.0] * 3050)
        assert priors.rates[0] == pytest.approx(quiet.rates[0], rel=1e-3)


class TestConversations:
    """The second level."""

    def test_move_more_than_the_deployment(self) -> None:
        """A risky conversation raises its own prior most, and others' hardly."""
        priors = after(LiveSettings(), 0.02, [5.0, 5.0, 5.0], "bad")

        own, other = priors.within("bad")["harm"], priors.within("good")["harm"]
        assert own > 3 * other
        assert 0.02 < other < 0.04

    def test_that_were_silent_longest_are_forgotten(self) -> None:
        """No more are remembered than the settings say."""
        priors = Priors({"harm": 0.02}, LiveSettings(conversations=2))
        for name in ("a", "b", "a", "c"):
            priors.update({"harm": 5.0}, name)

        assert priors.within("b") == priors.within(None)
        assert priors.within("a")["harm"] > priors.within(None)["harm"]


class TestStore:
    """What a store holds."""

    def test_gives_the_same_priors(self) -> None:
        """Masses in millionths give back the priors, to their precision."""
        settings = LiveSettings()
        priors = Priors({"harm": 0.02}, settings)
        mass = 0.0
        for number in range(500):
            (chance,) = priors.update({"harm": 3.0 if number % 20 == 0 else -4.0}, None)
            mass = mass * priors.decay + chance

        state = State(500, {"harm": round(mass * MICRO)})
        assert priors_of(state, {"harm": 0.02}, settings)["harm"] == pytest.approx(
            priors.rates[0], rel=1e-6
        )
