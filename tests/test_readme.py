"""The README and the docs: their code runs, their commands are CI's, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guard import Guard, builtin_classes
from guard.audit.profile import Profile

if TYPE_CHECKING:
    from guard.server.scripted import ScriptedApp

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

if not README.is_file():  # the tests of the built wheel run outside the checkout
    pytest.skip("there is no README beside the tests", allow_module_level=True)

TEXT = README.read_text("utf-8")
PAGES = sorted([README, *(ROOT / "docs").glob("*.md"), ROOT / "CHANGELOG.md"])


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Return the code blocks of a language, by default the README's."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples_run(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    backend: ScriptedApp,
) -> None:
    """Each example runs as it stands and prints something; SDKs call a scripted backend."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{backend.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    exec(compile(blocks("python")[number], f"README example {number}", "exec"), {"__name__": "x"})
    assert capsys.readouterr().out.strip()


def test_the_example_of_an_audit_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/audit.md: as it stands there."""
    (code,) = blocks("python", (ROOT / "docs/audit.md").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/audit.md", "exec"), {})
    assert Profile.read(tmp_path / "audit-my-bot/profile.json").fingerprint.model == "my-bot"


LIVE = blocks("python", (ROOT / "docs/live.md").read_text("utf-8"))


@pytest.mark.parametrize("number", range(len(LIVE)))
def test_the_examples_of_live_risk_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/live.md: each as it stands there, with nothing that another one made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALARM_SECRET", "sixteen characters")
    made: dict[str, object] = {}
    exec(compile(LIVE[number], f"docs/live.md {number}", "exec"), made)
    assert made


def test_the_first_example_is_short() -> None:
    """Ten lines show what it does."""
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 10


@pytest.mark.parametrize("name", ["run", "test"])
def test_ci_runs_the_commands_of_the_readme(name: str) -> None:
    """Both commands are marked, are one line, and CI takes them from here."""
    found = re.search(rf"<!-- command: {name} -->\n```\n(.+)\n```", TEXT)
    assert found is not None
    assert found[1].startswith("python3 -m venv")
    assert f"readme_command {name}" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there."""
    links = re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_every_class_is_named() -> None:
    """The table of classes is complete and has the right ranks."""
    for item in builtin_classes():
        assert f"| `{item.name}` | {item.rank} |" in TEXT


def test_what_a_newcomer_types_is_there_by_then() -> None:
    """Bare `guard` comes behind the activated environment, an SDK or a server behind its extra."""
    active = TEXT.index(". .venv/bin/activate")
    assert active < TEXT.index("\nguard ")
    assert active < TEXT.index("pip install '.[")
    needs = {"openai": "from openai", "server": "guard serve", "audit": "guard audit"}
    for extra, used in needs.items():
        assert TEXT.index(f"pip install '.[{extra}]'") < TEXT.index(used)


def test_the_first_text_of_the_shell_is_not_let_pass() -> None:
    """Whoever tries it sees what a guard does."""
    (text,) = re.findall(r'echo "(.+)" \| guard check', TEXT)
    assert Guard.load("public", journal=None).check(text).action == "rewrite"
