"""`generate` of a guarded language model of transformers."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    GPT2LMHeadModel,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from guard.errors import InputError
from guard.journal.store import Journal
from tests.adapters.leak_lab import FINE, PROMPT
from tests.adapters.transformers.scripted import (
    byte_fallback,
    byte_pairs,
    finished,
    new_model,
    word_pieces,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.detectors.base import Finding, Passage
    from guard.engine import Guard

    Make = Callable[..., Guard]

TOKENIZER = byte_pairs()

BAD = f"{FINE} They zblock well. {FINE} {FINE} {FINE}"

INPUT = {"limits": {"to_block": {"act": 0.9}}}

MENDED = f"{FINE} They zredact well. {FINE}"


def asked(*prompts: str, tokenizer: Any = TOKENIZER) -> Any:
    """Return what `generate` is given for prompts."""
    return tokenizer(list(prompts or (PROMPT,)), return_tensors="pt", padding=True)


def texts(given: Any, start: int = 0, tokenizer: Any = TOKENIZER) -> list[str]:
    """Return what ids say, from a column on."""
    said: list[str] = tokenizer.batch_decode(given[:, start:], skip_special_tokens=True)
    return said


class TestDelivery:
    """What comes back."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"do_sample": True, "num_return_sequences": 2},
            {"num_beams": 2, "num_return_sequences": 2},
            {"prompt_lookup_num_tokens": 3},
            {"max_new_tokens": 7},
            {"eos_token_id": None, "max_new_tokens": 30},
        ],
        ids=str,
    )
    def test_what_passes_comes_as_it_is(self, make_guard: Make, options: dict[str, Any]) -> None:
        """The ids are those of the plain model, to the last one."""
        model = new_model(TOKENIZER, f"{FINE} {FINE} Né 🌿.")
        plain = model.generate(**asked(), **options)
        given = make_guard().wrap(model, tokenizer=TOKENIZER).generate(**asked(), **options)
        assert type(given) is type(plain)
        assert given.tolist() == plain.tolist()

    def test_random_words_come_as_they_are(self, make_guard: Make) -> None:
        """Ids that are no sensible text, of a batch, drawn by chance, are the plain model's."""
        model = new_model(TOKENIZER, FINE)
        model.forward = partial(GPT2LMHeadModel.forward, model)
        options = asked(PROMPT, "Ivy?") | {"do_sample": True, "max_new_tokens": 60}
        torch.manual_seed(3)
        plain = model.generate(**options)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        torch.manual_seed(3)
        assert guarded.generate(**options).tolist() == plain.tolist()

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"do_sample": True, "num_return_sequences": 2},
            {"num_beams": 2},
            {"prompt_lookup_num_tokens": 3},
            {"eos_token_id": None},
        ],
        ids=str,
    )
    def test_a_blocked_answer_is_the_message(
        self, make_guard: Make, options: dict[str, Any]
    ) -> None:
        """The prompt stays, and behind it stands the class's message alone, in every mode."""
        guarded = make_guard().wrap(new_model(TOKENIZER, BAD), tokenizer=TOKENIZER)
        given = guarded.generate(**asked(), **options, max_new_tokens=120)
        assert set(texts(given)) == {f"{PROMPT}[blocked]"}

    def test_a_rewritten_answer_is_the_new_text(self, make_guard: Make) -> None:
        """The ids are those of the text that may leave."""
        guarded = make_guard().wrap(new_model(TOKENIZER, MENDED), tokenizer=TOKENIZER)
        (said,) = texts(guarded.generate(**asked()))
        assert said == f"{PROMPT}{FINE} They [redacted: to redact] well. {FINE}"

    def test_the_message_of_a_replacement(self, make_guard: Make) -> None:
        """An answer that is replaced is delivered as that message."""
        guarded = make_guard().wrap(new_model(TOKENIZER, "I zreplace."), tokenizer=TOKENIZER)
        assert texts(guarded.generate(**asked())) == [f"{PROMPT}[replaced]"]

    def test_a_dictionary_tells_texts_and_verdicts(self, make_guard: Make) -> None:
        """With `return_dict_in_generate` each row's text and decision stand beside the ids."""
        scripts = {"shade": BAD, "wall": MENDED, "": FINE}
        heard: list[Any] = []
        guarded = make_guard().wrap(
            new_model(TOKENIZER, scripts), tokenizer=TOKENIZER, on_verdict=heard.append
        )
        prompts = asked(PROMPT, "By the wall?", "Elsewhere?")
        given = guarded.generate(**prompts, return_dict_in_generate=True)
        start = prompts["input_ids"].shape[1]
        assert given.texts == texts(given.sequences, start)
        assert given.texts[0] == "[blocked]"
        assert given.texts[2] == FINE
        assert [verdict.action for verdict in given.verdicts] == ["block", "rewrite", "allow"]
        assert heard == given.verdicts
        assert "zblock" not in repr((given.sequences, given.texts))

    def test_in_shadow_all_comes_as_it_is(self, make_guard: Make) -> None:
        """A class in shadow mode changes nothing, and says what it would have done."""
        model = new_model(TOKENIZER, BAD)
        guarded = make_guard(shadow=True).wrap(model, tokenizer=TOKENIZER)
        given = guarded.generate(**asked(), return_dict_in_generate=True)
        assert given.sequences.tolist() == model.generate(**asked()).tolist()
        assert given.verdicts[0].intended == "block"

    def test_no_prompt_at_all(self, make_guard: Make) -> None:
        """A model that begins by itself is judged, too."""
        model = new_model(TOKENIZER, BAD)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        assert texts(guarded.generate()) == ["[blocked]"]


