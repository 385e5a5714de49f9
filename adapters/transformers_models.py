"""A language model whose `generate` gives what may leave, in the place of the one that it guards.

It is the same model, with the same weights and settings, in another class. What tells of words
before they are judged is refused: its own forward pass, scores, hidden states, caches.

This module does not know how a call is judged (`guard.adapters.transformers_calls`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from transformers import GenerationMixin
from transformers.utils.generic import ModelOutput

from guard.adapters.transformers_calls import Call, Guarding, Watch
from guard.adapters.transformers_streams import (
    AsyncTextStream,
    TextStream,
    Told,
    ended_on_error,
)
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from guard.adapters.transformers_calls import Options, Rows
    from guard.verdict import Verdict

_SIGNATURE: Final = inspect.signature(GenerationMixin.generate)

_OURS: Final = ("asked", "on_verdict")
"""Options of a guarded `generate` that the library's does not have."""


@dataclass
class GuardedGenerateOutput(ModelOutput):
    """What a guarded `generate` gives with `return_dict_in_generate`.

    Attributes:
        sequences: the prompts and what was delivered behind each, as token ids.
        texts: what was delivered, a text per row.
        verdicts: the decision on each row.
    """

    sequences: torch.Tensor | None = None
    texts: list[str] | None = None
    verdicts: list[Verdict] | None = None


class GuardedModel:
    """What a guarded model does otherwise; mixed into the class of the model."""

    _guarding: Guarding
    _inner: Any

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Have the model write, and return what may leave.

        Args:
            args: as the library's `generate` takes them.
            kwargs: as the library's; and `asked`, what each prompt asks, as a text or as a list of
                messages (by default its ids are read), and `on_verdict`, called with the verdict
                on each row.

        Returns:
            The prompts and what was delivered behind each, as token ids; with
            `return_dict_in_generate` a `GuardedGenerateOutput`, which holds texts and verdicts too.

        Raises:
            InputError: what is asked for cannot be guarded; the message says what can.
        """
        with ended_on_error(kwargs.get("streamer")):
            return _generated(self._call(args, kwargs))

    def stream(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> TextStream:
        """Have the model write in a thread of its own; iterate over what may leave.

        Args:
            args: as `generate` takes them, for one prompt and one answer.
            timeout: seconds to wait for more of the text, `None` for as long as it takes;
                `TimeoutError` is raised behind them, and the generation ends.
            kwargs: as `generate` takes them.

        Raises:
            InputError: as `generate`, and where there is not one answer.
        """
        return TextStream(self._read(args, kwargs), timeout)

    def astream(
        self,
        *args: Any,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> AsyncTextStream:
        """As `stream`, without blocking the event loop."""
        return AsyncTextStream(self._read(args, kwargs), timeout)

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: logits tell words that nobody judged."""
        raise InputError("a guarded model shows no logits: ask it by `generate` or `stream`")

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse, as `__call__`."""
        self()

    def generate_batch(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: continuous batching hands out ids as they come."""
        raise InputError("continuous batching cannot be guarded: ask by `generate`")

    init_continuous_batching = generate_batch
    continuous_batching_context_manager = generate_batch

    def _read(self, args: Sequence[Any], kwargs: Options) -> Call:
        """Return a call whose answer is streamed."""
        call = self._call(args, kwargs)
        if call.options.get("streamer") is not None:
            raise InputError("a stream has its reader: leave out `streamer`")
        return _lone(call)

    def _call(self, args: Sequence[Any], kwargs: Options) -> Call:
        ours = {name: kwargs.pop(name) for name in _OURS if name in kwargs}
        options = dict(_SIGNATURE.bind(self, *args, **kwargs).arguments)
        del options["self"]
        options |= options.pop("kwargs", {})
        guarding = self._guarding
        if ours.get("on_verdict") is not None:
            guarding = replace(guarding, on_verdict=ours["on_verdict"])
        return Call(guarding, self._inner, options, ours.get("asked"))


def guarded_model(guarding: Guarding, model: Any) -> Any:
    """Return a model of the same class that shares all that the model is, and is guarded."""
    kind = type(model)
    told: Options = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    told |= {"_guarding": guarding, "_inner": model}
    twin: Any = object.__new__(type(kind.__name__, (GuardedModel, kind), told))
    # One dictionary for both, so that weights and settings are the same ones, now and later.
    object.__setattr__(twin, "__dict__", model.__dict__)
    return twin


def _lone(call: Call) -> Call:
    """Return a call that has one answer."""
    if len(call.prompts) * call.answers != 1 or call.beams:
        raise InputError(
            "a stream is of one answer: give one prompt, without beams or `num_return_sequences`"
        )
    return call


def _generated(call: Call) -> Any:
    streamer = call.options.pop("streamer", None)
    if streamer is None:
        return _given(call, call.rows(call.refusals()))
    told, reading = Told(streamer), _lone(call).reading(0)
    refusals = call.refusals()
    told.prompt(reading)
    given = _given(call, call.rows(refusals, told.read, told.say))
    if refusals[0] is not None:
        told.say(refusals[0].message)
    told.end()
    return given


def _given(call: Call, rows: Rows) -> Any:
    """Return what `generate` gives."""
    try:
        sequences = _judged(call, rows)
    finally:
        for row in rows:
            row.abandon()
    verdicts = [row.verdict for row in rows]
    if (tell := call.guarding.on_verdict) is not None:
        for verdict in verdicts:
            tell(verdict)
    if call.setting("return_dict_in_generate"):
        return GuardedGenerateOutput(sequences, [row.text for row in rows], verdicts)
    return sequences


def _judged(call: Call, rows: Rows) -> torch.Tensor:
    """Have the model write, and every row judged; return the ids of what may leave."""
    if all(row.stopped for row in rows):
        return call.padded(
            [[*ids, *row.ids] for ids, row in zip(call.repeated(), rows, strict=True)]
        )
    watch = () if call.beams else (Watch(rows, call.start),)
    sequences = call.generate(*watch)
    written = sequences.tolist()
    kept: list[list[int]] = []
    for row, ids in zip(rows, written, strict=True):
        answer = ids[call.start :]
        row.finish(answer)
        kept.append([*ids[: call.start], *row.ids])
    return sequences if kept == written else call.padded(kept)
