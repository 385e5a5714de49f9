"""A text-generation pipeline whose records say what may leave.

It asks a guarded model (`guard.adapters.transformers_models`), and tells it what was asked: a text,
or the messages of a conversation. A record of an answer that was not delivered as it came says
why, under `guard`.

This module does not know how a call is judged (`guard.adapters.transformers_calls`).
"""

# ruff: noqa: SLF001  # what the pipelines of the library override and call

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.utils.chat_template_utils import Chat

from guard.adapters.transformers_models import guarded_model
from guard.wire.detail import detail

if TYPE_CHECKING:
    from guard.adapters.transformers_calls import Guarding, Options
    from guard.adapters.transformers_streams import AsyncTextStream, TextStream
    from guard.verdict import Verdict


class GuardedPipeline:
    """What a guarded pipeline does otherwise; mixed into the class of the pipeline."""

    _guarding: Guarding
    model: Any

    def stream(
        self, text_inputs: Any, *, timeout: float | None = None, **kwargs: Any
    ) -> TextStream:
        """Have the model write in a thread of its own; iterate over what may leave.

        Args:
            text_inputs: one prompt, as a text or as a list of messages.
            timeout: seconds to wait for more of the text, `None` for as long as it takes;
                `TimeoutError` is raised behind them, and the generation ends.
            kwargs: as the pipeline takes them.
        """
        options = self._prepared(text_inputs, kwargs)
        stream: TextStream = self.model.stream(timeout=timeout, **options)
        return stream

    def astream(
        self,
        text_inputs: Any,
        *,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> AsyncTextStream:
        """As `stream`, without blocking the event loop."""
        options = self._prepared(text_inputs, kwargs)
        stream: AsyncTextStream = self.model.astream(timeout=timeout, **options)
        return stream

    def _forward(self, model_inputs: Any, **generate_kwargs: Any) -> Any:
        """Have the guarded model write, and remember its decisions."""
        said = model_inputs["prompt_text"]
        asked = [_asked(each) for each in (said if isinstance(said, list) else [said])]
        verdicts: list[Verdict] = []
        tell = self._guarding.on_verdict

        def hear(verdict: Verdict) -> None:
            verdicts.append(verdict)
            if tell is not None:
                tell(verdict)

        pipeline: Any = super()
        given = pipeline._forward(model_inputs, **generate_kwargs, asked=asked, on_verdict=hear)
        each = len(verdicts) // len(asked)
        given["verdicts"] = [verdicts[at : at + each] for at in range(0, len(verdicts), each)]
        return given

    def postprocess(self, model_outputs: Any, **postprocess_parameters: Any) -> Any:
        """Make records of what may leave, and note where that is not what came."""
        verdicts = model_outputs.pop("verdicts")
        # Of a batch, a list; of a single input, a list of one list.
        verdicts = verdicts[0] if isinstance(verdicts[0], list) else verdicts
        pipeline: Any = super()
        records = pipeline.postprocess(model_outputs, **postprocess_parameters)
        for record, verdict in zip(records, verdicts, strict=True):
            if verdict.action != "allow" and not verdict.shadow:
                record["guard"] = detail(verdict)
        return records

    def _prepared(self, text_inputs: Any, kwargs: Options) -> Options:
        """Return what the model is given for one input."""
        chat: Any = Chat
        said = chat(text_inputs) if isinstance(text_inputs, list | tuple) else text_inputs
        pipeline: Any = self
        before, given, _ = pipeline._sanitize_parameters(**kwargs)
        inputs = pipeline.preprocess(said, **pipeline._preprocess_params | before)
        options: Options = pipeline._prepare_generate_kwargs(pipeline._forward_params | given)
        options.pop("prefix_length", None)
        tensors = ("input_ids", "attention_mask")
        moved = {name: inputs[name].to(pipeline.device) for name in tensors if name in inputs}
        return options | {"asked": [_asked(said)]} | moved


def _asked(said: Any) -> Any:
    """Return what one input asks, as a text or as messages."""
    return said.messages if isinstance(said, Chat) else said


def guarded_pipeline(guarding: Guarding, pipeline: Any) -> Any:
    """Return a copy of a pipeline, of the same class, that asks its model guarded."""
    kind = type(pipeline)
    told = {"__module__": kind.__module__, "__doc__": kind.__doc__, "_guarding": guarding}
    twin: Any = object.__new__(type(kind.__name__, (GuardedPipeline, kind), told))
    twin.__dict__.update(vars(pipeline), model=guarded_model(guarding, pipeline.model))
    return twin
