"""Every framework's adapter against the newest and the lowest version that its extra allows.

    nox -f tests/noxfile.py -s newest                # all of them in one environment, as CI does
    nox -f tests/noxfile.py -s lowest                # likewise, each at its lower bound
    nox -f tests/noxfile.py -s newest -- haystack    # those named, alone

Ranges are those of `pyproject.toml`; the lowest version is the bound itself. A framework whose
folder in `tests/adapters` is not there is an error: nothing is passed over in silence.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nox

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
    "project"
]

nox.options.sessions = ["newest", "lowest"]
nox.options.default_venv_backend = "venv"
nox.options.envdir = str(ROOT / ".nox")
nox.options.reuse_existing_virtualenvs = True


@dataclass(frozen=True)
class Framework:
    """One framework.

    Attributes:
        folder: its tests' in `tests/adapters`.
        extra: of `pyproject.toml`.
        packages: those of the extra whose versions are tested.
        beside: what its tests need beside the extra.
        more: further files of tests that are about it, below `tests`.
    """

    folder: str
    extra: str
    packages: tuple[str, ...]
    beside: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    def lowest(self) -> Iterator[str]:
        """Yield each package at its lower bound."""
        ranges = PROJECT["optional-dependencies"][self.extra]
        for package in self.packages:
            bound = next(found for line in ranges if (found := _bound(line, package)))
            yield f"{package}=={bound}"


_PROXY: Final = (
    *("apscheduler", "backoff", "cryptography", "expression", "fastapi-sso", "mcp"),
    *("orjson", "pyjwt", "pynacl", "python-multipart", "restrictedpython", "rq", "semver"),
    *("soundfile", "websockets", "azure-identity"),
)
"""What LiteLLM's proxy imports; its extra `proxy` pins far more than that."""

FRAMEWORKS: Final = (
    Framework("langchain", "langchain", ("langchain-core", "langchain")),
    Framework("pydantic_ai", "pydantic-ai", ("pydantic-ai-slim",)),
    Framework("haystack", "haystack", ("haystack-ai",)),
    Framework("llama_index", "llama-index", ("llama-index-core",)),
    Framework("openai_agents", "openai-agents", ("openai-agents",)),
    Framework("litellm", "litellm", ("litellm",), _PROXY, ("server/test_litellm.py",)),
    Framework("transformers", "transformers", ("transformers",)),
    Framework("ray", "ray", ("ray",)),
)
"""All that are tested here."""


@nox.session
def newest(session: nox.Session) -> None:
    """Test the newest versions that pip finds for all of them together."""
    chosen = _chosen(session)
    session.install(*_project(chosen), *_beside(chosen))
    _test(session, chosen)


@nox.session
def lowest(session: nox.Session) -> None:
    """Test the lower bounds of all of them, which can share an environment, too."""
    chosen = _chosen(session)
    bounds = [line for one in chosen for line in one.lowest()]
    session.install(*_project(chosen), *_beside(chosen), *bounds)
    _test(session, chosen)


def _chosen(session: nox.Session) -> list[Framework]:
    """Return the frameworks that were named, all of them where none was."""
    known = {one.folder: one for one in FRAMEWORKS}
    if missing := {one.extra for one in FRAMEWORKS} - PROJECT["optional-dependencies"].keys():
        session.error(f"pyproject.toml has no extra {', '.join(sorted(missing))}")
    if unknown := set(session.posargs) - known.keys():
        session.error(f"no such framework: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return [known[name] for name in session.posargs or known]


def _project(chosen: list[Framework]) -> list[str]:
    extras = ",".join(["test", *(one.extra for one in chosen)])
    return ["-e", f"{ROOT}[{extras}]"]


def _beside(chosen: list[Framework]) -> list[str]:
    return [package for one in chosen for package in one.beside]


def _test(session: nox.Session, chosen: list[Framework]) -> None:
    """Run the tests of each framework in a process of its own, as its users have it."""
    for one in chosen:
        folder = ROOT / "tests" / "adapters" / one.folder
        if not list(folder.glob("test_*.py")):
            session.error(f"{folder} holds no tests")
        session.chdir(ROOT)
        # What is skipped here was not tested.
        environment = {"CLEARANCE_LITELLM_PROXY": "required"}
        more = [str(ROOT / "tests" / name) for name in one.more]
        session.run("pytest", "-q", str(folder), *more, env=environment)


def _bound(line: str, package: str) -> str | None:
    """Return the lower bound of a requirement, `None` where it is another package's."""
    found = re.fullmatch(rf"{re.escape(package)}(\[[^]]*\])?>=([0-9.]+)(,.*)?", line)
    return found[2] if found else None
