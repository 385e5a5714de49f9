"""`docs/server.md` against the server: nothing is missing there, and nothing is made up."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from guard.server import errors, health
from guard.server.app import OWN
from guard.server.configuration import load_settings
from guard.server.moderations import OPENAI_NAMES
from guard.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the cells of the table's rows whose first heading is `heading`."""
    table = TEXT.partition(f"\n| {heading} ")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def names(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


class TestTables:
    """Tables of names."""

    def test_settings(self) -> None:
        """Every setting has its row, with the default that it has."""
        described: dict[str, str] = {}
        for name_cell, default_cell, _ in rows("setting"):
            found = names(name_cell)
            defaults = default_cell.split(", ") if len(found) > 1 else [default_cell]
            described |= dict(zip(found, defaults * len(found), strict=False))
        assert set(described) == set(ServerSettings.model_fields)
        sizes = {"KiB": 1 << 10, "MiB": 1 << 20}
        for name, text in described.items():
            default = ServerSettings.model_fields[name].default
            number, _, unit = text.strip("`").partition(" ")
            if isinstance(default, int | float) and not isinstance(default, bool):
                assert float(number) * sizes.get(unit, 1) == default, name

    def test_paths(self) -> None:
        """Every path of the service is there."""
        described = " ".join(cell for row in rows("path") for cell in names(row[0]))
        for path in (*OWN, *health.PATHS):
            assert path in described

    def test_moderations(self) -> None:
        """The mapping of categories is the one that is used."""
        assert {names(theirs)[0]: names(ours)[0] for theirs, ours in rows("OpenAI")} == OPENAI_NAMES

    def test_metrics(self, serve: Callable[..., httpx2.Client]) -> None:
        """Every number that is exported has its row."""
        client = serve()
        client.post("/v1/guard/check", json={"response": "Hi."})
        exported = set(re.findall(r"^# TYPE (\w+)", client.get("/metrics").text, re.MULTILINE))
        described = {name for row in rows("name") for name in names(row[0])}
        assert {name for name in exported if not name.endswith("_created")} == described

    def test_error_codes(self) -> None:
        """Every code that the service answers has its row, and none is made up."""
        folder = Path(errors.__file__).parent
        used = {
            code
            for path in folder.glob("*.py")
            if path.name != "proxy.py"
            for code in codes(path.read_text(encoding="utf-8"))
        }
        described = {name for row in rows("status") for name in names(row[1])}
        assert used | {"not_found", "method_not_allowed"} == described


def codes(source: str) -> Iterator[str]:
    """Yield the codes of the refusals that a module makes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused":
            code = node.args[2]
            if isinstance(code, ast.Constant):
                yield str(code.value)


class TestExamples:
    """Examples are usable."""

    def test_settings_files(self, tmp_path: Path) -> None:
        """The YAML examples of settings are read without a problem."""
        blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
        clients = next(block for block in blocks if block.startswith("security_class"))
        path = tmp_path / "guard.yaml"
        for digit in "12":
            clients = clients.replace("sha256:...", f"sha256:{digit * 64}", 1)
        path.write_text(clients, encoding="utf-8")
        settings = load_settings(path, host="0.0.0.0")
        assert [key.name for key in settings.keys] == ["shop", "back-office"]
        tags = next(block for block in blocks if block.startswith("tag:"))
        path.write_text(tags, encoding="utf-8")
        deployed = load_settings(path).deployed
        assert deployed
        assert deployed.model == "my-model"

    def test_litellm(self) -> None:
        """LiteLLM's example is YAML and asks for the mode that holds back."""
        block = next(b for b in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "litellm" in b)
        (guardrail,) = yaml.safe_load(block)["guardrails"]
        options = guardrail["litellm_params"]["optional_params"]
        assert options["streaming_transform_mode"] == "incremental_diff"
