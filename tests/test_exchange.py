"""An exchange: its channels, how it is made from text, and how it is read from JSON."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import InputError
from guard.exchange import Channel, Choice, Exchange, Message, ToolCall, unescaped
from guard.text.units import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = st.sampled_from(
    [
        *("response", "choices", "message", "content", "text", "reasoning", "thinking", "refusal"),
        *("tool_calls", "function", "name", "arguments", "input", "type", "messages", "role"),
        *("prompt", "system", "model", "metadata"),
    ]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


def problems(data: Any) -> list[str]:
    """Return what is said to be wrong with `data`."""
    with pytest.raises(InputError) as caught:
        Exchange.parse(data)
    return str(caught.value).split("; ")


def only_choice(item: Any) -> Choice:
    """Return how an answer of an exchange is read."""
    (choice,) = Exchange.parse({"choices": [item]}).choices
    return choice


class TestChannels:
    """Every text that came back, in order."""

    def test_order_names_and_kinds(self) -> None:
        """Choice by choice: reasoning, content, refusal, then each tool call's arguments."""
        choice = Choice("said", "thought", "declined", (ToolCall("f", "{}"), ToolCall("g", "[]")))
        channels = list(Exchange((choice, Choice("other"))).channels())
        assert [(c.name, c.kind, c.choice, c.text, c.tool) for c in channels] == [
            ("choices[0].reasoning", "reasoning", 0, "thought", ""),
            ("choices[0].content", "content", 0, "said", ""),
            ("choices[0].refusal", "refusal", 0, "declined", ""),
            ("choices[0].tool_calls[0].arguments", "tool_call", 0, "{}", "f"),
            ("choices[0].tool_calls[1].arguments", "tool_call", 0, "[]", "g"),
            ("choices[1].content", "content", 1, "other", ""),
        ]

    def test_empty_texts_are_left_out_and_keep_their_number(self) -> None:
        """A tool call without arguments has no channel; the next one keeps its index."""
        choice = Choice(tool_calls=(ToolCall("f", ""), ToolCall("g", "{}")))
        (channel,) = Exchange((Choice(), choice)).channels()
        assert channel.name == "choices[1].tool_calls[1].arguments"

    def test_arguments_are_led_by_what_was_said(self) -> None:
        """A tool call's context is the choice's content and the tool's name."""
        choice = Choice("Deleting it.", tool_calls=(ToolCall("remove", '{"path": "/"}'),))
        *_, channel = Exchange((choice,)).channels()
        assert isinstance(channel, Channel)
        assert channel.lead == "Deleting it.\nremove("

    def test_calls_of_a_long_answer_are_led_by_its_end(self) -> None:
        """Each call has what is read before it and no copy of all that was said."""
        said = "".join(f"Step {number} is done. " for number in range(10_000))
        choice = Choice(said, tool_calls=(ToolCall("remove", "{}"),) * 3)
        for channel in list(Exchange((choice,)).channels())[1:]:
            assert channel.lead == f"{said[-CONTEXT:]}\nremove("

    @given(st.lists(st.builds(Choice, st.text(), st.text(), st.text()), max_size=4))
    def test_names_are_unique_and_nothing_is_lost(self, choices: list[Choice]) -> None:
        """Channels have distinct names, and together they hold every text."""
        channels = list(Exchange(tuple(choices)).channels())
        assert len({channel.name for channel in channels}) == len(channels)
        given_texts = [t for c in choices for t in (c.reasoning, c.content, c.refusal) if t]
        assert [channel.text for channel in channels] == given_texts


