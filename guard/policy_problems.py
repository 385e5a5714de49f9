"""What is wrong with a policy, in plain words: one sentence per problem, each with its mend.

This module does not know the schema's models or where a policy file comes from.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from guard.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

NAME: Final = r"^[a-z][a-z0-9_-]*$"
"""What a class's name looks like."""

LANGUAGE: Final = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"
"""What a language tag looks like (BCP 47, without a check of the registry)."""

CATEGORY: Final = r"^[a-z][a-z0-9_]{0,47}$"
"""What the name of a category of one's own looks like."""

WORDS: Final = r"\S"
"""What a message must hold: something to read."""

_PATTERNS: Final = {
    NAME: "use lower-case letters, digits, `-` and `_`, and begin with a letter",
    CATEGORY: "use at most 48 lower-case letters, digits and `_`, and begin with a letter",
    LANGUAGE: "write a language tag such as `en` or `pt-BR`",
    WORDS: "write what the end user shall read",
}

_PAIRS: Final = "must hold `key: value` pairs, not {given}"
_LIST: Final = "must be a list, not {given}"

_SENTENCES: Final = {
    "missing": "is missing: add it",
    "float_type": "must be a number, not {given}",
    "int_type": "must be a whole number, not {given}",
    "int_from_float": "must be a whole number, not {given}",
    "bool_type": "must be `true` or `false`, not {given}",
    "string_type": "must be text, not {given}: put it in quotes",
    "path_type": "must be a path, as text, not {given}: put it in quotes",
    "string_unicode": "has characters that UTF-8 cannot write: remove them",
    "model_type": _PAIRS,
    "model_attributes_type": _PAIRS,
    "dict_type": _PAIRS,
    "mapping_type": _PAIRS,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "literal_error": "must be {expected}, not {given}",
    "greater_than": "must be above {gt}, not {given}",
    "greater_than_equal": "must be at least {ge}, not {given}",
    "less_than": "must be below {lt}, not {given}",
    "less_than_equal": "must be at most {le}, not {given}",
    "finite_number": "must be a finite number, not {given}",
    "too_short": "is empty: add at least one entry",
    "string_too_short": "is empty: write something",
}
"""By pydantic's type of an error."""


def sentence(error: Mapping[str, Any], keys: Collection[str]) -> str:
    """Return what is wrong and how to mend it.

    Args:
        error: one entry of `pydantic.ValidationError.errors()`.
        keys: the keys that are known where the error is.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        key = str(error["loc"][-1])
        return f"unknown key: remove it{did_you_mean(key, keys)}"
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"must not be {given(error['input'])}: {_PATTERNS.get(pattern, pattern)}"
    if kind in _SENTENCES:
        words = {key: _shown(value) for key, value in context.items()}
        return _SENTENCES[kind].format(given=given(error["input"]), **words)
    return str(error["msg"]).removeprefix("Value error, ")


def given(value: Any) -> str:
    """Return how a value is called in a sentence."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and not math.isfinite(value):
        return f"`{'-' if value < 0 else ''}.{'nan' if math.isnan(value) else 'inf'}`"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, dict):
        return "`key: value` pairs"
    return "a list" if isinstance(value, list | tuple) else f"`{value}`"


def _shown(value: Any) -> str:
    """Return a bound, or pydantic's list of literals, as it reads in a sentence."""
    if isinstance(value, int | float):
        return f"{value:g}"
    return re.sub(r"'([^']*)'", r"`\1`", str(value))
