"""The way of `guard audit`: plan, backend, questions, profile, report.

This module does not know how options are written, nor how anything is judged or counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from guard.audit import plan as planning
from guard.audit import recorded as recording
from guard.audit.answers import read as read_answers
from guard.audit.backends import KINDS, CallableBackend, TransformersBackend, load_callable
from guard.audit.cost import estimate
from guard.audit.course import Course
from guard.audit.errors import AuditError
from guard.audit.figures import figures
from guard.audit.folder import Folder
from guard.audit.judged import Judged
from guard.audit.judging import Judge
from guard.audit.openai_backend import OpenAIBackend, Patience
from guard.audit.plan import Plan, Selection
from guard.audit.probe import load, load_builtin
from guard.audit.profile import Fingerprint, read_text
from guard.audit.report import report, write
from guard.audit.scripted_models import MISALIGNED, SOUND, ScriptedModel
from guard.cli.screen import console, errors, fail, plain_text
from guard.detectors.patterns import redact
from guard.detectors.personal import personal_data_detector
from guard.detectors.secrets import secret_detector
from guard.errors import InputError
from guard.policy import builtin_classes, load_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.audit.assemble import Assembled
    from guard.audit.backends import Backend
    from guard.audit.probe import ProbeMechanism
    from guard.audit.report import Texts
    from guard.audit.walk import Walk
    from guard.security_class import SecurityClass

_DEFAULT_KEY: Final = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `guard audit` was asked to do; each field is the option of its name."""

    backend: str | None = None
    answers: Path | None = None
    model: str | None = None
    system_prompt: Path | None = None
    adapter: Path | None = None
    tools: Path | None = None
    key_env: str | None = None
    probes: tuple[Path, ...] = ()
    builtin: bool = True
    mechanisms: tuple[ProbeMechanism, ...] = ()
    sample: int | None = None
    security_class: str | None = None
    seed: int = 0
    concurrency: int = 8
    max_tokens: int = 600
    temperature: float | None = None
    timeout: float = 120.0
    out: Path | None = None
    texts: Texts = "redacted"
    classifier: Path | None = None
    yes: bool = False


def run(settings: Settings) -> tuple[Folder, Assembled]:
    """Audit as the settings say; return the folder and what is in it.

    Raises:
        GuardError: something is wrong; what was answered by then is kept.
    """
    if (settings.backend is None) == (settings.answers is None):
        fail(f"give `--backend` ({', '.join(KINDS)}) or `--answers FILE`, one of them")
    wanted = None if settings.security_class is None else load_class(settings.security_class)
    if wanted is not None and wanted.deploy is None:
        fail(
            f"class `{wanted.name}` has no `deploy` section, so that there is nothing to decide: "
            "add one to the policy, or leave `--class` out"
        )
    with console.status("loading the classifier"):
        judge = Judge.load(wanted or "public", settings.classifier)
    if settings.answers is not None:
        folder, assembled = _of_recorded(settings, wanted, judge)
    else:
        folder, assembled = _of_backend(settings, wanted, judge)
    publish(folder, assembled, settings.texts, wanted)
    return folder, assembled


def publish(
    folder: Folder, assembled: Assembled, texts: Texts, wanted: SecurityClass | None = None
) -> None:
    """Write profile and report.

    Args:
        folder: where.
        assembled: of what.
        texts: how the report shows questions and answers.
        wanted: a class beside the built-in ones that the profile is held against.
    """
    assembled.profile.write(folder.profile)
    packs = (secret_detector(), personal_data_detector())
    classes = [item for item in builtin_classes() if wanted is None or item.name != wanted.name]
    classes += [] if wanted is None else [wanted]
    redactor = partial(redact, detectors=packs)
    write(report(assembled, classes, redactor, texts), folder.path)


def judge_anew(folder: Folder, classifier: Path | None) -> Assembled:
    """Assemble an audit that is there; judge its answers again where other detectors did.

    Raises:
        AuditError: answers are missing.
    """
    source = folder.plan.class_source or "public"
    with console.status("loading the classifier"):
        judge = Judge.load(source, classifier)
    try:
        known = Judged.read(folder.judged, folder.plan.digest)
    except AuditError:
        known = None
    if known is not None and dict(known.detectors) == dict(judge.detectors):
        return folder.assemble()
    with _progress(folder.plan, "judged") as progress:
        return asyncio.run(folder.judge_anew(judge, progress))


# A backend.


def _of_backend(
    settings: Settings, wanted: SecurityClass | None, judge: Judge
) -> tuple[Folder, Assembled]:
    backend = _backend(settings)
    try:
        selection = Selection(
            folders=settings.probes,
            builtin=settings.builtin,
            mechanisms=settings.mechanisms,
            sample=settings.sample,
            tools=backend.takes_tools,
            seed=settings.seed,
            categories=judge.categories,
        )
        probes, sets, left_out = planning.chosen(selection)
        plan = _plan(settings, wanted, probes=probes, sets=sets, left_out=left_out)
        folder = Folder.begin(_out(settings), plan)
        _warn_of_what_no_probe_looks_for(folder.plan, judge)
        _agree(settings, folder)
        with _progress(folder.plan, "answered") as progress:
            assembled = asyncio.run(_ask(folder, backend, judge, settings.concurrency, progress))
    except KeyboardInterrupt:
        errors.print("Stopped. Run the same command again to go on.")
        raise typer.Exit(130) from None
    return folder, assembled


