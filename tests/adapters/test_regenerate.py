"""The remedy `regenerate`: the backend is asked again, in every format, whole and as a stream."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest

from guard.exchange import Choice, ToolCall
from guard.journal.store import Journal
from guard.server.scripted import Delivery, Failure, Reply
from tests.adapters.shared import FORMS, LONG, PROMPT, VENDOR_OF, Side, answer, told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.detectors.base import Detector
    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

    Wrapped = Callable[..., Side]

INSTRUCTION: Final = "Answer anew, and say nothing of the sort."
LIMITS: Final = {
    "to_regenerate": {"flag": 0.5, "act": 0.9, "remedy": "regenerate"},
    "to_block": {"flag": 0.5, "act": 0.9, "remedy": "block"},
}
BAD: Final = "Say zregenerate now."
USAGE: Final = {
    "chat": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    "responses": {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    },
    "messages": {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 1},
}

forms = pytest.mark.parametrize("form", FORMS)
both = pytest.mark.parametrize("mode", ["json", "stream"])


@pytest.fixture
def wrapped(
    new_client: Callable[..., Any],
    make_guard: Callable[..., Guard],
    word_detector: Callable[..., Detector],
) -> Wrapped:
    """Return the maker of clients whose class has the backend asked again."""

    def make(form: str, *, journal: Any = None, options: Any = None, **regenerate: Any) -> Side:
        settings = {"attempts": 2, "seconds": 30.0, "instruction": INSTRUCTION} | regenerate
        guard = make_guard(
            word_detector(words=("regenerate", "block")),
            limits=LIMITS,
            regenerate=settings,
            journal=journal,
        )
        client = new_client(VENDOR_OF[form], **(options or {}))
        return Side(guard.wrap(client))

    return make


def said(text: str, form: str) -> Reply:
    """Return a reply with a known usage."""
    return Reply((Choice(text),), {"usage": USAGE[form]})


class TestAskedAgain:
    """A bad answer, then a good one."""

    @both
    @forms
    async def test_the_good_one_is_delivered(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """Nothing of the first answer leaves, everything of the second does."""
        backend.script(PROMPT, BAD, f"{LONG}Fine.")
        given = await answer(wrapped(form), form, mode=mode)
        assert told(given, form) == f"{LONG}Fine."
        assert "zregenerate" not in given.model_dump_json(warnings=False)
        assert len(backend.requests) == 2
        assert backend.open_requests == 0

    @both
    @forms
    async def test_the_instruction_is_sent(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """The second request is the first one with the class's instruction, and no more."""
        backend.script(PROMPT, BAD, "Fine.")
        await answer(wrapped(form), form, mode=mode, extra_body={"own": 1})
        first, second = (request.json() for request in backend.requests)
        assert INSTRUCTION not in json.dumps(first)
        assert json.dumps(second).count(INSTRUCTION) == 1
        changed = {key for key in second if first.get(key) != second[key]}
        assert changed == {{"chat": "messages", "responses": "input"}.get(form, "system")}
        headers = [dict(request.headers) for request in backend.requests]
        for each in headers:
            del each["content-length"]
        assert headers[0] == headers[1]

    @forms
    async def test_usage_is_added(self, wrapped: Wrapped, backend: ScriptedApp, form: str) -> None:
        """A whole answer says what all attempts cost together, count by count."""
        backend.script(PROMPT, said(BAD, form), said(BAD, form), said("Fine.", form))
        given = await answer(wrapped(form), form)
        usage = given.usage.model_dump(exclude_unset=True)

        def thrice(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: thrice(inner) for key, inner in value.items()}
            return 3 * value

        assert usage == thrice(USAGE[form])

    @both
    @forms
    async def test_a_good_answer_is_not_asked_for_again(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """A class with the remedy leaves good answers alone."""
        backend.script(PROMPT, f"{LONG}Fine.")
        assert told(await answer(wrapped(form), form, mode=mode), form) == f"{LONG}Fine."
        assert len(backend.requests) == 1

    @both
    @forms
    async def test_reasoning(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """A bad reasoning has the backend asked again just so."""
        backend.script(PROMPT, Choice("Ferns.", reasoning=BAD), "Fine.")
        given = await answer(wrapped(form), form, mode=mode)
        assert told(given, form) == "Fine."
        assert "zregenerate" not in given.model_dump_json(warnings=False)
        assert all(b"zregenerate" not in request.body for request in backend.requests)

    @both
    @forms
    async def test_calls(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """A bad tool call is blocked and not asked for again."""
        call = ToolCall("look_up", '{"query": "zregenerate"}')
        backend.script(PROMPT, Choice(tool_calls=(call,)), "Fine.")
        assert told(await answer(wrapped(form), form, mode=mode), form) == "[blocked]"
        assert len(backend.requests) == 1

    @forms
    async def test_comments_do_not_begin_a_stream(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str
    ) -> None:
        """A backend that keeps its connection alive is asked again all the same."""
        delivery = Delivery(comments=True)
        bad, good = (Reply((Choice(text),), delivery=delivery) for text in (BAD, "Fine."))
        backend.script(PROMPT, bad, good)
        assert told(await answer(wrapped(form), form, mode="stream"), form) == "Fine."

    @forms
    async def test_what_has_left_is_not_taken_back(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str
    ) -> None:
        """A stream that turns bad later ends with the class's message; nobody is asked again."""
        backend.script(PROMPT, f"{LONG}{BAD}", "Fine.")
        given = told(await answer(wrapped(form), form, mode="stream"), form)
        assert given.startswith(LONG[:200])
        assert given.endswith("\n\n[replaced]")
        assert len(backend.requests) == 1


class TestGivenUp:
    """Answers that stay bad, and backends that fail when they are asked again."""

    @both
    @forms
    async def test_attempts(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """After so many further answers the class's message takes the place of the last one."""
        backend.script(PROMPT, BAD)
        given = await answer(wrapped(form, attempts=3), form, mode=mode)
        assert told(given, form) == "[replaced]"
        assert len(backend.requests) == 4

    @both
    @forms
    async def test_time(self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str) -> None:
        """No more is asked for once the time is over."""
        slow = Reply((Choice(BAD),), delivery=Delivery(pause=0.1, piece=99))
        backend.script(PROMPT, slow)
        side = wrapped(form, attempts=10, seconds=0.35)
        began = time.monotonic()
        given = await answer(side, form, mode=mode)
        assert told(given, form) == "[replaced]"
        assert 1 <= len(backend.requests) <= 4
        assert time.monotonic() - began < 10

    @both
    @forms
    async def test_time_is_over_at_once(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """Where the first answer took all of it, that ends with the class's message."""
        backend.script(PROMPT, BAD)
        given = await answer(wrapped(form, seconds=1e-6), form, mode=mode)
        assert told(given, form) == "[replaced]"
        assert len(backend.requests) == 1

    @both
    @forms
    async def test_a_backend_that_hangs(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """One that falls silent when asked again is not waited for longer than the class says."""
        hung = Reply((Choice("Fine."),), delivery=Delivery(holds_after=0))
        backend.script(PROMPT, BAD, hung)
        began = time.monotonic()
        given = await answer(wrapped(form, seconds=0.5), form, mode=mode)
        assert told(given, form) == "[replaced]"
        assert time.monotonic() - began < 10
        backend.release()
        backend.wait_idle()

    @both
    @forms
    @pytest.mark.parametrize(
        "failure",
        [
            Failure(429),
            Failure(500),
            Failure(400),
            Reply((Choice("Fine."),), delivery=Delivery(dies_after=0)),
            Reply((Choice("Fine."),), delivery=Delivery(dies_at_byte=0)),
        ],
        ids=["429", "500", "400", "dies", "dies early"],
    )
    async def test_a_backend_that_fails(
        self,
        wrapped: Wrapped,
        backend: ScriptedApp,
        form: str,
        mode: str,
        failure: Failure | Reply,
    ) -> None:
        """One that fails when asked again leaves the class's message, and no error."""
        backend.script(PROMPT, BAD, failure, "Fine.")
        given = await answer(wrapped(form), form, mode=mode)
        assert told(given, form) == "[replaced]"
        assert len(backend.requests) == 2
        backend.wait_idle()

    @both
    @forms
    async def test_a_block_is_not_asked_again(
        self, wrapped: Wrapped, backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """What is to be blocked is blocked, also where an answer before it was withdrawn."""
        backend.script(PROMPT, BAD, "Say zblock now.", "Fine.")
        given = await answer(wrapped(form), form, mode=mode)
        assert told(given, form) in ("[blocked]", "")
        assert len(backend.requests) == 2


class TestJournal:
    """What is kept of answers that were withdrawn."""

    @both
    @forms
    async def test_rows(
        self,
        wrapped: Wrapped,
        backend: ScriptedApp,
        tmp_path: Path,
        form: str,
        mode: str,
    ) -> None:
        """Each bad answer has a closed row; nothing of it left."""
        for attempts, replies in ((1, (BAD, "Fine.")), (1, (BAD,))):
            with closing(Journal(tmp_path / f"{len(replies)}.db")) as journal:
                backend.script(PROMPT, *replies)
                side = wrapped(form, journal=journal, attempts=attempts)
                await answer(side, form, mode=mode)
                rows = list(journal.list())
            kept = [(row.action, row.delivered, row.released) for row in rows]
            # The last one that is kept bad is answered by the class's message.
            assert kept == [("rewrite", "none", 0)] * (1 if len(replies) > 1 else 2)
