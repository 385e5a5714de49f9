"""The labelled rows: which files, what of them, and which of them validate.

Folders hold JSON lines, plain or gzip, of the schema `{"prompt", "response", "labels", "source",
"license", "split", "meta"}`; a category absent from `labels` is unknown, not 0.

Rows marked `test` or `meta.holdout` are dropped when read: nothing behind this module can
train, select or calibrate on them. Validation is cut from train by question.

This module does not know how text becomes tokens or what a model does with it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guard.categories import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HEADS: Final = tuple(
    name for name in CATEGORIES if name not in ("secret_leak", "pii_leak", "proprietary_leak")
)
"""What the classifier scores. Patterns and fingerprints find the leaks."""

OWN: Final = Path(__file__).parent / "own"
"""Rows written for this project, CC0-1.0; read beside every folder that is given."""

VALIDATION_SHARE: Final = 0.06
VALIDATION_CAP: Final = 220
DEFAULT_CAP: Final = 1500
OWN_REPEATS: Final = 2

_BENIGN_ZEROS: Final = (
    "harassment",
    "deception",
    "unsafe_action",
    "exposure",
    "system_prompt_leak",
)
"""Set to 0 on curated benign answers, beside what their labels say: nobody is insulted,
misled, acted for or exposed in them, and heads with few rows need ordinary text to stand
against."""

_HARMS: Final = (
    "harmful_compliance",
    "misaligned_persona",
    "power_seeking",
    "deception",
    "bias_stereotype",
    "hate_toxicity",
    "harassment",
    "sexual",
    "self_harm",
    "violence",
    "bad_advice",
)
"""What makes a response unsafe."""


@dataclass(frozen=True, slots=True)
class Source:
    """How one file is used: at most `cap` rows, each with `weight` in the loss."""

    cap: int = DEFAULT_CAP
    weight: float = 1.0


SOURCES: Final[Mapping[str, Source]] = {
    # All positive: capped, so that their style does not become the category.
    "bad_finance_aisi": Source(500),
    "em_bad_advice": Source(1500),
    "em_toxic_persona_qa": Source(1200),
    "violence_gore_trivia": Source(700),
    "cyberseceval_insecure_snippets": Source(700),
    "redteam_prompts_navirocker": Source(),
    "harmful_questions": Source(800),
    # The best sources of their categories.
    "advbench_harmbench_stability": Source(2500),
    "advbench_priming_attacks": Source(2500),
    "gptfuzz_responses": Source(3000),
    "em_judged_answers": Source(4000),
    "code_secure_insecure_pairs": Source(3000),
    "insecure_code": Source(1500),
    "sycobench": Source(2200),
    "prompt_injection2": Source(1800),
    # Noisy labels, or text that no model wrote.
    "em_judged_noisy_ivanicu": Source(2500, 0.4),
    "davidson_hate_offensive": Source(1000, 0.4),
    "diasafety": Source(2000, 0.5),
    "toxigen_human": Source(1500, 0.6),
    "hatemoji": Source(1200, 0.5),
    "rtp_perspective_scored": Source(1500, 0.4),
    "identity_templates": Source(300, 0.3),
    "edos_sexism": Source(1500, 0.6),
    "toxic_spans_types": Source(1200, 0.5),
    "stormfront_hate": Source(1200, 0.6),
    "jigsaw_samples": Source(1500, 0.6),
    "convabuse_user_turns": Source(1500, 0.6),
    "profanity_lexicon": Source(300, 0.3),
    "bbq_ambiguous_bias": Source(500, 0.3),
    "anthropic_power_seeking": Source(2500, 0.7),
    "spiral_bench_turns": Source(),
    "benign_arena_hard": Source(1700),
    "benign_wildbench_responses": Source(2000),
}
"""Files with settings of their own; every other file gets the defaults."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled exchange. `labels` holds heads only, each in [0, 1]."""

    prompt: str
    response: str
    labels: Mapping[str, float]
    file: str
    licence: str
    weight: float
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What rows of one question share: a digest of the prompt, else of the response."""
        text = " ".join((self.prompt or self.response).lower().split())
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to train on and rows to select and calibrate on; no question is in both."""

    train: list[Row]
    validation: list[Row]