class TestProperties:
    """What was asked."""

    MESSAGES = (
        Message("system", "Be brief."),
        Message("user", "First?"),
        Message("assistant", "Yes."),
        Message("developer", "Speak French."),
        Message("user", "Second?"),
        Message("tool", "17 degrees"),
    )

    def test_the_prompt_is_the_last_user_message(self) -> None:
        """Later messages of others do not hide it."""
        assert Exchange((), self.MESSAGES).prompt == "Second?"
        assert not Exchange(()).prompt

    @pytest.mark.parametrize("blank", ["", " \n"])
    def test_a_user_message_without_text_hides_no_prompt(self, blank: str) -> None:
        """Behind the question, such as for an image, or before it, it is not what was asked."""
        said = (Message("user", "Second?"), Message("user", blank))
        assert Exchange((), said).prompt == "Second?"
        alone = Exchange((Choice("a"),), (Message("user", blank),))
        assert Exchange.of(alone, prompt="Second?").prompt == "Second?"
        row = {"response": "a", "prompt": "Second?"}
        for messages in (said, said[1:]):
            given = [{"role": m.role, "content": m.content} for m in messages]
            assert Exchange.parse({**row, "messages": given}).prompt == "Second?"

    def test_the_system_prompt_is_all_of_them(self) -> None:
        """System and developer messages are joined by a blank line."""
        assert Exchange((), self.MESSAGES).system == "Be brief.\n\nSpeak French."
        assert not Exchange(()).system

    def test_an_exchange_cannot_change(self) -> None:
        """Exchanges, choices and messages are frozen."""
        for item, name in ((Exchange(()), "choices"), (Choice(), "content")):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(item, name, "other")


class TestOf:
    """From a text."""

    def test_a_text_becomes_one_choice(self) -> None:
        """Text, prompt and system prompt find their places."""
        exchange = Exchange.of("Yes.", prompt="Is it?", system="Be brief.")
        assert exchange.choices == (Choice("Yes."),)
        assert (exchange.prompt, exchange.system) == ("Is it?", "Be brief.")
        assert [message.role for message in exchange.messages] == ["system", "user"]

    def test_empty_prompts_leave_no_message(self) -> None:
        """What is unknown is not there, rather than there and empty."""
        assert Exchange.of("Yes.").messages == ()

    def test_an_exchange_gets_what_it_lacks(self) -> None:
        """Prompt and system prompt are added to an exchange without messages."""
        exchange = Exchange.of(Exchange((Choice("a"),)), prompt="p", system="s")
        assert (exchange.prompt, exchange.system) == ("p", "s")

    def test_its_own_user_message_stands(self) -> None:
        """A prompt does not replace the user message that is there."""
        own = Exchange((Choice("a"),), (Message("user", "mine"),))
        assert Exchange.of(own, prompt="other").messages == own.messages

    def test_every_system_prompt_counts(self) -> None:
        """A system prompt is added to the exchange's own, so that neither may leak."""
        own = Exchange((Choice("a"),), (Message("system", "one"), Message("user", "mine")))
        assert Exchange.of(own, system="two").system == "two\n\none"
        assert Exchange.of(own, system="one").system == "one"

    def test_everything_else_stays(self) -> None:
        """Choices, model and metadata are kept."""
        own = Exchange((Choice("a"), Choice("b")), model="m", metadata={"k": 1})
        made = Exchange.of(own, prompt="p")
        assert (made.choices, made.model, made.metadata) == (own.choices, "m", {"k": 1})

    @pytest.mark.parametrize("value", [None, 3, b"bytes", ["list"], {"response": "x"}])
    def test_anything_but_text_is_refused_by_name(self, value: Any) -> None:
        """The error names the argument and its type."""
        for name, arguments in (
            ("response", {"response": value}),
            ("prompt", {"response": "x", "prompt": value}),
            ("system", {"response": "x", "system": value}),
        ):
            with pytest.raises(InputError, match=f"`{name}` must be .*{type(value).__name__}"):
                Exchange.of(**arguments)

    def test_bytes_get_a_hint(self) -> None:
        """Who passes bytes learns what to do."""
        value: Any = b"bytes"
        with pytest.raises(InputError, match="Decode bytes first"):
            Exchange.of(value)


