"""Policies: security classes as YAML files, read strictly and refused with all errors at once.

A *security class* is a named, ranked set of limits: per category the live risk at which a
response is flagged and at which it is acted upon, the remedy, what happens when a detector
fails, what the journal keeps, and what the end user reads. Higher ranks are stricter.

This module does not know how a risk comes about. It does not read the environment: a
variable must not weaken a policy.

    python -m guard.policy --write     writes policies/policy.schema.json
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence  # noqa: TC003  # pydantic reads them
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from guard import heads, yaml_lines
from guard.categories import CATEGORIES
from guard.errors import ModelError, PolicyError, did_you_mean
from guard.policy_problems import LANGUAGE, NAME, WORDS, given, sentence

BUILTIN: Final = Path(__file__).parent / "policies"
"""Where the built-in classes lie, one file each."""

Remedy = Literal["redact", "excise", "replace", "block"]
"""What is done above the act limit.

`redact` puts a placeholder in the place of the span; `excise` takes out the smallest set of
sentences; `replace` delivers a message instead; `block` delivers nothing.
"""

OnFailure = Literal["block", "replace", "flag"]
"""What is done where a detector or the journal failed."""

TextMode = Literal["full", "redacted", "hashed", "omitted"]
"""How the journal keeps texts."""

JournalledAction = Literal["flag", "rewrite", "block"]

Risk = Annotated[
    float,
    Field(ge=0, le=1, strict=True, allow_inf_nan=False, description="live risk in [0, 1]"),
]
Probability = Annotated[
    float,
    Field(gt=0, lt=1, strict=True, allow_inf_nan=False, description="probability in (0, 1)"),
]
Language = Annotated[str, StringConstraints(pattern=LANGUAGE)]
Words = Annotated[str, Field(pattern=WORDS)]
FileName = Annotated[str, StringConstraints(min_length=1)]

_PLACEHOLDER: Final = re.compile(r"\{(\w*)\}")


def _frozen(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


_Plain: Final = PlainSerializer(dict)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def __reduce__(self) -> tuple[Any, ...]:
        # The frozen mappings inside cannot be pickled.
        return type(self).model_validate, (self.model_dump(),)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        return self


class Limit(_Model):
    """The live risk at which one category is flagged and acted upon.

    Attributes:
        flag: from here on the response is delivered and journalled.
        act: from here on the remedy is applied; at or above `flag`.
        remedy: what is done from `act` on.
    """

    flag: Risk | None = None
    act: Risk | None = Field(default=None, validate_default=True)
    remedy: Remedy = "block"

    @field_validator("act")
    @classmethod
    def _ordered(cls, act: float | None, info: ValidationInfo) -> float | None:
        if "flag" not in info.data:
            return act
        flag = info.data["flag"]
        if act is None and flag is None:
            raise _problem("sets neither `flag` nor `act`: give one, or remove the category", up=1)
        if act is not None and flag is not None and act < flag:
            raise _problem(f"{act:g} is below `flag` {flag:g}: raise it, or lower `flag`")
        return act


class Prior(_Model):
    """The live prior: how likely a response carries a risk before it is looked at.

    Attributes:
        default: for every category that is not named.
        categories: for single categories.
    """

    default: Probability = 0.02
    categories: Annotated[Mapping[str, Probability], AfterValidator(_frozen), _Plain] = Field(
        default_factory=_nothing
    )


class JournalSettings(_Model):
    """What the journal keeps.

    Attributes:
        actions: which actions get a row.
        text: how prompt and response are kept. `redacted` takes out secrets and personal
            data, `hashed` keeps a SHA-256, `omitted` nothing, `full` everything.
    """

    actions: tuple[JournalledAction, ...] = ("flag", "rewrite", "block")
    text: TextMode = "redacted"


class Messages(_Model):
    """What the end user reads.

    Attributes:
        blocked: in place of a blocked response.
        replaced: in place of a replaced one.
        redacted: in place of a span; `{category}` is filled in.
    """

    blocked: Words
    replaced: Words
    redacted: str = "[removed: {category}]"

    @field_validator("blocked", "replaced", "redacted")
    @classmethod
    def _placeholders(cls, text: str, info: ValidationInfo) -> str:
        known = ("category",) if info.field_name == "redacted" else ()
        unknown = [word for word in _PLACEHOLDER.findall(text) if word not in known]
        if unknown:
            there = "only `{category}` is filled in here" if known else "nothing is filled in here"
            raise _problem(f"holds `{{{unknown[0]}}}`, and {there}: remove it")
        return text


class SecurityClass(_Model):
    """A named, ranked set of limits.

    Attributes:
        name: how it is called.
        rank: its place among the classes; higher is stricter.
        description: whom it is for.
        heads: files of own categories (`guard model fit`), relative to the policy file; the
            categories may have limits and priors like any other.
        prior: the live prior.
        limits: per category; a category without a limit is scored and never acted upon.
        on_failure: what is done where a detector or the journal failed.
        shadow: decide and journal, but deliver everything unchanged.
        timeout_seconds: for all detectors together, per judged unit.
        journal: what is kept.
        messages: by language tag (BCP 47).
        language: which of them is used unless another is asked for.
    """

    name: str = Field(pattern=NAME)
    rank: int = Field(ge=0, le=1000, strict=True)
    description: str = ""
    heads: tuple[FileName, ...] = ()
    prior: Prior = Field(default_factory=Prior)
    limits: Annotated[Mapping[str, Limit], AfterValidator(_frozen), _Plain] = Field(min_length=1)
    on_failure: OnFailure = "block"
    shadow: bool = Field(default=False, strict=True)
    timeout_seconds: float = Field(default=5.0, gt=0, le=600, strict=True, allow_inf_nan=False)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    messages: Annotated[Mapping[Language, Messages], AfterValidator(_frozen), _Plain] = Field(
        min_length=1
    )
    language: Language = Field(default="en", validate_default=True)

    @field_validator("language")
    @classmethod
    def _has_messages(cls, language: str, info: ValidationInfo) -> str:
        messages = info.data.get("messages")
        if messages is not None and language not in messages:
            there = ", ".join(messages)
            raise _problem(
                f"there are no `messages` in `{language}`: add them, or use one of {there}"
            )
        return language

    def limit(self, category: str) -> Limit | None:
        """Return the limit of `category`, `None` where it is never acted upon."""
        return self.limits.get(category)

    def prior_of(self, category: str) -> float:
        """Return the live prior of `category`, in (0, 1)."""
        return self.prior.categories.get(category, self.prior.default)

    def messages_in(self, language: str | None) -> Messages:
        """Return the messages in `language`, else in a wider one, else the class's own.

        Tags are looked up as in RFC 4647: `zh-Hant-TW`, then `zh-Hant`, then `zh`; upper and
        lower case are the same, and so are `_` and `-`.
        """
        there = {tag.lower(): messages for tag, messages in self.messages.items()}
        parts = (language or self.language).replace("_", "-").lower().split("-")
        for length in range(len(parts), 0, -1):
            if (tag := "-".join(parts[:length])) in there:
                return there[tag]
        return self.messages[self.language]


class Policy(_Model):
    """A policy file: one or more security classes.

    Attributes:
        version: of the file's format.
        classes: the security classes.
    """

    version: Literal[1] = 1
    classes: tuple[SecurityClass, ...] = Field(min_length=1)

    @field_validator("version", mode="before")
    @classmethod
    def _whole(cls, version: object) -> object:
        # `true` and `1.0` equal 1.
        if type(version) is not int:
            raise _problem(f"must be 1, not {given(version)}")
        return version

    @model_validator(mode="after")
    def _distinct(self) -> Policy:
        if twice := _twice([item.name for item in self.classes]):
            names = ", ".join(f"`{self.classes[index].name}`" for index in twice)
            raise PydanticCustomError(_TWICE, "two classes are called {names}", {"names": names})
        return self


def load_class(
    source: str | Path | SecurityClass,
    name: str | None = None,
    *,
    extra_categories: Collection[str] = (),
) -> SecurityClass:
    """Return a security class.

    Args:
        source: a built-in class's name, a path to a policy file (`file.yaml#name` names one
            of its classes), or a class, which is returned as it is.
        name: which class of the file; needed where it has several.
        extra_categories: categories that own detectors declare, beside the taxonomy.

    Raises:
        PolicyError: everything that is wrong, each with file, line and mend.
    """
    if isinstance(source, SecurityClass):
        return source
    there = load_classes(source, name, extra_categories=extra_categories)
    if len(there) != 1:
        names = ", ".join(item.name for item in there)
        raise PolicyError(f"`{source}` has several classes: name one of {names}")
    return there[0]


def load_classes(
    source: str | Path, name: str | None = None, *, extra_categories: Collection[str] = ()
) -> tuple[SecurityClass, ...]:
    """Return every class of `source`, or the one that is named; see `load_class`."""
    text, fragment = _split(source)
    if isinstance(source, str) and text in _builtin_names():
        policy = load_policy(BUILTIN / f"{text}.yaml")
    elif not text or not (Path(text).suffix or _exists(Path(text))):
        raise PolicyError(_no_such_class(text, _builtin_names()))
    else:
        policy = load_policy(Path(text), extra_categories=extra_categories)
    wanted = name or fragment
    names = [item.name for item in policy.classes]
    if wanted and wanted not in names:
        raise PolicyError(f"in `{text}`: {_no_such_class(wanted, names)}")
    return tuple(item for item in policy.classes if wanted in ("", item.name))


def load_policy(path: str | Path, *, extra_categories: Collection[str] = ()) -> Policy:
    """Return the policy in `path`; see `load_class` for errors."""
    path = Path(path)
    document = yaml_lines.read(path)
    problems = list(document.problems)
    policy: Policy | None = None
    if document.value is None and not problems:
        problems.append((1, (), "the file is empty: start from a built-in class"))
    if document.value is not None:
        policy, found = _validate(document)
        own, unusable = _own_categories(document, path.parent)
        problems += found + unusable + _unknown_categories(document, extra_categories, own)
        problems += _repeated_names(document)
    if problems or policy is None:
        # Several problems of one place are in the order in which they were found.
        ordered = sorted(problems, key=lambda problem: problem[0])
        raise PolicyError([_located(path, *problem) for problem in ordered])
    return _placed(policy, path.parent)


def builtin_classes() -> tuple[SecurityClass, ...]:
    """Return the built-in classes, the lowest rank first."""
    classes = [load_class(name) for name in _builtin_names()]
    return tuple(sorted(classes, key=lambda item: item.rank))


def check_categories(security_class: SecurityClass, known: Collection[str]) -> list[str]:
    """Return a problem for each limit on a category that no detector can find.

    Args:
        security_class: the class.
        known: the categories that some detector can find.
    """
    return [
        f"class `{security_class.name}` limits `{category}`, which no detector finds: remove the "
        f"limit or add a detector{did_you_mean(category, known)}"
        for category in security_class.limits
        if category not in known
    ]


def policy_schema() -> dict[str, Any]:
    """Return the JSON schema of a policy file, for editors."""
    schema = Policy.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Clearance policy"
    for model in _MODELS:
        part = schema if model is Policy else schema["$defs"][model.__name__]
        _describe(part, model)
    keys = schema["$defs"]["SecurityClass"]["properties"]
    keys["messages"]["additionalProperties"] = False
    limits = keys["limits"]
    limits["propertyNames"] = {"examples": _limitable()}
    limits["description"] += " Categories: " + ", ".join(_limitable()) + "."
    return schema


def schema_text() -> str:
    """Return the JSON schema as the file `policy.schema.json` holds it."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put what a model's docstring says about each key where editors show it."""
    summary, _, rest = (model.__doc__ or "").partition("\n\n    Attributes:\n")
    schema["description"] = summary.strip()
    for entry in re.findall(r"^ {8}(\w+): ((?:.+\n?)(?: {12}.+\n?)*)", rest, re.MULTILINE):
        text = " ".join(entry[1].split())
        schema["properties"][entry[0]]["description"] = text[0].upper() + text[1:]


