"""What the tests of audits share: a judge that reads plain words, small probes, small audits.

The judge's detector flags `zCATEGORY` for each category that it knows, with errors that are
known, so that figures can be checked exactly and no model is needed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from guard.audit.answers import Said
from guard.audit.folder import Folder
from guard.audit.judging import Judge
from guard.audit.plan import Plan
from guard.audit.probe import Probe, ProbeSet, Source
from guard.audit.profile import Fingerprint
from guard.audit.profile import ProbeSet as Asked
from guard.calibration import Confusion
from guard.detectors.base import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from guard.audit.assemble import Assembled
    from guard.detectors.base import Passage

    Ask = Callable[..., Assembled]

ERRORS = {
    "harmful_compliance": Confusion(2.0, 90, 4, 396, 10),
    "bad_advice": Confusion(2.0, 180, 2, 398, 20),
    "misaligned_persona": Confusion(2.0, 60, 2, 298, 40),
    "power_seeking": Confusion(2.0, 40, 6, 294, 10),
    "harassment": Confusion(2.0, 70, 3, 297, 30),
    "bias_stereotype": Confusion(2.0, 80, 9, 291, 20),
    "unsafe_action": Confusion(2.0, 30, 2, 98, 2),
    "refusal": Confusion(2.0, 150, 4, 196, 50),
    "unsafe": Confusion(2.0, 150, 3, 597, 50),
}


class WordsDetector:
    """Finds strong evidence for each category whose word is there, and evidence against others."""

    name = "words"
    version = "1"
    categories = tuple(ERRORS)
    confusions: ClassVar = {name: (errors,) for name, errors in ERRORS.items()}

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return a finding per category; the word `zcrash` is an error."""
        if "zcrash" in passage.unit:
            raise RuntimeError("asked for")
        return [
            Finding(
                category,
                6.0 if f"z{category}" in passage.unit else -4.0,
                passage.start,
                passage.end,
                self.name,
                self.version,
                localised=False,
            )
            for category in self.categories
        ]


class ScriptBackend:
    """Says what a script says to the last question; else `fallback`."""

    at_once: int | None = None
    takes_tools = True

    def __init__(
        self, script: Mapping[str, str | Said | Exception], fallback: str = "Fine."
    ) -> None:
        """Take a script by question."""
        self.script = dict(script)
        self.fallback = fallback
        self.asked: list[str] = []
        self.seen: list[tuple[Said, ...]] = []
        self.open = self.most = 0

    async def reply(self, said: Sequence[Said], tools: Sequence[Any]) -> Said:
        """Return what the script says."""
        self.tools = list(tools)
        self.open += 1
        self.most = max(self.most, self.open)
        question = next(item.content for item in reversed(said) if item.role == "user")
        self.asked.append(question)
        self.seen.append(tuple(said))
        await asyncio.sleep(0)
        self.open -= 1
        found = self.script.get(question, self.fallback)
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Said) else Said("assistant", found, finish="stop")

    async def close(self) -> None:
        """Do nothing."""


def new_probe(name: str, **values: Any) -> Probe:
    """Return a probe for bad advice that asks its own name."""
    return Probe.model_validate(
        {
            "id": name,
            "mechanism": "misinformation",
            "category": "bad_advice",
            "why": "To see.",
            "turns": name,
        }
        | values,
        context={"categories": ["own_thing", "unsafe"]},
    )


def new_plan(probes: Sequence[Probe], **values: Any) -> Plan:
    """Return a plan that asks probes in the order given."""
    found = ProbeSet(tuple(probes), (Source("own.yaml", "1", len(probes)),))
    asked = Asked(name="own", version="1", digest=found.version)
    given: dict[str, Any] = {
        "backend": "own",
        "fingerprint": Fingerprint.of("model-a"),
        "probes": found.probes,
        "sets": (asked,),
    }
    return Plan(**(given | values))


@pytest.fixture(scope="session")
def judge() -> Judge:
    """Return a judge that reads words."""
    return Judge([WordsDetector()])


@pytest.fixture(scope="session")
def errors() -> Mapping[str, Confusion]:
    """Return the errors of the judge's detector."""
    return ERRORS


@pytest.fixture(scope="session")
def make_backend() -> Callable[..., ScriptBackend]:
    """Return the maker of scripted backends."""
    return ScriptBackend


@pytest.fixture(scope="session")
def make_probe() -> Callable[..., Probe]:
    """Return the maker of probes."""
    return new_probe


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    """Return the maker of plans."""
    return new_plan


@pytest.fixture
def ask(tmp_path: Path, judge: Judge) -> Ask:
    """Return what audits a scripted model into a folder, `one` by default."""

    def run(
        probes: Sequence[Probe],
        script: Mapping[str, str | Said | Exception],
        folder: str = "one",
        **values: Any,
    ) -> Assembled:
        place = Folder.begin(tmp_path / folder, new_plan(probes, **values))
        return asyncio.run(place.ask(ScriptBackend(script), judge))

    return run
