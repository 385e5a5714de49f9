"""Probes: what a model is asked in an audit, why, and what a bad answer would be.

Probes of one *group* ask the same under several *conditions*, so that a mechanism's effect is a
difference within groups: a request that must be refused beside a benign look-alike (shortcut),
one question in several registers (style).

This module does not know any backend, and it does not judge answers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import (  # noqa: TC003  # pydantic
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from guard.audit.probe_files import SUFFIXES, Entry, File, located, read
from guard.categories import CATEGORIES
from guard.errors import ConfigurationError, did_you_mean
from guard.policy_problems import WORDS, given, sentence
from guard.yaml_lines import Location, Problem

BUILTIN: Final = Path(__file__).parent / "probes"
"""Where the built-in probes lie."""

ProbeMechanism = Literal["persona", "shortcut", "style", "policy", "misinformation", "exposure"]
"""What a probe looks for; see `guard.categories`."""

Expected = Literal["refuse", "comply", "any"]
"""What a sound model does: decline, help, or either as long as the answer does no harm."""

Kind = Literal["single", "contrast", "style", "agentic", "escalation"]
"""A probe's design.

`single` stands alone; `contrast` and `style` are parts of a group; `agentic` has tools;
`escalation` has several user turns.
"""

Shape = Literal["word", "code", "token", "name", "email", "number"]
"""What a canary looks like: `word` an invented word, `code` such as `K7QF-2MXR`, `token` 32
letters and digits, `name` an invented person, `email` an address in `.example`, `number` eight
digits."""

NEUTRAL: Final = "neutral"
"""The condition that others of a style group are compared with."""

SIDES: Final[Mapping[str, Expected]] = {"harmful": "refuse", "benign": "comply"}
"""The conditions of a contrast, and what is expected of each."""

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_./-]{0,119}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TOOL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_PLACE: Final = re.compile(r"\{(\w+)\}")

Words = Annotated[str, Field(pattern=WORDS)]


def _named(pattern: re.Pattern[str], form: str) -> Any:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must not be {text[:40]!r}: use {form}")
        return text

    return AfterValidator(check)


def _several(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be text, or a list of texts, not {given(value)}")  # noqa: TRY004
    return value


Identifier = Annotated[
    str, _named(_ID, "lower-case letters, digits and `-`, `_`, `.`, `/`, at most 120")
]
Name = Annotated[str, _named(_NAME, "lower-case letters, digits and `_`, beginning with a letter")]
Texts = Annotated[tuple[Words, ...], BeforeValidator(_several)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tool(_Model):
    """A function that the model may call, and what it returns.

    Attributes:
        name: of the function.
        description: what the model reads about it.
        parameters: JSON schema of its arguments, of type `object`.
        results: what the first call returns, the second and so on; the last one is repeated.
        off_limits: whether to call it at all exceeds the task.
    """

    name: Annotated[str, _named(_TOOL, "letters, digits, `_` and `-`, at most 64")]
    description: Words
    parameters: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}}, validate_default=True
    )
    results: Texts = ("ok",)
    off_limits: bool = Field(default=False, strict=True)

    @field_validator("parameters")
    @classmethod
    def _object(cls, schema: dict[str, Any]) -> dict[str, Any]:
        if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
            raise ValueError("must be a JSON schema with `type: object` and `properties`")
        return schema

    @field_validator("results")
    @classmethod
    def _some(cls, results: tuple[str, ...]) -> tuple[str, ...]:
        if not results:
            raise ValueError("is empty: write what a call returns, or remove it")
        return results

    def function(self) -> dict[str, Any]:
        """Return the tool in the form of OpenAI's `tools`."""
        described = self.model_dump(include={"name", "description", "parameters"})
        return {"type": "function", "function": described}

    def result(self, call: int) -> str:
        """Return what the `call`-th call of the tool returns, zero-based."""
        return self.results[min(call, len(self.results) - 1)]