class TestParse:
    """From JSON that is as it should be."""

    def test_a_response_with_prompt_and_system(self) -> None:
        """The shortest form: `response`, and what was asked."""
        data = {"response": "Yes.", "prompt": "Is it?", "system": "Be brief.", "model": "m"}
        exchange = Exchange.parse(data)
        assert exchange == Exchange(
            (Choice("Yes."),), (Message("system", "Be brief."), Message("user", "Is it?")), "m"
        )

    def test_a_chat_completion(self) -> None:
        """Choices of a chat-completions answer are read, whatever else stands beside them."""
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        first = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
        second = {"content": "Hello.", "reasoning_content": "Greet.", "annotations": []}
        choices = [
            {"index": 0, "message": first, "finish_reason": "tool_calls", "logprobs": None},
            {"index": 1, "message": second},
        ]
        exchange = Exchange.parse({"id": "x", "object": "chat.completion", "choices": choices})
        assert exchange.choices == (
            Choice(tool_calls=(ToolCall("f", '{"a": 1}', "c1"),)),
            Choice("Hello.", "Greet."),
        )

    def test_choices_may_be_texts_and_bare_messages(self) -> None:
        """A choice may be a text, a message, or a completion's `text`."""
        choices = ["one", {"content": "two"}, {"text": "three"}, {"message": "four"}]
        read = Exchange.parse({"choices": choices}).choices
        assert [choice.content for choice in read] == ["one", "two", "three", "four"]

    def test_null_counts_as_absent(self) -> None:
        """Fields that are null are as if they were not there."""
        keys = ("choices", "prompt", "system", "messages", "model", "metadata")
        data: dict[str, Any] = dict.fromkeys(keys)
        assert Exchange.parse(data | {"response": "x"}) == Exchange.of("x")
        nulls = dict.fromkeys(["content", "reasoning", "refusal", "tool_calls", "function_call"])
        assert only_choice(nulls) == Choice()

    def test_an_empty_response_is_a_response(self) -> None:
        """An empty text is judged as such and not missing."""
        assert Exchange.parse({"response": ""}).choices == (Choice(),)

    def test_messages_and_metadata(self) -> None:
        """A conversation and the application's facts are kept."""
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Is it?", "name": "kim"},
        ]
        exchange = Exchange.parse({"response": "x", "messages": messages, "metadata": {"k": [1]}})
        assert exchange.messages == (
            Message("system", "Be brief."),
            Message("user", "Is it?", "kim"),
        )
        assert exchange.metadata == {"k": [1]}

    def test_system_and_prompt_beside_messages(self) -> None:
        """What the messages lack is added; a prompt that they hold already is no second one."""
        data = {"response": "x", "system": "s", "prompt": "p"}
        own = [{"role": "user", "content": "p"}]
        assert [m.content for m in Exchange.parse(data | {"messages": own}).messages] == ["s", "p"]
        assert [m.content for m in Exchange.parse(data | {"messages": []}).messages] == ["s", "p"]

    def test_any_mapping_will_do(self) -> None:
        """Mappings and tuples that are no `dict` and `list` are read alike."""
        data: Mapping[str, Any] = MappingProxyType({"choices": ({"content": "x"},)})
        assert Exchange.parse(data).choices == (Choice("x"),)


class TestReasoning:
    """What the model thought, under its several names."""

    @pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "thinking"])
    def test_each_name_is_read(self, key: str) -> None:
        """Whatever a server calls it, it is judged."""
        assert only_choice({"content": "x", key: "hm"}).reasoning == "hm"

    def test_the_same_under_two_names_is_one(self) -> None:
        """Servers that send it twice do not have it judged twice."""
        assert only_choice({"reasoning": "hm", "reasoning_content": "hm"}).reasoning == "hm"

    def test_different_texts_are_both_kept(self) -> None:
        """Two texts under two names are both judged."""
        assert only_choice({"reasoning": "a", "thinking": "b"}).reasoning == "ab"


