"""The leak matrix of transformers: every way to read what a model wrote, beside the plain one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from transformers import AsyncTextIteratorStreamer, TextIteratorStreamer, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from tests.adapters.leak_lab import PROMPT, Answers, Lab, Way
from tests.adapters.leak_matrix import Row, check
from tests.adapters.transformers.scripted import Heard, byte_pairs, new_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.engine import Guard

TOKENIZER = byte_pairs()

CHAT = [{"role": "user", "content": PROMPT}]

NOTE = """\
A causal language model and a text-generation pipeline, each in the place of another. Scores,
logits, hidden states and caches, which tell of words that were withheld, are refused."""


@dataclass(frozen=True)
class Subject:
    """A model and a pipeline, both plain or both guarded."""

    model: Any
    pipe: Any

    def generate(self, **options: Any) -> Any:
        """Return what the model generates."""
        return self.model.generate(**asked(PROMPT), **options)


def build(answers: Answers, guard: Guard | None) -> Subject:
    """Return a subject whose model writes the answer's text."""
    model = new_model(TOKENIZER, answers[0].content)
    pipe = pipeline("text-generation", model=model, tokenizer=TOKENIZER, device="cpu")
    if guard is None:
        return Subject(model, pipe)
    return Subject(guard.wrap(model, tokenizer=TOKENIZER), guard.wrap(pipe))


def asked(*prompts: str) -> Any:
    """Return what `generate` is given."""
    return TOKENIZER(list(prompts), return_tensors="pt", padding=True)


def read(ids: Any) -> list[str]:
    """Return what rows of ids say, with special tokens and without."""
    return [*TOKENIZER.batch_decode(ids), *TOKENIZER.batch_decode(ids, skip_special_tokens=True)]


LAB = Lab("Transformers", build)


@LAB.way("`generate`, token ids", "text")
async def _generate(subject: Subject) -> Any:
    return read(subject.generate())


@LAB.way("`generate`, dictionary", "text")
async def _dictionary(subject: Subject) -> Any:
    given = subject.generate(return_dict_in_generate=True)
    start = asked(PROMPT)["input_ids"].shape[1]
    plain = TOKENIZER.batch_decode(given.sequences[:, start:], skip_special_tokens=True)
    return read(given.sequences), getattr(given, "texts", plain)


@LAB.way("`generate`, batch", "text")
async def _batch(subject: Subject) -> Any:
    return read(subject.model.generate(**asked(PROMPT, "Elsewhere?")))


@LAB.way("`generate`, several answers by sampling", "text")
async def _sampling(subject: Subject) -> Any:
    return read(subject.generate(do_sample=True, num_return_sequences=2))


@LAB.way("`generate`, beams", "text")
async def _beams(subject: Subject) -> Any:
    return read(subject.generate(num_beams=2))


@LAB.way("`generate`, assisted", "text")
async def _assisted(subject: Subject) -> Any:
    return read(subject.generate(prompt_lookup_num_tokens=3))


@LAB.way("`generate`, `TextStreamer` and token ids", "text")
async def _streamer(subject: Subject) -> Any:
    heard = Heard(TOKENIZER)
    ids = subject.generate(streamer=heard)
    return "".join(heard.heard), read(ids)


@LAB.way("`generate`, `TextIteratorStreamer`", "text")
async def _iterator(subject: Subject) -> Any:
    streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True)
    ids = await asyncio.to_thread(subject.generate, streamer=streamer)
    return "".join(streamer), read(ids)


@LAB.way("`generate`, `AsyncTextIteratorStreamer`", "text")
async def _async_iterator(subject: Subject) -> Any:
    streamer = AsyncTextIteratorStreamer(TOKENIZER)
    running = asyncio.create_task(asyncio.to_thread(subject.generate, streamer=streamer))
    said = "".join([text async for text in streamer])
    return said, read(await running)


