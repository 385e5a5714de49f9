"""The public names: listed, importable, explained, and light to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import guard

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = ast.parse(Path(guard.__file__).read_text("utf-8"))

HEAVY = ("onnxruntime", "tokenizers", "torch", "hyperscan", "sqlalchemy", "pydantic", "numpy")
"""What `import guard` must not load."""


def checked_imports() -> dict[str, str]:
    """Return each name that type checkers see in `guard`, with the module it comes from."""
    block = next(node for node in SOURCE.body if isinstance(node, ast.If))
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def explanation(name: str) -> str:
    """Return what the source says about a public name: a docstring, or the text below it."""
    value = getattr(guard, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return inspect.getdoc(value) or ""
    module = importlib.import_module(guard._HOMES[name])
    body = ast.parse(inspect.getsource(module)).body
    for node, below in pairwise(body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            return str(below.value.value)
    return ""


def kind(name: str) -> int:
    """Return a name's place in the list: constants, then classes, then functions."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2


def hinted() -> Iterator[tuple[str, Any]]:
    """Yield every public class, each of its public methods, and every function, by name."""
    for name in guard.__all__:
        value = getattr(guard, name)
        if inspect.isclass(value):
            yield name, value
            yield from ((f"{name}.{key}", call) for key, call in _methods(value))
        elif inspect.isfunction(value):
            yield name, value


def _methods(owner: type) -> Iterator[tuple[str, Any]]:
    for key, value in vars(owner).items():
        inner = value.fget if isinstance(value, property) else value
        inner = inner.func if isinstance(inner, cached_property) else inner
        inner = inner.__func__ if isinstance(inner, classmethod | staticmethod) else inner
        # What pydantic puts into its models has pydantic's names.
        own = inspect.isfunction(inner) and inner.__globals__["__name__"] == owner.__module__
        if own and not re.match("_[^_]", key):
            yield key, inner


HINTED = dict(hinted())


class TestNames:
    """`guard.__all__`."""

    def test_they_are_sorted_and_unique(self) -> None:
        """Constants, classes and functions, each by the alphabet, and none twice."""
        assert sorted(set(guard.__all__), key=lambda name: (kind(name), name)) == guard.__all__

    @pytest.mark.parametrize("name", guard.__all__)
    def test_each_can_be_imported(self, name: str) -> None:
        """Every name is there and is what its home module calls by that name."""
        home = importlib.import_module(guard._HOMES[name])
        assert getattr(guard, name) is getattr(home, name)

    @pytest.mark.parametrize("name", guard.__all__)
    def test_each_is_explained(self, name: str) -> None:
        """Every name has a docstring that begins with a sentence."""
        assert re.match(r"[A-Z`][^\n]+[.:]$", explanation(name), re.MULTILINE), explanation(name)

    def test_type_checkers_see_the_same_names(self) -> None:
        """What loads on first use is what type checkers are told, from the same modules."""
        assert checked_imports() == guard._HOMES
        assert set(guard._HOMES) == set(guard.__all__)

    def test_dir_lists_them(self) -> None:
        """Names that nothing has used yet are listed, too."""
        assert set(guard.__all__) <= set(dir(guard))
        assert dir(guard) == sorted(dir(guard))

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        """A name that is not public is refused like any other."""
        with pytest.raises(AttributeError, match="no attribute `Gaurd`"):
            getattr(guard, "Gaurd")  # noqa: B009  # type checkers need not know the name

    def test_the_version_is_one(self) -> None:
        """The version has the form that packaging tools expect."""
        assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", guard.__version__)


class TestHints:
    """Hints that can be read at run time, as pydantic, FastAPI and injectors do."""

    @pytest.mark.parametrize("name", HINTED)
    def test_each_can_be_read(self, name: str) -> None:
        """The hints of every public class, of its methods and of every function resolve."""
        assert isinstance(get_type_hints(HINTED[name]), dict)

    def test_they_name_the_classes_themselves(self) -> None:
        """A hint is the public class, and not another one of its name."""
        assert get_type_hints(guard.Guard.check)["return"] is guard.Verdict
        assert get_type_hints(HINTED["Guard.journal"])["return"] == guard.Journal | None
        assert get_type_hints(guard.Assessment)["findings"] == tuple[guard.Finding, ...]

    def test_an_endpoint_can_answer_with_a_verdict(self) -> None:
        """FastAPI makes a schema of a verdict, and writes one, wherever it was imported from."""
        app = FastAPI()
        verdict = guard.Guard.load(journal=None).check("Water the basil from below.")

        @app.get("/")
        def judged() -> guard.Verdict:
            return verdict

        client = TestClient(app)
        assert client.get("/").json()["action"] == "allow"
        assert "Verdict" in client.get("/openapi.json").json()["components"]["schemas"]

    @pytest.mark.parametrize("name", guard._HINTED)
    def test_what_else_they_name_is_there(self, name: str) -> None:
        """A type that is not public and that a hint names is what its module calls so."""
        home = importlib.import_module(guard._HINTED[name])
        assert getattr(guard, name) is getattr(home, name)

    def test_reading_none_loads_nothing(self) -> None:
        """What hints alone mention is not loaded by whatever has them."""
        script = (
            "import sys\nfrom guard import *\n"
            "print(*sorted({'guard.audit', 'guard.live'} & set(sys.modules)))"
        )
        assert _run(script) == "\n"


class TestImport:
    """What importing costs."""

    @pytest.mark.parametrize(
        "statement",
        ["import guard", "from guard.errors import GuardError", "from guard import CATEGORIES"],
    )
    def test_it_loads_nothing_heavy(self, statement: str) -> None:
        """Neither the package nor its catalogue of categories loads a runtime or a library."""
        script = f"{statement}\nimport sys\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))"
        assert _run(script) == "\n"

    def test_a_policy_loads_no_model(self) -> None:
        """Classes can be read without the model's runtime."""
        heavy = ("onnxruntime", "tokenizers", "torch", "hyperscan", "sqlalchemy")
        script = (
            "import guard, sys\nguard.load_class('public')\nguard.builtin_classes()\n"
            f"print(*sorted(set({heavy!r}) & set(sys.modules)))"
        )
        assert _run(script) == "\n"

    def test_everything_can_be_imported_at_once(self) -> None:
        """`from guard import *` brings every public name."""
        script = f"from guard import *\nprint(all(name in globals() for name in {guard.__all__!r}))"
        assert _run(script) == "True\n"


def _run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout
