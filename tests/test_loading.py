"""Loading: what a guard is made of, and everything that is wrong with it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from guard.audit.judging import Judge
from guard.detectors.base import Detector, Finding, Passage
from guard.detectors.classifier import Classifier
from guard.detectors.fingerprints import ProtectedText
from guard.engine import Guard, _found
from guard.errors import ConfigurationError
from guard.heads import BelongsTo, HeadCalibration, OwnHead
from guard.loading import BUNDLED_MODEL, _try_out, head_files, load_parts, stricter
from guard.policy import _EITHER_SIDE, builtin_classes, check_categories, load_class
from guard.security_class import Live
from guard.server.guards import Loader
from guard.server.settings import ServerSettings

if TYPE_CHECKING:
    from pathlib import Path

FERRY = (
    "The night ferry leaves the third pier when both lamps are lit, and nobody boards before "
    "the mate has counted the crates twice."
)
OWN_CLASS = """\
version: 1
classes:
  - name: own
    rank: 2
    limits:
      brand_voice: {flag: 0.5}
    messages:
      en: {blocked: "No.", replaced: "Else."}
"""
STRICT = """\
    live: {action: tighten}
  - name: strict
    rank: 3
    limits:
      brand_voice: {flag: 0.1}
    messages:
      en: {blocked: "No.", replaced: "Else."}
"""
NAMES = ("research", "internal", "public", "regulated", "critical")


class Voice:
    """Finds a category of its own."""

    name = "voice"
    version = "1"
    categories = ("brand_voice",)

    def __call__(self, passage: Passage) -> list[Finding]:
        """Find nothing."""
        assert passage
        return []


class Failing(Voice):
    """Raises whatever it is given."""

    def __init__(self, name: str) -> None:
        """Take a name."""
        self.name = name

    def __call__(self, passage: Passage) -> list[Finding]:
        """Fail."""
        assert passage
        raise RuntimeError("out of order")


class TestParts:
    """What is loaded."""

    def test_the_standard_parts(self) -> None:
        """By default: the class, three cheap detectors first, then the bundled classifier."""
        parts = load_parts("public", None, None, (), ())
        assert parts.security_class == load_class("public")
        names = [detector.name for detector in parts.detectors]
        assert names == ["secrets", "personal_data", "fingerprints", "clearance-minilm"]
        assert all(isinstance(detector, Detector) for detector in parts.detectors)

    def test_own_detectors_come_last(self) -> None:
        """Detectors of one's own stand beside the standard ones, in their order."""
        own = Voice()
        assert load_parts("public", None, None, (own,), ()).detectors[-1] is own

    def test_own_categories_may_be_limited(self, tmp_path: Path) -> None:
        """A policy file may limit what an own detector finds."""
        path = tmp_path / "own.yaml"
        path.write_text(OWN_CLASS, "utf-8")
        parts = load_parts(path, None, None, (Voice(),), ())
        assert list(parts.security_class.limits) == ["brand_voice"]
        with pytest.raises(ConfigurationError, match="unknown category"):
            load_parts(path, None, None, (), ())

    def test_registered_texts_are_protected(self) -> None:
        """What is registered is found when it is repeated."""
        parts = load_parts("public", None, None, (), [ProtectedText("ferry", FERRY)])
        detector = parts.detectors[2]
        assert [finding.label for finding in detector(Passage(FERRY))] == ["ferry"]

    def test_the_redactor_takes_personal_data_and_secrets_out(self) -> None:
        """What the journal keeps has neither addresses nor keys in it."""
        redactor = load_parts("public", None, None, (), ()).redactor
        key = "AKIA" + "Z7QX" * 4
        kept = redactor(f"Ask kim@mail.lowerquay.dev, key {key}.")
        assert "kim@" not in kept
        assert key not in kept
        assert kept.startswith("Ask [redacted: ")

    def test_every_built_in_class_can_be_reached(self) -> None:
        """The standard detectors find every category that a built-in class limits."""
        found = _found(load_parts("public", None, None, (), ()).detectors)
        for security_class in builtin_classes():
            assert check_categories(security_class, found) == []

    def test_what_the_classifier_finds_it_finds_on_one_side(self) -> None:
        """What the packs and fingerprints find they find on both."""
        *packs, classifier = load_parts("public", None, None, (), ()).detectors
        found = _found([classifier])
        assert set(found["prompt"]) == {"jailbreak", "prompt_injection", "prompt_harmful"}
        assert set(found["response"]) == set(classifier.categories) - set(found["prompt"])
        found = _found(packs)
        assert set(found["prompt"]) == set(found["response"]) == set(_EITHER_SIDE)

    def test_another_model(self, tmp_path: Path) -> None:
        """A model's directory may lie anywhere; its detector is called after it."""
        other = tmp_path / "other-model"
        other.symlink_to(BUNDLED_MODEL, target_is_directory=True)
        assert load_parts("public", None, other, (), ()).detectors[3].name == "other-model"


