"""What the tests' LiteLLM proxy is made of beside its configuration: a guardrail and a logger.

It runs in the proxy's process. This module does not know the tests.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from guard.adapters.litellm import GuardLiteLLM
from tests.conftest import new_guard


class WordGuardrail(GuardLiteLLM):
    """A guardrail that fires on words, in prompts too; it inherits every hook."""

    def __init__(self, **options: Any) -> None:
        """Load nothing."""
        super().__init__(new_guard(input={"limits": {"to_block": {"act": 0.9}}}), **options)


class Recorder(CustomLogger):  # type: ignore[misc]
    """Writes what LiteLLM tells it at the end of calls to the file `HEARD`, a line for each."""

    async def async_log_success_event(
        self,
        kwargs: Any,
        response_obj: Any,
        start_time: Any,  # noqa: ARG002  # as loggers are called
        end_time: Any,  # noqa: ARG002
    ) -> None:
        """Write one line."""
        _write({"call": kwargs.get("litellm_call_id"), "told": repr((response_obj, kwargs))})


def _write(told: dict[str, Any]) -> None:
    with Path(os.environ["HEARD"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


recorder = Recorder()
