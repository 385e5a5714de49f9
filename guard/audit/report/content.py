"""What a report says, before anybody decides what it looks like.

This module does not know HTML or Markdown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from guard.audit.deploy import limits_digest, reaches, unmet
from guard.audit.exact import moment_text
from guard.audit.judging import without_canaries
from guard.audit.report.references import FRAMEWORKS, NOTICE
from guard.categories import CATEGORIES
from guard.percent import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from guard.audit.answers import Said
    from guard.audit.assemble import Assembled, Measured
    from guard.audit.figures import Kind
    from guard.audit.judging import Judgement
    from guard.audit.probe import Probe
    from guard.security_class import SecurityClass

Texts = Literal["redacted", "full", "omitted"]
"""How questions and answers are shown. `redacted` takes out secrets, personal data and canaries."""

UNSAFE: Final = (
    "unsafe is what one signal of the classifier sees in all answers. It can be lower than the "
    "rate of a category, which has signals of its own: it stands for none of them."
)
"""What a reader must know of that figure."""

_WORST: Final = 3
"""Answers that are shown of each category."""

_HIGHEST: Final = 3
"""Rates that the summary names."""

_LENGTH: Final = 700
"""Characters of each text that are shown."""

_CANARY: Final = "[canary]"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        kind: category, mechanism or effect.
        name: its name.
        value: the estimate.
        lower: the interval's lower bound.
        upper: its upper bound.
        n: what the interval rests on.
        answers: how many were judged.
        flagged: how many of them are flagged.
        labelled: how many a person labelled.
        risky: how many of those carry the risk.
        method: how estimate and interval come about.
        reason: why the interval is wide.
        limits: the limit of each class on the upper bound, by the class's name.
    """

    kind: Kind
    name: str
    value: float
    lower: float
    upper: float
    n: int
    answers: int
    flagged: int
    labelled: int
    risky: int
    method: str
    reason: str
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ClassResult:
    """How the profile stands to one security class.

    Attributes:
        name: the class's.
        rank: its rank.
        description: whom it is for.
        asks: whether it asks for anything.
        reached: whether the profile meets its limits and those of every class below it.
        unmet: its own limits that are not met, a sentence each.
    """

    name: str
    rank: int
    description: str
    asks: bool
    reached: bool
    unmet: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One of the worst answers.

    Attributes:
        probe: the probe's id.
        category: what was looked for and found.
        why: what the probe shows.
        found: how it was found.
        question: what was asked, turn by turn; `""` where texts are omitted.
        answer: what the model said and called, reply by reply, since any of them may be what was
            found; `""` likewise.
    """

    probe: str
    category: str
    why: str
    found: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Means:
    """What flags the answers of a category.

    Attributes:
        category: the category.
        threshold: evidence from which an answer is flagged.
        sensitivity: the share of risky answers that are.
        alarms: the share of other answers that are, too.
    """

    category: str
    threshold: float
    sensitivity: float
    alarms: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report says.

    Attributes:
        model: what was audited.
        facts: about the audit, by name.
        summary: one sentence per thing that should be read first.
        rows: every figure.
        classes: every class, the lowest first.
        worst: the worst answers.
        texts: how questions and answers are shown.
        elsewhere: answers that are flagged for what their probe does not look for, by category.
        not_covered: what was not audited, and why.
        means: how answers were flagged.
    """

    model: str
    facts: Mapping[str, str]
    summary: tuple[str, ...]
    rows: tuple[Row, ...]
    classes: tuple[ClassResult, ...]
    worst: tuple[Shown, ...]
    texts: Texts
    elsewhere: Mapping[str, int]
    not_covered: Mapping[str, str]
    means: tuple[Means, ...]

    def of(self, kind: Kind) -> list[Row]:
        """Return the figures of one kind."""
        return [row for row in self.rows if row.kind == kind]

    def plain(self) -> dict[str, Any]:
        """Return the report as JSON-able values, references included."""
        frameworks = [
            {"name": one.name, "references": [item._asdict() for item in one.references]}
            for one in FRAMEWORKS
        ]
        return {
            **asdict(self),
            "references": {"notice": NOTICE, "frameworks": frameworks},
        }


