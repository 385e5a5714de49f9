"""Heads in policies: where they are looked for, what they make limitable, what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from guard.detectors.base import Passage
from guard.errors import ConfigurationError, PolicyError
from guard.heads import BelongsTo, HeadCalibration, OwnHead
from guard.loading import load_parts
from guard.policy import load_class, load_classes
from guard.security_class import SecurityClass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.detectors.classifier import Classifier

    Write = Callable[..., Path]

CLASS = """\
  - name: {name}
    rank: {rank}
    heads: {heads}
    prior:
      categories: {{{category}: 0.1}}
    limits:
      {category}: {{flag: 0.3, act: 0.8, remedy: block}}
    messages:
      en: {{blocked: "No.", replaced: "Else."}}
"""


def class_text(heads: str, category: str = "rival_talk", name: str = "own", rank: int = 2) -> str:
    """Return a class that names heads and limits a category."""
    return CLASS.format(heads=heads, category=category, name=name, rank=rank)


def new_head(category: str = "rival_talk", digest: str = "", dimensions: int = 16) -> OwnHead:
    """Return a head that likes everything."""
    return OwnHead(
        category=category,
        model=BelongsTo(name="tiny", version="1", digest=digest),
        weights=(0.0,) * dimensions,
        intercept=1.0,
        calibration=HeadCalibration(slope=1.0, intercept=0.0, minimum=-3.0, maximum=3.0),
    )


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a policy beside a folder with a head in it."""
    (tmp_path / "heads").mkdir()
    new_head().write(tmp_path / "heads" / "rival.json")

    def policy(*classes: str) -> Path:
        path = tmp_path / "policy.yaml"
        path.write_text("version: 1\nclasses:\n" + "".join(classes), "utf-8")
        return path

    return policy


class TestNamed:
    """A policy that names a head."""

    def test_its_category_may_be_limited(self, write: Write, tmp_path: Path) -> None:
        """Limit and prior are accepted; the place of the file is spelled out."""
        found = load_class(write(class_text("[heads/rival.json]")))
        assert found.limits["rival_talk"].act == 0.8
        assert found.prior_of("rival_talk") == 0.1
        assert found.heads == (str(tmp_path / "heads" / "rival.json"),)

    def test_an_absolute_place(self, write: Write, tmp_path: Path) -> None:
        """A head may lie anywhere."""
        place = str(tmp_path / "heads" / "rival.json")
        assert load_class(write(class_text(f'["{place}"]'))).heads == (place,)

    def test_the_current_folder_does_not_matter(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A head is looked for beside its policy, also where that has a relative name."""
        write(class_text("[heads/rival.json]"))
        monkeypatch.chdir(tmp_path)
        found = load_class("policy.yaml")
        monkeypatch.chdir(tmp_path / "heads")
        assert found.heads == (str(tmp_path / "heads" / "rival.json"),)

    def test_the_class_can_be_copied(self, write: Write) -> None:
        """Pickled and copied it is the same class."""
        found = load_class(write(class_text("[heads/rival.json]")))
        assert pickle.loads(pickle.dumps(found)) == found
        assert copy.deepcopy(found) == found


class TestRefused:
    """A policy that is wrong about heads."""

    @pytest.mark.parametrize(
        ("heads", "message"),
        [
            ("[gone.json]", r"heads\[0\]`: head `.*gone.json` cannot be read"),
            ("[policy.yaml]", r"heads\[0\]`: head `.*policy.yaml` is not JSON"),
            ("[heads/rival.json, heads/rival.json]", r"heads\[1\]`: a head above is for `rival"),
            ("heads/rival.json", r"heads`: must be a list"),
            ("[7]", r"heads\[0\]`: must be text"),
            ('[""]', r"heads\[0\]`: is empty"),
        ],
    )
    def test_what_is_wrong(self, heads: str, message: str, write: Write) -> None:
        """It is said with file, line and place."""
        with pytest.raises(PolicyError, match=message) as caught:
            load_class(write(class_text(heads)))
        assert all(problem.split(":")[1].isdigit() for problem in caught.value.problems)

    def test_a_missing_head_is_one_problem(self, write: Write) -> None:
        """A limit on the category that its file is called after is no second one."""
        with pytest.raises(PolicyError) as caught:
            load_class(write(class_text("[rival_talk.json]")))
        assert len(caught.value.problems) == 1

    def test_a_slip_in_the_limit(self, write: Write) -> None:
        """A category that is nearly the head's is unknown, and the head's is offered."""
        with pytest.raises(PolicyError, match=r"unknown category.*did you mean `rival_talk`"):
            load_class(write(class_text("[heads/rival.json]", "rival_tallk")))

    def test_heads_are_a_classs_own(self, write: Write) -> None:
        """Another class of the file cannot limit the category without naming the head."""
        with pytest.raises(PolicyError, match=r"classes\[1\]\.limits\.rival_talk`: unknown"):
            load_classes(
                write(class_text("[heads/rival.json]"), class_text("[]", name="two", rank=3))
            )


class TestLoaded:
    """A guard's parts with a head."""

    @pytest.fixture
    def parts(self, write: Write, tiny: Classifier, tmp_path: Path, tiny_sealed: Path) -> Any:
        """Return the parts for a policy with a head of the tiny model."""
        new_head(digest=tiny.digest).write(tmp_path / "heads" / "rival.json")
        policy = write(class_text("[heads/rival.json]"))
        return load_parts(policy, None, tiny_sealed, (), ())

    def test_the_classifier_finds_it(self, parts: Any) -> None:
        """The head is scored beside the model's own labels."""
        classifier = parts.detectors[3]
        assert "rival_talk" in classifier.categories
        found = {finding.category: finding.evidence for finding in classifier(Passage("boat"))}
        assert found["rival_talk"] == pytest.approx(1.0)

    def test_a_head_of_another_model(self, write: Write) -> None:
        """It is refused at load with the command that mends it."""
        with pytest.raises(ConfigurationError, match="guard model fit --category rival_talk"):
            load_parts(write(class_text("[heads/rival.json]")), None, None, (), ())

    def test_a_class_made_in_python(
        self, tiny: Classifier, tmp_path: Path, tiny_sealed: Path
    ) -> None:
        """A class that no file holds may name heads; a missing one is a problem."""
        new_head(digest=tiny.digest).write(tmp_path / "rival.json")
        values: dict[str, Any] = {
            "name": "own",
            "rank": 1,
            "limits": {"rival_talk": {"flag": 0.5}},
            "messages": {"en": {"blocked": "No.", "replaced": "Else."}},
        }
        good = SecurityClass.model_validate(values | {"heads": (str(tmp_path / "rival.json"),)})
        parts = load_parts(good, None, tiny_sealed, (), ())
        assert "rival_talk" in parts.detectors[3].categories
        bad = SecurityClass.model_validate(values | {"heads": (str(tmp_path / "gone.json"),)})
        with pytest.raises(ConfigurationError, match=r"gone\.json` cannot be read"):
            load_parts(bad, None, tiny_sealed, (), ())