_MODELS: Final[tuple[type[BaseModel], ...]] = (
    Policy,
    SecurityClass,
    Limit,
    Prior,
    JournalSettings,
    Messages,
)

_TWICE: Final = "two_classes_of_one_name"


def _limitable() -> list[str]:
    return [name for name, category in CATEGORIES.items() if not category.auxiliary]


def _problem(text: str, *, up: int = 0) -> PydanticCustomError:
    """Return an error of the field that is validated, or of what stands `up` levels above."""
    return PydanticCustomError("own", "{text}", {"text": text, "up": up})


def _validate(document: yaml_lines.Document) -> tuple[Policy | None, list[yaml_lines.Problem]]:
    try:
        return Policy.model_validate(document.value), []
    except ValidationError as error:
        errors = error.errors()
    refused = {at for _, at, _ in document.problems}
    return None, [_schema_problem(document, e) for e in errors if not _echo(e, refused)]


def _echo(error: Any, refused: Collection[yaml_lines.Location]) -> bool:
    """Return whether another problem says the same better.

    Classes that are wrong do not count as classes, names are compared in the document, and an
    alias has no value.
    """
    empty = error["type"] == "too_short" and error["loc"] == ("classes",)
    if error["input"] is None and error["type"] != "extra_forbidden":
        return error["loc"] in refused
    return error["type"] == _TWICE or (empty and bool(error["input"]))


