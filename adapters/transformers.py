"""Transformers, guarded: a language model, or a text-generation pipeline, in the place of another.

    from guard import Guard

    pipe = Guard.load("public").wrap(pipe)                       # a text-generation pipeline
    model = Guard.load("public").wrap(model, tokenizer=tokenizer)

What comes back is of the same class. `generate` gives the ids of what may leave: of an answer that
passes those that the model wrote, of any other those of the text that is delivered in its place.
A row of a batch that is withheld ends early, the others go on. Streamers hear texts that were
judged; `stream` and `astream` generate in a thread and end it when their reader leaves. An answer
is never asked for anew here: the class's `regenerate` counts as `replace`.

Logits processors and stopping criteria of the caller's are parts of the model: they see what it
writes. This module does not know how a text is judged or held back (`guard.adapters`,
`transformers_calls` and below).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from guard.errors import InputError, MissingExtraError

try:
    import torch  # noqa: F401  # without it the library loads, and has no models
    from transformers import GenerationMixin, Pipeline, PreTrainedModel, TextGenerationPipeline
except ImportError as error:
    raise MissingExtraError(error.name or "transformers", "transformers") from error

from guard.adapters.transformers_calls import Guarding
from guard.adapters.transformers_models import GuardedModel, guarded_model
from guard.adapters.transformers_pipelines import GuardedPipeline, guarded_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard
    from guard.verdict import Verdict

_Target = TypeVar("_Target")


def wrap(
    guard: Guard,
    target: _Target,
    *,
    tokenizer: Any = None,
    on_verdict: Callable[[Verdict], object] | None = None,
) -> _Target:
    """Return a model or a pipeline of the same class that gives what may leave.

    Args:
        guard: judges.
        target: a causal language model, or a text-generation pipeline.
        tokenizer: the model's; a pipeline has its own.
        on_verdict: called with the verdict on every answer that was seen to its end.

    Raises:
        InputError: it cannot be guarded, or is guarded already; the message says what can.
    """
    if isinstance(target, GuardedModel | GuardedPipeline):
        raise InputError("it is guarded already")
    if not isinstance(target, Pipeline):
        guarded: _Target = guarded_model(
            Guarding(guard, _tokenizer_of(target, tokenizer), on_verdict), _causal(target)
        )
        return guarded
    if not isinstance(target, TextGenerationPipeline):
        raise InputError(
            f"`{type(target).__name__}` cannot be guarded, only text-generation pipelines: put "
            "`guard.protect` around what calls it"
        )
    if tokenizer is not None:
        raise InputError("a pipeline has its tokenizer: leave out `tokenizer`")
    if isinstance(target.model, GuardedModel):
        raise InputError("the pipeline's model is guarded already: wrap one of both")
    _causal(target.model)
    own = _tokenizer_of(target.model, target.tokenizer)
    pipeline: _Target = guarded_pipeline(Guarding(guard, own, on_verdict), target)
    return pipeline


def _causal(model: Any) -> Any:
    """Return a model that can be guarded."""
    kind = type(model)
    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        raise InputError(
            f"`{kind.__name__}` is no language model that generates: wrap that, or a pipeline"
        )
    if model.config.is_encoder_decoder or kind.generate is not GenerationMixin.generate:
        raise InputError(
            f"`{kind.__name__}` cannot be guarded, only causal language models with the library's "
            "`generate`: put `guard.protect` around what calls it"
        )
    return model


def _tokenizer_of(model: Any, tokenizer: Any) -> Any:
    if tokenizer is None:
        raise InputError(
            f"`{type(model).__name__}` needs its tokenizer, so that its answers can be read: "
            "`guard.wrap(model, tokenizer=tokenizer)`"
        )
    return tokenizer
