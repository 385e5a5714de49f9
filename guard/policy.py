"""Policies: security classes as YAML files, read strictly and refused with all errors at once.

A *security class* is a named, ranked set of limits: per category the live risk at which a
response is flagged and at which it is acted upon, the remedy, what happens when a detector
fails, what the journal keeps, and what the end user reads. Higher ranks are stricter.

This module does not know how a risk comes about. It does not read the environment: a
variable must not weaken a policy.

    python -m guard.policy --write     writes policies/policy.schema.json
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from guard import yaml_lines
from guard.categories import CATEGORIES
from guard.errors import PolicyError

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

Risk = Annotated[float, Field(ge=0, le=1, strict=True, description="live risk in [0, 1]")]
Probability = Annotated[float, Field(gt=0, lt=1, strict=True, description="probability in (0, 1)")]


def _frozen(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


_Plain: Final = PlainSerializer(dict)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Model):
    """The live risk at which one category is flagged and acted upon.

    Attributes:
        flag: from here on the response is delivered and journalled.
        act: from here on the remedy is applied; at or above `flag`.
        remedy: what is done from `act` on.
    """

    flag: Risk | None = None
    act: Risk | None = None
    remedy: Remedy = "block"

    @model_validator(mode="after")
    def _ordered(self) -> Limit:
        if self.flag is None and self.act is None:
            raise ValueError("sets neither `flag` nor `act`: give one, or remove the category")
        if self.flag is not None and self.act is not None and self.act < self.flag:
            raise ValueError(f"`act` {self.act} is below `flag` {self.flag}: raise it")
        return self


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

    blocked: str = Field(min_length=1)
    replaced: str = Field(min_length=1)
    redacted: str = "[removed: {category}]"


class SecurityClass(_Model):
    """A named, ranked set of limits.

    Attributes:
        name: how it is called.
        rank: its place among the classes; higher is stricter.
        description: whom it is for.
        prior: the live prior.
        limits: per category; a category without a limit is scored and never acted upon.
        on_failure: what is done where a detector or the journal failed.
        shadow: decide and journal, but deliver everything unchanged.
        timeout_seconds: for all detectors together, per judged unit.
        journal: what is kept.
        messages: by language tag (BCP 47).
        language: which of them is used unless another is asked for.
    """

    name: str = Field(min_length=1, pattern=r"^[a-z][a-z0-9_-]*$")
    rank: int = Field(ge=0, strict=True)
    description: str = ""
    prior: Prior = Field(default_factory=Prior)
    limits: Annotated[Mapping[str, Limit], AfterValidator(_frozen), _Plain] = Field(min_length=1)
    on_failure: OnFailure = "block"
    shadow: bool = Field(default=False, strict=True)
    timeout_seconds: float = Field(default=5.0, gt=0, le=600, strict=True)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    messages: Annotated[Mapping[str, Messages], AfterValidator(_frozen), _Plain] = Field(
        min_length=1
    )
    language: str = "en"

    @model_validator(mode="after")
    def _has_language(self) -> SecurityClass:
        if self.language not in self.messages:
            there = ", ".join(self.messages)
            raise ValueError(f"`language` {self.language} has no `messages`; there are: {there}")
        return self

    def limit(self, category: str) -> Limit | None:
        """Return the limit of `category`, `None` where it is never acted upon."""
        return self.limits.get(category)

    def prior_of(self, category: str) -> float:
        """Return the live prior of `category`, in (0, 1)."""
        return self.prior.categories.get(category, self.prior.default)

    def messages_in(self, language: str | None) -> Messages:
        """Return the messages of a language tag, of its main language, or the class's own."""
        wanted = language or self.language
        for tag in (wanted, wanted.split("-", maxsplit=1)[0], self.language):
            if tag in self.messages:
                return self.messages[tag]
        return self.messages[self.language]  # pragma: no cover  # validated above