class TestRows:
    """Rows of a batch."""

    def test_a_withheld_row_ends_early_and_others_go_on(self, make_guard: Make) -> None:
        """The model is asked until the last row that is wanted has ended."""
        model = new_model(TOKENIZER, {"shade": BAD * 8, "": f"{FINE} {FINE}"})
        prompts = asked(PROMPT, "Elsewhere?")
        plain = model.generate(**prompts)
        steps, model.steps = model.steps, 0
        given = make_guard().wrap(model, tokenizer=TOKENIZER).generate(**prompts)
        start = prompts["input_ids"].shape[1]
        assert texts(given, start) == ["[blocked]", texts(plain, start)[1]]
        assert model.steps < steps / 4

    def test_rows_are_exchanges_of_their_own(self, make_guard: Make, tmp_path: Path) -> None:
        """The journal has a row for each that was not allowed."""
        scripts = {"shade": BAD, "wall": MENDED, "": FINE}
        with closing(Journal(tmp_path / "journal.db")) as journal:
            guard = make_guard(journal=journal)
            guarded = guard.wrap(new_model(TOKENIZER, scripts), tokenizer=TOKENIZER)
            guarded.generate(**asked(PROMPT, "By the wall?", "Elsewhere?"))
            rows = sorted(journal.list(), key=lambda row: row.action)
        assert [row.action for row in rows] == ["block", "rewrite"]
        assert all(row.complete for row in rows)
        assert [row.prompt for row in rows] == [PROMPT, "By the wall?"]

    def test_the_callers_criteria_count_too(self, make_guard: Make) -> None:
        """A row ends by whoever ends it first."""

        class Third(StoppingCriteria):
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                del scores
                return torch.full((len(input_ids),), input_ids.shape[1] >= 12)

        model = new_model(TOKENIZER, f"{FINE} {FINE}")
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        given = guarded.generate(**asked(), stopping_criteria=StoppingCriteriaList([Third()]))
        assert given.shape[1] == 12

    def test_rows_need_a_token_to_fill_up_with(self, make_guard: Make) -> None:
        """Where there is none, the error says so before anything is generated."""
        model = new_model(TOKENIZER, FINE)
        model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
        bare = byte_pairs()
        bare.pad_token = bare.eos_token = None
        guarded = make_guard().wrap(model, tokenizer=bare)
        with pytest.raises(InputError, match="set `pad_token_id`"):
            guarded.generate(**asked(PROMPT, PROMPT))
        assert not model.steps


