"""One answer through the doors of the guard: the library and each vendor's whole response."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guard.exchange import Choice, Exchange, ToolCall
from guard.server.scripted import Reply, chat, messages, responses

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard
    from guard.wire.formats import Call

FORMATS: Final = {"chat": chat.FORMAT, "responses": responses.FORMAT, "messages": messages.FORMAT}

TEXTS: Final = st.sampled_from(
    ("", "Fine.", "A zredact.", "A zreplace.", "A zblock.", '{"a": "z\\u0062lock"}', "A zflag.")
)
CALLS: Final = st.builds(
    ToolCall,
    st.sampled_from(("find", "zblock", "zreplace")),
    st.sampled_from(("{}", '{"a": "Fine."}', '{"a": "z\\u0062lock"}', '{"a": "zredact"}')),
    st.just("call_1"),
)
# The messages format signs its reasoning, so that nothing is taken out there.
THOUGHTS: Final = TEXTS.filter(lambda text: "zredact" not in text)
LISTED: Final = st.lists(CALLS, max_size=1).map(tuple)
CHOICES: Final = st.builds(Choice, TEXTS, THOUGHTS, st.just(""), LISTED)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40)
@given(choice=CHOICES)
@example(choice=Choice("A zreplace.", tool_calls=(ToolCall("zblock", "{}", "call_1"),)))
def test_whole_answers(
    make_guard: Callable[..., Guard], make_call: Callable[..., Call], form: str, choice: Choice
) -> None:
    """A whole answer is decided the same by `check` and in a response, whatever came first."""
    guard = make_guard()
    request: dict[str, Any] = {"model": "m"}
    document = FORMATS[form].body(request, "", Reply((choice,)))
    body = make_call(guard, form, request).body(json.dumps(document).encode())
    guard.driver.run(body.judge())
    assert body.session.verdict().action == guard.check(Exchange((choice,))).action
