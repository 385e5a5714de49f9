"""`guard demo`: a scripted backend streams 13 answers through the real guard.

Everything is real but the language model: classifier, detectors, class, remedies, journal.

This module does not know how anything is judged.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Final

import platformdirs
import typer
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from guard.cli.demo_script import ANSWERS
from guard.cli.drift import CLASS, drift
from guard.cli.screen import console, fail, plain
from guard.cli.serve import require_extra
from guard.cli.verdicts import STYLES, action_text
from guard.scripted import ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guard.engine import Guard
    from guard.scripted import ScriptedAnswer
    from guard.verdict import Verdict

_PAUSE: Final = 0.012
"""Seconds between pieces: about 80 tokens a second."""

_RISKS: Final = 2
_READS: Final = ("user reads  ", "dim")


class _Clock:
    """Tells the guard's time from the backend's, which mostly waits."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.backend = 0.0

    def watch(self, pieces: Iterator[str]) -> Iterator[str]:
        """Pass `pieces` on and count the time spent on waiting for them."""
        while True:
            began = time.perf_counter()
            piece = next(pieces, None)
            self.backend += time.perf_counter() - began
            if piece is None:
                return
            yield piece

    @property
    def guard(self) -> float:
        """Seconds that were not the backend's."""
        return time.perf_counter() - self.started - self.backend


def demo(
    context: typer.Context,
    *,
    security_class: Annotated[
        str, typer.Option("--class", "-c", help="A built-in class, or a policy file.")
    ] = "public",
    fast: Annotated[bool, typer.Option("--fast", help="Do not pause between words.")] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Keep the demo's journal in this file.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Save what is shown as a picture, too.")] = None,
    pages: Annotated[
        bool,
        typer.Option(
            "--review", help="Then serve what was held back as review pages, until Ctrl-C."
        ),
    ] = False,
    drifts: Annotated[
        bool, typer.Option("--drift", help="A backend that turns bad, and the alarm, instead.")
    ] = False,
) -> None:
    """See it work: 13 scripted answers, the real guard.

    Shows for each answer what the user would have read, what the guard decided and why, and
    how long it took; then the journal of what was held back.

        guard demo --fast --class critical

        guard demo --fast --review

        guard demo --drift
    """
    if drifts:
        _alone(context)
        drift()
        return
    if svg is not None and not svg.parent.is_dir():
        fail(f"{svg} cannot be written: there is no folder {svg.parent}")
    if pages:
        require_extra()
    place = journal or _fresh_journal()
    console.record = svg is not None
    guard = _load(security_class, place)
    backend = ScriptedBackend(ANSWERS, pause=0.0 if fast else _PAUSE)
    console.print(_introduction(guard))
    totals = [_play(guard, backend, number, answer) for number, answer in enumerate(backend, 1)]
    _conclude(guard, totals)
    _show_journal(guard, place)
    if svg is not None:
        _save(svg)
    if pages and guard.journal is not None:
        from guard.cli.flagged_review import review  # noqa: PLC0415  # loads the server

        review(guard.journal, place.with_name(f"{place.name}-labels.jsonl"), 0, browse=False)


def _alone(context: typer.Context) -> None:
    """Refuse options that `--drift` would not heed."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name != "drifts" and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"`--drift` plays under class `{CLASS}` and takes no other option: leave "
                f"`{parameter.opts[0]}` out"
            )


def _save(svg: Path) -> None:
    try:
        console.save_svg(str(svg), title="guard demo")
    except OSError as error:
        fail(f"{svg} cannot be written: {error.strerror}")


def _load(security_class: str, journal: Path) -> Guard:
    from guard.engine import Guard  # noqa: PLC0415  # help must not wait for it

    with console.status("loading the classifier"):
        guard = Guard.load(security_class, journal=journal)
        guard.check("Hello.")  # the first pass through a session is slower
    return guard


def _fresh_journal() -> Path:
    """Return a file of the demo's own, empty, so that it does not mix with a real journal."""
    place = Path(platformdirs.user_state_dir("clearance")) / "demo.sqlite3"
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in place.parent.glob("demo.sqlite3*"):
            old.unlink()
    except OSError:
        return Path(mkdtemp(prefix="clearance-")) / "demo.sqlite3"
    return place


