"""The classifier: ONNX Runtime and `tokenizers`, one encoder, one score a category.

One pass a unit, and one more over the end of a whole answer of several units (the closing read).

Reads a directory in the Hugging Face layout (`guard.detectors.model_directory`), so that any
exported text classifier drops in.

One text a call and one thread a session: on a CPU a batch gains nothing, and with dynamic
int8 scales a text's score would depend on its neighbours. Threads share the session.

This module does not know security classes, priors, or how text was cut into passages.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.categories import CATEGORIES
from guard.detectors import model_directory, unfamiliar
from guard.detectors.base import Finding
from guard.detectors.pooling import CLOSING, Pooling
from guard.encoding import Encoder
from guard.errors import ModelError
from guard.memory import give_back
from guard.text.frames import unframed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from guard.calibration import Confusion
    from guard.categories import Side
    from guard.detectors.base import Passage
    from guard.detectors.model_directory import Head, ModelDirectory
    from guard.encoding import Encoded
    from guard.heads import OwnHead

_SLOW_FUSIONS: Final = ("SkipLayerNormFusion",)
"""Graph optimisations whose fused kernel is slow for int8 graphs on CPUs; scores are the same."""

_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_EMBEDDING: Final = "sentence_embedding"

TOLLED: Final = 12
"""Units behind which the toll of an own category grows no more, so that one bad sentence counts."""
"""The output with the pooled embedding; few models have it."""

_INTEGERS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


@dataclass(frozen=True, slots=True)
class Judged:
    """What one pass of the model over a unit gave.

    Attributes:
        logits: highest per label over the unit's windows, shape (labels,). For a model with
            exclusive labels (softmax) a label's logit is its log-odds.
        embeddings: pooled, one row a window, shape (windows, dimensions); `None` where the
            model gives none.
        windows: the tokens of each window.
    """

    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    windows: tuple[Encoded, ...]


class Classifier:
    """A text classifier as a detector; safe to share between threads.

    Args:
        directory: the model's directory.
        labels: category of each label, for models whose labels are called otherwise; labels
            that are left out are not used. By default labels are categories.
        verify: whether a manifest is demanded and every hash checked. Switch it off only for
            a model of your own that you have not sealed yet.
        name: the detector's name, the directory's by default.
        heads: categories of one's own, scored in the same pass.

    Raises:
        ModelError: everything that is wrong with the directory, or a head that was made for
            another model.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        labels: Mapping[str, str] | None = None,
        verify: bool = True,
        name: str | None = None,
        heads: Sequence[OwnHead] = (),
    ) -> None:
        """Check the files, load tokenizer and graph, and try them on a word."""
        path = Path(directory)
        model = model_directory.read(path, labels, verify=verify)
        self.name = name or path.name or path.resolve().name
        self.version = model.version
        self.experimental: Mapping[str, str] = model.experimental
        self.pooling = {head.category: head.pooling for head in reversed(model.heads)}
        self.pooling |= {head.category: own_pooling(head.toll) for head in heads}
        self.confusions: Mapping[str, tuple[Confusion, ...]] = {
            head.category: head.calibration.confusion
            for head in reversed(model.heads)
            if head.calibration.confusion
        }
        self._heads = model.heads
        self._exclusive = model.exclusive
        self._model = model
        self._graph, self._encoder = _loaded(model)
        embedding = _try(model, self._graph, self._encoder).embedding
        self.dimensions = 0 if embedding is None else len(embedding)
        self._unfamiliar = unfamiliar.read(path, lambda: self.digest, self.dimensions)
        known = [head.category for head in model.heads]
        known += [unfamiliar.CATEGORY] if self._unfamiliar else []
        self.categories = (*dict.fromkeys(known), *(head.category for head in heads))
        self._own = _OwnHeads(heads)
        give_back()
        if heads:
            self._check(heads)
            self.version += "".join(f"+{head.category}.{head.digest}" for head in heads)

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return a finding per category of the passage's side, over the whole unit.

        The model reads left context and unit, never the look-ahead. Where the unit fills
        several windows, or is read twice, the highest logit counts. Behind the last unit of several
        it reads the text's end once more as a whole, for the categories whose pooling wants it.
        """
        heads = [head for head in self._heads if CATEGORIES[head.category].side == passage.side]
        # Both are about responses alone.
        own, unlike = _NO_HEADS, None
        if passage.side == "response":
            own, unlike = self._own, self._unfamiliar
        if not heads and not own.heads and unlike is None:
            return []
        text = passage.text[: passage.end]
        judged = self.judge(passage.prompt, text, passage.side, passage.start)
        evidence = [
            (head.category, head.calibration.evidence(float(judged.logits[head.index])))
            for head in heads
        ]
        if unlike is not None:
            value = unlike.evidence(judged.windows, judged.embeddings)
            evidence.append((unfamiliar.CATEGORY, value))
        evidence += own.evidence(judged.embeddings)
        closing = self._closing_evidence(passage, heads)
        return [
            Finding(
                category=category,
                evidence=value,
                start=passage.start,
                end=passage.end,
                detector=self.name,
                version=self.version,
                label=label,
                localised=False,
            )
            for label, found in (("", evidence), (CLOSING, closing))
            for category, value in found
        ]

    def _closing_evidence(self, passage: Passage, heads: Sequence[Head]) -> list[tuple[str, float]]:
        wanted = [head for head in heads if head.pooling.closing]
        if not wanted or not passage.closing.strip():
            return []
        logits = self.closing(passage.prompt, passage.closing)
        if logits is None:
            return []
        return [(h.category, h.calibration.evidence(float(logits[h.index]))) for h in wanted]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of whatever decides the embeddings: what a head belongs to."""
        model = self._model
        marked = " marked" if model.marked else ""
        files = [*sorted(model.graph.parent.glob(f"{model.graph.name}*")), model.tokenizer]
        cut = self._encoder.sizes
        # Embeddings are those of units: what a closing read covers has no part in them.
        sizes = f"Sizes(prompt={cut.prompt}, text={cut.text}, stride={cut.stride})"
        digest = hashlib.sha256(f"{model.pair} {sizes}{marked}".encode())
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def logits(
        self, prompt: str, text: str, side: Side = "response", start: int = 0
    ) -> NDArray[np.float32]:
        """Return the highest logit per label over the windows of a unit; see `judge`."""
        return self.judge(prompt, text, side, start).logits

    def closing(self, prompt: str, text: str) -> NDArray[np.float32] | None:
        """Return the logit per label of a complete answer's end, read as one unit.

        As `judge` reads it, without its format, too.

        `None` for a model that was not made to read so much at once.
        """
        bare = unframed(text)
        texts = [text] if bare is None else [text, bare[0]]
        windows = [self._encoder.encode_closing(prompt, each) for each in texts]
        passes = [self._graph.run(w.ids, w.types).logits for w in windows if w is not None]
        if not passes:
            return None
        scores = np.stack(passes)
        scores = _log_odds(scores) if self._exclusive else scores
        return np.asarray(_highest(scores), np.float32)

    def judge(self, prompt: str, text: str, side: Side = "response", start: int = 0) -> Judged:
        """Return logits and embeddings of a unit, from one pass of the model.

        The unit is `text[start:]`; what stands before it is context. A response that stands in a
        format (`guard.text.frames`) is read without it, too.
        """
        encoded = self._encoder.encode(prompt, text, side, start)
        bare = unframed(text, start) if side == "response" else None
        if bare is not None:
            encoded += self._encoder.encode(prompt, bare[0], side, bare[1])
        passes = [self._graph.run(window.ids, window.types) for window in encoded]
        scores = np.stack([given.logits for given in passes])
        if self._exclusive:
            scores = _log_odds(scores)
        pooled = [given.embedding for given in passes if given.embedding is not None]
        return Judged(
            logits=np.asarray(_highest(scores), np.float32),
            embeddings=np.stack(pooled) if pooled else None,
            windows=tuple(encoded),
        )

    def _check(self, heads: Sequence[OwnHead]) -> None:
        """Refuse heads that say nothing about this model's embeddings."""
        problems = []
        for head in heads:
            if self.categories.count(head.category) > 1:
                problems.append(f"two heads find `{head.category}`: remove one")
            if not self.dimensions:
                problems.append(
                    f"the head `{head.category}` needs embeddings, and `{self.name}` gives none: "
                    f"export the model with an output `{_EMBEDDING}`, or remove the head"
                )
            elif head.model.digest != self.digest or len(head.weights) != self.dimensions:
                problems.append(
                    f"the head `{head.category}` was made for `{head.model.name}` "
                    f"{head.model.version} and not for `{self.name}` {self.version}: make it anew "
                    f"from its examples (`guard model fit --category {head.category}`)"
                )
        if problems:
            raise ModelError(list(dict.fromkeys(problems)))


