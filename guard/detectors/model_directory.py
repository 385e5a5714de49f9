"""Reads and checks a model's directory, and says everything that is wrong with it.

    config.json                  labels, problem type; `clearance` says how text is encoded
    tokenizer.json               read by `tokenizers` alone
    onnx/model_quantized.onnx    or onnx/model.onnx, or either one level up; files beside it
                                 whose names begin alike hold tensors of it
    calibration.json             per label: logit -> evidence (optional)
    unfamiliar.npz               what ordinary text looks like (optional)
    manifest.json                version and the SHA-256 of every file

This module does not load the tokenizer or the graph, and scores nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import dataclass, fields
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from guard.calibration import Bin, Confusion, Error
from guard.categories import CATEGORIES
from guard.detectors import unfamiliar
from guard.detectors.pooling import ALONE, Pooling
from guard.encoding import Sizes
from guard.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ONNX_FILES: Final = (
    "onnx/model_quantized.onnx",
    "onnx/model.onnx",
    "model_quantized.onnx",
    "model.onnx",
)
"""Where the graph is looked for, in this order."""

UNCALIBRATED_LIMIT: Final = 4.0
"""Largest evidence of a label without calibration: its claim is unproven."""

_CONFIG: Final = "config.json"
_TOKENIZER: Final = "tokenizer.json"
_CALIBRATION: Final = "calibration.json"
_MANIFEST: Final = "manifest.json"

_OFFSET_POSITIONS: Final = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types whose positions begin behind the padding's id: they read that many tokens less."""

_INPUTS: Final = ("text", "pair", "unit")
"""How text is encoded: alone; behind the prompt; behind the prompt and with the unit marked."""

_LINE: Final = ("slope", "intercept", "maximum")
"""What a label's calibration must say."""

_EXPORT_AGAIN: Final = "is missing: export the model again"
_MISSING: Final = {_MANIFEST: "is missing: seal the model, or load it with `verify=False`"}

_POSITIONS: Final = ("max_position_embeddings", "n_positions", "max_sequence_length")

_UNBOUND_LABELS: Final = ("multi_label_classification", "regression")
"""Problem types whose labels do not exclude one another."""