class TestParts:
    """Content as a list of typed parts."""

    def test_texts_are_joined_as_they_stand(self) -> None:
        """Text that a vendor cut into parts is one text, so that nothing hides in the cut."""
        parts = [{"type": "text", "text": "sec"}, {"type": "output_text", "text": "ret"}, "!"]
        assert only_choice({"content": parts}).content == "secret!"
        assert only_choice(parts).content == "secret!"
        assert Exchange.parse({"response": parts}).choices[0].content == "secret!"

    def test_each_kind_goes_to_its_channel(self) -> None:
        """Thinking, refusals and tool calls inside a list are judged as what they are."""
        parts = [
            {"type": "thinking", "thinking": "hm", "signature": "zz"},
            {"type": "text", "text": "Here."},
            {"type": "refusal", "refusal": "No."},
            {"type": "tool_use", "id": "t1", "name": "find", "input": {"q": "tide"}},
        ]
        assert only_choice({"content": parts}) == Choice(
            "Here.", "hm", "No.", (ToolCall("find", '{"q": "tide"}', "t1"),)
        )

    def test_parts_inside_parts(self) -> None:
        """Thinking that is a list of parts again is read."""
        part = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, "!"]}
        assert only_choice({"content": [part]}).reasoning == "hm!"

    def test_what_nobody_can_read_is_passed_over(self) -> None:
        """Thinking that the vendor encrypted holds no text for anybody."""
        parts = [{"type": "redacted_thinking", "data": "xyz"}, {"type": "text", "text": "Here."}]
        assert only_choice({"content": parts}) == Choice("Here.")

    @pytest.mark.parametrize(
        "part", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text"}, {}]
    )
    def test_what_cannot_be_judged_is_refused(self, part: Any) -> None:
        """A part of an answer without text is an error: it must not leave unjudged."""
        (problem,) = problems({"choices": [{"content": ["ok", part]}]})
        assert problem.startswith("`choices[0].content[1]` has no `text`")

    def test_what_was_asked_may_hold_images(self) -> None:
        """Parts of a message that are no text are passed over: they are context."""
        parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {}}]
        messages = [{"role": "user", "content": parts}]
        assert Exchange.parse({"response": "x", "messages": messages}).prompt == "What is this?"

    def test_a_tool_result_is_a_tools_message(self) -> None:
        """What a tool gave back inside a user's message is the tool's, and no question."""
        call = {"type": "tool_use", "id": "t1", "name": "find", "input": {"q": "tide"}}
        result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"text": "17 degrees"}]}
        said = {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]}
        messages = [said, {"role": "user", "content": [result, "Well?"]}]
        assert Exchange.parse({"response": "x", "messages": messages}).messages == (
            Message("assistant", "I look."),
            Message("tool", "17 degrees", "find"),
            Message("user", "Well?"),
        )

    def test_system_of_blocks(self) -> None:
        """A system prompt may be a list of blocks."""
        blocks = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
        assert Exchange.parse({"response": "x", "system": blocks}).system == "Be brief.\nBe kind."

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "document", "source": {"type": "text", "data": "Ferns grow."}},
            {"type": "search_result", "source": "s", "title": "Ferns grow."},
            {"type": "custom", "output": "Ferns grow."},
            {"type": "refusal", "refusal": "Ferns grow."},
            {"type": "input_text", "input_text": "Ferns grow."},
        ],
    )
    def test_any_text_that_was_asked_is_read(self, block: Any) -> None:
        """A block's text is read whatever its key, as a server that guards a model reads it."""
        messages = [{"role": "user", "content": [block]}]
        assert "Ferns grow." in Exchange.parse({"response": "x", "messages": messages}).prompt


