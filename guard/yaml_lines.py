"""YAML with line numbers: reads a document into plain values and remembers where each stood.

Only the safe subset: no tags, no anchors, no aliases, no duplicate keys. Words mean what they
look like, as in YAML 1.2: `no`, `on` and `1:30` are text, keys are always text, and only
`true` and `false` are booleans.

This module does not know what the document means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from guard.json_lines import utf8

if TYPE_CHECKING:
    from pathlib import Path

Location = tuple[str | int, ...]
"""Keys and list indices from the document's root to a value."""

Problem = tuple[int, Location, str]
"""A line (one-based), where in the document, and what is wrong there."""

SIZE_LIMIT: Final = 1_000_000
"""Bytes: larger than any policy; a file beyond it is something else."""

_TAG: Final = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Document:
    """A document's value, the line of every key or item (one-based), and what is wrong."""

    value: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, location: Location) -> int:
        """Return the line of `location`, or of the nearest parent that is there."""
        for length in range(len(location), -1, -1):
            if location[:length] in self.lines:
                return self.lines[location[:length]]
        return 1


_SCALARS: Final = {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "null": r"~|null|Null|NULL|",
    # Neither octal (`010`) nor longer than any number that a policy can hold.
    "int": r"[-+]?(?:0|[1-9][0-9]{0,17})",
    "float": r"""[-+]? (?: (?: \.[0-9]+ | [0-9]+\.[0-9]* ) (?: [eE][-+]?[0-9]+ )?
        | [0-9]+ [eE][-+]?[0-9]+ | \.(?: inf | Inf | INF ) ) | \.(?: nan | NaN | NAN )""",
}
"""What a plain word must look like to be anything else than text (`re.VERBOSE`)."""


class _Loader(yaml.SafeLoader):
    """Composes nodes without tags and aliases; notes each that it meets, with its node."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  # filled once, below

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refused: list[tuple[yaml.Node, str]] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        node: Any
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            mark: Any = event.start_mark
            node = yaml.ScalarNode(f"{_TAG}null", "", mark, mark)
            self.refused.append((node, f"`*{anchor}` is an alias: write the value out"))
            return node  # type: ignore[no-any-return]
        event.anchor = None
        node = super().compose_node(parent, index)
        if anchor is not None:
            self.refused.append((node, f"`&{anchor}` is an anchor: remove it"))
        if tag is not None:
            self.refused.append((node, f"`{_short(tag)}` is a tag: remove it"))
        return node  # type: ignore[no-any-return]


for _kind, _expression in _SCALARS.items():
    _pattern = re.compile(f"(?:{_expression})\\Z", re.VERBOSE)
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", _pattern, None)


def read(path: Path) -> Document:
    """Read `path`; problems are collected in the document and never raised."""
    document = Document()
    text = _text(path, document)
    if text is None:
        return document
    try:
        _Reader(document).read(text)
    except yaml.YAMLError as error:
        document.problems.append((_error_line(error), (), f"not valid YAML: {_error_text(error)}"))
    except RecursionError:
        document.problems.append((1, (), "nested too deeply: not a policy file"))
    return document


def _text(path: Path, document: Document) -> str | None:
    problem = (1, f"larger than {SIZE_LIMIT:,} bytes: not a policy file")
    content = b""
    try:
        content = path.read_bytes()
        if len(content) <= SIZE_LIMIT:
            return utf8(content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = (line, "not valid UTF-8: save the file as UTF-8")
    except (OSError, ValueError) as error:
        # A path with NUL is a `ValueError`.
        problem = (1, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    document.problems.append((problem[0], (), problem[1]))
    return None


class _Reader:
    """Turns one text into a document's value, lines and problems."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._refused: dict[int, list[str]] = {}
        self._loader: Any = None

    def read(self, text: str) -> None:
        loader = self._loader = _Loader(text)
        try:
            node = loader.get_single_node()
            for refused, problem in loader.refused:
                self._refused.setdefault(id(refused), []).append(problem)
            if node is not None:
                self._document.value = self._value(node, ())
        finally:
            loader.dispose()

    def _value(self, node: yaml.Node, at: Location) -> Any:
        line = node.start_mark.line + 1
        self._document.lines.setdefault(at, line)
        for problem in self._refused.get(id(node), ()):
            self._problem(node, at, problem)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*at, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _scalar(self, node: Any) -> Any:
        """Return the value that the text looks like; a tag that says otherwise is refused."""
        tag = self._loader.resolve(yaml.ScalarNode, node.value, (node.style is None, True))
        plain = yaml.ScalarNode(tag, node.value, node.start_mark, node.end_mark)
        return self._loader.construct_object(plain)

    def _mapping(self, node: yaml.MappingNode, at: Location) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, at, "a key must be a plain word")
                continue
            key = key_node.value
            for problem in self._refused.get(id(key_node), ()):
                self._problem(key_node, (*at, key), problem)
            if key in value:
                self._problem(key_node, (*at, key), "stands here twice: remove one")
            self._document.lines[*at, key] = key_node.start_mark.line + 1
            value[key] = self._value(value_node, (*at, key))
        return value

    def _problem(self, node: yaml.Node, at: Location, text: str) -> None:
        self._document.problems.append((node.start_mark.line + 1, at, text))


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!", 1)


def _error_line(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None)
    return 1 if mark is None else int(mark.line) + 1


def _error_text(error: yaml.YAMLError) -> str:
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    return " ".join(part for part in parts if part) or str(error).splitlines()[0]