@LAB.way("`stream`; plain: `TextIteratorStreamer`", "text")
async def _stream(subject: Subject) -> Any:
    if hasattr(subject.model, "stream"):
        said = await asyncio.to_thread(lambda: "".join(subject.model.stream(**asked(PROMPT))))
        return said, "".join(subject.pipe.stream(CHAT))
    streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True, skip_special_tokens=True)
    await asyncio.to_thread(subject.generate, streamer=streamer)
    return ("".join(streamer),) * 2


@LAB.way("`astream`; plain: `AsyncTextIteratorStreamer`", "text")
async def _astream(subject: Subject) -> Any:
    if hasattr(subject.model, "astream"):
        return "".join([text async for text in subject.model.astream(**asked(PROMPT))])
    streamer = AsyncTextIteratorStreamer(TOKENIZER, skip_prompt=True, skip_special_tokens=True)
    running = asyncio.create_task(asyncio.to_thread(subject.generate, streamer=streamer))
    said = "".join([text async for text in streamer])
    await running
    return said


@LAB.way("pipeline: text", "text")
async def _text(subject: Subject) -> Any:
    return subject.pipe(PROMPT), subject.pipe(PROMPT, return_full_text=False)


@LAB.way("pipeline: text with special tokens", "text")
async def _special(subject: Subject) -> Any:
    return subject.pipe(PROMPT, skip_special_tokens=False)


@LAB.way("pipeline: list, in batches", "text")
async def _list(subject: Subject) -> Any:
    return subject.pipe([PROMPT, "Elsewhere?", PROMPT], batch_size=2)


@LAB.way("pipeline: conversations", "text")
async def _chat(subject: Subject) -> Any:
    return subject.pipe(CHAT), subject.pipe([CHAT, CHAT])


@LAB.way("pipeline: generator", "text")
async def _generator(subject: Subject) -> Any:
    def prompts() -> Iterator[str]:
        yield from (PROMPT, "Elsewhere?")

    return list(subject.pipe(prompts()))


@LAB.way("pipeline: dataset", "text")
async def _dataset(subject: Subject) -> Any:
    rows: Any = [{"asked": PROMPT}, {"asked": "Elsewhere?"}]
    dataset: Any = KeyDataset(rows, "asked")
    return list(subject.pipe(dataset, batch_size=2))


@LAB.way("pipeline: several answers", "text")
async def _several(subject: Subject) -> Any:
    return subject.pipe(PROMPT, num_return_sequences=2, do_sample=True)


@LAB.way("pipeline: token ids", "text")
async def _ids(subject: Subject) -> Any:
    given = subject.pipe(PROMPT, return_tensors=True)
    return read([record["generated_token_ids"] for record in given])


@LAB.way("pipeline: streamer", "text")
async def _pipeline_streamer(subject: Subject) -> Any:
    heard = Heard(TOKENIZER, skip_prompt=True)
    records = subject.pipe(CHAT, streamer=heard)
    return "".join(heard.heard), records


@LAB.way("pipeline: its parts, one by one", "text")
async def _parts(subject: Subject) -> Any:
    outputs = subject.pipe.forward(subject.pipe.preprocess(PROMPT))
    ids = read(outputs["generated_sequence"][0])
    return ids, subject.pipe.postprocess(outputs), subject.pipe.transform(PROMPT)


@pytest.fixture(scope="module")
def measured() -> dict[str, Row]:
    """Return the rows that were measured by now."""
    return {}


@pytest.mark.parametrize("way", LAB.ways, ids=lambda way: way.name)
async def test_nothing_leaks(
    way: Way, make_guard: Callable[..., Guard], measured: dict[str, Row]
) -> None:
    """What is blocked is read nowhere, what is rewritten only so, and all else as it is."""
    measured[way.name] = await LAB.measure(way, make_guard())
    assert measured[way.name].leaks == []


async def test_the_page_is_current(
    make_guard: Callable[..., Guard], measured: dict[str, Row]
) -> None:
    """The published table is what is measured."""
    for way in LAB.ways:
        if way.name not in measured:
            measured[way.name] = await LAB.measure(way, make_guard())
    check(LAB.title, NOTE, [measured[way.name] for way in LAB.ways])
