"""Deploy limits: which classes a profile reaches, and what it lacks for the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.audit.deploy import Unmet, highest_class, limits_digest, reaches, unmet
from guard.audit.figures import AMPLIFICATION, OVER_REFUSAL, PERSONA_RATE, SHORTCUT_RATE
from guard.audit.profile import Effect, Profile, Rate
from guard.security_class import EFFECTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.security_class import SecurityClass

    Make = Callable[..., SecurityClass]

PROFILE = Profile.read(Path(__file__).parent.parent / "data" / "risk_profile.json")


def with_rate(name: str = "violence", **values: Any) -> Profile:
    """Return the profile with one more category, `values` about it."""
    plain = {"rate": 0.0, "lower": 0.0, "upper": 0.02, "level": 0.95, "n": 200, "flagged": 0}
    rate = Rate(method="test", answers=500, **(plain | values))
    return PROFILE.model_copy(update={"categories": {**PROFILE.categories, name: rate}})


@pytest.fixture
def asking(make_class: Make) -> Make:
    """Return the maker of classes with deploy limits."""

    def make(rates: dict[str, float] | None = None, **values: Any) -> SecurityClass:
        own = {key: values.pop(key) for key in ("tag", "effects", "samples") if key in values}
        return make_class(deploy={"rates": rates or {}, **own}, **values)

    return make


class TestUnmet:
    """Figure beside limit."""

    def test_nothing_is_asked(self, make_class: Make) -> None:
        """A class without deploy limits has none that could be missed."""
        assert unmet(PROFILE, make_class()) == unmet(None, make_class()) == ()

    def test_the_upper_bound_counts(self, asking: Make) -> None:
        """The bound may reach its limit and no more; the estimate does not count."""
        assert unmet(PROFILE, asking({"harmful_compliance": 0.031})) == ()
        assert unmet(PROFILE, asking({"harmful_compliance": 0.03})) == (
            Unmet("rate", "harmful_compliance", 0.031, 0.03),
        )

    def test_mechanisms_and_effects(self, asking: Make) -> None:
        """A mechanism's rate and an effect are limited like a category."""
        own = asking({"shortcut": 0.04}, effects={"style_amplification": 0.05, "over_refusal": 0.1})
        assert unmet(PROFILE, own) == (
            Unmet("rate", "shortcut", 0.042, 0.04),
            Unmet("effect", "style_amplification", 0.08, 0.05),
        )

    def test_a_policy_may_limit_every_effect_that_there_is(self) -> None:
        """The names that a policy file takes are those of the figures."""
        assert {*EFFECTS} == {AMPLIFICATION, OVER_REFUSAL, PERSONA_RATE, SHORTCUT_RATE}

    def test_a_name_of_both(self, asking: Make) -> None:
        """`exposure` is a category (0.0125) and a mechanism (0.019): the limit is for both."""
        assert unmet(PROFILE, asking({"exposure": 0.02})) == ()
        assert unmet(PROFILE, asking({"exposure": 0.015})) == (
            Unmet("rate", "exposure", 0.019, 0.015),
        )
        assert len(unmet(PROFILE, asking({"exposure": 0.01}))) == 2

    def test_a_missing_figure(self, asking: Make) -> None:
        """What was not audited is not met, whatever its limit is."""
        own = asking({"violence": 1.0}, effects={"persona_shift": 1.0})
        assert [str(item) for item in unmet(PROFILE, own)] == [
            "violence: not audited; the limit is 1",
            "persona_shift: not audited; the limit is 1",
        ]

    def test_nothing_was_shown(self, asking: Make) -> None:
        """Without a profile each limit is unmet."""
        own = asking({"violence": 0.1, "shortcut": 0.2}, effects={"over_refusal": 0.3})
        assert [item.name for item in unmet(None, own)] == ["violence", "shortcut", "over_refusal"]

    def test_too_few_answers(self, asking: Make) -> None:
        """A rate of fewer answers than the class asks for is not met, however low it is."""
        own = asking({"violence": 0.05}, samples=200)
        assert unmet(with_rate(n=200), own) == ()
        assert [str(item) for item in unmet(with_rate(n=199), own)] == [
            "violence: 199 answers, fewer than 200"
        ]

    def test_a_low_level(self, asking: Make) -> None:
        """Bounds that hold in 90 % of audits only are too narrow to count."""
        own = asking({"violence": 0.05})
        assert unmet(with_rate(level=0.99), own) == ()
        assert [str(item) for item in unmet(with_rate(level=0.9), own)] == [
            "violence: bounds of level 0.9, lower than 0.95"
        ]

    def test_an_effect_s_level(self, asking: Make) -> None:
        """It counts for effects, too."""
        effect = Effect(estimate=0, lower=0, upper=0, level=0.5, n=9, method="test")
        profile = PROFILE.model_copy(update={"effects": {"persona_shift": effect}})
        assert unmet(profile, asking(effects={"persona_shift": 0.0})) == (
            Unmet("level", "persona_shift", 0.5, 0.95),
        )

    def test_everything_is_named(self, asking: Make) -> None:
        """One rate may miss its limit in three ways."""
        own = asking({"violence": 0.05})
        found = unmet(with_rate(upper=0.9, n=10, level=0.5), own)
        assert [item.kind for item in found] == ["rate", "level", "samples"]

    @pytest.mark.parametrize(
        ("upper", "limit", "shown"),
        [
            (0.031, 0.03, "upper bound 0.0310 is above the limit 0.03"),
            (0.0300000001, 0.03, "upper bound 0.0300000001 is above the limit 0.03"),
            (1.0, 0.5, "upper bound 1.0000 is above the limit 0.5"),
        ],
    )
    def test_figures_are_never_rounded_into_the_limit(
        self, upper: float, limit: float, shown: str
    ) -> None:
        """A bound just above its limit is shown as such."""
        assert str(Unmet("rate", "violence", upper, limit)) == f"violence: {shown}"


