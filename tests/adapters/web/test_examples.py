"""What the web adapters load, and the documentation's examples, run."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import httpx2
import pytest

from guard.exchange import Choice
from guard.server.scripted import serve_in_thread
from tests.adapters.leak_lab import FINE, PROMPT, run_example
from tests.adapters.web.served import served_wsgi

if TYPE_CHECKING:
    from pathlib import Path

    from guard.server.scripted import ScriptedApp

KEY = "AKIA" + "Z3QW7RT5YP4KX2LM"
"""A made-up key of a form that a pattern pack knows."""

OTHERS = ("starlette", "fastapi", "uvicorn", "flask", "werkzeug", "httpx2", "tenacity", "anyio")
"""Packages that neither adapter needs."""


@pytest.mark.parametrize("adapter", ["asgi", "wsgi"])
def test_no_framework_is_imported(adapter: str) -> None:
    """An adapter loads nothing that is not of the standard library or Clearance's own."""
    code = f"import sys, guard.adapters.{adapter}; print(*{{*{OTHERS!r}}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_the_asgi_example(
    backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It answers as a stream, without the key that the model would give away."""
    backend.script(PROMPT, FINE, Choice(f"{FINE} The key is {KEY}, as you know. {FINE}"))
    app = run_example("asgi_app", backend, monkeypatch, tmp_path)["app"]
    with serve_in_thread(app) as server:
        url = f"{server.url}/chat"
        good, bad = (httpx2.post(url, json={"message": PROMPT}, timeout=60) for _ in range(2))
    assert good.text == FINE
    assert bad.text
    assert KEY not in bad.text


def test_the_wsgi_example(
    backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It answers in JSON, without the key that the model would give away."""
    backend.script(PROMPT, FINE, Choice(f"{FINE} The key is {KEY}, as you know. {FINE}"))
    app = run_example("wsgi_app", backend, monkeypatch, tmp_path)["app"]
    with served_wsgi(app) as url:
        asked = {"question": PROMPT}
        good, bad = (httpx2.post(f"{url}/ask", json=asked, timeout=60) for _ in range(2))
    assert good.json() == {"answer": FINE}
    assert bad.json().keys() >= {"answer"}
    assert KEY not in bad.text
