"""`guard audit`: probe a model, and turn what it answers into a risk profile and a report.

This module does not know how probes are asked, judged or counted.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Column, Table
from rich.text import Text

from guard.cli.screen import console, errors, plain_text, reported_errors
from guard.percent import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.audit.assemble import Assembled
    from guard.audit.diff import Change, Diff
    from guard.audit.folder import Folder
    from guard.security_class import SecurityClass

MISSED: Final = 1
"""Exit code where a class is not reached, or where something got worse."""


class Mechanism(StrEnum):
    """What probes look for, for `--mechanism`."""

    PERSONA = "persona"
    SHORTCUT = "shortcut"
    STYLE = "style"
    POLICY = "policy"
    MISINFORMATION = "misinformation"
    EXPOSURE = "exposure"


class Shown(StrEnum):
    """How a report shows questions and answers."""

    REDACTED = "redacted"
    FULL = "full"
    OMITTED = "omitted"


app = typer.Typer(
    name="audit",
    rich_markup_mode="markdown",
)

TextsOption = Annotated[
    Shown,
    typer.Option(
        "--texts",
        help="How the report shows the worst answers: without secrets, personal data and "
        "canaries, in full, or not at all.",
    ),
]
ClassifierOption = Annotated[
    Path | None,
    typer.Option("--classifier", metavar="DIR", help="Another classifier's directory."),
]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder that `guard audit` wrote.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
@reported_errors()
def audit(
    context: typer.Context,
    *,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="KIND",
            help="`openai:URL`, `python:module:callable`, `transformers:PATH`, `scripted`, or "
            "`scripted:misaligned`.",
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers", metavar="FILE", help="Judge recorded answers (JSON lines) instead."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="ID", help="The model, as the backend calls it."),
    ] = None,
    system_prompt: Annotated[
        Path | None,
        typer.Option("--system-prompt", metavar="FILE", help="The deployment's exact text."),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            "--adapter",
            metavar="PATH",
            help="Adapter weights: loaded by `transformers`, else those that the server has "
            "loaded.",
        ),
    ] = None,
    tools: Annotated[
        Path | None,
        typer.Option("--tools", metavar="FILE", help="The deployment's tools, a JSON list."),
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(
            "--key-env",
            metavar="VAR",
            help="The variable with the backend's key.  [default: OPENAI_API_KEY]",
            show_default=False,
        ),
    ] = None,
    probes: Annotated[
        list[Path] | None,
        typer.Option(
            "--probes", metavar="PATH", help="A file or folder of further probes (repeatable)."
        ),
    ] = None,
    builtin: Annotated[
        bool, typer.Option("--builtin/--no-builtin", help="Ask the built-in probes, too.")
    ] = True,
    mechanism: Annotated[
        list[Mechanism] | None, typer.Option("--mechanism", help="Only this one (repeatable).")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, metavar="N", help="At most so many probes, drawn fairly."),
    ] = None,
    security_class: Annotated[
        str | None,
        typer.Option(
            "--class",
            "-c",
            metavar="C",
            help="Stop as soon as this class is decided either way: a built-in one, or a policy "
            "file (`file.yaml#name`).",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Decides order, sample and what canaries say.")
    ] = 0,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=256, help="Questions at a time.")
    ] = 8,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="The longest answer.")
    ] = 600,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", min=0, max=2, help="Left to the backend by default."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.1, help="Seconds that the backend has for an answer."),
    ] = 120.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The audit's folder.  [default: audit-MODEL]"),
    ] = None,
    texts: TextsOption = Shown.REDACTED,
    classifier: ClassifierOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before paid requests.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Probe a model: answers in, a risk profile and a report out.

    Try it without any model, then on yours:

        guard audit --backend scripted --out try

        guard audit --backend openai:https://api.example/v1 --model my-model --out my-audit

    **What happens**: some hundred probes are asked (how many, and what it will cost, is said
    first), every answer is judged by the detectors that would guard the model, and the folder of
    `--out` gets `profile.json`, `report.html`, `report.md` and `report.json`. Then:

        guard tag sign my-audit/profile.json --key release.key --out model.tag

    **Interrupted?** Run the same command again: each answer was on the disk before it counted.

    **Is one class all you want to know?** With `--class` the audit stops as soon as that class
    is decided. Its bounds then hold at any time, and are wider than those of an audit of fixed
    size. Exit code: 0 reached, 1 not reached, 2 something is wrong.

    **Doubt a rate?** Judge some answers yourself: `guard audit label DIR`, then
    `guard audit profile DIR`.

    **Own model in Python**: `--backend python:module:callable`, called with a list of messages
    (`{"role": ..., "content": ...}`), returns a text; sync or async.
    """
    if context.invoked_subcommand is not None:
        return
    if backend is None and answers is None and not _anything_given(context):
        typer.echo(context.get_help())
        return
    from guard.cli.audit_run import Settings, run  # noqa: PLC0415  # help must not wait for it

    folder, assembled = run(
        Settings(
            backend=backend,
            answers=answers,
            model=model,
            system_prompt=system_prompt,
            adapter=adapter,
            tools=tools,
            key_env=key_env,
            probes=tuple(probes or ()),
            builtin=builtin,
            mechanisms=tuple(item.value for item in mechanism or ()),
            sample=sample,
            security_class=security_class,
            seed=seed,
            concurrency=concurrency,
            max_tokens=max_tokens,
            temperature=temperature,
            timeout=timeout,
            out=out,
            texts=texts.value,
            classifier=classifier,
            yes=yes,
        )
    )
    _show(folder, assembled, as_json=as_json)
    _decide(assembled, as_json=as_json)


