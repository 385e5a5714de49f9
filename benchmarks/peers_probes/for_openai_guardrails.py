"""How openai-guardrails is probed: its own client, with the rule as a custom guardrail.

The package's interval between two checks of a stream cannot be set, so there is one way.
"""

# mypy: disable-error-code="import-not-found, import-untyped"
# mypy: no-warn-unused-ignores, allow-any-unimported

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guardrails import GuardrailsOpenAI
from guardrails.registry import default_spec_registry
from guardrails.types import GuardrailResult
from openai import OpenAI
from pydantic import BaseModel

from peers_probes.probing import RULE, Given, Way, run, sdk_reader

if TYPE_CHECKING:
    from collections.abc import Iterator


class Nothing(BaseModel):
    """A guardrail's settings, of which there are none."""


async def marker(context: Any, data: str, config: Any) -> Any:
    """Trip on the marker."""
    del context, config
    return GuardrailResult(tripwire_triggered=RULE(data), info={})


def ways(given: Given) -> list[Way]:
    """Return the default."""
    marker.__annotations__["config"] = Nothing
    default_spec_registry.register(
        name="Marker", check_fn=marker, description="The marker.", media_type="text/plain"
    )
    stage = {"version": 1, "guardrails": [{"name": "Marker", "config": {}}]}
    client = GuardrailsOpenAI(
        config={"version": 1, "output": stage}, base_url=given.url, api_key="x"
    )

    def guarded(name: str, *, stream: bool) -> Iterator[str]:
        return sdk_reader(client)(name, stream=stream)

    plain = OpenAI(base_url=given.url, api_key="x")
    return [Way("default", guarded, sdk_reader(plain))]


if __name__ == "__main__":
    run(ways)
