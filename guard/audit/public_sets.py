"""Public sets of prompts: turns their rows into probes, by the names of their columns alone.

| columns | as in | becomes |
|---|---|---|
| `paraphrases` or `question` | questions on emergent misalignment | persona, expected `any` |
| `goal` | AdvBench, JailbreakBench | shortcut, expected `refuse` |
| `behavior` (with `contextstring`) | HarmBench | shortcut, expected `refuse` |
| `forbidden_prompt` | StrongREJECT | shortcut, expected `refuse` |
| `prompt` with `label` or `type` | XSTest | shortcut, `refuse` or `comply` as they say |
| `prompt` with `category` | sets of harmful prompts | shortcut, expected `refuse` |

Upper and lower case of names are the same. A `label` (`safe` or `unsafe`, `benign` or `harmful`)
counts wherever it stands; a file whose name holds `benign` has benign rows unless they say
otherwise. A set's own categories become topics.

This module does not know the sets' texts, and it downloads nothing. Their licences are theirs.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROMPTS: Final = ("goal", "behavior", "forbidden_prompt", "prompt")
"""Columns of prompts, the surest first: JailbreakBench has a `behavior` beside its `goal`."""

_LABELS: Final = {"safe": True, "benign": True, "unsafe": False, "harmful": False}
_CONTRAST: Final = "contrast_"
"""How XSTest's types of requests that must be refused begin."""

_SAFE_TYPES: Final = (
    "definitions",
    "figurative_language",
    "historical_events",
    "homonyms",
    "nons_group_real_discr",
    "privacy_fictional",
    "privacy_public",
    "real_group_nons_discr",
    "safe_contexts",
    "safe_targets",
)
"""XSTest's types of requests that must not be refused."""

_TOPICS: Final = ("semanticcategory", "category", "type", "risk_area")
_IDS: Final = ("id", "behaviorid", "index")


def mapped(row: object, file: str) -> list[Mapping[str, Any]]:
    """Return the probes, as plain values, that a row stands for.

    Args:
        row: a probe already (it has `turns`; it is returned itself), or a public set's row.
        file: the name of its file, from which ids are made.

    Raises:
        InputError: nothing says what the row is, with the columns that would.
    """
    if not isinstance(row, dict):
        raise InputError("not an object with `turns`, or with the columns of a public set")
    if "turns" in row:
        return [row]
    cells = {str(name).strip().lower(): value for name, value in row.items()}
    asked = cells.get("paraphrases") or cells.get("question")
    if asked:
        return _questions(cells, asked, file)
    return [_request(cells, file)]


def _questions(cells: Mapping[str, Any], asked: object, file: str) -> list[Mapping[str, Any]]:
    listed: list[object] = asked if isinstance(asked, list) else [asked]
    texts = [text for text in listed if isinstance(text, str) and text.strip()]
    if len(texts) < len(listed):
        raise InputError("`question` must be text, and `paraphrases` a list of texts")
    name = _id(cells, "\0".join(texts), file)
    shared = {
        "mechanism": "persona",
        "category": "misaligned_persona",
        "why": f"An open question of {file}.",
        **({"system": cells["system"]} if cells.get("system") else {}),
    }
    ids = [name]
    if len(texts) > 1:
        shared["same_as"] = name
        ids = [f"{name}-{at}" for at in range(1, len(texts) + 1)]
    return [{"id": one, "turns": text, **shared} for one, text in zip(ids, texts, strict=True)]


def _request(cells: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    column = next((name for name in _PROMPTS if cells.get(name)), None)
    if column is None:
        known = ", ".join(f"`{name}`" for name in (*_PROMPTS, "question", "paraphrases"))
        raise InputError(f"has no text in any of the columns {known}: rename one of yours")
    text = cells[column]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"`{column}` must be text")
    if context := cells.get("contextstring"):
        text = f"{context}\n\n---\n\n{text}"
    benign = _benign(cells, column, file)
    return {
        "id": _id(cells, text, file),
        "mechanism": "shortcut",
        "category": "refusal" if benign else "harmful_compliance",
        "why": f"A {'benign' if benign else 'harmful'} request of {file}.",
        "turns": text,
        "expected": "comply" if benign else "refuse",
        "topic": next((str(cells[name]) for name in _TOPICS if cells.get(name)), ""),
    }


def _benign(cells: Mapping[str, Any], column: str, file: str) -> bool:
    if label := cells.get("label"):
        if str(label).strip().lower() not in _LABELS:
            raise InputError(f"`label` must be one of {', '.join(_LABELS)}, not {label!r}")
        return _LABELS[str(label).strip().lower()]
    kind = str(cells.get("type") or "")
    if kind in _SAFE_TYPES or "benign" in file.lower():
        return True
    if column == "prompt" and not (cells.get("category") or kind.startswith(_CONTRAST)):
        raise InputError("nothing says if `prompt` must be refused: add a `label`, safe or unsafe")
    return False


def _id(cells: Mapping[str, Any], text: str, file: str) -> str:
    own = next((str(cells[name]) for name in _IDS if cells.get(name) not in (None, "")), "")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    stem = file.partition(".")[0]
    return f"{_slug(stem) or 'set'}/{_slug(own) or digest}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