class TestHighest:
    """The ladder of classes."""

    @pytest.fixture
    def ladder(self, asking: Make, make_class: Make) -> list[SecurityClass]:
        """Return four classes, the first of which asks for nothing."""
        return [
            make_class(name="research", rank=1),
            asking({"harmful_compliance": 0.2}, name="internal", rank=2),
            asking({"harmful_compliance": 0.05, "exposure": 0.02}, name="public", rank=3),
            asking({"harmful_compliance": 0.01}, name="regulated", rank=4),
        ]

    @pytest.mark.parametrize(
        ("upper", "name"),
        [(0.005, "regulated"), (0.03, "public"), (0.1, "internal"), (0.3, None)],
    )
    def test_the_better_the_higher(
        self, upper: float, name: str | None, ladder: list[SecurityClass]
    ) -> None:
        """A lower bound reaches a higher class; the worst reach none that asks for anything."""
        found = highest_class(with_rate("harmful_compliance", upper=upper), ladder)
        assert (found.name if found else None) == name

    def test_every_class_below_must_be_met(self, asking: Make, ladder: list[SecurityClass]) -> None:
        """A lower class that asks for something else is in the way of all above it."""
        profile = with_rate("harmful_compliance", upper=0.005)
        barrier = asking({"insecure_code": 0.5}, name="coding", rank=3)
        assert highest_class(profile, [*ladder, barrier]) == ladder[2]
        assert not reaches(profile, ladder[3], [*ladder, barrier])
        assert reaches(profile, ladder[3], ladder)

    def test_a_class_that_asks_for_nothing_is_not_reached(self, make_class: Make) -> None:
        """Nothing was shown for it, so that no tag could say anything."""
        assert highest_class(PROFILE, [make_class(rank=1000)]) is None
        assert highest_class(PROFILE, []) is None

    def test_of_equals_the_first(self, asking: Make) -> None:
        """The order decides between classes of one rank."""
        one, two = asking(name="one", rank=3), asking(name="two", rank=3)
        assert highest_class(PROFILE, [two, one]) == two

    @given(one=st.floats(0, 1), other=st.floats(0, 1), limits=st.lists(st.floats(0, 1), max_size=4))
    def test_a_better_profile_reaches_no_less(
        self, one: float, other: float, limits: list[float], make_class: Make
    ) -> None:
        """Lower bounds never lead to a lower class."""
        classes = [
            make_class(name=f"c{rank}", rank=rank, deploy={"rates": {"violence": limit}})
            for rank, limit in enumerate(limits)
        ]
        ranks = [
            found.rank if (found := highest_class(with_rate(upper=upper), classes)) else -1
            for upper in sorted((one, other))
        ]
        assert ranks[0] >= ranks[1]


class TestDigest:
    """What a tag remembers of a class's limits."""

    def test_each_limit_changes_it(self, asking: Make) -> None:
        """Rates, effects and samples count; what the class does at runtime does not."""
        plain = asking({"violence": 0.1}, effects={"over_refusal": 0.2}, samples=50)
        others = [
            asking({"violence": 0.2}, effects={"over_refusal": 0.2}, samples=50),
            asking({"sexual": 0.1}, effects={"over_refusal": 0.2}, samples=50),
            asking({"violence": 0.1}, effects={"over_refusal": 0.3}, samples=50),
            asking({"violence": 0.1}, effects={"over_refusal": 0.2}, samples=51),
        ]
        assert len({limits_digest(item) for item in (plain, *others)}) == 5
        same = asking(
            {"violence": 0.1},
            effects={"over_refusal": 0.2},
            samples=50,
            tag="required",
            rank=9,
            shadow=True,
        )
        assert limits_digest(same) == limits_digest(plain)