class TestReadings:
    """Whatever token ids may be read as was judged."""

    def test_special_tokens_hide_nothing(self, make_guard: Make) -> None:
        """A word with a special token inside is the word to whoever leaves that out."""
        pad = TOKENIZER.pad_token_id
        first, second = (
            TOKENIZER(t, add_special_tokens=False)["input_ids"] for t in ("zb", "lock")
        )
        ids = [*first, pad, *second, TOKENIZER.eos_token_id]
        guarded = make_guard().wrap(new_model(TOKENIZER, {"": ids}), tokenizer=TOKENIZER)
        assert texts(guarded.generate(**asked())) == [f"{PROMPT}[blocked]"]

    def test_special_tokens_say_nothing_unjudged(self, make_guard: Make) -> None:
        """A special token may be named anything, and a reader may show it."""
        inner = byte_pairs().backend_tokenizer
        tokenizer = finished(inner, "<|zblock|>")
        model = new_model(tokenizer, {"": tokenizer.encode("A <|zblock|> B")[:-1]})
        guarded = make_guard().wrap(model, tokenizer=tokenizer)
        given = guarded.generate(**asked(tokenizer=tokenizer), return_dict_in_generate=True)
        assert "zblock" not in tokenizer.decode(given.sequences[0])
        assert given.texts == ["[blocked]"]

    def test_special_tokens_that_pass_stay(self, make_guard: Make) -> None:
        """Whoever reads tool calls out of special tokens still can."""
        tokenizer = finished(byte_pairs().backend_tokenizer, "<|call|>")
        model = new_model(tokenizer, {"": tokenizer.encode("One <|call|>ferns")[:-1]})
        plain = model.generate(**asked(tokenizer=tokenizer))
        given = make_guard().wrap(model, tokenizer=tokenizer).generate(**asked(tokenizer=tokenizer))
        assert given.tolist() == plain.tolist()

    def test_a_word_that_begins_in_the_prompt(self, make_guard: Make) -> None:
        """Readers of the whole text join what was asked and what was written."""
        guarded = make_guard().wrap(new_model(TOKENIZER, "lock well."), tokenizer=TOKENIZER)
        assert texts(guarded.generate(**asked("They zb"))) == ["They zb[blocked]"]
        assert texts(guarded.generate(**asked("They zb "))) == ["They zb lock well."]

    def test_a_word_in_the_prompt_alone_is_no_answer(self, make_guard: Make) -> None:
        """What was asked is not judged as if it were answered."""
        guarded = make_guard().wrap(new_model(TOKENIZER, FINE), tokenizer=TOKENIZER)
        assert texts(guarded.generate(**asked("Who will zblock"))) == [f"Who will zblock{FINE}"]

    def test_pieces_that_join_behind_the_prompt(self, make_guard: Make) -> None:
        """A piece that reads as `##lock` by itself is the end of a word behind another."""
        tokenizer = word_pieces()
        scripts = {"": tokenizer.convert_tokens_to_ids(["zb", "##lock", "here"])}
        guarded = make_guard().wrap(new_model(tokenizer, scripts), tokenizer=tokenizer)
        prompt = {"input_ids": torch.tensor([tokenizer.convert_tokens_to_ids(["<|ask|>", "zb"])])}
        (said,) = texts(guarded.generate(**prompt), tokenizer=tokenizer)
        assert "zblock" not in said
        assert "here" not in said

    def test_a_tokenizer_that_cannot_spell_the_text(self, make_guard: Make) -> None:
        """What its ids are read as was judged again, or is not delivered."""
        tokenizer = word_pieces()
        # Without the word between, and the stop that it cannot spell, the rest is another word.
        scripts = {"": tokenizer.convert_tokens_to_ids(["zb", "##s", "grow", "zb", "##lock"])}
        guarded = make_guard().wrap(new_model(tokenizer, scripts), tokenizer=tokenizer)
        given = guarded.generate(**asked("here?", tokenizer=tokenizer))
        assert texts(given, tokenizer=tokenizer) == ["here? [ blocked ]"]

    def test_a_text_that_drops_its_first_space(self, make_guard: Make) -> None:
        """A tokenizer as Llama's reads an answer otherwise alone than behind its prompt."""
        tokenizer = byte_fallback()
        model = new_model(tokenizer, {"wall": "in the shade", "": "They zblock in the shade."})
        guarded = make_guard().wrap(model, tokenizer=tokenizer)
        options = asked("By the wall?", "In the shade?", tokenizer=tokenizer)
        given = guarded.generate(**options, return_dict_in_generate=True)
        assert texts(given.sequences, tokenizer=tokenizer) == [
            "By the wall? in the shade",
            "In the shade? [blocked]",
        ]


