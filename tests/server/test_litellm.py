"""LiteLLM's generic guardrail API: by hand, turn by turn, and driven by LiteLLM's own client."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.journal.store import Journal
from guard.server import litellm_calls
from guard.server.app import create_app
from guard.server.litellm_calls import Calls
from guard.server.scripted import serve_in_thread
from guard.server.settings import ServerSettings
from guard.steps import Learn
from guard.text.units import UNIT_MINIMUM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastapi import FastAPI

    from guard.detectors.base import Finding, Passage
    from guard.server.guards import Judges
    from guard.steps import Steps

PATH = "/beta/litellm_basic_guardrail_api"
CLIENT = Path(__file__).with_name("litellm_client.py")

PLAIN = "The ferry leaves at nine from the second pier, and nobody is late for it. "
LONG = PLAIN * 12


class Relay:
    """What a LiteLLM proxy in the mode `incremental_diff` does with the answers that it gets."""

    def __init__(self, client: httpx2.Client, call: str) -> None:
        """Nothing has been relayed yet."""
        self.left = ""
        self.blocked = False
        self.held: list[int] = []
        self._client = client
        self._call = call

    def turn(self, text: str, *, last: bool, **more: Any) -> dict[str, Any]:
        """Send all of an answer so far; let out what may leave."""
        body = turn(self._client, self._call, [text], **more)
        if body["action"] == "BLOCKED":
            self.blocked = True
            return body
        (final,), (held,) = body["texts"], body["stream_holdback_chars"]
        assert final.startswith(self.left), "what left was taken back"
        self.left = final[: len(final) - (0 if last else held)]
        self.held.append(held)
        return body

    def play(self, text: str, size: int) -> None:
        """Send `text` as a stream of pieces of `size` characters."""
        for end in range(size, len(text) + size, size):
            if not self.blocked:
                self.turn(text[:end], last=False)
        if not self.blocked:
            self.turn(text, last=True)


class Counter:
    """A detector that counts how often it is asked about each passage, and finds nothing."""

    name, version, categories = "counter", "1", ("to_block",)

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.asked: list[Passage] = []

    def __call__(self, passage: Passage) -> list[Finding]:
        """Take note of the passage."""
        self.asked.append(passage)
        return []


class Lessons:
    """What follows the live risk, and only takes note of what it is told."""

    def __init__(self) -> None:
        """Nothing was shown yet."""
        self.learnt: list[tuple[dict[str, float], str | None]] = []

    posture = "normal"

    def priors(self, conversation: str | None = None) -> dict[str, float]:
        """Leave the priors as they are."""
        del conversation
        return {}

    def observe(self, evidence: Any, *, conversation: str | None = None) -> None:
        """Take note."""
        self.learnt.append((dict(evidence), conversation))


class Moody:
    """A detector that fails when it is told to."""

    name, version, categories = "moody", "1", ("to_block",)

    def __init__(self) -> None:
        """Work for now."""
        self.fails = False

    def __call__(self, passage: Passage) -> list[Finding]:
        """Find nothing, or fail."""
        if self.fails:
            raise RuntimeError(passage.unit[:0])
        return []


def _told(evidence: dict[str, float]) -> Steps:
    """Yield what a session does at the end of a turn."""
    yield Learn(evidence, "")


def turn(client: httpx2.Client, call: str | None, texts: list[str], **more: Any) -> dict[str, Any]:
    """Return what the endpoint answers."""
    body = {"input_type": "response", "litellm_call_id": call, "texts": texts, **more}
    answer = client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


@pytest.fixture
def client(serve: Callable[..., httpx2.Client]) -> httpx2.Client:
    """Return a client of a server whose guard fires on words."""
    return serve()


class TestWholeAnswers:
    """Answers that do not stream: one turn each."""

    @pytest.mark.parametrize(
        ("text", "action", "delivered"),
        [
            ("All is well.", "NONE", "All is well."),
            ("There is zflag.", "NONE", "There is zflag."),
            ("Say zredact now.", "GUARDRAIL_INTERVENED", "Say [redacted: to redact] now."),
            (f"{LONG}Say zreplace.", "GUARDRAIL_INTERVENED", "[replaced]"),
            ("", "NONE", ""),
        ],
    )
    def test_texts(self, client: httpx2.Client, text: str, action: str, delivered: str) -> None:
        """Each action has its name, and the text may be delivered as it is returned."""
        body = turn(client, None, [text])
        assert (body["action"], body["texts"]) == (action, [delivered])

    def test_block(self, client: httpx2.Client) -> None:
        """A block has the class's message for the end user, and no text."""
        body = turn(client, None, ["Fine.", f"{LONG}zblock"])
        assert (body["action"], body["blocked_reason"]) == ("BLOCKED", "[blocked]")
        assert body["texts"] is None

    def test_several_texts(self, client: httpx2.Client) -> None:
        """Texts are judged each by itself and come back in their order."""
        body = turn(client, None, ["Say zredact.", "Fine.", "Say zreplace."])
        assert body["texts"] == ["Say [redacted: to redact].", "Fine.", "[replaced]"]

    @pytest.mark.parametrize("arguments", ['{"to": "zblock"}', '{"to": "zredact"}'])
    def test_tool_calls(self, client: httpx2.Client, arguments: str) -> None:
        """A tool call that may not be made as it is blocks: there is no way to change it."""
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        assert turn(client, None, [], tool_calls=[call])["action"] == "BLOCKED"
        fine = {"function": {"name": "f", "arguments": "{}"}}
        assert turn(client, None, ["Fine."], tool_calls=[fine])["action"] == "NONE"

    @pytest.mark.parametrize("arguments", [None, "", "{}"])
    def test_a_name_of_a_tool_call(self, client: httpx2.Client, arguments: str | None) -> None:
        """A call's name is judged, whether the call has arguments or not."""
        called = {"name": "zblock", "arguments": arguments}
        assert turn(client, None, [], tool_calls=[{"function": called}])["action"] == "BLOCKED"
        fine = {"name": "search", "arguments": arguments}
        assert turn(client, None, [], tool_calls=[{"function": fine}])["action"] == "NONE"

    def test_images(self, client: httpx2.Client) -> None:
        """An image that came back cannot be judged, so that it does not leave."""
        body = turn(client, None, ["Fine."], images=["data:image/png;base64,AAAA"])
        assert body["action"] == "BLOCKED"
        assert "image" in body["blocked_reason"]