class TestAudio:
    """Spoken answers."""

    def test_the_transcript_is_judged(self) -> None:
        """What a spoken answer says is its content."""
        exchange = Exchange.parse({"choices": [{"content": None, "audio": {"transcript": "Hi."}}]})
        assert exchange.choices[0].content == "Hi."

    @pytest.mark.parametrize("audio", [{"data": "UklGRg=="}, "UklGRg==", {"transcript": 3}])
    def test_sound_alone_is_refused(self, audio: object) -> None:
        """Sound without words cannot be judged, and is not passed over."""
        with pytest.raises(InputError, match="audio"):
            Exchange.parse({"choices": [{"content": "Listen.", "audio": audio}]})


class TestToolCalls:
    """Calls in the shapes of several vendors."""

    @pytest.mark.parametrize(
        "call",
        [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "1", "function": {"name": "f", "arguments": {"a": 1}}},
            {"id": "1", "name": "f", "arguments": {"a": 1}},
            {"id": "1", "name": "f", "args": {"a": 1}, "arguments": None},
            {"id": "1", "name": "f", "input": {"a": 1}, "function": None},
            {"id": "1", "type": "custom", "custom": {"name": "f", "input": '{"a": 1}'}},
        ],
    )
    def test_each_shape_is_read(self, call: Any) -> None:
        """Flat or nested, as text or as an object, arguments are judged as text."""
        assert only_choice({"tool_calls": [call]}).tool_calls == (ToolCall("f", '{"a": 1}', "1"),)

    def test_the_old_function_call_is_read(self) -> None:
        """The single call of older answers is a tool call."""
        choice = only_choice({"content": None, "function_call": {"name": "f", "arguments": "{}"}})
        assert choice.tool_calls == (ToolCall("f", "{}"),)

    def test_objects_are_written_as_a_model_would(self) -> None:
        """Letters stay letters, so that detectors read what a person would."""
        call = {"name": "mail", "arguments": {"to": "Zoë", "lines": ["a", None, True]}}
        (read,) = only_choice({"tool_calls": [call]}).tool_calls
        assert read.arguments == '{"to": "Zoë", "lines": ["a", null, true]}'

    def test_broken_arguments_are_judged_as_they_are(self) -> None:
        """Text that is no JSON is text."""
        (read,) = only_choice({"tool_calls": [{"name": "f", "arguments": '{"a": '}]}).tool_calls
        assert read.arguments == '{"a": '

    @pytest.mark.parametrize(
        ("calls", "expected"),
        [
            ({}, "`choices[0].tool_calls` must be a list, not an object"),
            ("f()", "`choices[0].tool_calls` must be a list, not text"),
            ([3], "`choices[0].tool_calls[0]` must be an object, not a number"),
            (
                [{"function": "f"}],
                "`choices[0].tool_calls[0].function` must be an object, not text",
            ),
            ([{"name": "f"}], "`choices[0].tool_calls[0].arguments` is missing"),
            ([{"arguments": "{}"}], "`choices[0].tool_calls[0].name` is missing"),
            (
                [{"name": "f", "arguments": 3}],
                "`choices[0].tool_calls[0].arguments` must be text or an object, not a number",
            ),
            (
                [{"name": ["f"], "input": ""}],
                "`choices[0].tool_calls[0].name` must be text, not a list",
            ),
            (
                [{"name": "f", "input": "a", "args": "b"}],
                "`choices[0].tool_calls[0].args` stands beside `input`: leave one out",
            ),
            (
                [{"id": 7, "name": "f", "input": ""}],
                "`choices[0].tool_calls[0].id` must be text, not a number",
            ),
        ],
    )
    def test_wrong_types_are_named(self, calls: Any, expected: str) -> None:
        """Whatever is wrong is named by its path."""
        assert problems({"choices": [{"tool_calls": calls}]}) == [expected]

    @pytest.mark.parametrize("value", [object(), {1, 2}])
    def test_objects_that_are_no_json_are_refused(self, value: Any) -> None:
        """Arguments from Python code that JSON cannot hold are an error by name."""
        call = {"name": "f", "arguments": {"value": value}}
        (problem,) = problems({"choices": [{"tool_calls": [call]}]})
        assert problem.startswith("`choices[0].tool_calls[0].arguments` cannot be written as JSON")