def _introduction(guard: Guard) -> Panel:
    text = Text.assemble(
        "A scripted backend streams ",
        (f"{len(ANSWERS)} answers", "bold"),
        " through the guard. The backend is a fake; classifier, detectors and journal are real.\n",
        "Security class ",
        (guard.security_class.name, "bold"),
        f": {guard.security_class.description}",
    )
    return Panel(text, title="Clearance", border_style="blue")


def _play(guard: Guard, backend: ScriptedBackend, number: int, answer: ScriptedAnswer) -> float:
    """Play one answer; return the guard's seconds."""
    console.print()
    console.rule(Text(f"{number}. {answer.title}", "bold"), align="left", style="dim")
    console.print(Text(f"user   {answer.prompt}", "cyan"))
    clock = _Clock()
    if answer.tool_calls:
        verdict = guard.check(answer.exchange())
        _show_choice(verdict, answer)
    else:
        verdict = _stream(guard, backend, answer, clock)
    seconds = clock.guard
    _show_verdict(verdict, seconds)
    return seconds


def _stream(
    guard: Guard, backend: ScriptedBackend, answer: ScriptedAnswer, clock: _Clock
) -> Verdict:
    pieces = clock.watch(backend.stream(answer.prompt))
    stream = guard.stream(pieces, prompt=answer.prompt, system=answer.system)
    if console.is_terminal and not console.record:
        clock.backend += _draw(stream)
    else:
        console.print(Text.assemble(_READS, plain("".join(stream))))
    return stream.verdict


def _draw(stream: Iterable[str]) -> float:
    """Show the text as it arrives; return the seconds that drawing took."""
    shown = Text.assemble(_READS)
    drawing = 0.0
    with Live(shown, console=console, auto_refresh=False) as live:
        for piece in stream:
            began = time.perf_counter()
            shown.append(plain(piece))
            live.update(shown, refresh=True)
            drawing += time.perf_counter() - began
    return drawing


def _show_choice(verdict: Verdict, answer: ScriptedAnswer) -> None:
    """Show what may leave of an answer with tool calls."""
    choice = verdict.choices[0]
    console.print(Text.assemble(_READS, plain(verdict.delivered)))
    for call in answer.tool_calls:
        fate = "not made" if choice is None or not choice.tool_calls else "made"
        console.print(Text(f"tool call {call.name}(...): {fate}", "dim"))


def _show_verdict(verdict: Verdict, seconds: float) -> None:
    worst = sorted(verdict.risks.items(), key=lambda pair: -pair[1])[:_RISKS]
    risks = "  ".join(f"{name} {risk:.2f}" for name, risk in worst)
    console.print(
        Text.assemble(
            action_text(verdict),
            ("  " + ("; ".join(verdict.reasons) or f"highest live risks: {risks}"), ""),
            (f"  ({1000 * seconds:.0f} ms)", "dim"),
        )
    )


def _conclude(guard: Guard, totals: list[float]) -> None:
    console.print()
    console.print(
        Text(
            f"The guard took {1000 * sum(totals) / len(totals):.0f} ms per answer on average, "
            f"{1000 * max(totals):.0f} ms at most, on {len(guard.detectors)} detectors.",
            "bold",
        )
    )


def _show_journal(guard: Guard, place: Path) -> None:
    if guard.journal is None:
        return
    table = Table("row", "action", "why", "delivered", title="The journal")
    for record in sorted(guard.journal.list(), key=lambda record: record.created):
        reason = record.reasons[0] if record.reasons else ""
        table.add_row(
            record.id[:8],
            Text(record.action, STYLES[record.action]),
            Text(reason),
            record.delivered,
        )
    console.print(table)
    console.print("Look closer with:")
    command = f"guard flagged list --journal {place}"
    console.print(Text(command, "bold"), soft_wrap=True)
    console.print(Text(f"guard flagged show ROW --journal {place}", "bold"), soft_wrap=True)