async def _ask(
    folder: Folder,
    backend: Backend,
    judge: Judge,
    concurrency: int,
    progress: Callable[[Walk], None],
) -> Assembled:
    try:
        return await folder.ask(backend, judge, concurrency=concurrency, progress=progress)
    finally:
        await backend.close()


def _backend(settings: Settings) -> Backend:
    kind, _, rest = str(settings.backend).partition(":")
    if settings.backend in (SOUND, MISALIGNED):
        return ScriptedModel(misaligned=settings.backend == MISALIGNED)
    if kind == "openai" and rest:
        if settings.model is None:
            fail("`--backend openai:URL` needs `--model`, the model's id")
        return OpenAIBackend(
            rest,
            settings.model,
            key=_key(settings.key_env),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            patience=Patience(timeout=settings.timeout),
        )
    if kind == "python" and rest:
        return CallableBackend(load_callable(rest))
    if kind == "transformers" and rest:
        with console.status("loading the model"):
            return TransformersBackend(
                rest,
                adapter=settings.adapter,
                max_tokens=settings.max_tokens,
                temperature=settings.temperature or 0.0,
            )
    raise InputError(f"`--backend {settings.backend}` is none of {', '.join(KINDS)}")


def _key(variable: str | None) -> str:
    if variable is None:
        return os.environ.get(_DEFAULT_KEY, "")
    if not (key := os.environ.get(variable, "")):
        fail(f"`--key-env {variable}`: there is no such variable, or it is empty")
    return key


def _warn_of_what_no_probe_looks_for(plan: Plan, judge: Judge) -> None:
    if plan.deploy is None:
        return
    course = Course(figures(plan.probes, judge.instruments).every, plan.deploy)
    if course.never:
        names = ", ".join(course.never)
        message = f"The class limits {names}, which no probe looks for: it cannot be reached."
        errors.print(plain_text(message, "yellow"), soft_wrap=True)


def _agree(settings: Settings, folder: Folder) -> None:
    """Say what the audit will cost, and ask whoever sits here."""
    plan = folder.plan
    done = {}
    if folder.answers.exists():
        there = read_answers(folder.answers, plan.digest)
        done = {name: one for name, one in there.items() if not one.failure}
    if done:
        errors.print(f"{len(done)} of {len(plan.probes)} probes are answered already.")
    cost = estimate(plan, settings.max_tokens, done)
    if not cost.requests:
        return
    bound = " at most; the class may be decided sooner" if plan.deploy is not None else ""
    errors.print(
        f"To ask: about {cost.requests:,} requests, {cost.read:,} tokens to read and up to "
        f"{cost.written:,} to write{bound}.",
        soft_wrap=True,
    )
    paid = plan.backend.startswith("openai:")
    if paid and not settings.yes and errors.is_terminal and sys.stdin.isatty():
        typer.confirm("Go on?", abort=True, err=True)


# Recorded answers.


def _of_recorded(
    settings: Settings, wanted: SecurityClass | None, judge: Judge
) -> tuple[Folder, Assembled]:
    path = settings.answers or Path()
    if settings.model is None:
        fail("`--answers` needs `--model`: who gave them")
    known = list(load_builtin()) if settings.builtin else []
    for folder in settings.probes:
        known += load(folder, extra_categories=judge.categories)
    found = recording.read(path, known, judge.categories, seed=settings.seed)
    probes, sets = planning.recorded(found.probes, settings.seed)
    plan = _plan(settings, wanted, probes=probes, sets=sets, backend=f"answers:{path.name}")
    place = Folder.begin(_out(settings), plan)
    place.take(found.answers)
    with _progress(place.plan, "judged") as progress:
        return place, asyncio.run(place.judge_anew(judge, progress))


# The plan.


def _plan(settings: Settings, wanted: SecurityClass | None, **parts: Any) -> Plan:
    tools = [] if settings.tools is None else _tools(settings.tools)
    prompt = None if settings.system_prompt is None else read_text(settings.system_prompt)
    values: dict[str, Any] = {
        "backend": settings.backend,
        "fingerprint": Fingerprint.of(
            _model(settings),
            system_prompt=prompt,
            sampling=_sampling(settings),
            adapter=settings.adapter,
            tools=tools,
        ),
        "seed": settings.seed,
        "system_prompt": prompt,
        "tools": tuple(tools),
        "security_class": "" if wanted is None else wanted.name,
        "class_source": settings.security_class or "",
        "deploy": None if wanted is None else wanted.deploy,
        "max_tokens": None if settings.answers is not None else settings.max_tokens,
    }
    return Plan(**(values | parts))


def _model(settings: Settings) -> str:
    return settings.model or str(settings.backend)


def _sampling(settings: Settings) -> dict[str, Any] | None:
    """Return what every request had; a deployment mostly has it set by each request."""
    if settings.temperature is None:
        return None
    return {"temperature": settings.temperature, "max_tokens": settings.max_tokens}


def _tools(path: Path) -> list[Any]:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{path}` is not JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InputError(f"`{path}` must hold a JSON list: the tools as the backend gets them")
    return found


def _out(settings: Settings) -> Path:
    slug = re.sub(r"[^a-z0-9.]+", "-", _model(settings).lower()).strip("-.")[:60]
    return settings.out or Path(f"audit-{slug or 'model'}")


@contextmanager
def _progress(plan: Plan, done: str) -> Iterator[Callable[[Walk], None]]:
    columns = (
        TextColumn(f"probes {done}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=len(plan.probes))
        yield lambda walk: progress.update(task, completed=walk.count)
