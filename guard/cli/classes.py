"""`guard classes`: the security classes, one class in detail, a check of policy files.

This module does not know how a class is read or what is done with it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from guard.assess import log_odds
from guard.categories import CATEGORIES
from guard.cli.screen import FAILED, console, errors, fail, plain
from guard.errors import PolicyError
from guard.policy import builtin_classes, load_classes, schema_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from guard.security_class import SecurityClass


@dataclass(frozen=True, slots=True)
class Row:
    """What a class does about one category.

    Attributes:
        category: its name.
        prior: the live prior, in (0, 1).
        flag: live risk to flag at, in [0, 1]; `None` for never.
        flag_ratio: likelihood ratio that the evidence must have for that; `None` for never.
        act: live risk to act at, in [0, 1]; `None` for never.
        act_ratio: likelihood ratio for that.
        remedy: what is done from `act` on, `None` where the class never acts.
    """

    category: str
    prior: float
    flag: float | None
    flag_ratio: float | None
    act: float | None
    act_ratio: float | None
    remedy: str | None


def classes(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Built-in classes or policy files (`file.yaml#name`); by default the built-in "
            "ones as a table.",
            metavar="[NAME|FILE]...",
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of policy files, for editors.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only check policy files; name all that is wrong.")
    ] = False,
    category: Annotated[
        list[str] | None,
        typer.Option(help="A category that a detector of your own finds (repeatable)."),
    ] = None,
) -> None:
    """Show security classes, or check policy files.

    Exit code: 0 all is well, 2 a file or a name is wrong.

        guard classes public

        guard classes --check policy.yaml
    """
    if schema:
        typer.echo(schema_text(), nl=False)
    elif check:
        _check(sources or (), category or ())
    else:
        found = _load(sources, category or ())
        if as_json:
            typer.echo(json.dumps([_plain_class(item) for item in found], indent=2))
        elif sources and len(found) == 1:
            _detail(found[0])
        else:
            console.print(_overview(found))


def rows(security_class: SecurityClass) -> list[Row]:
    """Return what a class does about each category that it limits, in the taxonomy's order."""
    order = [*CATEGORIES, *security_class.limits]
    return [_row(security_class, name) for name in sorted(security_class.limits, key=order.index)]


def _row(security_class: SecurityClass, category: str) -> Row:
    limit = security_class.limits[category]
    prior = security_class.prior_of(category)
    return Row(
        category=category,
        prior=prior,
        flag=limit.flag,
        flag_ratio=_ratio(limit.flag, prior),
        act=limit.act,
        act_ratio=_ratio(limit.act, prior),
        remedy=None if limit.act is None else limit.remedy,
    )


def _ratio(limit: float | None, prior: float) -> float | None:
    """Return the likelihood ratio at which the live risk reaches `limit`, `None` for never."""
    if limit is None or limit >= 1:
        return None
    return math.exp(log_odds(limit) - log_odds(prior)) if limit > 0 else 0.0


def _load(sources: Sequence[str] | None, own: Sequence[str]) -> list[SecurityClass]:
    if not sources:
        return list(builtin_classes())
    found: list[SecurityClass] = []
    problems: list[str] = []
    for source in sources:
        try:
            found += load_classes(source, extra_categories=own)
        except PolicyError as error:
            problems += error.problems
    if problems:
        fail("\n".join(problems))
    return found


def _check(sources: Iterable[str], own: Sequence[str]) -> None:
    good = True
    for source in sources:
        try:
            names = [item.name for item in load_classes(source, extra_categories=own)]
            console.print(plain(f"{source}: fine ({', '.join(names)})"), markup=False)
        except PolicyError as error:
            good = False
            errors.print(plain("\n".join(error.problems)), markup=False, soft_wrap=True)
    if not sources:
        fail("name the policy files to check")
    if not good:
        raise typer.Exit(FAILED)


def _overview(found: Iterable[SecurityClass]) -> Table:
    table = Table("rank", "class", "for", "on failure", "shadow")
    for item in found:
        table.add_row(
            str(item.rank),
            Text(item.name, "bold"),
            Text(plain(item.description)),
            item.on_failure,
            "yes" if item.shadow else "no",
        )
    return table


def _detail(security_class: SecurityClass) -> None:
    item = security_class
    console.print(Text.assemble((item.name, "bold"), f", rank {item.rank}"))
    if item.description:
        console.print(Text(plain(item.description)))
    table = Table("category", caption="needs: the likelihood ratio that the evidence must reach")
    for name in ("prior", "flag", "needs", "act", "needs"):
        table.add_column(name, justify="right")
    table.add_column("remedy")
    for row in rows(item):
        figures = (row.flag, row.flag_ratio, row.act, row.act_ratio)
        table.add_row(row.category, f"{row.prior:g}", *map(_figure, figures), row.remedy or "-")
    console.print(table)
    for name, limit in item.input_limits.items():
        console.print(f"input: {name}: flag {_figure(limit.flag)}, refuse {_figure(limit.act)}")
    if item.deploy is not None:
        limits = {**item.deploy.rates, **item.deploy.effects}
        shown = ", ".join(f"{name} {value:g}" for name, value in limits.items())
        console.print(f"deploy: tag {item.deploy.tag}; highest upper bounds: {shown or 'none'}")
    kept = ", ".join(item.journal.actions) or "nothing"
    console.print(f"on failure: {item.on_failure}; shadow: {'yes' if item.shadow else 'no'}")
    console.print(f"time: {item.timeout_seconds:g} s a unit; journal: {kept} ({item.journal.text})")
    console.print(f"messages: {', '.join(item.messages)} ({item.language} by default)")


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _plain_class(security_class: SecurityClass) -> dict[str, Any]:
    plain_class = security_class.model_dump(mode="json", exclude={"limits", "prior"})
    return plain_class | {"categories": [asdict(row) for row in rows(security_class)]}
