"""A server under a class that demands a signed tag: it starts with a good one and not without."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from guard.audit.keys import SigningKey
from guard.audit.profile import Fingerprint, Profile
from guard.audit.tag import sign
from guard.errors import ConfigurationError
from guard.policy import load_class
from guard.server.configuration import load_settings
from guard.server.deployed import fingerprint_of
from guard.server.guards import Guards, Loader
from guard.server.keys import ANYBODY
from guard.server.load import Load
from guard.server.metrics import Metrics
from guard.server.settings import Deployed, ServerSettings

if TYPE_CHECKING:
    from guard.engine import Guard

PROFILE = Profile.read(Path(__file__).parents[1] / "data" / "risk_profile.json")
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


class Audited:
    """A model that was audited, with the files that say so."""

    def __init__(self, folder: Path, detectors: dict[str, str]) -> None:
        """Sign a tag for the model `scripted` with a system prompt and a tool."""
        self.policy = folder / "gated.yaml"
        self.policy.write_text(POLICY, encoding="utf-8")
        self.prompt = folder / "prompt.txt"
        self.prompt.write_text("Be brief.\n", encoding="utf-8")
        self.tools = folder / "tools.json"
        self.tools.write_text(json.dumps([{"name": "find"}]), encoding="utf-8")
        self.fingerprint = Fingerprint.of(
            "scripted", system_prompt="Be brief.\n", tools=[{"name": "find"}]
        )
        profile = PROFILE.model_copy(
            update={"detectors": detectors, "fingerprint": self.fingerprint}
        )
        key = SigningKey.new()
        _, self.trust = key.write(folder / "auditor")
        self.tag = folder / "model.tag"
        sign(profile, load_class(self.policy), key, validity=timedelta(days=30)).write(self.tag)

    def settings(self, **changes: Any) -> ServerSettings:
        """Return settings under which the model may be deployed, with `changes`."""
        deployed = {"model": "scripted", "system_prompt": self.prompt, "tools": self.tools}
        values: dict[str, Any] = {
            "security_class": str(self.policy),
            "tag": self.tag,
            "trust": (self.trust,),
            "deployed": deployed,
        }
        return ServerSettings(**(values | changes))


@pytest.fixture
def audited(tmp_path: Path, real_guard: Guard) -> Audited:
    """Return an audited model."""
    return Audited(tmp_path, dict(real_guard.detectors))


class TestGate:
    """What is loaded, and what is refused."""

    def test_a_good_tag(self, audited: Audited) -> None:
        """The audited rates move the priors; every request is sent to the audited model."""
        settings = audited.settings()
        guards = Guards(Loader(settings, None), settings, Metrics(Load(settings)))
        priors = guards.default.security_class.prior
        assert priors != load_class(audited.policy).prior
        assert guards.default.scorer.security_class.prior == priors
        assert guards.upstream_model(ANYBODY, "/v1/responses") == "scripted"

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"tag": None}, "demands a tag"),
            ({"trust": ()}, "trust"),
            ({"deployed": {"model": "another"}}, "another"),
            ({"deployed": None}, "not known"),
            ({"deployed": {"model": "scripted"}}, "prompt"),
        ],
    )
    def test_refused(self, audited: Audited, changes: dict[str, Any], problem: str) -> None:
        """Without a tag, without trust, for another model or prompt: it does not start."""
        with pytest.raises(ConfigurationError) as caught:
            Loader(audited.settings(**changes), None)()
        assert problem in str(caught.value)


class TestFallback:
    """The backend that an alarm asks for is a model, too."""

    def settings(self, audited: Audited, **changes: Any) -> ServerSettings:
        """Return settings of a class whose alarms ask for another backend."""
        live = POLICY.replace("    deploy:", "    live: {action: fallback}\n    deploy:")
        audited.policy.write_text(live, encoding="utf-8")
        urls = {"upstream": "http://a.example", "fallback_upstream": "http://b.example"}
        return audited.settings(**(urls | changes))

    def test_it_needs_a_tag_of_its_own(self, audited: Audited) -> None:
        """Else an alarm would let in a model that nobody audited."""
        with pytest.raises(ConfigurationError, match=r"the fallback: .*demands a tag"):
            Loader(self.settings(audited), None)()
        other = {"model": "another"}
        changes = {"fallback_tag": audited.tag, "fallback_deployed": other}
        with pytest.raises(ConfigurationError, match=r"the fallback: .*another"):
            Loader(self.settings(audited, **changes), None)()

    def test_a_good_tag(self, audited: Audited) -> None:
        """Its own audited rates move its priors."""
        deployed = audited.settings().deployed
        changes = {"fallback_tag": audited.tag, "fallback_deployed": deployed}
        (judges,) = Loader(self.settings(audited, **changes), None)().values()
        assert judges.stand_in is not None
        assert judges.stand_in.security_class.prior == judges.security_class.prior
        assert judges.stand_in.security_class.prior != load_class(audited.policy).prior


class TestSettings:
    """What the settings say about it."""

    def test_the_fingerprint(self, audited: Audited) -> None:
        """Prompt and tools are taken from their files as they are."""
        assert fingerprint_of(audited.settings().deployed) == audited.fingerprint
        assert fingerprint_of(None) is None

    @pytest.mark.parametrize(
        ("text", "problem"),
        [("", "must hold a JSON list"), ("{}", "must hold a JSON list"), (None, "cannot be read")],
    )
    def test_bad_files(self, tmp_path: Path, text: str | None, problem: str) -> None:
        """A file that is not there, or no list, is named."""
        path = tmp_path / "tools.json"
        if text is not None:
            path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=problem):
            fingerprint_of(Deployed(model="scripted", tools=path))

    def test_what_disagrees(self, audited: Audited) -> None:
        """A tag must be for some model, and no request may go past it."""
        with pytest.raises(ConfigurationError, match="without `deployed`"):
            load_settings(tag=audited.tag)
        routes = [{"path": "/v1", "upstream_model": "another"}]
        with pytest.raises(ConfigurationError, match=r"`routes\[0\].upstream_model`"):
            load_settings(deployed={"model": "scripted"}, routes=routes)
