"""Lightness: what importing the package and reading its catalogues does not load."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BACKENDS = {
    "hyperscan",
    "numpy",
    "onnxruntime",
    "pydantic",
    "sqlalchemy",
    "structlog",
    "tokenizers",
    "torch",
    "transformers",
}


def loaded(script: str) -> set[str]:
    """Return the names of all modules that are loaded after `script` ran in a fresh interpreter."""
    script = f"import json, sys\n{script}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


class TestImport:
    """`import guard`."""

    def test_it_loads_no_backend(self) -> None:
        """Importing the package loads neither a model's runtime nor any other library."""
        assert not loaded("import guard") & BACKENDS

    def test_it_loads_little(self) -> None:
        """It loads no module of its own and a few of the standard library's."""
        new = loaded("import guard") - loaded("pass")
        assert {name.partition(".")[0] for name in new} <= {"guard", *sys.stdlib_module_names}
        assert len(new) < 40

    def test_a_guard_that_writes_nothing_loads_nothing_to_write_with(self) -> None:
        """Event loops and logs take memory that a plain check has no use for."""
        text = "Water the basil from below. " * 12
        found = loaded(f"import guard; guard.Guard.load('public', journal=None).check({text!r})")
        assert "onnxruntime" in found
        assert not found & {"asyncio", "structlog", "sqlalchemy"}

    @pytest.mark.parametrize(
        ("script", "allowed"),
        [
            ("import guard; guard.CATEGORIES", set[str]()),
            ("import guard; guard.Exchange.of('text')", set[str]()),
            ("import guard; guard.Finding; guard.Passage; guard.Detector", set[str]()),
            ("import guard; guard.builtin_classes()", {"pydantic"}),
            ("import guard; guard.load_class('public')", {"pydantic"}),
            ("import guard; dir(guard); guard.__all__", set[str]()),
        ],
    )
    def test_catalogues_load_no_backend(self, script: str, allowed: set[str]) -> None:
        """Categories, classes and plain values can be read without a model or a database."""
        assert loaded(script) & BACKENDS <= allowed

    def test_the_guard_itself_loads_no_model_runtime(self) -> None:
        """The class `Guard` alone loads no model, no pattern engine and no database."""
        heavy = BACKENDS - {"pydantic", "structlog"}
        assert not loaded("from guard import Guard") & heavy

    def test_torch_is_never_needed(self) -> None:
        """A guard with its bundled model judges without torch, and without a database."""
        script = (
            "import structlog\n"
            "structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))\n"
            "from guard import Guard\n"
            "assert Guard.load('public', journal=None).check('All is well.').coverage.complete"
        )
        there = loaded(script)
        assert "onnxruntime" in there
        assert not there & {"torch", "transformers", "sqlalchemy"}
