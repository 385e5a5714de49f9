"""Loading: what a guard is made of, and everything that is wrong with it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from guard.detectors.base import Detector, Finding, Passage
from guard.detectors.fingerprints import ProtectedText
from guard.errors import ConfigurationError
from guard.loading import BUNDLED_MODEL, _try_out, load_parts
from guard.policy import builtin_classes, check_categories, load_class

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
        parts = load_parts("public", None, None, (), ())
        known = [name for detector in parts.detectors for name in detector.categories]
        for security_class in builtin_classes():
            assert check_categories(security_class, known) == []

    def test_another_model(self, tmp_path: Path) -> None:
        """A model's directory may lie anywhere; its detector is called after it."""
        other = tmp_path / "other-model"
        other.symlink_to(BUNDLED_MODEL, target_is_directory=True)
        assert load_parts("public", None, other, (), ()).detectors[3].name == "other-model"


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
