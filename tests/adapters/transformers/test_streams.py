"""Streamers, and streams that generate in a thread of their own."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from transformers import AsyncTextIteratorStreamer, TextIteratorStreamer, TextStreamer
from transformers.generation.streamers import BaseStreamer

from guard.errors import InputError
from guard.journal.store import Journal
from tests.adapters.leak_lab import FINE, PROMPT
from tests.adapters.transformers.scripted import Heard, byte_fallback, byte_pairs, new_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard

    Make = Callable[..., Guard]

TOKENIZER = byte_pairs()

LONG = " ".join([FINE] * 8)

BAD = f"{LONG} They zblock well. {LONG}"

INPUT = {"limits": {"to_block": {"act": 0.9}}}

PATIENCE = 60
"""Seconds in which whatever should end has ended, on a slow machine too."""


def asked(tokenizer: Any = TOKENIZER) -> Any:
    """Return what `generate` is given."""
    return tokenizer([PROMPT], return_tensors="pt")


def writers() -> list[threading.Thread]:
    """Return the threads that generate."""
    return [thread for thread in threading.enumerate() if thread.name == "guard-generate"]


def gone() -> bool:
    """Return whether no thread generates any more, before long."""
    end = time.monotonic() + PATIENCE
    while writers() and time.monotonic() < end:
        time.sleep(0.01)
    return not writers()


class TestStreamers:
    """The library's streamers, given to `generate`."""

    @pytest.mark.parametrize("make", [byte_pairs, byte_fallback])
    @pytest.mark.parametrize(
        "options", [{}, {"skip_prompt": True}, {"skip_special_tokens": True}], ids=str
    )
    def test_what_passes_reads_as_it_is(
        self, make_guard: Make, make: Callable[[], Any], options: dict[str, Any]
    ) -> None:
        """The text is the plain one to the last character, with special tokens or without."""
        tokenizer = make()
        model = new_model(tokenizer, f"{FINE} Naïve 🌿🌿 ferns, 日本の羊歯.\n\n{FINE}")
        plain, judged = Heard(tokenizer, **options), Heard(tokenizer, **options)
        ids = model.generate(**asked(tokenizer), streamer=plain)
        guarded = make_guard().wrap(model, tokenizer=tokenizer)
        given = guarded.generate(**asked(tokenizer), streamer=judged)
        assert "".join(judged.heard) == "".join(plain.heard)
        assert judged.ended == plain.ended == 1
        assert given.tolist() == ids.tolist()

    def test_nothing_leaves_before_it_was_judged(self, make_guard: Make) -> None:
        """What stands before the bad unit leaves while the model writes, then the message."""
        model, heard = new_model(TOKENIZER, BAD), Heard(TOKENIZER, skip_prompt=True)
        seen: list[int] = []
        model.before = lambda: seen.append(len("".join(heard.heard)))
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        given = guarded.generate(**asked(), streamer=heard, return_dict_in_generate=True)
        said = "".join(heard.heard)
        assert said == make_guard().check(BAD, prompt=PROMPT).streamed
        assert said.endswith("\n\n[blocked]")
        assert given.texts == [said]
        assert "zblock" not in TOKENIZER.decode(given.sequences[0])
        assert seen[-1] > len(FINE)
        assert heard.ended == 1

    def test_what_is_rewritten_leaves_so(self, make_guard: Make) -> None:
        """A streamer hears the new text, and the ids say the same."""
        heard = Heard(TOKENIZER, skip_prompt=True, skip_special_tokens=True)
        guarded = make_guard().wrap(
            new_model(TOKENIZER, f"{LONG} They zredact well. {FINE}"), tokenizer=TOKENIZER
        )
        given = guarded.generate(**asked(), streamer=heard)
        said = "".join(heard.heard)
        assert said == f"{LONG} They [redacted: to redact] well. {FINE}"
        assert TOKENIZER.decode(given[0], skip_special_tokens=True) == f"{PROMPT}{said}"

    def test_an_iterator_in_another_thread(self, make_guard: Make) -> None:
        """Whoever reads `TextIteratorStreamer` reads what may leave."""
        guarded = make_guard().wrap(new_model(TOKENIZER, BAD), tokenizer=TOKENIZER)
        streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True, timeout=PATIENCE)
        thread = threading.Thread(target=guarded.generate, kwargs={**asked(), "streamer": streamer})
        thread.start()
        said = "".join(streamer)
        thread.join()
        assert said == make_guard().check(BAD, prompt=PROMPT).streamed

    async def test_an_asynchronous_iterator(self, make_guard: Make) -> None:
        """Whoever reads `AsyncTextIteratorStreamer` reads what may leave."""
        guarded = make_guard().wrap(new_model(TOKENIZER, BAD), tokenizer=TOKENIZER)
        streamer = AsyncTextIteratorStreamer(TOKENIZER, skip_prompt=True, timeout=PATIENCE)
        running = asyncio.create_task(
            asyncio.to_thread(guarded.generate, **asked(), streamer=streamer)
        )
        said = "".join([text async for text in streamer])
        await running
        assert said == make_guard().check(BAD, prompt=PROMPT).streamed

    def test_an_error_ends_the_reader_too(self, make_guard: Make) -> None:
        """Nobody waits for ever: not where the model fails, and not where the call is refused."""
        model = new_model(TOKENIZER, LONG)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        streamer = TextIteratorStreamer(TOKENIZER, timeout=PATIENCE)
        with pytest.raises(InputError, match="scores"):
            guarded.generate(**asked(), streamer=streamer, output_scores=True)
        assert list(streamer) == [""]

        def fail() -> None:
            if model.steps > 5:
                raise RuntimeError("out of memory")

        model.before = fail
        streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True, timeout=PATIENCE)
        with pytest.raises(RuntimeError, match="out of memory"):
            guarded.generate(**asked(), streamer=streamer)
        assert list(streamer) == [""]

    def test_a_reader_that_fails_ends_the_generation(
        self, make_guard: Make, tmp_path: Path
    ) -> None:
        """The error is the reader's, and the journal's row says how much had left."""

        class Gone(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: FBT001, FBT002
                del stream_end
                if text:
                    raise ValueError("gone")

        model = new_model(TOKENIZER, f"zflag {BAD}")
        with closing(Journal(tmp_path / "journal.db")) as journal:
            guarded = make_guard(journal=journal).wrap(model, tokenizer=TOKENIZER)
            with pytest.raises(ValueError, match="gone"):
                guarded.generate(**asked(), streamer=Gone(TOKENIZER, skip_prompt=True))
            (row,) = journal.list()
        assert not row.complete
        assert row.released < len(BAD)
        assert model.steps < len(asked()["input_ids"][0]) + len(BAD) / 3

    def test_a_refused_prompt(self, make_guard: Make) -> None:
        """The reader reads the message, and the model is not asked."""
        model, heard = new_model(TOKENIZER, FINE), Heard(TOKENIZER, skip_prompt=True)
        guarded = make_guard(input=INPUT).wrap(model, tokenizer=TOKENIZER)
        guarded.generate(**TOKENIZER(["zblock?"], return_tensors="pt"), streamer=heard)
        assert "".join(heard.heard) == "[blocked]"
        assert not model.steps

    def test_who_hears_token_ids_is_refused(self, make_guard: Make) -> None:
        """Ids that were not judged are given to nobody."""

        class Ids(BaseStreamer):
            def put(self, value: Any) -> None:
                raise AssertionError(value)

        class Both(Heard):
            def put(self, value: Any) -> None:
                raise AssertionError(value)

        model = new_model(TOKENIZER, FINE)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        for streamer in (Ids(), Both(TOKENIZER)):
            with pytest.raises(InputError, match="hears token ids"):
                guarded.generate(**asked(), streamer=streamer)
        assert not model.steps

    @pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_return_sequences": 2}], ids=str)
    def test_one_answer_at_a_time(self, make_guard: Make, options: dict[str, Any]) -> None:
        """Several answers are no stream."""
        guarded = make_guard().wrap(new_model(TOKENIZER, FINE), tokenizer=TOKENIZER)
        options |= {"do_sample": True}
        with pytest.raises(InputError, match="one answer"):
            guarded.generate(**asked(), streamer=Heard(TOKENIZER), **options)
        with pytest.raises(InputError, match="one answer"):
            guarded.stream(**asked(), **options)


class TestStream:
    """`stream`, which generates in a thread."""

    def test_what_passes_reads_as_it_is(self, make_guard: Make) -> None:
        """The pieces make up the text, and the verdict comes behind the end."""
        text = f"{LONG} Naïve 🌿🌿.\n\n{FINE}"
        heard: list[Any] = []
        guarded = make_guard().wrap(
            new_model(TOKENIZER, text), tokenizer=TOKENIZER, on_verdict=heard.append
        )
        stream = guarded.stream(**asked(), timeout=PATIENCE)
        with pytest.raises(InputError, match="no verdict yet"):
            _ = stream.verdict
        pieces = list(stream)
        assert "".join(pieces) == text
        assert len(pieces) > 1
        assert stream.verdict.action == "allow"
        assert heard == [stream.verdict]
        assert gone()

    def test_a_blocked_answer_ends_the_generation(self, make_guard: Make) -> None:
        """What had left stands, then the message; the model stops soon."""
        model = new_model(TOKENIZER, f"{BAD} {LONG * 4}")
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        with guarded.stream(**asked()) as stream:
            said = "".join(stream)
        assert said == make_guard().check(f"{BAD} {LONG}", prompt=PROMPT).streamed
        assert stream.verdict.action == "block"
        assert gone()

    def test_a_reader_that_leaves_ends_the_generation(
        self, make_guard: Make, tmp_path: Path
    ) -> None:
        """By closing; the thread is gone, the journal's row is closed."""
        model = new_model(TOKENIZER, f"zflag {LONG * 4}")
        with closing(Journal(tmp_path / "journal.db")) as journal:
            guarded = make_guard(journal=journal).wrap(model, tokenizer=TOKENIZER)
            with closing(guarded.stream(**asked())) as stream:
                next(stream)
            assert gone()
            (row,) = journal.list()
        assert not row.complete
        assert model.steps < model.generation_config.max_new_tokens

    def test_a_stream_that_is_forgotten_ends_too(self, make_guard: Make) -> None:
        """Nothing keeps it but its reader."""
        guarded = make_guard().wrap(new_model(TOKENIZER, LONG * 4), tokenizer=TOKENIZER)
        stream = guarded.stream(**asked())
        next(stream)
        gc.disable()
        try:
            del stream
            assert gone()
        finally:
            gc.enable()

    def test_a_stream_that_is_not_read_asks_nothing(self, make_guard: Make) -> None:
        """The model is asked with the first reading."""
        model = new_model(TOKENIZER, FINE)
        make_guard().wrap(model, tokenizer=TOKENIZER).stream(**asked()).close()
        assert not model.steps
        assert gone()

    def test_waiting_has_an_end(self, make_guard: Make) -> None:
        """A model that hangs is waited for as long as the reader says, and then ends."""
        model, waiting = new_model(TOKENIZER, FINE), threading.Event()
        model.before = lambda: waiting.wait(PATIENCE)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        try:
            with pytest.raises(TimeoutError, match=r"nothing for 0.05 seconds"):
                list(guarded.stream(**asked(), timeout=0.05))
        finally:
            waiting.set()
        assert gone()
        assert model.steps == 1

    def test_a_model_that_fails(self, make_guard: Make) -> None:
        """Its error is raised where the text is read, and nothing unjudged came before it."""
        model = new_model(TOKENIZER, "They zblock well.")

        def fail() -> None:
            if model.steps > 8:
                raise RuntimeError("out of memory")

        model.before = fail
        stream = make_guard().wrap(model, tokenizer=TOKENIZER).stream(**asked())
        said: list[str] = []
        with pytest.raises(RuntimeError, match="out of memory"):
            said.extend(stream)
        assert "zblock" not in "".join(said)
        assert gone()

    def test_a_refused_prompt(self, make_guard: Make) -> None:
        """The reader reads the message, and the model is not asked."""
        model = new_model(TOKENIZER, FINE)
        guarded = make_guard(input=INPUT).wrap(model, tokenizer=TOKENIZER)
        stream = guarded.stream(**TOKENIZER(["zblock?"], return_tensors="pt"))
        assert list(stream) == ["[blocked]"]
        assert stream.verdict.action == "block"
        assert not model.steps

    def test_a_stream_has_one_reader(self, make_guard: Make) -> None:
        """A streamer beside it would be a second one."""
        guarded = make_guard().wrap(new_model(TOKENIZER, FINE), tokenizer=TOKENIZER)
        with pytest.raises(InputError, match="leave out `streamer`"):
            guarded.stream(**asked(), streamer=Heard(TOKENIZER))


class TestAsyncStream:
    """`astream`, the same without blocking the event loop."""

    async def test_it_reads_as_the_plain_one(self, make_guard: Make) -> None:
        """What passes as it is, what is blocked with the message in its place."""
        for text in (LONG, BAD):
            heard: list[Any] = []
            guarded = make_guard().wrap(
                new_model(TOKENIZER, text), tokenizer=TOKENIZER, on_verdict=heard.append
            )
            async with guarded.astream(**asked(), timeout=PATIENCE) as stream:
                said = "".join([piece async for piece in stream])
            assert said == make_guard().check(text, prompt=PROMPT).streamed
            assert heard == [stream.verdict]
        assert gone()

    async def test_a_reader_that_leaves_ends_the_generation(self, make_guard: Make) -> None:
        """The thread is gone once the stream is closed."""
        guarded = make_guard().wrap(new_model(TOKENIZER, LONG * 4), tokenizer=TOKENIZER)
        async with aclosing(guarded.astream(**asked())) as stream:
            await anext(stream)
        assert gone()

    async def test_waiting_has_an_end(self, make_guard: Make) -> None:
        """As for the plain one."""
        model, waiting = new_model(TOKENIZER, FINE), threading.Event()
        model.before = lambda: waiting.wait(PATIENCE)
        guarded = make_guard().wrap(model, tokenizer=TOKENIZER)
        try:
            with pytest.raises(TimeoutError, match=r"nothing for 0.05 seconds"):
                await anext(guarded.astream(**asked(), timeout=0.05))
        finally:
            waiting.set()
        assert gone()

    async def test_a_model_that_fails(self, make_guard: Make) -> None:
        """Its error is raised where the text is read."""
        model = new_model(TOKENIZER, FINE)

        def fail() -> None:
            raise RuntimeError("out of memory")

        model.before = fail
        stream = make_guard().wrap(model, tokenizer=TOKENIZER).astream(**asked())
        with pytest.raises(RuntimeError, match="out of memory"):
            await anext(stream)
        assert gone()

    async def test_a_refused_prompt(self, make_guard: Make) -> None:
        """The reader reads the message, and the model is not asked."""
        model = new_model(TOKENIZER, FINE)
        guarded = make_guard(input=INPUT).wrap(model, tokenizer=TOKENIZER)
        stream = guarded.astream(**TOKENIZER(["zblock?"], return_tensors="pt"))
        assert [piece async for piece in stream] == ["[blocked]"]
        assert stream.verdict.action == "block"
        assert not model.steps

    def test_a_loop_that_is_closed_leaves_no_thread(self, make_guard: Make) -> None:
        """A reader whose loop ends is a reader that has left."""
        guarded = make_guard().wrap(new_model(TOKENIZER, LONG * 4), tokenizer=TOKENIZER)

        async def read() -> str:
            return await anext(guarded.astream(**asked()))

        assert asyncio.run(read())
        assert gone()
