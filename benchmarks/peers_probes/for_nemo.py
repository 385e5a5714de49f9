"""How NeMo Guardrails is probed: `LLMRails` with the rule as the action of an output rail.

Without a guardrail means the same `LLMRails` without rails. The package ends a stream that it
blocks with an error in JSON, as a piece of its own.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from nemoguardrails import LLMRails, RailsConfig
from nemoguardrails.actions.rail_outcome import RailOutcome

from peers_probes.probing import ASKED, RULE, Given, Way, following, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peers_probes.probing import Reader

LOOP: Final = asyncio.new_event_loop()

MODEL: Final = """
models:
  - type: main
    engine: openai
    model: {name}
    parameters: {{base_url: "{url}", api_key: x}}
"""

RAILS: Final = """
rails:
  output:
    flows: [check marker]
    streaming: {{enabled: true{more}}}
"""

FLOW: Final = """
define bot refuse to respond
  "I cannot answer that."

define subflow check marker
  $checked = execute check_marker(text=$bot_message)
  if $checked.is_blocked
    bot refuse to respond
    stop
"""


class BlockedError(Exception):
    """The package's error in the stream."""


async def check_marker(text: str, **_: Any) -> Any:
    """Judge a text; a rail of a stream is given more than it asks for."""
    return RailOutcome.block(reason="marker") if RULE(text) else RailOutcome.allow()


def reader(url: str, rails: str) -> Reader:
    """Return the reader of a configuration."""

    @cache
    def made(name: str) -> Any:
        yaml = MODEL.format(name=name, url=url) + rails
        app = LLMRails(RailsConfig.from_content(yaml_content=yaml, colang_content=FLOW))
        app.register_action(check_marker, "check_marker")
        return app

    def read(name: str, *, stream: bool) -> Iterator[str]:
        if not stream:
            yield LOOP.run_until_complete(made(name).generate_async(messages=ASKED))["content"]
            return
        for piece in following(lambda: made(name).stream_async(messages=ASKED), LOOP):
            if piece.startswith('{"error"'):
                raise BlockedError if "content_blocked" in piece else RuntimeError(piece)
            yield piece

    return read


def ways(given: Given) -> list[Way]:
    """Return the default and what judges first."""
    asyncio.set_event_loop(LOOP)
    plain = reader(given.url, "")
    return [
        Way("default", reader(given.url, RAILS.format(more="")), plain),
        Way(
            "`stream_first: false`",
            reader(given.url, RAILS.format(more=", stream_first: false")),
            plain,
        ),
    ]


if __name__ == "__main__":
    run(ways)