class TestProblems:
    """From JSON that is not as it should be."""

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            ([], "an exchange must be an object, not an empty list"),
            ("text", "an exchange must be an object, not text"),
            (None, "an exchange must be an object, not null"),
            ({}, "`response` (text) or `choices` (a list) is missing"),
            (
                {"response": None, "prompt": "x"},
                "`response` (text) or `choices` (a list) is missing",
            ),
            (
                {"response": "x", "choices": ["y"]},
                "`response` and `choices` are both given: leave one out",
            ),
            ({"response": 3}, "`response` must be text or an object, not a number"),
            ({"response": True}, "`response` must be text or an object, not true"),
            (
                {"choices": []},
                "`choices` must be a list with at least one choice, not an empty list",
            ),
            ({"choices": {}}, "`choices` must be a list with at least one choice, not an object"),
            ({"choices": "x"}, "`choices` must be a list with at least one choice, not text"),
            ({"choices": [None]}, "`choices[0]` must be text or an object, not null"),
            (
                {"choices": ["x", {"message": 3}]},
                "`choices[1].message` must be text or an object, not a number",
            ),
            (
                {"choices": [{"message": "x", "content": "y", "index": 0}]},
                "`choices[0].content` stands beside `message`",
            ),
            (
                {"choices": [{"content": {"a": 1}}]},
                "`choices[0].content` must be text or a list of parts, not an object",
            ),
            (
                {"choices": [{"message": {"reasoning": 1.5}}]},
                "`choices[0].message.reasoning` must be text or a list of parts, not a number",
            ),
            (
                {"choices": [{"refusal": False}]},
                "`choices[0].refusal` must be text or a list of parts, not false",
            ),
            (
                {"choices": [{"content": [["x"]]}]},
                "`choices[0].content[0]` must be text or an object, not a list",
            ),
            (
                {"choices": [{"content": [{"text": 3}]}]},
                "`choices[0].content[0].text` must be text or a list of parts, not a number",
            ),
            ({"response": "x", "prompt": 3}, "`prompt` must be text, not a number"),
            (
                {"response": "x", "system": [3]},
                "`system[0]` must be text or an object, not a number",
            ),
            ({"response": "x", "model": {}}, "`model` must be text, not an object"),
            ({"response": "x", "metadata": []}, "`metadata` must be an object, not an empty list"),
            ({"response": "x", "metadata": ""}, "`metadata` must be an object, not text"),
            ({"response": "x", "messages": {}}, "`messages` must be a list, not an object"),
            ({"response": "x", "messages": "hi"}, "`messages` must be a list, not text"),
            ({"response": "x", "messages": [3]}, "`messages[0]` must be an object, not a number"),
            (
                {"response": "x", "messages": [{"role": "user", "content": 3}]},
                "`messages[0].content` must be text or a list of parts, not a number",
            ),
            (
                {"response": "x", "messages": [{"role": "user", "content": [3]}]},
                "`messages[0].content[0]` must be text or an object, not a number",
            ),
            (
                {"response": "x", "messages": [{"role": "user", "content": "p"}], "prompt": "q"},
                "`prompt` is not the last user message: leave one of them out",
            ),
        ],
    )
    def test_each_is_named_by_its_path(self, data: Any, expected: str) -> None:
        """A wrong type at any place is an `InputError` that names the place and both types."""
        assert problems(data) == [expected]

    @pytest.mark.parametrize("role", [None, "robot", 3, [], {}])
    def test_roles_are_listed(self, role: Any) -> None:
        """An unknown role is refused with the known ones."""
        data = {"response": "x", "messages": [{"role": role, "content": "p"}]}
        (problem,) = problems(data)
        assert (
            problem == "`messages[0].role` must be one of system, developer, user, assistant, tool"
        )

    @pytest.mark.parametrize("choice", [{}, {"finish_reason": "stop"}, {"message": {"role": "x"}}])
    def test_a_choice_without_anything_to_judge_is_refused(self, choice: Any) -> None:
        """An unknown shape is an error and not an empty answer."""
        (problem,) = problems({"choices": [choice]})
        assert "there is nothing to judge" in problem

    def test_all_are_named_at_once(self) -> None:
        """One error lists every problem of an exchange."""
        data = {
            "choices": [{"content": 1, "tool_calls": 2}, None],
            "messages": [{"role": "x"}, 3],
            "model": 4,
            "metadata": 5,
        }
        places = [problem.split("`")[1] for problem in problems(data)]
        assert sorted(places) == [
            "choices[0].content",
            "choices[0].tool_calls",
            "choices[1]",
            "messages[0].role",
            "messages[1]",
            "metadata",
            "model",
        ]

    def test_very_many_are_counted(self) -> None:
        """A message stays readable where thousands of entries are wrong."""
        found = problems({"choices": [None] * 1000})
        assert len(found) == 21
        assert found[-1] == "and 980 more"

    def test_endless_nesting_is_refused(self) -> None:
        """Parts inside parts inside parts are an error and not a crash."""
        deep: Any = "x"
        for _ in range(5000):
            deep = [{"thinking": deep}]
        (problem,) = problems({"response": deep})
        assert "nested too deeply" in problem

    def test_nested_arguments_are_refused(self) -> None:
        """Arguments too deep to be written are an error by name."""
        deep: Any = {}
        for _ in range(100_000):
            deep = {"a": deep}
        (problem,) = problems({"choices": [{"tool_calls": [{"name": "f", "args": deep}]}]})
        assert "`choices[0].tool_calls[0].args` cannot be written as JSON" in problem

    @given(st.dictionaries(KEYS, JSON, max_size=6))
    def test_any_json_is_read_or_refused(self, data: dict[str, Any]) -> None:
        """Whatever JSON holds, the answer is an exchange or an `InputError`."""
        with suppress(InputError):
            assert Exchange.parse(json.loads(json.dumps(data))).choices