def report(
    assembled: Assembled,
    classes: Sequence[SecurityClass],
    redactor: Callable[[str], str],
    texts: Texts = "redacted",
) -> Report:
    """Return what a report of an audit says.

    Args:
        assembled: the audit.
        classes: what the profile is held against.
        redactor: takes secrets and personal data out of a text.
        texts: how questions and answers are shown.
    """
    ranked = sorted(classes, key=lambda item: (item.rank, item.name))
    results = tuple(_result(assembled, item, ranked) for item in ranked)
    rows = tuple(_row(each, ranked) for each in assembled.measured)
    return Report(
        model=assembled.plan.fingerprint.model,
        facts=dict(_facts(assembled)) | dict(_limits(ranked)),
        summary=tuple(_summary(assembled, results, rows)),
        rows=rows,
        classes=results,
        worst=tuple(_worst(assembled, redactor, texts)),
        texts=texts,
        elsewhere=_elsewhere(assembled),
        not_covered=dict(assembled.profile.not_covered),
        means=tuple(_means(assembled)),
    )


def _row(measured: Measured, classes: Sequence[SecurityClass]) -> Row:
    figure, found = measured.figure, measured.estimate
    limits = {}
    for item in classes:
        if item.deploy is not None:
            asked = item.deploy.effects if figure.kind == "effect" else item.deploy.rates
            if figure.name in asked:
                limits[item.name] = asked[figure.name]
    return Row(
        kind=figure.kind,
        name=figure.name,
        value=found.value,
        lower=found.low,
        upper=found.high,
        n=found.n,
        answers=len(measured.probes),
        flagged=measured.flagged,
        labelled=measured.labelled,
        risky=measured.risky,
        method=found.method,
        reason=found.reason,
        limits=limits,
    )


def _result(
    assembled: Assembled, item: SecurityClass, classes: Sequence[SecurityClass]
) -> ClassResult:
    return ClassResult(
        name=item.name,
        rank=item.rank,
        description=item.description,
        asks=item.deploy is not None,
        reached=reaches(assembled.profile, item, classes),
        unmet=tuple(map(str, unmet(assembled.profile, item))),
    )


def _facts(assembled: Assembled) -> Iterator[tuple[str, str]]:
    plan, profile = assembled.plan, assembled.profile
    fingerprint = profile.fingerprint
    sampling = fingerprint.sampling
    yield "model", fingerprint.model
    yield "backend", plan.backend
    yield "system prompt", _hash(fingerprint.system_prompt)
    yield "adapter", _hash(fingerprint.adapter)
    yield "tools", _hash(fingerprint.tools)
    yield "sampling", "set by each request" if sampling is None else str(dict(sampling))
    yield "audited", moment_text(profile.date)
    yield "answers", f"{sum(1 for name in assembled.counted if _answered(assembled, name))}"
    yield "stopping", profile.stopping
    yield "probes", ", ".join(f"{item.name} {item.version}" for item in profile.probes)
    yield "detectors", ", ".join(f"{name} {v}" for name, v in profile.detectors.items())
    yield "Clearance", profile.tool_version
    yield "profile", f"sha256 {profile.digest()}"


def _limits(classes: Iterable[SecurityClass]) -> Iterator[tuple[str, str]]:
    """Yield which limits the classes had, by the digest that a tag has of them as well."""
    for item in classes:
        if item.deploy is not None:
            yield f"limits of {item.name}", f"sha256 {limits_digest(item)}"


def _answered(assembled: Assembled, probe: str) -> bool:
    return probe in assembled.judged.judgements


def _hash(digest: str | None) -> str:
    return "none" if digest is None else f"sha256 {digest}"


def _summary(
    assembled: Assembled, classes: Sequence[ClassResult], rows: Sequence[Row]
) -> Iterator[str]:
    model = assembled.plan.fingerprint.model
    asking = [item for item in classes if item.asks]
    reached = [item.name for item in asking if item.reached]
    if not asking:
        yield "None of the classes asks for anything, so that this profile opens and closes none."
    elif reached:
        yield f"{model} is good enough for class `{reached[-1]}` and those below it."
    else:
        yield f"{model} is not good enough for any of the classes that ask for a profile."
    rates = (row for row in rows if row.kind != "effect" and row.lower > 0)
    certain: dict[str, float] = {}
    for row in sorted(rates, key=lambda row: -row.lower):
        # `exposure` is a category and a mechanism.
        certain.setdefault(row.name, row.lower)
    if certain:
        highest = list(certain.items())[:_HIGHEST]
        worst = ", ".join(f"{name} at least {percent(lower)}" for name, lower in highest)
        yield f"Highest rates that are certain: {worst}."
    if assembled.profile.stopping == "early":
        yield "Probes that its class needed no more were left out; bounds hold at any time."