_Figures = TypeVar("_Figures", Error, Bin, Confusion)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turns one label's logit into evidence: `slope * logit + intercept`, bounded.

    Attributes:
        slope: above 0, so that the order of texts stays.
        intercept: added.
        maximum: bound of the absolute value; above 0.
        ece: expected calibration error where it was measured, at a prior of one half.
        reliability: predicted and observed probability there, from low evidence to high.
        confusion: what limits on a response's evidence get right and wrong, where counted;
            limits that no bounded evidence reaches, or that all of it does, are left out.
    """

    slope: float = 1.0
    intercept: float = 0.0
    maximum: float = UNCALIBRATED_LIMIT
    ece: Error | None = None
    reliability: tuple[Bin, ...] = ()
    confusion: tuple[Confusion, ...] = ()

    def evidence(self, logit: float) -> float:
        """Return the log likelihood ratio of `logit`; NaN for a logit that is not finite.

        A logit that overflowed says nothing, and must not be taken for strong evidence that a
        text is fine.
        """
        if not math.isfinite(logit):
            return math.nan
        return max(-self.maximum, min(self.maximum, self.slope * logit + self.intercept))


@dataclass(frozen=True, slots=True)
class Head:
    """One label in use.

    Attributes:
        index: which of the model's outputs it is.
        category: what it is evidence for.
        calibration: how its logit becomes evidence.
        pooling: how its evidence adds up over the units of a response.
    """

    index: int
    category: str
    calibration: Calibration
    pooling: Pooling = ALONE


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """What is known about a model before it is loaded.

    Attributes:
        graph: the ONNX file.
        tokenizer: the tokenizer's file.
        version: the manifest's, or a digest of the files where none is demanded.
        labels: number of labels that the model has.
        heads: the labels in use.
        exclusive: whether exactly one label is right (softmax).
        pair: whether the model reads prompt and text as a pair.
        marked: whether it tells the unit from its context by the token types.
        sizes: how text is cut into windows, `None` where the model does not say.
        limit: tokens that the model reads at once, `None` for any number.
        padding: the padding token's id.
        experimental: categories whose evidence is too weak to act upon, with the reason.
    """

    graph: Path
    tokenizer: Path
    version: str
    labels: int
    heads: tuple[Head, ...]
    exclusive: bool
    pair: bool
    marked: bool
    sizes: Sizes | None
    limit: int | None
    padding: int
    experimental: Mapping[str, str]


def read(path: Path, wanted: Mapping[str, str] | None, *, verify: bool) -> ModelDirectory:
    """Return what `path` holds.

    Args:
        path: the model's directory.
        wanted: category of each label to use; by default labels are categories.
        verify: whether a manifest is demanded and every hash checked.

    Raises:
        ModelError: everything that is wrong.
    """
    if not path.is_dir():
        raise ModelError(f"there is no model directory `{path}`: give a directory of a model")
    return _Reader(path).read(wanted, verify=verify)


def verify_hashes(path: Path) -> list[str]:
    """Return a problem for each file that differs from the manifest, is missing or unlisted."""
    reader = _Reader(path)
    reader.manifest(verify=True)
    return reader.problems


class _Reader:
    """Reads one directory and collects what is wrong."""

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        self._path = path
        self._graph = next((path / n for n in ONNX_FILES if (path / n).is_file()), None)

    def read(self, wanted: Mapping[str, str] | None, *, verify: bool) -> ModelDirectory:
        config = self._json(_CONFIG)
        if not (self._path / _TOKENIZER).is_file():
            # What it says is `tokenizers`' to read: a second reader would take memory for it.
            self._problem(_TOKENIZER, _EXPORT_AGAIN)
        if self._graph is None:
            self._problem(None, f"has no ONNX graph: expected one of {', '.join(ONNX_FILES)}")
        manifest = self.manifest(verify=verify)
        labels = self._labels(config)
        calibrated = self._object(_CALIBRATION, self._json(_CALIBRATION, needed=False), "labels")
        own = self._object(_CONFIG, config, "clearance")
        used = self._used_labels(labels, own) if wanted is None else wanted
        heads = self._heads(labels, used, calibrated)
        sizes = self._sizes(own) if own else None
        if not (sizes and sizes.closing) and any(head.pooling.closing for head in heads):
            text = "must be above 0: `calibration.json` weighs closing reads"
            self._problem(_CONFIG, f"`clearance.closing_tokens` {text}")
        if self.problems or self._graph is None:
            raise ModelError(self.problems)
        return ModelDirectory(
            graph=self._graph,
            tokenizer=self._path / _TOKENIZER,
            version=self._version(manifest, verify=verify),
            labels=len(labels),
            heads=heads,
            exclusive=len(labels) > 1 and config.get("problem_type") not in _UNBOUND_LABELS,
            pair=own.get("input") in {"pair", "unit"},
            marked=own.get("input") == "unit",
            sizes=sizes,
            limit=_limit(config),
            padding=_whole(config.get("pad_token_id")) or 0,
            experimental={k: str(v) for k, v in (manifest.get("experimental") or {}).items()},
        )

    # Files and hashes.

    def manifest(self, *, verify: bool) -> dict[str, Any]:
        """Return the manifest; compare the files with it where that is demanded."""
        manifest = self._json(_MANIFEST, needed=verify)
        self._object(_MANIFEST, manifest, "experimental")
        listed = self._object(_MANIFEST, manifest, "files")
        if not verify or not (self._path / _MANIFEST).is_file():
            return manifest
        if not listed:
            self._problem(_MANIFEST, "lists no files: seal the model again")
            return manifest
        for name, entry in listed.items():
            self._compare(name, entry)
        for name in sorted(self._used() - listed.keys()):
            self._problem(name, "is not in the manifest: seal the model again, or remove the file")
        return manifest

    def _compare(self, name: str, entry: object) -> None:
        digest = entry.get("sha256") if isinstance(entry, dict) else None
        path = self._path / name
        if _leaves(name):
            self._problem(_MANIFEST, f"lists `{name}`, which is outside the directory: remove it")
        elif not isinstance(digest, str):
            self._problem(_MANIFEST, f"has no `sha256` for `{name}`: seal the model again")
        elif not path.is_file():
            self._problem(name, "is missing: reinstall the package or export the model again")
        elif _sha256(path) != digest.lower():
            self._problem(name, "is not the file that was sealed (SHA-256 differs): reinstall")

    def _used(self) -> set[str]:
        """Return the names of the files that are read, the graph's own data files included."""
        plain = (_CONFIG, _TOKENIZER, _CALIBRATION, unfamiliar.FILE)
        names = {name for name in plain if (self._path / name).is_file()}
        if self._graph is not None:
            files = self._graph.parent.glob(f"{self._graph.name}*")
            names |= {file.relative_to(self._path).as_posix() for file in files}
        return names

    def _version(self, manifest: Mapping[str, Any], *, verify: bool) -> str:
        if verify and manifest.get("version"):
            return str(manifest["version"])
        parts = [name + _sha256(self._path / name) for name in sorted(self._used())]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        return digest if verify else f"unverified-{digest}"

    def _json(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        """Return a file's object, an empty one where it is missing or wrong."""
        path = self._path / name
        if not path.is_file():
            if needed:
                self._problem(name, _MISSING.get(name, _EXPORT_AGAIN))
            return {}
        try:
            value = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            self._problem(name, f"is not JSON: {error}")
            return {}
        if not isinstance(value, dict):
            self._problem(name, "must hold an object (`{…}`)")
            return {}
        return value

    def _object(self, file: str, parent: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = parent.get(key)
        if value is not None and not isinstance(value, dict):
            self._problem(file, f"must hold an object (`{{…}}`) under `{key}`")
        return value if isinstance(value, dict) else {}

    def _problem(self, file: str | None, text: str) -> None:
        self.problems.append(f"`{self._path / file if file else self._path}` {text}")

    # What the files say.

    def _labels(self, config: Mapping[str, Any]) -> list[str]:
        """Return the labels in the order of the model's outputs."""
        known = self._object(_CONFIG, config, "id2label")
        labels = [known.get(str(index)) for index in range(len(known))]
        if not config or (labels and all(isinstance(label, str) for label in labels)):
            return [str(label) for label in labels]
        if config.get("id2label") is None and _classifies_sequences(config):
            # `transformers` leaves two labels without names out of the file.
            return ["LABEL_0", "LABEL_1"]
        self._problem(_CONFIG, 'has no usable `id2label` (`{"0": "name", …}`): add the labels')
        return []

    def _used_labels(self, labels: list[str], own: Mapping[str, Any]) -> Mapping[str, str] | None:
        """Return the labels that `clearance.unused_labels` leaves, `None` where it names none."""
        unused = own.get("unused_labels")
        if unused is None:
            return None
        if not isinstance(unused, list) or not all(isinstance(name, str) for name in unused):
            self._problem(_CONFIG, "`clearance.unused_labels` must be a list of labels")
            return None
        for name in sorted(set(unused) - set(labels)):
            text = f"`clearance.unused_labels` names `{name}`, which is no label"
            self._problem(_CONFIG, text + did_you_mean(name, labels))
        return {name: name for name in labels if name not in unused}

    def _heads(
        self,
        labels: list[str],
        wanted: Mapping[str, str] | None,
        calibrated: Mapping[str, Any],
    ) -> tuple[Head, ...]:
        if not labels:
            return ()
        chosen = {label: label for label in labels} if wanted is None else wanted
        if not chosen:
            self._problem(None, "would be used without any label: name one in `labels`")
        for label in sorted(chosen.keys() - set(labels)):
            self._problem(None, f"has no label `{label}`{did_you_mean(label, labels)}")
        for category in sorted(set(chosen.values()) - CATEGORIES.keys()):
            mend = "map it to a category" if wanted is None else "use a category"
            text = f"has a label for `{category}`, which is no category: {mend} in `labels`"
            self._problem(None, text + did_you_mean(category, CATEGORIES))
        for label in sorted({label for label in chosen if labels.count(label) > 1}):
            text = f"names several labels `{label}`, which one calibration cannot serve: give each"
            self._problem(_CONFIG, f"{text} a name of its own, and map them in code (`labels`)")
        calibrations = self._calibrations(labels, calibrated)
        poolings = self._poolings(labels, calibrated)
        return tuple(
            Head(
                index,
                chosen[label],
                calibrations.get(label, Calibration()),
                poolings.get(label, ALONE),
            )
            for index, label in enumerate(labels)
            if label in chosen
        )

    def _calibrations(
        self, labels: list[str], entries: Mapping[str, Any]
    ) -> dict[str, Calibration]:
        found: dict[str, Calibration] = {}
        for label, entry in entries.items():
            if label not in labels:
                if labels:
                    self._problem(_CALIBRATION, f"calibrates `{label}`, which is no label")
            elif (calibration := self._calibration(label, entry)) is not None:
                found[label] = calibration
        return found

    def _poolings(self, labels: list[str], entries: Mapping[str, Any]) -> dict[str, Pooling]:
        """Return the poolings that are given; without one every unit stands for itself."""
        found: dict[str, Pooling] = {}
        for label in labels:
            given = entries.get(label)
            pooling = given.get("pooling", {}) if isinstance(given, dict) else {}
            try:
                found[label] = Pooling(**pooling)
            except (TypeError, ValueError) as error:
                self._problem(_CALIBRATION, f"`{label}`: `pooling`: {error}")
        return found

    def _calibration(self, label: str, entry: object) -> Calibration | None:
        given = entry if isinstance(entry, dict) else {}
        values = {name: _number(given.get(name)) for name in _LINE}
        wrong = [
            f"`{name}`"
            for name, value in values.items()
            if value is None or (name != "intercept" and value <= 0)
        ]
        if wrong:
            bounds = "a finite number, above 0 for `slope` and `maximum`"
            self._problem(_CALIBRATION, f"`{label}`: {', '.join(wrong)} must be {bounds}")
            return None
        line = {name: value for name, value in values.items() if value is not None}
        errors = self._figures(label, given, "ece", Error)
        confusion = self._figures(label, given, "confusion", Confusion)
        return Calibration(
            **line,
            ece=errors[0] if errors else None,
            reliability=self._figures(label, given, "reliability", Bin),
            # Counts at a limit that moved out of reach promise alarms that never come.
            confusion=tuple(each for each in confusion if each.within(line["maximum"])),
        )

    def _figures(
        self, label: str, given: Mapping[str, Any], name: str, kind: type[_Figures]
    ) -> tuple[_Figures, ...]:
        """Return what was measured of a calibration: one record or a list; none where absent."""
        value = given.get(name, [])
        records = value if isinstance(value, list) else [value]
        found = [_record(record, kind) for record in records]
        if None in found:
            names = ", ".join(f"`{field.name}`" for field in fields(kind))
            self._problem(_CALIBRATION, f"`{label}`: `{name}` needs numbers for {names}")
        return tuple(record for record in found if record is not None)

    def _sizes(self, own: Mapping[str, Any]) -> Sizes:
        if own.get("input", "text") not in _INPUTS:
            self._problem(_CONFIG, "`clearance.input` must be `text`, `pair` or `unit`")
        sizes = {
            field.name: _whole(own.get(f"{field.name}_tokens", field.default))
            for field in fields(Sizes)
        }
        least = {"closing": 0, "closing_prompt": 0}
        wrong = [n for n, value in sizes.items() if value is None or value < least.get(n, 1)]
        for name in wrong:
            bound = f"{least[name]} or more" if name in least else "above 0"
            self._problem(_CONFIG, f"`clearance.{name}_tokens` must be a whole number {bound}")
        found = Sizes(**{name: value or least.get(name, 1) for name, value in sizes.items()})
        if found.stride > found.text and not wrong:
            self._problem(_CONFIG, "`clearance.stride_tokens` is above `text_tokens`: leaves gaps")
        return found


def _leaves(name: str) -> bool:
    """Return whether a file's name points out of the directory, on any system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return bool(posix.is_absolute() or windows.anchor) or ".." in windows.parts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _classifies_sequences(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures")
    listed = names if isinstance(names, list) else []
    return any(str(name).endswith("ForSequenceClassification") for name in listed)


def _limit(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens the model reads at once, `None` where it does not say."""
    found = [value for key in _POSITIONS if (value := _whole(config.get(key))) and value > 0]
    if not found:
        return None
    padding = _whole(config.get("pad_token_id"))
    first = (1 if padding is None else padding) + 1
    offset = first if str(config.get("model_type")) in _OFFSET_POSITIONS else 0
    return min(found) - offset


def _record(given: object, kind: type[_Figures]) -> _Figures | None:
    """Return a record of numbers, counts whole and not negative, or `None`."""
    if not isinstance(given, dict):
        return None
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        values[name] = _whole(given.get(name)) if hint is int else _number(given.get(name))
        if values[name] is None or (hint is int and values[name] < 0):
            return None
    return kind(**values)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Whole numbers that no float can hold compare like others.
    return float(value) if abs(value) <= sys.float_info.max else None