class TestBuiltIn:
    """Every built-in class loads, by its name and as an object."""

    @pytest.mark.parametrize("name", NAMES)
    def test_a_guard(self, name: str) -> None:
        """The object is as good as the name."""
        for source in (name, load_class(name)):
            guard = Guard.load(source, journal=None)
            assert guard.security_class == load_class(name)
            assert guard._tightened.security_class.name == name

    @pytest.mark.parametrize("name", ["public", "regulated", "critical"])
    def test_a_guard_that_follows_its_live_risk(self, name: str) -> None:
        """The class that an alarm would have judge is there, where one would."""
        for source in (name, load_class(name)):
            guard = Guard.load(source, journal=None, live=True)
            above = "critical" if name == "regulated" else name
            assert guard._tightened.security_class.name == above

    @pytest.mark.parametrize("name", NAMES)
    def test_a_judge(self, name: str) -> None:
        """An audit has the same detectors either way, and follows nothing."""
        assert Judge.load(load_class(name)).detectors == Judge.load(name).detectors

    @pytest.mark.parametrize("live", [None, "none"])
    def test_a_server(self, live: str | None) -> None:
        """`guard serve --demo --class regulated` starts."""
        load = Loader(ServerSettings(security_class="regulated", demo=True, live=live), None)
        try:
            guard = load()["regulated"].guard
            above = guard._tightened.security_class.name
            assert above == ("critical" if live is None else "regulated")
        finally:
            load.close()


class TestTightening:
    """The class that judges while an alarm asks to tighten."""

    @pytest.fixture
    def policy(self, tmp_path: Path) -> Path:
        """Return a policy whose class `own` tightens to `strict`; both limit an own category."""
        path = tmp_path / "own.yaml"
        path.write_text(OWN_CLASS + STRICT, "utf-8")
        return path

    def test_categories_of_own_detectors(self, policy: Path) -> None:
        """The stricter class may limit them like the other."""
        guard = Guard.load(policy, "own", detectors=[Voice()], journal=None, live=True)
        assert guard._tightened.security_class.name == "strict"

    def test_a_class_of_a_file_as_an_object(self, policy: Path) -> None:
        """It knows the others, where its file is gone, too."""
        own = load_class(policy, "own", extra_categories=["brand_voice"])
        policy.unlink()
        guard = Guard.load(own, detectors=[Voice()], journal=None, live=True)
        assert guard._tightened.security_class.name == "strict"

    def test_heads_of_the_stricter_class(self, tmp_path: Path) -> None:
        """They are scored, whether or not the live risk is followed."""
        head = new_head(Classifier(BUNDLED_MODEL))
        for name in ("voice", "copy"):
            head.write(tmp_path / f"{name}.json")
        text = OWN_CLASS.replace("brand_voice", "violence") + STRICT
        path = tmp_path / "own.yaml"
        path.write_text(text.replace("rank: 3", "rank: 3\n    heads: [voice.json]"), "utf-8")
        own = load_class(path, "own")
        assert head_files(own) == (str(tmp_path / "voice.json"),)
        guard = Guard.load(path, "own", journal=None, live=True)
        assert "brand_voice" in guard._tightened.categories
        assert Guard.load(own, journal=None).detectors == guard.detectors
        settings = ServerSettings(security_class=f"{path}#own", live="none")
        judges = Loader(settings, None)()[f"{path}#own"]
        assert judges.guard.detectors == guard.detectors
        # A copy of the head in the other class is no second one.
        both = own.model_copy(update={"heads": (str(tmp_path / "copy.json"),)})
        assert len(head_files(both)) == 2
        assert Guard.load(both, journal=None).detectors == guard.detectors

    def test_without_a_stricter_class(self, tmp_path: Path) -> None:
        """Only a guard that follows the live risk is refused."""
        path = tmp_path / "own.yaml"
        path.write_text(OWN_CLASS + "    live: {action: tighten}\n", "utf-8")
        parts: dict[str, Any] = {"detectors": [Voice()], "journal": None}
        own = Guard.load(path, **parts).security_class
        for source in (path, own):
            with pytest.raises(ConfigurationError, match="no class of a higher rank: add one"):
                Guard.load(source, **parts, live=True)

    def test_one_alarm_of_many_is_enough(self) -> None:
        """A single category's alarm may tighten; where none does nothing is asked for."""
        public = load_class("public")
        assert stricter(public) is None
        live = Live(action_of={"violence": "tighten"})
        found = stricter(public.model_copy(update={"live": live}))
        assert found is not None
        assert found.name == "regulated"