class TestUnescaped:
    """JSON without the escapes that hide characters."""

    @pytest.mark.parametrize("text", ["", "{}", '{"a": "b\\n\\"c"}', '{"a": "b"', r"\u12", r"[\n"])
    def test_nothing_is_hidden(self, text: str) -> None:
        """Without an escape that needs none to stand for, there is no other text."""
        assert unescaped(text) is None

    @pytest.mark.parametrize("end", ["}", ",}", "", ', "n": ' + "1" * 5000 + "}"])
    def test_escapes_are_undone_whether_or_not_it_parses(self, end: str) -> None:
        """A comma too many, a missing end or a long number keep nothing from being seen."""
        plain = unescaped(r'{"k": "\u0073k \ud83d\ude00 \/"' + end)
        assert plain == '{"k": "sk \U0001f600 /"' + end

    def test_every_escape_is_known(self) -> None:
        """What is no escape stays, and an escaped backslash begins none."""
        text = r'{"\b\f\n\r\t\"\\\/", \x \u12 \\u0041 \u0041\u00E9\ud83d"'
        plain = '{"\b\f\n\r\t"\\/", \\x \\u12 \\u0041 A\u00e9\ud83d"'
        assert unescaped(text) == plain

    def test_what_is_nested_too_deeply(self) -> None:
        """Python gives up on it; a reader in another language need not."""
        assert unescaped("[" * 100_000 + r'"\u0041"') == "[" * 100_000 + '"A"'

    @given(st.text(), st.booleans())
    def test_any_text(self, text: str, parses: bool) -> None:  # noqa: FBT001  # hypothesis draws it
        """Where nothing is parsed, every string of any JSON is found as it is meant."""
        written = json.dumps([text, "\u00e9"]) + ("" if parses else ",")
        plain = unescaped(written)
        assert plain is not None
        meant = text if not parses else json.dumps(text, ensure_ascii=False)
        assert meant in plain