class Probe(_Model):
    """One thing that a model is asked.

    Attributes:
        id: unique and stable: an id is never used for another question.
        mechanism: what it looks for.
        category: what a bad answer would be; `refusal` where declining is the bad answer.
        why: one sentence that says what the answer shows.
        turns: what the user says, turn by turn; the answers between are the model's own.
        system: the system prompt.
        tools: what the model may call.
        canaries: name and shape of the strings that are made up for each audit and planted
            where a text says `{name}`; an answer that repeats one gives it away.
        expected: what a sound model does.
        group: the paired design it belongs to, `""` for none.
        condition: which of the group it is.
        same_as: id of the probe that it asks the same as, `""` for none; both count as one
            question. Any other name will do that all of them share.
        topic: what it is about, for reports.
    """

    id: Identifier
    mechanism: ProbeMechanism
    category: str
    why: Words
    turns: Texts
    system: str = ""
    tools: tuple[Tool, ...] = ()
    canaries: dict[Name, Shape] = {}
    expected: Expected = "any"
    group: str = ""
    condition: str = ""
    same_as: str = ""
    topic: str = ""

    @field_validator("category")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        own: Collection[str] = (info.context or {}).get("categories", ())
        if name not in (known := [*_answerable(), *own]):
            if name in CATEGORIES:
                raise ValueError(f"`{name}` is nothing that an answer can be: use another category")
            # A message that UTF-8 cannot write would not get out of pydantic.
            written = name.encode("utf-8", "backslashreplace").decode()
            raise ValueError(f"unknown category `{written}`{did_you_mean(name, known)}")
        return name

    @field_validator("turns")
    @classmethod
    def _asks(cls, turns: tuple[str, ...]) -> tuple[str, ...]:
        if not turns:
            raise ValueError("is empty: write what the user says")
        return turns

    @field_validator("tools")
    @classmethod
    def _distinct(cls, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
        names = [tool.name for tool in tools]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two tools are called `{twice[0]}`: rename one")
        return tools

    @field_validator("canaries")
    @classmethod
    def _planted(cls, canaries: dict[str, Shape], info: ValidationInfo) -> dict[str, Shape]:
        if not {"turns", "system", "tools"} <= info.data.keys():
            return canaries  # what they would be planted in is wrong itself
        results = [text for tool in info.data["tools"] for text in tool.results]
        texts = [info.data["system"], *info.data["turns"], *results]
        there = {name for text in texts for name in _PLACE.findall(text)}
        if lost := sorted(canaries.keys() - there):
            raise ValueError(f"no text says `{{{lost[0]}}}`: plant it, or remove it")
        if canaries and (unknown := sorted(there - canaries.keys())):
            hint = did_you_mean(unknown[0], canaries)
            raise ValueError(f"a text says `{{{unknown[0]}}}`, which is none of them{hint}: add it")
        return canaries

    @model_validator(mode="after")
    def _sided(self) -> Probe:
        if bool(self.group) != bool(self.condition):
            raise ValueError("has only one of `group` and `condition`: give both, or neither")
        side = SIDES.get(self.condition, self.expected)
        if self.expected != side:
            raise ValueError(f"is the {self.condition} side, which expects `{side}`: change one")
        if (self.category == "refusal") != (self.expected == "comply"):
            raise ValueError("`category: refusal` goes with `expected: comply`: change one")
        return self

    @property
    def kind(self) -> Kind:
        """The design that it is part of."""
        if self.group:
            return "contrast" if self.condition in SIDES else "style"
        if self.tools:
            return "agentic"
        return "escalation" if len(self.turns) > 1 else "single"

    @property
    def unit(self) -> str:
        """What is sampled and counted as one: the group, else the question."""
        return self.group or self.same_as or self.id

    @property
    def asked(self) -> str:
        """All that decides what is asked, as a text; probes that ask the same have the same."""
        return json.dumps(
            [self.system, self.turns, [tool.model_dump(mode="json") for tool in self.tools]]
        )

    def plant(self, seed: int) -> Planted:
        """Return the probe with its canaries made up and in place; `seed` decides them."""
        made = {
            name: _made_up(shape, Random(f"{seed}/{self.id}/{name}"))  # noqa: S311  # made up
            for name, shape in self.canaries.items()
        }

        def fill(text: str) -> str:
            return _PLACE.sub(lambda place: made.get(place[1], place[0]), text)

        tools = [
            tool.model_copy(update={"results": tuple(map(fill, tool.results))})
            for tool in self.tools
        ]
        filled = {
            "system": fill(self.system),
            "turns": tuple(map(fill, self.turns)),
            "tools": tuple(tools),
        }
        return Planted(self.model_copy(update=filled), made)


@dataclass(frozen=True, slots=True)
class Planted:
    """A probe that can be sent.

    Attributes:
        probe: with all canaries in place.
        canaries: their names and what was planted.
    """

    probe: Probe
    canaries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that probes came from.

    Attributes:
        name: of the file.
        version: what the file says, else how the SHA-256 of its bytes begins.
        probes: how many it has.
    """

    name: str
    version: str
    probes: int


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """Probes that are asked together.

    Attributes:
        probes: in the order of their files, unless `ordered`.
        sources: where they came from.
    """

    probes: tuple[Probe, ...]
    sources: tuple[Source, ...] = ()

    def __iter__(self) -> Iterator[Probe]:
        return iter(self.probes)

    def __len__(self) -> int:
        return len(self.probes)

    @property
    def version(self) -> str:
        """See `probe_set_version`."""
        return probe_set_version(self.probes)

    def only(self, *mechanisms: ProbeMechanism) -> ProbeSet:
        """Return the probes of `mechanisms`; a group has one mechanism, so it stays whole."""
        return replace(self, probes=tuple(p for p in self.probes if p.mechanism in mechanisms))

    def ordered(self, seed: int) -> ProbeSet:
        """Return the probes in random order, groups together, mechanisms and designs mixed evenly.

        Every stretch from the beginning is a fair sample, so that an audit may stop early. The
        order of two units of one mechanism and design does not depend on what else is there.
        """
        homes: dict[str, tuple[str, Kind]] = {}
        for probe in self.probes:
            own = (probe.mechanism, probe.kind)
            homes[probe.unit] = min(own, homes.get(probe.unit, own))
        strata: dict[tuple[str, Kind], dict[str, list[Probe]]] = defaultdict(dict)
        for probe in self.probes:
            strata[homes[probe.unit]].setdefault(probe.unit, []).append(probe)
        placed = []
        for units in strata.values():
            names = sorted(units, key=lambda name: _drawn(seed, name))
            placed += [
                ((at + 0.5) / len(names), _drawn(seed, name), units[name])
                for at, name in enumerate(names)
            ]
        placed.sort(key=lambda entry: entry[:2])
        return replace(self, probes=tuple(probe for _, _, unit in placed for probe in unit))

    def sample(self, size: int, *, seed: int) -> ProbeSet:
        """Return the first whole units of `ordered`, at most `size` probes in all.

        Raises:
            ConfigurationError: not even the first unit fits.
        """
        ordered = self.ordered(seed).probes
        end = min(size, len(ordered))
        while 0 < end < len(ordered) and ordered[end - 1].unit == ordered[end].unit:
            end -= 1
        if end < 1:
            raise ConfigurationError(f"a sample of {size} holds no probe: ask for more")
        return replace(self, probes=ordered[:end])


@cache
def load_builtin() -> ProbeSet:
    """Return the probes that come with Clearance; they are read once."""
    return load(BUILTIN)


def load(path: str | Path, *, extra_categories: Collection[str] = ()) -> ProbeSet:
    """Return the probes of a file, or of all files of a folder.

    Args:
        path: `.yaml`, `.yml`, `.jsonl`, `.csv` or `.tsv`, or a folder; others in it are left
            alone.
        extra_categories: categories of one's own, beside the taxonomy.

    Raises:
        ConfigurationError: everything that is wrong, each with file, line and mend.
    """
    path = Path(path)
    if path.is_dir():
        paths = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not paths:
            raise ConfigurationError(f"{path}: holds no probes ({', '.join(SUFFIXES)})")
    elif path.suffix in SUFFIXES:
        paths = [path]
    else:
        ends = ", ".join(SUFFIXES)
        raise ConfigurationError(f"{path}: is no folder and ends in none of {ends}")
    return _checked([read(path) for path in paths], extra_categories)


def merged(sets: Sequence[ProbeSet]) -> ProbeSet:
    """Return the probes of all `sets` as one.

    Raises:
        ConfigurationError: an id stands in two of them.
    """
    probes = tuple(probe for one in sets for probe in one)
    ids = [probe.id for probe in probes]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise ConfigurationError([f"two probes are called `{name}`: rename one" for name in twice])
    return ProbeSet(probes, tuple(source for one in sets for source in one.sources))


def without_repeats(probes: Iterable[Probe], asked: Mapping[str, str]) -> tuple[Probe, ...]:
    """Return the probes, each that repeats another's question counting as one with it.

    Without that, who asks a question that is answered well a hundred times would look as if
    they had asked a hundred.

    Args:
        probes: parts of a group stay as they are.
        asked: what a probe asks, by its id; spacing and case make no difference, and a probe
            that is not there repeats nothing.
    """
    first: dict[str, str] = {}
    found = []
    for probe in probes:
        alone = not (probe.group or probe.same_as) and probe.id in asked
        text = " ".join(asked[probe.id].casefold().split()) if alone else ""
        other = first.setdefault(text, probe.id) if alone else probe.id
        found.append(probe if other == probe.id else probe.model_copy(update={"same_as": other}))
    return tuple(found)


def probe_set_version(probes: Collection[Probe]) -> str:
    """Return a SHA-256 over all that may change an answer or how it counts.

    The order of the probes does not matter, nor `why` and `topic`, which are for people.
    """
    said = [
        json.dumps(
            probe.model_dump(exclude={"why", "topic"}, exclude_defaults=True), sort_keys=True
        )
        for probe in sorted(probes, key=lambda probe: probe.id)
    ]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def _answerable() -> list[str]:
    """Return the categories that an answer can be of."""
    return [
        name
        for name, category in CATEGORIES.items()
        if name == "refusal" or not (category.auxiliary or category.side == "prompt")
    ]


# Canaries.

_LETTERS: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_SYLLABLES: Final = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def _made_up(shape: Shape, draw: Random) -> str:
    def word() -> str:
        return "".join(draw.choices(_SYLLABLES, k=4))

    match shape:
        case "word":
            return word()
        case "name":
            return f"{word().title()} {word().title()}"
        case "email":
            return f"{word()}@{word()}.example"
        case "number":
            return str(draw.randrange(10**7, 10**8))
        case "code":
            return "-".join("".join(draw.choices(_LETTERS, k=4)) for _ in range(2))
        case "token":
            return "".join(draw.choices(_LETTERS + _LETTERS.lower(), k=32))


def _drawn(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}/{unit}".encode()).digest()


# Checks.


def _checked(files: Sequence[File], extra: Collection[str]) -> ProbeSet:
    probes: list[Probe] = []
    problems: list[str] = []
    sources: list[Source] = []
    every = [entry for file in files for entry in file.entries]
    together = [*_twice(every), *_incomplete(every)]
    for file in files:
        found = list(file.problems)
        for entry in file.entries:
            try:
                values = {"categories": extra}
                probes.append(Probe.model_validate(entry.values, context=values))
            except ValidationError as error:
                found += [_problem(entry, one) for one in error.errors()]
        found += [(*entry.place(at), text) for entry, at, text in together if entry.file is file]
        # What is wrong with defaults is wrong with every probe: said once.
        once = sorted(dict.fromkeys(found), key=lambda problem: problem[0])
        problems += [located(file.path, *problem) for problem in once]
        sources.append(Source(file.path.name, file.version, len(file.entries)))
    if problems:
        raise ConfigurationError(problems)
    return ProbeSet(tuple(probes), tuple(sources))


Wrong = tuple[Entry, Location, str]
"""A entry, where in it, and what is wrong there."""


def _problem(entry: Entry, error: Any) -> Problem:
    location = tuple(part for part in error["loc"] if part != "[key]")
    keys = Tool.model_fields if location[:1] == ("tools",) else Probe.model_fields
    return (*entry.place(location), sentence(error, keys))


def _twice(every: Sequence[Entry]) -> Iterator[Wrong]:
    first: dict[str, Entry] = {}
    for entry in every:
        name = entry.values.get("id")
        if isinstance(name, str) and first.setdefault(name, entry) is not entry:
            line, _ = first[name].place(("id",))
            text = f"`{name}` is a probe of {first[name].file.path.name}:{line}, too: rename one"
            yield entry, ("id",), text


def _incomplete(every: Sequence[Entry]) -> Iterator[Wrong]:
    """Yield what is wrong with groups as a whole."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in every:
        values = entry.values
        if all(values.get(key) and isinstance(values[key], str) for key in ("group", "condition")):
            groups[values["group"]].append(entry)
    for name, members in groups.items():
        conditions = [entry.values["condition"] for entry in members]
        for text in _missing(name, conditions):
            yield members[0], ("group",), text
        for entry in members[1:]:
            if entry.values.get("mechanism") != members[0].values.get("mechanism"):
                text = f"group `{name}` has two mechanisms: give all its probes the same"
                yield entry, ("mechanism",), text


def _missing(name: str, conditions: Sequence[str]) -> Iterator[str]:
    contrast = any(side in SIDES for side in conditions)
    for condition in SIDES if contrast else (NEUTRAL,):
        if condition not in conditions:
            yield f"group `{name}` has no condition `{condition}`: add it"
    if contrast and (others := sorted(set(conditions) - SIDES.keys())):
        yield f"group `{name}` is a contrast and has a condition `{others[0]}`: remove it"
    if not contrast and set(conditions) <= {NEUTRAL}:
        yield f"group `{name}` has nothing to compare with `{NEUTRAL}`: add a condition"
    if twice := sorted({one for one in conditions if conditions.count(one) > 1}):
        yield f"group `{name}` has its condition `{twice[0]}` twice: remove one"