class TestSides:
    """Limits on what is never looked for there."""

    HERE = "in responses no detector looks for it: move it to `input.limits`"
    THERE = "in what the model is given no detector looks for it: move it to `limits`"

    def changed(self, **changes: Any) -> Any:
        """Return a class without a file."""
        plain = load_class("public").model_dump() | changes
        return type(load_class("public")).model_validate(plain)

    @pytest.mark.parametrize("category", ["jailbreak", "prompt_injection", "prompt_harmful"])
    def test_categories_of_the_input(self, category: str) -> None:
        """Under the limits of responses they never act."""
        with pytest.raises(ConfigurationError) as caught:
            Guard.load(self.changed(limits={category: {"act": 0.03}}), journal=None)
        problem = f"class `public` limits `{category}`, and {self.HERE}"
        assert caught.value.problems == (problem,)

    @pytest.mark.parametrize("category", ["hate_toxicity", "unfamiliar"])
    def test_categories_of_responses(self, category: str) -> None:
        """Under the limits of the input they never act."""
        with pytest.raises(ConfigurationError) as caught:
            Guard.load(self.changed(input={"limits": {category: {"act": 0.1}}}), journal=None)
        problem = f"class `public` limits `{category}`, and {self.THERE}"
        assert caught.value.problems == (problem,)

    @pytest.mark.parametrize("category", _EITHER_SIDE)
    def test_patterns_and_fingerprints(self, category: str) -> None:
        """They read whatever passes."""
        limit = {category: {"act": 0.5}}
        Guard.load(self.changed(limits=limit, input={"limits": limit}), journal=None)

    def test_an_own_detector_may_look_anywhere(self, tmp_path: Path) -> None:
        """What it finds may be limited on either side, in files, too."""

        class Anywhere(Voice):
            categories = ("brand_voice", "jailbreak", "hate_toxicity")  # type: ignore[assignment]

        limits = {name: {"act": 0.5} for name in ("brand_voice", "jailbreak", "hate_toxicity")}
        own = self.changed(limits=limits, input={"limits": limits})
        Guard.load(own, detectors=[Anywhere()], journal=None)
        path = tmp_path / "own.yaml"
        more = "    input: {limits: {hate_toxicity: {act: 0.5}, brand_voice: {act: 0.5}}}\n"
        path.write_text(OWN_CLASS.replace("brand_voice", "jailbreak") + more, "utf-8")
        Guard.load(path, detectors=[Anywhere()], journal=None)
        with pytest.raises(ConfigurationError) as caught:
            Guard.load(path, detectors=[Voice()], journal=None)
        assert caught.value.problems == (
            f"{path}:6: `classes[0].limits.jailbreak`: {self.HERE}",
            f"{path}:9: `classes[0].input.limits.hate_toxicity`: {self.THERE}",
        )

    def test_a_classifier_that_was_derived_from(self) -> None:
        """Where it looks nobody knows: it is not refused."""

        class Derived(Classifier):
            """May look anywhere."""

        own = self.changed(limits={"jailbreak": {"act": 0.5}})
        Guard(own, [Derived(BUNDLED_MODEL)])
        with pytest.raises(ConfigurationError, match="in responses no detector looks"):
            Guard(own, [Classifier(BUNDLED_MODEL)])