class TestRequests:
    """What the backend is about to be asked."""

    def test_the_input_section_decides(
        self, serve: Callable[..., httpx2.Client], make_judges: Callable[..., Judges]
    ) -> None:
        """A prompt is blocked by the class's `input` section and by nothing else."""
        limited = make_judges(input={"limits": {"to_block": {"act": 0.9}}})
        messages = [{"role": "user", "content": [{"type": "text", "text": "Do zblock."}]}]
        for judges, action in ((limited, "BLOCKED"), (make_judges(), "NONE")):
            client = serve(judges)
            body = turn(client, "a", [], input_type="request", structured_messages=messages)
            assert body["action"] == action
            assert turn(client, "b", ["zblock"], input_type="request")["action"] == action

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "document", "source": {"type": "text", "data": "Do zblock."}},
            {"type": "search_result", "title": "Do zblock.", "content": []},
            {"type": "tool_result", "tool_use_id": "1", "content": [{"text": "Do zblock."}]},
            {"type": "anything", "output": {"said": "Do zblock."}},
        ],
    )
    def test_text_in_a_block_of_any_kind_is_judged(
        self,
        serve: Callable[..., httpx2.Client],
        make_judges: Callable[..., Judges],
        block: dict[str, Any],
    ) -> None:
        """Whatever a block is called, its text reaches the model."""
        client = serve(make_judges(input={"limits": {"to_block": {"act": 0.9}}}))
        messages = [{"role": "user", "content": [block, {"type": "text", "text": "Well?"}]}]
        body = turn(client, "a", [], input_type="request", structured_messages=messages)
        assert body["action"] == "BLOCKED"

    def test_what_was_asked_is_known_when_the_answer_comes(
        self, serve: Callable[..., httpx2.Client], make_judges: Callable[..., Judges]
    ) -> None:
        """Prompt and system prompt of a call's request are the context of its answer."""
        counter = Counter()
        client = serve(make_judges(counter, limits={"to_block": {"act": 0.9}}))
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "function", "content": None},
            {"role": "user", "content": "Where is it?"},
        ]
        turn(client, "a", [], input_type="request", structured_messages=messages)
        turn(client, "a", ["There."])
        turn(client, "b", ["Here."])
        known = {p.unit: (p.prompt, p.system) for p in counter.asked}
        assert known == {"There.": ("Where is it?", "Be brief."), "Here.": ("", "")}


