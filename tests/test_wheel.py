"""What the built wheel holds, whatever the checkout's links have become, and what it asks for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent

if not (ROOT / "pyproject.toml").is_file():  # the tests of the built wheel run outside the checkout
    pytest.skip("there is no checkout beside the tests", allow_module_level=True)

LINKS = ("adapters", "policies")


def wheel_files(root: Path) -> set[str]:
    """Return the paths of all files in the wheel that is built from `root`."""
    return {file.distribution_path for file in WheelBuilder(str(root)).recurse_included_files()}


def copy_checkout(target: Path) -> None:
    """Copy what a wheel is built from to `target`, links as links."""
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, target)
    light = shutil.ignore_patterns("__pycache__", "models", "training")
    for name in ("guard", *LINKS):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=light)


def test_a_checkout_without_links_builds_the_same_wheel(tmp_path: Path) -> None:
    """Where Git wrote a line of text for each link, adapters and policies are still there."""
    copy_checkout(tmp_path / "linked")
    copy_checkout(tmp_path / "plain")
    for name in LINKS:
        link = tmp_path / "plain/guard" / name
        link.unlink(missing_ok=True)
        link.write_text(f"../{name}", "utf-8")
    built = wheel_files(tmp_path / "plain")
    assert built == wheel_files(tmp_path / "linked")
    assert {f"guard/adapters/{file.name}" for file in (ROOT / "adapters").glob("*.py")} <= built
    assert "guard/policies/public.yaml" in built
    pages = ROOT / "guard/server/review"
    parts = [*pages.glob("*.css"), *pages.glob("*.svg"), *pages.glob("templates/*.html")]
    assert len(parts) > 5
    assert {part.relative_to(ROOT).as_posix() for part in parts} <= built


def test_typer_is_new_enough_for_the_commands() -> None:
    """Options of a few fixed words, which the commands have, are read by Typer from 0.19 on."""
    declared = [Requirement(line) for line in WheelBuilder(str(ROOT)).metadata.core.dependencies]
    (typer,) = (one for one in declared if one.name == "typer")
    assert typer.specifier.contains("0.19.0")
    assert not typer.specifier.contains("0.18.0")