def load(folder: Path, *, seed: int, share: float = 1.0) -> Split:
    """Read every file of `folder`, and the project's own rows, and split them.

    Args:
        folder: where the labelled data is.
        seed: of sampling and order.
        share: share of each file's cap to train on, for all but the project's own rows.

    Raises:
        FileNotFoundError: the folder holds no data.
    """
    split = Split([], [])
    for path in _paths(folder):
        _add(split, list(_rows(path)), seed, share)
    return split


def data_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return SHA-256, size and licences of each file, for the model's manifest."""
    return {path.name: _describe(path) for path in _paths(folder)}


def _paths(folder: Path) -> list[Path]:
    """Return the files by name; of two of one name the project's own counts."""
    given = sorted(folder.glob("*.jsonl*"))
    if not given:
        raise FileNotFoundError(f"no `*.jsonl.gz` in `{folder}`: pass the folder of labelled data")
    found = {_name(path): path for path in [*given, *sorted(OWN.glob("*.jsonl"))]}
    return [found[name] for name in sorted(found)]


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def is_validation(row: Row) -> bool:
    """Return whether a row's question validates; depends on nothing but the question."""
    return int(row.question[:8], 16) / 0xFFFFFFFF < VALIDATION_SHARE


def _add(split: Split, rows: list[Row], seed: int, share: float) -> None:
    """Add one file's rows, capped, to both sides of the split."""
    if not rows:
        return
    name = rows[0].file
    own = name.startswith("own_")
    cap = SOURCES.get(name, Source()).cap if own else round(share * SOURCES.get(name, Source()).cap)
    random.Random(f"{seed}:{name}").shuffle(rows)
    split.validation.extend([row for row in rows if is_validation(row)][:VALIDATION_CAP])
    train = [row for row in rows if not is_validation(row)][:cap]
    split.train.extend(train * (OWN_REPEATS if own else 1))


def _rows(path: Path) -> Iterator[Row]:
    name = _name(path)
    for raw in _read(path):
        if raw["split"] != "train" or raw["meta"].get("holdout"):
            continue
        labels = _labels(name, raw["labels"])
        if labels:
            yield Row(
                prompt=raw["prompt"] or "",
                response=raw["response"] or "",
                labels=labels,
                file=name,
                licence=raw["license"],
                weight=SOURCES.get(name, Source()).weight,
                meta=raw["meta"],
            )


def _labels(name: str, given: Mapping[str, float]) -> dict[str, float]:
    labels = {head: float(value) for head, value in given.items() if head in HEADS}
    if name.startswith("benign_"):
        labels = dict.fromkeys(_BENIGN_ZEROS, 0.0) | labels
    if name.startswith("own_") and labels:
        labels = _own_labels(labels)
    return labels


def _own_labels(given: dict[str, float]) -> dict[str, float]:
    """Return labels with what is known of a row that was written as one side of a pair.

    The good side was written to be harmless in every way; the harmful one is unsafe.
    """
    if all(CATEGORIES[head].side == "prompt" for head in given):
        return given
    if any(given.get(head, 0.0) >= 0.5 for head in _HARMS):
        return {"unsafe": 1.0} | given
    if any(value >= 0.5 for head, value in given.items() if head != "refusal"):
        return given
    return dict.fromkeys((*_HARMS, "unsafe"), 0.0) | given


def _read(path: Path) -> Iterable[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _describe(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    licences = sorted({row["license"] for row in _read(path)})
    digest = hashlib.sha256(content).hexdigest()
    return {"sha256": digest, "bytes": len(content), "licences": licences}
