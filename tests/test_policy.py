"""Policies: what a file may say, every error at once, and the classes that come with it."""

from __future__ import annotations

import copy
import inspect
import io
import json
import math
import pickle
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from guard import policy, policy_problems
from guard.assess import log_odds
from guard.categories import CATEGORIES
from guard.errors import PolicyError
from guard.heads import BelongsTo, HeadCalibration, OwnHead
from guard.policy import (
    BUILTIN,
    Policy,
    builtin_classes,
    check_categories,
    load_class,
    load_classes,
    load_policy,
    policy_schema,
    schema_text,
)
from guard.security_class import Limit, Messages, SecurityClass
from guard.verdict import decide, worst_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.categories import Side
    from guard.verdict import Step

    Write = Callable[..., Path]

BASE = """\
version: 1
classes:
  - name: own
    rank: 3
    limits:
      harassment: {flag: 0.3, act: 0.8, remedy: block}
    messages:
      en: {blocked: "No.", replaced: "Else."}
"""
NAMES = ("research", "internal", "public", "regulated", "critical")

FLAG, ACT = "flag: 0.3", "act: 0.8"
BOTH = "{flag: 0.3, act: 0.8, remedy: block}"
HARASSMENT = ".limits.harassment"
BLOCKED = ".messages.en.blocked"
REMOVE = "unknown key: remove it"
SLIPS = [
    ("rank: 3", "rank: x", 4, ".rank", "must be a whole number, not the text 'x'"),
    ("rank: 3", "rank: 3.0", 4, ".rank", "must be a whole number, not `3.0`"),
    ("rank: 3", "rank: true", 4, ".rank", "must be a whole number, not `true`"),
    ("rank: 3", "rank:", 4, ".rank", "must be a whole number, not nothing"),
    ("rank: 3", "rank: -1", 4, ".rank", "must be at least 0, not `-1`"),
    ("rank: 3", "rank: 1001", 4, ".rank", "must be at most 1000, not `1001`"),
    ("rank: 3", "rank: 1:30", 4, ".rank", "must be a whole number, not the text '1:30'"),
    ("rank: 3", "rank: 010", 4, ".rank", "must be a whole number, not the text '010'"),
    ("    rank: 3\n", "", 3, ".rank", "is missing: add it"),
    ("name: own", "name: 3", 3, ".name", "must be text, not `3`: put it in quotes"),
    (FLAG, "flag: no", 6, HARASSMENT + ".flag", "must be a number, not the text 'no'"),
    (FLAG, "flag: true", 6, HARASSMENT + ".flag", "must be a number, not `true`"),
    (FLAG, "flag: '0.3'", 6, HARASSMENT + ".flag", "must be a number, not the text '0.3'"),
    (FLAG, "flag: [0.3]", 6, HARASSMENT + ".flag", "must be a number, not a list"),
    (FLAG, "flag: .nan", 6, HARASSMENT + ".flag", "must be a finite number, not `.nan`"),
    (ACT, "act: .inf", 6, HARASSMENT + ".act", "must be a finite number, not `.inf`"),
    (ACT, "act: 1e999", 6, HARASSMENT + ".act", "must be a finite number, not `.inf`"),
    (ACT, "act: 1.01", 6, HARASSMENT + ".act", "must be at most 1, not `1.01`"),
    (FLAG, "flag: -0.1", 6, HARASSMENT + ".flag", "must be at least 0, not `-0.1`"),
    (ACT, "act: 0.2", 6, HARASSMENT + ".act", "0.2 is below `flag` 0.3: raise it, or lower `flag`"),
    (BOTH, "0.8", 6, HARASSMENT, "must hold `key: value` pairs, not `0.8`"),
    (BOTH, "", 6, HARASSMENT, "must hold `key: value` pairs, not nothing"),
    (f"harassment: {BOTH}", "{}", 5, ".limits", "is empty: add at least one entry"),
    ('"No."', "3", 8, BLOCKED, "must be text, not `3`: put it in quotes"),
    ('"No."', r'"\ud800"', 8, BLOCKED, "has characters that UTF-8 cannot write: remove them"),
    ('"No."', '"{x}"', 8, BLOCKED, "holds `{x}`, and nothing is filled in here: remove it"),
    (
        *('"No."', '"  "', 8, BLOCKED),
        "must not be the text '  ': write what the end user shall read",
    ),
    (
        *('replaced: "Else."', 'replaced: x, redacted: "{x}"', 8, ".messages.en.redacted"),
        "holds `{x}`, and only `{category}` is filled in here: remove it",
    ),
    (
        *("name: own", "name: Own", 3, ".name"),
        f"must not be the text 'Own': {policy_problems._PATTERNS[policy_problems.NAME]}",
    ),
    (
        *(BOTH, "{remedy: block}", 6, HARASSMENT),
        "sets neither `flag` nor `act`: give one, or remove the category",
    ),
    (
        *("remedy: block", "remedy: off", 6, HARASSMENT + ".remedy"),
        "must be `redact`, `excise`, `regenerate`, `replace` or `block`, not the text 'off'",
    ),
    (
        *("harassment", "harasment", 6, ".limits.harasment"),
        "unknown category: remove it (did you mean `harassment`?)",
    ),
    (
        *("harassment", "jailbreak", 6, ".limits.jailbreak"),
        "in responses no detector looks for it: move it to `input.limits`",
    ),
    (
        *("harassment", "unsafe", 6, ".limits.unsafe"),
        "auxiliary categories have neither limit nor prior: remove it",
    ),
    (
        *("      en:", "      en_US:", 8, ".messages.en_US"),
        "must not be the text 'en_US': write a language tag such as `en` or `pt-BR`",
    ),
    (
        *("      en:", "      de:", 3, ".language"),
        "there are no `messages` in `en`: add them, or use one of de",
    ),
]
"""What is changed in `BASE`, and the line, place and text of the only problem."""

