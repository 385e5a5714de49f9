"""Text-generation pipelines of transformers, guarded."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from transformers import TextGenerationPipeline, TextIteratorStreamer, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from guard.errors import InputError
from tests.adapters.leak_lab import FINE, PROMPT
from tests.adapters.transformers.scripted import Heard, byte_pairs, new_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from guard.engine import Guard

    Make = Callable[..., Guard]

TOKENIZER = byte_pairs()

BAD = f"{FINE} They zblock well. {FINE} {FINE} {FINE}"

SCRIPTS = {"shade": BAD, "wall": f"They zredact well. {FINE}", "": f"{FINE} Naïve 🌿."}

PROMPTS = (PROMPT, "By the wall?", "Elsewhere?")

MENDED = f"They [redacted: to redact] well. {FINE}"

CHAT = [
    {"role": "system", "content": "You know plants."},
    {"role": "user", "content": PROMPT},
]

INPUT = {"limits": {"to_block": {"act": 0.9}}}


def new_pipeline(scripts: Mapping[str, str] | str, **options: Any) -> Any:
    """Return a pipeline whose model writes what is scripted."""
    model = new_model(TOKENIZER, scripts)
    return pipeline("text-generation", model=model, tokenizer=TOKENIZER, device="cpu", **options)


def said(records: Any) -> list[str]:
    """Return the texts of records."""
    return [record["generated_text"] for record in records]


class TestForms:
    """What a pipeline is given, and gives."""

    @pytest.mark.parametrize(
        ("inputs", "options"),
        [
            ("Elsewhere?", {}),
            ("Elsewhere?", {"return_full_text": False}),
            ("Elsewhere?", {"skip_special_tokens": False}),
            ("Elsewhere?", {"return_tensors": True}),
            ("Elsewhere?", {"num_return_sequences": 2, "do_sample": True}),
            ("Elsewhere?", {"num_beams": 2}),
            ("Elsewhere?", {"stop_sequence": "thank"}),
            ("Elsewhere?", {"return_dict_in_generate": True}),
            (["Elsewhere?", "Or here?"], {}),
            (["Elsewhere?", "Or even over here?"], {"batch_size": 2}),
            ([{"role": "user", "content": "Elsewhere?"}], {}),
            ([[{"role": "user", "content": "Elsewhere?"}]] * 2, {"batch_size": 2}),
            (
                [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here"}],
                {},
            ),
        ],
        ids=str,
    )
    def test_what_passes_comes_as_it_is(
        self, make_guard: Make, inputs: Any, options: dict[str, Any]
    ) -> None:
        """Records are the plain pipeline's, whatever is given and wanted."""
        plain = new_pipeline(SCRIPTS)
        guarded = make_guard().wrap(plain)
        assert isinstance(guarded, TextGenerationPipeline)
        assert guarded(inputs, **options) == plain(inputs, **options)

    def test_texts(self, make_guard: Make) -> None:
        """A text gives records, with the prompt or without; a record says why it is another."""
        guarded = make_guard().wrap(new_pipeline(SCRIPTS))
        (record,) = guarded(PROMPT)
        assert record["generated_text"] == f"{PROMPT}[blocked]"
        assert record["guard"]["action"] == "block"
        assert "zblock" not in repr(record)
        assert said(guarded(PROMPT, return_full_text=False)) == ["[blocked]"]
        (record,) = guarded("By the wall?", return_full_text=False)
        assert record["generated_text"] == MENDED
        assert record["guard"]["action"] == "rewrite"

    @pytest.mark.parametrize("batch_size", [1, 2, 3])
    def test_lists(self, make_guard: Make, batch_size: int) -> None:
        """Each input has its own answers, in batches too."""
        guarded = make_guard().wrap(new_pipeline(SCRIPTS))
        options = {"num_return_sequences": 2, "do_sample": True, "return_full_text": False}
        given = guarded(list(PROMPTS), batch_size=batch_size, **options)
        assert list(map(said, given)) == [["[blocked]"] * 2, [MENDED] * 2, [SCRIPTS[""]] * 2]
        assert [["guard" in record for record in records] for records in given] == [
            [True] * 2,
            [True] * 2,
            [False] * 2,
        ]

    def test_what_streams_in(self, make_guard: Make) -> None:
        """Generators and datasets are read as they come."""
        guarded = make_guard().wrap(new_pipeline(SCRIPTS))

        def prompts() -> Iterator[str]:
            yield from PROMPTS

        wanted = ["[blocked]", MENDED, SCRIPTS[""]]
        given = guarded(prompts(), return_full_text=False)
        assert [text for records in given for text in said(records)] == wanted
        rows: Any = [{"asked": prompt} for prompt in PROMPTS]
        dataset: Any = KeyDataset(rows, "asked")
        given = guarded(dataset, batch_size=2, return_full_text=False)
        assert [text for records in given for text in said(records)] == wanted

    def test_conversations(self, make_guard: Make) -> None:
        """The answer is a message behind the conversation."""
        guarded = make_guard().wrap(new_pipeline(SCRIPTS))
        (record,) = guarded(CHAT)
        assert record["generated_text"] == [*CHAT, {"role": "assistant", "content": "[blocked]"}]
        assert said(guarded(CHAT, return_full_text=False)) == ["[blocked]"]

    def test_an_answer_that_was_begun(self, make_guard: Make) -> None:
        """A word that begins in the conversation and ends in the answer counts."""
        guarded = make_guard().wrap(new_pipeline({"": "lock well."}))
        begun = [*CHAT, {"role": "assistant", "content": "They zb"}]
        (record,) = guarded(begun)
        assert record["generated_text"][-1]["content"] == "They zb[blocked]"
        (record,) = guarded(CHAT)
        assert record["generated_text"][-1]["content"] == "lock well."

    def test_ids(self, make_guard: Make) -> None:
        """Token ids are those of what was delivered."""
        guarded = make_guard().wrap(new_pipeline(SCRIPTS))
        (record,) = guarded(PROMPT, return_tensors=True)
        text = TOKENIZER.decode(record["generated_token_ids"], skip_special_tokens=True)
        assert text == f"{PROMPT}[blocked]"

    def test_other_ways_to_call(self, make_guard: Make) -> None:
        """The parts of a pipeline, called one by one, give the same."""
        guarded = make_guard().wrap(new_pipeline(SCRIPTS, max_new_tokens=80))
        wanted = [f"{PROMPT}[blocked]"]
        assert said(guarded.transform(PROMPT)) == said(guarded.predict(PROMPT)) == wanted
        assert said(guarded.run_single(PROMPT, {}, {}, {})) == wanted
        outputs = guarded.forward(guarded.preprocess(PROMPT))
        assert "zblock" not in TOKENIZER.decode(outputs["generated_sequence"][0][0])
        assert said(guarded.postprocess(outputs)) == wanted

    def test_a_streamer(self, make_guard: Make) -> None:
        """It hears what may leave."""
        guarded = make_guard().wrap(new_pipeline(SCRIPTS))
        heard = Heard(TOKENIZER, skip_prompt=True)
        (record,) = guarded(PROMPT, streamer=heard, return_full_text=False)
        assert "".join(heard.heard) == record["generated_text"] == "[blocked]"
        streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True, timeout=60)
        thread = threading.Thread(target=guarded, args=(CHAT,), kwargs={"streamer": streamer})
        thread.start()
        assert "".join(streamer) == "[blocked]"
        thread.join()


