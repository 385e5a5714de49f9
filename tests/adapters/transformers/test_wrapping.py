"""What `guard.wrap` makes of things of transformers, and the adapter's own manners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from transformers import (
    FeatureExtractionPipeline,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    T5Config,
    T5ForConditionalGeneration,
    pipeline,
)

from guard.errors import InputError
from guard.wrapping import ADAPTERS
from tests.adapters.leak_lab import FINE, run_example
from tests.adapters.missing_extra import error_without, loaded_with
from tests.adapters.transformers.scripted import byte_pairs, new_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

    Make = Callable[..., Guard]

TOKENIZER = byte_pairs()

TINY = GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1)


class Own(GPT2LMHeadModel):
    """A model with a `generate` of its own."""

    def generate(self, *_: Any, **__: Any) -> Any:
        """Give nothing."""


class TestWrapping:
    """What can be wrapped, and what to do with what cannot."""

    def test_a_model_needs_its_tokenizer(self, make_guard: Make) -> None:
        """The error holds the call that mends it."""
        with pytest.raises(InputError, match=r"guard\.wrap\(model, tokenizer=tokenizer\)"):
            make_guard().wrap(new_model(TOKENIZER, FINE))

    def test_a_pipeline_has_its_tokenizer(self, make_guard: Make) -> None:
        """A second one is refused."""
        plain = pipeline("text-generation", model=new_model(TOKENIZER, FINE), tokenizer=TOKENIZER)
        with pytest.raises(InputError, match="leave out `tokenizer`"):
            make_guard().wrap(plain, tokenizer=TOKENIZER)

    @pytest.mark.parametrize(
        ("target", "reason"),
        [
            (lambda: GPT2Model(TINY), "no language model that generates"),
            (lambda: Own(TINY), "only causal language models"),
            (
                lambda: T5ForConditionalGeneration(
                    T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=1)
                ),
                "only causal language models",
            ),
            (
                lambda: pipeline("feature-extraction", model=GPT2Model(TINY), tokenizer=TOKENIZER),
                "only text-generation pipelines",
            ),
            (lambda: TOKENIZER, "no language model"),
        ],
        ids=["encoder", "own generate", "encoder and decoder", "features", "tokenizer"],
    )
    def test_what_cannot_be_guarded(
        self, make_guard: Make, target: Callable[[], Any], reason: str
    ) -> None:
        """Whatever is no causal language model says so."""
        made = target()
        options = {} if isinstance(made, FeatureExtractionPipeline) else {"tokenizer": TOKENIZER}
        with pytest.raises(InputError, match=reason):
            make_guard().wrap(made, **options)

    def test_nothing_is_guarded_twice(self, make_guard: Make) -> None:
        """Not a model, not a pipeline, and not a pipeline of a guarded model."""
        guard = make_guard()
        model = guard.wrap(new_model(TOKENIZER, FINE), tokenizer=TOKENIZER)
        with pytest.raises(InputError, match="guarded already"):
            guard.wrap(model, tokenizer=TOKENIZER)
        pipe = pipeline("text-generation", model=model, tokenizer=TOKENIZER)
        assert pipe("Elsewhere?", return_full_text=False) == [{"generated_text": FINE}]
        with pytest.raises(InputError, match="model is guarded already"):
            guard.wrap(pipe)
        with pytest.raises(InputError, match="guarded already"):
            guard.wrap(
                guard.wrap(
                    pipeline(
                        "text-generation", model=new_model(TOKENIZER, FINE), tokenizer=TOKENIZER
                    )
                )
            )

    def test_it_is_known_by_its_package(self) -> None:
        """`guard.wrap` finds the adapter without importing the library."""
        assert ADAPTERS["transformers"] == "guard.adapters.transformers"


class TestManners:
    """What every adapter does."""

    def test_no_other_framework_is_loaded(self) -> None:
        """Who uses one framework does not pay for another."""
        assert loaded_with("transformers") == ""

    @pytest.mark.parametrize("package", ["torch", "transformers"])
    def test_a_missing_extra_is_named(self, package: str) -> None:
        """The error holds the command that mends it."""
        said = error_without(package, "transformers")
        assert said.startswith(f"`{package}` is not installed")
        assert "pip install 'clearance-guard[transformers]'" in said

    def test_the_example_runs(
        self, backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The documentation's example answers, twice."""
        ran = run_example("transformers_generate", backend, monkeypatch, tmp_path)
        assert ran["given"].verdicts[0].coverage.complete
        assert ran["stream"].verdict.coverage.complete