ADDITIONS = [
    ("timout_seconds: 3", ".timout_seconds", REMOVE + " (did you mean `timeout_seconds`?)"),
    ("colour: red", ".colour", REMOVE),
    ("<<: {rank: 4}", ".<<", REMOVE),
    ("rank: 4", ".rank", "stands here twice: remove one"),
    ("shadow: yes", ".shadow", "must be `true` or `false`, not the text 'yes'"),
    ("shadow: 1", ".shadow", "must be `true` or `false`, not `1`"),
    ("timeout_seconds: 0", ".timeout_seconds", "must be above 0, not `0`"),
    ("timeout_seconds: .inf", ".timeout_seconds", "must be a finite number, not `.inf`"),
    ("timeout_seconds: 601", ".timeout_seconds", "must be at most 600, not `601`"),
    ("timeout_seconds: !!int 3", ".timeout_seconds", "`!!int` is a tag: remove it"),
    ("description: &x yes", ".description", "`&x` is an anchor: remove it"),
    ("description: *x", ".description", "`*x` is an alias: write the value out"),
    ("journal: {actions: flag}", ".journal.actions", "must be a list, not the text 'flag'"),
    ("journal: {txt: full}", ".journal.txt", REMOVE + " (did you mean `text`?)"),
    ("prior: {default: 0}", ".prior.default", "must be above 0, not `0`"),
    (
        "prior: {categories: {violence: 1}}",
        ".prior.categories.violence",
        "must be below 1, not `1`",
    ),
    (
        *("prior: {categories: {viollence: 0.1}}", ".prior.categories.viollence"),
        "unknown category: remove it (did you mean `violence`?)",
    ),
    (
        *("deploy: {rates: {viollence: 0.1}}", ".deploy.rates.viollence"),
        "no category or mechanism: remove it (did you mean `violence`?)",
    ),
    (
        *("deploy: {effects: {over_refusl: 0.1}}", ".deploy.effects.over_refusl"),
        "no effect that an audit tells: remove it (did you mean `over_refusal`?)",
    ),
    (
        *("deploy: {effects: {style_amplificaton.edgy: 0.1}}",),
        ".deploy.effects.style_amplificaton.edgy",
        "no effect that an audit tells: remove it (did you mean `style_amplification`?)",
    ),
    (
        *("deploy: {effects: {persona_rate.edgy: 0.1}}", ".deploy.effects.persona_rate.edgy"),
        "only `style_amplification` has a part behind a dot, a style's name: remove it",
    ),
    (
        *("input: {limits: {violence: {act: 0.5}}}", ".input.limits.violence"),
        "in what the model is given no detector looks for it: move it to `limits`",
    ),
    (
        *("journal: {actions: [allow]}", ".journal.actions[0]"),
        "must be `flag`, `rewrite` or `block`, not the text 'allow'",
    ),
    (
        *("on_failure: allow", ".on_failure"),
        "must be `block`, `replace` or `flag`, not the text 'allow'",
    ),
    (
        *("language: fr", ".language"),
        "there are no `messages` in `fr`: add them, or use one of en",
    ),
]
"""What is added to `BASE` as its ninth line, and place and text of the only problem."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a policy file, `BASE` with replacements by default."""

    def write_file(*changes: tuple[str, str], text: str = BASE, more: str = "") -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "own.yaml"
        path.write_text(text + more, "utf-8")
        return path

    return write_file


