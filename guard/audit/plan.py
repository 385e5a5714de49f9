"""The plan of an audit: what is asked of whom, fixed before the first question.

It is written once, beside the answers, and everything later is read from it: an audit that is
resumed, labelled or assembled anew asks nobody what it was about. Whoever would go on with other
settings is refused.

This module does not know how a backend is asked or what an answer shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from guard import __version__
from guard.audit.errors import AuditError
from guard.audit.exact import canonical, moment_text, parse, read_limited, write_atomically
from guard.audit.probe import Probe, load, load_builtin, merged, probe_set_version, without_repeats
from guard.audit.profile import Fingerprint
from guard.audit.profile import ProbeSet as Asked
from guard.errors import ConfigurationError
from guard.security_class import Deploy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from guard.audit.probe import Planted, ProbeMechanism, ProbeSet

FORMAT: Final = "clearance-audit-plan/1"

SIZE_LIMIT: Final = 100_000_000
"""Bytes: a hundred thousand long probes."""

ANYTHING: Final = "unsafe"
"""The category of a recorded answer that looks for nothing in particular."""

BUILTIN: Final = "clearance"
"""What the built-in probes are called in a profile."""

_UNBOUND: Final = ("started", "left_out", "tool_version")
"""What may differ when an audit is gone on with: nothing else is asked for it."""

_TOLD: Final = ("fingerprint", "sets", "probes")
"""What differs where something else does, or needs more words than a value."""

_OPTIONS: Final = {
    "system_prompt": "--system-prompt",
    "tools": "--tools",
    "security_class": "--class",
    "seed": "--seed",
    "max_tokens": "--max-tokens",
    "backend": "--backend",
    "model": "--model",
    "adapter": "--adapter",
    "sampling": "--temperature",
}
"""The options that decide settings."""

_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of whom.

    Attributes:
        backend: how it was named, such as `openai:https://api.example/v1`.
        fingerprint: what is audited.
        probes: in the order in which they are asked.
        sets: where they come from.
        seed: decides the order, the sample and what canaries say.
        system_prompt: the deployment's; a probe's own comes behind it.
        tools: the deployment's, in the form of OpenAI's `tools`.
        security_class: the class whose decision ends the audit, `""` where nothing does.
        class_source: where that class was found: a built-in name, or a file.
        deploy: the deploy limits that it has, `None` without a class.
        max_tokens: the longest answer that is asked for, `None` where nothing is.
        left_out: what is not asked, and why.
        started: when the audit began.
        tool_version: of Clearance.
    """

    backend: str
    fingerprint: Fingerprint
    probes: tuple[Probe, ...]
    sets: tuple[Asked, ...]
    seed: int = 0
    system_prompt: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    security_class: str = ""
    class_source: str = ""
    deploy: Deploy | None = None
    max_tokens: int | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    tool_version: str = __version__

    def to_bytes(self) -> bytes:
        """Return the canonical JSON."""
        plain: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        return canonical(
            plain
            | {
                "format": FORMAT,
                "fingerprint": self.fingerprint.model_dump(mode="json"),
                "probes": [
                    probe.model_dump(mode="json", exclude_defaults=True) for probe in self.probes
                ],
                "sets": [item.model_dump(mode="json") for item in self.sets],
                "deploy": self.deploy and self.deploy.model_dump(mode="json"),
                "left_out": dict(self.left_out),
                "tools": list(self.tools),
                "started": moment_text(self.started),
            }
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, by which answers name their plan."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def planted(self, probe: Probe) -> Planted:
        """Return a probe as it is asked: its canaries in place."""
        return probe.plant(self.seed)

    def system_of(self, probe: Probe) -> str:
        """Return the system prompt under which a planted probe is asked."""
        parts = (self.system_prompt or "", probe.system)
        return "\n\n".join(part for part in parts if part)

    def differences(self, other: Plan) -> list[str]:
        """Return how another plan would ask something else, one sentence per setting."""
        names = [item.name for item in fields(self) if item.name not in (*_UNBOUND, *_TOLD)]
        parts = ("model", "adapter", "sampling")
        return [
            *_differences(self.fingerprint, other.fingerprint, parts),
            *_differences(self, other, names),
            *_other_probes(self, other),
        ]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the plan in a file.

        Raises:
            AuditError: it is missing or no plan.
        """
        try:
            content = read_limited(path, SIZE_LIMIT)
        except ValueError as error:
            raise AuditError(f"`{path}` {error}: name the folder of an audit") from error
        try:
            return cls._of(json.loads(content))
        except (ValueError, TypeError, KeyError, ValidationError) as error:
            raise AuditError(
                f"`{path}` is no plan of this version ({error}): audit into another folder"
            ) from error

    @classmethod
    def _of(cls, data: dict[str, Any]) -> Self:
        if data.pop("format") != FORMAT:
            raise ValueError(f"its format is not `{FORMAT}`")
        own = {"categories": {probe["category"] for probe in data["probes"]}}
        values = data | {
            "fingerprint": parse(canonical(data["fingerprint"]), Fingerprint),
            "probes": tuple(Probe.model_validate(item, context=own) for item in data["probes"]),
            "sets": tuple(parse(canonical(item), Asked) for item in data["sets"]),
            "deploy": data["deploy"] and Deploy.model_validate(data["deploy"]),
            "tools": tuple(data["tools"]),
            "started": datetime.fromisoformat(data["started"]),
        }
        return cls(**values)

    def write(self, path: Path) -> None:
        """Write the plan; a file that was there is replaced at once or not at all.

        Raises:
            AuditError: it cannot be written.
        """
        try:
            write_atomically(path, self.to_bytes())
        except OSError as error:
            raise AuditError(f"`{path}` cannot be written: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Selection:
    """Which probes are asked.

    Attributes:
        folders: files or folders of further probes.
        builtin: whether the built-in ones are asked too.
        mechanisms: only these, where any is named.
        sample: at most so many.
        tools: whether the backend takes tools; without them, agentic probes are left out.
        seed: decides the order and the sample.
        categories: categories of one's own, beside the taxonomy.
    """

    folders: Sequence[Path] = ()
    builtin: bool = True
    mechanisms: Collection[ProbeMechanism] = ()
    sample: int | None = None
    tools: bool = True
    seed: int = 0
    categories: Collection[str] = ()


def chosen(selection: Selection) -> tuple[tuple[Probe, ...], tuple[Asked, ...], dict[str, str]]:
    """Return the probes in their order, the sets that they are of, and what is left out.

    Raises:
        ConfigurationError: a file is wrong, or nothing is left to ask.
    """
    named: dict[str, ProbeSet] = {BUILTIN: load_builtin()} if selection.builtin else {}
    for folder in selection.folders:
        name = folder.resolve().name
        named[f"{name} {len(named)}" if name in named else name] = load(
            folder, extra_categories=selection.categories
        )
    together = merged(list(named.values()))
    asked = {probe.id: probe.asked for probe in together}
    together = replace(together, probes=without_repeats(together, asked))
    left_out: dict[str, str] = {}
    if selection.mechanisms:
        together = together.only(*selection.mechanisms)
    if not selection.tools and (needing := [probe for probe in together if probe.tools]):
        left_out["agentic probes"] = f"{len(needing)} probes need tools, the backend takes none"
        together = replace(together, probes=tuple(p for p in together if not p.tools))
    if not together.probes:
        raise ConfigurationError("no probe is left to ask: choose other mechanisms or files")
    total = len(together)
    together = (
        together.ordered(selection.seed)
        if selection.sample is None
        else together.sample(selection.sample, seed=selection.seed)
    )
    if len(together) < total:
        left_out["probes outside the sample"] = f"{total - len(together)} of {total} were not drawn"
    there = {probe.id: probe for probe in together}
    sets = tuple(
        item
        for name, one in named.items()
        if (item := _asked(name, one, [there[p.id] for p in one if p.id in there])) is not None
    )
    return together.probes, sets, left_out


def recorded(probes: ProbeSet, seed: int) -> tuple[tuple[Probe, ...], tuple[Asked, ...]]:
    """Return what recorded answers answer, in a random order, and the set that it is."""
    (source,) = probes.sources
    return probes.ordered(seed).probes, (
        Asked(name=source.name, version=source.version, digest=probes.version),
    )


def _asked(name: str, source: ProbeSet, probes: Iterable[Probe]) -> Asked | None:
    there = list(probes)
    if not there:
        return None
    versions = sorted({item.version for item in source.sources})
    version = f"{'+'.join(versions[:3]) or '0'} ({len(there)} of {len(source)})"
    return Asked(name=name, version=version, digest=probe_set_version(there))


def _differences(there: object, here: object, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        before, now = getattr(there, name), getattr(here, name)
        if before != now:
            option = f" (`{_OPTIONS[name]}`)" if name in _OPTIONS else ""
            yield f"`{name}` {_shown(before)} there, {_shown(now)} now{option}"


def _other_probes(there: Plan, here: Plan) -> Iterator[str]:
    """Yield how the questions differ, in words; their order is the seed's."""
    before, now = ({probe.id: probe for probe in plan.probes} for plan in (there, here))
    if before == now and (there.probes == here.probes or there.seed != here.seed):
        return
    same = sum(before.get(name) == probe for name, probe in now.items())
    yield (
        f"`probes` {len(before)} there, {len(now)} now, {same} of them the same (`--sample`, "
        "`--probes`, `--builtin`, `--mechanism`, `--seed`)"
    )


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "(none)"
    if isinstance(value, Deploy):
        return f"limits {value.model_dump(mode='json')}"
    if isinstance(value, tuple):
        return f"({len(value)} of another kind)" if value else "(none)"
    text = str(dict(value) if isinstance(value, Mapping) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
