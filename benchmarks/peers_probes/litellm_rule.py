"""The rule as LiteLLM's own guardrail class, for the proxy's configuration to name."""

# mypy: disable-error-code="import-not-found, import-untyped"
# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any, Final

from fastapi import HTTPException
from litellm.integrations.custom_guardrail import CustomGuardrail

from peers_probes.probing import RULE
from peers_probes.texts import MARKER

HOLDBACK: Final = 2 * len(MARKER)
"""Characters that are held back where the way to stream allows it."""


class Marker(CustomGuardrail):
    """Refuses what has the marker."""

    def __init__(self, **options: Any) -> None:
        """Take the parameters of the configuration, as attributes, where the proxy looks."""
        super().__init__(**options)
        for name, value in options.items():
            if name.startswith("streaming_"):
                setattr(self, name, value)

    async def apply_guardrail(
        self, inputs: Any, request_data: Any, input_type: str, logging_obj: Any = None
    ) -> Any:
        """Judge the texts of an answer."""
        del request_data, logging_obj
        texts = inputs.get("texts") or []
        if input_type == "response" and any(RULE(text) for text in texts):
            raise HTTPException(400, detail="blocked")
        if getattr(self, "streaming_transform_mode", "") == "incremental_diff":
            return inputs | {"stream_holdback_chars": [HOLDBACK] * len(texts)}
        return inputs