def new_head() -> OwnHead:
    """Return a head of no model's."""
    return OwnHead(
        category="brand_voice",
        model=BelongsTo(name="any", version="1", digest=""),
        weights=(0.0,),
        intercept=0.0,
        calibration=HeadCalibration(slope=1.0, intercept=0.0, minimum=0.0, maximum=1.0),
    )


def problems(path: Path) -> list[str]:
    """Return what is wrong with a file, each as `LINE: ...`."""
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    prefix = f"{path}:"
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    return [problem.removeprefix(prefix) for problem in caught.value.problems]


class TestReading:
    """What a file may say."""

    def test_the_least(self, write: Write) -> None:
        """Name, rank, limits and messages are enough; the rest is closed by default."""
        (own,) = load_policy(write()).classes
        assert (own.name, own.rank) == ("own", 3)
        assert own.limit("harassment") == Limit(flag=0.3, act=0.8, remedy="block")
        assert own.limit("violence") is None
        assert (own.on_failure, own.shadow, own.language) == ("block", False, "en")
        assert own.journal.actions == ("flag", "rewrite", "block")
        assert own.journal.text == "redacted"
        assert own.prior_of("harassment") == 0.02

    def test_a_limit_blocks_unless_it_says_otherwise(self, write: Write) -> None:
        """The remedy by default is the gravest."""
        own = load_class(write((", remedy: block", "")))
        assert own.limits["harassment"].remedy == "block"

    def test_priors(self, write: Write) -> None:
        """A category has its own prior or the default one."""
        own = load_class(
            write(more="    prior: {default: 0.1, categories: {secret_leak: 0.001}}\n")
        )
        assert own.prior_of("secret_leak") == 0.001
        assert own.prior_of("violence") == 0.1

    def test_whole_numbers_are_numbers(self, write: Write) -> None:
        """A limit or a time may be written without a point."""
        own = load_class(write(("flag: 0.3", "flag: 0"), more="    timeout_seconds: 3\n"))
        assert own.limits["harassment"].flag == 0.0
        assert own.timeout_seconds == 3.0

    @pytest.mark.parametrize("number", ["3e-1", ".3", "0.30"])
    def test_numbers_in_any_spelling(self, write: Write, number: str) -> None:
        """Exponents and a missing zero are numbers, too."""
        own = load_class(write(("flag: 0.3", f"flag: {number}")))
        assert own.limits["harassment"].flag == 0.3

    def test_norwegian_needs_no_quotes(self, write: Write) -> None:
        """`no` is a language and not a boolean."""
        own = load_class(write(("      en:", "      no:"), more="    language: no\n"))
        assert own.messages_in(None).blocked == "No."

    def test_own_categories_can_be_allowed(self, write: Write) -> None:
        """A category that an own detector finds may have a limit and a prior."""
        path = write(
            ("harassment", "brand_voice"), more="    prior: {categories: {brand_voice: 0.3}}\n"
        )
        own = load_class(path, extra_categories=["brand_voice"])
        assert own.prior_of("brand_voice") == 0.3
        with pytest.raises(PolicyError, match="unknown category"):
            load_class(path)

    def test_categories_that_no_detector_finds(self, write: Write) -> None:
        """A limit that nothing can reach is named, with the class and a hint."""
        own = load_class(write())
        found: dict[Side, list[str]] = {"response": ["harassment", "violence"], "prompt": []}
        assert check_categories(own, found) == []
        (problem,) = check_categories(own, {"response": ["harasment"], "prompt": []})
        assert "`own` limits `harassment`" in problem
        assert "(did you mean `harasment`?)" in problem


