"""Policies: security classes as YAML files, read strictly and refused with all errors at once.

This module does not know how a risk comes about. It does not read the environment: a
variable must not weaken a policy.

    python -m guard.policy --write     writes policies/policy.schema.json
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence  # noqa: TC003  # hints are read at run time
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from guard import heads, yaml_lines
from guard.categories import CATEGORIES, Mechanism, Side
from guard.errors import ModelError, PolicyError, did_you_mean
from guard.policy_problems import given, sentence
from guard.security_class import (
    EFFECTS,
    Deploy,
    Input,
    InputLimit,
    JournalSettings,
    Limit,
    Live,
    Messages,
    Model,
    Prior,
    Regenerate,
    SecurityClass,
    problem,
)

BUILTIN: Final = Path(__file__).parent / "policies"
"""Where the built-in classes lie, one file each."""


class Policy(Model):
    """A policy file: one or more security classes.

    Attributes:
        version: of the file's format.
        classes: the security classes.
    """

    version: Literal[1] = 1
    classes: tuple[SecurityClass, ...] = Field(min_length=1)

    @field_validator("classes")
    @classmethod
    def _together(cls, classes: tuple[SecurityClass, ...]) -> tuple[SecurityClass, ...]:
        return _one_policy(classes)

    @field_validator("version", mode="before")
    @classmethod
    def _whole(cls, version: object) -> object:
        # `true` and `1.0` equal 1.
        if type(version) is not int:
            raise problem(f"must be 1, not {given(version)}")
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
        classes = _built_in(text)
    elif not text or not (Path(text).suffix or _exists(Path(text))):
        raise PolicyError(_no_such_class(text, _builtin_names()))
    else:
        classes = load_policy(Path(text), extra_categories=extra_categories).classes
    wanted = name or fragment
    names = [item.name for item in classes]
    if wanted and wanted not in names:
        raise PolicyError(f"in `{text}`: {_no_such_class(wanted, names)}")
    return tuple(item for item in classes if wanted in ("", item.name))


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


def head_places(source: str | Path) -> tuple[str, ...]:
    """Return where the heads lie that a policy file names, in order of its classes.

    The file may be wrong, and the heads need not be there; a built-in class has none.
    """
    text, _ = _split(source)
    if isinstance(source, str) and text in _builtin_names():
        return ()
    path = Path(text)
    named = _named_heads(yaml_lines.read(path))
    return tuple(str((path.parent / name).absolute()) for _, name in named)


def builtin_classes() -> tuple[SecurityClass, ...]:
    """Return the built-in classes, the lowest rank first."""
    classes = [load_class(name) for name in _builtin_names()]
    return tuple(sorted(classes, key=lambda item: item.rank))


def check_categories(
    security_class: SecurityClass, found: Mapping[Side, Collection[str]]
) -> list[str]:
    """Return a problem for each limit that no detector can reach.

    Args:
        security_class: the class.
        found: the categories that some detector can find on each side of the exchange.
    """
    limited: dict[Side, Mapping[str, InputLimit]] = {
        "response": security_class.limits,
        "prompt": security_class.input_limits,
    }
    return [
        f"class `{security_class.name}` limits `{category}`, {_unreached(category, side, found)}"
        for side, limits in limited.items()
        for category in limits
        if category not in found[side]
    ]


def _unreached(category: str, side: Side, found: Mapping[Side, Collection[str]]) -> str:
    """Return why no detector reaches a limit on a side of the exchange, with its mend."""
    if any(category in names for names in found.values()):
        return f"and {_ELSEWHERE[side]}"
    hint = did_you_mean(category, found[side])
    return f"which no detector finds: remove the limit or add a detector{hint}"


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
    limits["propertyNames"] = {"examples": _limitable("response")}
    limits["description"] += " Categories: " + ", ".join(_limitable("response")) + "."
    inputs = schema["$defs"]["Input"]["properties"]["limits"]
    inputs["propertyNames"] = {"examples": _limitable("prompt")}
    inputs["description"] += " Categories: " + ", ".join(_limitable("prompt")) + "."
    return schema


def schema_text() -> str:
    """Return the JSON schema as the file `policy.schema.json` holds it."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put what a model's docstring says about each key where editors show it."""
    # Python 3.13 and newer keep docstrings without the indentation of their code.
    summary, _, rest = cleandoc(model.__doc__ or "").partition("\n\nAttributes:\n")
    schema["description"] = summary.strip()
    for entry in re.findall(r"^ {4}(\w+): ((?:.+\n?)(?: {8}.+\n?)*)", rest, re.MULTILINE):
        text = " ".join(entry[1].split())
        schema["properties"][entry[0]]["description"] = text[0].upper() + text[1:]


_MODELS: Final[tuple[type[BaseModel], ...]] = (
    Policy,
    SecurityClass,
    Limit,
    Prior,
    Input,
    InputLimit,
    Regenerate,
    Deploy,
    Live,
    JournalSettings,
    Messages,
)

_TWICE: Final = "two_classes_of_one_name"

_ELSEWHERE: Final[Mapping[Side, str]] = {
    "response": "in responses no detector looks for it: move it to `input.limits`",
    "prompt": "in what the model is given no detector looks for it: move it to `limits`",
}
"""What is said of a limit that stands on the wrong side of the exchange."""

