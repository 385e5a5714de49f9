"""`guard live`: live priors, evidence over time and alarms; clearing an alarm.

Looking changes nothing, whatever file it is pointed at. Names come from stores that others
write to, so nothing is printed that has not been through `guard.cli.screen.plain`, and nothing
of it is read as markup.

This module does not know how a test works or how state is stored.
"""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from guard.cli.screen import console, errors, fail, plain, plain_text, reported_errors
from guard.errors import LiveStoreError
from guard.percent import reached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.live.alarms import Alarm, Transition
    from guard.live.state import Evidence, LiveState

_BARS: Final = " ▁▂▃▄▅▆▇█"
_WIDTH: Final = 60
_NARROW: Final = 20
_LEAST: Final = 6
"""Columns that evidence over time takes in the table at least; with less it is left out."""

_FIGURES: Final = 76
"""Columns that all else in the table takes."""

_HEIGHT: Final = 8
_SHOWN: Final = 5
"""How many of the latest transitions are shown."""

_STYLES: Final = {
    "normal": "bold green",
    "tighten": "bold yellow",
    "fallback": "bold dark_orange",
    "quarantine": "bold red",
}

app = typer.Typer(
    name="live",
    help="Live risk: how priors moved, what speaks for drift, which alarms stand.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="PATH|URL",
        envvar="GUARD_LIVE",
        help="Where live state is kept: a SQLite file or `redis://host:6379/0`.",
    ),
]
NameOption = Annotated[str, typer.Option("--name", help="The deployment's name.")]


