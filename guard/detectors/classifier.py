"""The classifier: ONNX Runtime and `tokenizers`, one encoder, one pass, one score a category.

Reads a directory in the Hugging Face layout (`guard.detectors.model_directory`), so that any
exported text classifier drops in.

One text a call and one thread a session: on a CPU a batch gains nothing, and with dynamic
int8 scales a text's score would depend on its neighbours. Threads share the session.

This module does not know security classes, priors, or how text was cut into passages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.categories import CATEGORIES
from guard.detectors import model_directory
from guard.detectors.base import Finding
from guard.encoding import Encoder
from guard.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from guard.categories import Side
    from guard.detectors.base import Passage
    from guard.detectors.model_directory import ModelDirectory

_SLOW_FUSIONS: Final = ("SkipLayerNormFusion",)
"""Graph optimisations whose fused kernel is slow for int8 graphs on CPUs; scores are the same."""

_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_INTEGERS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Classifier:
    """A text classifier as a detector; safe to share between threads.

    Args:
        directory: the model's directory.
        labels: category of each label, for models whose labels are called otherwise; labels
            that are left out are not used. By default labels are categories.
        verify: whether a manifest is demanded and every hash checked. Switch it off only for
            a model of your own that you have not sealed yet.
        name: the detector's name, the directory's by default.

    Raises:
        ModelError: everything that is wrong with the directory.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        labels: Mapping[str, str] | None = None,
        verify: bool = True,
        name: str | None = None,
    ) -> None:
        """Check the files, load tokenizer and graph, and try them on a word."""
        path = Path(directory)
        model = model_directory.read(path, labels, verify=verify)
        self.name = name or path.name or path.resolve().name
        self.version = model.version
        self.categories = tuple(dict.fromkeys(head.category for head in model.heads))
        self.experimental: Mapping[str, str] = model.experimental
        self._heads = model.heads
        self._exclusive = model.exclusive
        self._graph, self._encoder = _loaded(model)

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return one finding per label of the passage's side, over the whole unit.

        The model reads left context and unit, never the look-ahead. Where they fill several
        windows, the highest logit counts.
        """
        heads = [head for head in self._heads if CATEGORIES[head.category].side == passage.side]
        if not heads:
            return []
        logits = self.logits(passage.prompt, passage.text[: passage.end], passage.side)
        return [
            Finding(
                category=head.category,
                evidence=head.calibration.evidence(float(logits[head.index])),
                start=passage.start,
                end=passage.end,
                detector=self.name,
                version=self.version,
                localised=False,
            )
            for head in heads
        ]

    def logits(self, prompt: str, text: str, side: Side = "response") -> NDArray[np.float32]:
        """Return the highest logit per label over the windows of `text`, shape (labels,).

        For a model with exclusive labels (softmax) a label's logit is its log-odds.
        """
        encoded = self._encoder.encode(prompt, text, side)
        scores = np.stack([self._run(window.ids, window.types) for window in encoded])
        if self._exclusive:
            scores = _log_odds(scores)
        # `max` keeps NaN, which the engine takes for a failure.
        return np.asarray(scores.max(axis=0), np.float32)

    def _run(self, ids: NDArray[np.int64], types: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._graph.run(ids, types)


class _Graph:
    """An ONNX graph that turns the tokens of one window into logits."""

    def __init__(self, path: Path, padding: int) -> None:
        """Load the graph.

        Raises:
            ValueError: the graph is no text classifier's.
        """
        self._session = _session(path)
        self._padding = padding
        self._types = {item.name: item.type for item in self._session.get_inputs()}
        foreign = [
            f"`{name}` ({kind})"
            for name, kind in self._types.items()
            if name not in _INPUTS or kind not in _INTEGERS
        ]
        if foreign or "input_ids" not in self._types:
            raise ValueError(f"has inputs that no text classifier has: {', '.join(foreign)}")
        outputs = [item.name for item in self._session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]
        self.length = _fixed_length(self._session)
        if self.length is not None and "attention_mask" not in self._types:
            raise ValueError("has inputs of fixed length and no `attention_mask`")

    def run(self, ids: NDArray[np.int64], types: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the logits of one window, shape (labels,)."""
        spare = 0 if self.length is None else self.length - len(ids)
        given = {
            "input_ids": np.pad(ids, (0, spare), constant_values=self._padding),
            "attention_mask": np.pad(np.ones_like(ids), (0, spare)),
            "token_type_ids": np.pad(types, (0, spare)),
            "position_ids": np.arange(len(ids) + spare),
        }
        feed = {name: given[name][None].astype(_INTEGERS[t]) for name, t in self._types.items()}
        (logits,) = self._session.run([self._output], feed)
        return np.asarray(logits, np.float32).reshape(-1)


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
    _try(model, graph, encoder)
    return graph, encoder


def _try(model: ModelDirectory, graph: _Graph, encoder: Encoder) -> None:
    """Score a word: the graph must take what the encoder gives, and answer for each label."""
    (window, *_) = encoder.encode("", "word")
    try:
        logits = graph.run(window.ids, window.types)
    except Exception as error:
        raise ModelError(f"`{model.graph}` fails on a word: {error}") from error
    if logits.shape != (model.labels,):
        text = f"gives {logits.size} scores for a word, and there are {model.labels} labels"
        raise ModelError(f"`{model.graph}` {text}: not a text classifier with these labels")
    if not np.isfinite(logits).all():
        raise ModelError(f"`{model.graph}` gives scores that are no numbers: export it again")


def _encoder(model: ModelDirectory, fixed: int | None) -> Encoder:
    from tokenizers import Tokenizer  # noqa: PLC0415  # loads a shared library

    tokenizer = Tokenizer.from_file(str(model.tokenizer))
    limits = [model.limit, fixed]
    if model.sizes is None and tokenizer.truncation is not None:
        # What the model was trained on, where nothing says so better.
        limits.append(int(tokenizer.truncation["max_length"]))
    limit = min((limit for limit in limits if limit is not None), default=None)
    return Encoder(tokenizer, pair=model.pair, sizes=model.sizes, limit=limit)


def _session(graph: Path) -> Any:
    import onnxruntime  # noqa: PLC0415  # loads a shared library

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
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