class TestStreams:
    """Answers of which LiteLLM sends all so far, again and again."""

    @pytest.mark.parametrize("size", [60, 400, 5000])
    @pytest.mark.parametrize("word", ["plain", "zflag", "zredact", "zexcise", "zreplace"])
    def test_what_leaves_is_what_a_stream_delivers(
        self, client: httpx2.Client, make_judges: Callable[..., Judges], word: str, size: int
    ) -> None:
        """However it is cut, the client gets what `Guard.stream` delivers, or the message alone."""
        text = f"{LONG}Here is {word} at last. {LONG}"
        expected = make_judges().guard.check(text)
        relay = Relay(client, f"{word}-{size}")
        relay.play(text, size)
        assert relay.left in (expected.streamed, expected.text)

    def test_nothing_leaves_before_it_is_certain(self, client: httpx2.Client) -> None:
        """The end of a text is held back, less than 1,000 characters; the word never leaves."""
        relay = Relay(client, "a")
        relay.play(f"{LONG}Here is zredact at last. {LONG}", 45)
        assert "zredact" not in relay.left
        assert "[redacted: to redact]" in relay.left
        assert 0 < max(relay.held) < 1000

    def test_block_after_text_has_left(self, client: httpx2.Client) -> None:
        """A stream that turns bad is blocked, and goes on being blocked."""
        relay = Relay(client, "a")
        relay.play(f"{LONG}zblock {LONG}", 40)
        assert relay.blocked
        assert 0 < len(relay.left) < len(LONG)
        assert turn(client, "a", [f"{LONG}zblock {LONG} and more"])["action"] == "BLOCKED"

    def test_replaced_after_text_has_left(self, client: httpx2.Client) -> None:
        """What had left stands, the class's message follows, and nothing more."""
        relay = Relay(client, "a")
        relay.play(f"{LONG}zreplace {LONG}", 40)
        assert relay.left.endswith("\n\n[replaced]")
        assert relay.left.startswith(LONG[:200])

    def test_the_end_is_not_known(self, client: httpx2.Client) -> None:
        """A bad word in the part that is held back is mended at once: this may be the end."""
        body = turn(client, "a", ["Here is zredact"])
        assert body["texts"] == ["Here is [redacted: to redact]"]
        assert body["stream_holdback_chars"] == [len(body["texts"][0])]

    def test_another_attempt(self, client: httpx2.Client) -> None:
        """A text that does not go on from the one before is judged as a new one."""
        Relay(client, "a").play(LONG, 100)
        assert turn(client, "a", ["Another answer."])["texts"] == ["Another answer."]

    def test_a_choice_that_comes_later(self, client: httpx2.Client) -> None:
        """Texts are told apart by what they hold, since LiteLLM sends only those that began."""
        second = f"Second. {LONG}"
        turn(client, "a", [second])
        body = turn(client, "a", ["First.", f"{second}Say zreplace."])
        assert body["texts"][0] == "First."
        assert body["texts"][1].startswith("Second.")
        assert body["texts"][1].endswith("[replaced]")

    def test_the_inspection_at_the_end(self, client: httpx2.Client) -> None:
        """LiteLLM sends a stream's tool calls once more with all of the text."""
        relay = Relay(client, "a")
        relay.play(LONG, 300)
        call = {"function": {"name": "f", "arguments": '{"a": "zblock"}'}}
        assert relay.turn(LONG, last=True, tool_calls=[call])["action"] == "BLOCKED"

    @given(st.data())
    @settings(max_examples=12)
    def test_any_cutting(self, shared: httpx2.Client, data: st.DataObject) -> None:
        """Whatever the words and the cuts, nothing is taken back and no bad word leaves."""
        words = ["zflag", "zredact", "zexcise", "zreplace", "zblock", PLAIN, PLAIN, "A b c.\n\n"]
        text = " ".join(data.draw(st.lists(st.sampled_from(words), max_size=30)))
        ends = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
        relay = Relay(shared, json.dumps([text, ends]))
        for number, end in enumerate([*ends, len(text)]):
            if not relay.blocked:
                relay.turn(text[:end], last=number == len(ends))
        assert not any(word in relay.left for word in words[1:5])


