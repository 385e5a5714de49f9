"""How LiteLLM is probed: its proxy, with the rule as a guardrail that a request names.

Without a guardrail means the same proxy, asked without naming one. Proxy and reader share a
process, and so a lock, in both cases. The proxy's own content filter finds the marker by a
pattern of its configuration; it cannot be asked how much it was given.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import json
import os
import socket
import threading
import time
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from openai import OpenAI

from peers_probes.probing import Given, Way, run, sdk_reader
from peers_probes.texts import PATTERN

if TYPE_CHECKING:
    from pathlib import Path

RULE_CLASS: Final = "peers_probes.litellm_rule.Marker"

WAYS: Final[dict[str, dict[str, Any]]] = {
    "custom guardrail": {"guardrail": RULE_CLASS},
    "`streaming_buffer_until_moderated`": {
        "guardrail": RULE_CLASS,
        "streaming_buffer_until_moderated": True,
    },
    "`incremental_diff`, `stream_holdback_chars`": {
        "guardrail": RULE_CLASS,
        "streaming_transform_mode": "incremental_diff",
    },
    "own content filter": {
        "guardrail": "litellm_content_filter",
        "patterns": [
            {
                "pattern_type": "regex",
                "name": "marker",
                "pattern": PATTERN.pattern,
                "action": "BLOCK",
            }
        ],
    },
}


def configured(given: Given, key: str) -> Path:
    """Return the proxy's configuration, as a file."""
    upstream = {"model": "openai/*", "api_base": given.url, "api_key": "x"}
    content = {
        "general_settings": {"master_key": key},
        "model_list": [{"model_name": "*", "litellm_params": upstream}],
        "guardrails": [
            {"guardrail_name": name, "litellm_params": {"mode": "post_call", **options}}
            for name, options in WAYS.items()
        ],
    }
    path = given.place / "litellm.yaml"
    path.write_text(json.dumps(content), "utf-8")  # which is YAML, too
    return path


def serve(configuration: Path) -> str:
    """Start the proxy and return its base URL."""
    os.environ["CONFIG_FILE_PATH"] = str(configuration)
    import uvicorn  # noqa: PLC0415  # with the proxy's package
    from litellm.proxy.proxy_server import app  # noqa: PLC0415  # reads the variable

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the proxy did not start")
        time.sleep(0.1)
    return f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def ways(given: Given) -> list[Way]:
    """Return the default of a guardrail of one's own, what holds back, and the own filter."""
    key = f"sk-{token_hex(24)}"
    client = OpenAI(base_url=serve(configured(given, key)), api_key=key, max_retries=0)
    plain = sdk_reader(client)
    return [
        Way(
            name,
            sdk_reader(client, extra_body={"guardrails": [name]}),
            plain,
            counted=options["guardrail"] == RULE_CLASS,
        )
        for name, options in WAYS.items()
    ]


if __name__ == "__main__":
    run(ways)
