"""Training: the loss against plain numpy, averaged weights, and runs that go on."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from guard.categories import CATEGORIES
from guard.encoding import Encoded
from guard.training import reading, teachers
from guard.training import train as module
from guard.training.data import HEADS
from guard.training.examples import Example
from guard.training.passes import pack
from guard.training.reading import padded, read
from guard.training.train import CHECKPOINT, Config, Taught, batch_loss, head_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOCABULARY = 12
PROMPT_HEADS = np.array([CATEGORIES[head].side == "prompt" for head in HEADS])


class Small(torch.nn.Module):
    """A network of the interface of `GuardModel`: mean embedding, dropout, linear head."""

    def __init__(self, heads: int = len(HEADS), dropout: float = 0.3, **_: Any) -> None:
        """Draw weights from torch's own generator."""
        super().__init__()
        self.encoder = torch.nn.Embedding(VOCABULARY, 6)
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(6, heads)

    def forward(self, ids: Any, _: Any, mask: Any) -> Any:
        """Return logits and pooled embeddings."""
        weights = mask.unsqueeze(-1).float()
        pooled = (self.encoder(ids) * weights).sum(1) / weights.sum(1)
        return self.head(self.dropout(pooled)), pooled


def window(rng: np.random.Generator) -> Encoded:
    """Return some tokens."""
    ids = rng.integers(0, VOCABULARY, rng.integers(2, 9)).tolist()
    return encoded(ids, [0] * len(ids))


def encoded(ids: list[int], types: list[int]) -> Encoded:
    """Return a window of which every token is the unit's."""
    ones = np.ones(len(ids), np.int64)
    return Encoded(np.array(ids), np.array(types), slice(0, len(ids)), ones)


def bags(count: int, seed: int = 1) -> list[Example]:
    """Return examples of one to three windows, with soft labels and unknown ones."""
    rng = np.random.default_rng(seed)
    shape = (count, len(HEADS))
    targets = rng.choice([0.0, 0.0, 0.3, 1.0], shape).astype(np.float32)
    masks = rng.choice([0.0, 0.5, 1.0], shape).astype(np.float32)
    return [
        Example(tuple(window(rng) for _ in range(rng.integers(1, 4))), target, mask)
        for target, mask in zip(targets, masks, strict=True)
    ]


def sided(count: int, *, prompts: bool = True) -> list[Example]:
    """Return examples that are each of one side; every third of the prompt's."""
    found = []
    for number, example in enumerate(bags(count)):
        heads = PROMPT_HEADS if prompts and number % 3 == 0 else ~PROMPT_HEADS
        found.append(replace(example, mask=heads.astype(np.float32)))
    return found


