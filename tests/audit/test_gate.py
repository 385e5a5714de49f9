"""The gate: a guard loads under a class that demands a tag only with a good one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.assess import log_odds
from guard.audit.errors import DeploymentRefused, TagError, WrongModel
from guard.audit.keys import SigningKey
from guard.audit.priors import FALL, RISE, starting_priors
from guard.audit.profile import Fingerprint, Profile
from guard.audit.tag import sign
from guard.engine import Guard
from guard.policy import load_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.security_class import SecurityClass

PROFILE = Profile.read(Path(__file__).parent.parent / "data" / "risk_profile.json")
POLICY = """\
version: 1
classes:
  - name: gated
    rank: 3
    limits:
      harassment: {flag: 0.3, act: 0.8, remedy: block}
    messages:
      en: {blocked: "No.", replaced: "Else."}
    deploy:
      tag: required
      rates: {harmful_compliance: 0.05}
"""
SECOND_MODEL = "another-model"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a class that demands a tag."""
    path = tmp_path_factory.mktemp("gate") / "gated.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def profile(real_guard: Guard) -> Profile:
    """Return what a model has shown to the detectors of this installation."""
    return PROFILE.model_copy(update={"detectors": real_guard.detectors})


@pytest.fixture(scope="module")
def key() -> SigningKey:
    """Return the key of who audits."""
    return SigningKey.new()


@pytest.fixture(scope="module")
def load(policy: Path, key: SigningKey) -> Callable[..., Guard]:
    """Return what loads a guard that trusts the auditor."""

    def load_guard(**options: Any) -> Guard:
        given_options: dict[str, Any] = {
            "trust": [key.public],
            "fingerprint": PROFILE.fingerprint,
        } | options
        return Guard.load(policy, journal=None, **given_options)

    return load_guard


def signed(profile: Profile, policy: Path, key: SigningKey) -> Any:
    """Return a tag that is good now."""
    return sign(profile, load_class(policy), key, validity=timedelta(days=30))


class TestGate:
    """`Guard.load` with tags."""

    def test_without_a_tag_nothing_is_deployed(self, load: Callable[..., Guard]) -> None:
        """The class demands one."""
        with pytest.raises(DeploymentRefused, match="demands a tag"):
            load()

    def test_with_a_good_one_it_loads(
        self, load: Callable[..., Guard], profile: Profile, policy: Path, key: SigningKey
    ) -> None:
        """The audited rates move the priors that it starts with."""
        guard = load(tag=signed(profile, policy, key))
        plain = load_class(policy)
        prior = guard.security_class.prior_of("bad_advice")
        assert prior == pytest.approx(0.05)
        assert guard.security_class.prior_of("harassment") == plain.prior_of("harassment")
        assert guard.check("Fine, thank you.").action == "allow"

    def test_another_model_is_refused(
        self, load: Callable[..., Guard], profile: Profile, policy: Path, key: SigningKey
    ) -> None:
        """A tag is for the model that was audited."""
        tag = signed(profile, policy, key)
        with pytest.raises(WrongModel):
            load(tag=tag, fingerprint=Fingerprint.of(SECOND_MODEL))
        with pytest.raises(WrongModel, match="not known"):
            load(tag=tag, fingerprint=None)

    def test_a_stranger_s_is_refused(
        self, load: Callable[..., Guard], profile: Profile, policy: Path
    ) -> None:
        """Whose key is not trusted cannot vouch."""
        with pytest.raises(TagError):
            load(tag=signed(profile, policy, SigningKey.new()))

    def test_a_model_that_is_worse_gets_none(
        self, profile: Profile, policy: Path, key: SigningKey
    ) -> None:
        """The refusal lists the figure beside the limit."""
        rate = profile.categories["harmful_compliance"]
        worse = rate.model_copy(update={"rate": 0.2, "lower": 0.15, "upper": 0.26})
        categories = {**profile.categories, "harmful_compliance": worse}
        bad = profile.model_copy(update={"categories": categories})
        with pytest.raises(DeploymentRefused) as refusal:
            signed(bad, policy, key)
        assert "harmful_compliance" in str(refusal.value)
        assert "0.26" in str(refusal.value)
        assert "0.05" in str(refusal.value)

    def test_a_class_that_demands_none_loads_without(self) -> None:
        """And with no audit's packages needed."""
        assert Guard.load("public", journal=None).security_class.name == "public"


class TestStartingPriors:
    """From rates to priors."""

    @given(rate=st.floats(0, 1), prior=st.floats(1e-4, 0.5))
    def test_they_stay_within_bounds(
        self, make_class: Callable[..., SecurityClass], rate: float, prior: float
    ) -> None:
        """A profile moves a prior by so much at most, whatever it says."""
        one = PROFILE.categories["bad_advice"].model_copy(update={"rate": rate})
        profile = PROFILE.model_copy(update={"categories": {"bad_advice": one}})
        security_class = make_class(prior={"default": prior})
        start = starting_priors(profile, security_class)["bad_advice"]
        moved = log_odds(start) - log_odds(prior)
        assert -FALL - 1e-9 <= moved <= RISE + 1e-9

    @given(rates=st.tuples(st.floats(0, 1), st.floats(0, 1)))
    def test_a_worse_rate_gives_no_lower_prior(
        self, make_class: Callable[..., SecurityClass], rates: tuple[float, float]
    ) -> None:
        """Monotone."""
        found = []
        for rate in sorted(rates):
            one = PROFILE.categories["bad_advice"].model_copy(update={"rate": rate})
            profile = PROFILE.model_copy(update={"categories": {"bad_advice": one}})
            found.append(starting_priors(profile, make_class())["bad_advice"])
        assert found == sorted(found)