class TestProblems:
    """What is refused, with line and mend."""

    @pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: f"{slip[1]}")
    def test_each_has_line_place_and_mend(
        self, write: Write, slip: tuple[str, str, int, str, str]
    ) -> None:
        """A single slip gives a single problem that says where it is and how to mend it."""
        old, new, line, place, text = slip
        assert problems(write((old, new))) == [f"{line}: `classes[0]{place}`: {text}"]

    @pytest.mark.parametrize(("more", "place", "text"), ADDITIONS)
    def test_each_addition_has_line_place_and_mend(
        self, write: Write, more: str, place: str, text: str
    ) -> None:
        """What is added at the end is named with the last line's number."""
        assert problems(write(more=f"    {more}\n")) == [f"9: `classes[0]{place}`: {text}"]

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("version: 1", "version: 2", "1: `version`: must be 1, not `2`"),
            ("version: 1", "version: true", "1: `version`: must be 1, not `true`"),
            ("version: 1", "version: 1.0", "1: `version`: must be 1, not `1.0`"),
            ("version: 1", "version: '1'", "1: `version`: must be 1, not the text '1'"),
            ("version: 1", "colour: 1", "1: `colour`: unknown key: remove it"),
        ],
    )
    def test_the_top_level_is_checked_too(
        self, write: Write, old: str, new: str, problem: str
    ) -> None:
        """Version and unknown keys beside the classes are named like others."""
        assert problems(write((old, new))) == [problem]

    def test_two_classes_of_one_name(self, write: Write) -> None:
        """The second of two classes with one name is named by its line."""
        (problem,) = problems(write(more=BASE.split("classes:\n")[1]))
        assert problem == "9: `classes[1].name`: a class above has this name, too: rename one"

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "1: the file is empty: start from a built-in class"),
            ("# only a comment\n", "1: the file is empty: start from a built-in class"),
            ("- a\n", "1: must hold `key: value` pairs, not a list"),
            ("hello\n", "1: must hold `key: value` pairs, not the text 'hello'"),
            ("version: 1\n", "1: `classes`: is missing: add it"),
            ("classes: []\n", "1: `classes`: is empty: add at least one entry"),
            ("classes:\n", "1: `classes`: must be a list, not nothing"),
            ("classes: {own: 1}\n", "1: `classes`: must be a list, not `key: value` pairs"),
            ("\nclasses:\n  - 3\n", "3: `classes[0]`: must hold `key: value` pairs, not `3`"),
        ],
    )
    def test_files_that_are_no_policy(self, write: Write, text: str, problem: str) -> None:
        """A file without classes is refused, by what it is instead."""
        assert problems(write(text=text)) == [problem]

    def test_all_are_named_at_once(self, write: Write) -> None:
        """One load finds everything, cross-checks included, in the file's order."""
        more = """\
    prior: {categories: {foo: 2}}
    language: fr
    shadow: on
    name: b
  - name: own
  - name: own
    colour: *red
"""
        path = write(
            ("rank: 3", "rank: x"), (FLAG, "flag: 0.9"), ("blocked: ", "blokked: "), more=more
        )
        found = [problem.partition(": ")[0::2] for problem in problems(path)]
        assert [(int(line), text.split("`")[1]) for line, text in found] == [
            (4, "classes[0].rank"),
            (6, "classes[0].limits.harassment.act"),
            (8, "classes[0].messages.en.blocked"),
            (8, "classes[0].messages.en.blokked"),
            (9, "classes[0].prior.categories.foo"),
            (9, "classes[0].prior.categories.foo"),
            (11, "classes[0].shadow"),
            (12, "classes[0].name"),
            (13, "classes[1].rank"),
            (13, "classes[1].limits"),
            (13, "classes[1].messages"),
            (14, "classes[2].rank"),
            (14, "classes[2].limits"),
            (14, "classes[2].messages"),
            (14, "classes[2].name"),
            (15, "classes[2].colour"),
            (15, "classes[2].colour"),
        ]

    def test_what_yaml_cannot_read(self, tmp_path: Path) -> None:
        """Syntax, encoding and missing files are `PolicyError` with the line."""
        path = tmp_path / "own.yaml"
        path.write_bytes(BASE.encode() + b"    shadow: [true\n")
        assert problems(path)[0].startswith("10: not valid YAML: ")
        path.write_bytes(BASE.encode() + b"    description: caf\xe9\n")
        assert problems(path) == ["9: not valid UTF-8: save the file as UTF-8"]
        path.unlink()
        assert problems(path) == ["1: cannot be read: No such file or directory"]