class TestStream:
    """`stream` and `astream` of a pipeline."""

    @pytest.mark.parametrize("inputs", ["Elsewhere?", "", CHAT], ids=["text", "nothing", "chat"])
    async def test_they_read_as_a_call(self, make_guard: Make, inputs: Any) -> None:
        """The text is that of the records."""
        plain = new_pipeline(SCRIPTS | {"shade": FINE})
        guarded = make_guard().wrap(plain)
        (wanted,) = said(plain(inputs, return_full_text=False))
        assert "".join(guarded.stream(inputs, timeout=60)) == wanted
        pieces = [piece async for piece in guarded.astream(inputs, timeout=60)]
        assert "".join(pieces) == wanted

    def test_what_is_blocked(self, make_guard: Make) -> None:
        """The message stands in the answer's place."""
        guarded = make_guard().wrap(new_pipeline(SCRIPTS))
        with guarded.stream(CHAT, max_new_tokens=100) as stream:
            assert "".join(stream) == "[blocked]"
        assert stream.verdict.action == "block"


class TestInput:
    """What is asked, where the class judges it."""

    def test_only_what_is_new_is_judged(self, make_guard: Make) -> None:
        """The messages are known as such: what was answered before is not judged again."""
        heard: list[Any] = []
        guarded = make_guard(input=INPUT).wrap(new_pipeline({"": FINE}), on_verdict=heard.append)
        old = [{"role": "user", "content": "zblock"}, {"role": "assistant", "content": "No."}]
        new = [{"role": "user", "content": [{"type": "text", "text": "zblock"}]}]
        asked = [{"role": "user", "content": "Elsewhere?"}]
        assert said(guarded(old + asked, return_full_text=False)) == [FINE]
        assert said(guarded(new, return_full_text=False)) == ["[blocked]"]
        assert [verdict.action for verdict in heard] == ["allow", "block"]

    def test_a_system_prompt_is_known(self, make_pack_guard: Make, protected: str) -> None:
        """Whoever repeats it repeats what must not be repeated."""
        guarded = make_pack_guard().wrap(new_pipeline({"": protected}))
        chat = [{"role": "system", "content": protected}, {"role": "user", "content": PROMPT}]
        (record,) = guarded(chat, return_full_text=False)
        assert protected not in record["generated_text"]


class TestTwin:
    """The guarded pipeline beside the plain one."""

    def test_the_plain_one_stays_plain(self, make_guard: Make) -> None:
        """And the model inside the guarded one is guarded by itself."""
        plain = new_pipeline(SCRIPTS)
        guarded = make_guard().wrap(plain)
        assert "zblock" in said(plain(PROMPT))[0]
        assert type(guarded).__name__ == "TextGenerationPipeline"
        with pytest.raises(InputError, match="no logits"):
            guarded.model(**TOKENIZER(PROMPT, return_tensors="pt"))
