"""The scripted backend: a fake that streams, pauses and dies as its script says."""

from __future__ import annotations

import pytest

from guard.errors import InputError
from guard.exchange import ToolCall
from guard.scripted import ScriptedAnswer, ScriptedBackend, UpstreamError

HELLO = ScriptedAnswer("Hi.", "Hello there, and\n welcome. ", system="Be kind.")


class TestBackend:
    """Answers by prompt."""

    def test_streams_the_text_in_small_pieces(self) -> None:
        """Joined pieces are the text, white space included, and none is long."""
        pieces = list(ScriptedBackend([HELLO]).stream("Hi."))
        assert "".join(pieces) == HELLO.text
        assert max(map(len, pieces)) <= 8

    async def test_streams_asynchronously(self) -> None:
        """The asynchronous stream brings the same pieces."""
        backend = ScriptedBackend([HELLO])
        assert [p async for p in backend.astream("Hi.")] == list(backend.stream("Hi."))

    def test_dies_where_the_script_says(self) -> None:
        """After so many pieces the connection is gone."""
        backend = ScriptedBackend([ScriptedAnswer("Hi.", "one two three", fails_after=2)])
        stream = backend.stream("Hi.")
        assert [next(stream), next(stream)] == ["one", " two"]
        with pytest.raises(UpstreamError):
            next(stream)

    def test_knows_only_its_script(self) -> None:
        """An unknown prompt and a prompt answered twice are errors."""
        with pytest.raises(InputError, match="no answer"):
            ScriptedBackend([HELLO]).answer("Who?")
        with pytest.raises(InputError, match="twice"):
            ScriptedBackend([HELLO, HELLO])

    def test_gives_the_whole_exchange(self) -> None:
        """Messages, reasoning and tool calls are all in the exchange."""
        call = ToolCall("look_up", "{}")
        answer = ScriptedAnswer(
            "Hi.", "Yes.", system="Be kind.", reasoning="Hm.", tool_calls=(call,)
        )
        exchange = answer.exchange()
        assert (exchange.prompt, exchange.system) == ("Hi.", "Be kind.")
        assert (exchange.choices[0].reasoning, exchange.choices[0].tool_calls) == ("Hm.", (call,))