class TestLoadClass:
    """From a name or a path to a class."""

    TWO = BASE + BASE.split("classes:\n")[1].replace("own", "other")

    def test_a_built_in_name(self) -> None:
        """A built-in class is loaded by its name alone."""
        assert load_class("public").name == "public"
        assert load_class("public", "public") == load_class("public#public")

    def test_a_class_is_itself(self) -> None:
        """A class that is loaded already is returned as it is."""
        own = load_class("public")
        assert load_class(own) is own

    def test_a_file_of_one_class(self, write: Write) -> None:
        """A file with one class needs no name, as text and as a path."""
        path = write()
        assert load_class(path) == load_class(str(path))

    def test_one_of_several(self, write: Write) -> None:
        """The class is named beside the file or behind `#`."""
        path = write(text=self.TWO)
        assert load_class(path, "other").name == "other"
        assert load_class(f"{path}#other").name == "other"
        assert [item.name for item in load_classes(path)] == ["own", "other"]

    def test_several_without_a_name(self, write: Write) -> None:
        """Nothing is chosen by chance."""
        with pytest.raises(PolicyError, match="has several classes: name one of own, other"):
            load_class(write(text=self.TWO))

    def test_a_name_that_is_not_there(self, write: Write) -> None:
        """An unknown class is refused with those that are there."""
        path = write(text=self.TWO)
        for source, name in ((path, "othr"), (f"{path}#othr", None)):
            with pytest.raises(
                PolicyError, match=r"no security class `othr` \(did you mean `other`"
            ):
                load_class(source, name)
        with pytest.raises(PolicyError, match="no security class `x`"):
            load_class("public#x")

    def test_a_file_with_a_hash_in_its_name(self, tmp_path: Path) -> None:
        """A path that exists is that file, whatever its name holds."""
        path = tmp_path / "own#2.yaml"
        path.write_text(BASE, "utf-8")
        assert load_class(path).name == load_class(str(path)).name == "own"

    @pytest.mark.parametrize("name", ["pubilc", "", "#", "x\x00y", "x" * 5000, "a/b"])
    def test_what_is_neither_name_nor_file(self, name: str) -> None:
        """An unknown name is refused with the built-in ones."""
        with pytest.raises(PolicyError, match="critical, internal, public, regulated, research"):
            load_class(name)

    @pytest.mark.parametrize("name", ["missing.yaml", "x\x00y.yaml", "."])
    def test_what_cannot_be_read(self, name: str) -> None:
        """A path that is no readable file is refused by name."""
        with pytest.raises(PolicyError, match="cannot be read"):
            load_class(name)

    def test_the_working_directory_cannot_change_a_built_in_class(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file or folder called like a built-in class is not taken for it."""
        path = write(text=BASE.replace("own", "public"))
        path.rename(path.with_name("public"))
        monkeypatch.chdir(path.parent)
        assert load_class("public") == load_class(BUILTIN / "public.yaml")
        assert load_class("./public").rank == 3
        assert load_class(Path("public")).description == ""


class TestStricter:
    """The class of the next higher rank in the same policy."""

    def policy(self) -> Policy:
        """Return one of three classes, the highest first."""
        own = load_class("public").model_dump()
        ranks = {"high": 9, "low": 1, "middle": 5}
        classes = [own | {"name": name, "rank": rank} for name, rank in ranks.items()]
        return Policy.model_validate({"classes": classes})

    def test_the_next_one(self) -> None:
        """The nearest in rank counts, wherever it stands; it knows the next in turn."""
        high, low, middle = self.policy().classes
        assert high.stricter is None
        assert low.stricter == middle
        assert middle.stricter == high
        assert low.stricter is not None
        assert low.stricter.stricter == high

    def test_built_in_classes_are_one_policy(self) -> None:
        """Each knows the next, as an object, by its file's text alone it does not."""
        for low, high in pairwise(builtin_classes()):
            assert load_class(low.name).stricter == high
            assert low.stricter == high
        assert load_class("critical").stricter is None
        assert load_class(BUILTIN / "public.yaml").stricter is None

    def test_a_changed_class_keeps_its_policy(self) -> None:
        """One of another rank has another class above it."""
        _, low, _ = self.policy().classes
        assert low.with_priors({"violence": 0.1}).stricter == low.stricter
        raised = low.model_copy(update={"rank": 6}).stricter
        assert raised is not None
        assert raised.name == "high"

    def test_it_can_be_sent_to_another_process(self) -> None:
        """There it knows the others, too."""
        _, low, _ = self.policy().classes
        for item in (low, load_class("regulated")):
            there = pickle.loads(pickle.dumps(item))
            assert there == item
            assert there.stricter == item.stricter is not None

    def test_it_is_no_part_of_the_class(self) -> None:
        """Equal are classes that ask for the same; one that was made in Python stands alone."""
        _, low, _ = self.policy().classes
        alone = SecurityClass.model_validate(low.model_dump())
        assert alone == low
        assert alone.stricter is None
        assert alone != low.model_copy(update={"rank": 2})
        assert alone != low.model_dump()

    def test_heads_of_the_next_one_are_in_their_place(self, write: Write, tmp_path: Path) -> None:
        """They are as spelled out as a class's own."""
        new_head().write(tmp_path / "voice.json")
        second = BASE.split("classes:\n")[1].replace("own", "strict").replace("3\n", "4\n")
        path = write(more=second + "    heads: [voice.json]\n")
        above = load_class(path, "own").stricter
        assert above is not None
        assert above.heads == (str(tmp_path / "voice.json"),)

    def test_a_head_scores_responses_alone(self, write: Write, tmp_path: Path) -> None:
        """A limit on its category in the input would never act."""
        new_head().write(tmp_path / "voice.json")
        more = "    heads: [voice.json]\n    input: {limits: {brand_voice: {act: 0.5}}}\n"
        (problem,) = problems(write(more=more))
        assert problem.startswith("10: `classes[0].input.limits.brand_voice`: in what the model")
        load_class(write(more=more), extra_categories=["brand_voice"])


class TestMessages:
    """Which language the end user reads."""

    @pytest.fixture
    def own(self) -> SecurityClass:
        """Return a class with messages in several languages."""
        tags = ("en", "de", "pt-BR", "zh-Hant")
        messages = {tag: {"blocked": tag, "replaced": tag} for tag in tags}
        limits = {"violence": {"flag": 0.5}}
        values = {"name": "x", "rank": 1, "limits": limits, "messages": messages}
        return SecurityClass.model_validate(values | {"language": "de"})

    @pytest.mark.parametrize(
        ("asked", "got"),
        [
            (None, "de"),
            ("", "de"),
            ("en", "en"),
            ("en-GB", "en"),
            ("EN", "en"),
            ("pt-br", "pt-BR"),
            ("pt_BR", "pt-BR"),
            ("pt", "de"),
            ("zh-Hant-TW", "zh-Hant"),
            ("zh-Hans", "de"),
            ("fr", "de"),
            ("nonsense!", "de"),
        ],
    )
    def test_the_closest_language_is_used(
        self, own: SecurityClass, asked: str | None, got: str
    ) -> None:
        """A tag falls back to a wider one and at last to the class's own language."""
        assert own.messages_in(asked).blocked == got

    @pytest.mark.parametrize("name", NAMES)
    def test_built_in_classes_speak_the_same_languages(self, name: str) -> None:
        """Every built-in class has every message in every language, and nothing else differs."""
        own = load_class(name)
        assert list(own.messages) == ["en", "de", "fr", "es"]
        texts = [m for item in own.messages.values() for m in item.model_dump().values()]
        assert len(set(texts)) == 12
        assert all("{category}" in item.redacted for item in own.messages.values())


class TestFrozen:
    """A class that was loaded stays as it is."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda c: setattr(c, "shadow", True),
            lambda c: setattr(c, "limits", {}),
            lambda c: delattr(c, "limits"),
            lambda c: setattr(c.limits["violence"], "act", 1.0),
            lambda c: setattr(c.prior, "default", 0.001),
            lambda c: setattr(c.journal, "actions", ()),
            lambda c: setattr(c.messages["en"], "blocked", "x"),
            lambda c: setattr(c, "new", 1),
        ],
    )
    def test_no_attribute_can_be_set(self, change: Callable[[SecurityClass], None]) -> None:
        """Neither the class nor anything in it takes another value."""
        with pytest.raises(ValidationError):
            change(load_class("public"))

    @pytest.mark.parametrize("name", ["limits", "messages", "categories"])
    def test_no_mapping_can_be_changed(self, name: str) -> None:
        """Limits, messages and priors take no new entry and lose none."""
        own = load_class("public")
        mapping: Any = own.prior.categories if name == "categories" else getattr(own, name)
        key = next(iter(mapping))
        for method, arguments in (
            ("__setitem__", (key, None)),
            ("__delitem__", (key,)),
            ("clear", ()),
            ("update", ({},)),
            ("pop", (key,)),
        ):
            with pytest.raises(AttributeError):
                getattr(mapping, method)(*arguments)

    def test_what_it_was_made_from_can_change(self) -> None:
        """A class does not follow the dictionaries that it was made from."""
        values = load_class("public").model_dump()
        own = SecurityClass.model_validate(values)
        values["limits"].clear()
        values["messages"]["en"]["blocked"] = "x"
        values["prior"]["categories"]["violence"] = 0.9
        assert own == load_class("public")

    def test_sequences_are_tuples(self) -> None:
        """What a file lists cannot be appended to."""
        assert isinstance(load_class("public").journal.actions, tuple)
        assert isinstance(load_policy(BUILTIN / "public.yaml").classes, tuple)

    def test_it_can_be_sent_to_another_process(self) -> None:
        """A class survives pickling and copying, and is as frozen afterwards."""
        own = load_class("public")
        for other in (pickle.loads(pickle.dumps(own)), copy.deepcopy(own), copy.copy(own)):
            assert other == own
            assert type(other.limits) is type(own.limits)
            assert type(other.prior.categories) is type(own.prior.categories)


class TestMadeInPython:
    """Classes that no file defines are checked alike."""

    def test_a_policy_checks_names(self) -> None:
        """Two classes of one name are refused."""
        own = load_class("public")
        with pytest.raises(ValidationError, match="two classes are called `public`"):
            Policy(classes=(own, own))

    def test_a_limit_checks_its_order(self) -> None:
        """`act` below `flag` is refused, and so is a limit that says nothing."""
        with pytest.raises(ValidationError, match="below `flag`"):
            Limit(flag=0.5, act=0.4)
        with pytest.raises(ValidationError, match="neither `flag` nor `act`"):
            Limit()
        assert Limit(flag=0.5, act=0.5).act == 0.5

    def test_unknown_keys_are_refused(self) -> None:
        """A keyword that is no field is an error."""
        values: dict[str, Any] = {"blocked": "x", "replaced": "y", "colour": "red"}
        with pytest.raises(ValidationError):
            Messages(**values)


class TestBuiltin:
    """The five classes that come with the package."""

    def test_names_and_ranks_ascend(self) -> None:
        """They are listed from the lowest rank to the highest, and no two share a rank."""
        classes = builtin_classes()
        assert tuple(item.name for item in classes) == NAMES
        assert all(low.rank < high.rank for low, high in pairwise(classes))

    @pytest.mark.parametrize("name", NAMES)
    def test_each_file_holds_one_class_of_its_name(self, name: str) -> None:
        """A file's name is its class's name; each says whom it is for."""
        (own,) = load_policy(BUILTIN / f"{name}.yaml").classes
        assert own.name == name
        assert own.description.endswith(".")

    @pytest.mark.parametrize("name", NAMES)
    def test_each_is_closed_and_awake(self, name: str) -> None:
        """None lets a failure pass, none is in shadow mode, none keeps full texts."""
        own = load_class(name)
        assert (own.on_failure, own.shadow) == ("block", False)
        assert own.journal.text in {"redacted", "hashed"}
        assert set(own.journal.actions) == {"flag", "rewrite", "block"}

    def test_a_higher_rank_never_looks_away(self) -> None:
        """What a lower rank limits a higher one limits, too."""
        for low, high in pairwise(builtin_classes()):
            assert low.limits.keys() <= high.limits.keys()

    def test_a_higher_rank_never_needs_more_evidence(self) -> None:
        """Per category, the evidence that a limit needs never grows with the rank."""
        for low, high in pairwise(builtin_classes()):
            for category in low.limits:
                for kind in ("flag", "act"):
                    assert needed(high, category, kind) <= needed(low, category, kind), (
                        f"{high.name} is laxer than {low.name} for {category}"
                    )

    @pytest.mark.parametrize("category", CATEGORIES)
    def test_a_higher_rank_is_never_milder(self, category: str) -> None:
        """For the same evidence, the step of a higher rank is at least as grave."""
        classes = builtin_classes()
        for value in range(-40, 200):
            found = [decide({category: value / 10}, item) for item in classes]
            steps: list[Step] = [worst_step(r.step for r in reasons) for reasons in found]
            assert all(worst_step(pair) == pair[1] for pair in pairwise(steps)), steps

    def test_every_class_acts_on_something(self) -> None:
        """Even the lowest class takes credentials out."""
        assert all(item.limits["secret_leak"].act is not None for item in builtin_classes())


def needed(security_class: SecurityClass, category: str, kind: str) -> float:
    """Return the evidence at which a limit is reached; infinite where there is none."""
    bound = getattr(security_class.limits[category], kind)
    if bound is None:
        return math.inf
    return log_odds(bound) - log_odds(security_class.prior_of(category))


class TestSchema:
    """The JSON schema, for editors."""

    VALIDATOR = jsonschema.Draft202012Validator(policy_schema())

    def test_the_file_is_the_generated_one(self) -> None:
        """The published schema is up to date: `python -m guard.policy --write`."""
        assert (BUILTIN / "policy.schema.json").read_text("utf-8") == schema_text()

    def test_it_is_a_schema(self) -> None:
        """The schema itself is valid."""
        jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))

    def test_it_can_be_printed(self) -> None:
        """The module prints the schema when it is run."""
        out = io.StringIO()
        with redirect_stdout(out):
            policy.main([])
        assert out.getvalue() == schema_text()

    @pytest.mark.parametrize("name", NAMES)
    def test_it_accepts_the_built_in_files(self, name: str) -> None:
        """Every built-in file fits, and names the schema for editors."""
        text = (BUILTIN / f"{name}.yaml").read_text("utf-8")
        assert text.startswith("# yaml-language-server: $schema=policy.schema.json\n")
        self.VALIDATOR.validate(yaml.safe_load(text))

    def test_explanations_do_not_hang_on_how_python_keeps_docstrings(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Python 3.13 and newer take the indentation out of them; the schema stays the same."""
        before = policy_schema()
        for model in policy._MODELS:
            monkeypatch.setattr(model, "__doc__", inspect.cleandoc(model.__doc__ or ""))
        assert policy_schema() == before

    def test_every_key_is_explained(self) -> None:
        """Each property has a description, which editors show."""
        schema = policy_schema()
        for part in (schema, *schema["$defs"].values()):
            assert part["description"]
            assert all(item.get("description") for item in part["properties"].values())

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("rank: 3", "rank: x"),
            ("rank: 3", "rank: -1"),
            ("    rank: 3\n", ""),
            ("flag: 0.3", "flag: 1.5"),
            ("flag: 0.3", "flag: '0.3'"),
            ("flag: 0.3", "flg: 0.3"),
            ("remedy: block", "remedy: off"),
            ("name: own", "name: Own"),
            ("version: 1", "version: 2"),
            ("version: 1", "colour: 2"),
            ("      en:", "      en_US:"),
            ('"No."', '" "'),
        ],
    )
    def test_it_refuses_what_the_loader_refuses(self, write: Write, old: str, new: str) -> None:
        """An editor marks what would be refused at start."""
        path = write((old, new))
        assert problems(path)
        assert not self.VALIDATOR.is_valid(yaml.safe_load(path.read_text("utf-8")))