class Policy(_Model):
    """A policy file: one or more security classes."""

    version: Literal[1] = 1
    classes: tuple[SecurityClass, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Policy:
        names = [item.name for item in self.classes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two classes are called {', '.join(map(repr, twice))}: rename one")
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
    text, _, fragment = str(source).partition("#")
    if text in _builtin_names() and name is None and isinstance(source, str):
        return load_policy(BUILTIN / f"{text}.yaml", extra_categories=extra_categories).classes[0]
    if not Path(text).suffix and not Path(text).exists():
        raise PolicyError(_no_such_class(text, _builtin_names()))
    policy = load_policy(Path(text), extra_categories=extra_categories)
    return _pick(policy, name or fragment or None, text)


def load_policy(path: str | Path, *, extra_categories: Collection[str] = ()) -> Policy:
    """Return the policy in `path`; see `load_class` for errors."""
    path = Path(path)
    document = yaml_lines.read(path)
    problems = [(line, "", text) for line, text in document.problems]
    policy: Policy | None = None
    if document.value is None and not problems:
        problems.append((1, "", "the file is empty: start from a built-in class"))
    if document.value is not None:
        policy, found = _validate(document)
        problems += found + _unknown_categories(document, extra_categories)
    if problems or policy is None:
        raise PolicyError([_problem(path, *problem) for problem in sorted(problems)])
    return policy


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
        f"limit or add a detector{_did_you_mean(category, known)}"
        for category in security_class.limits
        if category not in known
    ]


def policy_schema() -> dict[str, Any]:
    """Return the JSON schema of a policy file, for editors."""
    schema = Policy.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Clearance policy"
    limits = schema["$defs"]["SecurityClass"]["properties"]["limits"]
    limits["propertyNames"] = {"examples": _limitable()}
    limits["description"] = "Per category: " + ", ".join(_limitable())
    return schema


def _limitable() -> list[str]:
    return [name for name, category in CATEGORIES.items() if not category.auxiliary]


def _validate(document: yaml_lines.Document) -> tuple[Policy | None, list[tuple[int, str, str]]]:
    try:
        return Policy.model_validate(document.value), []
    except ValidationError as error:
        errors = error.errors()
        # Classes that are wrong do not count as classes: an echo of their own errors.
        echo = [e for e in errors if e["type"] == "too_short" and e["loc"] == ("classes",)]
        shown = [e for e in errors if e not in echo] or errors
        return None, [_schema_problem(document, item) for item in shown]


def _schema_problem(document: yaml_lines.Document, error: Any) -> tuple[int, str, str]:
    location = tuple(error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        text = f"unknown key: remove it{_did_you_mean(str(location[-1]), _fields())}"
    if error["type"] == "missing":
        text = "is missing: add it"
    return document.line(location), ".".join(map(str, location)), text


def _fields() -> list[str]:
    """Return every key that the schema knows."""
    models: tuple[type[BaseModel], ...] = (
        Policy,
        SecurityClass,
        Limit,
        Prior,
        JournalSettings,
        Messages,
    )
    return [name for model in models for name in model.model_fields]


def _unknown_categories(
    document: yaml_lines.Document, extra: Collection[str]
) -> list[tuple[int, str, str]]:
    """Return a problem for each category that is not in the taxonomy."""
    known = [*_limitable(), *extra]
    problems = []
    for location in document.lines:
        if _names_category(location) and location[-1] not in known:
            text = f"unknown category{_did_you_mean(str(location[-1]), known)}"
            if location[-1] in CATEGORIES:
                text = "is an auxiliary category and cannot have a limit or a prior: remove it"
            problems.append((document.lines[location], ".".join(map(str, location)), text))
    return problems


def _names_category(location: yaml_lines.Location) -> bool:
    """Return whether `location` is a key of `limits` or of `prior.categories`."""
    inside = location[2:] if location[:1] == ("classes",) else ()
    return (len(inside) == 2 and inside[0] == "limits") or (
        len(inside) == 3 and inside[:2] == ("prior", "categories")
    )


def _problem(path: Path, line: int, key: str, text: str) -> str:
    return f"{path}:{line}: {key + ': ' if key else ''}{text}"


def _pick(policy: Policy, name: str | None, file: str) -> SecurityClass:
    names = [item.name for item in policy.classes]
    if name is None and len(names) == 1:
        return policy.classes[0]
    if name is None:
        raise PolicyError(f"`{file}` has several classes: name one of {', '.join(names)}")
    if name not in names:
        raise PolicyError(f"in `{file}`: {_no_such_class(name, names)}")
    return policy.classes[names.index(name)]


def _builtin_names() -> list[str]:
    return sorted(path.stem for path in BUILTIN.glob("*.yaml"))


def _no_such_class(name: str, there: Sequence[str]) -> str:
    hint = _did_you_mean(name, there)
    return f"no security class `{name}`{hint}. There are: {', '.join(there)}, or a path to a file"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the JSON schema, or write it beside the built-in classes."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    text = json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"
    if "--write" in given:
        (BUILTIN / "policy.schema.json").write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