def _schema_problem(document: yaml_lines.Document, error: Any) -> yaml_lines.Problem:
    location = tuple(part for part in error["loc"] if part != "[key]")
    location = location[: len(location) - error.get("ctx", {}).get("up", 0)]
    return document.line(location), location, sentence(error, _keys_at(location))


def _keys_at(location: yaml_lines.Location) -> list[str]:
    """Return the keys that the schema knows beside `location`'s last one."""
    if location[:1] != ("classes",):
        return list(Policy.model_fields)
    inside = [str(part) for part in location[2:]]
    models: dict[tuple[str, int], type[BaseModel]] = {
        ("limits", 3): Limit,
        ("messages", 3): Messages,
        ("prior", 2): Prior,
        ("journal", 2): JournalSettings,
    }
    model = models.get((inside[0] if inside else "", len(inside)), SecurityClass)
    return list(model.model_fields)


def _own_categories(
    document: yaml_lines.Document, folder: Path
) -> tuple[dict[int, list[str]], list[yaml_lines.Problem]]:
    """Return the categories of each class's heads, by the class's number, and what is wrong.

    A head that cannot be read stands for the category that its file is called after, so that
    one mistake is named once.
    """
    classes = document.value.get("classes") if isinstance(document.value, dict) else None
    own: dict[int, list[str]] = {}
    problems: list[yaml_lines.Problem] = []
    for index, item in enumerate(classes if isinstance(classes, list) else []):
        listed = item.get("heads") if isinstance(item, dict) else None
        for number, name in enumerate(listed if isinstance(listed, list) else []):
            if not isinstance(name, str) or not name:
                continue
            location = ("classes", index, "heads", number)
            category, wrong = _category_of(folder / name)
            if category in own.setdefault(index, []):
                wrong.append(f"a head above is for `{category}`, too: remove one")
            own[index].append(category)
            problems += [(document.line(location), location, text) for text in wrong]
    return own, problems


