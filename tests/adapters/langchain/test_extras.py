"""What an import of the adapter brings, what a missing package says, and the examples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("langchain_core", reason="langchain is not installed")

if TYPE_CHECKING:
    from guard.server.scripted import ScriptedApp

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"

OTHERS = (
    *("anthropic", "openai", "litellm", "pydantic_ai", "llama_index", "haystack", "transformers"),
    *("torch", "agents", "fastapi", "onnxruntime", "sqlalchemy"),
)
"""Packages that have no place in a program that uses LangChain alone."""


def python(code: str) -> str:
    """Return what a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_no_other_framework_is_imported() -> None:
    """The core of the adapter needs the framework's core."""
    loaded = f"[name for name in {(*OTHERS, 'langchain', 'langgraph')} if name in sys.modules]"
    code = f"import sys, guard.adapters.langchain; print({loaded})"
    assert python(code).strip() == "[]"


def test_the_middleware_imports_no_other_framework() -> None:
    """It needs LangChain and LangGraph, which load on first use."""
    pytest.importorskip("langchain", reason="langchain is not installed")
    loaded = f"[name for name in {OTHERS} if name in sys.modules]"
    code = f"import sys; from guard.adapters.langchain import GuardMiddleware; print({loaded})"
    assert python(code).strip() == "[]"


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("langchain_core", "GuardedChatModel"),
        ("langchain", "GuardMiddleware"),
        ("langgraph", "GuardMiddleware"),
    ],
)
def test_a_missing_package_names_the_command(package: str, name: str) -> None:
    """The error says what to install, and how."""
    code = f"""
import sys
sys.modules[{package!r}] = None
try:
    from guard.adapters.langchain import {name}
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = python(code)
    assert said.startswith("MissingExtraError")
    assert "pip install 'clearance-guard[langchain]'" in said


def test_an_old_core_has_no_decisions() -> None:
    """The error says what is missing; the rest of the adapter works."""
    code = """
import sys
sys.modules["langchain_core.decisions"] = None
import guard.adapters.langchain as adapter
adapter.GuardedChatModel
try:
    adapter.RiskDecisions
except ImportError as error:
    print(type(error).__name__, error, *error.__notes__)
"""
    said = python(code)
    assert said.startswith("MissingExtraError")
    assert "langchain-core>=1.8" in said


def test_an_unknown_name_is_an_error() -> None:
    """The adapter is a module like any other."""
    from guard.adapters import langchain

    with pytest.raises(AttributeError, match="no attribute `Nothing`"):
        _ = langchain.Nothing


@pytest.mark.parametrize("name", ["model", "agent", "chain", "decisions"])
def test_the_examples_run(name: str, backend: ScriptedApp, tmp_path: Path) -> None:
    """Each runs as it stands, against a backend that answers every question, in ten lines."""
    pytest.importorskip("langchain", reason="langchain is not installed")
    pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    if name == "decisions":
        pytest.importorskip("langchain_core.decisions", reason="langchain-core is older than 1.8")
    path = EXAMPLES / f"langchain_{name}.py"
    if not path.is_file():
        pytest.skip("there are no examples beside the tests")
    settings = {
        "OPENAI_BASE_URL": f"{backend.url}/v1",
        "OPENAI_API_KEY": "none",
        "GUARD_JOURNAL": str(tmp_path / "journal.db"),
    }
    done = subprocess.run(
        [sys.executable, str(path)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not done.returncode, done.stderr
    assert done.stdout.strip()
    lines = path.read_text("utf-8").splitlines()
    code = [line for line in lines[1:] if line and not line.startswith(("import", "from"))]
    assert len(code) <= 10
