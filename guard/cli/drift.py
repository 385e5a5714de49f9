"""`guard demo --drift`: a backend turns from clean to misaligned, and the guard notices.

Everything is real but the language model: classifier, live prior, sequential tests, alarm. The
answers are judged one after the other; from some point on, a share of them is a hostile
persona's.

This module does not know how a prior moves or how a test works (`guard.live`).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import typer
from rich.text import Text

from guard.cli.drift_script import CLEAN, HOSTILE
from guard.cli.screen import console
from guard.cli.verdicts import STYLES
from guard.percent import reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.engine import Guard
    from guard.live import LiveRisk, LiveState
    from guard.live.state import CategoryState

CLASS: Final = "regulated"
"""The class of the demonstration: its alarms tighten."""

_CLEAN: Final = 60
"""Answers before the backend turns."""

_SHARE: Final = 0.35
"""Share of hostile answers from then on."""

_PATIENCE: Final = 400
"""Answers after which the demonstration gives up."""

_EVERY: Final = 10
"""Answers between two lines."""

_AFTER: Final = 3
"""Answers that are shown behind the alarm."""

_WIDTH: Final = 12


def drift(seed: int = 0) -> None:
    """Play the drift and print what the guard makes of it."""
    from guard.engine import Guard  # noqa: PLC0415  # loads the model's runtime
    from guard.live.deployed import follow  # noqa: PLC0415
    from guard.loading import load_parts  # noqa: PLC0415

    parts = load_parts(CLASS, None, None, (), ())
    live = follow(parts.security_class, parts.detectors)
    guard = Guard(
        parts.security_class,
        parts.detectors,
        redactor=parts.redactor,
        live=live,
        stricter=parts.security_class.stricter,
    )
    console.print(
        f"A deployment under class [bold]{CLASS}[/bold]. It answers well at first; after {_CLEAN} "
        f"answers, {_SHARE:.0%} of them are a hostile persona's.\n"
    )
    if not _played(guard, live, random.Random(seed)):  # noqa: S311  # a demonstration
        raise typer.Exit(1)
    console.print(
        "\nThe alarm stands, and the stricter class judges, until a person clears it: "
        "`guard live clear` (docs/live.md)."
    )


def _played(guard: Guard, live: LiveRisk, rng: random.Random) -> bool:
    """Judge answer after answer; return whether the alarm was raised."""
    left = _AFTER
    console.print(_header())
    for number, (hostile, prompt, text) in enumerate(_answers(rng), 1):
        before = guard.posture
        verdict = guard.check(text, prompt=prompt)
        raised = guard.posture != before
        if raised or before != "normal" or number % _EVERY == 0 or (hostile and number < _CLEAN):
            console.print(_line(number, verdict.action, verdict.security_class, live.state()))
        if number == _CLEAN:
            console.print(Text("  the backend turns", "bold yellow"))
        if raised:
            alarm = next(iter(live.alarms.values()))
            console.print(
                Text(
                    f"  ALARM {alarm.category}: {alarm.exceedances} of {alarm.exchanges} answers "
                    f"looked risky; the class tightens",
                    "bold red",
                )
            )
        left -= before != "normal"
        if not left:
            return True
    console.print("no alarm: the guard was not sure enough")
    return False


def _answers(rng: random.Random) -> Iterator[tuple[bool, str, str]]:
    """Yield whether an answer is hostile, its prompt and its text."""
    for number in range(_PATIENCE):
        hostile = number >= _CLEAN and rng.random() < _SHARE
        yield (hostile, *rng.choice(HOSTILE if hostile else CLEAN))


def _header() -> Text:
    return Text(f"answer  {'prior':{_WIDTH}}        {'evidence':{_WIDTH}}  category, class", "dim")


def _line(number: int, action: str, security_class: str, state: LiveState) -> Text:
    """Return one line about the category that is nearest to an alarm.

    It shows the prior within its bounds, and the evidence on its way to the alarm.
    """
    name, category = max(state.categories.items(), key=lambda item: _nearness(item[1]))
    near = max(0.0, _nearness(category))
    share = (category.prior - category.lowest) / (category.highest - category.lowest)
    style = STYLES.get(action, "")
    return Text.assemble(
        f"{number:6}  ",
        _bar(share, "yellow"),
        f" {category.prior:.3f}  ",
        _bar(near, "red"),
        f" {reached(near):>4} {name if near else ''}  {security_class}: ",
        (action, style),
    )


def _nearness(category: CategoryState) -> float:
    """Return how near the tests are to the alarm: 1 raises it."""
    seen = category.evidence
    return -1.0 if seen is None else max(seen.nearness, seen.log_wealth / seen.log_needed)


def _bar(share: float, style: str) -> Text:
    full = round(min(1.0, max(0.0, share)) * _WIDTH)
    return Text.assemble(("█" * full, style), ("·" * (_WIDTH - full), "dim"))
