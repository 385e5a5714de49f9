"""Parts: every string of a document is found, and nothing is read in two ways."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.exchange import Channel
from guard.unsaid import DEEPEST, PASSED_OVER, is_data
from guard.wire.parts import BodyError, Part, counts, joined, others, parse, plain, setter, written

if TYPE_CHECKING:
    from guard.exchange import ChannelKind

OTHER: Final = Channel("other", "content", 0, "")

texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def part(holder: dict[str, Any], key: str, kind: ChannelKind = "content") -> Part:
    """Return the part at a key, in the channel of the key's name."""
    return Part(Channel(key, kind, 0, ""), holder[key], setter(holder, key))


def strings(value: Any) -> list[str]:
    """Return every string in a document, keys included."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    if isinstance(value, dict):
        return [text for pair in value.items() for inner in pair for text in strings(inner)]
    return []


class TestParse:
    """A document is one object that all readers read alike."""

    @given(st.dictionaries(texts, values, max_size=4))
    def test_any_object(self, document: dict[str, Any]) -> None:
        """An object is read as it is, from text and from bytes, and written so."""
        text = json.dumps(document)
        assert parse(text) == parse(text.encode()) == (document, True)
        assert json.loads(written(document)) == document

    @pytest.mark.parametrize(
        "text", ['{"a":1,"a":2}', '{"b":[{"a":1,"a":1}]}', r'{"a":1,"\u0061":1}']
    )
    def test_key_that_stands_twice(self, text: str) -> None:
        """Where a key stands twice, readers differ; that is told."""
        assert not parse(text)[1]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is no JSON"),
            ("secret", "is no JSON"),
            ('{"secret": ', "is no JSON"),
            (b'{"secret": "\xff"}', "is no JSON"),
            ("\ufeff{}", "is no JSON"),
            ('["secret"]', "is no JSON object"),
            ('"secret"', "is no JSON object"),
            ('{"a":' * 70 + "1" + "}" * 70, f"deeper than {DEEPEST} levels"),
            ("[" * 10**6, "is no JSON"),
            ('{"a":' + "1" * 5000 + "}", "is no JSON"),
        ],
    )
    def test_unreadable(self, text: str | bytes, message: str) -> None:
        """What cannot be read is an error that does not quote it."""
        with pytest.raises(BodyError, match=message) as caught:
            parse(text)
        assert "secret" not in str(caught.value)

    def test_lone_surrogate(self) -> None:
        """Half a character is kept as it came."""
        document, _ = parse(r'{"a":"\ud800"}')
        assert written(document) == r'{"a":"\ud800"}'


class TestOthers:
    """What nobody knows is judged, string by string."""

    @given(st.dictionaries(texts.filter(lambda key: key not in PASSED_OVER), values, max_size=4))
    def test_every_string(self, document: dict[str, Any]) -> None:
        """Every string is found, and so is every key that could be a text."""
        found = [each.text for each in others(document, OTHER)]
        assert all(each.lone for each in others(document, OTHER))
        for text in strings(document):
            assert text in found or (text.isascii() and " " not in text)

    def test_no_spaces_needed(self) -> None:
        """Under a key that says nothing a text in another script is found, an identifier is not."""
        document = {"a": {"role": "\u79d8\u5bc6\u306e\u8a71"}, "b": {"role": "tool"}}
        assert [each.text for each in others(document, OTHER)] == ["\u79d8\u5bc6\u306e\u8a71"]

    def test_names(self) -> None:
        """Strings under one key are one text, however deep; a key that is a text names nothing."""
        document = {"a": {"b": ["x", {"c": "y"}]}, "my secret": "z"}
        found = [(each.channel.name, each.text) for each in others(document, OTHER)]
        assert found == [
            ("other.a.b", "x"),
            ("other.a.b.c", "y"),
            ("other", "my secret"),
            ("other.*", "z"),
        ]

    def test_put(self) -> None:
        """A string can be written where it stands."""
        document = {"a": {"b": ["x"]}}
        next(others(document, OTHER)).put("y")
        assert document == {"a": {"b": ["y"]}}

    def test_known_keys(self) -> None:
        """Keys that are taken elsewhere are left out, at the top alone."""
        found = others({"a": "x", "b": {"a": "y"}}, OTHER, ("a",))
        assert [each.text for each in found] == ["y"]

    @given(st.integers(min_value=10**10, max_value=10**18), st.sampled_from([1, -1]))
    def test_long_numbers(self, number: int, sign: int) -> None:
        """A long number is a text wherever it stands, on a line of its own."""
        document = {"a": [sign * number, {"b": sign * number}], "c": float(10**12)}
        found = [each.text for each in others(document, OTHER)]
        assert found == [f"\n{sign * number}\n"] * 2 + ["\n1000000000000\n"]
        assert counts(document) == {"a": None, "c": None}
        assert plain(document, ("c",)) == {}

    @pytest.mark.parametrize(
        "number", [0, -7, 1_048_576, 1_700_000_000, 9_999_999_999, 0.123456789012, True]
    )
    def test_short_numbers(self, number: float) -> None:
        """Counts, scores and times in seconds are no text."""
        assert list(others({"a": [number], "b": number}, OTHER)) == []
        assert plain({"a": number}, ("a",)) == {"a": number}

    def test_no_numbers(self) -> None:
        """Python reads words and digits without end as numbers."""
        document, _ = parse('{"a": [NaN, Infinity, -Infinity, 1e400], "b": 1e30}')
        assert len(list(others(document, OTHER))) == 1
        assert list(others({"id": 10**15}, OTHER)) == []

    @pytest.mark.parametrize("key", sorted(PASSED_OVER))
    def test_identifiers(self, key: str) -> None:
        """An identifier is passed over; a sentence or a document under its key is not."""
        assert list(others({key: "call_1f"}, OTHER)) == []
        assert [each.text for each in others({key: "two words"}, OTHER)] == ["two words"]
        assert [each.text for each in others({key: ["word"]}, OTHER)] == ["word"]

    def test_images(self) -> None:
        """An image in base64 is no text where images stand; it is one anywhere else."""
        image = "iVBORw0KGgo" * 400
        assert is_data(image)
        assert list(others({"data": image}, OTHER)) == []
        assert list(others({"text": image}, OTHER))
        assert list(others({"data": image[:1020]}, OTHER))
        assert list(others({"data": image[:-1] + " "}, OTHER))


class TestJoined:
    """One text under several keys is one text."""

    def test_two_spellings(self) -> None:
        """Both are rewritten, and the part says what it stands for."""
        holder = {"reasoning": "hm", "thinking": "hm"}
        first, *rest = joined(part(holder, key, "reasoning") for key in holder)
        assert (rest, first.also) == ([], ("thinking",))
        first.put("oh")
        assert holder == {"reasoning": "oh", "thinking": "oh"}

    def test_unknown_key(self) -> None:
        """A text of nobody knows what that repeats one of a channel is that one."""
        holder = {"reasoning": "hm", "note": "hm"}
        given = [part(holder, "reasoning", "reasoning"), *others(holder, OTHER, ("reasoning",))]
        first, *rest = joined(given)
        assert (rest, first.also) == ([], ("other.note",))
        first.put("oh")
        assert holder["note"] == "oh"

    def test_one_text_twice(self) -> None:
        """A text that is said twice is not one text."""
        holder = {"content": "ha"}
        given = [part(holder, "content"), part(holder, "content")]
        assert list(joined(given)) == given

    def test_other_kinds(self) -> None:
        """Texts of two kinds are two, and no two calls are one."""
        holder = {"content": "x", "reasoning": "x"}
        given = [part(holder, "content"), part(holder, "reasoning", "reasoning")]
        assert list(joined(given)) == given
        calls = [part(holder, key, "tool_call") for key in holder]
        assert list(joined(calls)) == calls


class TestAround:
    """What stands around an answer can be kept without any text in it."""

    def test_plain(self) -> None:
        """Identifiers and numbers are kept; sentences, lists and unknown texts are not."""
        document = {"id": "a1", "model": "two words", "object": ["x"], "created": 3, "note": "x"}
        assert plain(document, ("id", "model", "object", "created", "note", "type")) == {
            "id": "a1",
            "created": 3,
        }

    def test_counts(self) -> None:
        """Usage is numbers, however deep."""
        usage = {"a": 1, "b": {"c": 2.5, "d": "text", "two words": 3}, "e": ["x"], "f": None}
        usage["service_tier"] = "default"
        assert counts(usage) == {
            "a": 1,
            "b": {"c": 2.5, "d": None},
            "e": None,
            "f": None,
            "service_tier": "default",
        }
        assert counts("text") is None
