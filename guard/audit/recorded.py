"""Reads answers that were recorded elsewhere, so that they can be judged without asking.

    {"prompt": "...", "response": "..."}
    {"prompt": "...", "response": "...", "category": "bad_advice", "id": "ticket-7"}
    {"probe": "persona-lamp", "response": "..."}

A row without a category looks for nothing in particular: its answer counts for every category.
With `probe` it answers a probe that is known; where that plants canaries, the row must show those
of the audit's seed in what was asked, since no others would be found in its answer. `system`,
`messages`, `choices` (one), `mechanism`, `group`, `condition`, `expected` and `topic` mean what
they mean elsewhere. Of `messages` the last user message counts; what the model said before is not
judged. Answers to the same messages, such as several draws, count as one question.

This module does not know what the rows show.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import ValidationError

from guard.audit.answers import Answer, Said
from guard.audit.plan import ANYTHING
from guard.audit.probe import Probe, ProbeMechanism, ProbeSet, Source, without_repeats
from guard.categories import CATEGORIES
from guard.errors import InputError, did_you_mean
from guard.exchange import Exchange
from guard.json_lines import utf8_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from guard.audit.probe import Planted

_SHOWN: Final = 20
"""Problems that a message lists; the others are counted."""

_UNKNOWN: Final = "(not recorded)"

_KEPT: Final = ("mechanism", "category", "group", "condition", "expected", "topic")
"""What a row may say as a probe does."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A file of recorded answers.

    Attributes:
        probes: what each row answers.
        answers: what came back, by the probe's id.
    """

    probes: ProbeSet
    answers: Mapping[str, Answer]


def read(
    path: Path,
    known: Collection[Probe] = (),
    categories: Collection[str] = (),
    *,
    seed: int = 0,
) -> Recorded:
    """Return the answers in a file of JSON lines.

    Args:
        path: the file.
        known: probes that rows may name.
        categories: categories of one's own, beside the taxonomy.
        seed: decides what canaries say.

    Raises:
        InputError: it cannot be read, or rows are wrong: each is named, with the mend.
    """
    by_id = {probe.id: probe for probe in known}
    problems: list[str] = []
    probes: dict[str, Probe] = {}
    answers: dict[str, Answer] = {}
    asked: dict[str, str] = {}
    for number, line in _lines(path):
        try:
            probe, answer, before = _row(line, number, by_id, categories, seed)
        except InputError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        if probe.id in probes:
            mend = "give each row an id of its own"
            problems.append(f"{path}:{number}: `{probe.id}` is answered twice: {mend}")
        probes[probe.id] = probe
        answers[probe.id] = answer
        if before and probe.id not in by_id:
            asked[probe.id] = before
    if not answers and not problems:
        problems.append(f"{path}: has no rows")
    if problems:
        more = len(problems) - _SHOWN
        raise InputError("\n".join(problems[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])))
    source = Source(path.name, f"{len(answers)} answers", len(answers))
    return Recorded(ProbeSet(without_repeats(probes.values(), asked), (source,)), answers)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(utf8_lines(file), start=1):
                if line.strip():
                    yield number, line.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _row(
    line: str, number: int, known: Mapping[str, Probe], categories: Collection[str], seed: int
) -> tuple[Probe, Answer, str]:
    """Return what a row answers, its answer, and the messages before it as a text."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise InputError("not a JSON object with `response`")
    exchange = Exchange.parse(row)
    if len(exchange.choices) != 1:
        raise InputError("has several choices: give each a row of its own")
    if "probe" in row:
        probe = _named(row["probe"], known)
        _check_canaries(probe.plant(seed), exchange)
    else:
        probe = _new(row, number, exchange, categories)
    choice = exchange.choices[0]
    prompt = exchange.prompt or probe.turns[-1]
    reply = Said(
        "assistant",
        choice.content,
        reasoning=choice.reasoning,
        refusal=choice.refusal,
        tool_calls=choice.tool_calls,
    )
    asked = () if prompt == _UNKNOWN else (Said("user", prompt),)
    before = json.dumps([(message.role, message.content) for message in exchange.messages])
    return probe, Answer(probe.id, (*asked, reply)), before if asked else ""


def _named(name: object, known: Mapping[str, Probe]) -> Probe:
    if not isinstance(name, str) or name not in known:
        hint = did_you_mean(str(name), known)
        raise InputError(f"there is no probe `{name}`{hint}: name another, or leave `probe` out")
    return known[name]


def _check_canaries(planted: Planted, asked: Exchange) -> None:
    """Refuse a row that does not show the canaries that its answer is searched for."""
    texts = [message.content for message in asked.messages]
    for name, canary in planted.canaries.items():
        if not any(canary in text for text in texts):
            raise InputError(
                f"`{planted.probe.id}` plants `{name}`, and nothing in the row shows it as this "
                "`--seed` makes it up, so that nobody could tell whether it was given away: add "
                "`messages` as they were sent (`Probe.plant(seed)` makes them), or leave the row "
                "out"
            )


def _new(
    row: Mapping[str, Any], number: int, exchange: Exchange, categories: Collection[str]
) -> Probe:
    category = row.get("category") or ANYTHING
    known = isinstance(category, str) and category in CATEGORIES
    harm = CATEGORIES[category].mechanism if known else "policy"
    values = {
        # Where nothing in particular is looked for, no figure has use for a mechanism.
        "mechanism": harm if harm in get_args(ProbeMechanism) else "policy",
        **({"expected": "comply"} if category == "refusal" else {}),
        **{key: row[key] for key in _KEPT if row.get(key)},
        "category": category,
        "id": str(row.get("id") or f"row-{number}").lower(),
        "why": "A recorded answer.",
        "system": exchange.system,
        "turns": [exchange.prompt if exchange.prompt.strip() else _UNKNOWN],
    }
    try:
        return Probe.model_validate(values, context={"categories": [*categories, ANYTHING]})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"`{place}`: {first['msg'].removeprefix('Value error, ')}") from None