def expected_loss(
    logits: list[NDArray[np.float64]], batch: list[Example], weights: NDArray[np.float64]
) -> float:
    """Return the loss in plain numpy, head by head and window by window."""
    total, known = 0.0, 0.0
    for scores, example in zip(logits, batch, strict=True):
        for head in range(len(HEADS)):
            column = scores[:, head]
            soft_maximum = np.log(np.mean(np.exp(column)))
            positive = np.log1p(np.exp(-soft_maximum))
            negative = np.mean(np.log1p(np.exp(column)))
            target = float(example.targets[head])
            weight = float(example.mask[head]) * weights[head]
            total += weight * (target * positive + (1 - target) * negative)
            known += weight
    return total / max(known, 1.0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the small network, on rows that hold their examples already."""
    monkeypatch.setattr(module, "GuardModel", Small)
    monkeypatch.setattr(
        module,
        "encoded",
        lambda passes, *_, **__: (pack([r.example for r in rows]) for rows in passes),
    )
    monkeypatch.setattr(reading, "_has_bfloat16", lambda _: False)


@dataclass(frozen=True)
class Ready:
    """A row with its example."""

    example: Example
    prompt: str = ""
    response: str = ""
    weight: float = 1.0
    labels: dict[str, float] = field(default_factory=dict)
    emphasis: dict[str, float] = field(default_factory=dict)
    file: str = "toy"
    question_number: int = 0


class Unread:
    """An encoder that encodes nothing."""

    def recipe(self) -> str:
        """Return what an encoder is."""
        return "none"


class Given:
    """A split of rows that hold their examples."""

    def __init__(self, count: int = 60, seed: int = 1) -> None:
        """Make some."""
        known = {"violence": 0.0}
        self.passes: Any = (
            [
                Ready(bag, response=str((seed, bag.targets)), labels=known)
                for bag in bags(count, seed)
            ],
        )
        self.validation: Any = []


def fit(
    out: Path, *, rows: int = 1, start: Path | None = None, **changes: Any
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Train the small network; return its weights and what happened."""
    settings: dict[str, Any] = {
        "batch": 4,
        "minutes": 60.0,
        "threads": 1,
        "frozen": 0,
        "device": "cpu",
    }
    config = Config(**(settings | changes))
    split: Any = Given(seed=rows)
    encoder: Any = Unread()
    model, history = module.train(split, encoder, config, out, start)
    return {name: value.numpy() for name, value in model.state_dict().items()}, history


def close(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    """Return whether weights are the same up to rounding: the clock has a say in the rate."""
    return all(np.allclose(one[name], other[name], rtol=0, atol=1e-6) for name in one)


class TestLoss:
    """`batch_loss`."""

    @pytest.mark.usefixtures("small")
    @pytest.mark.parametrize("seed", range(4))
    def test_it_is_the_formulas(self, seed: int) -> None:
        """Soft maximum for positives, mean for negatives, masked, weighted and averaged."""
        torch.manual_seed(seed)
        model = Small(dropout=0.0)
        batch = bags(7, seed)
        weights = np.random.default_rng(seed).uniform(1, 6, len(HEADS))
        logits = []
        for example in batch:
            scores, _ = model(*padded(pack([example])))
            logits.append(scores.detach().numpy().astype(np.float64))
        found = batch_loss(model, pack(batch), torch.tensor(weights, dtype=torch.float32))  # type: ignore[arg-type]
        assert float(found.detach()) == pytest.approx(
            expected_loss(logits, batch, weights), rel=1e-4
        )

    @pytest.mark.usefixtures("small")
    def test_one_window_is_plain_cross_entropy(self) -> None:
        """For a bag of one both sides are the usual loss of a logit."""
        torch.manual_seed(1)
        model = Small(dropout=0.0)
        batch = [Example(e.windows[:1], e.targets, np.ones_like(e.mask)) for e in bags(5)]
        scores, _ = model(*padded(pack(batch)))
        targets = torch.from_numpy(np.stack([e.targets for e in batch]))
        plain = torch.nn.functional.binary_cross_entropy_with_logits(scores, targets)
        found = batch_loss(model, pack(batch), torch.ones(len(HEADS)))  # type: ignore[arg-type]
        assert float(found.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)

    @pytest.mark.usefixtures("small")
    def test_nothing_known_is_no_loss(self) -> None:
        """A batch whose labels are all unknown moves nothing and divides by nothing."""
        batch = [Example(e.windows, e.targets, np.zeros_like(e.mask)) for e in bags(3)]
        found = batch_loss(Small(), pack(batch), torch.ones(len(HEADS)))  # type: ignore[arg-type]
        assert float(found.detach()) == 0

    def test_padding_is_masked(self) -> None:
        """Windows of different lengths are padded behind, and the mask says where."""
        short = encoded([5, 6], [0, 1])
        long = encoded([7, 8, 9], [0, 0, 1])
        none = np.zeros(len(HEADS), np.float32)
        ids, types, mask = padded(pack([Example((short, long), none, none)]))
        assert ids.tolist() == [[5, 6, 0], [7, 8, 9]]
        assert types.tolist() == [[0, 1, 0], [0, 0, 1]]
        assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]


@pytest.mark.usefixtures("small")
class TestTaught:
    """What teachers say beside the labels."""

    def test_it_is_the_formula(self) -> None:
        """Cross-entropy with what they say, over the windows and the heads of their side."""
        torch.manual_seed(1)
        model = Small(dropout=0.0)
        batch = pack(sided(6))
        logits = model(*padded(batch))[0].detach().double().numpy()
        rng = np.random.default_rng(1)
        said = rng.random(logits.shape)
        weights = rng.uniform(1, 6, len(HEADS))
        total, known = 0.0, 0.0
        for example in range(len(batch)):
            prompts = batch.mask[example][PROMPT_HEADS].any()
            heads = PROMPT_HEADS if prompts else ~PROMPT_HEADS
            for at in range(batch.bags[example], batch.bags[example + 1]):
                p = 1 / (1 + np.exp(-logits[at]))
                apart = -said[at] * np.log(p) - (1 - said[at]) * np.log(1 - p)
                total += float((apart * weights)[heads].sum())
                known += float(weights[heads].sum())
        factors = torch.tensor(weights, dtype=torch.float32)
        taught = Taught(torch.tensor(said, dtype=torch.float32), 0.3)
        labelled = float(batch_loss(model, batch, factors).detach())  # type: ignore[arg-type]
        found = float(batch_loss(model, batch, factors, taught).detach())  # type: ignore[arg-type]
        assert found == pytest.approx(0.3 * total / known + 0.7 * labelled, rel=1e-4)

    def test_a_run_learns_what_teachers_say(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Taught alone, without labels, it comes nearer to them than where it began."""
        monkeypatch.setattr(teachers, "GuardModel", Small)
        torch.manual_seed(5)
        teacher = Small(dropout=0.0)
        with torch.no_grad():
            teacher.head.weight *= 9
        (tmp_path / "one").mkdir()
        torch.save(teacher.state_dict(), tmp_path / "one" / teachers.WEIGHTS)
        settings: dict[str, Any] = {
            "teachers": str(tmp_path / "one"),
            "taught": 1.0,
            "seed": 3,
        }
        fast: dict[str, Any] = {"epochs": 60, "head_rate": 0.1, "encoder_rate": 0.1, "average": 0.9}
        began, _ = fit(tmp_path / "a.pt", **settings, minutes=1e-9)
        ended, _ = fit(tmp_path / "b.pt", **settings, **fast)

        def apart(weights: Any) -> float:
            model = Small(dropout=0.0)
            model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
            batch = padded(pack(sided(40, prompts=False)))
            said = [torch.sigmoid(one(*batch)[0]) for one in (model.eval(), teacher.eval())]
            return float((said[0] - said[1]).detach().abs()[:, torch.tensor(~PROMPT_HEADS)].mean())

        assert apart(ended) < 0.6 * apart(began)

    def test_what_a_teacher_has_not_read_it_says_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of a fold only its own teacher is asked; where all have read, or none, all are."""
        monkeypatch.setattr(teachers, "GuardModel", Small)
        found = []
        for number, fold in enumerate(("1/3", "2/3", "")):
            folder = tmp_path / str(number)
            folder.mkdir()
            torch.manual_seed(number)
            found.append(Small(dropout=0.0).eval())
            torch.save(found[-1].state_dict(), folder / teachers.WEIGHTS)
            if fold:
                stages = [{"config": {"fold": fold}}]
                (folder / teachers.HISTORY).write_text(json.dumps(stages))
        one, two, three = bags(3)
        batch = pack([replace(e, question=n) for n, e in enumerate((one, two, three))])
        asked = teachers.Teachers([tmp_path / str(n) for n in range(3)], torch.device("cpu"))
        shown: list[int] = []
        original = read

        def counted(model: Any, given: Any, place: Any) -> Any:
            shown.append(len(given.windows) - 1)
            return original(model, given, place)

        monkeypatch.setattr(teachers, "read", counted)
        said = asked(batch)
        # The third example is asked about thrice, and each of the others once.
        assert sum(shown) == batch.sizes.sum() + 2 * batch.sizes[2]
        each = [torch.sigmoid(model(*padded(batch))[0]) for model in found]
        for number, expected in enumerate((each[0], each[1], torch.stack(each).mean(0))):
            part = slice(batch.bags[number], batch.bags[number + 1])
            assert torch.allclose(said[part], expected[part], atol=1e-6)

    def test_stages_that_read_more_make_no_fold(self, tmp_path: Path) -> None:
        """What one stage of a run has read, the run has read."""
        stages: list[dict[str, Any]] = [{"config": {}}, {"config": {"fold": "1/3"}}]
        (tmp_path / teachers.HISTORY).write_text(json.dumps(stages))
        assert teachers._fold(tmp_path) is None
        (tmp_path / teachers.HISTORY).write_text(json.dumps(stages[1:]))
        assert teachers._fold(tmp_path) == teachers.Fold(0, 3)

    def test_teachers_are_asked_once_about_a_window(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Passes that are read again do not ask again, and learn the same."""
        monkeypatch.setattr(teachers, "GuardModel", Small)
        torch.save(Small().state_dict(), tmp_path / teachers.WEIGHTS)
        asked: list[int] = []
        original = teachers.Teachers.__call__

        def counted(given: Any, batch: Any) -> Any:
            asked.append(len(batch.windows) - 1)
            return original(given, batch)

        monkeypatch.setattr(teachers.Teachers, "__call__", counted)
        settings: dict[str, Any] = {"teachers": str(tmp_path), "epochs": 3}
        windows = len(pack(bags(60)).windows) - 1
        fit(tmp_path / "again.pt", draws=1, **settings)
        assert sum(asked) == windows
        asked.clear()
        fit(tmp_path / "anew.pt", **settings)
        assert sum(asked) == 3 * windows

    def test_what_is_kept_is_what_was_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For whichever examples are taken together, in whichever order."""
        monkeypatch.setattr(teachers, "GuardModel", Small)
        torch.save(Small().state_dict(), tmp_path / teachers.WEIGHTS)
        asked = teachers.Teachers([tmp_path], torch.device("cpu"))
        data = pack(bags(12))
        said = teachers.Said(asked, data)
        for taken in ([3, 1], [1, 7, 3], [7, 0], [3, 1]):
            assert torch.allclose(said.of(taken), asked(data.taken(taken)), atol=1e-6)

    def test_a_teacher_without_weights_is_named(self, tmp_path: Path) -> None:
        """The error says which folder and what should be in it."""
        with pytest.raises(FileNotFoundError, match="nobody has no weights"):
            fit(tmp_path / "w.pt", teachers=str(tmp_path / "nobody"))


class TestWeights:
    """Of heads."""

    def test_rare_heads_weigh_more_within_bounds(self) -> None:
        """The commonest head has weight 1, and none more than 6."""
        masks = np.zeros((200, len(HEADS)), np.float32)
        masks[:, 0], masks[:50, 1], masks[:1, 2] = 1, 1, 1
        weights = head_weights(masks)
        assert weights[:4].tolist() == [1, 2, 6, 6]


@pytest.mark.usefixtures("small")
class TestRuns:
    """`train`."""

    def test_a_seed_decides(self, tmp_path: Path) -> None:
        """The same settings give the same weights, another seed others."""
        first, history = fit(tmp_path / "a.pt")
        second, _ = fit(tmp_path / "b.pt")
        other, _ = fit(tmp_path / "c.pt", seed=8)
        assert close(first, second)
        assert not close(first, other)
        assert (history["steps"], history["examples"], history["rows"]) == (15, 60, 60)
        assert not (tmp_path / CHECKPOINT).exists()

    def test_what_is_saved_is_what_is_returned(self, tmp_path: Path) -> None:
        """The file holds the model's weights."""
        weights, _ = fit(tmp_path / "w.pt")
        saved = torch.load(tmp_path / "w.pt", weights_only=True)
        assert all(np.array_equal(weights[name], saved[name].numpy()) for name in weights)

    def test_what_a_run_began_with_can_be_kept_in_part(self, tmp_path: Path) -> None:
        """Weights lie on the line between those that it began with and those that it found."""
        begun, _ = fit(tmp_path / "begun.pt", seed=8)
        gone_on, _ = fit(tmp_path / "a.pt", start=tmp_path / "begun.pt")
        found, history = fit(tmp_path / "b.pt", start=tmp_path / "begun.pt", kept=0.25)
        assert history["config"]["kept"] == 0.25
        assert not close(gone_on, begun)
        for name, value in found.items():
            expected = 0.25 * begun[name] + 0.75 * gone_on[name]
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)

    def test_weights_are_averaged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is kept is the running mean of what each step left, with a short start."""
        seen: list[NDArray[np.float64]] = []
        original = module._Run._step

        def watched(run: Any, *given: Any) -> None:
            if not seen:
                seen.append(run.model.head.weight.detach().numpy().astype(np.float64))
            original(run, *given)
            seen.append(run.model.head.weight.detach().numpy().astype(np.float64))

        monkeypatch.setattr(module._Run, "_step", watched)
        weights, _ = fit(tmp_path / "w.pt", average=0.5)
        mean = seen[0].copy()
        for step, value in enumerate(seen[1:]):
            decay = min(0.5, (1 + step) / (10 + step))
            mean = decay * mean + (1 - decay) * value
        assert weights["head.weight"] == pytest.approx(mean, rel=1e-4, abs=1e-6)
        assert weights["head.weight"] != pytest.approx(seen[-1], rel=1e-4, abs=1e-6)

    def test_every_pass_has_its_own_order(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each epoch reads every example once, in batches that are not those of the last one."""
        seen: list[bytes] = []
        original = module.batch_loss

        def watched(model: Any, batch: Any, *given: Any) -> Any:
            seen.append(b"".join(sorted(targets.tobytes() for targets in batch.targets)))
            return original(model, batch, *given)

        monkeypatch.setattr(module, "batch_loss", watched)
        _, history = fit(tmp_path / "w.pt", epochs=2)
        assert (history["steps"], history["examples"], history["rows"]) == (30, 120, 120)
        assert sorted(b"".join(seen[:15])) == sorted(b"".join(seen[15:]))
        assert set(seen[:15]) != set(seen[15:])

    def test_single_heads_can_be_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The named head moves and no other; rows that know nothing of it are not read."""
        whole, _ = fit(tmp_path / "whole.pt", minutes=1e-9)
        given = Given()
        rows = [replace(row, labels={"violence": 1.0}) for row in given.passes[0]]
        given.passes = ([*rows[:20], *(replace(row, labels={"sexual": 1.0}) for row in rows)],)
        monkeypatch.setattr(f"{__name__}.Given", lambda **_: given)
        weights, history = fit(tmp_path / "one.pt", heads="violence", weight_decay=0.0)
        moved = np.abs(weights["head.weight"] - whole["head.weight"]).max(axis=1) > 1e-4
        assert [head for head, there in zip(HEADS, moved, strict=True) if there] == ["violence"]
        assert history["rows"] == 20

    def test_a_head_that_is_none_is_named(self) -> None:
        """A misspelt category is an error that says which one is meant."""
        with pytest.raises(ValueError, match="violence"):
            fit(Path("nowhere.pt"), heads="violense")

    @pytest.mark.parametrize("name", ["closing", "kept", "subwords", "taught"])
    @pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
    def test_a_share_that_is_none_is_named(self, name: str, value: float) -> None:
        """More than all, less than nothing or no number is an error that says which."""
        with pytest.raises(ValueError, match=f"`{name}` is a share"):
            Config(**{name: value})  # type: ignore[arg-type]

    @pytest.mark.parametrize("fold", ["1", "0/4", "5/4", "1/1", "one/two", "1/4/4", "-1/4"])
    def test_a_fold_that_is_none_is_named(self, fold: str) -> None:
        """Anything but a part of at least two is an error that says how one is written."""
        with pytest.raises(ValueError, match="`2/4`"):
            Config(fold=fold)

    def test_passes_that_are_not_drawn_are_named(self) -> None:
        """There is nothing to read again of none."""
        with pytest.raises(ValueError, match="at least one"):
            Config(draws=0)

    def test_folds_part_the_questions(self) -> None:
        """Each question is of one, and a run reads the rows of all others."""
        given = Given()
        given.passes = (
            [
                replace(r, question_number=n, labels={"violence": 1.0})
                for n, r in enumerate(given.passes[0])
            ],
        )
        read = [
            {row.question_number for row in module._ordered(given, Config(fold=f"{n}/4"), 0)}  # type: ignore[arg-type]
            for n in range(1, 5)
        ]
        everything = set(range(60))
        assert all(len(part) == 45 for part in read)
        assert set().union(*(everything - part for part in read)) == everything

    @pytest.mark.parametrize("draws", [1, 2])
    def test_passes_are_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: int
    ) -> None:
        """So many are drawn, and all of the epochs are read."""
        drawn: list[int] = []

        def watched(passes: Any, *_: Any, **__: Any) -> Any:
            for rows in passes:
                drawn.append(len(rows))
                yield pack([row.example for row in rows])

        monkeypatch.setattr(module, "encoded", watched)
        _, history = fit(tmp_path / "w.pt", epochs=3, draws=draws)
        assert (len(drawn), history["steps"], history["examples"]) == (draws, 45, 180)

    @pytest.mark.parametrize("stop", [1, 7, 14, 15, 22])
    def test_a_run_that_was_cut_off_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
    ) -> None:
        """Begun again it ends with the weights and the history of a run that was never cut."""
        whole, history = fit(tmp_path / "whole.pt", epochs=2)
        folder = tmp_path / "cut"
        folder.mkdir()
        steps = 0
        original = module.batch_loss

        def failing(*given: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == stop + 1:
                raise KeyboardInterrupt
            return original(*given)

        monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", -1.0)
        monkeypatch.setattr(module, "batch_loss", failing)
        with pytest.raises(KeyboardInterrupt):
            fit(folder / "w.pt", epochs=2)
        assert (folder / CHECKPOINT).is_file()
        steps = 100
        random.seed(99)
        torch.manual_seed(99)
        resumed, after = fit(folder / "w.pt", epochs=2)
        assert steps == 100 + 30 - stop
        assert close(whole, resumed)
        assert after["loss"] == pytest.approx(history["loss"], abs=1e-5)
        counted = ("steps", "examples", "rows", "config")
        assert [after[name] for name in counted] == [history[name] for name in counted]

    @pytest.mark.parametrize("other", [{"seed": 8}, {"rows": 9}])
    def test_a_checkpoint_of_another_run_is_not_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
    ) -> None:
        """A run with other settings, or as many other rows, begins at the beginning."""
        monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", -1.0)
        original = module.batch_loss
        calls = 0

        def failing(*given: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise KeyboardInterrupt
            return original(*given)

        monkeypatch.setattr(module, "batch_loss", failing)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "w.pt")
        calls = 100
        fit(tmp_path / "w.pt", **other)
        assert calls == 100 + 15

    def test_the_time_ends_a_run(self, tmp_path: Path) -> None:
        """A run without time takes no step and still leaves weights."""
        _, history = fit(tmp_path / "w.pt", minutes=1e-9)
        assert history["steps"] <= 1
        assert (tmp_path / "w.pt").is_file()

    def test_the_rate_rises_and_falls(self) -> None:
        """It is 0 at both ends and 1 where the warm-up ends."""
        assert module._schedule(0, 0.1) == 0
        assert module._schedule(0.1, 0.1) == pytest.approx(1)
        assert module._schedule(1, 0.1) == 0
        assert module._schedule(0.55, 0.1) == pytest.approx(0.5)