def _worst(assembled: Assembled, redactor: Callable[[str], str], texts: Texts) -> Iterator[Shown]:
    probes = {probe.id: probe for probe in assembled.plan.probes}
    for each in assembled.measured:
        if each.figure.kind == "category":
            worst = sorted(_flagged(assembled, each, probes))[:_WORST]
            yield from (_shown(assembled, probes[name], redactor, texts) for _, name in worst)


def _flagged(
    assembled: Assembled, measured: Measured, probes: Mapping[str, Probe]
) -> Iterator[tuple[float, str]]:
    """Yield the probes that look for a category and found it, with how bad the answer is."""
    name = measured.figure.name
    counted = set(measured.probes)
    for aim in measured.figure.aims:
        judgement = assembled.judged.judgements.get(aim.probe)
        if judgement is None or aim.probe not in counted or probes[aim.probe].category != name:
            continue
        if judgement.flagged(aim.instrument):
            yield -_severity(judgement, name), aim.probe


def _severity(judgement: Judgement, category: str) -> float:
    if judgement.leaked or judgement.trespassed or not judgement.complete:
        return float("inf")
    return judgement.evidence.get(category, 0.0)


def _shown(
    assembled: Assembled, probe: Probe, redactor: Callable[[str], str], texts: Texts
) -> Shown:
    judgement = assembled.judged.judgements[probe.id]
    answer = assembled.answers[probe.id]
    asked = [item.content for item in answer.said if item.role == "user"]
    canaries = assembled.plan.planted(probe).canaries

    def show(text: str) -> str:
        if texts == "omitted":
            return ""
        if texts == "redacted":
            text = redactor(without_canaries(text, canaries.values(), _CANARY))
        return text if len(text) <= _LENGTH else f"{text[:_LENGTH].rstrip()} …"

    def together(texts: Iterable[str]) -> str:
        return "\n\n".join(filter(None, map(show, texts)))

    return Shown(
        probe=probe.id,
        category=probe.category,
        why=probe.why,
        found=_found(judgement, probe.category),
        question=together(asked),
        answer=together(text for reply in answer.replies for text in _given(reply)),
    )


def _given(reply: Said) -> Iterator[str]:
    yield reply.content
    yield reply.refusal
    for call in reply.tool_calls:
        yield f"{call.name}({call.arguments})"


def _found(judgement: Judgement, category: str) -> str:
    if not judgement.complete:
        return "a detector failed on it"
    if judgement.leaked:
        return f"repeats {', '.join(judgement.leaked)}"
    if judgement.trespassed:
        return f"calls {', '.join(judgement.trespassed)}, which is off limits"
    return f"evidence {judgement.evidence.get(category, 0.0):+.1f}"


def _elsewhere(assembled: Assembled) -> dict[str, int]:
    """Count what is flagged beside what the probes look for."""
    looked_for = {probe.id: probe.category for probe in assembled.plan.probes}
    found: Counter[str] = Counter()
    for probe in assembled.counted:
        judgement = assembled.judged.judgements.get(probe)
        if judgement is None:
            continue
        for name, instrument in assembled.judged.instruments.items():
            known = CATEGORIES.get(name)
            beside = known is not None and (known.auxiliary or known.side == "prompt")
            if not beside and name != looked_for[probe] and judgement.flagged(instrument):
                found[name] += 1
    return dict(found.most_common())


def _means(assembled: Assembled) -> Iterator[Means]:
    names = {
        aim.instrument.category
        for each in assembled.measured
        for aim in each.figure.aims
        if aim.instrument.confusion is not None
    }
    for name in sorted(names):
        instrument = assembled.judged.instruments[name]
        if instrument.confusion is not None:
            yield Means(
                name, instrument.confusion.threshold, instrument.sensitivity, instrument.alarms
            )
