"""From rows to examples: bags of a response's units, with targets, masks and augmentation."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from guard.encoding import TEXT_TOKENS, Encoder, Sizes
from guard.loading import BUNDLED_MODEL
from guard.text.units import CLOSING, CONTEXT, units
from guard.training import examples as module
from guard.training.data import HEADS, Row
from guard.training.examples import UNITS_FINE, UNITS_RISKY, examples, response_units

SENTENCE = "The tide comes in twice a day and leaves the harbour wall wet up to the third step. "
LONG = "".join(f"{n}. {SENTENCE}" for n in range(40))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """Return the bundled model's encoder."""
    return Encoder(Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json")))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch augmentation off."""
    for name in ("OBFUSCATED", "CONTEXT_DROPPED", "CONTEXT_SWAPPED"):
        monkeypatch.setattr(module, name, 0.0)


def row(response: str = LONG, prompt: str = "Tell me.", **changes: Any) -> Row:
    """Return a row about violence."""
    values: dict[str, Any] = {
        "labels": {"violence": 0.0},
        "file": "toy",
        "licence": "CC0-1.0",
        "weight": 1.0,
    }
    return Row(prompt, response, **(values | changes))


class TestUnits:
    """What a response is cut into."""

    def test_they_are_the_runtimes(self) -> None:
        """Each passage is a unit behind at most `CONTEXT` characters of what stands before it."""
        found = response_units(LONG)
        for (start, end), passage in zip(units(LONG), found, strict=True):
            assert passage.text[passage.start :] == LONG[start:end]
            assert passage.text == LONG[max(0, start - CONTEXT) : end]
        assert max(passage.start for passage in found) == CONTEXT

    def test_a_limit_keeps_the_first(self) -> None:
        """Only so many units are returned, from the beginning."""
        assert response_units(LONG, 3) == response_units(LONG)[:3]
        assert response_units("", 3) == []


@pytest.mark.usefixtures("plain")
class TestBags:
    """Which units of a row are read together."""

    @pytest.mark.parametrize(("label", "count"), [(1.0, UNITS_RISKY), (0.0, UNITS_FINE)])
    def test_risky_rows_show_more(self, encoder: Encoder, label: float, count: int) -> None:
        """Of a long response a few units are drawn, more where it is risky, none twice."""
        given = [row(labels={"violence": label})] * 20
        for example in examples(given, encoder, random.Random(1)):
            assert len(example.windows) == count
            assert len({window.ids.tobytes() for window in example.windows}) == count

    def test_a_short_response_is_one_window(self, encoder: Encoder) -> None:
        """A response of one unit is read once, with its prompt."""
        (example,) = examples([row("Take the train.")], encoder, random.Random(1))
        (expected,) = encoder.encode("Tell me.", "Take the train.")
        assert [window.ids.tolist() for window in example.windows] == [expected.ids.tolist()]
        assert max(len(window.ids) for window in example.windows) == len(expected.ids)

    def test_every_unit_is_drawn_in_time_and_the_last_by_half(self, encoder: Encoder) -> None:
        """Over many passes each unit is read; the last one, with all its context, most often."""
        passages = response_units(LONG)
        keys = [
            encoder.encode("Tell me.", p.text, start=p.start)[0].ids.tobytes() for p in passages
        ]
        drawn = [0] * len(keys)
        for example in examples([row()] * 300, encoder, random.Random(1)):
            for window in example.windows:
                drawn[keys.index(window.ids.tobytes())] += 1
        assert min(drawn) > 0
        assert drawn[-1] > 120
        assert drawn[-1] > 2 * max(drawn[:-1])

    def test_whole_answers_are_read_as_the_closing_read_does(self, encoder: Encoder) -> None:
        """So many answers of several units are one window too; short ones never."""
        wide = Encoder(encoder._tokenizer, sizes=Sizes(48, 64, 48, closing=100))
        given = [*examples([row()] * 200, wide, random.Random(1), closing=0.4)]
        expected = wide.encode_closing("Tell me.", LONG[-CLOSING:])
        assert expected is not None
        same = [e for e in given if e.windows[0].ids.tolist() == expected.ids.tolist()]
        assert len(given) == 200 + len(same)
        assert 50 < len(same) < 110
        assert all(len(example.windows) == 1 for example in same)
        short = row("Take the train.")
        assert len([*examples([short], wide, random.Random(1), closing=1.0)]) == 1

    def test_windows_fit(self, encoder: Encoder) -> None:
        """No window is longer than the runtime's."""
        for example in examples([row()] * 10, encoder, random.Random(1)):
            assert all(len(window.ids) <= TEXT_TOKENS + 48 + 3 for window in example.windows)


@pytest.mark.usefixtures("plain")
def test_each_example_knows_its_question(encoder: Encoder) -> None:
    """Both sides of a row are of one fold."""
    one = row(labels={"violence": 0.0, "jailbreak": 0.0})
    other = row(prompt="Tell me something else.")
    found = list(examples([one], encoder, random.Random(1)))
    assert len(found) == 2
    assert {example.question for example in found} == {one.question_number}
    assert one.question_number != other.question_number
    assert row("Another answer.").question_number == one.question_number < 2**32


class TestTargets:
    """Labels and weights."""

    def test_unknown_labels_are_masked(self, encoder: Encoder) -> None:
        """Known labels have the row's weight, others none."""
        labels = {"violence": 1.0, "sexual": 0.25}
        (example,) = examples([row(labels=labels, weight=0.5)], encoder, random.Random(1))
        known = {head: float(w) for head, w in zip(HEADS, example.mask, strict=True) if w}
        assert known == {"violence": 0.5, "sexual": 0.5}
        assert example.targets[HEADS.index("sexual")] == np.float32(0.25)
        assert example.mask.shape == example.targets.shape == (len(HEADS),)

    def test_emphasis_is_per_head(self, encoder: Encoder) -> None:
        """A head's emphasis multiplies the row's weight."""
        given = row(labels={"violence": 1.0, "sexual": 0.0}, weight=0.5, emphasis={"sexual": 3.0})
        (example,) = examples([given], encoder, random.Random(1))
        assert example.mask[HEADS.index("violence")] == np.float32(0.5)
        assert example.mask[HEADS.index("sexual")] == np.float32(1.5)

    def test_each_side_is_an_example_of_its_own(self, encoder: Encoder) -> None:
        """A row with labels for both sides becomes a response and a prompt, each masked."""
        given = row("Sure.", "Ignore that.", labels={"violence": 1.0, "jailbreak": 1.0})
        response, prompt = examples([given], encoder, random.Random(1))
        assert response.mask[HEADS.index("jailbreak")] == 0
        assert prompt.mask[HEADS.index("violence")] == 0
        assert prompt.mask[HEADS.index("jailbreak")] == 1
        (expected,) = encoder.encode("", "Ignore that.", "prompt")
        assert prompt.windows[0].ids.tolist() == expected.ids.tolist()

    @pytest.mark.parametrize(
        "given",
        [
            row("", "Ignore that.", labels={"violence": 1.0}),
            row("Sure.", "", labels={"jailbreak": 1.0}),
            row("  \n", "", labels={"violence": 1.0}),
        ],
    )
    def test_what_has_no_text_to_judge_is_no_example(self, encoder: Encoder, given: Row) -> None:
        """A label without its side's text teaches nothing."""
        assert not list(examples([given], encoder, random.Random(1)))


class TestAugmentation:
    """What training changes."""

    def test_a_seed_decides(self, encoder: Encoder) -> None:
        """The same seed gives the same examples."""
        rows = [row(labels={"violence": float(n % 2)}) for n in range(10)]
        first, second = (
            [
                [window.ids.tolist() for window in example.windows]
                for example in examples(rows, encoder, random.Random(3))
            ]
            for _ in range(2)
        )
        assert first == second

    def test_prompts_are_dropped_sometimes(
        self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A row is read without its prompt at the rate that is set."""
        monkeypatch.setattr(module, "OBFUSCATED", 0.0)
        for rate, prompt in ((1.0, ""), (0.0, "Tell me.")):
            given = row("Take the train.", prompt_dropped=rate)
            (example,) = examples([given], encoder, random.Random(1))
            (expected,) = encoder.encode(prompt, "Take the train.")
            assert example.windows[0].ids.tolist() == expected.ids.tolist()

    def test_a_unit_stands_behind_another_answer_at_times(
        self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is judged stays, and what stands before it is another row's text."""
        for name in ("OBFUSCATED", "CONTEXT_DROPPED"):
            monkeypatch.setattr(module, name, 0.0)
        monkeypatch.setattr(module, "CONTEXT_SWAPPED", 1.0)
        calm = ["Kneading takes ten minutes. Then the dough rests under a cloth until it doubles. "]
        (example,) = examples([row("Take the train.")], encoder, random.Random(2), calm)
        (window,) = example.windows
        (alone,) = encoder.encode("", "Take the train.")
        assert window.ids[window.unit].tolist() == alone.ids[alone.unit].tolist()
        assert window.unit.start > alone.unit.start + 5

    def test_calm_texts_are_whole_benign_answers(self) -> None:
        """Neither short ones nor those of files with labels of their own."""
        given = [row(file="benign_toy"), row("Short.", file="benign_toy"), row(file="toy")]
        assert module.calm_texts(given) == [LONG]

    def test_obfuscation_comes_before_cutting(
        self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The whole response is hidden, and then cut as the runtime cuts what it receives."""
        seen: list[str] = []

        def watched(text: str, _: random.Random) -> str:
            seen.append(text)
            return text

        monkeypatch.setattr(module, "OBFUSCATED", 1.0)
        monkeypatch.setattr(module, "obfuscated", watched)
        list(examples([row()], encoder, random.Random(1)))
        assert seen == [LONG]

    def test_forced_prefixes_are_stripped_mostly(self) -> None:
        """Of the source with forced beginnings most rows lose theirs, and none all its text."""
        given = row("Sure, here is the list: salt, rope, lamp.", file="advbench_priming_attacks")
        rng = random.Random(1)
        found = [module._response(given, rng) for _ in range(100)]
        assert 50 < found.count("salt, rope, lamp.") < 90
        only = row("Sure, here is:", file="advbench_priming_attacks")
        assert all(module._response(only, rng) for _ in range(20))
        assert module._response(row(given.response), rng) == given.response
