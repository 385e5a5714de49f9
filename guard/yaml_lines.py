"""YAML with line numbers: reads a document into plain values and remembers where each stood.

Only the safe subset: no tags, no anchors, no duplicate keys.

This module does not know what the document means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from pathlib import Path

Location = tuple[str | int, ...]
"""Keys and list indices from the document's root to a value."""

SIZE_LIMIT: Final = 1_000_000
"""Bytes: larger than any policy; a file beyond it is something else."""


@dataclass(slots=True)
class Document:
    """A document's value, the line of every key or item (one-based), and what is wrong."""

    value: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def line(self, location: Location) -> int:
        """Return the line of `location`, or of the nearest parent that is there."""
        for length in range(len(location), -1, -1):
            if location[:length] in self.lines:
                return self.lines[location[:length]]
        return 1


def read(path: Path) -> Document:
    """Read `path`; problems are collected in the document and never raised."""
    document = Document()
    text = _text(path, document)
    if text is None:
        return document
    try:
        if any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text, yaml.SafeLoader)):
            document.problems.append((1, "YAML aliases (`*name`) are not allowed: write it out"))
            return document
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        document.problems.append((_error_line(error), f"not valid YAML: {_error_text(error)}"))
        return document
    except (RecursionError, ValueError) as error:
        document.problems.append((1, f"not usable as YAML: {error}"))
        return document
    if node is not None:
        document.value = _build(node, (), document)
    return document


def _text(path: Path, document: Document) -> str | None:
    try:
        content = path.read_bytes()
        if len(content) > SIZE_LIMIT:
            document.problems.append((1, f"larger than {SIZE_LIMIT:,} bytes: not a policy file"))
            return None
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        document.problems.append((line, "not valid UTF-8: save the file as UTF-8"))
    except OSError as error:
        document.problems.append((1, f"cannot be read: {error.strerror or error}"))
    return None


def _build(node: yaml.Node, at: Location, document: Document) -> Any:
    document.lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, at, document)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*at, i), document) for i, item in enumerate(node.value)]
    return _scalar(node, document)


def _mapping(node: yaml.MappingNode, at: Location, document: Document) -> dict[Any, Any]:
    value: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = _scalar(key_node, document)
        line = key_node.start_mark.line + 1
        if key in value:
            document.problems.append((line, f"`{key}` stands here twice: remove one"))
        document.lines[(*at, key)] = line
        value[key] = _build(value_node, (*at, key), document)
    return value


def _scalar(node: yaml.Node, document: Document) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        document.problems.append((node.start_mark.line + 1, "a key must be a plain word"))
        return str(node.start_mark)
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)  # type: ignore[no-untyped-call]
    except (yaml.YAMLError, ValueError) as error:
        document.problems.append((node.start_mark.line + 1, f"not a plain value: {error}"))
        return None
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


def _error_line(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None)
    return 1 if mark is None else int(mark.line) + 1


def _error_text(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or error).splitlines()[0]
