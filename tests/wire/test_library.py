"""A whole exchange gets the same verdict from the library as from a backend's bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.exchange import Choice, Exchange, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard
    from guard.verdict import Verdict
    from guard.wire.formats import Call

KEY: Final = "AKIA" + "Q7WZ3FJ5LM2NXK4B"
HIDDEN: Final = KEY.replace("A", "\\u0041", 1)

NAMES: Final = ("look_up", "zflag", "zredact", "zreplace", "zblock", KEY)
ARGUMENTS: Final = (
    "",
    "{}",
    '{"a": "Fine."}',
    f'{{"a": "{KEY}"}}',
    f'{{"a": "{HIDDEN}"}}',
    '{"a": "z\\u0062lock"}',
    '{"a": zredact}',
    '{"zredact": 1, "a": "\\u0007"}',
    "[zexcise]",
    f"{HIDDEN} is no JSON",
)


def spoken(choice: Choice) -> bytes:
    """Return a choice as a backend sends it."""
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in choice.tool_calls
    ]
    message = {"role": "assistant", "content": choice.content, "tool_calls": calls}
    return json.dumps({"choices": [{"index": 0, "message": message}]}).encode()


def on_the_wire(guard: Guard, make_call: Callable[..., Call], choice: Choice) -> Verdict:
    """Return the verdict on a choice that came as bytes."""
    body = make_call(guard, "chat").body(spoken(choice))
    guard.driver.run(body.judge())
    return body.session.verdict()


class TestToolCalls:
    """What a tool call says beside its arguments as they are written."""

    @pytest.mark.parametrize(
        "call",
        [
            ToolCall(KEY, "{}"),
            ToolCall(KEY, ""),
            ToolCall("look_up", '{"a": "z\\u0062lock"}'),
            ToolCall("look_up", "{}", f"The key is {KEY}"),
        ],
    )
    def test_hides_nothing(self, make_pack_guard: Callable[..., Guard], call: ToolCall) -> None:
        """Its tool's name is judged, what its escapes stand for, and an identifier that speaks."""
        verdict = make_pack_guard().check(Exchange((Choice("Well.", tool_calls=(call,)),)))
        assert verdict.action == "block"
        assert (verdict.text, verdict.choices) == (None, (None,))

    def test_a_key_in_escapes_is_a_key(self, make_pack_guard: Callable[..., Guard]) -> None:
        """Where a pattern finds it as it is written, it is taken out like one without escapes."""
        taken = Choice(tool_calls=(ToolCall("look_up", '{"a": "[redacted: secret leak]"}'),))
        for key in (KEY, HIDDEN):
            choice = Choice(tool_calls=(ToolCall("look_up", f'{{"a": "{key}"}}'),))
            verdict = make_pack_guard().check(Exchange((choice,)))
            assert (verdict.action, verdict.choices) == ("rewrite", (taken,))

    def test_leaves_nothing_behind(self, make_pack_guard: Callable[..., Guard]) -> None:
        """One that hides nothing is delivered as it came, and its name is no text of its own."""
        calls = (ToolCall("look_up", '{"a": "\\u00e9"}', "call_1"), ToolCall("wait", ""))
        choice = Choice("Well.", tool_calls=calls)
        verdict = make_pack_guard().check(Exchange((choice,)))
        assert (verdict.action, verdict.choices) == ("allow", (choice,))
        assert set(verdict.coverage.judged) == {
            "choices[0].content",
            "choices[0].tool_calls[0].arguments",
        }

    def test_of_a_flagged_name(self, make_pack_guard: Callable[..., Guard]) -> None:
        """A name that is merely flagged is delivered, and only as a name."""
        choice = Choice("Well.", tool_calls=(ToolCall("zflag", "{}"),))
        verdict = make_pack_guard().check(Exchange((choice,)))
        assert (verdict.action, verdict.choices) == ("flag", (choice,))
        assert verdict.text == "Well."

    def test_in_shadow(self, make_pack_guard: Callable[..., Guard]) -> None:
        """A shadow class delivers it, and says what would have been."""
        choice = Choice(tool_calls=(ToolCall(KEY, f'{{"a": "{HIDDEN}"}}'),))
        verdict = make_pack_guard(shadow=True).check(Exchange((choice,)))
        assert (verdict.choices, verdict.action) == ((choice,), "flag")
        assert verdict.intended != "allow"

    @given(
        content=st.sampled_from(["", "Fine.", "zflag", "zredact", "zreplace", "zblock"]),
        calls=st.lists(
            st.builds(ToolCall, st.sampled_from(NAMES), st.sampled_from(ARGUMENTS)),
            min_size=1,
            max_size=3,
        ),
        remedy=st.sampled_from(["redact", "block"]),
    )
    def test_as_on_the_wire(
        self,
        make_pack_guard: Callable[..., Guard],
        make_call: Callable[..., Call],
        content: str,
        calls: list[ToolCall],
        remedy: str,
    ) -> None:
        """Action and what is delivered are the same."""
        limits: dict[str, Any] = {
            "secret_leak": {"flag": 0.3, "act": 0.5, "remedy": remedy},
            **{
                f"to_{name}": {"flag": 0.5, "act": 0.9, "remedy": name}
                for name in ("redact", "excise", "replace", "block")
            },
            "to_flag": {"flag": 0.5},
        }
        guard = make_pack_guard(limits=limits)
        choice = Choice(content, tool_calls=tuple(calls))
        there = on_the_wire(guard, make_call, choice)
        here = guard.check(Exchange((choice,)))
        assert here.action == there.action
        assert here.choices == there.choices
        assert here.text == there.text