class TestInput:
    """What a model is given, by a class that judges it."""

    def test_a_refused_prompt_is_not_asked(self, make_guard: Make) -> None:
        """The model is not asked at all, and the message stands in the answer's place."""
        model = new_model(TOKENIZER, FINE)
        guard = make_guard(input=INPUT)
        given = guard.wrap(model, tokenizer=TOKENIZER).generate(
            **asked("What will zblock?", "zblock"), num_return_sequences=2
        )
        assert texts(given) == [*["What will zblock?[blocked]"] * 2, *["zblock[blocked]"] * 2]
        assert not model.steps

    def test_others_of_the_batch_are_answered(self, make_guard: Make) -> None:
        """Only the row that must not be asked is not."""
        model = new_model(TOKENIZER, FINE)
        guard = make_guard(input=INPUT)
        options = asked("What will zblock?", PROMPT)
        given = guard.wrap(model, tokenizer=TOKENIZER).generate(
            **options, return_dict_in_generate=True
        )
        assert given.texts == ["[blocked]", FINE]
        assert [verdict.action for verdict in given.verdicts] == ["block", "allow"]

    def test_what_is_asked_may_be_told(self, make_guard: Make) -> None:
        """Messages say more than the ids of a template: who speaks, and what is new."""
        model = new_model(TOKENIZER, FINE)
        guard = make_guard(input=INPUT)
        guarded = guard.wrap(model, tokenizer=TOKENIZER)
        old = [{"role": "user", "content": "zblock"}, {"role": "assistant", "content": "No."}]
        new = [{"role": "user", "content": PROMPT}]
        template = TOKENIZER.apply_chat_template(
            old + new, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        given = guarded.generate(**template, asked=[old + new], return_dict_in_generate=True)
        assert given.texts == [FINE]
        for wrong in ([old + new] * 2, [3]):
            with pytest.raises(InputError, match="asked"):
                guarded.generate(**template, asked=wrong)


class _Ends(LogitsProcessor):
    """Fails after some tokens."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if input_ids.shape[1] > 90:
            raise RuntimeError("out of memory")
        return scores


class TestFailures:
    """What goes wrong lets nothing pass."""

    def test_a_detector_that_fails_blocks(self, make_guard: Make) -> None:
        """Nobody judged it, so that it does not leave."""

        class Failing:
            name, version, categories = "failing", "1", ("to_block",)

            def __call__(self, passage: Passage) -> list[Finding]:
                raise ValueError(passage.text[:3])

        guarded = make_guard(Failing(), limits={"to_block": {"act": 0.9}}).wrap(
            new_model(TOKENIZER, FINE), tokenizer=TOKENIZER
        )
        assert texts(guarded.generate(**asked())) == [f"{PROMPT}[blocked]"]

    def test_a_model_that_fails_gives_nothing(self, make_guard: Make, tmp_path: Path) -> None:
        """The error is the caller's; nothing had left, so that there is no row."""
        model = new_model(TOKENIZER, f"zflag {FINE} {FINE} {FINE} {FINE} {FINE}")
        with closing(Journal(tmp_path / "journal.db")) as journal:
            guarded = make_guard(journal=journal).wrap(model, tokenizer=TOKENIZER)
            with pytest.raises(RuntimeError, match="out of memory"):
                guarded.generate(**asked(), logits_processor=LogitsProcessorList([_Ends()]))
            assert list(journal.list()) == []


class TestRefusals:
    """What cannot be guarded says so."""

    @pytest.mark.parametrize(
        "options",
        [
            {"output_scores": True},
            {"output_logits": True},
            {"output_attentions": True},
            {"output_hidden_states": True},
            {"generation_config": GenerationConfig(output_scores=True)},
            {"custom_generate": lambda *_, **__: None},
            {"trust_remote_code": True},
            {"inputs_embeds": torch.zeros(1, 2, 8)},
            {"cache": DynamicCache()},
            {"past_key_values": DynamicCache()},
            {"cache_implementation": "paged"},
            {"token_healing": True},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_options(self, make_guard: Make, options: dict[str, Any]) -> None:
        """What would tell withheld words, or cannot be judged, is refused before it is asked."""
        model = new_model(TOKENIZER, FINE)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        with pytest.raises(InputError, match="cannot be guarded"):
            guarded.generate(**asked(), **options)
        assert not model.steps

    def test_configured_options_count(self, make_guard: Make) -> None:
        """It makes no difference where an option is set."""
        model = new_model(TOKENIZER, FINE)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        guarded.generation_config.output_scores = True
        with pytest.raises(InputError, match="scores"):
            guarded.generate(**asked())

    def test_the_forward_pass(self, make_guard: Make) -> None:
        """Logits of a guarded model are shown to nobody, and batches are not run beside it."""
        guarded = make_guard().wrap(new_model(TOKENIZER, FINE), tokenizer=TOKENIZER)
        for ask in (guarded, guarded.forward):
            with pytest.raises(InputError, match="no logits"):
                ask(**asked())
        with pytest.raises(InputError, match="continuous batching"):
            guarded.generate_batch([[1, 2]])
        with pytest.raises(InputError, match="continuous batching"):
            guarded.init_continuous_batching()


class TestModel:
    """The guarded model is the model."""

    def test_it_shares_all_that_the_model_is(self, make_guard: Make) -> None:
        """Weights and settings are the same ones, and the plain model stays plain."""
        model = new_model(TOKENIZER, BAD)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        assert isinstance(guarded, type(model))
        assert type(guarded).__name__ == type(model).__name__
        assert guarded.lm_head.weight is model.lm_head.weight
        guarded.generation_config = GenerationConfig(max_new_tokens=3, pad_token_id=0)
        assert model.generation_config.max_new_tokens == 3
        assert guarded.train().training
        assert model.training
        assert guarded.device == model.device
        assert guarded.eval() is guarded
        assert "zblock" in new_and_plain(model)


def new_and_plain(model: Any) -> str:
    """Return what a plain model says."""
    return texts(model.generate(**asked(), max_new_tokens=80))[0]