_EITHER_SIDE: Final = ("system_prompt_leak", "proprietary_leak", "secret_leak", "pii_leak")
"""Found by patterns and fingerprints, which read whatever passes; all else by the classifier."""


def _limitable(side: Side | None = None) -> list[str]:
    """Return the categories that can have a limit, on one side of the exchange or on any."""
    return [
        name
        for name, category in CATEGORIES.items()
        if not category.auxiliary and (side in (None, category.side) or name in _EITHER_SIDE)
    ]


def _built_in(name: str) -> tuple[SecurityClass, ...]:
    """Return the class of a built-in file, as one of the built-in ones."""
    classes = load_policy(BUILTIN / f"{name}.yaml").classes
    # The other files are read once somebody asks for a stricter class; most never do.
    return tuple(item.among(builtin_classes) for item in classes)


def _one_policy(classes: Sequence[SecurityClass]) -> tuple[SecurityClass, ...]:
    """Return classes that know one another."""
    policy = partial(_one_policy, tuple(classes))
    return tuple(item.among(policy) for item in classes)


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
        ("input", 2): Input,
        ("input", 4): InputLimit,
        ("regenerate", 2): Regenerate,
        ("deploy", 2): Deploy,
        ("live", 2): Live,
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
    own: dict[int, list[str]] = {}
    problems: list[yaml_lines.Problem] = []
    for location, name in _named_heads(document):
        category, wrong = _category_of(folder / name)
        found = own.setdefault(int(location[1]), [])
        if category in found:
            wrong.append(f"a head above is for `{category}`, too: remove one")
        found.append(category)
        problems += [(document.line(location), location, text) for text in wrong]
    return own, problems


def _named_heads(document: yaml_lines.Document) -> Iterator[tuple[yaml_lines.Location, str]]:
    """Yield the files of heads that are named, each with its place in the document."""
    classes = document.value.get("classes") if isinstance(document.value, dict) else None
    for index, item in enumerate(classes if isinstance(classes, list) else []):
        listed = item.get("heads") if isinstance(item, dict) else None
        for number, name in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(name, str) and name:
                yield ("classes", index, "heads", number), name


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
    return policy.model_copy(update={"classes": _one_policy(classes)})


def _unknown_categories(
    document: yaml_lines.Document, extra: Collection[str], own: Mapping[int, Sequence[str]]
) -> list[yaml_lines.Problem]:
    """Return a problem for each category that is unknown, or that is never looked for there."""
    problems: list[yaml_lines.Problem] = []
    for location, line in document.lines.items():
        if _names_deployed(location, "rates"):
            known = [*CATEGORIES, *_MECHANISMS, *extra, *own.get(int(location[1]), ())]
            if (name := str(location[-1])) not in known:
                text = f"no category or mechanism: remove it{did_you_mean(name, known)}"
                problems.append((line, location, text))
        if _names_deployed(location, "effects") and (wrong := _no_effect(str(location[-1]))):
            problems.append((line, location, wrong))
        if not _names_category(location):
            continue
        known = [*_limitable(), *extra, *own.get(int(location[1]), ())]
        if (name := str(location[-1])) not in known:
            text = f"unknown category: remove it{did_you_mean(name, known)}"
            if name in CATEGORIES:
                text = "auxiliary categories have neither limit nor prior: remove it"
            problems.append((line, location, text))
        elif (side := _wrong_side(location, name)) is not None and name not in extra:
            # Where a detector of one's own looks, nobody here knows.
            problems.append((line, location, _ELSEWHERE[side]))
    return problems


def _wrong_side(location: yaml_lines.Location, name: str) -> Side | None:
    """Return the side that a limit stands on where it never acts there, `None` elsewhere."""
    sides: dict[str, Side] = {"limits": "response", "input": "prompt"}
    here = sides.get(str(location[2]))
    # What is not in the taxonomy is a head's, and heads score responses alone.
    there = CATEGORIES[name].side if name in CATEGORIES else "response"
    return None if name in _EITHER_SIDE or here == there else here


def _names_category(location: yaml_lines.Location) -> bool:
    """Return whether `location` is a key of `limits`, here or of the input, or of the priors."""
    inside = location[2:] if location[:1] == ("classes",) else ()
    return (len(inside) == 2 and inside[0] == "limits") or (
        len(inside) == 3 and inside[:2] in _BY_CATEGORY
    )


def _names_deployed(location: yaml_lines.Location, section: str) -> bool:
    """Return whether `location` is a key of a section of a class's deploy limits."""
    return location[:1] == ("classes",) and location[2:-1] == ("deploy", section)


def _no_effect(name: str) -> str:
    """Return why no audit tells an effect of that name, with its mend; `""` where one may."""
    effect, dot, style = name.partition(".")
    if effect not in EFFECTS:
        return f"no effect that an audit tells: remove it{did_you_mean(effect, EFFECTS)}"
    if dot and (effect != _STYLED or not re.fullmatch(r"[a-z0-9_-]{1,40}", style)):
        return f"only `{_STYLED}` has a part behind a dot, a style's name: remove it"
    return ""


_STYLED: Final = "style_amplification"
"""The effect that is also told of single styles."""

_MECHANISMS: Final = tuple(name for name in get_args(Mechanism) if name != "none")

_BY_CATEGORY: Final = (
    ("prior", "categories"),
    ("input", "limits"),
    ("live", "tolerated_of"),
    ("live", "action_of"),
)
"""Mappings inside a section whose keys are categories."""


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
