"""How Guardrails AI is probed: a `Guard` that calls the model, with the rule as a validator.

The package calls models through LiteLLM's SDK, which without it is the unguarded call. Its hub's
validators are fetched when they are installed, so the rule is a validator of one's own.
"""

# mypy: disable-error-code="import-not-found, import-untyped"
# mypy: allow-subclassing-any

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import litellm
from guardrails import Guard
from guardrails.validators import FailResult, PassResult, Validator, register_validator

from peers_probes.probing import ASKED, RULE, Given, Way, run
from peers_probes.texts import PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peers_probes.probing import Reader


class Marker(Validator):
    """The rule."""

    def validate(self, value: Any, metadata: Any) -> Any:
        """Judge a text."""
        del metadata
        if not RULE(value):
            return PassResult()
        return FailResult(error_message="the marker", fix_value=PATTERN.sub("[redacted]", value))


def guarded(url: str, on_fail: str) -> Reader:
    """Return the reader of a guard."""

    def read(name: str, *, stream: bool) -> Iterator[str]:
        guard = Guard().use(Validator_(on_fail=on_fail))
        options = {"model": f"openai/{name}", "api_base": url, "api_key": "x"}
        answer = guard(messages=ASKED, stream=stream, **options)
        for outcome in answer if stream else [answer]:
            yield outcome.validated_output or ""

    return read


def unguarded(url: str) -> Reader:
    """Return the reader of the SDK below it."""

    def read(name: str, *, stream: bool) -> Iterator[str]:
        answer = litellm.completion(
            model=f"openai/{name}", api_base=url, api_key="x", messages=ASKED, stream=stream
        )
        if not stream:
            yield answer.choices[0].message.content or ""
            return
        for chunk in answer:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    return read


Validator_ = register_validator(name="marker", data_type="string")(Marker)


def ways(given: Given) -> list[Way]:
    """Return the two answers to a failure that its streams know."""
    plain = unguarded(given.url)
    return [
        Way('`on_fail="exception"`', guarded(given.url, "exception"), plain),
        Way('`on_fail="fix"`', guarded(given.url, "fix"), plain),
    ]


if __name__ == "__main__":
    run(ways)
