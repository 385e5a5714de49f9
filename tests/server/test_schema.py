"""The API's schema: what it allows is served, what it forbids is refused.

`HYPOTHESIS_PROFILE=ci` or `=slow` has schemathesis try many more requests, edge cases included.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import pytest

from guard.errors import InputError
from guard.exchange import Exchange
from guard.server.app import OWN
from guard.server.checks import PATH as CHECK
from guard.server.exchange_schema import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2
    from fastapi import FastAPI

FEW: Final = ("--phases", "examples,fuzzing", "--max-examples", "12")
MANY: Final = ("--phases", "examples,coverage,fuzzing", "--max-examples", "300")

GOOD: Final[tuple[Any, ...]] = (
    {"response": "Hi."},
    {"response": ["Hi.", {"type": "text", "text": "there"}]},
    {"response": {"message": {"content": "Hi."}}, "choices": None},
    {"choices": [{"content": None, "refusal": "No."}, "Hi."], "prompt": "Hello?"},
    {"choices": [{"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]}]},
    {"choices": [{"tool_calls": [{"name": "f", "arguments": "{}"}]}], "metadata": {"a": 1}},
    {
        "messages": [{"role": "user", "content": [{"text": "Hello?"}, {"type": "image"}]}],
        "response": {"reasoning": [{"thinking": "Well."}]},
    },
)

BAD: Final[tuple[Any, ...]] = (
    {},
    [],
    {"response": None},
    {"response": 5},
    {"choices": []},
    {"response": "Hi.", "choices": ["Hi."]},
    {"response": {"content": "Hi.", "message": {"content": "Ho."}}},
    {"response": {"content": [{"type": "image"}]}},
    {"choices": [{"tool_calls": [{"function": {"name": "f"}}]}]},
    {"response": "Hi.", "messages": [{"content": "Hello?"}]},
    {"response": "Hi.", "messages": [{"role": "robot", "content": "Hello?"}]},
    {"response": "Hi.", "metadata": []},
)


def test_every_endpoint(serve: Callable[..., httpx2.Client], tmp_path: Path) -> None:
    """Schemathesis finds no answer to a good or bad request that its schema does not allow."""
    client = serve()
    tries = MANY if os.environ.get("HYPOTHESIS_PROFILE") in ("ci", "slow") else FEW
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            program,
            "run",
            f"{client.base_url}/openapi.json",
            "--checks",
            "all",
            "--no-color",
            "--continue-on-failure",
            *tries,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "7 selected / 7 total" in done.stdout


class TestDescription:
    """What the schema says."""

    def test_paths(self, make_app: Callable[..., FastAPI]) -> None:
        """Every endpoint of our own is described, with what its errors look like."""
        described = make_app().openapi()["paths"]
        assert {*OWN, "/health/live", "/health/ready", "/metrics"} == set(described)
        for path in OWN:
            assert {"200", "default"} <= set(described[path]["post"]["responses"])

    def test_the_exchange(self, make_app: Callable[..., FastAPI]) -> None:
        """The body of a check is an exchange, whose parts are there."""
        document = make_app().openapi()
        body = document["paths"][CHECK]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"] == {"$ref": "#/components/schemas/Exchange"}
        assert set(SCHEMAS) <= set(document["components"]["schemas"])


class TestExchange:
    """The schema of an exchange against the reader that it describes."""

    VALIDATOR = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/Exchange", "components": {"schemas": SCHEMAS}}
    )

    @pytest.mark.parametrize("exchange", GOOD)
    def test_good(self, exchange: Any) -> None:
        """What the schema allows is read."""
        self.VALIDATOR.validate(exchange)
        assert Exchange.parse(exchange).choices

    @pytest.mark.parametrize("exchange", BAD)
    def test_bad(self, exchange: Any) -> None:
        """What the schema forbids is refused."""
        assert not self.VALIDATOR.is_valid(exchange)
        with pytest.raises(InputError):
            Exchange.parse(exchange)
