"""Drives LiteLLM's own guardrail client against a server; run by `test_litellm.py`.

It runs where LiteLLM is installed, which need not be where the tests are: it imports nothing of
this repository. Arguments: the server's address, the client key, and a JSON list of jobs.
Each job gives one line of JSON.
"""
# mypy: disable-error-code="import-not-found"
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import sys
from types import SimpleNamespace
from typing import Any

from litellm.exceptions import GuardrailRaisedException
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.guardrails.guardrail_hooks.generic_guardrail_api.generic_guardrail_api import (
    GenericGuardrailAPI,
)
from litellm.proxy.guardrails.guardrail_hooks.unified_guardrail.unified_guardrail import (
    UnifiedLLMGuardrails,
)
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices


def _guardrail(url: str, key: str) -> GenericGuardrailAPI:
    return GenericGuardrailAPI(
        api_base=url,
        api_key=key,
        guardrail_name="clearance",
        event_hook=GuardrailEventHooks.post_call,
        default_on=True,
        streaming_sampling_rate=1,
        streaming_transform_mode="incremental_diff",
    )


async def apply(guardrail: GenericGuardrailAPI, job: dict[str, Any]) -> dict[str, Any]:
    """Have whole texts judged, as for an answer that does not stream."""
    try:
        done = await guardrail.apply_guardrail(
            inputs=job["inputs"],
            request_data={},
            input_type=job.get("input_type", "response"),
            logging_obj=_log_of(job),
        )
    except GuardrailRaisedException as error:
        return {"blocked": str(error)}
    return {"texts": done.get("texts")}


async def stream(guardrail: GenericGuardrailAPI, job: dict[str, Any]) -> dict[str, Any]:
    """Have a stream judged; return what reached the client, piece by piece."""
    data = {
        "guardrail_to_apply": guardrail,
        "litellm_logging_obj": _log_of(job),
        "metadata": {},
        "model": "scripted",
        "messages": [],
    }
    user = UserAPIKeyAuth(request_route="/v1/chat/completions")
    left: list[str] = []
    try:
        async for chunk in UnifiedLLMGuardrails().async_post_call_streaming_iterator_hook(
            user_api_key_dict=user, response=_chunks(job["pieces"]), request_data=data
        ):
            left.extend(c.delta.content for c in chunk.choices if c.delta.content)
    except GuardrailRaisedException as error:
        return {"blocked": str(error), "left": left}
    return {"left": left}


async def _chunks(pieces: list[str]) -> Any:
    for piece in pieces:
        yield _chunk(piece, None)
    yield _chunk("", "stop")


def _chunk(text: str, reason: str | None) -> ModelResponseStream:
    choice = StreamingChoices(index=0, delta=Delta(content=text), finish_reason=reason)
    return ModelResponseStream(id="chatcmpl-1", model="scripted", choices=[choice])


def _log_of(job: dict[str, Any]) -> Any:
    return SimpleNamespace(
        litellm_call_id=job["call"], litellm_trace_id="trace", model_call_details={}
    )


async def _main(url: str, key: str, jobs: list[dict[str, Any]]) -> None:
    guardrail = _guardrail(url, key)
    for job in jobs:
        done = await (stream if "pieces" in job else apply)(guardrail, job)
        sys.stdout.write(f"{json.dumps(done)}\n")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