class _OwnHeads:
    """Heads of own categories, scored side by side."""

    def __init__(self, heads: Sequence[OwnHead] = ()) -> None:
        self.heads = tuple(heads)
        self._weights = np.array([head.weights for head in heads], np.float64)
        self._intercepts = np.array([head.intercept for head in heads], np.float64)

    def evidence(self, embeddings: NDArray[np.float32] | None) -> list[tuple[str, float]]:
        """Return category and evidence of each head; the highest logit over the windows.

        Without embeddings the evidence is NaN, which the engine takes for a failure.
        """
        if not self.heads:
            return []
        if embeddings is None:
            return [(head.category, math.nan) for head in self.heads]
        logits = _highest(embeddings.astype(np.float64) @ self._weights.T + self._intercepts)
        return [
            (head.category, head.calibration.evidence(float(logit)))
            for head, logit in zip(self.heads, logits, strict=True)
        ]


def own_pooling(toll: float) -> Pooling:
    """Return how the units of a category of one's own add up: each for itself, later ones for less.

    Args:
        toll: see `OwnHead.toll`; behind `TOLLED` units it does not grow.
    """
    return Pooling(toll=toll, lone=toll * math.log(TOLLED))


def _highest(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the highest logit over windows, shape (labels,).

    NaN, which the engine takes for a failure, where that of any window is not finite.
    """
    return np.where(np.isfinite(logits).all(axis=0), logits.max(axis=0), np.nan)


_NO_HEADS: Final = _OwnHeads()


@dataclass(frozen=True, slots=True)
class _Pass:
    """What the graph gives for one window: logits (labels,) and embedding (dimensions,)."""

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32] | None


class _Graph:
    """An ONNX graph that turns the tokens of one window into logits, and into an embedding."""

    def __init__(self, path: Path, padding: int) -> None:
        """Load the graph.

        Raises:
            ValueError: the graph is no text classifier's.
        """
        self._session = session(path)
        self._padding = padding
        self._types = {item.name: item.type for item in self._session.get_inputs()}
        foreign = [
            f"`{name}` ({kind})"
            for name, kind in self._types.items()
            if name not in _INPUTS or kind not in _INTEGERS
        ]
        if foreign or "input_ids" not in self._types:
            raise ValueError(f"has inputs that no text classifier has: {', '.join(foreign)}")
        outputs = {item.name: item.shape for item in self._session.get_outputs()}
        self._outputs = ["logits" if "logits" in outputs else next(iter(outputs))]
        # One a window; of another shape it is not pooled.
        if len(outputs.get(_EMBEDDING, ())) == 2 and _EMBEDDING not in self._outputs:
            self._outputs.append(_EMBEDDING)
        self.length = _fixed_length(self._session)
        if self.length is not None and "attention_mask" not in self._types:
            raise ValueError("has inputs of fixed length and no `attention_mask`")

    def run(self, ids: NDArray[np.int64], types: NDArray[np.int64]) -> _Pass:
        """Judge one window."""
        spare = 0 if self.length is None else self.length - len(ids)
        given = {
            "input_ids": np.pad(ids, (0, spare), constant_values=self._padding),
            "attention_mask": np.pad(np.ones_like(ids), (0, spare)),
            "token_type_ids": np.pad(types, (0, spare)),
            "position_ids": np.arange(len(ids) + spare),
        }
        feed = {name: given[name][None].astype(_INTEGERS[t]) for name, t in self._types.items()}
        logits, *rest = self._session.run(self._outputs, feed)
        embedding = np.asarray(rest[0], np.float32).reshape(-1) if rest else None
        return _Pass(np.asarray(logits, np.float32).reshape(-1), embedding)


def _loaded(model: ModelDirectory) -> tuple[_Graph, Encoder]:
    """Load graph and tokenizer; raise with everything that is wrong."""
    problems: list[str] = []
    graph: _Graph | None = None
    encoder: Encoder | None = None
    # Both libraries raise whatever they like on files that they cannot use.
    try:
        graph = _Graph(model.graph, model.padding)
    except Exception as error:  # noqa: BLE001
        problems.append(f"`{model.graph}` cannot be used: {error}")
    try:
        encoder = _encoder(model, None if graph is None else graph.length)
    except Exception as error:  # noqa: BLE001
        problems.append(f"`{model.tokenizer}` cannot be used: {error}")
    if graph is None or encoder is None:
        raise ModelError(problems)
    return graph, encoder


def _try(model: ModelDirectory, graph: _Graph, encoder: Encoder) -> _Pass:
    """Score a word: the graph must take what the encoder gives, and answer for each label."""
    (window, *_) = encoder.encode("", "word")
    try:
        given = graph.run(window.ids, window.types)
    except Exception as error:
        raise ModelError(f"`{model.graph}` fails on a word: {error}") from error
    logits = given.logits
    if logits.shape != (model.labels,):
        text = f"gives {logits.size} scores for a word, and there are {model.labels} labels"
        raise ModelError(f"`{model.graph}` {text}: not a text classifier with these labels")
    if not np.isfinite(logits).all():
        raise ModelError(f"`{model.graph}` gives scores that are no numbers: export it again")
    return given


def _encoder(model: ModelDirectory, fixed: int | None) -> Encoder:
    from tokenizers import Tokenizer  # noqa: PLC0415  # loads a shared library

    tokenizer = Tokenizer.from_file(str(model.tokenizer))
    limits = [model.limit, fixed]
    if model.sizes is None and tokenizer.truncation is not None:
        # What the model was trained on, where nothing says so better.
        limits.append(int(tokenizer.truncation["max_length"]))
    limit = min((limit for limit in limits if limit is not None), default=None)
    return Encoder(tokenizer, pair=model.pair, marked=model.marked, sizes=model.sizes, limit=limit)


def session(graph: Path) -> Any:
    """Return a graph ready to run, as the classifier runs it: one thread, one text a call."""
    import onnxruntime  # noqa: PLC0415  # loads a shared library

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Patterns are kept per length of text, which differs from call to call: memory for nothing.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(
        str(graph),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(_SLOW_FUSIONS),
    )


def _fixed_length(session: Any) -> int | None:
    """Return the number of tokens that a graph demands, `None` for any number."""
    shape = next(item.shape for item in session.get_inputs() if item.name == "input_ids")
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None


def _log_odds(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each label's log-odds against all others; shape (windows, labels)."""
    wide = logits.astype(np.float64)
    labels = range(wide.shape[1])
    others = [np.logaddexp.reduce(np.delete(wide, label, axis=1), axis=1) for label in labels]
    return np.asarray(wide - np.stack(others, axis=1), np.float32)