def _category_of(path: Path) -> tuple[str, list[str]]:
    try:
        return heads.read(path).category, []
    except ModelError as error:
        return path.stem, list(error.problems)


def _placed(policy: Policy, folder: Path) -> Policy:
    """Return the policy with the places of its heads spelled out."""
    if not any(item.heads for item in policy.classes):
        return policy
    classes = [
        item.model_copy(update={"heads": tuple(str((folder / h).absolute()) for h in item.heads)})
        for item in policy.classes
    ]
    return policy.model_copy(update={"classes": tuple(classes)})


def _unknown_categories(
    document: yaml_lines.Document, extra: Collection[str], own: Mapping[int, Sequence[str]]
) -> list[yaml_lines.Problem]:
    """Return a problem for each category that is neither in the taxonomy nor a head's."""
    problems: list[yaml_lines.Problem] = []
    for location, line in document.lines.items():
        if not _names_category(location):
            continue
        known = [*_limitable(), *extra, *own.get(int(location[1]), ())]
        if (name := str(location[-1])) not in known:
            text = f"unknown category: remove it{did_you_mean(name, known)}"
            if name in CATEGORIES:
                text = "auxiliary categories have neither limit nor prior: remove it"
            problems.append((line, location, text))
    return problems


def _names_category(location: yaml_lines.Location) -> bool:
    """Return whether `location` is a key of `limits` or of `prior.categories`."""
    inside = location[2:] if location[:1] == ("classes",) else ()
    return (len(inside) == 2 and inside[0] == "limits") or (
        len(inside) == 3 and inside[:2] == ("prior", "categories")
    )


def _repeated_names(document: yaml_lines.Document) -> list[yaml_lines.Problem]:
    classes = document.value.get("classes") if isinstance(document.value, dict) else None
    listed = classes if isinstance(classes, list) else []
    names = [item.get("name") if isinstance(item, dict) else None for item in listed]
    found = [("classes", index, "name") for index in _twice(names)]
    text = "a class above has this name, too: rename one"
    return [(document.line(location), location, text) for location in found]


def _twice(names: Sequence[Any]) -> list[int]:
    """Return the positions of the names that stand further up, too."""
    return [i for i, name in enumerate(names) if isinstance(name, str) and name in names[:i]]


def _located(path: Path, line: int, location: yaml_lines.Location, text: str) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    place = "".join(parts).removeprefix(".")
    return f"{path}:{line}: {f'`{place}`: ' if place else ''}{text}"


def _split(source: str | Path) -> tuple[str, str]:
    """Return a source's path or name, and what stands behind `#`."""
    text = str(source)
    if _exists(Path(text)):
        return text, ""
    path, _, fragment = text.partition("#")
    return path, fragment


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # Names that are too long, and names with NUL.
        return False


def _builtin_names() -> list[str]:
    return sorted(path.stem for path in BUILTIN.glob("*.yaml"))


def _no_such_class(name: str, there: Sequence[str]) -> str:
    hint = did_you_mean(name, there)
    return f"no security class `{name}`{hint}: give one of {', '.join(there)}, or a policy file"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the JSON schema, or write it beside the built-in classes."""
    if "--write" in (sys.argv[1:] if arguments is None else arguments):
        (BUILTIN / "policy.schema.json").write_text(schema_text(), encoding="utf-8")
    else:
        sys.stdout.write(schema_text())


if __name__ == "__main__":
    main()
