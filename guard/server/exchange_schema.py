"""The JSON schema of an exchange, as `guard.exchange_json` reads it.

This module does not read anything; a test holds it against the reader.
"""

from __future__ import annotations

from typing import Any, Final


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


_NULL: Final[dict[str, Any]] = {"type": "null"}
_TEXT: Final[dict[str, Any]] = {"type": ["string", "null"]}
_PARTS: Final[dict[str, Any]] = {"anyOf": [_TEXT, {"type": "array", "items": _ref("ExchangePart")}]}
_ASKED: Final[dict[str, Any]] = {
    "anyOf": [
        _TEXT,
        {
            "type": "array",
            "items": {
                "anyOf": [{"type": "string"}, {"type": "object"}],
            },
        },
    ],
    "description": "Text, or a list of texts and blocks of any kind, of which any text counts.",
}

_CALL: Final[dict[str, Any]] = {
    "name": _TEXT,
    "arguments": {"type": ["string", "object", "array", "null"]},
}

_SPOKEN: Final[dict[str, Any]] = {
    "content": _PARTS,
    "reasoning": _PARTS,
    "refusal": _PARTS,
    "tool_calls": {
        "anyOf": [_NULL, {"type": "array", "items": _ref("ExchangeToolCall")}],
    },
}

SCHEMAS: Final[dict[str, Any]] = {
    "ExchangeAsked": _ASKED,
    "ExchangePart": {
        "anyOf": [
            {"type": "string"},
            _object({"text": _PARTS}, "text"),
            _object({"refusal": _PARTS}, "refusal"),
            _object({"thinking": _PARTS}, "thinking"),
        ],
        "description": "A piece of an answer. What nothing here can judge, such as an image, is "
        "refused.",
    },
    "ExchangeToolCall": {
        "anyOf": [
            _object({**_CALL, "id": _TEXT, "function": _NULL}, "name", "arguments"),
            _object({"function": _object(_CALL, "name", "arguments"), "id": _TEXT}, "function"),
        ],
    },
    "ExchangeMessage": _object(
        {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": _ref("ExchangeAsked"),
            "name": _TEXT,
        },
        "role",
    ),
    "ExchangeAnswer": {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": _ref("ExchangePart")},
            *(_object(_SPOKEN, key) for key in _SPOKEN),
        ],
        "description": "Text, a list of typed parts, or a message object.",
    },
    "ExchangeChoice": {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": _ref("ExchangePart")},
            *(_object({**_SPOKEN, "message": _NULL}, key) for key in _SPOKEN),
            _object(
                {"message": _ref("ExchangeAnswer"), **dict.fromkeys(_SPOKEN, _NULL)}, "message"
            ),
        ],
        "description": 'An answer, or a choice of chat completions: `{"message": {...}}`.',
    },
    "Exchange": {
        "type": "object",
        "properties": {
            "prompt": {**_TEXT, "description": "The user's message, in place of `messages`."},
            "system": _ref("ExchangeAsked"),
            "messages": {
                "anyOf": [_NULL, {"type": "array", "items": _ref("ExchangeMessage")}],
                "description": "The conversation so far.",
            },
            "model": {**_TEXT, "description": "The backend model's name."},
            "metadata": {
                "type": ["object", "null"],
                "description": "Your own facts; kept in the journal.",
            },
        },
        "anyOf": [
            _object({"response": _ref("ExchangeChoice"), "choices": _NULL}, "response"),
            _object(
                {
                    "choices": {"type": "array", "minItems": 1, "items": _ref("ExchangeChoice")},
                    "response": _NULL,
                },
                "choices",
            ),
        ],
        "not": {"required": ["prompt", "messages"]},
        "description": "What was asked and what came back. Give `response` or `choices`, and "
        "`prompt` or `messages`.",
        "examples": [{"prompt": "Where is the ferry?", "response": "At the second pier."}],
    },
}
"""By name, for the components of an OpenAPI document."""
