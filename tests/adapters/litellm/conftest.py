"""LiteLLM as its tests use it: quiet, and a proxy in a process of its own.

Warnings about LiteLLM's own doings are passed over.

- `proxy`: the documentation's example of a proxy for the scripted backend, with a guardrail that
  fires on words and a logger that writes what it is told. Guardrails are asked for by name.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.server.scripted import ScriptedApp

# It would look on the network for the prices of models.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

_QUIET = (
    # Its types warn where they are first used,
    "ignore:.*ReadOnly.*:UserWarning",
    # and its caches of clients and its threads for callbacks close nothing.
    "ignore:unclosed:ResourceWarning",
)

ROOT = Path(__file__).parents[3]

KEY = "sk-made-up-master-key-for-tests"

PASSED = "/passed/v1/chat/completions"
"""A path of the proxy's that passes a provider's answers through."""

START_SECONDS = 240.0
"""In which a proxy must be ready: it imports for half a minute on a busy machine."""

HEARD_SECONDS = 30.0
"""In which its loggers must have been told of a call."""


def pytest_configure(config: pytest.Config) -> None:
    """Pass over warnings about LiteLLM, where it is installed."""
    if find_spec("litellm") is None:
        return
    for line in _QUIET:
        config.addinivalue_line("filterwarnings", line)
    # What is left of it is found behind the last test, too.
    warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        import litellm  # noqa: F401


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs.

    Attributes:
        url: where.
        heard: the file that its logger writes.
    """

    url: str
    heard: Path

    def ask(self, path: str, *guardrails: str, **body: Any) -> httpx2.Response:
        """Return the answer to a request under guardrails."""
        return httpx2.post(
            f"{self.url}{path}",
            json=body | ({"guardrails": list(guardrails)} if guardrails else {}),
            headers={"authorization": f"Bearer {KEY}"},
            timeout=60,
        )

    def told(self, answer: httpx2.Response) -> str:
        """Return what the logger was told of the call of an answer."""
        call, ends = answer.headers["x-litellm-call-id"], time.monotonic() + HEARD_SECONDS
        while time.monotonic() < ends:
            written = self.heard.read_text("utf-8") if self.heard.is_file() else ""
            # The last line may not be whole yet.
            lines = map(json.loads, written.split("\n")[:-1])
            told: list[str] = [line["told"] for line in lines if line["call"] == call]
            if told:
                return "\n".join(told)
            time.sleep(0.05)
        raise TimeoutError("the logger was told nothing")


@pytest.fixture(scope="session")
def proxy(served_backend: ScriptedApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy for the scripted backend."""
    folder = tmp_path_factory.mktemp("litellm")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(_configuration(served_backend.url)), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Proxy(f"http://127.0.0.1:{port}", folder / "heard.jsonl")
    said = folder / "said.txt"
    environment = os.environ | {
        "CONFIG_FILE_PATH": str(config),
        "GUARD_JOURNAL": str(folder / "journal.db"),
        "HEARD": str(running.heard),
        "OPENAI_API_KEY": "made-up-key",
        "OPENAI_BASE_URL": f"{served_backend.url}/v1",
        "PYTHONPATH": str(ROOT),
    }
    served = [sys.executable, "-W", "ignore", "-m", "uvicorn", "litellm.proxy.proxy_server:app"]
    with said.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*served, "--port", str(port), "--log-level", "warning"],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=file,
        )
    try:
        _wait(process, running, said)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], proxy: Proxy, said: Path) -> None:
    """Wait until a proxy answers; skip the test where what it needs is not installed."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        with suppress(httpx2.TransportError):
            if httpx2.get(f"{proxy.url}/health/liveliness", timeout=5).is_success:
                return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    text = said.read_text("utf-8")
    if "No module named" in text and os.environ.get("CLEARANCE_LITELLM_PROXY") != "required":
        pytest.skip("what LiteLLM's proxy needs is not installed")
    raise RuntimeError(f"the proxy did not start:\n{text[-3000:]}")


def _configuration(backend: str) -> dict[str, Any]:
    """Return the documentation's configuration, with what the tests need beside it."""
    example = ROOT / "docs" / "examples" / "litellm_proxy.yaml"
    config: dict[str, Any] = yaml.safe_load(example.read_text("utf-8"))
    for guardrail in config["guardrails"]:
        guardrail["litellm_params"]["default_on"] = False
    parts = "tests.adapters.litellm.proxy_parts"
    config["guardrails"].append(
        {
            "guardrail_name": "words",
            "litellm_params": {
                "guardrail": f"{parts}.WordGuardrail",
                "mode": ["pre_call", "post_call"],
            },
        }
    )
    config["model_list"].append(
        {
            "model_name": "claude",
            "litellm_params": {
                "model": "anthropic/claude",
                "api_base": backend,
                "api_key": "made-up-key",
            },
        }
    )
    passed = {
        "path": PASSED,
        "target": f"{backend}/v1/chat/completions",
        "headers": {"Authorization": "Bearer made-up-key"},
        "guardrails": ["words"],
    }
    return config | {
        "litellm_settings": {
            "callbacks": [f"{parts}.recorder"],
            "enable_json_schema_validation": True,
        },
        "general_settings": {"master_key": KEY, "pass_through_endpoints": [passed]},
    }