class TestDetectors:
    """How detectors of one's own are handed over."""

    @pytest.fixture
    def policy(self, tmp_path: Path) -> Path:
        """Return a policy that limits the own detector's category."""
        path = tmp_path / "own.yaml"
        path.write_text(OWN_CLASS, "utf-8")
        return path

    def test_an_iterator(self, policy: Path) -> None:
        """It is as good as a list."""
        guard = Guard.load(policy, detectors=iter([Voice()]), journal=None)
        assert "voice" in guard.detectors

    def test_an_iterator_beside_a_built_in_class(self) -> None:
        """Nothing that is limited asks for it, and it is asked all the same."""
        guard = Guard.load("public", detectors=(item for item in [Voice()]), journal=None)
        assert [detector.name for detector in guard.driver._detectors][-1] == "voice"

    @pytest.mark.parametrize(("given", "kind"), [(Voice(), "Voice"), (None, "NoneType")])
    def test_what_holds_no_detectors(self, policy: Path, given: Any, kind: str) -> None:
        """A single detector is refused, with the mend."""
        text = f"`detectors` must be a list of detectors, not `{kind}`: put even a single one in"
        with pytest.raises(ConfigurationError, match=text):
            Guard.load(policy, detectors=given, journal=None)

    @pytest.mark.parametrize("live", [False, True])
    def test_what_is_no_detector(self, live: bool) -> None:  # noqa: FBT001  # pytest's values
        """It is named before anything asks it for its categories."""
        foreign: Any = [object()]
        with pytest.raises(ConfigurationError, match="is no detector: it needs `name`"):
            Guard.load("public", detectors=foreign, journal=None, live=live)


def new_head(classifier: Classifier) -> OwnHead:
    """Return a head of a classifier that finds nothing."""
    return OwnHead(
        category="brand_voice",
        model=BelongsTo(name="clearance", version="1", digest=classifier.digest),
        weights=(0.0,) * classifier.dimensions,
        intercept=-1.0,
        calibration=HeadCalibration(slope=1.0, intercept=0.0, minimum=-3.0, maximum=3.0),
    )


class TestProblems:
    """What is wrong."""

    def test_all_parts_are_looked_at(self, tmp_path: Path) -> None:
        """Class, model and registered texts are all named in one error."""
        path = tmp_path / "own.yaml"
        path.write_text(OWN_CLASS.replace("rank: 2", "rank: x"), "utf-8")
        with pytest.raises(ConfigurationError) as caught:
            load_parts(path, None, tmp_path, (), [ProtectedText("tiny", "too short")])
        found = caught.value.problems
        assert found[0].startswith(f"{path}:4: ")
        assert found[1].startswith(f"{path}:6: ")
        assert f"`{tmp_path / 'config.json'}` is missing: export the model again" in found
        assert "`tiny`" in found[-1]

    @pytest.mark.parametrize("name", ["publik", "missing.yaml"])
    def test_an_unknown_class(self, name: str) -> None:
        """A class that is not there is named, and those that are."""
        with pytest.raises(ConfigurationError, match=name):
            load_parts(name, None, None, (), ())

    def test_detectors_that_cannot_judge(self) -> None:
        """What fails on its first text is found at load; each is named with its error."""
        with pytest.raises(ConfigurationError) as caught:
            _try_out([Failing("one"), Voice(), Failing("two")])
        assert caught.value.problems == (
            "detector `one` cannot judge: RuntimeError: out of order",
            "detector `two` cannot judge: RuntimeError: out of order",
        )