@app.command()
def show(
    store: StoreOption,
    *,
    name: NameOption = "default",
    category: Annotated[
        str | None,
        typer.Option(help="Plot this category; without it, the one nearest to an alarm."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show priors, evidence over time and alarms.

    guard live show --store live.sqlite3

    guard live show --store redis://localhost:6379/0 --name chat --json
    """
    from guard.live.opening import open_existing  # noqa: PLC0415  # loads numpy
    from guard.live.state import read_state  # noqa: PLC0415  # as above

    with reported_errors():
        state = read_state(open_existing(store, name, reading=True))
    if state is None:
        fail(f"no live state under the name `{name}` there: check `--name`")
    if as_json:
        sys.stdout.write(json.dumps(state.as_dict(), indent=1) + "\n")
        return
    _show(state, category)


@app.command()
def clear(
    category: Annotated[str, typer.Argument(help="Whose alarm; `all` for every one.")],
    store: StoreOption,
    by: Annotated[str, typer.Option(help="Who clears it.")],
    reason: Annotated[str, typer.Option(help="Why it may be cleared.")],
    *,
    name: NameOption = "default",
) -> None:
    """Clear an alarm that stands; replicas hear of it within a second.

    Nothing else clears an alarm. Its tests begin anew; its prior stays where answers brought it.

        guard live clear bad_advice --store live.sqlite3 --by ada --reason "prompt repaired"
    """
    from guard.live.opening import clear_alarms, open_existing  # noqa: PLC0415  # as above
    from guard.live.state import read_state  # noqa: PLC0415  # as above

    with reported_errors():
        opened = open_existing(store, name, reading=False)
        profile = opened.profile()
        standing = opened.read(profile.digest).alarms if profile else {}
        gone = clear_alarms(opened, standing, category, time=time.time(), by=by, reason=reason)
    if not gone:
        fail("somebody else cleared it just now: look with `guard live show`")
    for transition in gone:
        console.print(_line(transition))
    # It is cleared, whether or not the store still says what else there is.
    with suppress(LiveStoreError):
        if raised := _raised(read_state(opened), [each.alarm.category for each in gone]):
            console.print(raised)


def _raised(state: LiveState | None, cleared: Sequence[str]) -> Text | None:
    """Return which priors stay raised behind a clearing: answers are held for less than before."""
    known = {} if state is None else state.categories
    raised = [
        f"{name} {_rate(known[name].prior)} (start {_rate(known[name].start)})"
        for name in cleared
        # As shown: what rounding alone leaves above its start is not raised.
        if name in known and round(known[name].prior, 4) > round(known[name].start, 4)
    ]
    text = f"priors that stay raised until enough answers are fine: {', '.join(raised)}"
    return plain_text(text) if raised else None


def _show(state: LiveState, category: str | None) -> None:
    posture = Text(state.posture, style=_STYLES[state.posture])
    head = f"{plain(state.name)}: {state.exchanges:,} exchanges, posture "
    console.print(Text.assemble(head, posture))
    console.print(_table(state))
    if failed := _unjudged(state):
        console.print(failed)
    watched = {name: each for name, each in state.categories.items() if each.evidence}
    if category is not None and category not in watched:
        fail(f"`{category}` is not watched: take one of {', '.join(watched) or 'none'}")
    if watched:
        plotted = category or max(watched, key=lambda name: _share(watched[name].evidence))
        console.print(_plot(state, plotted))
    latest = state.transitions[-_SHOWN:]
    for alarm in _earlier(state, latest):
        console.print(_standing(alarm))
    for transition in latest:
        console.print(_line(transition))
    elsewhere = state.alarms.keys() - state.categories.keys()
    for name in sorted(elsewhere):
        errors.print(plain_text(f"an alarm of `{name}`, which is not followed any more, stands"))


def _table(state: LiveState) -> Table:
    columns = min(_NARROW, console.width - _FIGURES)
    over_time = columns >= _LEAST
    table = Table(box=None, pad_edge=False)
    # Where it is narrow, names are broken before any figure is cut.
    table.add_column("category", overflow="fold")
    for title in ("prior", "start", "exceedances", "to alarm"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("over time", "alarm") if over_time else ("alarm",):
        table.add_column(title, no_wrap=True)
    for name, each in state.categories.items():
        evidence = each.evidence
        levels = _levels(state, name, evidence, columns) if evidence and over_time else ()
        table.add_row(
            plain_text(name),
            _rate(each.prior),
            _rate(each.start),
            f"{evidence.exceedances:,}" if evidence else "",
            reached(_share(evidence)) if evidence else "not watched",
            *(["".join(map(_bar, levels))] if over_time else ()),
            Text(each.alarm.action, style=_STYLES.get(each.alarm.action, "bold"))
            if each.alarm
            else "",
        )
    return table


def _unjudged(state: LiveState) -> Text | None:
    """Return how many exceedances say something of detectors and nothing of the model."""
    shares = [
        f"{name} {each.evidence.unjudged:,} of {each.evidence.exceedances:,}"
        for name, each in state.categories.items()
        if each.evidence and each.evidence.unjudged
    ]
    text = f"exceedances in which a detector failed: {', '.join(shares)}"
    return plain_text(text, style="bold yellow") if shares else None


def _rate(rate: float) -> str:
    return f"{rate:.2%}"


def _share(evidence: Evidence | None) -> float:
    """Return how near the category is to its alarm now: 1 at the alarm or beyond."""
    if evidence is None:
        return 0.0
    return _level(evidence.log_wealth, evidence.nearness, evidence)


def _level(log_wealth: float, nearness: float, evidence: Evidence) -> float:
    return min(1.0, max(0.0, log_wealth / evidence.log_needed, nearness))


def _levels(state: LiveState, name: str, evidence: Evidence, columns: int) -> Sequence[float]:
    """Return the highest level in each of `columns` equal parts of the exchanges; 0 for none."""
    levels = [0.0] * columns
    for point in state.points:
        if point["category"] == name:
            column = int((point["at"] - 1) * columns / max(1, state.exchanges))
            level = _level(point["log_wealth"], point["nearness"], evidence)
            # A reader may find a point whose batch came in behind the counts.
            column = min(columns - 1, column)
            levels[column] = max(levels[column], level)
    return levels


def _bar(level: float) -> str:
    return _BARS[math.ceil(level * (len(_BARS) - 1))]


def _plot(state: LiveState, name: str) -> Text:
    evidence = state.categories[name].evidence
    if evidence is None:
        return Text()
    levels = _levels(state, name, evidence, _WIDTH)
    rows = [
        "".join(_bar(min(1.0, max(0.0, level * _HEIGHT - row))) for level in levels).rstrip()
        for row in reversed(range(_HEIGHT))
    ]
    seen = (
        f"2 % of risky answers would be seen in about {evidence.delay:,} exchanges"
        if evidence.delay
        else "validation rows are too few to see 2 % of risky answers"
    )
    text = Text(f"\n{plain(name)}: evidence for drift, the alarm at the top\n", style="bold")
    for number, row in enumerate(rows):
        margin = "alarm ┤" if number == 0 else "      │"
        text.append(f"{margin}{row}\n", style="default not bold")
    axis = f"      └{'─' * _WIDTH}\n       0{state.exchanges:>{_WIDTH - 1},} exchanges\n"
    text.append(axis, style="default not bold")
    text.append(f"{seen}\n", style="dim not bold")
    return text


def _earlier(state: LiveState, latest: Sequence[Transition]) -> list[Alarm]:
    """Return the alarms that stand and were raised before the `latest` transitions."""
    told = {(each.alarm.category, each.alarm.life) for each in latest if each.kind == "raised"}
    found = (each for each in state.alarms.values() if (each.category, each.life) not in told)
    return sorted(found, key=lambda alarm: alarm.time)


def _standing(alarm: Alarm) -> Text:
    from guard.live.alarms import raised  # noqa: PLC0415  # loads numpy

    why = raised("", alarm, {}).reason
    return _one_line(f"{_when(alarm.time)}  {alarm.category} raised: {why} (stands)")


def _line(transition: Transition) -> Text:
    who = f" by {transition.by}" if transition.by else ""
    change = "" if transition.before == transition.after else f"{transition.before} → "
    return _one_line(
        f"{_when(transition.time)}  {transition.alarm.category} {transition.kind}{who}: "
        f"{transition.reason} ({change}{transition.after})"
    )


def _when(time: float) -> str:
    return datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")


def _one_line(text: str) -> Text:
    # A reason with a line break could look like a transition that never was.
    return plain_text(text.replace("\n", "\\n"))