@pytest.fixture(scope="module")
def shared(
    make_judges: Callable[..., Judges], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx2.Client]:
    """Return a client of a server that lives as long as this module's tests."""
    journal = Journal(tmp_path_factory.mktemp("litellm") / "journal.sqlite3")
    judges = make_judges(journal=journal)
    app = create_app(ServerSettings(), load=lambda: {"public": judges})
    with serve_in_thread(app) as server, httpx2.Client(base_url=server.url) as client:
        yield client


class TestRemembered:
    """What is not done twice, and what is forgotten."""

    def test_each_unit_is_judged_once(
        self, serve: Callable[..., httpx2.Client], make_judges: Callable[..., Judges]
    ) -> None:
        """No passage of a stream is judged twice; each turn judges little more than its end."""
        counter = Counter()
        client = serve(make_judges(counter, limits={"to_block": {"act": 0.9}}))
        relay = Relay(client, "a")
        relay.play(LONG * 2, 30)
        turns, units = len(relay.held), 2 * len(LONG) / UNIT_MINIMUM
        assert turns > 50
        assert len(set(counter.asked)) == len(counter.asked)
        # The end, which is not certain yet, is one unit or two.
        assert len(counter.asked) <= 2 * turns + units

    def test_clients_do_not_share_a_call(
        self, serve: Callable[..., httpx2.Client], make_judges: Callable[..., Judges]
    ) -> None:
        """Two clients that send one call's id are told apart."""
        from guard.server.keys import hash_of

        keys = {name: f"{name}-key-that-is-long-enough" for name in ("one", "two")}
        client = serve(
            make_judges(), keys=[{"name": n, "hash": hash_of(k)} for n, k in keys.items()]
        )
        client.headers["x-guard-key"] = keys["one"]
        Relay(client, "a").play(LONG, 200)
        client.headers["x-guard-key"] = keys["two"]
        body = turn(client, "a", [f"{LONG}Say zreplace."])
        assert body["texts"] == ["[replaced]"]

    def test_one_row(
        self,
        serve: Callable[..., httpx2.Client],
        make_judges: Callable[..., Judges],
        tmp_path: Path,
    ) -> None:
        """A stream has one row in the journal, which knows all of it at the end."""
        journal = Journal(tmp_path / "journal.sqlite3")
        client = serve(make_judges(journal=journal))
        text = f"{LONG}Here is zredact. {LONG}"
        relay = Relay(client, "a")
        relay.play(text, 40)
        (row,) = journal.list()
        assert (row.action, row.complete, row.delivered) == ("rewrite", True, "part")
        assert row.response == text
        assert row.outcome == relay.left
        assert row.metadata == {"litellm_call_id": "a"}

    def test_learnt_once(
        self,
        make_app: Callable[..., FastAPI],
        make_judges: Callable[..., Judges],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A call of many turns is one exchange for the live risk, with all that it showed."""
        monkeypatch.setattr(litellm_calls, "QUIET_SECONDS", 0.3)
        live = Lessons()
        app = make_app(make_judges(live=live))
        with serve_in_thread(app) as server, httpx2.Client(base_url=server.url) as client:
            Relay(client, "a").play(f"{LONG}Here is zredact. {PLAIN}", 60)
            turn(client, None, ["Fine."])
            ends = time.monotonic() + 10
            while len(live.learnt) < 2:
                assert time.monotonic() < ends
                time.sleep(0.05)
            turn(client, "b", ["zflag"], litellm_trace_id="talk")
        # The last one is learnt when the server ends.
        assert live.learnt == [({}, None), ({"to_redact": 9.0}, None), ({"to_flag": 9.0}, "talk")]

    def test_a_failed_detector_is_no_all_clear(
        self, make_app: Callable[..., FastAPI], make_judges: Callable[..., Judges]
    ) -> None:
        """Nobody knows what it would have found, whatever another attempt shows."""
        live, moody = Lessons(), Moody()
        app = make_app(make_judges(moody, live=live, limits={"to_block": {"act": 0.9}}))
        with serve_in_thread(app) as server, httpx2.Client(base_url=server.url) as client:
            moody.fails = True
            assert turn(client, None, ["Ivy."])["action"] == "BLOCKED"
            assert turn(client, "a", ["Ferns."])["action"] == "BLOCKED"
            moody.fails = False
            assert turn(client, "a", ["Other ferns."])["action"] == "NONE"
            # The same text, which is judged at last.
            moody.fails = True
            assert turn(client, "b", ["Moss."])["action"] == "BLOCKED"
            moody.fails = False
            assert turn(client, "b", ["Moss."])["action"] == "NONE"
        shown = [evidence.get("to_block", 0.0) for evidence, _ in live.learnt]
        assert [math.isnan(value) for value in shown] == [True, True, False, False]

    def test_what_comes_after_a_silence(self, make_judges: Callable[..., Judges]) -> None:
        """A call that goes on after it was learnt is no second exchange, unless it gets graver."""
        live = Lessons()
        call = Calls().find("a", "1", make_judges(live=live))
        for evidence in (
            {"to_flag": 3.0},
            {"to_flag": 3.0},
            {"to_flag": 2.0, "to_block": 5.0},
            {"to_flag": math.nan, "to_block": 5.0},
            {"to_flag": 9.0, "to_block": 5.0},
        ):
            list(call.recall(_told(evidence)))
            call.learn()
            call.learn()
        learnt = [evidence for evidence, _ in live.learnt]
        assert learnt[:2] == [{"to_flag": 3.0}, {"to_block": 5.0}]
        ((name, value),) = learnt[2].items()
        assert (name, math.isnan(value), len(learnt)) == ("to_flag", True, 3)

    def test_calls_are_forgotten(
        self, make_judges: Callable[..., Judges], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The eldest go first where there are too many, and all that were not heard of for long."""
        judges, calls = make_judges(), Calls()
        monkeypatch.setattr(litellm_calls, "MOST_CALLS", 3)
        first = calls.find("", "0", judges)
        for number in range(1, 5):
            calls.find("", f"{number}", judges)
        assert len(calls) == 3
        assert calls.find("", "0", judges) is not first
        monkeypatch.setattr(litellm_calls, "AGE_SECONDS", -1.0)
        calls.find("", "9", judges)
        assert len(calls) == 1

    def test_memory_is_bounded(
        self, make_judges: Callable[..., Judges], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The eldest go where all texts together are too long."""
        judges, calls = make_judges(), Calls()
        monkeypatch.setattr(litellm_calls, "MOST_CHARACTERS", 1000)
        for number in range(5):
            calls.find("", f"{number}", judges).texts(["x" * 300])
        assert len(calls) == 2

    def test_a_failure_is_not_remembered(
        self, serve: Callable[..., httpx2.Client], make_judges: Callable[..., Judges]
    ) -> None:
        """A detector that failed once is asked again; until then the answer is blocked."""

        class Sometimes(Counter):
            def __call__(self, passage: Passage) -> list[Finding]:
                super().__call__(passage)
                if len(self.asked) == 1:
                    raise RuntimeError
                return []

        client = serve(make_judges(Sometimes(), limits={"to_block": {"act": 0.9}}))
        assert turn(client, "a", ["Fine."])["action"] == "BLOCKED"
        assert turn(client, "a", ["Fine."])["action"] == "NONE"

    def test_a_call_keeps_its_judges(self, make_judges: Callable[..., Judges]) -> None:
        """A call that began under one policy is judged by it to its end."""
        old, new, calls = make_judges(), make_judges(), Calls()
        assert calls.find("", "a", old).judges is old
        assert calls.find("", "a", new).judges is old
        assert calls.find("", "b", new).judges is new
        assert calls.find("", None, new).judges is new


def interpreter() -> str | None:
    """Return a Python that has LiteLLM: this one, or that of `CLEARANCE_LITELLM_PYTHON`."""
    if find_spec("litellm") is not None:
        return sys.executable
    return os.environ.get("CLEARANCE_LITELLM_PYTHON")


@pytest.fixture(scope="module")
def played(shared: httpx2.Client) -> list[dict[str, Any]]:
    """Return what LiteLLM did with each of a few jobs."""
    python = interpreter()
    if python is None:
        pytest.skip(
            "LiteLLM is not installed here: name a Python that has it in the variable"
            " CLEARANCE_LITELLM_PYTHON"
        )
    jobs = [
        {"call": "L1", "inputs": {"texts": ["Say zredact now."]}},
        {"call": "L2", "inputs": {"texts": ["Say zblock now."]}},
        {"call": "L3", "inputs": {"texts": ["Fine.", "Say zreplace."]}},
        {"call": "L4", "pieces": words(LONG)},
        {"call": "L5", "pieces": words(f"{LONG}Here is zredact. {PLAIN}")},
        {"call": "L6", "pieces": words(f"{LONG}Here is zreplace. {PLAIN}")},
        {"call": "L7", "pieces": words(f"{LONG}Here is zblock. {PLAIN}")},
        {"call": "L8", "input_type": "request", "inputs": {"texts": ["Where is it?"]}},
    ]
    url = str(shared.base_url)
    done = subprocess.run(
        [python, "-W", "ignore", str(CLIENT), url, "a-key", json.dumps(jobs)],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
        # It would look on the network for the prices of models.
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestItsOwnClient:
    """LiteLLM's `GenericGuardrailAPI` against the service: block, rewrite, hold back."""

    def test_whole_answers(self, played: list[dict[str, Any]]) -> None:
        """Rewritten texts are taken over; a block raises LiteLLM's own error."""
        assert played[0] == {"texts": ["Say [redacted: to redact] now."]}
        assert played[1] == {"blocked": "[blocked]"}
        assert played[2] == {"texts": ["Fine.", "[replaced]"]}
        assert played[7] == {"texts": ["Where is it?"]}

    def test_a_good_stream(self, played: list[dict[str, Any]]) -> None:
        """A good answer arrives whole, and in pieces as it is judged."""
        assert "".join(played[3]["left"]) == " ".join(LONG.split()) + " "
        assert len(played[3]["left"]) > 1

    def test_hold_back(self, played: list[dict[str, Any]]) -> None:
        """No piece with the word ever reached the client."""
        left = "".join(played[4]["left"])
        assert "zredact" not in left
        assert "Here is [redacted: to redact]. The ferry" in left

    def test_a_stream_that_turns_bad(self, played: list[dict[str, Any]]) -> None:
        """It ends with the class's message, or with LiteLLM's error."""
        assert "".join(played[5]["left"]).endswith("\n\n[replaced]")
        assert played[6]["blocked"] == "[blocked]"
        assert LONG.startswith("".join(played[6]["left"]).rstrip())


def words(text: str) -> Sequence[str]:
    """Return a text in pieces as a model writes it."""
    return [f"{word} " for word in text.split()]