class TestAnything:
    """Whatever happens to a file."""

    TEXT = (BUILTIN / "public.yaml").read_text("utf-8")
    SNIPPETS = st.sampled_from(
        [
            *("", " ", "\n", "\t", "\x00", "\u2028", ":", "- ", "? ", "#", "%", "|"),
            *("{", "}", "[", "]", "'", '"', "&a", "*a", "!t", "!!int", "<<"),
            *("null", "true", ".nan", "-1", "1e999", "0.5", "é"),
        ]
    )

    @given(
        st.lists(
            st.tuples(
                st.integers(0, len(TEXT)), st.integers(0, 40), SNIPPETS | st.text(max_size=4)
            ),
            min_size=1,
            max_size=3,
        )
    )
    def test_a_changed_file_is_loaded_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int, str]]
    ) -> None:
        """Any damage gives a policy that is valid, or a `PolicyError`, and nothing else."""
        text = self.TEXT
        for at, length, snippet in edits:
            text = text[:at] + snippet + text[at + length :]
        path = tmp_path_factory.getbasetemp() / "changed.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            loaded = load_policy(path)
        except PolicyError as error:
            found = error.problems
            assert found
            assert all(problem.startswith(f"{path}:") for problem in found)
        else:
            assert Policy.model_validate(loaded.model_dump()) == loaded