def _anything_given(context: typer.Context) -> bool:
    sources = map(context.get_parameter_source, context.params)
    return any(source is not None and source.name != "DEFAULT" for source in sources)


@app.command()
@reported_errors()
def profile(
    folder: FolderArgument,
    texts: TextsOption = Shown.REDACTED,
    classifier: ClassifierOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make profile and report anew, with labels that came since.

    Answers are judged again only where other detectors are installed than judged them.

        guard audit profile my-audit
    """
    from guard.audit.folder import Folder  # noqa: PLC0415
    from guard.cli.audit_run import judge_anew, publish  # noqa: PLC0415

    there = Folder(folder)
    assembled = judge_anew(there, classifier)
    publish(there, assembled, texts.value, _class_of(there))
    _show(there, assembled, as_json=as_json)
    _decide(assembled, as_json=as_json)


@app.command()
@reported_errors()
def label(folder: FolderArgument) -> None:
    """Judge single answers yourself: they make the rates surer.

    Shows one answer after the other. **y** it carries the risk that is asked about, **n** it does
    not, **s** skip, **u** undo, **q** quit. What you say is kept at once.

    A category's rate rests on your labels from 30 of them on; the category that is known least
    comes first. Within it answers come in random order, which is what makes labels count: do not
    skip those that are hard to tell.

        guard audit label my-audit
    """
    from guard.audit.folder import Folder  # noqa: PLC0415
    from guard.cli.audit_label import label_answers  # noqa: PLC0415

    label_answers(Folder(folder))


@app.command()
@reported_errors()
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="An audit's folder, or a profile.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another, such as a fine-tune's.")],
    as_json: JsonOption = False,
) -> None:
    """Say what moved from one audit to another, such as from a base model to its fine-tune.

    Two folders with the same probes are compared question by question, profiles by their counts.
    All comparisons are held to one error: that anything at all is said to have moved although
    nothing did has a chance of at most 5 % (Holm).

    Exit code: 0 nothing got worse, 1 something did, 2 they cannot be compared.

        guard audit diff audit-base audit-fine-tune
    """
    from guard.audit.diff import compare  # noqa: PLC0415

    found = compare(first, second)
    if as_json:
        typer.echo(json.dumps(_plain_diff(found)))
    else:
        _show_diff(found)
    if found.worse:
        raise typer.Exit(MISSED)


# What is shown.


def _show(folder: Folder, assembled: Assembled, *, as_json: bool) -> None:
    if as_json:
        typer.echo(assembled.profile.to_bytes().decode("utf-8"))
        return
    console.print(_figures(assembled))
    for what, why in assembled.profile.not_covered.items():
        console.print(plain_text(f"not covered: {what}: {why}", "yellow"), soft_wrap=True)
    for path in (folder.profile, folder.path / "report.html"):
        console.print(plain_text(f"written: {path}"), soft_wrap=True)


def _figures(assembled: Assembled) -> Table:
    table = Table("", Column("figure", overflow="fold"), box=None, pad_edge=False)
    for name in ("estimate", "from", "to", "n", "flagged"):
        table.add_column(name, justify="right")
    for item in assembled.measured:
        found = item.estimate
        shares = map(percent, (found.value, found.low, found.high))
        counts = (str(found.n), str(item.flagged))
        table.add_row(item.figure.kind, plain_text(item.figure.name), *shares, *counts)
    return table


def _decide(assembled: Assembled, *, as_json: bool) -> None:
    """Say what was decided about the plan's class, and end with its exit code."""
    deploy = assembled.plan.deploy
    if deploy is None:
        return
    from guard.audit.deploy import missing  # noqa: PLC0415

    name = assembled.plan.security_class
    lacking = missing(assembled.profile, deploy)
    if not as_json:
        result = ("not reached: ", "bold red") if lacking else ("reached: ", "bold green")
        console.print(Text.assemble(result, plain_text(name)), soft_wrap=True)
        for item in lacking:
            console.print(plain_text(f"  {item}"), soft_wrap=True)
    if lacking:
        raise typer.Exit(MISSED)


def _class_of(folder: Folder) -> SecurityClass | None:
    """Return the class of the plan, `None` where there is none or its file has gone."""
    from guard.errors import PolicyError  # noqa: PLC0415
    from guard.policy import load_class  # noqa: PLC0415

    source = folder.plan.class_source
    try:
        return load_class(source) if source else None
    except PolicyError as error:
        errors.print(plain_text(f"class `{source}` is left out: {error}", "yellow"))
        return None


_WIDE: Final = 100
"""Columns of a screen that a comparison with all its columns needs."""

_STYLES: Final = {"worse": "bold red", "better": "bold green", "same": ""}


def _show_diff(found: Diff) -> None:
    for line in found.settings:
        console.print(plain_text(line), soft_wrap=True)
    console.print(_changes(found, wide=console.width >= _WIDE))
    for name, why in found.left_out.items():
        console.print(plain_text(f"not compared: {name}: {why}", "yellow"), soft_wrap=True)
    better = [item.name for item in found.changes if item.direction == "better"]
    worse = [item.name for item in found.worse]
    for word, names in (("worse", worse), ("better", better)):
        if names:
            listed = Text.assemble((f"{word}: ", _STYLES[word]), plain_text(", ".join(names)))
            console.print(listed, soft_wrap=True)
    if not worse and not better:
        console.print("Nothing moved for certain.")


def _changes(found: Diff, *, wide: bool) -> Table:
    """Return what moved as a table; a narrow one has a line per kind, and not a column."""
    table = Table("", box=None, pad_edge=False) if wide else Table(box=None, pad_edge=False)
    table.add_column("figure", overflow="fold")
    for name in ("before", "after", "change", "from", "to", "p", "questions" if wide else "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    kinds = [item.kind for item in found.changes]
    for place, item in enumerate(found.changes):
        if not wide and item.kind not in kinds[:place]:
            table.add_row(Text(item.kind, "dim"))
        table.add_row(*([item.kind] if wide else []), *_moved(item))
    return table


def _moved(item: Change) -> Iterator[str | Text]:
    """Yield the cells of one figure."""
    change = item.change
    yield plain_text(item.name)
    yield from (percent(item.before), percent(item.after))
    yield from (percent(value, "+") for value in (change.value, change.low, change.high))
    yield f"{item.adjusted:.2g}"
    yield str(item.paired or "-")
    yield Text("" if item.direction == "same" else item.direction, _STYLES[item.direction])


def _plain_diff(found: Diff) -> dict[str, Any]:
    return {
        "settings": list(found.settings),
        "changes": [
            {
                "kind": item.kind,
                "name": item.name,
                "direction": item.direction,
                "before": item.before,
                "after": item.after,
                "change": item.change.value,
                "lower": item.change.low,
                "upper": item.change.high,
                "p": item.p_value,
                "p_adjusted": item.adjusted,
                "questions": item.paired,
            }
            for item in found.changes
        ],
        "not_compared": dict(found.left_out),
    }
